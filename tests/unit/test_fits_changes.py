"""HDU lists that were changed, or not, while their owner uses them and others dump them too."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import astropy
import numpy as np
import pytest
from astropy.io import fits
from astropy.units import Quantity
from astropy.utils.exceptions import AstropyUserWarning

from lsst_lfa import _fits
from lsst_lfa._fits import dump, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIXELS = np.arange(-3000, 3000).reshape(60, 100)
OLD = not hasattr(fits.CompImageHDU(PIXELS.astype("i2")), "_bintable")
"""Before astropy 7.0 there are no snapshots of compressed images."""

SHIPPED = [
    path for path in (Path(str(astropy.__file__)).parent / "io").rglob("*.fits") if path.stat().st_size < 200_000
]
any_shipped = pytest.mark.parametrize("path", sorted(SHIPPED), ids=lambda path: path.stem)
astropy_warns = pytest.mark.filterwarnings("ignore")  # of what these files are


def scaled() -> fits.PrimaryHDU:
    hdu = fits.PrimaryHDU(PIXELS.astype("f8"))
    hdu.scale("int16", bscale=0.5, bzero=100)
    return hdu


def table() -> fits.BinTableHDU:
    columns = [
        fits.Column("number", "J", array=[1, -2, 3]),
        fits.Column("name", "8A", array=["a", "bcd", ""]),
        fits.Column("flag", "L", array=[True, False, True]),
        fits.Column("unsigned", "I", bzero=32768, array=np.array([0, 40000, 65535], "u2")),
        fits.Column("lists", "PD()", array=np.array([[1.0], [2.0, 3.0], []], "O")),
    ]
    return fits.BinTableHDU.from_columns(columns, name="TABLE")


def lossy() -> fits.CompImageHDU:
    noise = np.random.default_rng(1).normal(1000, 100, (60, 100)).astype("f4")
    noise[:, 5] = np.nan
    return fits.CompImageHDU(noise, name="LOSSY", quantize_method=1, dither_seed=7)


def several() -> fits.HDUList:
    hdus = [scaled(), fits.ImageHDU(PIXELS.astype("f4"), name="FLOATS"), table(), *([] if OLD else [lossy()])]
    return fits.HDUList([*hdus, fits.ImageHDU(PIXELS.astype("u2"), name="UNSIGNED")])


def as_bytes(hdulist: fits.HDUList) -> bytes:
    file = io.BytesIO()
    hdulist.writeto(file)
    return file.getvalue()


def by_path(hdulist: fits.HDUList, folder: Path) -> bytes:
    path = folder / "by_path.fits"
    hdulist.writeto(path, overwrite=True)
    return path.read_bytes()


def read_all(hdulist: fits.HDUList) -> fits.HDUList:
    """Ask for all that a user may; some of these files cannot be read."""
    for hdu in hdulist:
        try:
            for name in getattr(hdu.data, "names", None) or ():
                hdu.data.field(name)
        except Exception as exc:  # noqa: BLE001
            print(exc)
    return hdulist


def values(hdulist: fits.HDUList) -> Iterator[Any]:
    """All numbers and strings in a list, so that the same ones compare equal."""
    for hdu in read_all(hdulist):
        data = vars(hdu).get("data")
        if isinstance(data, fits.FITS_rec):
            yield [repr(data.field(name).tolist()) for name in data.names]
        else:
            yield data if data is None else (data.shape, data.astype(data.dtype.newbyteorder("=")).tobytes())


def same_values(one: bytes, other: bytes) -> bool:
    return list(values(fits.open(io.BytesIO(one)))) == list(values(fits.open(io.BytesIO(other))))


@astropy_warns
@any_shipped
@pytest.mark.parametrize("read", [False, True])
async def test_what_was_not_changed_goes_up_byte_for_byte(path: Path, *, read: bool) -> None:
    hdulist = await load(io.BytesIO(path.read_bytes()))
    if read:
        read_all(hdulist)
    results = await asyncio.gather(*(dump(hdulist) for _ in range(3)))
    assert {bytes(result) for result in results} == {path.read_bytes()}


@astropy_warns
@any_shipped
@pytest.mark.parametrize("memmap", [False, True])
async def test_a_file_is_dumped_as_it_is_while_its_owner_reads_it(path: Path, tmp_path: Path, *, memmap: bool) -> None:
    try:
        expected = by_path(fits.open(path), tmp_path)
    except fits.VerifyError:
        with fits.open(path) as hdulist, pytest.raises(fits.VerifyError):
            await dump(hdulist)
        return
    with fits.open(path, memmap=None if memmap else False) as hdulist:
        if OLD and any(isinstance(hdu, fits.CompImageHDU) for hdu in hdulist):
            return
        dumps = [asyncio.create_task(dump(hdulist)) for _ in range(4)]
        await asyncio.sleep(0)
        read_all(hdulist)
        (result,) = {bytes(await each) for each in dumps}
        assert same_values(result, expected)
        assert list(values(hdulist)) == list(values(fits.open(path)))


@pytest.mark.parametrize("suffix", ["fits", "fits.gz", "fits.bz2", "fits.xz"])
@pytest.mark.parametrize("lazy", [False, True])
async def test_a_file_closed_meanwhile_is_dumped_all_the_same(tmp_path: Path, suffix: str, *, lazy: bool) -> None:
    path = tmp_path / f"a.{suffix}"
    several().writeto(path)
    with fits.open(path, lazy_load_hdus=lazy) as hdulist:
        task = asyncio.create_task(dump(hdulist))
        await asyncio.sleep(0)
    path.unlink()
    assert bytes(await task) == as_bytes(several())


async def test_a_change_leaves_the_bytes_of_other_hdus_as_they_were() -> None:
    source = as_bytes(several())
    hdulist = read_all(await load(io.BytesIO(source)))
    hdulist["FLOATS"].header["OBJECT"] = "M13"
    result = bytes(await dump(hdulist))
    before, after = fits.open(io.BytesIO(source)), fits.open(io.BytesIO(result))
    assert after["FLOATS"].header["OBJECT"] == "M13"
    for one, other in zip(before, after, strict=True):
        old, new = one.fileinfo(), other.fileinfo()
        assert source[old["datLoc"] :][: old["datSpan"]] == result[new["datLoc"] :][: new["datSpan"]]


def halve(hdulist: fits.HDUList) -> None:
    hdulist["FLOATS"].data[:] /= 2


def replace(hdulist: fits.HDUList) -> None:
    hdulist["FLOATS"].data = np.arange(7, dtype="i8")


def rename(hdulist: fits.HDUList) -> None:
    hdulist["TABLE"].columns["number"].name = "count"


def set_a_row(hdulist: fits.HDUList) -> None:
    hdulist["TABLE"].data.field("name")[1] = "changed"
    hdulist["TABLE"].data.field("lists")[1][0] = -1


def set_a_raw_row(hdulist: fits.HDUList) -> None:
    hdulist["TABLE"].data["number"][0] = 77


def add_a_column(hdulist: fits.HDUList) -> None:
    hdulist["TABLE"].columns.add_col(fits.Column("more", "E", array=[1.0, 2.0, 3.0]))


def rescale(hdulist: fits.HDUList) -> None:
    hdulist[0].data[0, 0] = 1e9


def remove(hdulist: fits.HDUList) -> None:
    del hdulist["FLOATS"]


def swap(hdulist: fits.HDUList) -> None:
    hdulist[1], hdulist[2] = hdulist[2], hdulist[1]


def append(hdulist: fits.HDUList) -> None:
    hdulist.append(fits.ImageHDU(np.ones((3, 3), "u4")))


def unit(hdulist: fits.HDUList) -> None:
    hdulist["TABLE"].columns["number"].unit = "m"


def one_bit(hdulist: fits.HDUList) -> None:
    hdulist["UNSIGNED"].data[-1, -1] ^= 1


CHANGES = [halve, replace, rename, set_a_row, set_a_raw_row, add_a_column, rescale, remove, swap, append, unit, one_bit]


@pytest.mark.parametrize("change", CHANGES)
async def test_what_was_changed_is_dumped_as_astropy_writes_it(change: Callable[[fits.HDUList], None]) -> None:
    source = as_bytes(several())
    hdulist, expected = read_all(await load(io.BytesIO(source))), read_all(fits.open(io.BytesIO(source)))
    for each in (hdulist, expected):
        if not OLD:
            del each["LOSSY"]
        change(each)
    result = bytes(await dump(hdulist))
    assert result != source
    assert same_values(result, as_bytes(expected))
    got, want = fits.open(io.BytesIO(result)), fits.open(io.BytesIO(as_bytes(expected)))
    assert [[c.name for c in hdu.columns] for hdu in got if isinstance(hdu, fits.BinTableHDU)] == [
        [c.name for c in hdu.columns] for hdu in want if isinstance(hdu, fits.BinTableHDU)
    ]
    assert got["TABLE"].header.get("TUNIT1") == want["TABLE"].header.get("TUNIT1")
    assert bytes(await dump(hdulist)) == result  # nor has the first one changed it


@pytest.mark.parametrize("header", [False, True])
async def test_pixels_that_blank_made_nan_are_nan_again(tmp_path: Path, *, header: bool) -> None:
    blank = fits.PrimaryHDU(np.array([4, 5, 6], "i2"), fits.Header([("BLANK", 5)]))
    source = as_bytes(fits.HDUList([blank, fits.ImageHDU(PIXELS.astype("f4"))]))
    path = tmp_path / "a.fits"
    path.write_bytes(source)
    loaded = await load(io.BytesIO(source))
    with fits.open(path, memmap=False) as opened:
        read_all(opened)
    assert bytes(await dump(loaded)) == source
    for hdulist in (loaded, opened):
        hdulist[0].data[0] = 7
        if header:
            hdulist[0].header["OBJECT"] = "M13"
        result = fits.open(io.BytesIO(await dump(hdulist)))
        np.testing.assert_array_equal(result[0].data, [7, np.nan, 6])
        assert (result[1].data == PIXELS).all()


@pytest.mark.skipif(OLD, reason="cannot be chosen anew before astropy 7.0")
async def test_a_compression_chosen_anew_is_used() -> None:
    hdulist = await load(
        io.BytesIO(as_bytes(fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(PIXELS.astype("i2"))])))
    )
    hdulist[1].compression_type = "GZIP_2"
    result = fits.open(io.BytesIO(await dump(hdulist)), disable_image_compression=True)
    assert result[1].header["ZCMPTYPE"] == "GZIP_2"


NOISE = np.random.default_rng(1).normal(1000, 100, (60, 100)).astype("f4")  # what astropy can quantize
MASKED = np.ma.masked_greater(NOISE, 1100)
KINDS = [fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [Quantity(NOISE, "m"), MASKED, NOISE.view(np.memmap)])
async def test_data_of_other_types_are_dumped_as_astropy_writes_them(kind: Any, data: Any, tmp_path: Path) -> None:
    before = data.copy()
    results: list[Any] = []
    for write in (lambda each: by_path(each, tmp_path), dump):
        hdulist = fits.HDUList(
            [
                *([] if kind is fits.PrimaryHDU else [fits.PrimaryHDU()]),
                kind(data.copy(), **({"dither_seed": 7} if kind is fits.CompImageHDU else {})),
            ]
        )
        try:
            result = write(hdulist)
            results.append(bytes(result if isinstance(result, bytes) else await result))
        except Exception as exc:  # noqa: BLE001
            results.append(type(exc))
        assert (np.asarray(hdulist[-1].data) == np.asarray(before)).all()
    assert results[0] == results[1]


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("unsigned", [False, True])
async def test_scales_are_put_back_as_astropy_does(tmp_path: Path, *, read: bool, unsigned: bool) -> None:
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(PIXELS.astype("u2")) if unsigned else scaled()]).writeto(path)
    ours, theirs = (fits.open(io.BytesIO(path.read_bytes()), scale_back=True) for _ in range(2))
    if read:
        read_all(ours)
        read_all(theirs)
    mine = list(values(ours)) if read else []
    results = await asyncio.gather(*(dump(ours) for _ in range(3)))
    assert {bytes(result) for result in results} == {by_path(theirs, tmp_path)}
    assert not read or list(values(ours)) == mine


async def test_lists_that_share_hdus_are_dumped_at_once() -> None:
    shared = several()
    other = fits.HDUList([fits.PrimaryHDU(), *shared[1:]])
    expected = [as_bytes(several()), as_bytes(fits.HDUList([fits.PrimaryHDU(), *several()[1:]]))]
    results = await asyncio.gather(*(dump(each) for each in [shared, other] * 3))
    assert [bytes(result) for result in results] == expected * 3


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads in which astropy writes lists."""
    found: list[str] = []
    writeto = fits.HDUList.writeto

    def spy(hdulist: fits.HDUList, *args: Any, **kwargs: Any) -> None:
        found.append(threading.current_thread().name)
        writeto(hdulist, *args, **kwargs)

    monkeypatch.setattr(fits.HDUList, "writeto", spy)
    return found


