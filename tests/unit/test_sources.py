"""Sources: data that were read do not change, whatever a source does with its memory afterwards."""

from __future__ import annotations

import array
import asyncio
import ctypes
import gc
import io
import mmap
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lsst_lfa._transfer.sources import open_source

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

KiB = 1024
PIECES = 5


class Refilled:
    """One buffer, which has other content each time.

    Parameters
    ----------
    kind : str
        In what form it is handed out.
    size : int
        Its bytes.
    """

    def __init__(self, kind: str, size: int) -> None:
        self._memory = mmap.mmap(-1, size) if kind == "mmap" else bytearray(size)
        self._form: Any = FORMS[kind](self._memory)
        self._view = memoryview(self._form).cast("B") if kind in ("array", "own") else memoryview(self._memory)
        self._number = 0
        self.all = b"".join(bytes([number + 1]) * size for number in range(PIECES))

    def fill(self) -> Any:
        """Put the next content into it, and return it in its form; nothing when there is no more."""
        self._number += 1
        size = self._view.nbytes
        self._view[:] = bytes([self._number]) * size if self._number <= PIECES else bytes(size)
        return self._form if self._number <= PIECES else b""


class OwnBytearray(bytearray):
    """A kind of its own."""


def _array(memory: bytearray | mmap.mmap) -> array.array[int]:
    return array.array("H", memory)


