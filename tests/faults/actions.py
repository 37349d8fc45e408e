"""What can go wrong with a call, and when: the words of a script.

A call passes four points: its head *arrived*; its body was read (on the way, `request_byte` may be struck); the
response is made (as a rule, by carrying the request out); it was sent (on the way, `response_byte` may be struck). An
action changes what happens at some of them.

Offsets count bytes of a body, from its end if negative; the strike comes before the byte at the offset goes through.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .messages import OPERATIONS, Response, error_response
from .store import slices

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import ClassVar

    from .server import Exchange, FaultyS3Server, Seen


@dataclass
class Fault:
    """One line of a script.

    Parameters
    ----------
    operation : str
        S3's name of the operation, as ``UploadPart``; "*" for all.
    action : Action
        What happens.
    nth : int, optional
        The first call that it happens to, counted from 1 since the script was set; by default the first one.
    times : float, optional
        How many calls it happens to from there on: by default only that one if `nth` is given, all of them if not.
    where : callable, optional
        Only calls for which this is true count at all.
    """

    operation: str
    action: Action
    nth: int | None = None
    times: float | None = None
    where: Callable[[Seen], bool] | None = None

    def __post_init__(self) -> None:
        if self.operation not in {"*", "Unknown", *OPERATIONS}:
            msg = f"No operation has the name {self.operation!r}."
            raise ValueError(msg)

    def concerns(self, seen: Seen) -> bool:
        """Tell whether this call is one to count."""
        return self.operation in ("*", seen.operation) and (self.where is None or self.where(seen))

    def happens(self, number: int) -> bool:
        """Tell whether it happens to the `number`-th of the calls that count."""
        first = self.nth or 1
        times = self.times if self.times is not None else (1 if self.nth else math.inf)
        return first <= number < first + times


class Action:
    """What goes wrong with a call; as such, nothing does."""

    request_byte: int | None = None
    """Offset in the request's body at which to strike."""

    response_byte: int | None = None
    """Offset in the response's body at which to strike."""

    receive_rate: float = math.inf
    """Most bytes of the request's body to read in a second."""

    send_rate: float = math.inf
    """Most bytes of the response, head included, to send in a second."""

    sends_continue: ClassVar[bool] = True
    """Whether a client that asks for it is told to go on with the body."""

    early: bool = False
    """Whether to respond, and be done, before the request's body was read."""

    async def arrived(self, exchange: Exchange) -> None:
        """Act when the head was read, and nothing else has happened."""

    async def strike(self, exchange: Exchange) -> None:
        """Act at `request_byte` and at `response_byte`."""

    async def respond(self, exchange: Exchange) -> Response:
        """Make the response."""
        return exchange.carry_out()

    async def finished(self, exchange: Exchange) -> None:
        """Act when the response was sent."""


@dataclass
class Status(Action):
    """Responds as told: any status, and garbage, a web page or nothing in place of what should be there.

    Parameters
    ----------
    code : int
        HTTP status.
    s3_code : str, optional
        S3's error code: the body is the XML of that error.
    headers : mapping, optional
        Headers of the response, as ``{"Retry-After": "1"}`` or ``{"Location": url}``.
    body : bytes, optional
        The body, if not an error's XML; by default empty.
    carry_out : bool, optional
        Whether to do first what was asked for.
    early : bool, optional
        Whether to respond at once, and close as soon as the client has.
    """

    code: int
    s3_code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    carry_out: bool = False
    early: bool = False

    async def respond(self, exchange: Exchange) -> Response:
        """Make the response, with a fresh XML document or with the body that was given."""
        if self.carry_out:
            exchange.carry_out()
        if self.s3_code is not None:
            return error_response(self.code, self.s3_code, self.headers)
        return Response(self.code, dict(self.headers), [self.body])


@dataclass
class Break(Action):
    """Base of what breaks a call off: at a byte of a body or, if none is given, before any response.

    Parameters
    ----------
    request_byte, response_byte : int, optional
        Where to strike. A `response_byte` of 0 is after the head; past the end, it is after the whole response.
    carry_out : bool, optional
        If no byte is given: whether to do first what was asked for, so that only the response is lost.
    """

    request_byte: int | None = None
    response_byte: int | None = None
    carry_out: bool = False

    async def respond(self, exchange: Exchange) -> Response:
        """Strike here, unless there is another place for that."""
        if self.request_byte is not None or self.response_byte is not None:
            return exchange.carry_out()
        if not self.carry_out:
            await self.strike(exchange)
            return exchange.carry_out()
        response = exchange.carry_out()
        await self.strike(exchange)
        return response


