"""A drop-in replacement for the current ``lsst.ts.salobj.AsyncS3Bucket``, built on this package.

To move a component, change one import::

    from lsst_lfa.salobj import AsyncS3Bucket

Only the constructor and the naming scheme differ from
`lsst_lfa.AsyncS3Bucket`; everything else is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import naming
from ._bucket import S3Bucket

if TYPE_CHECKING:
    from astropy.time import Time

    from ._mock.server import MockS3Server

__all__ = ["AsyncS3Bucket"]


class AsyncS3Bucket(S3Bucket):
    """Asynchronous interface to a bucket that components share.

    Creating a bucket is synchronous, does no I/O (but see ``domock``) and
    needs no running event loop. Closing it (`aclose`, or ``async with``) is
    recommended but not required: it can be dropped without a warning.

    Parameters
    ----------
    name : `str`
        The bucket; see `make_bucket_name`.
    create : `bool`, optional
        Create the bucket on first use, if it does not exist.
    profile : `str`, optional
        A profile in the AWS configuration files.
    domock : `bool`, optional
        Start a mock S3 server that holds an empty bucket of this name, and
        use only that, whatever the environment says.

    Attributes
    ----------
    name : `str`
        As given.
    profile : `str` or `None`
        As given.
    mock : `MockS3Server` or `None`
        The mock server, while it runs.

    Raises
    ------
    ValueError
        If the name is not a valid bucket name, or if ``S3_ENDPOINT_URL`` is
        not a URL.
    """

    def __init__(
        self,
        name: str,
        *,
        create: bool = False,
        profile: str | None = None,
        domock: bool = False,
    ) -> None:
        super().__init__(name, domock, create=create, profile=profile)
        self.mock: MockS3Server | None = self._mock

    @staticmethod
    def make_bucket_name(s3instance: str, s3category: str = "LFA") -> str:
        """Return the name of a site's bucket.

        Parameters
        ----------
        s3instance : `str`
            The site of the S3 service, such as ``Summit`` or ``Tucson``.
        s3category : `str`
            What the service is for.

        Returns
        -------
        name : `str`
            ``rubinobs-{s3category}-{s3instance}`` in lower case.

        Raises
        ------
        TypeError
            If an argument is of the wrong type.
        ValueError
            If an argument does not start and end with an ASCII letter or
            digit, or has anything but letters, digits and ".", or if
            the name has more than 63 characters.
        """
        category = naming.check_name("s3category", s3category)
        instance = naming.check_name("s3instance", s3instance)
        return naming.lower_bucket_name(f"rubinobs-{category}-{instance}")

    @staticmethod
    def make_key(  # noqa: PLR0917 - so that positional calls keep working
        salname: str,
        salindexname: str | int | None,
        generator: str,
        date: Time | str,
        other: object = None,
        stem: str | None = None,
        suffix: str = ".dat",
    ) -> str:
        """Return the key of a data item.

        Parameters
        ----------
        salname : `str`
            Name of the SAL component, such as ``ATPtg``.
        salindexname : `str`, `int` or `None`
            For a component with an index: the name that goes with the index,
            or the index. `None`, 0 or "" for a component without one.
        generator : `str`
            Type of the data.
        date : `astropy.time.Time` or `str`
            When the data were taken; see `lsst_lfa.naming.observing_date`.
        other : `str`, optional
            Distinguishes this item from others; by default the date as TAI,
            ``YYYY-MM-DDThh:mm:ss.sss``. Anything else is converted to `str`.
        stem : `str`, optional
            The whole file name before the suffix, instead of the one that is
            built from the other arguments. It may contain "/".
        suffix : `str`, optional
            The end of the file name, with its ".".

        Returns
        -------
        key : `str`
            ``{fullsalname}/{generator}/{yyyy}/{mm}/{dd}/{fullsalname}_{generator}_{other}{suffix}``,
            where ``fullsalname`` is ``{salname}:{salindexname}`` or, for a
            component without an index, ``salname``; and the day is that of
            the date, as TAI and rounded to milliseconds, minus 12 hours.

        Raises
        ------
        TypeError
            If the date is of the wrong type.
        ValueError
            If the salname or generator is empty, the date cannot be used, or
            the key is not valid in S3.
        """
        for argument, value in (("salname", salname), ("generator", generator)):
            if not value:
                msg = f"{argument}={value!r} must not be empty"
                raise ValueError(msg)
        tai_iso, yyyy, mm, dd = naming.observing_date(date)
        fullsalname = f"{salname}:{salindexname}" if salindexname else salname
        if stem is None:
            stem = f"{fullsalname}_{generator}_{tai_iso if other is None else other}"
        return naming.check_key(f"{fullsalname}/{generator}/{yyyy}/{mm}/{dd}/{stem}{suffix}")

    def stop_mock(self) -> None:
        """Stop the mock S3 server, if one is running."""
        super().stop_mock()
        self.mock = None
