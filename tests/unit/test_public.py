"""The public names: loaded when they are accessed, and the same however they are reached."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import subprocess
import sys
import textwrap
from importlib import import_module
from unittest import mock

import pytest

import lsst_lfa

HOMES = {name: home for name, home in lsst_lfa._HOMES.items() if name not in {"LfaError", "Uploadable"}}


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_importing_the_package_loads_nothing_else() -> None:
    code = """
        import sys
        before = set(sys.modules)
        import lsst_lfa
        print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))
        print(sorted(name for name in sys.modules if name.startswith("lsst_lfa.")), "asyncio" in sys.modules)
    """
    assert run_python(code) == "lsst_lfa\n[] False\n"


def test_the_first_name_loads_all_but_the_annex() -> None:
    code = """
        import sys, lsst_lfa
        lsst_lfa.TransferConfig
        loaded = set(sys.modules)
        for name in lsst_lfa._HOMES:
            getattr(lsst_lfa, name)
        print(set(sys.modules) - loaded, "lsst_lfa.annex" in loaded, "aiobotocore.session" in loaded)
        from lsst_lfa import LargeFileAnnex
        print(LargeFileAnnex)
    """
    assert run_python(code) == "set() False True\n<class 'lsst_lfa.LargeFileAnnex'>\n"


def test_a_star_imports_all_of_them() -> None:
    code = """
        from lsst_lfa import *
        import lsst_lfa
        print([name for name in lsst_lfa.__all__ if globals().get(name) is not getattr(lsst_lfa, name)])
    """
    assert run_python(code) == "[]\n"


def test_each_module_can_be_the_first_one_and_its_public_names_say_lsst_lfa() -> None:
    code = f"""
        import sys
        from importlib import import_module
        import lsst_lfa.annex, lsst_lfa._bucket_for  # so that other packages are loaded once

        def first(module):
            for name in [name for name in sys.modules if name.partition(".")[0] == "lsst_lfa"]:
                del sys.modules[name]
            return import_module(f"lsst_lfa.{{module}}")

        for name, home in {HOMES!r}.items():
            assert getattr(first(home), name).__module__ == "lsst_lfa", name
        for module in ("errors", "naming", "sites", "salobj", "annex", "_spool", "_cli"):
            first(module)
        print(lsst_lfa.annex.LargeFileAnnex, lsst_lfa.annex.LargeFile, lsst_lfa.annex.Spool)
    """
    names = ("LargeFileAnnex", "LargeFile", "Spool")
    assert run_python(code) == " ".join(f"<class 'lsst_lfa.{name}'>" for name in names) + "\n"


def test_names_are_the_same_however_they_are_reached() -> None:
    for name, home in lsst_lfa._HOMES.items():
        assert getattr(lsst_lfa, name) is getattr(import_module(f"lsst_lfa.{home}"), name)
    for name in ("LargeFile", "LargeFileAnnex", "Spool"):
        assert getattr(lsst_lfa, name) is getattr(lsst_lfa.annex, name)
    assert set(lsst_lfa.__all__) == {*lsst_lfa._HOMES, *lsst_lfa._LATER, "annex", "errors", "sites"}
    assert set(lsst_lfa.__all__) <= set(dir(lsst_lfa))
    assert "naming" in lsst_lfa._MODULES, "as it was loaded before"


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'lsst_lfa' has no attribute 'AsyncS3Bukket'"):
        lsst_lfa.AsyncS3Bukket  # type: ignore[attr-defined]  # noqa: B018


def test_a_replaced_name_stays_replaced_and_comes_back() -> None:
    code = """
        from unittest import mock
        import lsst_lfa
        with mock.patch("lsst_lfa.AsyncS3Bucket") as fake:
            lsst_lfa.S3Session, lsst_lfa.download_url
            assert lsst_lfa.AsyncS3Bucket is fake
            from lsst_lfa import AsyncS3Bucket
            assert AsyncS3Bucket is fake
        from lsst_lfa import AsyncS3Bucket
        print(AsyncS3Bucket)
    """
    assert run_python(code) == "<class 'lsst_lfa.AsyncS3Bucket'>\n"
    with mock.patch("lsst_lfa.AsyncS3Bucket"):
        pass
    assert inspect.isclass(lsst_lfa.AsyncS3Bucket)


def test_they_can_be_pickled_and_copied() -> None:
    for name in HOMES:
        found = getattr(lsst_lfa, name)
        assert pickle.loads(pickle.dumps(found)) is found
        assert copy.deepcopy(found) is found
    config = lsst_lfa.TransferConfig(max_attempts=2)
    code = f"import pickle; print(pickle.loads({pickle.dumps(config)!r}).max_attempts)"
    assert run_python(code) == "2\n", "in a process that has not imported it yet"


def test_a_name_may_be_reached_first_in_a_running_loop() -> None:
    code = """
        import asyncio, lsst_lfa
        async def main():
            return lsst_lfa.AsyncS3Bucket("test")
        print(asyncio.run(main()).name)
    """
    assert run_python(code) == "test\n"
    assert asyncio.iscoroutinefunction(lsst_lfa.download_url)
