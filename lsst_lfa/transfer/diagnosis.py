"""From whatever a request raised to one `LfaError` that says cause and cure."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from lsst_lfa import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Reading", "Request", "diagnose", "is_transient", "service_error"]


class Request(NamedTuple):
    """What an error message tells of a request."""

    operation: str
    bucket: str
    key: str | None
    endpoint: str

    def __str__(self) -> str:
        where = f"s3://{self.bucket}/{self.key}" if self.key is not None else f"bucket {self.bucket}"
        return f"{self.operation} of {where} at {self.endpoint}"


class Reading(NamedTuple):
    """What an error code means, and what helps."""

    error: type[errors.ServiceError]
    cure: str


_DENIED = Reading(
    errors.AccessDeniedError,
    "The bucket belongs to somebody else, or its policy does not allow this user the operation.",
)
_UNKNOWN_ID = Reading(
    errors.UnknownKeyIdError, "The server has no user with this access key id: check AWS_ACCESS_KEY_ID or the profile."
)
_EXPIRED = Reading(errors.ExpiredCredentialsError, "Get a new session token.")
_SKEW = Reading(errors.ClockSkewError, "Set this machine's clock: it and the server's differ too much.")
_BUSY = Reading(errors.UnavailableError, "The service is overloaded or down; try again later.")
_CHANGED = Reading(errors.ObjectChangedError, "The object was replaced in the meantime; start again.")
_DIGEST = Reading(errors.DigestRefusedError, "The bytes were changed on their way: check the network and the proxies.")
_TOO_LARGE = Reading(
    errors.TooLargeError,
    "The server, or a proxy before it, caps the request's body: set TransferConfig.part_size, "
    "memory_part_size and multipart_threshold below the cap, or raise it (nginx: client_max_body_size).",
)

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; a bare
# status stands for answers without a body, as those to HEAD.
_READINGS = {
    "NoSuchKey": Reading(errors.KeyNotFoundError, "Check the key."),
    "NoSuchBucket": Reading(
        errors.BucketNotFoundError, "Check the bucket's name and the endpoint, or make it: create()."
    ),
    "NoSuchUpload": Reading(errors.UploadNotFoundError, "The multipart upload was completed or aborted."),
    "BucketAlreadyExists": Reading(errors.BucketTakenError, "Choose another name."),
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "InvalidAccessKeyId": _UNKNOWN_ID,
    "SignatureDoesNotMatch": Reading(
        errors.WrongSecretError, "Most often the secret key is wrong: check AWS_SECRET_ACCESS_KEY or the profile."
    ),
    "ExpiredToken": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": _SKEW,
    "RequestExpired": _SKEW,
    "PreconditionFailed": _CHANGED,
    "BadDigest": _DIGEST,
    "InvalidDigest": _DIGEST,
    "XAmzContentSHA256Mismatch": _DIGEST,
    "XAmzContentChecksumMismatch": _DIGEST,
    "EntityTooLarge": _TOO_LARGE,
    "RequestTimeout": _BUSY,
}
_READINGS_BY_STATUS = {
    403: _DENIED,
    412: _CHANGED,
    413: _TOO_LARGE,
    408: _BUSY,
    429: _BUSY,
    500: _BUSY,
    502: _BUSY,
    503: _BUSY,
    504: _BUSY,
}
_OTHER = Reading(errors.ServiceError, "")

_TRANSIENT_STATUS = frozenset(_READINGS_BY_STATUS) - {403, 412, 413}
_TRANSIENT_CODES = frozenset(
    {
        "BadDigest",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)


def is_transient(error: errors.LfaError) -> bool:
    """Whether trying the same request again may help."""
    if isinstance(error, errors.ServiceError):
        return _code(error.response) in _TRANSIENT_CODES or _status(error.response) in _TRANSIENT_STATUS
    if isinstance(error, errors.CertificateError):
        return False
    return isinstance(
        error,
        (errors.UnreachableError, errors.TransferTimeoutError, errors.ProtocolError, errors.IntegrityError),
    )


def diagnose(error: Exception, request: Request) -> errors.LfaError | None:
    """Say what an exception means.

    Returns
    -------
    error : `LfaError` or `None`
        `None` for an exception that is not of the network's or the server's
        making: a full disk, say. It is the caller's to see as it is.
    """
    if isinstance(error, errors.LfaError):
        return error
    if isinstance(error, boto.ClientError):
        return service_error(error, request)
    chain = list(_chain(error))
    for kinds, make in _LOCAL:
        found = next((link for link in chain if isinstance(link, kinds)), None)
        if found is not None:
            return make(request, found)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Walk from an exception to what lies beneath it."""
    link: BaseException | None = error
    while link is not None:
        yield link
        kwargs = getattr(link, "kwargs", None)
        inner = kwargs.get("error") if isinstance(kwargs, dict) else None
        link = inner if isinstance(inner, BaseException) else link.__cause__


