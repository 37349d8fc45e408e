"""What the server does wrong on purpose, each at least once, seen by clients that are not the library."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from aiohttp import ClientPayloadError
from botocore.exceptions import BotoCoreError, ClientError

from . import (
    Action,
    Close,
    Corrupt,
    Fault,
    FaultyS3Server,
    Hook,
    IgnoreRange,
    ReceiveSlowly,
    Reset,
    SendSlowly,
    Silence,
    Status,
    WithholdContinue,
    WrongContentRange,
)
from .plain import DATA, HERE, code, read, say

MIB = 1024**2
SECOND = slice(1000, 2000)


async def test_which_calls_a_fault_happens_to(server: FaultyS3Server, client: Any) -> None:
    error = Status(503, "SlowDown")
    server.script(
        Fault("HeadObject", error, nth=2),
        Fault("HeadObject", error, nth=4, times=2),
        Fault("GetObject", error, where=lambda seen: "range" in seen.headers, times=1),
    )
    failed = []
    for number in range(1, 8):
        with contextlib.suppress(ClientError):
            await client.head_object(**HERE)
            continue
        failed.append(number)
    assert failed == [2, 4, 5]
    assert await read(client) == DATA
    with pytest.raises(ClientError):
        await read(client, Range="bytes=0-1")
    assert await read(client, Range="bytes=0-1") == DATA[:2]
    assert [seen.number for seen in server.calls("HeadObject") if seen.action is error] == failed


@pytest.mark.parametrize("status", [400, 403, 408, 429, 500, 502, 503])
async def test_status(server: FaultyS3Server, client: Any, status: int) -> None:
    server.script(Fault("*", Status(status, "ItsCode", {"Retry-After": "7"})))
    with pytest.raises(ClientError) as caught:
        await client.put_object(**HERE, Body=DATA[SECOND])
    assert code(caught) == (status, "ItsCode")
    assert caught.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "7"
    assert server.objects["test", HERE["Key"]].data == DATA


async def test_status_200_that_is_none(server: FaultyS3Server, client: Any) -> None:
    server.script(
        Fault("PutObject", Status(200, carry_out=True), nth=1),
        Fault("PutObject", Status(200), nth=2),
        Fault("GetObject", Status(200, "InternalError")),
        Fault("ListObjectsV2", Status(200, body=b"<html><p>Sign in"), nth=1),
        Fault("ListObjectsV2", Status(200, body=b"\x00\xff\x00")),
    )
    assert "ETag" not in await client.put_object(**HERE, Body=b"1")
    assert "ETag" not in await client.put_object(**HERE, Body=b"2")
    assert server.objects["test", HERE["Key"]].data == b"1"
    assert b"<Code>InternalError</Code>" in await read(client)
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            await client.list_objects_v2(Bucket="test")
        assert code(caught)[0] == 500


async def test_early_status_and_redirect(server: FaultyS3Server) -> None:
    head = b"PUT /test/k HTTP/1.1\r\nContent-Length: 1000\r\n\r\n"
    server.script(
        Fault("PutObject", Status(413, early=True), nth=1),
        Fault("PutObject", Status(307, headers={"Location": "http://x/"})),
    )
    response = await say(server.endpoint_url, head)
    assert response.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in response
    assert b"\r\nLocation: http://x/\r\n" in await say(server.endpoint_url, head + bytes(1000), until=b"\r\n\r\n")
    assert [seen.bytes_received for seen in server.seen] == [0, 1000]


async def test_continue(server: FaultyS3Server) -> None:
    head = b"PUT /test/k HTTP/1.1\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
    assert await say(server.endpoint_url, head, until=b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    server.script(Fault("PutObject", WithholdContinue()))
    assert not await say(server.endpoint_url, head, seconds=0.1)
    assert b" 200 OK" in await say(server.endpoint_url, head + b"x", until=b"\r\n\r\n")


@pytest.mark.parametrize(
    "action", [Silence(request_byte=0), Silence(request_byte=-1), Reset(request_byte=5), Close(request_byte=-1)]
)
async def test_request_broken_off(server: FaultyS3Server, client: Any, action: Action) -> None:
    # aiohttp sends a PUT or a GET a second time, of its own, when the connection breaks before the response.
    sent = 1 if isinstance(action, Silence) else 2
    server.script(Fault("PutObject", action, times=sent))
    with pytest.raises(BotoCoreError):
        await client.put_object(**HERE, Body=DATA)
    assert len(server.seen) == sent
    seen = server.seen[0]
    assert seen.bytes_received == {0: 0, -1: len(DATA) - 1, 5: 5}[action.request_byte or 0]
    assert not seen.carried_out
    assert seen.status is None
    await client.put_object(**HERE, Body=DATA[SECOND])
    assert server.objects["test", HERE["Key"]].data == DATA[SECOND]


async def test_stops_reading_a_body_larger_than_all_buffers() -> None:
    async with FaultyS3Server([Fault("PutObject", Silence(request_byte=0))], receive_buffer=16384) as server:
        head = b"PUT /test/k HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(head + bytes(16 * MIB))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.2)
        assert server.seen[0].bytes_received == 0
        writer.transport.abort()
        del reader


@pytest.mark.parametrize("carry_out", [False, True])
@pytest.mark.parametrize("kind", [Silence, Reset, Close])
async def test_response_lost(
    server: FaultyS3Server, client: Any, kind: type[Silence | Reset | Close], *, carry_out: bool
) -> None:
    server.script(Fault("CreateMultipartUpload", kind(carry_out=carry_out)))
    with pytest.raises(BotoCoreError):
        await client.create_multipart_upload(**HERE)
    assert len(server.uploads) == carry_out == server.seen[0].carried_out
    # The server notices that the client has left.
    await asyncio.sleep(0.05)
    assert server.current_requests == 0


@pytest.mark.parametrize("at", [0, 500_000, -1])
@pytest.mark.parametrize("kind", [Silence, Reset, Close])
async def test_response_broken_off(
    server: FaultyS3Server, client: Any, kind: type[Silence | Reset | Close], at: int
) -> None:
    server.script(Fault("GetObject", kind(response_byte=at), nth=1))
    # aiobotocore before 3.8 leaves a timeout as aiohttp raises it.
    with pytest.raises((BotoCoreError, ClientPayloadError, ConnectionResetError, TimeoutError)):
        await read(client)
    assert server.seen[0].bytes_sent == at % len(DATA)
    assert await read(client) == DATA


async def test_truncated_to_the_byte(server: FaultyS3Server) -> None:
    server.script(Fault("GetObject", Close(response_byte=1000)))
    server.put("test", "k", DATA)
    _, _, body = (await say(server.endpoint_url, b"GET /test/k HTTP/1.1\r\n\r\n")).partition(b"\r\n\r\n")
    assert body == DATA[:1000]


async def test_pauses(server: FaultyS3Server, client: Any) -> None:
    server.script(
        Fault("GetObject", Silence(seconds=0.1), nth=1),
        Fault("GetObject", Silence(response_byte=9, seconds=0.1), nth=2),
        Fault("PutObject", Silence(request_byte=9, seconds=0.1)),
    )
    assert await read(client) == DATA
    assert await read(client) == DATA
    await client.put_object(**HERE, Body=DATA)
    assert all(0.1 < seen.ended - seen.began < 0.3 for seen in server.seen)


async def test_slow(server: FaultyS3Server, client: Any) -> None:
    server.script(Fault("GetObject", SendSlowly(10_000)), Fault("PutObject", ReceiveSlowly(10_000)))
    assert await read(client, Range="bytes=1000-1999") == DATA[SECOND]
    await client.put_object(**HERE, Body=DATA[:2000])
    get, put = server.seen
    assert 0.1 < get.ended - get.began < 0.4
    assert 0.2 < put.ended - put.began < 0.5


async def test_wrong_content(server: FaultyS3Server, client: Any) -> None:
    server.script(
        Fault("GetObject", Corrupt(10), nth=1),
        Fault("GetObject", Corrupt(-1, mask=0x80), nth=2),
        Fault("GetObject", IgnoreRange(), nth=3),
        Fault("GetObject", WrongContentRange(shift=1), nth=4),
        Fault("GetObject", WrongContentRange(total=7), nth=5),
    )
    assert await read(client) == DATA[:10] + b"\x0b" + DATA[11:]
    assert await read(client) == DATA[:-1] + b"\x7f"
    whole = await client.get_object(**HERE, Range="bytes=1000-1999")
    assert (whole["ResponseMetadata"]["HTTPStatusCode"], await whole["Body"].read()) == (200, DATA)
    for expected in (f"bytes 1001-2000/{len(DATA)}", "bytes 1000-1999/7"):
        part = await client.get_object(**HERE, Range="bytes=1000-1999")
        assert (part["ContentRange"], await part["Body"].read()) == (expected, DATA[SECOND])


async def test_hooks(server: FaultyS3Server, client: Any) -> None:
    async def replace(server: FaultyS3Server) -> None:
        await asyncio.sleep(0)
        server.put("test", HERE["Key"], b"another one")

    called: list[str] = []
    server.script(
        Fault("GetObject", Hook(before=replace), nth=2),
        Fault(
            "HeadObject",
            Hook(
                before=lambda server: called.append(server.seen[-1].operation),
                meanwhile=lambda server: called.append(str(server.seen[-1].carried_out)),
                after=lambda server: called.append(str(server.seen[-1].status)),
            ),
        ),
    )
    assert await read(client, Range="bytes=0-9") == DATA[:10]
    assert await read(client, Range="bytes=0-9") == b"another on"
    await client.head_object(**HERE)
    await asyncio.sleep(0)
    assert called == ["HeadObject", "True", "200"]


def test_a_fault_of_no_operation() -> None:
    with pytest.raises(ValueError, match="UploadParts"):
        Fault("UploadParts", Action())


async def test_a_failing_hook_is_not_the_clients_fault() -> None:
    server = FaultyS3Server([Fault("HeadBucket", Hook(before=lambda _: [].pop()))])
    with pytest.raises(ExceptionGroup) as caught:
        async with server:
            await say(server.endpoint_url, b"HEAD /test HTTP/1.1\r\n\r\n")
    assert caught.group_contains(IndexError)
