"""Exceptions: one tree, with `LfaError` at its root.

::

    LfaError
    ├── ServiceError                the server responded with an error; also a botocore ClientError
    │   ├── KeyNotFoundError        also a FileNotFoundError
    │   ├── BucketNotFoundError     also a FileNotFoundError
    │   ├── UploadNotFoundError     the multipart upload is finished, aborted or unknown
    │   ├── BucketTakenError        also a FileExistsError
    │   ├── KeyExistsError          also a FileExistsError
    │   ├── AuthenticationError     the server does not accept the credentials; also a PermissionError
    │   │   ├── UnknownKeyIdError   the server does not know the access key ID
    │   │   ├── WrongSecretError    the signature does not match
    │   │   ├── ExpiredCredentialsError
    │   │   ├── ExpiredUrlError     a presigned URL has expired
    │   │   └── ClockSkewError      this machine's clock is off
    │   ├── AccessDeniedError       this user may not do that; also a PermissionError
    │   ├── QuotaExceededError      the user's or the bucket's quota is exhausted
    │   ├── ObjectChangedError      the object was replaced during the operation
    │   ├── TooLargeError           more bytes than the server or a proxy accepts in one request
    │   ├── UnavailableError        500, 503, SlowDown, 429, ..., even after retries
    │   └── DigestRefusedError      also an IntegrityError
    ├── IntegrityError              the data were altered in transit, or in storage
    ├── UnverifiableError           the ETag is not a digest of the data, so they cannot be verified
    ├── ConfigurationError          a setting is missing or invalid
    ├── MissingCredentialsError     also a PermissionError
    ├── UnreachableError            also a ConnectionError
    │   └── CertificateError        the server's certificate was rejected
    ├── RedirectRefusedError        a redirect would send data and credentials elsewhere
    ├── TransferTimeoutError        also a TimeoutError
    ├── ProtocolError               the response is not a valid S3 response
    ├── SourceChangedError          the source changed while it was read
    ├── NotStoredError              a file could be stored neither in S3 nor in the spool
    └── ClosedError                 closed while the transfer was in progress

Errors raised by a source, a callback or the local disk keep their own type and
carry a note that names the transfer.

The table in ``_transfer/failures.py`` says which of S3's error codes, and which
network failures, become which exception.
"""

from __future__ import annotations

import errno
from typing import Any, ClassVar

from botocore.exceptions import ClientError

__all__ = [
    "AccessDeniedError",
    "AuthenticationError",
    "BucketNotFoundError",
    "BucketTakenError",
    "CertificateError",
    "ClockSkewError",
    "ClosedError",
    "ConfigurationError",
    "DigestRefusedError",
    "ExpiredCredentialsError",
    "ExpiredUrlError",
    "IntegrityError",
    "KeyExistsError",
    "KeyNotFoundError",
    "LfaError",
    "MissingCredentialsError",
    "NotStoredError",
    "ObjectChangedError",
    "ProtocolError",
    "QuotaExceededError",
    "RedirectRefusedError",
    "ServiceError",
    "SourceChangedError",
    "TooLargeError",
    "TransferTimeoutError",
    "UnavailableError",
    "UnknownKeyIdError",
    "UnreachableError",
    "UnverifiableError",
    "UploadNotFoundError",
    "WrongSecretError",
]


class LfaError(Exception):
    """Base class of all errors of this package.

    Attributes
    ----------
    transient : `bool`
        Whether the same call may succeed later, without any change.
    attempts : `int`
        Number of times that the failed request was sent.
    """

    transient: bool = False
    attempts: int = 1
    _errno: ClassVar[int | None] = None

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        _set_errno(self)


def _set_errno(error: LfaError) -> None:
    if isinstance(error, OSError):
        error.errno = error._errno  # noqa: SLF001 - this tree's own


class ServiceError(LfaError, ClientError):
    """The server responded with an error.

    Parameters
    ----------
    message : `str`
        What failed, why, and what to do.
    response : `dict`
        The response as botocore parsed it: ``response["Error"]["Code"]``.
    operation_name : `str`
        The S3 operation, e.g. ``PutObject``.
    """

    def __init__(self, message: str, response: dict[str, Any], operation_name: str) -> None:
        # Not ClientError's constructor, which composes a message of its own.
        Exception.__init__(self, message)
        _set_errno(self)
        self.response: Any = response
        self.operation_name = operation_name

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[type[ServiceError], tuple[Any, ...], dict[str, Any]]:
        return type(self), (self.args[0], self.response, self.operation_name), dict(vars(self))


class KeyNotFoundError(ServiceError, FileNotFoundError):
    """The bucket has no object with this key."""

    _errno = errno.ENOENT


class BucketNotFoundError(ServiceError, FileNotFoundError):
    """The server has no such bucket."""

    _errno = errno.ENOENT


class UploadNotFoundError(ServiceError):
    """The multipart upload was completed or aborted, or never existed."""


class BucketTakenError(ServiceError, FileExistsError):
    """A bucket of this name belongs to another account."""

    _errno = errno.EEXIST


class KeyExistsError(ServiceError, FileExistsError):
    """The key already exists, and the object was not to be replaced."""

    _errno = errno.EEXIST


class AuthenticationError(ServiceError, PermissionError):
    """The server does not accept the credentials."""

    _errno = errno.EACCES


class UnknownKeyIdError(AuthenticationError):
    """The server does not know this access key ID."""


class WrongSecretError(AuthenticationError):
    """The signature does not match; the secret key is probably wrong."""


class ExpiredCredentialsError(AuthenticationError):
    """The session token has expired or is invalid."""


class ExpiredUrlError(AuthenticationError):
    """The presigned URL has expired."""


class ClockSkewError(AuthenticationError):
    """The clock of this machine differs too much from the server's."""


class AccessDeniedError(ServiceError, PermissionError):
    """The server knows the user, but does not permit the operation."""

    _errno = errno.EACCES


class QuotaExceededError(ServiceError):
    """The user's or the bucket's quota is exhausted, or the account has too many buckets."""


class ObjectChangedError(ServiceError):
    """The object was replaced while it was being downloaded or copied."""


class TooLargeError(ServiceError):
    """The request is larger than the server, or a proxy, accepts."""


class UnavailableError(ServiceError):
    """The server was unavailable, even after retries."""


class IntegrityError(LfaError):
    """The data were altered in transit, or in storage."""


class DigestRefusedError(ServiceError, IntegrityError):
    """The server received data other than those that were signed."""


class UnverifiableError(LfaError):
    """The object's ETag is not a digest of its data, so a download cannot be verified."""


class ConfigurationError(LfaError):
    """A setting (a profile, a file, an endpoint, ...) is missing or invalid."""


class MissingCredentialsError(LfaError, PermissionError):
    """Credentials are missing or incomplete."""

    _errno = errno.EACCES


class UnreachableError(LfaError, ConnectionError):
    """The server could not be reached, or the connection kept breaking, even after retries."""


class CertificateError(UnreachableError):
    """The server's certificate was rejected."""


class RedirectRefusedError(LfaError):
    """The server responded with a redirect, which was not followed."""


class TransferTimeoutError(LfaError, TimeoutError):
    """A time limit was exceeded."""

    _errno = errno.ETIMEDOUT


class ProtocolError(LfaError):
    """The response is not a valid S3 response."""


class SourceChangedError(LfaError):
    """The source changed while it was read: it yielded more or fewer bytes than announced, or was written to."""


class NotStoredError(LfaError):
    """A file could be stored neither in S3 nor in the spool."""


class ClosedError(LfaError):
    """The bucket or session was closed while the transfer was in progress."""