def _code(response: dict[str, Any]) -> str:
    return str(response.get("Error", {}).get("Code", ""))


def _status(response: dict[str, Any]) -> int:
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def service_error(error: boto.ClientError, request: Request, reading: Reading | None = None) -> errors.ServiceError:
    """Say what an answer means, by its code and status or by another ``reading``."""
    response: dict[str, Any] = dict(error.response)
    # AWS repeats a signature that it refuses: a presigned URL's is a secret.
    response.get("Error", {}).pop("SignatureProvided", None)
    code, status = _code(response), _status(response)
    reading = reading or _READINGS.get(code) or _READINGS_BY_STATUS.get(status, _OTHER)
    said = str(response.get("Error", {}).get("Message") or "no reason given").rstrip(".")
    message = f"{request} failed: {status} {code}: {said}. {reading.cure}".rstrip()
    return reading.error(message, response, request.operation)


_Maker = Callable[[Request, BaseException], errors.LfaError]


def _plain(error: type[errors.LfaError], cause: str, cure: str) -> _Maker:
    def make(request: Request, link: BaseException) -> errors.LfaError:
        detail = f" ({type(link).__name__}: {link})" if str(link) else f" ({type(link).__name__})"
        return error(f"{request} failed: {cause}{detail}. {cure}")

    return make


# The first that matches anything in the chain of causes says what happened,
# so the most telling come first.
_LOCAL: tuple[tuple[tuple[type[BaseException], ...], _Maker], ...] = (
    (
        (errors.RedirectRefusedError,),
        _plain(
            errors.RedirectRefusedError,
            "the server wants it sent elsewhere, which was not done",
            "Check S3_ENDPOINT_URL and the region: they should name the bucket's own service.",
        ),
    ),
    (
        (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError),
        _plain(
            errors.MissingCredentialsError,
            "no usable credentials",
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile.",
        ),
    ),
    (
        (ssl.SSLCertVerificationError, aiohttp.ClientConnectorCertificateError),
        _plain(
            errors.CertificateError,
            "the server's certificate was refused",
            "Check the host's name; for a private certificate authority set AWS_CA_BUNDLE or S3Session(verify=FILE).",
        ),
    ),
    (
        (TimeoutError, boto.ConnectTimeoutError, boto.ReadTimeoutError),
        _plain(
            errors.TransferTimeoutError,
            "the server took too long",
            "Check the server and the network, or raise TransferConfig.request_timeout.",
        ),
    ),
    (
        (ResponseParserError,),
        _plain(errors.ProtocolError, "the answer is not S3's", "Is S3_ENDPOINT_URL that of an S3 service?"),
    ),
    (
        (boto.HTTPClientError, boto.ConnectionError, aiohttp.ClientError, ConnectionError, ssl.SSLError),
        _plain(
            errors.UnreachableError,
            "no connection to the server, or it broke",
            "Check S3_ENDPOINT_URL, the network, and that the service is up.",
        ),
    ),
    (
        (boto.BotoCoreError,),
        _plain(errors.LfaError, "the request could not be made", "Check the session's settings."),
    ),
)
