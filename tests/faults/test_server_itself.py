"""The server that judges the library is judged here, by clients that are not the library: what it does as it should."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import time
import tracemalloc
from typing import Any

import pytest
from botocore.exceptions import ClientError

from . import Fault, FaultyS3Server, Silence
from .harness import descriptors
from .plain import DATA, HERE, code, plain_client, read, say

SECOND = slice(1000, 2000)


async def upload_parts(client: Any, *bodies: bytes) -> tuple[str, list[dict[str, Any]]]:
    upload_id = (await client.create_multipart_upload(**HERE, Metadata={"one": "1"}))["UploadId"]
    parts = []
    for number, body in enumerate(bodies, 1):
        part = await client.upload_part(**HERE, UploadId=upload_id, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    return upload_id, parts


async def test_objects(server: FaultyS3Server, client: Any) -> None:
    etag = (await client.put_object(**HERE, Body=DATA, ContentType="image/fits", Metadata={"a": "b"}))["ETag"]
    assert etag == f'"{hashlib.md5(DATA, usedforsecurity=False).hexdigest()}"'
    head = await client.head_object(**HERE)
    assert (head["ContentLength"], head["ETag"], head["ContentType"]) == (len(DATA), etag, "image/fits")
    assert head["Metadata"] == {"a": "b"}
    assert await read(client) == server.objects["test", HERE["Key"]].data == DATA
    assert await read(client, Range="bytes=1000-1999") == DATA[SECOND]
    assert await read(client, Range="bytes=-10") == DATA[-10:]
    assert await read(client, Range="bytes=5-") == DATA[5:]
    assert await read(client, IfMatch=etag) == DATA
    await client.delete_object(**HERE)
    assert not server.objects
    assert server.open_connections == server.connections_made == 1
    assert (server.current_requests, server.peak_requests) == (0, 1)


@pytest.mark.parametrize(
    ("operation", "arguments", "expected"),
    [
        ("get_object", {"Range": f"bytes={len(DATA)}-"}, (416, "InvalidRange")),
        ("get_object", {"IfMatch": '"other"'}, (412, "PreconditionFailed")),
        ("get_object", {"Key": "none"}, (404, "NoSuchKey")),
        ("get_object", {"Bucket": "none"}, (404, "NoSuchBucket")),
        ("head_object", {"Key": "none"}, (404, "404")),
        ("put_object", {"IfNoneMatch": "*"}, (412, "PreconditionFailed")),
        ("put_object", {"Body": b"x", "ContentMD5": "1B2M2Y8AsgTpgAmY7PhCfg=="}, (400, "BadDigest")),
        ("upload_part", {"UploadId": "none", "PartNumber": 1}, (404, "NoSuchUpload")),
        ("get_object_tagging", {}, (501, "NotImplemented")),
    ],
)
async def test_refusals(client: Any, operation: str, arguments: dict[str, Any], expected: tuple[int, str]) -> None:
    with pytest.raises(ClientError) as caught:
        await getattr(client, operation)(**HERE | arguments)
    assert code(caught) == expected


async def test_payload_hash_is_verified(server: FaultyS3Server) -> None:
    head = (
        f"PUT /test/k HTTP/1.1\r\nContent-Length: 1\r\nx-amz-content-sha256: {hashlib.sha256(b'x').hexdigest()}\r\n\r\n"
    )
    assert b"XAmzContentSHA256Mismatch" in await say(server.endpoint_url, head.encode() + b"y", until=b"</Error>")
    assert b"200 OK" in await say(server.endpoint_url, head.encode() + b"x", until=b"\r\n\r\n")


async def test_listing_and_buckets(server: FaultyS3Server, client: Any) -> None:
    await client.head_bucket(Bucket="test")
    await client.create_bucket(Bucket="other")
    assert (await client.get_bucket_location(Bucket="other"))["LocationConstraint"] is None
    keys = [f"d/{number} &+ü" for number in range(7)]
    for key in [*keys, "e"]:
        server.put("other", key, b"12")
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket="other", Prefix="d/", PaginationConfig={"PageSize": 3}
    )
    found = [page["Contents"] async for page in pages]
    assert [len(page) for page in found] == [3, 3, 1]
    assert [each["Key"] for page in found for each in page] == keys
    assert {each["Size"] for page in found for each in page} == {2}


async def test_multipart(server: FaultyS3Server, client: Any) -> None:
    big = DATA * 5
    upload_id, parts = await upload_parts(client, big, b"the rest")
    listed = await client.list_parts(**HERE, UploadId=upload_id)
    assert [(part["PartNumber"], part["ETag"], part["Size"]) for part in listed["Parts"]] == [
        (1, parts[0]["ETag"], len(big)),
        (2, parts[1]["ETag"], 8),
    ]
    uploads = await client.list_multipart_uploads(Bucket="test")
    assert [(each["Key"], each["UploadId"]) for each in uploads["Uploads"]] == [(HERE["Key"], upload_id)]
    done = await client.complete_multipart_upload(**HERE, UploadId=upload_id, MultipartUpload={"Parts": parts})
    digests = b"".join(hashlib.md5(body, usedforsecurity=False).digest() for body in (big, b"the rest"))
    assert done["ETag"] == f'"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-2"'
    assert await read(client) == big + b"the rest"
    assert await read(client, Range=f"bytes={len(big) - 2}-{len(big) + 2}") == big[-2:] + b"the"
    assert not server.uploads
    assert server.bytes_received["UploadPart"] == len(big) + 8
    assert [seen.part_number for seen in server.calls("UploadPart")] == [1, 2]


@pytest.mark.parametrize(
    ("bodies", "change", "expected"),
    [
        ((b"a", b"b"), lambda parts: parts, "EntityTooSmall"),
        ((b"a", b"b"), lambda parts: parts[::-1], "InvalidPartOrder"),
        ((b"a",), lambda parts: [parts[0] | {"ETag": '"x"'}], "InvalidPart"),
        ((b"a",), lambda _: [], "MalformedXML"),
    ],
)
async def test_bad_completes(client: Any, bodies: tuple[bytes, ...], change: Any, expected: str) -> None:
    upload_id, parts = await upload_parts(client, *bodies)
    with pytest.raises(ClientError) as caught:
        await client.complete_multipart_upload(**HERE, UploadId=upload_id, MultipartUpload={"Parts": change(parts)})
    assert code(caught) == (400, expected)
    await client.abort_multipart_upload(**HERE, UploadId=upload_id)
    with pytest.raises(ClientError) as caught:
        await client.abort_multipart_upload(**HERE, UploadId=upload_id)
    assert code(caught) == (404, "NoSuchUpload")


async def test_content_is_kept_out_of_sight() -> None:
    data = bytes(5 * len(DATA))
    async with FaultyS3Server() as server, plain_client(server.endpoint_url) as client:
        tracemalloc.start()
        try:
            for number in range(8):
                await client.put_object(Bucket="test", Key=f"{number}", Body=data)
            now, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert all(server.objects["test", f"{number}"].data == data for number in range(8))
        assert now < 2 * len(data)


async def test_leaves_nothing() -> None:
    before = asyncio.all_tasks(), descriptors().keys()
    async with FaultyS3Server([Fault("HeadBucket", Silence()), Fault("*", Silence(request_byte=0))]) as server:
        words = [b"", b"HEAD /", b"HEAD /test HTTP/1.1\r\n\r\n", b"PUT /test/k HTTP/1.1\r\nContent-Length: 9\r\n\r\n1"]
        writers = [(await asyncio.open_connection("127.0.0.1", server.port))[1] for _ in words]
        for writer, each in zip(writers, words, strict=True):
            writer.write(each)
        await asyncio.sleep(0.05)
        assert (server.open_connections, server.current_requests) == (4, 2)
        # One that is accepted only as the server ends.
        with socket.create_connection(("127.0.0.1", server.port)):
            began = time.monotonic()
            await server.__aexit__(None, None, None)
            assert time.monotonic() - began < 0.1
        for writer in writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
    assert (asyncio.all_tasks(), descriptors().keys()) == before


async def test_no_length(server: FaultyS3Server) -> None:
    head = b"PUT /test/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b"MissingContentLength" in await say(server.endpoint_url, head)


async def test_many_at_once(server: FaultyS3Server) -> None:
    server.script(Fault("GetObject", Silence(seconds=0.2)))
    server.put("test", "k", b"yes")
    request = b"GET /test/k HTTP/1.1\r\n\r\n"
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(say(server.endpoint_url, request, until=b"yes")) for _ in range(100)]
    assert all(task.result().endswith(b"yes") for task in tasks)
    assert server.peak_requests == 100
