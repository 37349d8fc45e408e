"""HDU lists of every kind, however they came to be: dumped as astropy writes them to a path."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lsst_lfa._fits import dump, load

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES = 500 if "LSST_LFA_SOAK" in os.environ else 50
ALGORITHMS = ["RICE_1", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1", "NOCOMPRESS"]
HAS_SNAPSHOTS = hasattr(fits.CompImageHDU(np.zeros((4, 4), "i2")), "_bintable")
"""Without them astropy writes compressed images itself, and changes them."""

shapes = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple)
seeds = st.integers(0, 1 << 30)


def numbers(seed: int, dtype: str, shape: Any) -> np.ndarray[Any, Any]:
    """Numbers that use all bits of an integer's type; some of the floats are NaN."""
    chance, kind = np.random.default_rng(seed), np.dtype(dtype)
    values: np.ndarray[Any, Any]
    if kind.kind == "f":
        values = chance.normal(0, 1000, shape).astype(dtype)
        values[chance.random(shape) < 0.1] = np.nan
    else:
        limits = np.iinfo(kind)
        values = chance.integers(limits.min, limits.max, shape, kind.newbyteorder("="), endpoint=True).astype(dtype)
    return values


@st.composite
def images(draw: Any, kind: Any) -> Any:
    dtype = draw(st.sampled_from(["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", ">i2", ">f4", ">u2"]))
    data = numbers(draw(seeds), dtype, draw(shapes))
    if draw(st.booleans()):
        data = data[::2].T
    header = fits.Header([("OBJECT", draw(st.text("abc ", max_size=8)), "it"), ("EXPTIME", draw(st.floats(0, 9)))])
    return kind(None if draw(st.integers(0, 9)) == 0 else data, header)


@st.composite
def scaled(draw: Any, kind: Any) -> Any:
    hdu = kind(np.random.default_rng(draw(seeds)).normal(0, 100, draw(shapes)))
    hdu.scale("int16", bscale=draw(st.sampled_from([1, 0.5, 2])), bzero=draw(st.sampled_from([100, 32768, -7.5])))
    return hdu


@st.composite
def blanks(draw: Any, kind: Any) -> Any:
    return kind(numbers(draw(seeds), "i2", draw(shapes)) % 3, fits.Header([("BLANK", 1)]))


@st.composite
def groups(draw: Any) -> Any:
    data = numbers(draw(seeds), "f4", (5, 1, 3, 2))
    parameters = [numbers(draw(seeds), "f4", (5,)) for _ in range(2)]
    return fits.GroupsHDU(fits.GroupData(data, parnames=["ABC", "XYZ"], pardata=parameters, bitpix=-32))


@st.composite
def compressed(draw: Any) -> Any:
    algorithm = draw(st.sampled_from(ALGORITHMS))
    shape = draw(st.sampled_from([(4, 8), (8, 8), (12, 4)]))
    dtype = draw(
        st.sampled_from(
            ["i2", "i4"] if algorithm in {"PLIO_1", "HCOMPRESS_1"} else ["u1", "i2", "u2", "i4", "f4", "f8"]
        )
    )
    data = numbers(draw(seeds), dtype, shape)
    if data.dtype.kind == "f":
        return fits.CompImageHDU(data, compression_type="GZIP_2", quantize_level=0)
    return fits.CompImageHDU(
        np.abs(data % 100), compression_type=algorithm, tile_shape=draw(st.sampled_from([None, (4, 4)]))
    )


TEXTS = st.text("ab c", max_size=6)
NUMBERS = {"J": "i4", "K": "i8", "E": "f4", "D": "f8"}
OTHERS = ["8A", "L", "11X", "M", "2E", "PJ()", "QD()", "PA()", "I unsigned", "E scaled", "B null"]


def arrays(seed: int, form: str, rows: int) -> np.ndarray[Any, Any]:
    """Arrays whose length varies."""
    chance, found = np.random.default_rng(seed), np.empty(rows, "O")
    for row in range(rows):
        length = chance.integers(0, 4)
        found[row] = (
            np.array(list("text"[:length]), "S1")
            if form == "PA()"
            else np.arange(length, dtype="f8" if form == "QD()" else "i4")
        )
    return found


