"""Names of buckets and keys."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

import pytest
from astropy.time import Time, TimeDelta
from astropy.utils import iers
from hypothesis import given
from hypothesis import strategies as st

from lsst_lfa import naming

if TYPE_CHECKING:
    from collections.abc import Iterator

PART = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9.]{0,6}[A-Za-z0-9])?", fullmatch=True)
SCALES = ["utc", "tai", "tt", "tdb", "tcb", "tcg", "ut1"]


@pytest.fixture(autouse=True)
def _no_download() -> Iterator[None]:
    """Keep astropy from downloading the Earth's rotation, for UT1."""
    with iers.conf.set_temp("auto_download", value=False):
        yield


# Bucket names


def test_bucket_name_without_an_index() -> None:
    name = naming.make_bucket_name("ATPtg", None, "Summit")
    assert name == "rubinobs-lfa-summit-atptg"


def test_bucket_name_with_an_index_and_a_category() -> None:
    name = naming.make_bucket_name("Test", "MT.2", "NCSA", s3category="Other")
    assert name == "rubinobs-other-ncsa-test.mt.2"


@given(PART, st.none() | PART, PART, PART)
def test_bucket_name_follows_the_pattern(salname: str, index: str | None, instance: str, category: str) -> None:
    name = naming.make_bucket_name(salname, index, instance, category)
    tail = "" if index is None else f".{index}"
    assert name == f"rubinobs-{category}-{instance}-{salname}{tail}".lower()
    assert naming.check_bucket(name) == name


@pytest.mark.parametrize("bad", ["", ".a", "a.", "-", "a-b", "a_b", "a b", "a/b", "é", "a\n", "٣"])
@pytest.mark.parametrize("argument", ["salname", "salindexname", "s3instance", "s3category"])
def test_bucket_name_refuses_a_bad_part(argument: str, bad: str) -> None:
    arguments: dict[str, str] = {
        "salname": "Test",
        "salindexname": "MT",
        "s3instance": "Summit",
        "s3category": "LFA",
    }
    with pytest.raises(ValueError, match=f"{argument}=.*start and end with"):
        naming.make_bucket_name(**(arguments | {argument: bad}))


@pytest.mark.parametrize("bad", [5, b"a", None])
def test_bucket_name_refuses_what_is_no_text(bad: object) -> None:
    with pytest.raises(TypeError, match="salname must be a str"):
        naming.make_bucket_name(bad, None, "Summit")  # type: ignore[arg-type]
    if bad is not None:
        with pytest.raises(TypeError, match="salindexname must be a str"):
            naming.make_bucket_name("a", bad, "Summit")  # type: ignore[arg-type]


def test_bucket_name_has_63_characters_at_most() -> None:
    room = 63 - len("rubinobs-LFA-Summit-")
    assert len(naming.make_bucket_name("a" * room, None, "Summit")) == 63
    with pytest.raises(ValueError, match="64 characters"):
        naming.make_bucket_name("a" * (room + 1), None, "Summit")


# Dates and keys


@pytest.mark.parametrize(
    ("date", "day", "tai_iso"),
    [
        ("2020-04-02T11:59:59.999", "2020/04/01", "2020-04-02T11:59:59.999"),
        ("2020-04-02T11:59:59.9999", "2020/04/02", "2020-04-02T12:00:00.000"),
        ("2020-04-02T11:59:59.9994999999999999", "2020/04/01", "2020-04-02T11:59:59.999"),
        ("2020-04-02T11:59:59.9995", "2020/04/02", "2020-04-02T12:00:00.000"),
        ("2020-04-02T12:00:00.000", "2020/04/02", "2020-04-02T12:00:00.000"),
        ("2020-04-02 23:59:59.9999", "2020/04/02", "2020-04-03T00:00:00.000"),
        ("2020-04-02", "2020/04/01", "2020-04-02T00:00:00.000"),
        ("2020-04-02T13:05", "2020/04/02", "2020-04-02T13:05:00.000"),
        ("2020-03-01T00:00:00.", "2020/02/29", "2020-03-01T00:00:00.000"),
        ("2019-01-01T00:00:00.25", "2018/12/31", "2019-01-01T00:00:00.250"),
    ],
)
def test_key_takes_day_and_time_from_the_same_rounded_date(date: str, day: str, tai_iso: str) -> None:
    expected = f"{day}/ATPtg-fits-{day.replace('/', '')}-{tai_iso}"
    assert naming.make_key("ATPtg", "fits", date) == expected
    as_time = Time(date.rstrip("."), scale="tai", precision=9)
    if "9994999" not in date and "9995" not in date:  # not exact in a double
        assert naming.make_key("ATPtg", "fits", as_time) == expected


@given(
    st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31)),  # noqa: DTZ001  (TAI)
    st.text("0123456789", max_size=25),
)
def test_text_is_rounded_as_a_decimal(whole: datetime, fraction: str) -> None:
    whole = whole.replace(microsecond=0)
    text = f"{whole.isoformat()}.{fraction}"
    milliseconds = (Decimal(f"0.{fraction or 0}") * 1000).quantize(Decimal(1), ROUND_HALF_UP)
    rounded = whole + timedelta(milliseconds=int(milliseconds))
    date = naming.observing_date(text)
    assert date.tai_iso == rounded.isoformat(timespec="milliseconds")
    day = (rounded - timedelta(hours=12)).date()
    assert f"{date.yyyy}-{date.mm}-{date.dd}" == day.isoformat()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    ("tai", "day", "rounded"),
    [
        ("2020-04-02T11:59:59.999", "2020/04/01", "2020-04-02T11:59:59.999"),
        ("2020-04-02T11:59:59.9999", "2020/04/02", "2020-04-02T12:00:00.000"),
    ],
)
def test_time_of_any_scale_is_converted_to_tai(scale: str, tai: str, day: str, rounded: str) -> None:
    time = getattr(Time(tai, scale="tai"), scale)
    date = naming.observing_date(time)
    assert date == (rounded, *day.split("/"))
    assert time.scale == scale


