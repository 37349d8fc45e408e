"""What the library guarantees when a server, or the way to it, fails: one table, which is a test and a part of a guide.

See `test_matrix` and `guide`.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lsst_lfa import errors

from . import (
    UNRESOLVABLE_URL,
    Action,
    Close,
    Corrupt,
    Cut,
    Fault,
    Flip,
    Hook,
    IgnoreRange,
    ReceiveSlowly,
    RefusingHost,
    Reset,
    SendSlowly,
    Silence,
    Status,
    Trap,
    UnresponsiveHost,
    WithholdContinue,
    WrongContentRange,
)
from . import harness as users
from .harness import BUCKET, KEY, Harness

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lsst_lfa import TransferConfig

    from .proxy import Tamper
    from .server import FaultyS3Server


@dataclass(frozen=True)
class Step:
    """Where a fault strikes: a request of something that a user does."""

    words: str
    operation: str
    act: Callable[[Harness], Awaitable[None]]

    def __str__(self) -> str:
        return self.operation if self.words != "`stream`" else "stream"


PUT = Step("`upload`", "PutObject", users.upload)
CREATE = Step("`upload` in parts: begin", "CreateMultipartUpload", users.upload_in_parts)
PART = Step("part", "UploadPart", users.upload_in_parts)
COMPLETE = Step("complete", "CompleteMultipartUpload", users.upload_in_parts)
GET = Step("`download`", "GetObject", users.download)
GET_FILE = Step("`download_file`", "GetObject", users.download_file)
STREAM = Step("`stream`", "GetObject", users.stream)
HEAD = Step("`head`, `size`, `exists`", "HeadObject", users.size)
LIST = Step("`list`", "ListObjectsV2", users.listing)
DELETE = Step("`delete`", "DeleteObject", users.delete)
STALE = Step("`abort_stale_uploads`", "ListMultipartUploads", users.abort_stale_uploads)

UP = (PUT, CREATE, PART, COMPLETE)
DOWN = (GET, GET_FILE, STREAM)
REST = (HEAD, LIST, DELETE, STALE)
ALL = (*UP, *DOWN, *REST)
BODIES_UP = (PUT, PART)
SOME = (PUT, PART, GET, HEAD)


@dataclass(frozen=True)
class Within:
    """A time limit, in words and in seconds."""

    words: str
    seconds: Callable[[TransferConfig], float]


AT_ONCE = Within("at once", lambda _: 0)
RETRIES = Within("the faults, and the pauses between them", lambda config: config.retry_timeout + config.stall_timeout)
GIVEN_UP = Within(
    "`retry_timeout + stall_timeout + cleanup_timeout`",
    lambda config: config.retry_timeout + config.stall_timeout + config.cleanup_timeout,
)
CANCELLED = Within("`2 * cleanup_timeout`", lambda config: 2 * config.cleanup_timeout)


@dataclass(frozen=True)
class Row:
    """A fault, and what comes of it.

    Attributes
    ----------
    fault : str
        A description.
    where : tuple of Step
        The requests in which it happens, each in a test of its own.
    action : Action or callable
        What the server does; or a function that makes it, of a URL that no request may reach.
    within : Within
        The maximum time that it takes.
    times, nth : float, int
        How often it happens, from which request on; by default always.
    raises : type, optional
        The error that is raised; by default the request succeeds.
    says : str
        The part of the error's message that gives the cause.
    remark : str
        A remark for the guide.
    interrupted : {"cancel", "timeout"}, optional
        How the user ends it, once the request has arrived.
    left : {"nothing", "stale", "logged"}
        What is left on the server: a multipart upload that `abort_stale_uploads` finds, or whose id is in the log.
    host : callable, optional
        In place of the server: a context with an ``endpoint_url``.
    tampers : tuple of Tamper
        What happens in transit.
    config : dict
        Differences in the configuration.
    """

    fault: str
    where: tuple[Step, ...]
    action: Action | Callable[[str], Action] = field(default_factory=Action)
    within: Within = RETRIES
    times: float | None = None
    nth: int | None = None
    raises: type[BaseException] | None = None
    says: str = ""
    remark: str = ""
    interrupted: Literal["cancel", "timeout"] | None = None
    left: Literal["nothing", "stale", "logged"] = "nothing"
    host: Callable[[], AbstractContextManager[Any]] | None = None
    tampers: tuple[Tamper, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)

    def asks(self, step: Step) -> bool:
        """Tell whether two things take a `cleanup_timeout`: to ask whether the object is there, and to abort."""
        return step is COMPLETE and self.within is GIVEN_UP and self.raises is not None

    def script(self, step: Step, forbidden_url: str) -> Fault:
        """Return the server's script for one of the requests."""
        action = self.action if isinstance(self.action, Action) else self.action(forbidden_url)
        return Fault(step.operation, action, nth=self.nth, times=self.times)


