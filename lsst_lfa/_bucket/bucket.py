"""`AsyncS3Bucket`: all operations, and the observatory's naming scheme."""

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
    """All operations, independent of the naming scheme; see `AsyncS3Bucket`."""


@public
class AsyncS3Bucket(S3Bucket):
    """Asynchronous interface to an S3 bucket.

    Creating a bucket is synchronous, does no I/O (but see ``domock``) and
    needs no running event loop. The client is opened on first use. Close the
    bucket with `aclose`, or use it with ``async with``. If it is dropped
    without being closed, it emits no warning, and leaves nothing that outlives
    its event loop.

    Parameters
    ----------
    name : `str`
        The bucket's name; ``tenant:bucket`` for a bucket of a Ceph tenant.
    domock : `bool`, optional
        Start a mock S3 server that holds an empty bucket of this name, and use
        only that, whatever the environment says. Starting the first mock
        server in a process takes half a second or more, and blocks the event
        loop.
    create : `bool`, optional
        Create the bucket on first use, if it does not exist.
    profile : `str`, optional
        A profile in the AWS configuration files.
    session : `S3Session`, optional
        The session whose client to share. Closing the bucket does not close
        it.
    config : `TransferConfig`, optional
        Transfer settings; by default the session's.

    Raises
    ------
    ValueError
        If the name is not a valid bucket name, if ``S3_ENDPOINT_URL`` is not a
        URL, or if ``session`` is given with ``profile`` or ``domock``.

    Notes
    -----
    The endpoint is read from ``S3_ENDPOINT_URL`` when the bucket is created;
    blank or unset means AWS. Failures raise an `LfaError`; see
    `lsst_lfa.errors`. Tasks may share a bucket; event loops that are open at
    the same time may not.
    """

    @staticmethod
    def make_bucket_name(salname: str, salindexname: str | None, s3instance: str, s3category: str = "LFA") -> str:
        """Return the name of a component's bucket; see `lsst_lfa.naming.make_bucket_name`."""
        return naming.make_bucket_name(salname, salindexname, s3instance, s3category)

    @staticmethod
    def make_key(salname: str, generator: str, date: Time | str) -> str:
        """Return the key of a data item; see `lsst_lfa.naming.make_key`."""
        return naming.make_key(salname, generator, date)