FORMS: dict[str, Callable[[Any], Any]] = {
    "bytearray": lambda memory: memory,
    "own": OwnBytearray,
    "memoryview": memoryview,
    "read-only view": lambda memory: memoryview(memory).toreadonly(),
    "view of doubles": lambda memory: memoryview(memory).cast("d"),
    "mmap": lambda memory: memory,
    "array": _array,
    "numpy": lambda memory: np.frombuffer(memory, np.uint8),
    "numpy, big-endian, two dimensions": lambda memory: np.frombuffer(memory, ">f4").reshape(-1, 2),
    "numpy, records": lambda memory: np.frombuffer(memory, [("a", "<i2"), ("b", ">i2"), ("c", "S4")]),
    "ctypes": lambda memory: (ctypes.c_int * (len(memory) // 4)).from_buffer(memory),
    "numpy's own view": lambda memory: np.frombuffer(memory, np.uint8).data,
}


async def _slowly() -> None:
    await asyncio.sleep(0.001)


async def iterated(buffer: Refilled) -> AsyncIterator[Any]:
    while len(piece := buffer.fill()):
        yield piece
        await _slowly()


class SyncFile:
    """Reads as told, and can neither seek nor fill others' memory."""

    def __init__(self, buffer: Refilled) -> None:
        self._buffer = buffer

    def read(self, _: int) -> Any:
        return self._buffer.fill()


class AsyncFile(SyncFile):
    async def read(self, _: int) -> Any:
        await _slowly()
        return self._buffer.fill()


class AwaitableFile(SyncFile):
    """Its `read` is a plain function that returns an awaitable."""

    def read(self, _: int) -> Any:
        async def read() -> Any:
            await _slowly()
            return self._buffer.fill()

        return read()


PRODUCERS: list[Callable[[Refilled], Any]] = [iterated, SyncFile, AsyncFile, AwaitableFile]


@pytest.mark.parametrize("producer", PRODUCERS, ids=lambda producer: producer.__name__)
@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("size", [1000, 200 * KiB, 1200 * KiB], ids=["small", "medium", "large"])
async def test_a_buffer_that_its_producer_fills_again_was_copied(
    producer: Callable[[Refilled], Any], kind: str, size: int
) -> None:
    buffer = Refilled(kind, size)
    async with open_source(producer(buffer)) as source:
        part = await source.read(len(buffer.all) + 1)
        assert await source.read(1) == []
    assert b"".join(part) == buffer.all


async def test_immutable_bytes_are_not_copied() -> None:
    piece = bytes(200 * KiB)

    async def source() -> AsyncIterator[bytes]:
        yield piece

    async with open_source(source()) as opened:
        (view,) = await opened.read(1 << 20)
    assert view.obj is piece


@pytest.mark.parametrize("as_path", [True, False])
async def test_memory_of_a_part_that_was_sent_holds_the_next_one(tmp_path: Path, *, as_path: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * KiB + b"b" * KiB + b"c" * 10)
    with path.open("rb") as file:
        async with open_source(path if as_path else file) as source:
            first = await source.read(KiB)
            memory = first[0].obj
            assert bytes(first[0]) == b"a" * KiB
            source.recycle(first)
            assert first == []
            second = await source.read(KiB)
            assert second[0].obj is memory
            assert bytes(second[0]) == b"b" * KiB
            third = await source.read(KiB)
            assert third[0].obj is not memory, "that is in use"
            assert bytes(third[0]) == b"c" * 10
            assert bytes(second[0]) == b"b" * KiB


async def test_memory_that_is_too_short_is_not_used_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    async with open_source(path) as source:
        source.recycle(await source.read(10))
        (view,) = await source.read(20)
        assert bytes(view) == bytes(range(10, 30))


@pytest.mark.parametrize("as_path", [True, False])
async def test_memory_of_a_part_that_was_sent_ends_with_the_source(tmp_path: Path, *, as_path: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    with path.open("rb") as file:
        async with open_source(path if as_path else file) as source:
            part = await source.read(10)
            (view,) = part
            source.recycle(part)
            assert is_alive(view)
        assert not is_alive(view)


def is_alive(view: memoryview) -> bool:
    try:
        return view.nbytes > 0
    except ValueError:
        return False


async def test_an_error_while_a_part_is_read_keeps_no_memory() -> None:
    receiving, sending = os.pipe()
    os.set_blocking(receiving, False)
    os.write(sending, b"some")
    with open(receiving, "rb", buffering=0) as file:  # noqa: PTH123
        async with open_source(file) as source:
            with pytest.raises(TypeError, match="non-blocking") as caught:
                await source.read(100)
    os.close(sending)
    frames = [entry.frame.f_locals for entry in caught.traceback]
    found = [value for names in frames for value in names.values() if isinstance(value, memoryview)]
    assert len(found) > 0
    assert not any(map(is_alive, found))


async def test_bytes_of_others_are_never_written_to() -> None:
    data = bytes(range(20))

    async def pieces() -> AsyncIterator[bytes]:
        yield data

    for obj in (data, io.BytesIO(data), pieces()):
        async with open_source(obj) as source:
            part = await source.read(10)
            source.recycle(part)
            assert part == []
            assert b"".join(await source.read(10)) == data[10:]
    assert data == bytes(range(20))


STRANGE: dict[str, Any] = {
    "numpy, big-endian": np.arange(1000, dtype=">f8"),
    "numpy, complex": np.arange(1000, dtype="c16"),
    "numpy, records": np.zeros(100, [("a", "i2"), ("b", ">f8")]),
    "numpy, half floats": np.arange(100, dtype="f2"),
    "numpy, one number": np.array(3.5),
    "numpy, no rows": np.zeros((0, 3)),
    "numpy, text": np.array(["abc", "de"]),
    "ctypes": (ctypes.c_double * 50)(*range(50)),
    "ctypes, a structure": type("Point", (ctypes.Structure,), {"_fields_": [("x", ctypes.c_int)]})(7),
    "array": array.array("l", range(50)),
    "nothing": memoryview(b""),
}


@pytest.mark.parametrize("kind", STRANGE)
async def test_memory_of_any_format_is_uploaded_as_the_bytes_that_it_is(kind: str) -> None:
    async with open_source(STRANGE[kind]) as source:
        assert source.size == memoryview(STRANGE[kind]).nbytes
        assert b"".join(await source.read(1 << 20)) == bytes(memoryview(STRANGE[kind]))


async def test_what_is_not_contiguous_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(TypeError, match="contiguous"):
        open_source(np.zeros((4, 4))[:, ::2])
    with pytest.raises(TypeError, match="contiguous"):
        open_source(np.zeros((4, 4), order="F"))


@pytest.mark.parametrize(
    "references",
    [
        np.array([object(), None]),
        np.zeros(3, [("a", "f8"), ("b", "O")]),
        (ctypes.py_object * 2)(),
        (ctypes.POINTER(ctypes.c_int) * 2)(),
        (ctypes.c_void_p * 2)(),
    ],
)
async def test_references_are_refused(references: Any) -> None:
    """They are addresses in this process, and mean nothing elsewhere."""
    with pytest.raises(TypeError, match="references"):
        open_source(references)

    async def pieces() -> AsyncIterator[Any]:
        yield references

    async with open_source(pieces()) as source:
        with pytest.raises(TypeError, match="references"):
            await source.read(100)


async def test_names_of_fields_are_no_references() -> None:
    array = np.ones(3, [("OP&X", "c16"), ("X", "?")])
    async with open_source(array) as source:
        assert b"".join(await source.read(100)) == array.tobytes()


class SeeksSilently(io.BytesIO):
    """A file whose `seek` returns nothing, as Python's temporary files did before 3.11."""

    def seek(self, *where: int) -> None:  # type: ignore[override]
        super().seek(*where)


async def test_a_file_whose_seek_returns_nothing_has_a_size_and_gets_its_position_back() -> None:
    file = SeeksSilently(b"0123456789")
    file.read(3)
    source = await open_source(file).__aenter__()
    assert source.size == 7
    assert b"".join(await source.read(4)) == b"3456"
    await source.__aexit__(ValueError, ValueError(), None)
    assert file.read() == b"3456789"


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
async def test_memory_is_given_back_when_the_source_is_closed_whoever_still_has_its_parts() -> None:
    memory = bytearray(100)
    async with open_source(memory) as source:
        parts = [await source.read(30) for _ in range(4)]
        with pytest.raises(BufferError):
            memory.append(0)
    memory.append(0)
    with pytest.raises(ValueError, match="released"):
        parts[0][0].tobytes()


@pytest.mark.usefixtures("_no_collector")
async def test_an_array_is_referred_to_no_more() -> None:
    data = np.zeros(1000)
    before = sys.getrefcount(data)
    async with open_source(data) as source:
        await source.read(10_000)
    del source
    # Else numpy would refuse to resize it; under coverage, which refers to it too, it always does.
    assert sys.getrefcount(data) == before


async def test_a_bytesio_that_is_written_meanwhile_keeps_what_it_had() -> None:
    file = io.BytesIO(b"A" * 1000)
    file.seek(100)
    async with open_source(file) as source:
        part = await source.read(1000)
        file.seek(0)
        file.write(b"B" * 5000)
        file.truncate(10)
        assert b"".join(part) == b"A" * 900