@dataclass
class Silence(Break):
    """Does nothing any more, with the connection open: reads nothing, or sends nothing.

    Parameters
    ----------
    seconds : float, optional
        For how long; then it goes on as if nothing had been.
    """

    seconds: float = math.inf

    async def strike(self, exchange: Exchange) -> None:
        """Wait; in mid-body without reading, and so without learning that the client has gone."""
        try:
            async with asyncio.timeout(None if math.isinf(self.seconds) else self.seconds):
                if exchange.body_was_read:
                    await exchange.connection.gone()
                else:
                    await asyncio.get_running_loop().create_future()
        except TimeoutError:
            return


@dataclass
class Reset(Break):
    """Resets the connection (a TCP RST)."""

    async def strike(self, exchange: Exchange) -> None:
        """Hang up hard."""
        exchange.connection.reset()
        raise ConnectionAbortedError


@dataclass
class Close(Break):
    """Closes the connection: what was sent arrives, and the rest is missing."""

    async def strike(self, exchange: Exchange) -> None:
        """Hang up."""
        exchange.connection.close()
        raise ConnectionAbortedError


@dataclass
class Raw(Action):
    """Sends bytes as they are, whatever they mean, and closes as soon as the client has.

    Parameters
    ----------
    data : bytes
        Head and body; to HEAD, only the head is sent.
    """

    data: bytes

    async def respond(self, exchange: Exchange) -> Response:
        """Send them."""
        head, mark, _ = self.data.partition(b"\r\n\r\n")
        await exchange.connection.write(head + mark if exchange.request.method == "HEAD" else self.data)
        exchange.connection.close_sending()
        await exchange.connection.gone()
        raise AssertionError


class WithholdContinue(Action):
    """Never says ``100 Continue``; serves as usual a client that sends the body all the same."""

    sends_continue = False


@dataclass
class SendSlowly(Action):
    """Sends the response, head included, at `send_rate` bytes per second."""

    send_rate: float


@dataclass
class ReceiveSlowly(Action):
    """Reads the request's body at `receive_rate` bytes per second."""

    receive_rate: float


@dataclass
class Corrupt(Action):
    """Changes one byte of the response's body, and no header.

    Parameters
    ----------
    offset : int
        Which byte.
    mask : int, optional
        Which of its bits.
    """

    offset: int
    mask: int = 1

    async def respond(self, exchange: Exchange) -> Response:
        """Put another byte in its place."""
        response = exchange.carry_out()
        length = response.content_length
        offset = self.offset + (length if self.offset < 0 else 0)
        if not 0 <= offset < length:
            return response
        (byte,) = slices(response.body, offset, offset + 1)
        rest = slices(response.body, offset + 1, length)
        return replace(response, body=[*slices(response.body, 0, offset), bytes([byte[0] ^ self.mask]), *rest])


class IgnoreRange(Action):
    """Sends the whole object, with status 200, whatever part of it was asked for."""

    async def respond(self, exchange: Exchange) -> Response:
        """Forget the header."""
        exchange.request.headers.pop("range", None)
        return exchange.carry_out()


@dataclass
class WrongContentRange(Action):
    """Says of the bytes, which are the right ones, that they are others.

    Parameters
    ----------
    shift : int, optional
        Added to both offsets.
    total : int, optional
        In place of the object's size.
    """

    shift: int = 0
    total: int | None = None

    async def respond(self, exchange: Exchange) -> Response:
        """Rewrite the header, if there is one."""
        response = exchange.carry_out()
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
        if found is not None:
            first, last, total = map(int, found.groups())
            total = total if self.total is None else self.total
            response.headers["Content-Range"] = f"bytes {first + self.shift}-{last + self.shift}/{total}"
        return response


@dataclass
class Hook(Action):
    """Calls functions, plain or coroutine functions, with the server.

    Parameters
    ----------
    before : callable, optional
        Called when the request's head was read; the server's last `seen` is this call, until the next ``await``.
    after : callable, optional
        Called when the response was sent, before the next request on this connection is read. The client may already
        act on the response: what must be done by then belongs in `meanwhile`.
    meanwhile : callable, optional
        Called when the request was carried out, before its response is sent.
    """

    before: Callable[[FaultyS3Server], object] | None = None
    meanwhile: Callable[[FaultyS3Server], object] | None = None
    after: Callable[[FaultyS3Server], object] | None = None

    async def arrived(self, exchange: Exchange) -> None:
        """Call `before`."""
        await _call(self.before, exchange)

    async def respond(self, exchange: Exchange) -> Response:
        """Carry it out and call `meanwhile`."""
        response = exchange.carry_out()
        await _call(self.meanwhile, exchange)
        return response

    async def finished(self, exchange: Exchange) -> None:
        """Call `after`."""
        await _call(self.after, exchange)


async def _call(function: Callable[[FaultyS3Server], object] | None, exchange: Exchange) -> None:
    if function is None:
        return
    result = function(exchange.server)
    if inspect.isawaitable(result):
        await result
