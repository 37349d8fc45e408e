"""`AsyncS3Bucket`: all verbs, and the observatory's scheme of names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsst_lfa import naming
from lsst_lfa._public import public

from .downloads import Downloads
from .management import Management
from .uploads import Uploads

if TYPE_CHECKING:
    from astropy.time import Time

__all__ = ["AsyncS3Bucket", "S3Bucket"]


class S3Bucket(Uploads, Downloads, Management):
    """What a bucket can do, whatever scheme makes its name and keys; see `AsyncS3Bucket`."""


@public
class AsyncS3Bucket(S3Bucket):
    """Asynchronous interface to a bucket of an S3 service.

    Making one is synchronous, does no I/O (but see ``domock``) and needs no
    running event loop. The first await opens the client. Close it with
    `aclose` or use it with ``async with``; one that is dropped unclosed is
    silent, and leaks nothing past its event loop.

    Parameters
    ----------
    name : `str`
        The bucket; for a Ceph tenant's, ``tenant:bucket``.
    domock : `bool`, optional
        Start a mock S3 server that holds an empty bucket of this name, and
        use only that, whatever the environment says. The first one in a
        process takes a second, during which the event loop is blocked.
    create : `bool`, optional
        Make the bucket on first use, if it does not exist.
    profile : `str`, optional
        A profile in AWS's configuration files.
    session : `S3Session`, optional
        Share this session's client. It is not closed with the bucket.
    config : `TransferConfig`, optional
        How transfers are carried out; by default the session's.

    Raises
    ------
    ValueError
        If the name cannot be that of a bucket, if ``S3_ENDPOINT_URL`` is not a
        URL, or if ``session`` is given with ``profile`` or ``domock``.

    Notes
    -----
    The endpoint is ``S3_ENDPOINT_URL`` in the environment, read now; blank or
    unset means AWS's own. Failures raise an `LfaError`; see `lsst_lfa.errors`.
    Tasks may share a bucket; each event loop needs its own.
    """

    @staticmethod
    def make_bucket_name(salname: str, salindexname: str | None, s3instance: str, s3category: str = "LFA") -> str:
        """Make the name of a component's bucket; see `lsst_lfa.naming.make_bucket_name`."""
        return naming.make_bucket_name(salname, salindexname, s3instance, s3category)

    @staticmethod
    def make_key(salname: str, generator: str, date: Time | str) -> str:
        """Make the key of an item of data; see `lsst_lfa.naming.make_key`."""
        return naming.make_key(salname, generator, date)