class _Unresolvable(nullcontext["_Unresolvable"]):
    endpoint_url = UNRESOLVABLE_URL

    def __init__(self) -> None:
        super().__init__(self)


def _busy(code: int, s3_code: str | None, name: str, where: tuple[Step, ...]) -> tuple[Row, Row]:
    action = Status(code, s3_code)
    return (
        Row(f"{name}, twice", where, action, times=2),
        Row(f"{name}, always", where, action, GIVEN_UP, raises=errors.UnavailableError, says=str(code)),
    )


def _refused(code: int, s3_code: str, error: type[errors.LfaError], where: tuple[Step, ...] = (PUT, PART, GET)) -> Row:
    return Row(
        f"{code} {s3_code}", where, Status(code, s3_code), AT_ONCE, raises=error, says=s3_code, remark="no retry"
    )


def _redirected(code: int, *, located: bool, where: tuple[Step, ...] = SOME) -> Row:
    def action(elsewhere: str) -> Action:
        return Status(code, headers={"Location": f"{elsewhere}/{BUCKET}/key"} if located else {})

    return Row(
        f"{code}, {'with' if located else 'without'} Location",
        where,
        action,
        AT_ONCE,
        raises=errors.RedirectRefusedError,
        says=str(code),
        remark="never followed",
    )


STATUSES = (
    *_busy(500, "InternalError", "500", ALL),
    *_busy(502, None, "502, a proxy's, without a body", (*SOME, COMPLETE)),
    *_busy(503, "SlowDown", "503 SlowDown", (*SOME, COMPLETE)),
    *_busy(429, "TooManyRequests", "429", SOME),
    *_busy(408, "RequestTimeout", "408", SOME),
    *_busy(400, "RequestTimeout", "400 RequestTimeout", BODIES_UP),
    Row(
        "503 with `Retry-After: 1`, once",
        (PUT, GET),
        Status(503, "SlowDown", headers={"Retry-After": "1"}),
        times=1,
        remark="after that second",
    ),
    Row(
        "503 with a `Retry-After` beyond `retry_timeout`",
        (PUT, GET),
        Status(503, "SlowDown", headers={"Retry-After": "3600"}),
        AT_ONCE,
        raises=errors.UnavailableError,
        says="503",
    ),
    Row("500 with a web page for a body, twice", (*UP, *DOWN), Status(500, body=b"<html><p>Oops</html>"), times=2),
    _refused(403, "AccessDenied", errors.AccessDeniedError, (*UP, *DOWN, LIST, DELETE, STALE)),
    _refused(403, "InvalidAccessKeyId", errors.UnknownKeyIdError),
    _refused(403, "SignatureDoesNotMatch", errors.WrongSecretError),
    _refused(400, "ExpiredToken", errors.ExpiredCredentialsError),
    _refused(403, "RequestTimeTooSkewed", errors.ClockSkewError),
    _redirected(307, located=True, where=ALL),
    _redirected(307, located=False, where=ALL),
    *(_redirected(code, located=located) for code in (301, 302, 308) for located in (True, False)),
)