def column(name: str, form: str, rows: int, draw: Any) -> fits.Column:
    seed = draw(seeds)
    chance = np.random.default_rng(seed)
    options: dict[str, Any] = {}
    match form:
        case "8A":
            options = {"array": np.array([draw(TEXTS) for _ in range(rows)], "U8")}
        case "L":
            options = {"array": chance.random(rows) < 0.5}
        case "11X":
            options = {"array": chance.random((rows, 11)) < 0.5}
        case "M":
            options = {"array": numbers(seed, "f8", rows) + 1j}
        case "2E":
            options = {"array": numbers(seed, "f4", (rows, 2)), "unit": "m"}
        case "I unsigned":
            options = {"array": numbers(seed, "u2", rows), "bzero": 32768}
        case "E scaled":
            options = {"array": numbers(seed, "f4", rows), "bscale": 0.5, "bzero": 3}
        case "B null":
            options = {"array": numbers(seed, "u1", rows), "null": 7}
        case "PJ()" | "QD()" | "PA()":
            options = {"array": arrays(seed, form, rows)}
        case _:
            options = {"array": numbers(seed, NUMBERS[form], rows)}
    return fits.Column(name, form.partition(" ")[0], **options)


@st.composite
def tables(draw: Any) -> Any:
    rows = draw(st.integers(0, 5))
    forms = draw(st.lists(st.sampled_from([*NUMBERS, *OTHERS]), min_size=1, max_size=4))
    return fits.BinTableHDU.from_columns(
        [column(f"c{i}", form, rows, draw) for i, form in enumerate(forms)], name="BIN"
    )


@st.composite
def texts(draw: Any) -> Any:
    rows = draw(st.integers(1, 5))
    columns = [
        fits.Column("a", "I11", array=numbers(draw(seeds), "i4", rows)),
        fits.Column("b", "A6", array=np.array([draw(TEXTS) for _ in range(rows)])),
        fits.Column("c", "E15.7", array=np.random.default_rng(draw(seeds)).normal(0, 9, rows).astype("f4")),
    ]
    return fits.TableHDU.from_columns(columns)


@st.composite
def lists(draw: Any) -> fits.HDUList:
    first = st.one_of(images(fits.PrimaryHDU), scaled(fits.PrimaryHDU), blanks(fits.PrimaryHDU), groups())
    kinds = [images(fits.ImageHDU), scaled(fits.ImageHDU), blanks(fits.ImageHDU), tables(), texts()]
    rest = st.one_of(*kinds, compressed()) if HAS_SNAPSHOTS else st.one_of(*kinds)
    return fits.HDUList([draw(first), *draw(st.lists(rest, max_size=3))])


def read_all(hdulist: fits.HDUList) -> fits.HDUList:
    for hdu in hdulist:
        for name in getattr(hdu.data, "names", None) or ():
            hdu.data.field(name)
    return hdulist


def change(hdulist: fits.HDUList, how: int) -> None:
    """Change one HDU: its header, or a value."""
    hdu = hdulist[how % len(hdulist)]
    hdu.header["CHANGED"] = how
    if how % 2 and type(hdu) in {fits.PrimaryHDU, fits.ImageHDU} and hdu.data is not None and hdu.data.size:
        hdu.data.flat[0] = 3
    elif how % 2 and isinstance(hdu, fits.BinTableHDU) and len(hdu.data) and hdu.columns[0].format in {"J", "E"}:
        hdu.data.field(0)[0] = 3


def said(data: bytes) -> list[Any]:
    """What a user finds in a file: HDUs, names, and values, to the last bit."""
    found: list[Any] = []
    for hdu in fits.open(io.BytesIO(data)):
        fields = hdu.data.names if isinstance(hdu.data, fits.FITS_rec) else ()
        values: list[Any] = [repr(hdu.data.field(name).tolist()) for name in fields]
        if not fields and hdu.data is not None:
            values = [hdu.data.shape, hdu.data.astype(hdu.data.dtype.newbyteorder("=")).tobytes()]
        found.append((type(hdu), hdu.name, hdu.header.get("CHANGED"), fields, values))
    return found


