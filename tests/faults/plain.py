"""Clients to check the servers with: aiobotocore as it is, and a bare socket. None of the library under test."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest
    from botocore.exceptions import ClientError

DATA = bytes(range(256)) * 4096
"""Content of the object that the fixture `server` has, 1 MiB."""

HERE = {"Bucket": "test", "Key": "a key/ü+1"}
"""Where that object is."""

# One for all: it keeps what botocore reads from its data files, half a second for each client.
_session = get_session()


@asynccontextmanager
async def plain_client(endpoint_url: str, *, read_timeout: float = 2) -> AsyncIterator[Any]:
    """Open an S3 client that tries everything once, and which no environment leads astray."""
    config = AioConfig(
        s3={"addressing_style": "path"},
        retries={"total_max_attempts": 1},
        connect_timeout=1,
        read_timeout=read_timeout,
        proxies={},
    )
    async with _session.create_client(
        "s3",
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=config,
    ) as client:
        yield client


async def read(client: Any, **kwargs: str) -> bytes:
    """Get the object, or what the arguments ask of it."""
    response = await client.get_object(**HERE, **kwargs)
    async with response["Body"] as body:
        content: bytes = await body.read()
    return content


def code(caught: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    """Return the HTTP status and S3's code of an error."""
    response: Any = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


async def say(endpoint_url: str, words: bytes, *, until: bytes | None = None, seconds: float = 2) -> bytes:
    """Send bytes and return what comes back: up to a mark, the end of the connection, or the end of the time."""
    url = urlsplit(endpoint_url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    response = b""
    try:
        async with asyncio.timeout(seconds):
            writer.write(words)
            while until is None or until not in response:
                chunk = await reader.read(65536)
                if not chunk:
                    break
                response += chunk
    except TimeoutError:
        pass
    finally:
        writer.close()
    return response
