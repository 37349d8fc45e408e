"""Translates whatever a request raised into one `LfaError` that states the cause and the remedy."""

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


# Longest reason to show: anything longer is probably a web page.
_LONGEST_REASON = 500


def one_line(text: str) -> str:
    """Make text from outside safe for a message: one line, truncated, and withheld if it looks signed."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: 4 * _LONGEST_REASON]).split())
    shown = line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}..."
    return "(withheld: it seems to contain a signature)" if is_signed(text) else shown


class RequestInfo(NamedTuple):
    """The parts of a request that error messages mention; ``unsigned`` says why it has no signature, if it has none."""

    operation: str
    bucket: str
    key: str | None
    endpoint: str
    unsigned: str = ""

    def __str__(self) -> str:
        if not self.bucket:
            return f"opening a session at {self.endpoint}"
        where = f"of s3://{self.bucket}/{self.key}" if self.key is not None else f"on bucket {self.bucket}"
        return f"{self.operation} {where} at {self.endpoint}"

    def failed(self, error: type[errors.LfaError], cause: str, hint: str = "", *, transient: bool) -> errors.LfaError:
        """Make an error that did not come from a server's response."""
        made = error(f"{self} failed: {one_line(cause)}. {hint}".rstrip())
        made.transient = transient
        return made


class TransportError(Exception):
    """A failure that our HTTP session has already explained; `translate_error` adds the request.

    Parameters
    ----------
    error : `type`
        The exception class to raise.
    cause, hint : `str`
        What happened, and the remedy.
    """

    def __init__(self, error: type[errors.LfaError], cause: str, hint: str) -> None:
        super().__init__(cause)
        self.error = error
        self.cause = cause
        self.hint = hint


class ErrorRule(NamedTuple):
    """What an S3 error code means, the remedy, and whether a retry may help."""

    error: type[errors.ServiceError]
    hint: str = ""
    transient: bool = False


