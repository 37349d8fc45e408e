"""An S3 server of the tests' own, which misbehaves on a script."""

from __future__ import annotations

import asyncio
import http
import itertools
import math
from collections import Counter
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING

from .actions import Action, Fault, Status
from .messages import Request
from .operations import carry_out
from .store import MIN_PART_SIZE, Body, Store, slices
from .wire import CHUNK, Listener

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator

    from .messages import Response
    from .store import StoredObject, Upload
    from .wire import Connection

TICK = 0.02
"""Seconds between two writes, or reads, at a limited rate."""


@dataclass
class Seen:
    """A call, as far as the server saw it.

    Attributes
    ----------
    operation, method, target, bucket, key : str
        What was asked for; `operation` is "Unknown" if the server has no such thing.
    query, headers : dict
        Header names in lower case.
    number : int
        Which call of this operation it was, from 1 since the server began.
    action : Action
        What the script made of it.
    content_length, bytes_received, bytes_sent : int
        Bytes of the request's body announced and read, and of the response's body sent.
    carried_out : bool
        Whether the server did what was asked for (or refused it for a good reason).
    status : int or None
        The status of the response.
    began, ended : float
        Time of the loop when the head was read and when the call was over; `ended` is inf until then.
    """

    operation: str
    method: str
    target: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    number: int
    content_length: int
    began: float
    ended: float = math.inf
    action: Action | None = None
    bytes_received: int = 0
    bytes_sent: int = 0
    carried_out: bool = False
    status: int | None = None

    @property
    def part_number(self) -> int | None:
        """Number of the part that is uploaded."""
        return int(self.query["partNumber"]) if "partNumber" in self.query else None

    @property
    def upload_id(self) -> str | None:
        """Which multipart upload it belongs to."""
        return self.query.get("uploadId")


