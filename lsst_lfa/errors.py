"""What can go wrong: one tree, with `LfaError` at its root.

::

    LfaError
    ├── ServiceError                the server answered with an error; also a botocore ClientError
    │   ├── KeyNotFoundError        also a FileNotFoundError
    │   ├── BucketNotFoundError     also a FileNotFoundError
    │   ├── UploadNotFoundError     the multipart upload is finished, aborted or unknown
    │   ├── BucketTakenError        also a FileExistsError
    │   ├── AccessDeniedError       also a PermissionError
    │   │   ├── UnknownKeyIdError   no user has this access key id
    │   │   ├── WrongSecretError    the signature does not match
    │   │   ├── ExpiredCredentialsError
    │   │   ├── ExpiredUrlError     a presigned URL's time is over
    │   │   └── ClockSkewError      this machine's clock is off
    │   ├── ObjectChangedError      the object was replaced in mid-download
    │   ├── TooLargeError           more bytes than the server or a proxy takes in one request
    │   ├── UnavailableError        500, 503, SlowDown, 429, ...: for longer than we tried
    │   └── DigestRefusedError      also an IntegrityError
    ├── IntegrityError              bytes were changed on their way
    ├── MissingCredentialsError     also a PermissionError
    ├── UnreachableError            also a ConnectionError
    │   └── CertificateError        the server's certificate was refused
    ├── RedirectRefusedError        a redirect would send data and credentials elsewhere
    ├── TransferTimeoutError        also a TimeoutError
    ├── ProtocolError               the answer is not one that S3 gives
    ├── SourceChangedError          the source grew or shrank while it was read
    └── ClosedError                 closed while the transfer was under way

Errors of a source, a callback or the local disk keep their own type and carry
a note that names the transfer.
"""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

__all__ = [
    "AccessDeniedError",
    "BucketNotFoundError",
    "BucketTakenError",
    "CertificateError",
    "ClockSkewError",
    "ClosedError",
    "DigestRefusedError",
    "ExpiredCredentialsError",
    "ExpiredUrlError",
    "IntegrityError",
    "KeyNotFoundError",
    "LfaError",
    "MissingCredentialsError",
    "ObjectChangedError",
    "ProtocolError",
    "RedirectRefusedError",
    "ServiceError",
    "SourceChangedError",
    "TooLargeError",
    "TransferTimeoutError",
    "UnavailableError",
    "UnknownKeyIdError",
    "UnreachableError",
    "UploadNotFoundError",
    "WrongSecretError",
]


class LfaError(Exception):
    """The root of all errors of this package."""


class ServiceError(LfaError, ClientError):
    """The server answered a request with an error.

    Parameters
    ----------
    message : `str`
        What failed, why, and what helps.
    response : `dict`
        The answer as botocore parsed it: ``response["Error"]["Code"]``.
    operation_name : `str`
        The S3 operation, e.g. ``PutObject``.
    """

    def __init__(self, message: str, response: dict[str, Any], operation_name: str) -> None:
        # ClientError's own constructor would put its own words for ours.
        Exception.__init__(self, message)
        self.response: Any = response
        self.operation_name = operation_name

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[type[ServiceError], tuple[Any, ...]]:
        return type(self), (self.args[0], self.response, self.operation_name)


class KeyNotFoundError(ServiceError, FileNotFoundError):
    """The bucket has no object with this key."""


class BucketNotFoundError(ServiceError, FileNotFoundError):
    """The server has no such bucket."""


class UploadNotFoundError(ServiceError):
    """The multipart upload was finished, aborted, or never begun."""


class BucketTakenError(ServiceError, FileExistsError):
    """A bucket of this name belongs to somebody else."""


class AccessDeniedError(ServiceError, PermissionError):
    """The server refused the request for who sent it."""


class UnknownKeyIdError(AccessDeniedError):
    """The server knows no user with this access key id."""


class WrongSecretError(AccessDeniedError):
    """The signature does not match: most often a wrong secret key."""


class ExpiredCredentialsError(AccessDeniedError):
    """The session token has expired or is not valid."""


class ExpiredUrlError(AccessDeniedError):
    """The presigned URL has expired."""


class ClockSkewError(AccessDeniedError):
    """The clocks of this machine and of the server are too far apart."""


class ObjectChangedError(ServiceError):
    """The object was replaced while it was being downloaded."""


class TooLargeError(ServiceError):
    """The request has more bytes than the server, or a proxy, takes."""


class UnavailableError(ServiceError):
    """The server could not serve the request, for longer than we tried."""


class IntegrityError(LfaError):
    """Bytes were changed on their way, or in the store."""


class DigestRefusedError(ServiceError, IntegrityError):
    """The server got other bytes than the ones that were signed."""


class MissingCredentialsError(LfaError, PermissionError):
    """There are no credentials, or only a part of them."""


class UnreachableError(LfaError, ConnectionError):
    """No connection to the server, or it broke for longer than we tried."""


class CertificateError(UnreachableError):
    """The server's certificate was refused."""


class RedirectRefusedError(LfaError):
    """The server answered with a redirect; nothing was sent there."""


class TransferTimeoutError(LfaError, TimeoutError):
    """A time limit of `TransferConfig` was reached."""


class ProtocolError(LfaError):
    """The answer is not one that an S3 service gives."""


class SourceChangedError(LfaError):
    """The source gave more, or fewer, bytes than its size promised."""


class ClosedError(LfaError):
    """The bucket or session was closed while the transfer was under way."""
