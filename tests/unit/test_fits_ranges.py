"""FITS by ranges: headers without data, some HDUs without the others."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import astropy.io.fits
import numpy as np
import pytest
from astropy.io import fits

from lsst_lfa import S3Session

if TYPE_CHECKING:
    from lsst_lfa import AsyncS3Bucket

MiB = 1024 * 1024
KEY = "file.fits"
SHIPPED = sorted((Path(astropy.io.fits.__file__).parent / "tests" / "data").glob("*.fits"))


def many_hdus() -> fits.HDUList:
    """Return a list of every kind of HDU, with short and long headers and data."""
    rng = np.random.default_rng(1)
    long = fits.ImageHDU(rng.normal(size=(300, 300)), name="LONG")
    for number in range(900):
        long.header[f"K{number}"] = (number, "a card of a header of 25 blocks")
    long.header["LONGTEXT"] = "x" * 300
    columns = [
        fits.Column("a", "J", array=np.arange(1000)),
        fits.Column("b", "PE()", array=[np.arange(n % 5, dtype="f4") for n in range(1000)]),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="TABLE")
    text = fits.TableHDU.from_columns([fits.Column("t", "A10", array=["a", "b"])], name="TEXT")
    image = fits.CompImageHDU(rng.integers(0, 100, (200, 200)).astype("i2"), name="COMPRESSED")
    return fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(np.arange(3, dtype="u2"), name="SCI", ver=1),
            fits.ImageHDU(np.arange(4, dtype="f8"), name="SCI", ver=2),
            long,
            table,
            text,
            image,
            fits.ImageHDU(rng.normal(size=(500, 500)), name="WCS"),
            fits.ImageHDU(name="EMPTY"),
        ]
    )


def to_bytes(hdulist: fits.HDUList) -> bytes:
    file = io.BytesIO()
    hdulist.writeto(file)
    return file.getvalue()


@pytest.fixture
async def data(bucket: AsyncS3Bucket) -> bytes:
    data = to_bytes(many_hdus())
    await bucket.upload(data, KEY)
    return data


def assert_same_headers(headers: list[Any], data: bytes) -> None:
    with fits.open(io.BytesIO(data), lazy_load_hdus=False) as expected:
        assert len(headers) == len(expected)
        for header, hdu in zip(headers, expected, strict=True):
            assert header.tostring() == hdu.header.tostring()
            assert type(header) is type(hdu.header)


async def test_headers_are_astropys_own(bucket: AsyncS3Bucket, data: bytes) -> None:
    headers = await bucket.fits_headers(KEY)
    assert_same_headers(headers, data)
    assert headers[6]["NAXIS1"] == 200, "the image's, not those of the table that it is compressed to"
    assert headers[3]["LONGTEXT"] == "x" * 300


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
async def test_headers_of_every_file_that_astropy_ships(bucket: AsyncS3Bucket, path: Path) -> None:
    data = path.read_bytes()
    await bucket.upload(data, KEY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are broken on purpose
        assert_same_headers(await bucket.fits_headers(KEY), data)


@pytest.mark.parametrize(
    "wanted",
    [
        [0],
        ["WCS"],
        [0, "WCS"],
        ["WCS", 0],
        [("sci", 2), "SCI"],
        [-1, 3],
        ["table", "TEXT", "compressed", "EMPTY"],
        [0, 0, "PRIMARY"],
        list(range(9)),
    ],
    ids=str,
)
async def test_some_hdus_are_as_in_the_whole_list(bucket: AsyncS3Bucket, data: bytes, wanted: list[Any]) -> None:
    part = await bucket.download_fits(KEY, hdus=wanted)
    with fits.open(io.BytesIO(data)) as whole:
        indices = list(dict.fromkeys(whole.index_of(each) if each != -1 else len(whole) - 1 for each in wanted))
        for got, hdu in zip(part, [whole[index] for index in indices], strict=True):
            assert type(got) is type(hdu)
            assert fits.HDUDiff(got, hdu).identical
            assert got.header.tostring() == hdu.header.tostring()


async def test_what_came_in_parts_goes_up_again_as_a_file(bucket: AsyncS3Bucket, data: bytes) -> None:
    part = await bucket.download_fits(KEY, hdus=[0, "WCS", "TABLE"])
    await bucket.upload_fits(part, "part.fits")
    again = await bucket.download_fits("part.fits")
    assert [hdu.name for hdu in again] == ["PRIMARY", "WCS", "TABLE"]
    assert fits.FITSDiff(part, again).identical


async def test_only_what_is_asked_for_is_downloaded(bucket: AsyncS3Bucket, data: bytes) -> None:
    counts: list[int] = []
    await bucket.download_fits(KEY, counts.append, hdus=["SCI"])
    assert 0 < sum(counts) < 40_000 < len(data) // 20
    counts.clear()
    await bucket.download_fits(KEY, counts.append, hdus=["WCS"])
    assert 500 * 500 * 8 < sum(counts) < 500 * 500 * 8 + 8 * 28_800 + 2 * 100_000


@pytest.mark.parametrize(
    ("wanted", "kind"), [(9, IndexError), (-10, IndexError), ("NONE", KeyError), (("SCI", 3), KeyError)]
)
async def test_a_missing_hdu_is_told_with_those_that_are_there(
    bucket: AsyncS3Bucket, data: bytes, wanted: Any, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match="COMPRESSED"):
        await bucket.download_fits(KEY, hdus=[0, wanted])


@pytest.mark.parametrize(
    ("wanted", "kind"),
    [
        ("WCS", TypeError),
        (0, TypeError),
        ([None], TypeError),
        ([0, 1.5], TypeError),
        ([b"WCS"], TypeError),
        ([], ValueError),
    ],
)
async def test_what_names_no_hdus_is_refused_before_anything_is_sent(wanted: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="hdus "):
        await S3Session(endpoint_url="http://127.0.0.1:9").bucket("test").download_fits(KEY, hdus=wanted)


async def test_numbers_of_hdus_may_be_numpys(bucket: AsyncS3Bucket, data: bytes) -> None:
    assert [hdu.name for hdu in await bucket.download_fits(KEY, hdus=np.array([-1, 0]))] == ["EMPTY", "PRIMARY"]  # type: ignore[arg-type]


async def test_what_follows_the_last_hdu_is_passed_over(bucket: AsyncS3Bucket, data: bytes) -> None:
    await bucket.upload(data + b"\0" * 2880 + b"rest", KEY)
    assert_same_headers(await bucket.fits_headers(KEY), data)
    assert (await bucket.download_fits(KEY, hdus=[-1]))[0].name == "EMPTY"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"SIMPLE", "not a FITS file$"),
        (b"no FITS at all" * 1000, "not a FITS file$"),
        (b"\x1f\x8b\x08" + b"x" * 5000, "compressed"),
        (b"SIMPLE  =" + b" " * 90_000, "truncated"),
    ],
)
async def test_what_is_not_fits_is_told(bucket: AsyncS3Bucket, data: bytes, why: str) -> None:
    await bucket.upload(data, KEY)
    with pytest.raises(OSError, match=f"{KEY} is .*{why}"):
        await bucket.fits_headers(KEY)
    with pytest.raises(OSError, match=KEY):
        await bucket.download_fits(KEY, hdus=[0])


async def test_a_truncated_file_has_headers_and_no_data(bucket: AsyncS3Bucket) -> None:
    data = to_bytes(fits.HDUList([fits.PrimaryHDU(np.zeros((100, 100)))]))
    await bucket.upload(data[:40_000], KEY)
    assert (await bucket.fits_headers(KEY))[0]["NAXIS1"] == 100
    with pytest.raises(OSError, match="truncated"):
        await bucket.download_fits(KEY, hdus=[0])


async def test_what_follows_random_groups_is_found(bucket: AsyncS3Bucket) -> None:
    groups = next(path for path in SHIPPED if path.name == "random_groups.fits").read_bytes()
    image = to_bytes(fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.arange(5), name="NEXT")]))[2880:]
    await bucket.upload(groups + image, KEY)
    headers = await bucket.fits_headers(KEY)
    assert (headers[0]["GROUPS"], headers[1]["EXTNAME"]) == (True, "NEXT")
    assert list((await bucket.download_fits(KEY, hdus=["NEXT"]))[0].data) == [0, 1, 2, 3, 4]
    part = await bucket.download_fits(KEY, hdus=[0])
    with fits.open(io.BytesIO(groups)) as whole:
        assert list(part[0].data.par(0)) == list(whole[0].data.par(0))


@pytest.mark.parametrize(
    ("card", "other"),
    [
        ("BITPIX  =                   16", "BITPIY  =                   16"),
        ("NAXIS1  =                   10", "NAXIS1  =           -100000000"),
        ("NAXIS1  =                   10", "NAXIS1  = 'ten'               "),
        ("NAXIS1  =                   10", "NAXIS1  =                  1E1"),
        ("NAXIS2  =                   10", "NAXIT2  =                   10"),
        ("NAXIS   =                    2", "NAXIS   =           2000000000"),
        ("NAXIS   =                    2", "NAXIS   =                   -1"),
    ],
)
async def test_a_damaged_header_is_told_and_not_believed(bucket: AsyncS3Bucket, card: str, other: str) -> None:
    data = to_bytes(fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((10, 10), "i2"))]))
    await bucket.upload(data.replace(card.encode(), other.encode()), KEY)
    with pytest.raises(OSError, match=r"file\.fits: HDU 1 has a damaged header"):
        await bucket.fits_headers(KEY)


@pytest.mark.parametrize("cut", [2880 + 480, 2880 + 80])
async def test_a_header_that_breaks_off_is_told(bucket: AsyncS3Bucket, cut: int) -> None:
    """astropy only warns, and has the HDUs before it."""
    await bucket.upload(to_bytes(fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros(5))]))[:cut], KEY)
    for reading in (bucket.fits_headers(KEY), bucket.download_fits(KEY, hdus=[1]), bucket.download_fits(KEY)):
        with pytest.raises(OSError, match="HDU 1"), warnings.catch_warnings(action="ignore"):
            await reading


async def test_a_name_that_cannot_be_read_is_none(bucket: AsyncS3Bucket) -> None:
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.zeros(3), name="NAME"), fits.ImageHDU(np.ones(4), name="SCI")]
    await bucket.upload(to_bytes(fits.HDUList(hdus)).replace(b"'NAME", b"'NA\x1bE"), KEY)
    (found,) = await bucket.download_fits(KEY, hdus=["SCI"])
    assert found.data.sum() == 4


async def test_a_table_of_a_billion_columns_is_not_believed(bucket: AsyncS3Bucket) -> None:
    table = fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[1])])
    data = to_bytes(fits.HDUList([fits.PrimaryHDU(), table]))
    card = b"TFIELDS =                    1"
    assert card in data
    await bucket.upload(data.replace(card, b"TFIELDS =            999999999"), KEY)
    with pytest.raises(OSError, match="HDU 1 has a damaged header"):
        await bucket.fits_headers(KEY)


async def test_a_header_without_the_length_of_an_axis_is_damaged(bucket: AsyncS3Bucket) -> None:
    data = to_bytes(fits.HDUList([fits.PrimaryHDU(np.zeros((10, 10), "i2")), fits.ImageHDU(np.zeros(3))]))
    await bucket.upload(data.replace(b"NAXIS1  =", b"NAXIST  =", 1), KEY)
    with pytest.raises(OSError, match="damaged header"):
        await bucket.fits_headers(KEY)
