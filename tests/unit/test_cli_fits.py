"""`header` and `preview`, on files of this machine, on objects, and on what only calls itself FITS."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import random
import re
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from PIL import Image

from lsst_lfa._cli.spectra import Axis, draw_spectrum
from tests.clock import JOBS, FastClockLoop

from .command_line import Shell, in_bucket, point_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from lsst_lfa import MockS3Server

WAVELENGTHS = np.linspace(350, 1000, 100)
FLUXES = np.exp(-(((WAVELENGTHS - 500) / 30) ** 2))
TAB = """\
CNAME1  = 'Wavelength'
CTYPE1  = 'WAVE-TAB'
CUNIT1  = 'nm      '
PV1_1   =                    1
PS1_0   = 'WCS-TAB '
PS1_1   = 'wavelength'"""


def to_bytes(hdus: Sequence[Any]) -> bytes:
    file = io.BytesIO()
    fits.HDUList(list(hdus)).writeto(file)
    return file.getvalue()


@cache
def image() -> bytes:
    """A file as a camera has it: an empty primary, a compressed image, a cube, a table."""
    rng = np.random.default_rng(1)
    primary = fits.PrimaryHDU()
    primary.header["EXPTIME"] = (30.0, "[s] exposure")
    primary.header["HISTORY"] = "one"
    primary.header["HISTORY"] = "two"
    primary.header["NOTHING"] = None
    primary.header["LONGKEY"] = "x" * 150
    return to_bytes(
        [
            primary,
            fits.CompImageHDU(rng.integers(900, 1100, (300, 400)).astype("u2"), name="R22_S11"),
            fits.ImageHDU(rng.normal(size=(5, 60, 80)).astype("f4"), name="CUBE", ver=2),
            fits.BinTableHDU(Table({"a": [1, 2, 3], "s": ["x", "y", "z"]}), name="TABLE"),
        ]
    )


@cache
def spectrum() -> bytes:
    """A file as a fiber spectrograph has it: fluxes, and a table of their wavelengths."""
    flux = fits.PrimaryHDU(FLUXES)
    for card in TAB.splitlines():
        flux.header.append(fits.Card.fromstring(card))
    table = Table({"wavelength": [WAVELENGTHS.reshape(-1, 1)]})
    return to_bytes([flux, fits.BinTableHDU(table, name="WCS-TAB", ver=1)])


@pytest.fixture
def shell(
    server: MockS3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Shell:
    point_at(server, monkeypatch)
    monkeypatch.chdir(tmp_path)
    return Shell(capsys)


@pytest.fixture
def fast_commands(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let commands wait for no timer; for those that talk to no other thread or process."""
    monkeypatch.setattr(asyncio.events, "new_event_loop", FastClockLoop)
    with JOBS.counted():
        yield


def put(server: MockS3Server, data: bytes, key: str) -> None:
    in_bucket(server, "test", lambda bucket: bucket.upload(data, key))


@pytest.fixture(params=["object", "key", "path", "file", "presigned", "gzip"])
def where(request: pytest.FixtureRequest, server: MockS3Server, shell: Shell, tmp_path: Path) -> list[str]:
    """Put the image in one of the places that there are, and return the arguments that name it."""
    key, path = "a b/image.fits", tmp_path / "image.fits"
    path.write_bytes(image())
    put(server, image(), key)
    if request.param == "gzip":
        put(server, gzip.compress(image(), 1), f"{key}.gz")
        return [f"s3://test/{key}.gz"]
    places: dict[str, Callable[[], list[str]]] = {
        "object": lambda: [f"{server.endpoint_url}/test/{key}"],
        "key": lambda: [key, "--bucket", "test"],
        "path": lambda: ["image.fits"],
        "file": lambda: [path.as_uri()],
        "presigned": lambda: [in_bucket(server, "test", lambda bucket: bucket.presigned_url(key))],
    }
    return places[request.param]()


def test_the_table_and_the_headers_are_the_same_wherever_the_file_is(shell: Shell, where: list[str]) -> None:
    ran = shell("header", *where)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    rows = [re.split(r"\s\s+", line) for line in lines[:5]]
    assert rows[0] == ["HDU", "NAME", "TYPE", "SHAPE", "PIXELS", "CARDS", "SIZE"]
    assert rows[2][:5] == ["1", "R22_S11", "CompImageHDU (RICE_1)", "400 x 300", "uint16"]
    assert rows[3][:5] == ["2", "CUBE,2", "ImageHDU", "80 x 60 x 5", "float32"]
    assert rows[4][:4] == ["3", "TABLE", "BinTableHDU", "2 columns x 3 rows"]
    assert "EXPTIME =                 30.0 / [s] exposure" in lines
    assert "HISTORY two" in lines
    assert "X-Amz" not in ran.out


@pytest.mark.parametrize("hdu", ["2", "CUBE", "cube,2", "-2"])
def test_one_header_is_asked_for_as_astropy_has_it(shell: Shell, where: list[str], hdu: str) -> None:
    ran = shell("header", *where, "--hdu", hdu)
    assert "NAXIS3  =                    5" in ran.out
    assert "EXPTIME" not in ran.out
    assert "R22_S11" in ran.out, "the table shows all"
    assert "X-Amz" not in ran.out


