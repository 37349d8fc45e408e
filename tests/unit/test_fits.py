"""HDU lists to and from bytes."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import time
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning
from packaging.version import Version

from lsst_lfa._fits import dump, load

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

MiB = 1 << 20
OLD = Version(version("astropy")) < Version("7.0")
"""Then astropy writes compressed images itself, and changes their list; nor can it read strings without rows."""

snapshots = pytest.mark.skipif(OLD, reason="before astropy 7.0 there are no snapshots of compressed images")
PIXELS = np.arange(-3000, 3000).reshape(60, 100)


def header() -> fits.Header:
    return fits.Header([("OBJECT", "M13", "a cluster"), ("EXPTIME", 1.5)])


def image(dtype: str) -> fits.HDUList:
    """One primary image, whose integers use all the bits of their type."""
    data = PIXELS.astype(dtype)
    if data.dtype.kind in "iu":
        data.flat[0] = np.iinfo(dtype).max
        data.flat[1] = np.iinfo(dtype).min
    return fits.HDUList([fits.PrimaryHDU(data, header())])


def table() -> fits.BinTableHDU:
    columns = [
        fits.Column("number", "J", array=[1, -2, 3]),
        fits.Column("name", "8A", array=["a", "bcd", ""]),
        fits.Column("flag", "L", array=[True, False, True]),
        fits.Column("bits", "11X", array=np.eye(3, 11, dtype=bool)),
        fits.Column("unsigned", "I", bzero=32768, array=np.array([0, 40000, 65535], "u2")),
        fits.Column("lists", "PD()", array=np.array([[1.0], [2.0, 3.0], []], "O")),
        fits.Column("grid", "6E", dim="(3,2)", array=np.arange(18.0).reshape(3, 2, 3)),
    ]
    return fits.BinTableHDU.from_columns(columns, header(), name="TAB")


def strings(rows: int) -> fits.HDUList:
    """Columns that numpy copies with the interpreter's lock held, and numbers among them."""
    names = np.array([f"exposure {row}" for row in range(rows)])
    columns = [
        fits.Column("name", "40A", array=names),
        fits.Column("number", "J", array=np.arange(rows)),
        fits.Column("comment", "200A", array=names),
        fits.Column("words", "24A", dim="(8,3)", array=np.array([["a", "bcd", ""]] * rows)),
    ]
    return fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)])


def variable(rows: int) -> fits.HDUList:
    """Columns of arrays, of numbers and of text, whose length varies."""
    numbers, texts = np.empty(rows, "O"), np.empty(rows, "O")
    for row in range(rows):
        numbers[row] = np.arange(row % 7, dtype="i4")
        texts[row] = np.array(list("text"[: row % 5]), "S1")
    columns = [
        fits.Column("numbers", "PJ()", array=numbers),
        fits.Column("row", "K", array=np.arange(rows)),
        fits.Column("texts", "QA()", array=texts),
        fits.Column("name", "3A", array=np.array(["a"] * rows)),
    ]
    return fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)])


def text(rows: int) -> fits.HDUList:
    columns = [
        fits.Column("a", "I9", array=np.arange(rows)),
        fits.Column("b", "A100", array=np.array([f"row {row}" for row in range(rows)])),
        fits.Column("c", "E15.7", array=np.arange(rows, dtype="f4")),
    ]
    return fits.HDUList([fits.PrimaryHDU(), fits.TableHDU.from_columns(columns)])


def astropy_table() -> fits.HDUList:
    """A table as astropy's other way to make one has it: with a mask and a unit."""
    rows = Table({"number": [1, 2, 3], "word": [b"a", b"bcd", b""], "when": ["2026-01-01", "", "x"]})
    rows["length"] = np.ma.array([1.0, 2.0, 3.0], mask=[False, True, False])
    rows["length"].unit = "m"
    return fits.HDUList([fits.PrimaryHDU(), fits.table_to_hdu(rows)])


def compressed() -> fits.CompImageHDU:
    return fits.CompImageHDU(PIXELS.astype("i2"), header(), name="COMP")


def noise(dtype: str) -> np.ndarray[Any, Any]:
    """Pixels that are hard to compress, 2600 rows of 2000; of floats, two rows and two columns are NaN."""
    pixels = np.random.default_rng(1).normal(1000, 100, (2600, 2000)).clip(0).astype(dtype)
    if pixels.dtype.kind == "f":
        pixels[2400:2402] = pixels[:, 5:7] = np.nan
    return pixels


def large(pixels: np.ndarray[Any, Any], **options: Any) -> fits.HDUList:
    return fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels, header(), **options)])