@pytest.mark.parametrize("precision", [0, 1, 2, 6, 9])
def test_time_is_not_rounded_to_its_own_precision_first(precision: int) -> None:
    time = Time("2020-04-02T11:59:59.9994", scale="tai", precision=precision)
    assert naming.observing_date(time).tai_iso == "2020-04-02T11:59:59.999"
    assert time.precision == precision


def test_time_is_rounded_once() -> None:
    # Rounded to nanoseconds first, this would be half a millisecond: up.
    time = Time("2020-04-02T11:59:59.9995", scale="tai") - TimeDelta(2e-10, format="sec")
    assert naming.observing_date(time).tai_iso == "2020-04-02T11:59:59.999"


@pytest.mark.parametrize("format_", ["mjd", "unix_tai", "jd", "datetime", "yday"])
def test_time_of_any_format_is_taken(format_: str) -> None:
    time = Time("2020-04-02T13:00:00.25", scale="tai")
    time.format = format_
    assert naming.observing_date(time).tai_iso == "2020-04-02T13:00:00.250"
    assert time.format == format_


def test_time_that_shows_only_its_date_keeps_its_time_of_day() -> None:
    time = Time("2020-04-02T13:00:00", scale="tai", out_subfmt="date")
    assert naming.observing_date(time).tai_iso == "2020-04-02T13:00:00.000"


def test_leap_second_is_converted() -> None:
    time = Time("2016-12-31T23:59:60.5", scale="utc")
    assert naming.observing_date(time).tai_iso == "2017-01-01T00:00:36.500"


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "now",
        "2020-04",
        "2020-4-2",
        "2020-13-01",
        "2021-02-29",
        "2020-04-02T24:00:00",
        "2020-04-02T23:59:60",
        "2020-04-02T1:00:00",
        "2020-04-02T12:00:00Z",
        "2020-04-02T12:00:00+00:00",
        "2020-04-02_12:00:00",
        "2020-04-02T12:00:00.1x",
        " 2020-04-02",
        "2020-04-02\n",
        "0001-01-01T11:00:00",
        "9999-12-31T23:59:59.9999",
        "٢٠٢٠-04-02",
        "2020-04-02T12:00:00.٣",
        Time(["2020-04-02"], scale="tai"),
        Time("2020-04-02", scale="local"),
        Time(-1e6, format="jd", scale="tai"),
        Time("2200-01-01", scale="ut1"),
    ],
)
def test_impossible_dates_are_refused(bad: Time | str) -> None:
    with pytest.raises(ValueError, match="date="):
        naming.make_key("a", "b", bad)


@pytest.mark.parametrize("bad", [None, 5, 5.0, datetime(2020, 4, 2), b"2020-04-02"])  # noqa: DTZ001
def test_dates_of_another_type_are_refused(bad: object) -> None:
    with pytest.raises(TypeError, match=r"astropy\.time\.Time or an ISO-8601 str"):
        naming.make_key("a", "b", bad)


@pytest.mark.parametrize(
    ("salname", "generator", "error"),
    [
        ("", "b", ValueError),
        ("a", "", ValueError),
        (1, "b", TypeError),
        ("a", None, TypeError),
        ("a\n", "b", ValueError),
        ("a", "x" * 1000, ValueError),
    ],
)
def test_key_refuses_bad_names(salname: str, generator: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        naming.make_key(salname, generator, "2020-04-02")


def test_text_dates_need_no_astropy() -> None:
    code = """
import sys
sys.modules["astropy"] = sys.modules["numpy"] = None
from lsst_lfa.naming import make_key
assert make_key("a", "b", "2020-04-02T13:00:00").startswith("2020/04/02/")
try:
    make_key("a", "b", 5)
except TypeError:
    pass
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# Checks


@pytest.mark.parametrize("name", ["a", "A_b-c.d", "x" * 255, "tenant:bucket", ":bucket", "te_n-a.nt:b"])
def test_bucket_names_of_old_services_and_tenants_are_accepted(name: str) -> None:
    assert naming.check_bucket(name) == name


@pytest.mark.parametrize("name", ["", "a/b", "a b", "x" * 256, "é", "a\n", "t:", "a:b:c", ".", "..", "a%3Ab"])
def test_bad_bucket_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="bucket="):
        naming.check_bucket(name)


def test_bucket_and_key_must_be_text() -> None:
    for check in (naming.check_bucket, naming.check_key):
        with pytest.raises(TypeError, match="must be a str, not bytes"):
            check(b"a")  # type: ignore[arg-type]


def test_only_a_name_with_a_colon_is_a_tenants() -> None:
    assert naming.is_tenant("tenant:bucket")
    assert not naming.is_tenant("bucket")


@pytest.mark.parametrize("key", ["a", "/", "a//b", "a/", "...", "a/.b", "a:%+ ?#", "é" * 512, "日本", "~"])
def test_good_keys_are_accepted(key: str) -> None:
    assert naming.check_key(key) == key


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        ("", "0 bytes"),
        ("a" * 1025, "1025 bytes"),
        ("é" * 513, "1026 bytes"),
        ("a\x00", "control"),
        ("a\n", "control"),
        ("a\x7f", "control"),
        ("a\x85", "control"),
        (".", "segment"),
        ("a/../b", "segment"),
        ("a/.", "segment"),
        ("../a", "segment"),
        ("a\udc80", "UTF-8"),
    ],
)
def test_bad_keys_are_refused(key: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        naming.check_key(key)