async def test_hcompress_is_never_in_two_threads_at_once(writers: list[str]) -> None:
    pixels = PIXELS.astype("i2")
    source = as_bytes(fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels, compression_type="HCOMPRESS_1")]))
    writers.clear()
    loaded = [await load(io.BytesIO(source)) for _ in range(3)]
    assert all("data" not in vars(each[1]) for each in loaded)
    dumps = [asyncio.create_task(dump(each)) for each in loaded * 3]
    for each in loaded:
        await asyncio.sleep(0)
        assert (each[1].data == pixels).all()
    assert {bytes(await each) for each in dumps} == {source}
    assert not writers
    loaded[0][1].data[0, 0] = 5
    changed = fits.open(io.BytesIO(await dump(loaded[0])))
    assert changed[1].data[0, 0] == 5
    assert (changed[1].data[1:] == pixels[1:]).all()
    assert writers == [threading.main_thread().name]


@pytest.mark.parametrize("read", [False, True])
async def test_a_header_edited_in_a_compressed_image_is_written(tmp_path: Path, *, read: bool) -> None:
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(PIXELS.astype("i2"))]).writeto(path)
    with fits.open(path) as hdulist:
        hdulist[1].header["OBJECT"] = "M13"
        if read:
            read_all(hdulist)
        result = fits.open(io.BytesIO(await dump(hdulist)))
        assert result[1].header["OBJECT"] == "M13"
        assert (result[1].data == PIXELS).all()