LISTS: dict[str, Callable[[], fits.HDUList]] = {
    "empty": lambda: fits.HDUList([fits.PrimaryHDU(header=header())]),
    **{
        f"image of {dtype}": partial(image, dtype)
        for dtype in ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", ">i2", ">u2", ">u4", ">f4", ">f8"]
    },
    "transposed image": lambda: fits.HDUList([fits.PrimaryHDU(PIXELS.astype("f4").T)]),
    "every other pixel": lambda: fits.HDUList([fits.PrimaryHDU(PIXELS.astype("u2")[::2, ::3])]),
    "read-only image": lambda: fits.HDUList([fits.PrimaryHDU(np.broadcast_to(np.float32(1.5), (30, 40)))]),
    "table": lambda: fits.HDUList([fits.PrimaryHDU(), table()]),
    "strings": lambda: strings(5),
    "text table": lambda: text(3),
    **({} if OLD else {"table without rows": lambda: strings(0)}),
    "table of astropy": astropy_table,
    "compressed image": lambda: fits.HDUList([fits.PrimaryHDU(), compressed()]),
    "several": lambda: fits.HDUList(
        [
            *image("u2"),
            fits.ImageHDU(PIXELS.astype("f8"), name="SCI", ver=2),
            table(),
            compressed(),
            fits.ImageHDU(),
        ]
    ),
}

LONG: dict[str, Callable[[], fits.HDUList]] = {
    "strings": lambda: strings(20_000),
    "arrays of any length": lambda: variable(2_000),
    "text table": lambda: text(40_000),
    "compressed integers": lambda: large(noise("u2")),
    "compressed floats": lambda: large(noise("f4"), quantize_method=1, dither_seed=9990, tile_shape=(16, 300)),
    "compressed 64 bits": lambda: large(noise("i8") << 40, compression_type="NOCOMPRESS"),
    "compressed cube": lambda: large(noise("i4").reshape(1300, 20, -1), tile_shape=(7, 11, 33)),
}
"""What is written in more than one slice, and a heap."""

any_list = pytest.mark.parametrize("make", LISTS.values(), ids=LISTS.keys())


def write(hdulist: fits.HDUList) -> bytes:
    """What astropy writes."""
    file = io.BytesIO()
    hdulist.writeto(file)
    return file.getvalue()


def look(hdulist: fits.HDUList) -> list[tuple[str, str, bytes]]:
    """What a user can see of an HDU list, in full."""
    # Data first: loading them may change the header.
    shown = [(str(getattr(hdu.data, "dtype", None)), repr_of(hdu.data)) for hdu in hdulist]
    return [(repr(hdu.header), *data) for hdu, data in zip(hdulist, shown, strict=True)]


def repr_of(data: Any) -> bytes:
    if isinstance(data, fits.FITS_rec):
        return repr([data.field(name).tolist() for name in data.names]).encode()
    return b"" if data is None else data.tobytes()


def assert_same(one: fits.HDUList, other: fits.HDUList) -> None:
    for hdulist in (one, other):
        look(hdulist)  # loads the data, which may change the headers
    difference = fits.FITSDiff(one, other)
    assert difference.identical, difference.report()
    for mine, theirs in zip(one, other, strict=True):
        assert type(mine) is type(theirs)


@any_list
async def test_dump_gives_the_bytes_that_astropy_writes(
    make: Callable[[], fits.HDUList],
) -> None:
    assert bytes(await dump(make())) == write(make())


@pytest.mark.parametrize("value", ["'ten'", "1E1", "1" + 30 * "0"])
async def test_a_damaged_header_is_an_os_error(value: str) -> None:
    """astropy lets TypeError, ValueError and OverflowError through."""
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros(10))]).writeto(file)
    damaged = file.getvalue().replace(b"NAXIS1  = %20d" % 10, f"NAXIS1  = {value:>20}"[:30].encode())
    with pytest.raises(OSError, match=r"damaged header|truncated"):
        await load(io.BytesIO(damaged))


@pytest.mark.parametrize("make", LONG.values(), ids=LONG.keys())
@pytest.mark.parametrize("loaded", [False, True])
async def test_what_is_long_is_dumped_to_the_bytes_that_astropy_writes(
    make: Callable[[], fits.HDUList], *, loaded: bool
) -> None:
    mine, theirs = make(), make()
    if loaded:
        mine, theirs = (fits.open(io.BytesIO(write(make()))) for _ in range(2))
        for hdulist in (mine, theirs):
            look(hdulist)  # converts the columns
    assert bytes(await dump(mine)) == write(theirs)


async def test_tiles_that_cannot_be_quantized_are_where_they_should_be() -> None:
    pixels = noise("f4")
    pixels[1000:] = 3.25  # astropy compresses these as they are, and notes the time of day with each
    hdulist = large(pixels, quantize_method=2, dither_seed=7)
    assert_same(await load(io.BytesIO(await dump(hdulist))), fits.open(io.BytesIO(write(hdulist))))