class FaultyS3Server(Listener):
    """An S3 server on a port of 127.0.0.1, in the loop of the test.

    Buckets are addressed by path. Signatures are not looked at, but a body that does not fit the digests which came
    with it (``x-amz-content-sha256``, ``Content-MD5``) is refused.

    Parameters
    ----------
    faults : iterable of Fault, optional
        The script, see `script`.
    buckets : iterable of str, optional
        Buckets to begin with.
    min_part_size : int, optional
        Smallest size of a part but the last, in bytes.
    receive_buffer, tls : optional
        See `Listener`.

    Attributes
    ----------
    seen : list of Seen
        Every call, in the order in which their heads arrived.
    current_requests, peak_requests : int
        Calls under way: now, and the most there ever were.
    bytes_received, bytes_sent : Counter
        Bytes of bodies by operation.

    Examples
    --------
    >>> faults = [Fault("UploadPart", Status(503, "SlowDown"), nth=2, times=3)]
    >>> async with FaultyS3Server(faults) as server:
    ...     await upload(server.endpoint_url)
    ...     assert not server.uploads
    """

    def __init__(
        self,
        faults: Iterable[Fault] = (),
        *,
        buckets: Iterable[str] = ("test",),
        min_part_size: int = MIN_PART_SIZE,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(receive_buffer=receive_buffer, tls=tls)
        self.store = Store(buckets, min_part_size)
        self.seen: list[Seen] = []
        self.current_requests = 0
        self.peak_requests = 0
        self.bytes_received: Counter[str] = Counter()
        self.bytes_sent: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self.script(*faults)

    @property
    def buckets(self) -> set[str]:
        """Names of the buckets."""
        return self.store.buckets

    @property
    def objects(self) -> dict[tuple[str, str], StoredObject]:
        """Objects by (bucket, key)."""
        return self.store.objects

    @property
    def uploads(self) -> dict[str, Upload]:
        """Open multipart uploads by identifier."""
        return self.store.uploads

    def put(self, bucket: str, key: str, data: bytes) -> StoredObject:
        """Store an object behind the clients' backs."""
        return self.store.put(bucket, key, Body(data))

    def script(self, *faults: Fault) -> None:
        """Set the script, in place of the one before; calls count from here. The first fault that fits happens."""
        self._script: list[tuple[Fault, Iterator[int]]] = [(fault, itertools.count(1)) for fault in faults]

    def calls(self, operation: str) -> list[Seen]:
        """Return what was seen of one operation."""
        return [seen for seen in self.seen if seen.operation == operation]

    async def serve(self, connection: Connection) -> None:
        """Serve one request after the other."""
        while (head := await connection.read_head()) is not None:
            request = Request.parse(head)
            seen = self._record(request)
            self.current_requests += 1
            self.peak_requests = max(self.peak_requests, self.current_requests)
            try:
                await Exchange(self, connection, request, seen).run()
            finally:
                self.current_requests -= 1
                seen.ended = self._loop.time()

    def _record(self, request: Request) -> Seen:
        self._calls[request.operation] += 1
        seen = Seen(
            operation=request.operation,
            method=request.method,
            target=request.target,
            bucket=request.bucket,
            key=request.key,
            query=request.query,
            headers=dict(request.headers),
            number=self._calls[request.operation],
            content_length=request.content_length,
            began=self._loop.time(),
        )
        self.seen.append(seen)
        # All of them count the call, the first one that happens is done.
        happening = [
            fault.action for fault, calls in self._script if fault.concerns(seen) and fault.happens(next(calls))
        ]
        seen.action = happening[0] if happening else None
        return seen


class Exchange:
    """One request and its response on a connection.

    Attributes
    ----------
    body_was_read : bool
        Whether all of the request's body has been taken from the connection.
    """

    def __init__(self, server: FaultyS3Server, connection: Connection, request: Request, seen: Seen) -> None:
        self.server = server
        self.connection = connection
        self.request = request
        self.seen = seen
        self.body_was_read = False
        self._action = seen.action or Action()
        if "transfer-encoding" in request.headers:
            # As S3: no body without its length. Nor could we tell where the next request begins.
            self._action = Status(411, "MissingContentLength", early=True)

    async def run(self) -> None:
        """Pass all the points of a call."""
        action = self._action
        await action.arrived(self)
        if not action.early:
            await self._receive()
        await self._send(await action.respond(self))
        await action.finished(self)
        if action.early:
            self.connection.close_sending()
            await self.connection.gone()

    def carry_out(self) -> Response:
        """Do what was asked for."""
        self.seen.carried_out = True
        return carry_out(self.server.store, self.request)

    async def _receive(self) -> None:
        length = self.request.content_length
        if self._action.sends_continue and self.request.headers.get("expect", "").lower() == "100-continue":
            await self.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        strike = _offset(self._action.request_byte, length)
        if strike is not None:
            await self._receive_until(strike)
            self.body_was_read = strike == length
            await self._action.strike(self)
        await self._receive_until(length)
        self.body_was_read = True

    async def _receive_until(self, offset: int) -> None:
        body, rate = self.request.body, self._action.receive_rate
        while body.size < offset:
            chunk = await self.connection.read_some(min(offset - body.size, _step(rate)))
            if not chunk:
                msg = "Closed in mid-body."
                raise ConnectionResetError(msg)
            body.add(chunk)
            self.seen.bytes_received += len(chunk)
            self.server.bytes_received[self.seen.operation] += len(chunk)
            if rate < math.inf:
                await asyncio.sleep(len(chunk) / rate)

    async def _send(self, response: Response) -> None:
        self.seen.status = response.status
        await self._write(self._head(response))
        if self.request.method == "HEAD" or response.status in (204, 304):
            response.body = ()
        strike = _offset(self._action.response_byte, response.content_length)
        if strike is None:
            await self._send_between(response, 0, response.content_length)
        else:
            await self._send_between(response, 0, strike)
            await self._action.strike(self)
            await self._send_between(response, strike, response.content_length)

    def _head(self, response: Response) -> bytes:
        try:
            reason = http.HTTPStatus(response.status).phrase
        except ValueError:
            reason = "Unknown"
        headers = {
            "Date": formatdate(usegmt=True),
            "Server": "faults",
            "x-amz-request-id": f"{len(self.server.seen):016X}",
            "Connection": "close" if self._action.early else "keep-alive",
            **({} if response.status in (204, 304) else {"Content-Length": str(response.content_length)}),
            **response.headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {response.status} {reason}\r\n{lines}\r\n".encode("latin-1")

    async def _send_between(self, response: Response, start: int, stop: int) -> None:
        for piece in slices(response.body, start, stop):
            await self._write(piece, body=True)

    async def _write(self, data: bytes | memoryview, *, body: bool = False) -> None:
        rate = self._action.send_rate
        step = _step(rate)
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            await self.connection.write(piece)
            if body:
                self.seen.bytes_sent += len(piece)
                self.server.bytes_sent[self.seen.operation] += len(piece)
            if rate < math.inf:
                await asyncio.sleep(len(piece) / rate)


def _offset(offset: int | None, length: int) -> int | None:
    """Resolve an offset which may count from the end."""
    if offset is None:
        return None
    return max(0, offset + length) if offset < 0 else min(offset, length)


def _step(rate: float) -> int:
    """Return how many bytes to move at once at a rate in bytes per second."""
    return max(1, int(min(rate * TICK, CHUNK)))
