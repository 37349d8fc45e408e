"""What can go wrong: one tree, with `LfaError` at its root.

::

    LfaError
    ├── ServiceError                the server responded with an error; also a botocore ClientError
    │   ├── KeyNotFoundError        also a FileNotFoundError
    │   ├── BucketNotFoundError     also a FileNotFoundError
    │   ├── UploadNotFoundError     the multipart upload is finished, aborted or unknown
    │   ├── BucketTakenError        also a FileExistsError
    │   ├── KeyExistsError          also a FileExistsError
    │   ├── AuthenticationError     the server does not accept who we say we are; also a PermissionError
    │   │   ├── UnknownKeyIdError   no user has this access key id
    │   │   ├── WrongSecretError    the signature does not match
    │   │   ├── ExpiredCredentialsError
    │   │   ├── ExpiredUrlError     a presigned URL has expired
    │   │   └── ClockSkewError      this machine's clock is off
    │   ├── AccessDeniedError       this user may not do this; also a PermissionError
    │   ├── QuotaExceededError      the user's or the bucket's quota is used up
    │   ├── ObjectChangedError      the object was replaced in the middle of a download
    │   ├── TooLargeError           more bytes than the server or a proxy takes in one request
    │   ├── UnavailableError        500, 503, SlowDown, 429, ..., for longer than we retried
    │   └── DigestRefusedError      also an IntegrityError
    ├── IntegrityError              bytes were changed on their way
    ├── UnverifiableError           the ETag says nothing about the bytes, so they cannot be checked
    ├── ConfigurationError          a setting is missing or wrong
    ├── MissingCredentialsError     also a PermissionError
    ├── UnreachableError            also a ConnectionError
    │   └── CertificateError        the server's certificate was refused
    ├── RedirectRefusedError        a redirect would send data and credentials elsewhere
    ├── TransferTimeoutError        also a TimeoutError
    ├── ProtocolError               the response is not one that S3 gives
    ├── SourceChangedError          the source grew or shrank while it was read
    ├── NotStoredError              neither S3 nor the spool has a published file
    └── ClosedError                 closed while the transfer was under way

Errors of a source, a callback or the local disk keep their own type and carry
a note that names the transfer.
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
    """The root of all errors of this package.

    Attributes
    ----------
    transient : `bool`
        Whether the same call may succeed later, if nothing is changed.
    attempts : `int`
        How often the request that failed was sent.
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
    """A bucket of this name belongs to somebody else."""

    _errno = errno.EEXIST


class KeyExistsError(ServiceError, FileExistsError):
    """The bucket has an object with this key already, which was not to be replaced."""

    _errno = errno.EEXIST


class AuthenticationError(ServiceError, PermissionError):
    """The server does not accept the credentials."""

    _errno = errno.EACCES


class UnknownKeyIdError(AuthenticationError):
    """The server knows no user with this access key id."""


class WrongSecretError(AuthenticationError):
    """The signature does not match: most often a wrong secret key."""


class ExpiredCredentialsError(AuthenticationError):
    """The session token has expired or is not valid."""


class ExpiredUrlError(AuthenticationError):
    """The presigned URL has expired."""


class ClockSkewError(AuthenticationError):
    """The clocks of this machine and of the server differ too much."""


class AccessDeniedError(ServiceError, PermissionError):
    """The server knows the user, but does not permit this."""

    _errno = errno.EACCES


class QuotaExceededError(ServiceError):
    """The quota of the user or of the bucket is used up."""


class ObjectChangedError(ServiceError):
    """The object was replaced while it was being downloaded."""


class TooLargeError(ServiceError):
    """The request is larger than the server, or a proxy, accepts."""


class UnavailableError(ServiceError):
    """The server could not serve the request, for longer than we retried."""


class IntegrityError(LfaError):
    """Bytes were changed on their way, or in the store."""


class DigestRefusedError(ServiceError, IntegrityError):
    """The server received bytes other than those that were signed."""


class UnverifiableError(LfaError):
    """The object's ETag is not a digest of its bytes, so a download cannot be verified."""


class ConfigurationError(LfaError):
    """A setting is missing, or wrong: a profile, a file, an endpoint."""


class MissingCredentialsError(LfaError, PermissionError):
    """There are no credentials, or only some of them."""

    _errno = errno.EACCES


class UnreachableError(LfaError, ConnectionError):
    """There was no connection to the server, or it kept breaking, for longer than we retried."""


class CertificateError(UnreachableError):
    """The server's certificate was refused."""


class RedirectRefusedError(LfaError):
    """The server responded with a redirect; nothing was sent there."""


class TransferTimeoutError(LfaError, TimeoutError):
    """A time limit of `TransferConfig` was reached."""

    _errno = errno.ETIMEDOUT


class ProtocolError(LfaError):
    """The response is not one that an S3 service gives."""


class SourceChangedError(LfaError):
    """The source gave more, or fewer, bytes than its size promised."""


class NotStoredError(LfaError):
    """A file that was to be published is neither in S3 nor in the spool."""


class ClosedError(LfaError):
    """The bucket or session was closed while the transfer was under way."""
