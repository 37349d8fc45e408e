"""From whatever a request raised to one `LfaError` that says the cause and what helps."""

from __future__ import annotations

import re
import ssl
from socket import gaierror
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from lsst_lfa import errors
from lsst_lfa._signatures import is_signed

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ErrorRule", "RequestInfo", "TransportError", "service_error", "translate_error"]


# Of what a server, or a library, says of a failure: more is a web page.
_LONGEST_REASON = 500


def one_line(text: str) -> str:
    """Return text that others wrote as a message may show it: in one line, not too long, and nothing signed."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: 4 * _LONGEST_REASON]).split())
    shown = line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}..."
    return "(not shown: it looks signed)" if is_signed(text) else shown


class RequestInfo(NamedTuple):
    """What an error message tells of a request; ``unsigned`` is why it has no signature, or empty if it has one."""

    operation: str
    bucket: str
    key: str | None
    endpoint: str
    unsigned: str = ""

    def __str__(self) -> str:
        where = f"s3://{self.bucket}/{self.key}" if self.key is not None else f"bucket {self.bucket}"
        return f"{self.operation} of {where if self.bucket else 'a session'} at {self.endpoint}"

    def failed(self, error: type[errors.LfaError], cause: str, hint: str = "", *, transient: bool) -> errors.LfaError:
        """Make an error that is not a response of the server's."""
        made = error(f"{self} failed: {one_line(cause)}. {hint}".rstrip())
        made.transient = transient
        return made


class TransportError(Exception):
    """A failure that our HTTP session explains itself; `translate_error` adds the request.

    Parameters
    ----------
    error : `type`
        What it becomes.
    cause, hint : `str`
        What happened, and what helps.
    """

    def __init__(self, error: type[errors.LfaError], cause: str, hint: str) -> None:
        super().__init__(cause)
        self.error = error
        self.cause = cause
        self.hint = hint


class ErrorRule(NamedTuple):
    """What an error code of S3's means, what helps, and whether a retry may."""

    error: type[errors.ServiceError]
    hint: str = ""
    transient: bool = False


_DENIED = ErrorRule(
    errors.AccessDeniedError,
    "The bucket belongs to somebody else, or its policy does not allow this user the operation.",
)
_UNAUTHENTICATED = ErrorRule(errors.AuthenticationError, "Check the credentials.")
_UNKNOWN_ID = ErrorRule(
    errors.UnknownKeyIdError, "The server has no user with this access key id: check AWS_ACCESS_KEY_ID or the profile."
)
_EXPIRED = ErrorRule(errors.ExpiredCredentialsError, "Get a new session token.")
_SKEW = ErrorRule(errors.ClockSkewError, "Set this machine's clock: it and the server's differ too much.")
_BUSY = ErrorRule(errors.UnavailableError, "The service is overloaded or down; try again later.", transient=True)
_EXISTS = ErrorRule(errors.KeyExistsError, "Nothing was replaced: choose another key, or upload without if_none_match.")
_CHANGED = ErrorRule(errors.ObjectChangedError, "The object was replaced in the meantime; start again.")
_DIGEST_HINT = "The bytes were changed on their way: check the network and the proxies."
_DIGEST = ErrorRule(errors.DigestRefusedError, _DIGEST_HINT, transient=True)
_QUOTA = ErrorRule(
    errors.QuotaExceededError, "The quota of the user or of the bucket is used up: delete objects, or have it raised."
)
_REGION = ErrorRule(errors.ServiceError, "Set the bucket's own region: AWS_DEFAULT_REGION, or S3Session(region=...).")
_RETRY = ErrorRule(errors.ServiceError, transient=True)
_TOO_LARGE = ErrorRule(
    errors.TooLargeError,
    "The server, or a proxy before it, limits the size of a request's body: set TransferConfig.part_size, "
    "memory_part_size and multipart_threshold below the limit, or raise it (nginx: client_max_body_size).",
)

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and Ceph's rgw_common.cc
_RULES = {
    "NoSuchKey": ErrorRule(errors.KeyNotFoundError, "Check the key."),
    "NoSuchBucket": ErrorRule(
        errors.BucketNotFoundError, "Check the bucket's name and the endpoint, or make it: create()."
    ),
    "NoSuchUpload": ErrorRule(errors.UploadNotFoundError, "The multipart upload was completed or aborted."),
    "BucketAlreadyExists": ErrorRule(errors.BucketTakenError, "Choose another name."),
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "InvalidAccessKeyId": _UNKNOWN_ID,
    "SignatureDoesNotMatch": ErrorRule(
        errors.WrongSecretError, "Most often the secret key is wrong: check AWS_SECRET_ACCESS_KEY or the profile."
    ),
    "ExpiredToken": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": _SKEW,
    "RequestExpired": _SKEW,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "QuotaExceeded": _QUOTA,
    "TooManyBuckets": _QUOTA,
    "PreconditionFailed": _CHANGED,
    "BadDigest": _DIGEST,
    "InvalidDigest": ErrorRule(errors.DigestRefusedError, _DIGEST_HINT),
    "XAmzContentSHA256Mismatch": _DIGEST,
    "XAmzContentChecksumMismatch": _DIGEST,
    "EntityTooLarge": _TOO_LARGE,
    "ConditionalRequestConflict": _RETRY,
    "IncompleteBody": _RETRY,
    "OperationAborted": _RETRY,
    "RequestTimeout": _BUSY,
    "InternalError": _BUSY,
    "ServiceUnavailable": _BUSY,
    "SlowDown": _BUSY,
}
# For a code that is not listed, and for responses without a body, as to HEAD.
_RULES_BY_STATUS = {
    401: _UNAUTHENTICATED,
    403: _DENIED,
    407: ErrorRule(errors.AuthenticationError, "It is the proxy's: check HTTPS_PROXY or HTTP_PROXY, and NO_PROXY."),
    408: _BUSY,
    412: _CHANGED,
    413: _TOO_LARGE,
    425: _BUSY,
    429: _BUSY,
    500: _BUSY,
    502: _BUSY,
    503: _BUSY,
    504: _BUSY,
    # Cloudflare's, of a server that it does not reach: https://developers.cloudflare.com/support/troubleshooting
    **dict.fromkeys(range(520, 528), _BUSY),
}
_OTHER = ErrorRule(errors.ServiceError)
# To these the only condition that we send is that there is no such object.
_CREATING = frozenset({"put_object", "complete_multipart_upload"})
_PRECONDITION_FAILED = 412


