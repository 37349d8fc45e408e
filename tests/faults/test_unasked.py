"""Data that a server sends unasked are not taken for a response."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import Action, Fault
from .harness import BUCKET, CONFIG, KEY, SMALL

if TYPE_CHECKING:
    from .server import Exchange

UNASKED = b'HTTP/1.1 200 OK\r\nETag: "0"\r\nLast-Modified: Thu, 26 Nov 2026 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n'


@dataclass
class AndMore(Action):
    """Sends something behind the response, a moment later."""

    data: bytes

    async def finished(self, exchange: Exchange) -> None:
        await asyncio.sleep(0.01)
        await exchange.connection.write(self.data)


def test_a_response_that_nobody_asked_for_is_not_the_next_requests(run: Any, start: Any) -> None:
    async def main() -> None:
        async with start(Fault("*", AndMore(UNASKED)), config=CONFIG) as (server, bucket):
            for _ in range(3):
                await bucket.upload(SMALL, KEY)
                await asyncio.sleep(0.03)
                assert await bucket.size(KEY) == len(SMALL)
                await asyncio.sleep(0.03)
                assert (await bucket.download(KEY)).getvalue() == SMALL
                await asyncio.sleep(0.03)
            assert server.objects[BUCKET, KEY].data == SMALL

    run(main())


def test_a_connection_is_used_again_where_nothing_is_wrong(run: Any, start: Any) -> None:
    async def main() -> None:
        async with start(config=CONFIG) as (server, bucket):
            for _ in range(5):
                await bucket.upload(SMALL, KEY)
                assert (await bucket.download(KEY)).getvalue() == SMALL
                assert await bucket.size(KEY) == len(SMALL)
            assert server.connections_made <= CONFIG.max_concurrency

    run(main())
