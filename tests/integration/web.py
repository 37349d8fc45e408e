"""What anyone can do with a URL, without S3."""

from __future__ import annotations

import asyncio
import ssl
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

__all__ = ["fetch", "store"]


async def fetch(url: str, ca_file: str | None) -> tuple[int, bytes]:
    """GET a URL; return the status and the body."""
    return await asyncio.to_thread(_ask, Request(url), ca_file)


async def store(url: str, data: bytes, ca_file: str | None) -> tuple[int, bytes]:
    """PUT data to a URL; return the status and the body."""
    return await asyncio.to_thread(_ask, Request(url, data, method="PUT"), ca_file)


def _ask(request: Request, ca_file: str | None) -> tuple[int, bytes]:
    context = ssl.create_default_context(cafile=ca_file)
    opener = build_opener(HTTPSHandler(context=context), ProxyHandler({}))
    if request.data is not None:
        # Else urllib calls it a form; the signature says nothing of a type.
        request.add_header("Content-Type", "application/octet-stream")
    try:
        with opener.open(request, timeout=20) as response:
            return response.status, response.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()
