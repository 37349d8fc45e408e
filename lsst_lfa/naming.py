"""Bucket names, keys, and the observing days in them."""

from __future__ import annotations

import re
import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from astropy.time import Time

__all__ = [
    "ObservingDate",
    "check_bucket",
    "check_key",
    "check_name",
    "is_tenant",
    "lower_bucket_name",
    "make_bucket_name",
    "make_key",
    "observing_date",
    "revised_key",
]

MAX_MADE_BUCKET_NAME: Final = 63
"""Maximum number of characters in the name of a new AWS bucket."""

MAX_KEY_BYTES: Final = 1024
"""Maximum number of bytes, in UTF-8, in an S3 key."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.]*[A-Za-z0-9])?")
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")  # botocore's rule for old buckets
_TENANT = re.compile(r"[A-Za-z0-9._-]*:[A-Za-z0-9._-]{1,255}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # Unicode's category Cc
_ISO = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)"
    r"(?:[T ](?P<time>\d\d:\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d*))?)?)?",
    re.ASCII,
)
_NIGHT_SHIFT = timedelta(hours=12)
# The suffix of a file's name; the fraction of a second is not one.
_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]*(?:\.(?:bz2|fz|gz|xz|zst))?$", re.ASCII)


class ObservingDate(NamedTuple):
    """A date in the form that keys use; create it with `observing_date`.

    Attributes
    ----------
    tai_iso : `str`
        The date as TAI: ``YYYY-MM-DDThh:mm:ss.sss``.
    yyyy, mm, dd : `str`
        The observing day, which begins at noon TAI: the day of ``tai_iso``
        minus 12 hours.
    """

    tai_iso: str
    yyyy: str
    mm: str
    dd: str


def make_bucket_name(salname: str, salindexname: str | None, s3instance: str, s3category: str = "LFA") -> str:
    """Return the name of a component's bucket.

    Parameters
    ----------
    salname : `str`
        Name of the SAL component, such as ``ATPtg``.
    salindexname : `str` or `None`
        For a component with an index: the name that goes with the index, or
        the index in digits. `None` for a component without one.
    s3instance : `str`
        The site of the S3 service, such as ``Summit`` or ``Tucson``.
    s3category : `str`
        What the service is for.

    Returns
    -------
    name : `str`
        ``rubinobs-{s3category}-{s3instance}-{salname}[.{salindexname}]`` in
        lower case.

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If an argument does not start and end with an ASCII letter or digit, or
        contains anything but letters, digits and ".", or if the name has more
        than 63 characters.
    """
    name = "-".join(
        [
            "rubinobs",
            check_name("s3category", s3category),
            check_name("s3instance", s3instance),
            check_name("salname", salname),
        ]
    )
    if salindexname is not None:
        name += "." + check_name("salindexname", salindexname)
    return lower_bucket_name(name)


def make_key(salname: str, generator: str, date: Time | str) -> str:
    """Return the key of a data item, in the scheme of `lsst_lfa.AsyncS3Bucket`.

    `LargeFileAnnex` publishes under keys of the other scheme: see
    `lsst_lfa.salobj.AsyncS3Bucket.make_key`.

    Parameters
    ----------
    salname : `str`
        Name of the SAL component, such as ``ATPtg``.
    generator : `str`
        Type of the data.
    date : `astropy.time.Time` or `str`
        When the data were taken; see `observing_date`.

    Returns
    -------
    key : `str`
        ``{yyyy}/{mm}/{dd}/{salname}-{generator}-{yyyy}{mm}{dd}-{tai_iso}``,
        with the parts of `ObservingDate`.

    Raises
    ------
    TypeError
        If an argument is of the wrong type.
    ValueError
        If a name is empty, the date cannot be used, or the key is not valid in
        S3.
    """
    for argument, value in (("salname", salname), ("generator", generator)):
        _check_str(argument, value)
        if not value:
            msg = f"{argument}={value!r} must not be empty"
            raise ValueError(msg)
    tai_iso, yyyy, mm, dd = observing_date(date)
    name = f"{salname}-{generator}-{yyyy}{mm}{dd}-{tai_iso}"
    return check_key(f"{yyyy}/{mm}/{dd}/{name}")


def check_name(argument: str, value: str) -> str:
    """Check a part of a bucket's name, and return it.

    Parameters
    ----------
    argument : `str`
        Its name, for an error.
    value : `str`
        The part.

    Raises
    ------
    TypeError
        If it is not a `str`.
    ValueError
        If it does not start and end with an ASCII letter or digit, or has
        anything but letters, digits and ".".
    """
    _check_str(argument, value)
    if not _NAME.fullmatch(value):
        msg = f"{argument}={value!r} must start and end with a letter or digit, and have only letters, digits and '.'"
        raise ValueError(msg)
    return value


def lower_bucket_name(name: str) -> str:
    """Return a new bucket's name in lower case.

    Raises
    ------
    ValueError
        If it has more than 63 characters.
    """
    if len(name) > MAX_MADE_BUCKET_NAME:
        msg = f"Bucket name {name!r} has {len(name)} characters: at most {MAX_MADE_BUCKET_NAME} are allowed"
        raise ValueError(msg)
    return name.lower()


def observing_date(date: Time | str) -> ObservingDate:
    """Round a date to milliseconds of TAI, and find its observing day.

    Rounding comes first, and happens once, so that both agree: a time just
    before noon may round up to noon, and then belongs to the next observing
    day.

    Parameters
    ----------
    date : `astropy.time.Time` or `str`
        A single time of any scale, or an ISO-8601 string, read as TAI:
        ``YYYY-MM-DD``, or with "T" or a space and ``hh:mm``, ``hh:mm:ss`` or
        ``hh:mm:ss.s`` with any number of digits; an exact half of a
        millisecond is rounded up.

    Raises
    ------
    TypeError
        If it is of another type.
    ValueError
        If there is no such date, if it is not in the years 1 to 9999, or if
        the `~astropy.time.Time` is an array, masked, or of a scale that has
        no relation to TAI.

    Notes
    -----
    A UT1 time needs astropy's table of the Earth's rotation, which astropy may
    download, so this may block. A string needs no astropy at all.
    """
    tai_iso = date if isinstance(date, str) else _tai_iso(date)
    rounded = _parse_iso(tai_iso)
    try:
        shifted = rounded - _NIGHT_SHIFT
    except OverflowError as error:
        raise _bad_date(date) from error
    return ObservingDate(
        rounded.isoformat(timespec="milliseconds"),
        f"{shifted.year:04d}",
        f"{shifted.month:02d}",
        f"{shifted.day:02d}",
    )


def _tai_iso(date: Time) -> str:
    # If the module is not loaded, this is no Time, and astropy need not be imported.
    module = sys.modules.get("astropy.time")
    if module is None or not isinstance(date, module.Time):
        msg = f"date must be an astropy.time.Time or an ISO-8601 str, not {type(date).__name__}: {date!r}"
        raise TypeError(msg)
    if not date.isscalar or date.masked:
        msg = f"date={date!r} must be a single time, and not masked"
        raise ValueError(msg)
    try:
        # The copy, as the precision is set on it; the subformat, as the
        # caller's object may have one without a time of day.
        tai = date.tai.copy()
        tai.precision = 3
        return str(tai.to_value("isot", subfmt="date_hms"))
    except (ValueError, IndexError, module.ScaleValueError) as error:
        msg = f"date={date!r} cannot be converted to TAI: {error}"
        raise ValueError(msg) from error


def _parse_iso(text: str) -> datetime:
    """Read an ISO-8601 text, rounded to milliseconds."""
    match = _ISO.fullmatch(text)
    if match is None:
        raise _bad_date(text)
    fraction = (match["fraction"] or "").ljust(4, "0")
    milliseconds = int(fraction[:3]) + (fraction[3] >= "5")
    try:
        whole = datetime.fromisoformat(f"{match['day']}T{match['time'] or '00:00'}:{match['second'] or '00'}")
        return whole + timedelta(milliseconds=milliseconds)
    except (ValueError, OverflowError) as error:
        raise _bad_date(text) from error


def _bad_date(date: Time | str) -> ValueError:
    return ValueError(
        f"date={date!r} must be a date of the years 1 to 9999, "
        "YYYY-MM-DD[Thh:mm[:ss[.sss]]] in TAI, without a time zone"
    )


def is_tenant(name: str) -> bool:
    """Whether this is the name of a Ceph tenant's bucket, ``tenant:bucket``."""
    return ":" in name


