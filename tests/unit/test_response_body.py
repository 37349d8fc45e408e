"""Bodies are received in place, on every kind of event loop, with TLS and without."""

from __future__ import annotations

import asyncio
import gc
import ssl
import weakref
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import trustme
import uvloop

from lsst_lfa._transfer.response_body import ResponseBody

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

SIZE = 3_000_001
DATA = bytes(range(251)) * (SIZE // 251 + 1)


@dataclass
class Server:
    """Responds each request with ``head``, the data, and then waits for the next one, or closes."""

    tls: bool
    head: str = f"Content-Length: {SIZE}\r\n"
    body: bytes = DATA[:SIZE]
    close: bool = False
    connections: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(f"HTTP/1.1 200 OK\r\n{self.head}\r\n".encode() + self.body)
                await writer.drain()
                if self.close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
        finally:
            writer.close()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Callable[[], Coroutine[Any, Any, aiohttp.ClientResponse]]]:
        """Yield a function that asks for the body."""
        serving = trusting = None
        if self.tls:
            authority = trustme.CA()
            serving, trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
            authority.issue_cert("127.0.0.1").configure_cert(serving)
            authority.configure_trust(trusting)
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=serving)
        host, port = server.sockets[0].getsockname()
        url = f"{'https' if self.tls else 'http'}://{host}:{port}/"
        async with server, aiohttp.ClientSession() as session:
            yield lambda: session.get(url, ssl=trusting or True)


class Place:
    """Where a body goes, and how much of it came."""

    def __init__(self) -> None:
        self.bytes = bytearray(SIZE)
        self.count = 0

    def moved(self, count: int) -> None:
        assert count > 0
        self.count += count

    async def take(self, response: aiohttp.ClientResponse, step: int = SIZE) -> None:
        body = ResponseBody(response, SIZE, self.moved)
        try:
            for start in range(0, SIZE, step):
                with memoryview(self.bytes)[start : start + step] as view:
                    await body.readinto(view)
        finally:
            body.close()

    def check(self) -> None:
        """Assert that what was counted is in its place, and that nobody views it any more."""
        assert self.bytes[: self.count] == DATA[: self.count]
        assert not any(self.bytes[self.count :])
        self.bytes.clear()


@pytest.fixture(params=[False, True], ids=["http", "https"])
def tls(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=[asyncio.SelectorEventLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Coroutine[Any, Any, None]], None]]:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner.run


Run = Any


class Without:
    """Another object, with one name less."""

    def __init__(self, obj: object, name: str) -> None:
        self._obj = obj
        self._missing = name

    def __getattr__(self, name: str) -> Any:
        if name == self._missing:
            raise AttributeError(name)
        value = getattr(self._obj, name)
        return Without(value, self._missing) if name == "protocol" else value


@pytest.mark.parametrize("step", [SIZE, 1_000_000, 300_000])
def test_a_body_fills_its_place_and_the_connection_is_used_again(run: Run, tls: bool, step: int) -> None:
    async def main() -> None:
        server = Server(tls)
        async with server.client() as get:
            for _ in range(3):
                place = Place()
                await place.take(await get(), step)
                assert place.count == SIZE
                place.check()
        assert server.connections == 1

    run(main())