class _LocalRule(NamedTuple):
    """What an exception raised on this side means, what helps, and whether a retry may."""

    kinds: tuple[type[BaseException], ...]
    error: type[errors.LfaError]
    cause: str
    hint: str
    transient: bool = False


# The first that matches says what happened, so the most telling come first.
_LOCAL = (
    _LocalRule(
        (
            boto.NoCredentialsError,
            boto.PartialCredentialsError,
            boto.CredentialRetrievalError,
            boto.MetadataRetrievalError,
            boto.SSOError,
        ),
        errors.MissingCredentialsError,
        "no usable credentials",
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile.",
    ),
    _LocalRule(
        (boto.BotoCoreError,),
        errors.ConfigurationError,
        "the settings are wrong",
        "Check the session's arguments, the AWS_* variables and AWS's configuration files.",
    ),
    _LocalRule(
        (ssl.SSLCertVerificationError, aiohttp.ClientConnectorCertificateError),
        errors.CertificateError,
        "the server's certificate was refused",
        "Check the host's name; for a private certificate authority set AWS_CA_BUNDLE or S3Session(verify=FILE).",
    ),
    _LocalRule(
        (aiohttp.InvalidURL,),
        errors.ConfigurationError,
        "the endpoint is not valid",
        "Check S3_ENDPOINT_URL.",
    ),
    _LocalRule(
        (TimeoutError,),
        errors.TransferTimeoutError,
        "the server took too long",
        "Check the server and the network, or raise TransferConfig.stall_timeout.",
        transient=True,
    ),
    _LocalRule(
        (ResponseParserError, aiohttp.ClientResponseError),
        errors.ProtocolError,
        "the response is not one that S3 gives",
        "Check that S3_ENDPOINT_URL is that of an S3 service.",
        transient=True,
    ),
    _LocalRule(
        (aiohttp.ClientProxyConnectionError,),
        errors.UnreachableError,
        "no connection to the proxy",
        "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY.",
        transient=True,
    ),
    _LocalRule(
        (aiohttp.ClientError, ConnectionError, gaierror, ssl.SSLError),
        errors.UnreachableError,
        "no connection to the server, or it broke",
        "Check S3_ENDPOINT_URL, the network, and that the service is up.",
        transient=True,
    ),
)

