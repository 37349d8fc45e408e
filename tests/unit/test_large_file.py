"""A published file and its event's fields."""

from __future__ import annotations

import logging
import math
import re
import struct
from dataclasses import FrozenInstanceError, replace

import pytest

from lsst_lfa import LargeFile
from lsst_lfa.annex._large_file import check_version, guess_mime_type, tai_now

FILE = LargeFile(
    bucket="b",
    key="k.fits",
    url="http://s3/b/k.fits",
    generator="GC:1",
    version=1.0,
    byte_size=7,
    check_sum="abc",
    mime_type="application/fits",
    id="",
    stored=True,
)


def test_event_fields_are_the_topics_seven() -> None:
    assert FILE.event_fields() == {
        "url": "http://s3/b/k.fits",
        "generator": "GC:1",
        "version": 1.0,
        "byteSize": 7,
        "checkSum": "abc",
        "mimeType": "application/fits",
        "id": "",
    }
    kinds = {name: type(value) for name, value in FILE.event_fields().items()}
    assert kinds == {
        "url": str,
        "generator": str,
        "version": float,
        "byteSize": int,
        "checkSum": str,
        "mimeType": str,
        "id": str,
    }


def test_a_size_beyond_32_bits_is_saturated_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert replace(FILE, byte_size=2**31 - 1).event_fields()["byteSize"] == 2**31 - 1
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert replace(FILE, byte_size=2**31).event_fields()["byteSize"] == 2**31 - 1
    assert "has 2147483648 bytes" in caplog.text


def test_it_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        FILE.url = "other"  # type: ignore[misc]


def test_versions_survive_32_bits() -> None:
    for version in (0, 1, 1.1, -3.25):
        rounded = check_version(version)
        assert type(rounded) is float
        assert struct.unpack("f", struct.pack("f", rounded))[0] == rounded
        assert math.isclose(rounded, version, rel_tol=1e-6)


@pytest.mark.parametrize("version", [math.nan, math.inf, 1e39, "1", None])
def test_a_version_that_is_no_32_bit_float(version: float) -> None:
    with pytest.raises(ValueError, match="version is"):
        check_version(version)


@pytest.mark.parametrize(
    ("key", "mime_type"),
    [
        ("a/b.fits", "application/fits"),
        ("a/b.FITS.fz", "application/fits"),
        ("a/b.fits.gz", "application/gzip"),
        ("a/b.yaml", "application/yaml"),
        ("a/b.json", "application/json"),
        ("a/b.png", "image/png"),
        ("a/b.txt", "text/plain"),
        ("a/b_2026-01-31T03:04:05.000", ""),
        ("a.fits/b", ""),
        ("b", ""),
    ],
)
def test_mime_types(key: str, mime_type: str) -> None:
    assert guess_mime_type(key) == mime_type


def test_now_in_tai() -> None:
    from astropy.time import Time

    ours = tai_now()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}", ours)
    assert abs((Time(ours, scale="tai") - Time.now()).sec) < 2