@pytest.mark.parametrize("owner", list(_fits._NEEDED))
async def test_without_a_private_name_astropy_writes_the_list_itself(
    owner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writers: list[str]
) -> None:
    monkeypatch.setitem(_fits._NEEDED, owner, (*_fits._NEEDED[owner], "_gone"))
    expected = by_path(fits.HDUList([*several(), lossy()]), tmp_path)
    writers.clear()
    assert bytes(await dump(fits.HDUList([*several(), lossy()]))) == expected
    assert writers == [threading.main_thread().name]


async def test_without_the_name_of_its_writing_method_astropy_copies_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fits, "_WRITE_DATA", "_gone")
    pixels = PIXELS.astype("f4")
    assert bytes(await dump(fits.HDUList([fits.PrimaryHDU(pixels)]))) == as_bytes(
        fits.HDUList([fits.PrimaryHDU(pixels)])
    )
    assert (pixels == PIXELS).all()


async def test_without_files_in_memory_one_on_disk_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    assert bytes(await dump(several())) == as_bytes(several())


async def test_a_file_object_of_the_users_own_class_is_only_read_on_the_event_loop() -> None:
    threads: set[str] = set()

    class Own:
        """A file of some other library's."""

        def __init__(self) -> None:
            self._file = io.BytesIO(as_bytes(several()))
            self.tell, self.seek, self.closed = self._file.tell, self._file.seek, False

        def read(self, size: int = -1) -> bytes:
            threads.add(threading.current_thread().name)
            return self._file.read(size)

        def close(self) -> None:
            """Stay open."""

    results = await asyncio.gather(*(dump(hdulist) for hdulist in [fits.open(Own())] * 3))
    assert all(same_values(bytes(result), as_bytes(several())) for result in results)
    assert threads == {threading.main_thread().name}


