"""Requests and responses that list a thousand items: botocore would block the event loop to write or read one."""

from __future__ import annotations

import asyncio
import functools
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus
from xml.sax.saxutils import escape

from botocore import handlers
from botocore.parsers import ResponseParserError

from lsst_lfa._transfer.concurrency import run_in_thread

from .error_responses import only_text, readable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ParserFactory", "keep_lists_from_botocore"]

# Longer ones are parsed in a thread: a listing of 20 keys blocks the event loop for 1 or 2 ms.
_PARSE_INLINE = 8 * 1024
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_ITEMS = "lsst_lfa items"
_TRUNCATED = re.compile(rb"<(?:\w+:)?IsTruncated(?:\s*/>|\s*>([^<]*)<)", re.ASCII)
# The forms of XML Schema, which some servers use.
_BOOLEANS = {b"true": b"true", b"1": b"true", b"false": b"false", b"0": b"false"}


def keep_lists_from_botocore(client: Any) -> None:
    """Write long requests here; parse long responses only once, in a thread, with the parsers of `ParserFactory`."""
    events = client.meta.events
    for operation, argument, items, write in (
        ("CompleteMultipartUpload", "MultipartUpload", "Parts", _write_parts),
        ("DeleteObjects", "Delete", "Objects", _write_objects),
    ):
        take = functools.partial(_take_items, argument, items)
        events.register(f"before-parameter-build.s3.{operation}", take)
        # Before the handlers that compute digests of it.
        events.register_first(f"before-call.s3.{operation}", functools.partial(_write_items, write))
    # If botocore no longer has it, its replacement stays: a long listing may block the event loop.
    find_error = getattr(handlers, "_handle_200_error", None)
    if find_error is not None:
        events.unregister("before-parse.s3.*", find_error)
        events.register_first("before-parse.s3.*", functools.partial(_find_error, find_error))


def _take_items(argument: str, items: str, params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
    """Keep the items from botocore, which would block the loop for 0.2 s to check and write 10,000 of them."""
    context[_ITEMS] = params[argument][items]
    params[argument] = {items: []}


def _write_items(
    write: Callable[[list[dict[str, Any]]], str], params: dict[str, Any], context: dict[str, Any], **_: object
) -> None:
    params["body"] = write(context[_ITEMS]).encode()


def _write_parts(parts: list[dict[str, Any]]) -> str:
    written = "".join(
        f"<Part><PartNumber>{part['PartNumber']}</PartNumber><ETag>{escape(part['ETag'])}</ETag></Part>"
        for part in parts
    )
    return f'<CompleteMultipartUpload xmlns="{_NAMESPACE}">{written}</CompleteMultipartUpload>'


def _write_objects(objects: list[dict[str, Any]]) -> str:
    written = "".join(f"<Object><Key>{escape(item['Key'])}</Key></Object>" for item in objects)
    return f'<Delete xmlns="{_NAMESPACE}">{written}</Delete>'


def _find_error(find_error: Callable[..., None], response_dict: dict[str, Any], **kwargs: object) -> None:
    """Let botocore parse the body of a response with status 200 to look for an error; a long one is never an error."""
    if not _is_long(response_dict["body"]):
        find_error(response_dict=response_dict, **kwargs)


def _say_whether_truncated(response: dict[str, Any]) -> dict[str, Any]:
    """Write the boolean in the form that botocore knows: it takes everything but "true" for the end of the listing."""
    body = response["body"]
    found = _TRUNCATED.search(body) if isinstance(body, bytes) else None
    if found is None:
        return response
    said = (found[1] or b"").strip()
    plain = _BOOLEANS.get(said.lower())
    if plain is None:
        msg = f"IsTruncated is neither true nor false, but {said[:40]!r}"
        raise ResponseParserError(msg)
    return {**response, "body": body[: found.start(1)] + plain + body[found.end(1) :]}


def _decode_keys(parsed: dict[str, Any]) -> None:
    """Decode the keys of a listing, and say so: else botocore would decode them on the event loop."""
    if parsed.get("EncodingType") == "url":
        del parsed["EncodingType"]
        for item in parsed.get("Contents", ()):
            item["Key"] = unquote_plus(item["Key"])
        for folder in parsed.get("CommonPrefixes", ()):
            folder["Prefix"] = unquote_plus(folder["Prefix"])


def _is_long(body: object) -> bool:
    return isinstance(body, bytes) and len(body) > _PARSE_INLINE


class ParserFactory:
    """Creates botocore's parsers, which then neither block the loop nor fail on a server's mistakes."""

    def __init__(self, factory: Any) -> None:
        self._factory = factory

    def set_parser_defaults(self, **defaults: Any) -> None:
        """Pass on the defaults of botocore's parsers."""
        self._factory.set_parser_defaults(**defaults)

    def create_parser(self, protocol: str) -> _Parser:
        """Create a parser."""
        return _Parser(self._factory.create_parser(protocol))


class _Parser:
    """botocore's parser, which always raises a `ResponseParserError` for a response that it cannot read."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser

    async def parse(self, response: dict[str, Any], shape: Any) -> Any:
        """Parse a response; a large one in a thread."""
        response = _say_whether_truncated(response)
        with readable():
            if _is_long(response["body"]):
                parsed = await run_in_thread(self._parse_long, response, shape)
            else:
                parsed = await self._parser.parse(response, shape)
        return only_text(parsed)

    def _parse_long(self, response: dict[str, Any], shape: Any) -> dict[str, Any]:
        parsed: dict[str, Any] = asyncio.run(self._parser.parse(response, shape))
        _decode_keys(parsed)
        return parsed