_IMPATIENT = {"stall_timeout": 0.6}
_AT_MOST_TWICE = _IMPATIENT | {"max_attempts": 2}


def _silent(name: str, where: tuple[Step, ...], action: Action) -> tuple[Row, Row]:
    return (
        Row(f"{name}, twice", where, action, times=2, config=_IMPATIENT),
        Row(f"{name}, always", where, action, GIVEN_UP, raises=errors.TransferTimeoutError, says="too long",
            config=_AT_MOST_TWICE),
    )  # fmt: skip


SILENCES = (
    Row("no `100 Continue`", BODIES_UP, WithholdContinue(), remark="`Expect` is not sent"),
    *_silent("stops reading a body at its first byte", BODIES_UP, Silence(request_byte=0)),
    *_silent("stops reading a body halfway", BODIES_UP, Silence(request_byte=300_000)),
    *_silent("silent after the request", ALL, Silence()),
    *_silent("silent after the response's headers", (*DOWN, LIST), Silence(response_byte=0)),
    *_silent("silent in mid-body", DOWN, Silence(response_byte=1000)),
    *_silent("reads a body below `min_rate`", BODIES_UP, ReceiveSlowly(50_000)),
    *_silent("sends a body below `min_rate`", DOWN, SendSlowly(20_000)),
    Row("sends slowly, but above `min_rate`", (GET,), SendSlowly(4_000_000), config=_IMPATIENT,
        remark="as slowly as the server"),
    Row("accepts connections, then stays silent", (PUT, GET, HEAD), host=Trap, within=GIVEN_UP, config=_AT_MOST_TWICE,
        raises=errors.TransferTimeoutError, says="too long"),
    Row("drops connection attempts (a firewall)", (PUT, GET, HEAD), host=UnresponsiveHost, within=GIVEN_UP,
        config={"max_attempts": 2, "stall_timeout": 5}, raises=errors.UnreachableError, says="connect_timeout"),
    Row("refuses connections", (PUT, GET, HEAD), host=RefusingHost, within=GIVEN_UP,
        raises=errors.UnreachableError, says="Connect"),
    Row("has a name that does not resolve", (PUT, GET, HEAD), host=_Unresolvable, within=GIVEN_UP,
        raises=errors.UnreachableError, says="nowhere.invalid"),
)  # fmt: skip


def _broken(
    name: str, where: tuple[Step, ...], make: Callable[[], Action], says: str = "connection was lost"
) -> tuple[Row, Row]:
    return (
        Row(f"{name}, three times", where, make(), times=3),
        Row(f"{name}, always", where, make(), GIVEN_UP, raises=errors.UnreachableError, says=says),
    )


def _replace(server: FaultyS3Server) -> None:
    server.put(BUCKET, KEY, users.REVERSED)


_BEYOND = Status(416, "InvalidRange", headers={"Content-Range": f"bytes */{len(users.LARGE)}"})