def check_bucket(name: str) -> str:
    """Check the name of an existing bucket, and return it.

    The rule is botocore's, because old buckets may have names that AWS no
    longer allows. A Ceph tenant's ``tenant:bucket`` is also valid; its tenant
    may be empty.

    Raises
    ------
    TypeError
        If it is not a `str`.
    ValueError
        If it is not a valid name.
    """
    _check_str("bucket", name)
    rule = _TENANT if is_tenant(name) else _BUCKET
    # In a URL's path the dots would be resolved.
    if not rule.fullmatch(name) or name in {".", ".."}:
        msg = (
            f"bucket={name!r} must have 1 to 255 ASCII letters, digits, "
            "'.', '-' or '_', or be a tenant's, 'tenant:bucket'"
        )
        raise ValueError(msg)
    return name


def check_key(key: str) -> str:
    """Check the key of an object, and return it.

    Raises
    ------
    TypeError
        If it is not a `str`.
    ValueError
        If it is empty, is longer than 1024 bytes in UTF-8, cannot be encoded
        in UTF-8, has control characters, or has a path segment "." or "..", which
        clients and proxies resolve, so that it would name another object.
    """
    _check_str("key", key)
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        msg = f"key={key!r} cannot be encoded in UTF-8"
        raise ValueError(msg) from error
    if not 1 <= size <= MAX_KEY_BYTES:
        msg = f"key={key!r} has {size} bytes: it must have 1 to {MAX_KEY_BYTES}"
        raise ValueError(msg)
    if _CONTROL.search(key):
        msg = f"key={key!r} must have no control characters"
        raise ValueError(msg)
    if not {".", ".."}.isdisjoint(key.split("/")):
        msg = f"key={key!r} must have no path segment '.' or '..'"
        raise ValueError(msg)
    return key


def revised_key(key: str, number: int) -> str:
    """Return the key of another version of a file: with ``_r{number}`` before its suffix.

    Parameters
    ----------
    key : `str`
        The first version's key.
    number : `int`
        The version; 0 is the first.

    Returns
    -------
    key : `str`
        ``a/b_r1.fits`` for ``a/b.fits`` and 1.

    Raises
    ------
    ValueError
        If the result is too long for S3.
    """
    if not number:
        return key
    match = _SUFFIX.search(key)
    end = match.start() if match is not None and match.start() > key.rfind("/") + 1 else len(key)
    return check_key(f"{key[:end]}_r{number}{key[end:]}")


def _check_str(argument: str, value: object) -> None:
    if not isinstance(value, str):
        msg = f"{argument} must be a str, not {type(value).__name__}: {value!r}"
        raise TypeError(msg)