# All else in an error response may repeat what was signed, tokens too.
_HARMLESS = frozenset(
    {
        "BucketName",
        "Code",
        "Condition",
        "Endpoint",
        "HostId",
        "Key",
        "MaxAllowedSkewMilliseconds",
        "Message",
        "Region",
        "RequestId",
        "RequestTime",
        "Resource",
        "ServerTime",
        "UploadId",
    }
)

# What aiohttp tells of a connection's TLS context: its address in memory.
_TLS_OPTION = re.compile(r" ssl:(?:<[^>]*>|\w+)")
_NO_TLS = "Its URL begins with http://, or its port is another one."
_SECRET_HEADER = re.compile("token|authoriz|cookie|signature|credential", re.IGNORECASE)


def translate_error(error: Exception, request: RequestInfo) -> errors.LfaError | None:
    """Say what an exception means.

    Returns
    -------
    error : `LfaError` or `None`
        `None` for an exception that nobody foresaw: a bug. It is the caller's
        to see, at once and as it is.
    """
    if isinstance(error, errors.LfaError):
        return error
    if isinstance(error, boto.ClientError):
        return service_error(error, request)
    if isinstance(error, TransportError):
        return request.failed(error.error, error.cause, error.hint, transient=False)
    tls = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    if isinstance(tls, ssl.SSLError) and getattr(tls, "reason", "") == "WRONG_VERSION_NUMBER":
        return request.failed(errors.ConfigurationError, "the server does not speak TLS", _NO_TLS, transient=False)
    for rule in _LOCAL:
        # A parameter that botocore refuses was made by us: a bug.
        if isinstance(error, rule.kinds) and not isinstance(error, boto.ParamValidationError):
            text = str(error)
            text = re.sub(_TLS_OPTION, "", text)
            detail = f"{type(error).__name__}: {text}" if text else type(error).__name__
            return request.failed(rule.error, f"{rule.cause} ({detail})", rule.hint, transient=rule.transient)
    return None


def service_error(error: boto.ClientError, request: RequestInfo, rule: ErrorRule | None = None) -> errors.ServiceError:
    """Say what an error response means, by its code and status or by another ``rule``."""
    response = error.response = _without_secrets(error.response)
    error.args = (one_line(str(error)),)  # it is shown as the cause
    said = response["Error"]
    code, status = one_line(said.get("Code", "")), _status(response)
    if status == _PRECONDITION_FAILED and request.operation in _CREATING:
        rule = _EXISTS
    rule = rule or _RULES.get(code) or _RULES_BY_STATUS.get(status, _OTHER)
    if request.unsigned and issubclass(rule.error, PermissionError):
        rule = rule._replace(hint=request.unsigned)
    reason = one_line(said.get("Message") or "no reason given").rstrip(".")
    message = " ".join(
        filter(None, (f"{request} failed: {status} {code}: {reason}.", rule.hint, _region_hint(response)))
    )
    made = rule.error(message, response, request.operation)
    made.transient = rule.transient
    return made


def _without_secrets(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return an error response without what may repeat a signature or a token, and what is not text."""
    said, metadata = response.get("Error") or {}, response.get("ResponseMetadata") or {}
    headers = metadata.get("HTTPHeaders", {})
    return {
        **response,
        "Error": {name: text for name, text in said.items() if name in _HARMLESS and _is_harmless(text)},
        "ResponseMetadata": {
            **metadata,
            "HTTPHeaders": {
                name: text for name, text in headers.items() if not _SECRET_HEADER.search(name) and _is_harmless(text)
            },
        },
    }


def _is_harmless(text: object) -> bool:
    return isinstance(text, str) and not is_signed(text)


def _status(response: dict[str, Any]) -> int:
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _region_hint(response: dict[str, Any]) -> str:
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = response["Error"].get("Region") or headers.get("x-amz-bucket-region")
    wrong = response["Error"].get("Code") in {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
    # The response to HEAD has no code.
    wrong = wrong or (_status(response) == 400 and "x-amz-bucket-region" in headers)  # noqa: PLR2004
    return f"The bucket's region is {one_line(region)}." if wrong and region else ""