def test_machines_get_a_line_for_each_hdu(shell: Shell, where: list[str]) -> None:
    found = shell("header", *where, "--json").json
    assert [row["hdu"] for row in found] == [0, 1, 2, 3]
    assert found[0]["header"]["EXPTIME"] == 30.0
    assert found[0]["header"]["HISTORY"] == ["one", "two"]
    assert found[0]["header"]["NOTHING"] is None
    assert found[0]["header"]["LONGKEY"] == "x" * 150
    assert found[1]["shape"] == [400, 300]
    assert found[3]["columns"] == ["a", "s"]
    assert "X-Amz" not in json.dumps(found)


def picture(path: Path) -> Image.Image:
    return Image.open(io.BytesIO(path.read_bytes()))


def test_the_first_image_is_shown_in_a_file_that_is_named_after_the_key(
    shell: Shell, where: list[str], tmp_path: Path
) -> None:
    ran = shell("-v", "preview", *where)
    assert (ran.code, ran.out) == (0, "image.png\n")
    assert "HDU 1 R22_S11, 400 x 300, uint16" in ran.err
    assert picture(tmp_path / "image.png").size == (400, 300)


def test_a_file_that_is_there_is_not_replaced_unless_that_is_told(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "image.fits").write_bytes(image())
    (tmp_path / "image.png").write_bytes(b"mine")
    assert shell("preview", "image.fits").out == "image-1.png\n"
    assert shell("preview", "image.fits").out == "image-2.png\n"
    assert shell("preview", "image.fits", "--hdu", "CUBE").out == "image-hdu2.png\n"
    assert (tmp_path / "image.png").read_bytes() == b"mine"
    assert shell("preview", "image.fits", "-o", "image.png").out == "image.png\n"
    assert picture(tmp_path / "image.png").size == (400, 300)
    ran = shell("preview", "image.fits", "-o", "none/image.png")
    assert (ran.code, "'none/image.png'" in ran.err) == (3, True)


@pytest.mark.parametrize(("place", "code", "said"), [("folder", 1, "directory"), ("/dev/null", 4, "not a regular")])
def test_what_is_no_place_for_a_picture_is_told(shell: Shell, tmp_path: Path, place: str, code: int, said: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "image.fits").write_bytes(image())
    ran = shell("preview", "image.fits", "-o", place)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err


def test_machines_are_told_what_was_drawn(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "image.fits").write_bytes(image())
    (found,) = shell("preview", "image.fits", "--hdu", "CUBE", "--json").json
    assert (found["hdu"], found["png"]) == (2, "image-hdu2.png")
    assert "plane 3 of 5" in found["shows"]


def test_a_spectrum_is_plotted_with_the_wavelengths_of_its_table(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "spectrum.fits").write_bytes(spectrum())
    ran = shell("preview", "spectrum.fits")
    assert (ran.code, ran.out) == (0, "spectrum.png\n")
    expected = draw_spectrum(Axis(WAVELENGTHS, "Wavelength [nm]"), Axis(FLUXES, "flux"), "spectrum.fits")
    assert (tmp_path / "spectrum.png").read_bytes() == expected.png
    assert picture(tmp_path / "spectrum.png").size == (1000, 500)


def test_in_a_terminal_that_shows_pictures_it_is_shown(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "image.fits").write_bytes(image())
    for name in ("TMUX", "STY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-kitty")
    assert shell("preview", "image.fits").out == "image.png\n", "no terminal"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    ran = shell("preview", "image.fits")
    assert ran.out.startswith("\x1b_Ga=T,f=100,")
    assert not (tmp_path / "image-1.png").exists()


def odd() -> list[Any]:
    return [
        fits.PrimaryHDU(np.full((50, 60), np.nan)),
        fits.ImageHDU(np.full((3, 3), 7)),
        fits.ImageHDU(np.ones((1, 1))),
        fits.ImageHDU(),
        fits.BinTableHDU(Table({"s": ["a", "b"]})),
        fits.BinTableHDU(Table(np.zeros(0, dtype=[("flux", "f4"), ("wave", "f4")]))),
        fits.TableHDU.from_columns([fits.Column("a", "F8.3", array=[1.0, 2.0])]),
        fits.CompImageHDU(np.ones((40, 40), "f4"), compression_type="HCOMPRESS_1"),
        fits.ImageHDU(np.ones((1, 1, 200))),
    ]


@pytest.mark.parametrize(("hdu", "code"), list(enumerate([0, 0, 0, 3, 3, 3, 0, 0, 0, 3])))
def test_whatever_is_in_an_hdu_there_is_a_picture_or_a_message(
    shell: Shell, tmp_path: Path, hdu: int, code: int
) -> None:
    (tmp_path / "odd.fits").write_bytes(to_bytes(odd()))
    ran = shell("preview", "odd.fits", "--hdu", hdu, "-o", "x.png")
    assert ran.code == code
    assert (tmp_path / "x.png").exists() == (code == 0)
    assert code == 0 or ran.err.startswith("lsst-lfa: odd.fits: ")
    assert "bug" not in ran.err