@snapshots
async def test_a_compressed_image_without_rows_is_dumped() -> None:
    hdulist = large(PIXELS[:0].astype("i2"))
    assert bytes(await dump(hdulist)) == write(hdulist)


@snapshots
async def test_a_compressed_image_of_64_bits_has_32_where_they_suffice() -> None:
    pixels = noise("u8")
    with pytest.warns(AstropyUserWarning, match="converted to 32 bits"):
        mine = bytes(await dump(large(pixels)))
    with pytest.warns(AstropyUserWarning, match="converted to 32 bits"):
        assert mine == write(large(pixels))


@any_list
async def test_round_trip_keeps_headers_and_data(
    make: Callable[[], fits.HDUList],
) -> None:
    loaded = await load(io.BytesIO(await dump(make())))
    assert_same(loaded, fits.open(io.BytesIO(write(make()))))
    again = await load(io.BytesIO(await dump(loaded)))
    assert_same(again, loaded)


@any_list
async def test_dump_leaves_the_list_as_it_was(
    make: Callable[[], fits.HDUList],
) -> None:
    # Looking at it loads columns, which writing would bring back to the rows.
    hdulist = make()
    if OLD and any(isinstance(hdu, fits.CompImageHDU) for hdu in hdulist):
        pytest.skip("astropy writes it itself")
    before = look(hdulist)
    arrays = [hdu.data for hdu in hdulist]
    await dump(hdulist)
    assert look(hdulist) == before
    assert all(hdu.data is array for hdu, array in zip(hdulist, arrays, strict=True))
    assert all(hdu.fileinfo() is None for hdu in hdulist)


@pytest.mark.parametrize("memmap", [True, False])
@pytest.mark.parametrize("touch", [True, False])
@any_list
async def test_list_from_a_file_is_dumped_as_it_is_there(
    make: Callable[[], fits.HDUList], tmp_path: Path, *, memmap: bool, touch: bool
) -> None:
    path = tmp_path / "a.fits"
    make().writeto(path)
    # None is astropy's default: mapped, unless pixels must be scaled.
    with fits.open(path, memmap=None if memmap else False) as hdulist:
        if touch:
            look(hdulist)
        data = await dump(hdulist)
    expected = fits.open(io.BytesIO(path.read_bytes()))
    assert_same(fits.open(io.BytesIO(data)), expected)


async def test_scaled_pixels_not_loaded_yet_are_neither_loaded_nor_rescaled(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.fits"
    hdu = fits.PrimaryHDU(PIXELS.astype("f8"))
    hdu.scale("int16", bscale=0.5, bzero=100)
    hdu.writeto(path)
    with fits.open(path, memmap=True) as hdulist:
        assert bytes(await dump(hdulist)) == path.read_bytes()
        assert hdulist[0].header["BSCALE"] == 0.5
        assert hdulist[0].header["BITPIX"] == 16


class OwnHDU(fits.PrimaryHDU):  # type: ignore[misc,unused-ignore]
    """A user's own kind of HDU."""


@pytest.mark.parametrize("kind", [fits.PrimaryHDU, OwnHDU])
async def test_data_are_never_swapped_in_place_while_dumping(kind: Any) -> None:
    data = np.ones(8 * MiB, "f4")
    hdulist = fits.HDUList([kind(data)])
    tasks = [asyncio.create_task(dump(hdulist)) for _ in range(3)]
    while not all(task.done() for task in tasks):
        assert data[0] == data[-1] == 1
        await asyncio.sleep(0)
    results = [await task for task in tasks]
    assert results[0] == results[1] == results[2]


@any_list
async def test_loaded_list_needs_no_file_and_can_be_changed(
    make: Callable[[], fits.HDUList],
) -> None:
    source = bytearray(write(make()))
    expected = look(fits.open(io.BytesIO(bytes(source))))
    file = io.BytesIO(source)
    hdulist = await load(file)
    file.getbuffer()[:] = bytes(len(source))  # nothing may depend on these
    file.close()
    assert look(hdulist) == expected
    for hdu in hdulist:
        if isinstance(hdu.data, np.ndarray):
            assert hdu.data.flags.writeable
        hdu.header["COMMENT"] = "more"
    assert write(hdulist)


async def test_load_reads_from_the_start_and_changes_nothing() -> None:
    source = write(image("f4"))
    file = io.BytesIO(source)
    file.seek(100)
    assert_same(await load(file), image("f4"))
    assert file.tell() == 100
    assert file.getvalue() == source
    file.seek(0, io.SEEK_END)
    file.write(b"more")  # the memory is not held


async def test_a_list_grows_beyond_the_first_guess_of_its_size() -> None:
    many = fits.Header([(f"KEY{number}", number) for number in range(9000)])
    hdulist = fits.HDUList([*image("u2"), fits.ImageHDU(PIXELS, many), *LISTS["table"]()[1:]])
    assert bytes(await dump(hdulist)) == write(hdulist)


async def test_dump_does_not_write_back_a_tables_columns() -> None:
    hdulist = LISTS["table"]()
    hdulist[1].data.field("flag")[:] = False
    before = hdulist[1].data.view(np.ndarray).tobytes()
    loaded = await load(io.BytesIO(await dump(hdulist)))
    assert not loaded[1].data.field("flag").any()
    assert hdulist[1].data.view(np.ndarray).tobytes() == before


@snapshots
async def test_dump_does_not_replace_what_a_compressed_image_was_read_from(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), compressed()]).writeto(path)
    with fits.open(path) as hdulist:
        hdulist[1].data[:] = 7
        loaded = await load(io.BytesIO(await dump(hdulist)))
        assert (loaded[1].data == 7).all()
        assert (hdulist[1].section[:2] == PIXELS[:2]).all()


