"""Connections: which request got which, which may be reused, and how host names are resolved."""

from __future__ import annotations

import socket
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from lsst_lfa._transfer.concurrency import in_thread

if TYPE_CHECKING:
    import asyncio

__all__ = ["Connector", "Resolver", "transports_used"]

# The attribute by which aiohttp's protocol says that its connection must not be reused.
_IS_STALE = "should_close"

transports_used: ContextVar[list[asyncio.Transport]] = ContextVar("transports_used")
"""The transports that this task's current request was given."""


class Connector(aiohttp.TCPConnector):
    """Tells the task that sends a request which connection it got."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._used: weakref.WeakSet[Any] = weakref.WeakSet()

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        """Get a connection as aiohttp does, which documents this method, but not its other arguments."""
        connection = await super().connect(*args, **kwargs)
        # aiohttp would take data that the server sent unasked for the response to this request.
        while connection.protocol in self._used and getattr(connection.protocol, _IS_STALE, False):
            connection.close()
            connection = await super().connect(*args, **kwargs)
        if connection.transport is not None:
            self._used.add(connection.protocol)
            transports_used.get().append(connection.transport)
        return connection


class Resolver(AbstractResolver):
    """Resolves host names in threads of our own: the default executor is the user's, and may be full."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await in_thread(
            socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""
