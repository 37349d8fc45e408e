"""The table of sites, and where it comes from."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING

import pytest

from lsst_lfa import sites
from lsst_lfa.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_site(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LSST_SITE", "LSST_LFA_SITES", "S3_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)


def test_the_map_is_frozen() -> None:
    summit = sites.SITES["summit"]
    assert (summit.endpoint_url, summit.instance) == ("https://s3.cp.lsst.org", "cp")
    with pytest.raises(FrozenInstanceError):
        summit.instance = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        sites.SITES["summit"] = summit  # type: ignore[index]


def test_the_argument_comes_before_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSST_SITE", "tucson")
    assert sites.current().instance == "tuc"
    assert sites.current("BASE").endpoint_url == "https://s3.ls.lsst.org"


def test_the_endpoint_comes_from_the_argument_then_the_variable_then_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sites.current("summit").endpoint_url == "https://s3.cp.lsst.org"
    monkeypatch.setenv("S3_ENDPOINT_URL", "https://s3.cp.lsst.org/")
    assert sites.current("summit").endpoint_url == "https://s3.cp.lsst.org"
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://elsewhere:9000")
    assert sites.current("summit", endpoint_url="http://here:1/").endpoint_url == "http://here:1"
    with pytest.raises(
        ConfigurationError, match=r"S3_ENDPOINT_URL is http://elsewhere:9000.*https://s3\.cp\.lsst\.org"
    ):
        sites.current("summit")
    assert sites.current("summit", domock=True).instance == "cp"


def test_an_unknown_site_lists_the_known_ones_and_says_how_to_add_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"'moon' is unknown.*base, summit, test, tucson, usdf.*LFA_SITES"):
        sites.current("moon")
    with pytest.raises(ConfigurationError, match="set LSST_SITE"):
        sites.current()
    monkeypatch.setenv("LSST_SITE", "  ")
    with pytest.raises(ConfigurationError, match="set LSST_SITE"):
        sites.current()


def test_the_test_site_needs_a_mock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSST_SITE", "test")
    with pytest.raises(ConfigurationError, match="domock=True"):
        sites.current()
    assert sites.current(domock=True).instance == "test"


def test_sites_of_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "sites.toml"
    path.write_text('[Lab]\nendpoint_url = "http://lab:9000/"\ninstance = "lab"\nmirrors = ["summit"]\n')
    monkeypatch.setenv("LSST_LFA_SITES", str(path))
    assert sites.current("lab") == sites.Site("lab", "http://lab:9000", "lab", ("summit",))
    assert sites.current("summit") == sites.SITES["summit"]
    assert sites.localize("https://s3.cp.lsst.org/b/k", "lab") == "http://lab:9000/b/k"


@pytest.mark.parametrize(
    "text",
    [
        "[lab",
        "lab = 3",
        "[lab]\ninstance = 'lab'",
        "[lab]\nendpoint_url = 'no URL'\ninstance = 'lab'",
        "[lab]\nendpoint_url = 'http://lab'\ninstance = 1",
        "[lab]\nendpoint_url = 'http://lab'\ninstance = 'lab'\nmirrors = 3",
        "[lab]\nendpoint_url = 'http://lab'\ninstance = 'lab'\nport = 3",
    ],
)
def test_a_bad_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    path = tmp_path / "sites.toml"
    path.write_text(text)
    monkeypatch.setenv("LSST_LFA_SITES", str(path))
    with pytest.raises(ConfigurationError, match=r"LSST_LFA_SITES=.*sites\.toml"):
        sites.current("summit")


def test_a_missing_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSST_LFA_SITES", "/no/such/file")
    with pytest.raises(ConfigurationError, match="/no/such/file"):
        sites.current("summit")


def test_a_url_as_it_is_read_elsewhere() -> None:
    url = "https://s3.cp.lsst.org/rubinobs-lfa-cp/GC:1/image/2026/01/31/a?b#c.fits"
    there = "https://s3dfrgw.slac.stanford.edu/rubin:rubinobs-lfa-cp/GC:1/image/2026/01/31/a?b#c.fits"
    assert sites.localize(url, "usdf") == there
    assert sites.localize(url, "USDF") == there
    assert sites.localize(there, "usdf") == there
    assert sites.localize(url, "tucson") == url
    with pytest.raises(ConfigurationError, match=r"http://elsewhere is unknown.*https://s3\.cp\.lsst\.org"):
        sites.localize("http://elsewhere/bucket/key", "usdf")
    with pytest.raises(ConfigurationError, match="'moon' is unknown"):
        sites.localize(url, "moon")
    with pytest.raises(ValueError, match="must be"):
        sites.localize("no URL", "usdf")