_DENIED = ErrorRule(
    errors.AccessDeniedError,
    "The bucket belongs to another account, or its policy does not allow this user to perform the operation.",
)
_UNAUTHENTICATED = ErrorRule(errors.AuthenticationError, "Check the credentials.")
_UNKNOWN_ID = ErrorRule(
    errors.UnknownKeyIdError, "The server does not know this access key ID: check AWS_ACCESS_KEY_ID or the profile."
)
_EXPIRED = ErrorRule(errors.ExpiredCredentialsError, "The session token has expired or is invalid: get a new one.")
_SKEW = ErrorRule(errors.ClockSkewError, "Correct this machine's clock: it differs too much from the server's.")
_BUSY = ErrorRule(errors.UnavailableError, "The service is overloaded or down; try again later.", transient=True)
_EXISTS = ErrorRule(
    errors.KeyExistsError,
    "The existing object was not replaced: choose another key, or upload without if_none_match.",
)
_CHANGED = ErrorRule(errors.ObjectChangedError, "The object was replaced during the operation; start again.")
_DIGEST_HINT = "The data were altered in transit: check the network and any proxies."
_DIGEST = ErrorRule(errors.DigestRefusedError, _DIGEST_HINT, transient=True)
_QUOTA = ErrorRule(
    errors.QuotaExceededError,
    "The user's or the bucket's quota is exhausted: delete objects, or ask for a larger quota.",
)
_REGION = ErrorRule(errors.ServiceError, "Set the bucket's region with AWS_DEFAULT_REGION or S3Session(region=...).")
_RETRY = ErrorRule(errors.ServiceError, transient=True)
_TOO_LARGE = ErrorRule(
    errors.TooLargeError,
    "The server, or a proxy in front of it, limits the size of a request body. Set TransferConfig.part_size, "
    "memory_part_size and multipart_threshold below that limit, or raise the limit (nginx: client_max_body_size).",
)

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and Ceph's rgw_common.cc
_RULES = {
    "NoSuchKey": ErrorRule(errors.KeyNotFoundError, "Check that the key is correct."),
    "NoSuchBucket": ErrorRule(
        errors.BucketNotFoundError, "Check the bucket name and the endpoint, or create the bucket with create()."
    ),
    "NoSuchUpload": ErrorRule(errors.UploadNotFoundError, "The multipart upload was already completed or aborted."),
    "BucketAlreadyExists": ErrorRule(errors.BucketTakenError, "The bucket name is taken: choose another."),
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "InvalidAccessKeyId": _UNKNOWN_ID,
    "SignatureDoesNotMatch": ErrorRule(
        errors.WrongSecretError, "The secret key is probably wrong: check AWS_SECRET_ACCESS_KEY or the profile."
    ),
    "ExpiredToken": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": _SKEW,
    "RequestExpired": _SKEW,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "QuotaExceeded": _QUOTA,
    "TooManyBuckets": ErrorRule(
        errors.QuotaExceededError, "The account has too many buckets: delete one, or ask for a higher limit."
    ),
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
# For codes that are not listed above, and for responses without a body (to HEAD).
_RULES_BY_STATUS = {
    401: _UNAUTHENTICATED,
    403: _DENIED,
    407: ErrorRule(
        errors.AuthenticationError,
        "The proxy, not the server, rejected the credentials: check HTTPS_PROXY or HTTP_PROXY, and NO_PROXY.",
    ),
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
# The only condition that we send with these is "If-None-Match: *", so status 412 means that the object exists.
_CREATING = frozenset({"put_object", "complete_multipart_upload"})
_PRECONDITION_FAILED = 412


class _LocalRule(NamedTuple):
    """What an exception raised on the client side means, the remedy, and whether a retry may help."""

    kinds: tuple[type[BaseException], ...]
    error: type[errors.LfaError]
    cause: str
    hint: str
    transient: bool = False


# The first match decides, so the most specific come first.
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
        "no usable credentials were found",
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or set a profile.",
    ),
    _LocalRule(
        (boto.BotoCoreError,),
        errors.ConfigurationError,
        "a setting is invalid",
        "Check the session's arguments, the AWS_* variables and the AWS configuration files.",
    ),
    _LocalRule(
        (ssl.SSLCertVerificationError, aiohttp.ClientConnectorCertificateError),
        errors.CertificateError,
        "the server's certificate was rejected",
        "Check the host name; for a private certificate authority, set AWS_CA_BUNDLE or S3Session(verify=...).",
    ),
    _LocalRule(
        (aiohttp.InvalidURL,),
        errors.ConfigurationError,
        "the endpoint URL is invalid",
        "Check S3_ENDPOINT_URL.",
    ),
    _LocalRule(
        (aiohttp.ConnectionTimeoutError,),
        errors.UnreachableError,
        "could not connect to the server in time",
        "Check S3_ENDPOINT_URL and the network, or raise S3Session(connect_timeout=...).",
        transient=True,
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
        "the response is not a valid S3 response",
        "Check that S3_ENDPOINT_URL points to an S3 service.",
        transient=True,
    ),
    _LocalRule(
        (aiohttp.ClientProxyConnectionError,),
        errors.UnreachableError,
        "could not connect to the proxy",
        "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY.",
        transient=True,
    ),
    _LocalRule(
        (aiohttp.ClientError, ConnectionError, gaierror, ssl.SSLError),
        errors.UnreachableError,
        "could not connect to the server, or the connection was lost",
        "Check S3_ENDPOINT_URL and the network, and that the service is running.",
        transient=True,
    ),
)

# Any other field of an error response may echo what was signed, including tokens.
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

# How aiohttp's messages show a connection's TLS context: by its address in memory.
_TLS_OPTION = re.compile(r" ssl:(?:<[^>]*>|\w+)")
_NO_TLS = "Use an http:// URL, or check the port."
_SECRET_HEADER = re.compile("token|authoriz|cookie|signature|credential", re.IGNORECASE)


def translate_error(error: Exception, request: RequestInfo) -> errors.LfaError | None:
    """Return the error that an exception means.

    Returns
    -------
    error : `LfaError` or `None`
        `None` if the exception is unforeseen, that is, a bug: the caller
        should see it at once and unchanged.
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
        # A parameter that botocore rejects came from us, so this is a bug.
        if isinstance(error, rule.kinds) and not isinstance(error, boto.ParamValidationError):
            text = str(error)
            text = re.sub(_TLS_OPTION, "", text)
            detail = f"{type(error).__name__}: {text}" if text else type(error).__name__
            return request.failed(rule.error, f"{rule.cause} ({detail})", rule.hint, transient=rule.transient)
    return None


def service_error(error: boto.ClientError, request: RequestInfo, rule: ErrorRule | None = None) -> errors.ServiceError:
    """Return the error that an error response means, by its code and status, or by ``rule``."""
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
    what = code if code == str(status) else f"{status} {code}"
    message = " ".join(filter(None, (f"{request} failed: {what}: {reason}.", rule.hint, _region_hint(response))))
    made = rule.error(message, response, request.operation)
    made.transient = rule.transient
    return made


def _without_secrets(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return an error response without anything that may echo a signature or a token, or that is not text."""
    said, metadata = response.get("Error") or {}, response.get("ResponseMetadata") or {}
    headers = metadata.get("HTTPHeaders", {})
    return {
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
    return f"The bucket is in region {one_line(region)}." if wrong and region else ""