BREAKS = (
    *_broken("reset before the response", ALL, Reset),
    *_broken("closed before the response", (*UP, *DOWN), Close),
    *_broken("reset at the first byte of a request body", BODIES_UP, lambda: Reset(request_byte=0)),
    *_broken("reset halfway through a request body", BODIES_UP, lambda: Reset(request_byte=300_000)),
    *_broken("reset one byte before the end of a request body", BODIES_UP, lambda: Reset(request_byte=-1)),
    Row("reset at the first byte of a response body, three times", DOWN, Reset(response_byte=0), times=3),
    Row("reset halfway through a response body, always", DOWN, Reset(response_byte=1_000_000),
        remark="resumed, not restarted"),
    Row("cut short at the first byte, three times", DOWN, Close(response_byte=0), times=3),
    Row("cut short at the first byte, always", DOWN, Close(response_byte=0), GIVEN_UP,
        raises=errors.UnreachableError, says="connection was lost"),
    Row("cut short halfway, always", DOWN, Close(response_byte=1_000_000), remark="resumed, not restarted"),
    Row("cut short one byte before the end, always", DOWN, Close(response_byte=-1),
        within=GIVEN_UP, raises=errors.UnreachableError, says="connection was lost"),
    Row("a bit of an upload flips in transit", BODIES_UP, tampers=(Flip("PUT /", 100_000, "request"),),
        remark="the server refuses it; it is sent again"),
    Row("bits of an upload flip in transit, always", BODIES_UP, within=GIVEN_UP,
        tampers=(Flip("PUT /", 100_000, "request", times=99),),
        raises=errors.DigestRefusedError, says="XAmzContentSHA256Mismatch"),
    Row("a bit of a download flips in transit, with `verify_etag=True`", (GET, GET_FILE), Corrupt(100_000), AT_ONCE,
        nth=2, times=1, raises=errors.IntegrityError, says="not match", config={"verify_etag": True}),
    Row("Range is ignored, once", DOWN, IgnoreRange(), nth=1),
    Row("Range is ignored, always", DOWN, IgnoreRange(), GIVEN_UP, raises=errors.ProtocolError, says="not match"),
    Row("416, though the object has bytes, twice", (GET, GET_FILE), _BEYOND, times=2,
        remark="requested again without a range"),
    Row("416, though the object has bytes, always", DOWN, _BEYOND, GIVEN_UP,
        raises=errors.ProtocolError, says="beyond the end"),
    Row("416 with a web page (a proxy's), always", DOWN, Status(416, body=b"<html>416</html>"), GIVEN_UP,
        raises=errors.ProtocolError, says="beyond the end"),
    Row("416 for the rest of a body that broke off before its first byte", DOWN, _BEYOND, AT_ONCE, nth=2, times=99,
        tampers=(Cut("GET /", 0, "response"),), raises=errors.ServiceError, says="416"),
    Row("wrong Content-Range, twice", DOWN, WrongContentRange(shift=1), times=2),
    Row("wrong Content-Range, always", DOWN, WrongContentRange(shift=1), GIVEN_UP,
        raises=errors.ProtocolError, says="not match"),
    Row("wrong size in one Content-Range", DOWN, WrongContentRange(total=len(users.LARGE) + 1), GIVEN_UP,
        nth=2, times=1, raises=errors.ObjectChangedError, says="replaced"),
    Row("the object is replaced in mid-download", DOWN, Hook(meanwhile=_replace), AT_ONCE,
        nth=1, raises=errors.ObjectChangedError, says="replaced"),
)  # fmt: skip

_ERROR = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>Sorry.</Message></Error>"
_PAGE = b"<html><body>Welcome to our <b>network</b></body></html>"
_GARBAGE = b"\0\1<<<garbage"
_NOT_DONE = "200, but an error for a body"

