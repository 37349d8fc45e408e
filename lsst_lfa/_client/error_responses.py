"""Errors in S3's responses, in botocore's form, whatever the server wrote."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError, create_parser

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["check_response", "client_error", "only_text", "readable"]

# An error, or what some services write after they have stored an object, is much shorter.
_LONGEST = 64 * 1024
_NAMESPACE = re.compile(rb"""(?<=<Error)\s+xmlns=("[^"<]*"|'[^'<]*')""")


@contextmanager
def readable() -> Iterator[None]:
    """Raise a `ResponseParserError` for whatever parsing a server's text raises."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # Only parsing happens here, so any exception is caused by the server's text.
        msg = f"{type(error).__name__}: {error}"
        raise ResponseParserError(msg) from error


def only_text(parsed: dict[str, Any]) -> dict[str, Any]:
    """Return a parsed response whose error has only text: a field that the server sent twice would be a list."""
    if isinstance(parsed.get("Error"), dict):
        parsed["Error"] = {name: text for name, text in parsed["Error"].items() if isinstance(text, str)}
    return parsed


def client_error(status: int, headers: Mapping[str, str], body: bytes, operation: str) -> ClientError:
    """Return the error that a response reports.

    Raises
    ------
    botocore.parsers.ResponseParserError
        If it is unreadable.
    """
    body = _NAMESPACE.sub(b"", body, count=1)  # botocore would not find the error in it
    with readable():
        parsed = create_parser("rest-xml").parse({"status_code": status, "headers": headers, "body": body}, None)
    return ClientError(only_text(parsed), operation)


def check_response(status: int, headers: Mapping[str, str], body: bytes, operation: str) -> None:
    """Check that a response reports no error.

    One that says 200 may have an error in its body, because S3 found it after
    it had sent the status: it counts as a 500.

    Raises
    ------
    botocore.exceptions.ClientError
        If it does.
    botocore.parsers.ResponseParserError
        If its body is unreadable.
    """
    if status >= 300:  # noqa: PLR2004
        raise client_error(status, headers, body, operation)
    if not body:
        return
    if len(body) > _LONGEST:
        msg = f"its body has {len(body)} bytes"
        raise ResponseParserError(msg)
    try:
        root = ET.fromstring(body)  # noqa: S314 - expat limits what entities may expand to
    except (SyntaxError, LookupError, ValueError) as error:  # the last two: an encoding that nobody knows
        msg = "its body is not XML"
        raise ResponseParserError(msg) from error
    if root.tag.rpartition("}")[2] == "Error":
        raise client_error(500, headers, body, operation)
