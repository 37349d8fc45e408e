"""Pictures: pure parts, from pixels and columns to a PNG, and to what a terminal is sent."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lsst_lfa._cli.pictures import draw_image, limits, plane_of, scales, shrink, stretch
from lsst_lfa._cli.spectra import Axis, choose_columns, draw_spectrum, envelope
from lsst_lfa._cli.terminal_pictures import encode_picture, find_protocol


def pixels(png: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_the_first_row_is_at_the_bottom_and_bright_is_white() -> None:
    data = np.zeros((256, 256))
    data[:128] = 100
    shown = pixels(draw_image(data).png)
    assert shown.shape == (256, 256)
    assert (shown[200:] == 255).all()
    assert (shown[:100] == 0).all()


def test_the_scale_is_asinh_between_the_limits() -> None:
    shown = stretch(np.array([[-1.0, 0.0, 1.0, 10.0, 11.0]]), 0, 10)
    expected = 255 * np.arcsinh(0.1 / 0.1) / np.arcsinh(1 / 0.1)
    assert shown.tolist() == [[0, 0, round(expected), 255, 255]]


def test_the_limits_are_zscales_so_that_bright_stars_do_not_count() -> None:
    data = np.random.default_rng(1).normal(1000, 10, (100, 100))
    data[:5] = 60_000
    low, high = limits(data)
    assert 950 < low < 1000 < high < 1100


@pytest.mark.parametrize("step", [1, 3, 7])
def test_blocks_of_pixels_are_averaged_without_what_is_not_finite(step: int) -> None:
    data = np.arange(20.0 * 22).reshape(20, 22)
    data[0, 0] = np.nan
    data[10:, 15:] = np.inf
    small = shrink(data, step, step)
    assert small.shape == (-(-20 // step), -(-22 // step))
    for (row, column), shown in np.ndenumerate(small):
        block = data[row * step : (row + 1) * step, column * step : (column + 1) * step]
        finite = block[np.isfinite(block)]
        assert shown == pytest.approx(finite.mean()) if finite.size else np.isnan(shown)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4096, 4096), (1024, 1024)),
        ((100, 100), (200, 200)),
        ((1, 1), (256, 256)),
        ((20, 4096), (60, 1024)),
        ((5000, 3), (1000, 63)),
    ],
)
def test_a_picture_is_neither_large_nor_tiny(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    shown = [-(-length // step) * repeat for length, (step, repeat) in zip(shape, scales(shape), strict=True)]
    assert tuple(shown) == expected


def test_of_a_cube_the_middle_plane_is_shown() -> None:
    cube = np.arange(5)[:, None, None] * np.ones((1, 5, 6, 7), int)[0]
    plane, which = plane_of(cube[None])
    assert plane.shape == (6, 7)
    assert (plane == 2).all()
    assert which == "plane 3 of 5"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("data", "what"),
    [
        (np.full((50, 60), np.nan), "no pixel has a value"),
        (np.full((3, 3), 7), "7 everywhere"),
        (np.zeros((2, 2), ">u2"), "0 everywhere"),
        (np.array([[1e308, -1e308], [0, np.inf]]), r"-1e\+308 \(black\)"),
        (np.array([[True, False]] * 2), r"0 \(black\) to 1"),
        (np.eye(300, dtype="i1"), r"0 \(black\)"),
    ],
)
def test_whatever_the_pixels_are_there_is_a_picture(data: Any, what: str) -> None:
    picture = draw_image(data)
    assert re.search(what, picture.what)
    assert pixels(picture.png).ndim == 2


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["FLUX", "WAVELENGTH"], ("WAVELENGTH", "FLUX")),
        (["flux_err", "flux", "wave"], ("wave", "flux")),
        (["loglam", "ivar", "flux_err", "spectrum1"], ("loglam", "spectrum1")),
        (["wavelength"], None),
        (["flux", "flux_error"], None),
        (["time", "temperature"], None),
        ([], None),
    ],
)
def test_wavelength_and_flux_are_found_by_their_names(names: list[str], expected: tuple[str, str] | None) -> None:
    chosen = choose_columns(names)
    assert (chosen and tuple(names[index] for index in chosen)) == expected


def test_a_long_spectrum_keeps_its_peaks() -> None:
    x = np.arange(1_000_000.0)
    y = np.zeros(1_000_000)
    y[123_456], y[654_321] = 5, -7
    xs, ys = envelope(x, y, 100)
    assert len(xs) <= 300
    assert (xs[ys.argmax()], xs[ys.argmin()]) == (123_456, 654_321)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("y", [[np.nan] * 5, [3.0], [1e308, -1e308, 0.0], [0.0] * 7])
def test_whatever_the_fluxes_are_there_is_a_plot(y: list[float]) -> None:
    values = np.array(y)
    picture = draw_spectrum(Axis(np.arange(len(y)) * 1.0, "$x_{"), Axis(values, "y^"), "a $title_{ that is no formula")
    assert pixels(picture.png).shape == (500, 1000, 4)
    assert picture.what.startswith(f"{len(y)} point")


@pytest.mark.parametrize(
    ("environ", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/x"}, None),
        ({"TERM": "screen", "LC_TERMINAL": "iTerm2"}, None),
        ({}, None),
    ],
)
def test_the_environment_tells_which_terminal_shows_pictures(environ: dict[str, str], protocol: str | None) -> None:
    assert find_protocol(environ) == protocol


def test_kitty_gets_chunks_of_which_the_last_one_says_so() -> None:
    png = bytes(range(256)) * 40
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", encode_picture(png, "kitty"))
    assert [keys for keys, _ in chunks] == ["a=T,f=100,q=2,m=1", "m=1", "m=1", "m=0"]
    assert all(len(data) <= 4096 for _, data in chunks)
    assert base64.b64decode("".join(data for _, data in chunks)) == png


def test_iterm2_gets_the_picture_whole() -> None:
    match = re.fullmatch(
        r"\x1b\]1337;File=inline=1;size=3;preserveAspectRatio=1:(.*)\x07\n", encode_picture(b"abc", "iterm2")
    )
    assert match
    assert base64.b64decode(match[1]) == b"abc"