def truncated() -> bytes:
    return image()[:20_000]


def of_many_cards() -> bytes:
    file = to_bytes([fits.PrimaryHDU(np.zeros((4, 4)))])
    cards = "".join(f"K{number:<7}= {number:>20}".ljust(80) for number in range(5000)).encode()
    header = file[:2880].rstrip().removesuffix(b"END") + cards + b"END"
    return header.ljust(-len(header) // 2880 * -2880) + file[2880:]


@pytest.mark.parametrize(
    ("data", "header", "preview", "said"),
    [
        (b"", 1, 1, "empty"),
        (b"hello" * 1000, 1, 1, "is not a FITS file"),
        (b"\x1f\x8b\x08 torn", 1, 1, "gzip"),
        (gzip.compress(b"no FITS"), 1, 1, "is not a FITS file"),
        (to_bytes([fits.PrimaryHDU()]), 0, 3, "neither an image nor a spectrum"),
        (truncated(), 0, 1, "truncated"),
        (
            image().replace(b"BITPIX  =                    8", b"BITPIY  =                    8", 1),
            1,
            1,
            "damaged header",
        ),
        (of_many_cards(), 0, 0, ""),
    ],
    ids=["empty", "text", "torn gzip", "gzip of text", "no data", "truncated", "damaged", "many cards"],
)
def test_what_is_not_a_whole_fits_file_is_told(  # noqa: PLR0917
    shell: Shell, server: MockS3Server, tmp_path: Path, data: bytes, header: int, preview: int, said: str
) -> None:
    put(server, data, "file.fits")
    (tmp_path / "file.fits").write_bytes(data)
    for target in ("s3://test/file.fits", "file.fits"):
        for command, code in (("header", header), ("preview", preview)):
            ran = shell(command, target)
            assert (ran.code, "bug" in ran.err) == (code, False), ran.err
            assert code == 0 or said in ran.err
    assert said != "truncated" or "truncated" in shell("header", "file.fits").err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["s3://test/none.fits"], 3, "NoSuchKey"),
        (["s3://nowhere/none.fits"], 3, "NoSuchBucket"),
        (["none.fits"], 3, "none.fits"),
        (["."], 1, "not a regular file"),
        (["/dev/zero"], 1, "not a regular file"),
        (["image.fits", "--hdu", "9"], 3, "no HDU 9; it has 0 PRIMARY, 1 R22_S11, 2 CUBE, 3 TABLE"),
        (["image.fits", "--hdu", "CUBE,7"], 3, "no HDU CUBE,7"),
        (["image.fits", "--hdu", "-5"], 3, "no HDU -5"),
        ([], 2, "TARGET"),
    ],
)
@pytest.mark.parametrize("command", ["header", "preview"])
def test_what_is_not_there_is_told_with_its_exit_code(  # noqa: PLR0917
    shell: Shell, tmp_path: Path, command: str, arguments: list[str], code: int, said: str
) -> None:
    (tmp_path / "image.fits").write_bytes(image())
    ran = shell(command, *arguments)
    assert ran.code == code, ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("command", ["header", "preview"])
def test_a_service_that_is_not_there_is_5(shell: Shell, fast_commands: None, command: str) -> None:
    ran = shell(command, "http://127.0.0.1:1/test/a.fits")
    assert ran.code == 5
    assert "127.0.0.1:1" in ran.err
    assert "Traceback" not in ran.err


def test_control_characters_of_a_header_do_not_reach_the_terminal(shell: Shell, tmp_path: Path) -> None:
    data = to_bytes([fits.PrimaryHDU(header=fits.Header([("OBJECT", "M31____"), ("EXTNAME", "A___")]))])
    (tmp_path / "evil.fits").write_bytes(data.replace(b"M31____", b"M31\x1b[2J").replace(b"A___", b"A\x1b[2"))
    ran = shell("header", "evil.fits")
    assert ran.code == 0
    assert "\x1b" not in ran.out
    (tmp_path / "\x1b[2J.fits").write_bytes(to_bytes([fits.PrimaryHDU(np.zeros((2, 2)))]))
    assert shell("preview", "\x1b[2J.fits") == (0, "\\x1b[2J.png\n", "")


@pytest.mark.filterwarnings("ignore")  # astropy warns of much of it
def test_bytes_that_were_changed_are_no_bug(shell: Shell, tmp_path: Path) -> None:
    columns = Table({"wave": np.arange(10.0), "flux": np.arange(10.0)})
    pixels = np.arange(10000.0).reshape(100, 100).astype("i2")
    hdus = [
        fits.PrimaryHDU(np.zeros((10, 10), "i2")),
        fits.BinTableHDU(columns, name="T"),
        fits.CompImageHDU(pixels, name="C"),
    ]
    whole, rng = to_bytes(hdus), random.Random(3)
    for number in range(56):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 5, 30, 200])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if number >= 46:
            (tmp_path / "file.fits").write_bytes(data)
            ran = shell("header", "file.fits", "--json")
            assert ran.code in {0, 1}
            assert "bug" not in ran.err