def test_a_body_that_ends_early_is_kept_up_to_there(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with Server(tls, body=DATA[:2_000_000], close=True).client() as get:
            place = Place()
            with pytest.raises(aiohttp.ClientPayloadError):
                await place.take(await get())
            assert place.count == 2_000_000
            place.check()

    run(main())


def test_a_chunked_body_is_left_to_the_parser(run: Run, tls: bool) -> None:
    async def main() -> None:
        chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (SIZE, DATA[:SIZE])
        server = Server(tls, "Transfer-Encoding: chunked\r\n", chunked)
        async with server.client() as get:
            for _ in range(2):
                place = Place()
                await place.take(await get())
                assert place.count == SIZE
                place.check()

    run(main())


def test_a_receiver_that_is_cancelled_lets_go_of_all(run: Run, tls: bool) -> None:
    async def main() -> None:
        server = Server(tls, body=DATA[:1_000_000])
        async with server.client() as get:
            place = Place()
            task = asyncio.create_task(place.take(await get()))
            while place.count < 1_000_000:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            place.check()
            await asyncio.wait_for(server.gone.wait(), 10)

    run(main())


def test_what_comes_late_does_not_end_a_pause(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with Server(tls).client() as get:
            place = Place()
            body = ResponseBody(await get(), SIZE, place.moved)
            await body.readinto(memoryview(place.bytes)[:1_000_000])
            await asyncio.sleep(0.1)  # the rest has arrived, and has no place yet
            assert place.count == 1_000_000
            await body.readinto(memoryview(place.bytes)[1_000_000:])
            body.close()
            assert place.count == SIZE
            place.check()

    run(main())


@pytest.mark.parametrize("missing", ["protocol", "transport", "set_response_params", "feed_eof"])
def test_without_a_name_that_aiohttp_does_not_document_the_body_comes_through_its_parser(
    run: Run, tls: bool, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        server = Server(tls)
        async with server.client() as get:
            for _ in range(2):
                place = Place()
                response = await get()
                assert response.connection is not None
                transport = response.connection.transport
                assert transport is not None
                owner = transport.get_protocol()
                given = response.connection
                with monkeypatch.context() as patch:
                    patch.setattr(aiohttp.ClientResponse, "connection", Without(given, missing))
                    patch.setattr(response, "content", Without(response.content, missing))
                    body = ResponseBody(response, SIZE, place.moved)
                    await body.readinto(memoryview(place.bytes)[:1_000_000])
                    assert transport.get_protocol() is owner
                    await body.readinto(memoryview(place.bytes)[1_000_000:])
                body.close()
                assert place.count == SIZE
                place.check()
        assert server.connections == 1

    run(main())


@pytest.mark.parametrize("extra", [b"x", b"\r\n", b"HTTP/1.1", DATA[:300_000]], ids=["1", "2", "8", "300000"])
@pytest.mark.parametrize("step", [SIZE, 1_000_000])
def test_bytes_too_many_spoil_neither_this_body_nor_the_next(run: Run, tls: bool, step: int, extra: bytes) -> None:
    async def main() -> None:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        server = Server(tls, body=DATA[:SIZE] + extra)
        async with server.client() as get:
            for pause in (0, 0, 0.02, 0.02):
                place = Place()
                try:
                    await place.take(await get(), step)
                except aiohttp.ClientError:
                    # What is left over was taken for the next response, and was none: it is asked for again.
                    assert place.count == 0
                else:
                    assert place.count == SIZE
                place.check()
                await asyncio.sleep(pause)
        assert not failures

    run(main())


def test_a_connection_that_is_lost_while_nobody_receives_is_no_loose_end(run: Run, tls: bool) -> None:
    """A slow disk keeps the receiver, and meanwhile the connection breaks; then the download is given up."""

    async def main() -> None:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        async with Server(tls).client() as get:
            place = Place()
            response = await get()
            body = ResponseBody(response, SIZE, place.moved)
            await body.readinto(memoryview(place.bytes)[:1_000_000])
            connection = response.connection
            assert connection is not None
            receiver = body._receiver
            assert receiver is not None
            receiver.connection_lost(ConnectionResetError("by the test"))
            body.close()
            lost = weakref.ref(receiver)
            del body, receiver, response, connection
        async with asyncio.timeout(10):
            while lost() is not None:
                await asyncio.sleep(0.01)
                gc.collect()
        assert not failures

    run(main())


def test_a_connection_that_was_closed_twice_is_no_error(run: Run, tls: bool) -> None:
    """Under TLS it has no protocol then, and aiohttp closes one that is lost again."""

    async def main() -> None:
        async with Server(tls).client() as get:
            place = Place()
            response = await get()
            body = ResponseBody(response, SIZE, place.moved)
            await body.readinto(memoryview(place.bytes)[:1_000_000])
            receiver = body._receiver
            assert receiver is not None
            receiver._transport.close()
            receiver._transport.close()
            body.close()
            assert response.connection is None

    run(main())


def test_meanwhile_an_earlier_response_cannot_resume_the_connection(run: Run, tls: bool) -> None:
    """aiohttp pauses and resumes through the protocol, whichever response had the connection before."""

    async def main() -> None:
        async with Server(tls).client() as get:
            place = Place()
            response = await get()
            assert response.connection is not None
            protocol = response.connection.protocol
            assert protocol is not None
            body = ResponseBody(response, SIZE, place.moved)
            await body.readinto(memoryview(place.bytes)[:1_000_000])
            protocol.pause_reading()
            protocol.resume_reading()
            await asyncio.sleep(0.05)
            assert place.count == 1_000_000
            await body.readinto(memoryview(place.bytes)[1_000_000:])
            body.close()
            place.check()

    run(main())


@pytest.mark.parametrize("missing", [1, 100, 1_000_000])
def test_downloads_side_by_side_do_not_touch_each_others_connections(run: Run, tls: bool, missing: int) -> None:
    """Some break off shortly before their ends, some wait for slow disks; all share one session."""

    async def main() -> None:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        breaking = Server(tls, body=DATA[: SIZE - missing], close=True)
        whole = Server(tls)

        async def one(number: int) -> None:
            for _ in range(4):
                place = Place()
                body = ResponseBody(await (get_breaking if number % 2 else get_whole)(), SIZE, place.moved)
                try:
                    for start in range(0, SIZE, 700_000):
                        with memoryview(place.bytes)[start : start + 700_000] as view:
                            await body.readinto(view)
                        await asyncio.sleep(0.002 * (number % 3))
                    assert number % 2 == 0
                except aiohttp.ClientError:
                    assert number % 2 == 1
                    assert place.count <= SIZE - missing
                finally:
                    body.close()
                if number % 2 == 0:
                    assert place.count == SIZE
                place.check()

        async with breaking.client() as get_breaking, whole.client() as get_whole:
            async with asyncio.timeout(30):
                await asyncio.gather(*(one(number) for number in range(8)))
        assert not failures

    run(main())