RESPONSES = (
    Row(f"{_NOT_DONE}, twice", UP, Status(200, body=_ERROR), times=2),
    Row(f"{_NOT_DONE}, always", (COMPLETE,), Status(200, body=_ERROR), GIVEN_UP,
        raises=errors.UnavailableError, says="InternalError"),
    Row("200, but nothing was done: no ETag, twice", BODIES_UP, Status(200), times=2),
    Row("200, but nothing was done: no ETag, always", BODIES_UP, Status(200), GIVEN_UP,
        raises=errors.ProtocolError, says="ETag"),
    Row("200 with an empty body, nothing was done, twice", (CREATE, COMPLETE), Status(200), times=2),
    Row("200 with an empty body, nothing was done, always", (CREATE, COMPLETE), Status(200), GIVEN_UP,
        raises=errors.ProtocolError, says="response"),
    Row("200 with an empty body, but it was done", (COMPLETE,), Status(200, carry_out=True), remark="HEAD compares"),
    Row("200 with a web page (a captive portal), twice", (*UP, *DOWN, HEAD, LIST, STALE), Status(200, body=_PAGE),
        times=2),
    Row("200 with a web page (a captive portal), always", (*UP, *DOWN, HEAD, LIST, STALE), Status(200, body=_PAGE),
        GIVEN_UP, raises=errors.ProtocolError, says="response"),
    Row("200 with garbage for a body, always", (CREATE, COMPLETE, LIST), Status(200, body=_GARBAGE),
        GIVEN_UP, raises=errors.ProtocolError, says="the response is not a valid S3 response"),
    Row("done, but the response is lost, twice", (PUT, PART), Close(carry_out=True), times=2),
    Row("done, but the response is lost, always", (PUT,), Close(carry_out=True), GIVEN_UP, remark="HEAD compares"),
    Row("done, but the response is lost, always", (PART,), Close(carry_out=True), GIVEN_UP,
        raises=errors.UnreachableError, says="connection was lost"),
    Row("done, but the response is lost (reset), twice", (COMPLETE,), Reset(carry_out=True), times=2,
        remark="the retry gets NoSuchUpload; HEAD compares"),
    Row("done, but the response is lost (reset), always", (COMPLETE,), Reset(carry_out=True), GIVEN_UP,
        remark="HEAD compares"),
    Row("done, but the response never comes, once", (COMPLETE,), Silence(carry_out=True), times=1, config=_IMPATIENT,
        remark="the retry gets NoSuchUpload; HEAD compares"),
    Row("done, but the response never comes, always", (PUT, COMPLETE), Silence(carry_out=True), GIVEN_UP,
        config=_AT_MOST_TWICE, remark="HEAD compares"),
    Row("done, but silent after the response's headers, twice", (COMPLETE,), Silence(response_byte=0), times=2,
        config=_IMPATIENT, remark="the retry gets NoSuchUpload; HEAD compares"),
    Row("done, but silent after the response's headers, always", (COMPLETE,), Silence(response_byte=0), GIVEN_UP,
        config=_AT_MOST_TWICE, remark="HEAD compares"),
    Row("done, but the response is garbage, always", (COMPLETE,), Status(200, body=_GARBAGE, carry_out=True), GIVEN_UP,
        remark="HEAD compares"),
    Row("done, but the response is 500, always", (PUT, COMPLETE), Status(500, "InternalError", carry_out=True),
        GIVEN_UP, remark="HEAD compares"),
    Row("not done, and the upload is gone", (COMPLETE,), Hook(before=lambda server: server.uploads.clear()), AT_ONCE,
        raises=errors.UploadNotFoundError, says="NoSuchUpload"),
    Row("done, but the response is lost, or stops after its headers", (CREATE,), Silence(response_byte=0), nth=1,
        times=1, left="stale", config=_IMPATIENT,
        remark="`abort_stale_uploads` finds the unknown upload"),
)  # fmt: skip


def _interrupted(name: str, where: tuple[Step, ...], action: Action, **more: Any) -> tuple[Row, Row]:
    return (
        Row(f"cancelled {name}", where, action, CANCELLED, raises=asyncio.CancelledError, interrupted="cancel", **more),
        Row(f"`asyncio.timeout` {name}", where, action, CANCELLED, raises=TimeoutError, interrupted="timeout", **more),
    )


_ON_ITS_WAY = "a request whose last byte has left may still take effect, as a whole"

CANCELLATIONS = (
    *_interrupted("while it waits for the response", ALL, Silence(), remark=_ON_ITS_WAY),
    *_interrupted("while it sends", BODIES_UP, Silence(request_byte=300_000), remark=_ON_ITS_WAY),
    *_interrupted("while it receives", DOWN, Silence(response_byte=1000)),
    *_interrupted("after the server began it, before the response", (CREATE,), Silence(0, carry_out=True, seconds=0.2)),
    *_interrupted("after it was done, before the response", (PUT, COMPLETE, DELETE), Silence(carry_out=True),
                  remark="and it stays done: the whole object is there, or gone"),
)  # fmt: skip

ROWS = (*STATUSES, *SILENCES, *BREAKS, *RESPONSES, *CANCELLATIONS)