async def test_header_that_astropy_completes_is_completed() -> None:
    hdulist, expected = image("f4"), image("f4")
    for one in (hdulist, expected):
        one[0].header.remove("NAXIS1")
    assert bytes(await dump(hdulist)) == write(expected)
    assert "NAXIS1" not in hdulist[0].header


@pytest.mark.parametrize("bad", [None, b"a", [], fits.PrimaryHDU(), np.zeros(3)])
async def test_dump_takes_only_hdu_lists(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"must be an astropy\.io\.fits\.HDUList"):
        await dump(bad)


async def test_dump_refuses_a_list_without_hdus() -> None:
    with pytest.raises(ValueError, match="at least one HDU"):
        await dump(fits.HDUList())


async def test_dump_refuses_a_list_that_breaks_the_standard() -> None:
    hdulist = fits.HDUList([fits.ImageHDU(PIXELS)])  # no primary HDU
    with pytest.raises(fits.VerifyError):
        await dump(hdulist)


@pytest.mark.parametrize("data", [b"", b"no FITS file" * 1000])
async def test_load_refuses_what_is_no_fits_file(data: bytes) -> None:
    with pytest.raises(OSError, match=r"FITS|Empty"):
        await load(io.BytesIO(data))


async def longest_stall(work: Coroutine[Any, Any, Any]) -> tuple[float, float]:
    """Run it, and return for how long it held the event loop in one piece, and how long it took, in seconds."""
    task = asyncio.create_task(work)
    stall = 0.0
    start = before = time.perf_counter()
    while not task.done():
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        stall = max(stall, now - before - 0.001)
        before = now
    return stall, before - start


async def some_run(
    make: Callable[[], Coroutine[Any, Any, Any]], passes: Callable[[float, float], bool], runs: int = 5
) -> bool:
    """Tell whether one of so many runs passes: a machine with other work may hold us, too."""
    for _ in range(runs):
        if passes(*await longest_stall(make())):
            return True
    return False


@pytest.mark.parametrize("dtype", ["f4", "u2", "i2", ">f4"])
async def test_a_large_image_does_not_hold_the_loop(dtype: str) -> None:
    hdulist = fits.HDUList([fits.PrimaryHDU(np.ones(100 * MiB // int(dtype[-1]), dtype))])
    data = io.BytesIO(write(hdulist))

    def passes(stall: float, whole: float) -> bool:
        # With the interpreter's lock held, each copy in one piece would take a third of the time.
        return stall < 0.2 * whole

    assert await some_run(lambda: dump(hdulist), passes, runs=10)
    assert await some_run(lambda: load(data), passes, runs=10)


async def test_strings_do_not_hold_the_loop() -> None:
    column = fits.Column("text", "200A", array=np.full(250_000, "a" * 20))
    hdulist = fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns([column])])
    data = io.BytesIO(write(hdulist))
    assert await some_run(lambda: dump(hdulist), lambda stall, _: stall < 0.15)
    assert await some_run(lambda: load(data), lambda stall, _: stall < 0.15)


@snapshots
async def test_a_compressed_image_does_not_hold_the_loop() -> None:
    hdulist = large(np.tile(noise("i2"), (2, 2)))
    data = io.BytesIO(write(hdulist))
    assert await some_run(lambda: dump(hdulist), lambda stall, _: stall < 0.15)
    assert await some_run(lambda: load(data), lambda stall, _: stall < 0.15)


def test_astropy_is_imported_late_and_off_the_loop() -> None:
    code = """
import asyncio, io, sys, threading
from lsst_lfa import _fits as fits
assert not {"astropy", "numpy"} & set(sys.modules)
threads = []
class Spy:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("astropy", "numpy"):
            threads.append(threading.current_thread())
sys.meta_path.insert(0, Spy())
async def main():
    try:
        await fits.load(io.BytesIO())
    except OSError:
        pass
asyncio.run(main())
assert threads and threading.main_thread() not in threads
"""
    subprocess.run([sys.executable, "-c", code], check=True)