def has_blank(hdulist: fits.HDUList) -> bool:
    """Tell whether astropy itself would write wrong pixels, once it has read them."""
    return any("BLANK" in hdu.header for hdu in hdulist)


def open_as(origin: str, path: Path, options: dict[str, Any]) -> Callable[[], fits.HDUList]:
    if origin == "bytes":
        return lambda: fits.open(io.BytesIO(path.read_bytes()), **options)
    return lambda: fits.open(path, memmap=False if origin == "read" else None, **options)


def by_path(source: fits.HDUList, path: Path) -> bytes:
    source.writeto(path, overwrite=True)
    return path.read_bytes()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(lists())
@pytest.mark.filterwarnings("ignore")
def test_a_list_that_was_built_is_dumped_as_astropy_writes_it(hdulist: fits.HDUList) -> None:
    async def main() -> list[memoryview]:
        return await asyncio.gather(*(dump(hdulist) for _ in range(2)))

    results = {bytes(result) for result in asyncio.run(main())}
    with tempfile.TemporaryDirectory() as folder:
        expected = by_path(hdulist, Path(folder) / "a.fits")
    assert all(said(result) == said(expected) for result in results)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    lists(),
    st.sampled_from(["mapped", "read", "bytes", "gz"]),
    st.fixed_dictionaries({"lazy_load_hdus": st.booleans(), "scale_back": st.booleans()}),
    st.sampled_from(["no", "before", "meanwhile"]),
    st.one_of(st.none(), st.integers(0, 7)),
)
@pytest.mark.filterwarnings("ignore")
def test_a_file_is_dumped_as_astropy_writes_it(
    built: fits.HDUList, origin: str, options: dict[str, Any], reads: str, how: int | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("a.fits.gz" if origin == "gz" else "a.fits")
        source = by_path(built, Path(folder) / "built.fits")  # to .gz astropy cannot write random groups
        path.write_bytes(gzip.compress(source, 1) if origin == "gz" else source)
        opens = open_as(origin, path, options)
        with opens() as hdulist, opens() as expected:
            for each in (hdulist, expected):
                if reads == "before":
                    read_all(each)
                if how is not None:
                    change(each, how)

            async def main() -> list[bytes]:
                dumps = [asyncio.create_task(dump(hdulist)) for _ in range(3)]
                await asyncio.sleep(0)
                if reads == "meanwhile":
                    read_all(hdulist)
                return list({bytes(each) for each in await asyncio.gather(*dumps)})

            results = asyncio.run(main())
            wrong = has_blank(expected) and (reads == "before" or how is not None)
            want = said(by_path(expected, Path(folder) / "b.fits"))
            assert all(said(result) == said(results[0]) for result in results[1:])
            if not wrong:
                assert said(results[0]) == want


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(lists(), st.booleans(), st.one_of(st.none(), st.integers(0, 7)))
@pytest.mark.filterwarnings("ignore")
def test_what_was_downloaded_goes_up_as_it_came_but_for_what_was_changed(
    built: fits.HDUList, reads: bool, how: int | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = by_path(built, Path(folder) / "a.fits")

    async def main() -> list[bytes]:
        hdulist = await load(io.BytesIO(source))
        if reads:
            read_all(hdulist)
        if how is not None:
            change(hdulist, how)
        return [bytes(each) for each in await asyncio.gather(*(dump(hdulist) for _ in range(2)))]

    results = asyncio.run(main())
    if how is None:
        assert set(results) == {source}
        return
    expected = read_all(fits.open(io.BytesIO(source)))
    change(expected, how)
    before, after = said(source), said(results[0])
    changed = how % len(before)
    assert [each[:3] for each in before[:changed]] == [each[:3] for each in after[:changed]]
    assert after[changed][2] == how
    for place, (one, other) in enumerate(zip(before, after, strict=True)):
        if place != changed or not how % 2:
            assert one[4] == other[4]