async def test_a_default_executor_that_is_full_holds_nobody_up() -> None:
    loop, done = asyncio.get_running_loop(), threading.Event()
    loop.set_default_executor(ThreadPoolExecutor(1))
    waiting = loop.run_in_executor(None, done.wait)
    try:
        assert (await load(io.BytesIO(await dump(several()))))["FLOATS"].data[1, 1] == PIXELS[1, 1]
    finally:
        done.set()
        await waiting


async def test_a_cancelled_dump_leaves_no_descriptor_open(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    several().writeto(path)

    def descriptors() -> int:
        return sum(str(each.resolve()) == str(path) for each in Path("/proc/self/fd").iterdir())

    with fits.open(path) as hdulist:
        assert descriptors() == 1
        for _ in range(20):
            task = asyncio.create_task(dump(hdulist))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        del task
        await dump(hdulist)
        async with asyncio.timeout(60):  # threads end in their own time, and tracebacks know what was done
            while descriptors() > 1:
                gc.collect()
                await asyncio.sleep(0.01)


async def test_a_loaded_list_can_be_read_in_sections_without_its_source() -> None:
    file = io.BytesIO(as_bytes(several()))
    hdulist = await load(file)
    file.close()
    assert (hdulist["FLOATS"].section[2:4] == PIXELS[2:4]).all()
    assert hdulist["TABLE"].data.field("lists")[1].tolist() == [2.0, 3.0]
    if not OLD:
        assert np.isnan(hdulist["LOSSY"].section[3:5, 5]).all()


async def test_a_truncated_file_is_refused() -> None:
    source = as_bytes(several())
    with pytest.raises(OSError, match="truncated"), pytest.warns(AstropyUserWarning, match="truncated"):
        await load(io.BytesIO(source[: len(source) - 5760]))
