"""Making an aiobotocore client as this package needs it."""

from __future__ import annotations

import asyncio
import base64
import copy
import functools
import hashlib
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from aiobotocore.config import AioConfig
from aiobotocore.hooks import AioHierarchicalEmitter
from aiobotocore.session import AioSession
from botocore import handlers
from botocore.exceptions import BotoCoreError
from botocore.parsers import ResponseParserError

from lsst_lfa import errors
from lsst_lfa._transfer.concurrency import in_thread, run_in_thread
from lsst_lfa._transfer.failures import TransportError
from lsst_lfa._transfer.responses import parse_time
from lsst_lfa.naming import is_tenant

from .credentials import prepare_credentials
from .http import HttpSession
from .signing import choose_signer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from .settings import Settings

__all__ = ["install_handlers", "open_client"]

# Parsed in a thread above this: a listing of 1,000 keys would hold the event loop for 30 ms.
_PARSE_INLINE = 32 * 1024
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_PARTS = "lsst_lfa parts"


async def open_client(settings: Settings) -> AsyncGenerator[Any, None]:
    """Yield one client, which is closed when the generator is.

    A bare generator, with no other beneath it: an event loop that ends closes
    all it knows of at the same time, and one cannot be closed while another does.
    """
    session, arguments = await in_thread(_prepare, settings)
    try:
        context = session.create_client(**arguments)
        client = await context.__aenter__()
    except ValueError as error:
        if isinstance(error, BotoCoreError):
            raise
        raise TransportError(
            errors.ConfigurationError,
            f"botocore refuses the endpoint {arguments['endpoint_url']}",
            'Host names have letters, digits, "-" and "." only, no "_": use another name of the host, or its address.',
        ) from error
    try:
        install_handlers(client)
        for operation in ("PutObject", "UploadPart"):
            client.meta.events.register_first(f"choose-signer.s3.{operation}", choose_signer)
        client.meta.events.register("response-received.s3", _require_xml)
        client.meta.events.register("before-parameter-build.s3.CompleteMultipartUpload", _take_parts)
        client.meta.events.register("before-call.s3.CompleteMultipartUpload", _write_parts)
        yield client
    finally:
        await context.__aexit__(None, None, None)


def _prepare(settings: Settings) -> tuple[AioSession, dict[str, Any]]:
    """Read what a client needs from disk: botocore's models, configuration, credentials."""
    session = AioSession(event_hooks=copy.copy(_builtin_handlers()), include_builtin_handlers=False)
    settings.configure(session)
    # Else they are read when the client is made, on the event loop: once, in 0.1 s.
    if hasattr(session, "warm_up_loader_caches"):
        session.warm_up_loader_caches("s3")
    parsers = session.get_component("response_parser_factory")
    parsers.set_parser_defaults(timestamp_parser=parse_time)
    session.register_component("response_parser_factory", _ParserFactory(parsers))
    # How long a response may take is bounded by us, for each attempt: see `StallTimeout`.
    # Providers of credentials read files, run programs, and ask services; the session keeps what they find.
    sign = settings.signs(lambda: asyncio.run(session.get_credentials()))
    if sign:
        asyncio.run(prepare_credentials(session, settings))
    options = settings.config_arguments(session, sign=sign) | {"read_timeout": None}
    config = AioConfig(http_session_cls=HttpSession, **options)
    try:
        arguments = settings.client_arguments(session) | {"config": config}
    except ValueError as error:
        hint = "Check AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL and the profile's endpoint_url."
        raise TransportError(errors.ConfigurationError, str(error), hint) from None
    return session, arguments


@functools.cache
def _builtin_handlers() -> AioHierarchicalEmitter:
    """Return botocore's own handlers of events: 10 ms for the first session only, the others take a copy."""
    emitter = AioHierarchicalEmitter()
    AioSession(event_hooks=emitter)
    return emitter


def install_handlers(client: Any) -> None:
    """Set what every client of ours needs, boto3's too."""
    events = client.meta.events
    # Where botocore has it no more, what it has instead stays: a tenant's bucket may be refused.
    validate_bucket_name = getattr(handlers, "validate_bucket_name", None)
    if validate_bucket_name is not None:
        events.unregister("before-parameter-build.s3", validate_bucket_name)
        events.register("before-parameter-build.s3", functools.partial(_validate_bucket, validate_bucket_name))
    # Required of DeleteObjects by RGW, and no longer sent by botocore.
    events.register("before-call.s3.DeleteObjects", _content_md5)


def _validate_bucket(validate_bucket_name: Callable[..., None], params: dict[str, Any], **kwargs: object) -> None:
    """Let a Ceph tenant's ``tenant:bucket`` pass where botocore would not."""
    if not is_tenant(str(params.get("Bucket", ""))):
        validate_bucket_name(params, **kwargs)


def _content_md5(params: dict[str, Any], **_: object) -> None:
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"].setdefault("Content-MD5", base64.b64encode(digest).decode())


def _take_parts(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
    """Keep the parts from botocore: to check and to write 10,000 of them holds the loop for 0.2 s."""
    context[_PARTS] = params.pop("MultipartUpload")["Parts"]


def _write_parts(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
    parts = "".join(
        f"<Part><PartNumber>{part['PartNumber']}</PartNumber><ETag>{escape(part['ETag'])}</ETag></Part>"
        for part in context[_PARTS]
    )
    params["body"] = f'<CompleteMultipartUpload xmlns="{_NAMESPACE}">{parts}</CompleteMultipartUpload>'.encode()


def _require_xml(response_dict: dict[str, Any] | None, parsed_response: dict[str, Any] | None, **_: object) -> None:
    """Refuse a 200 whose body is not XML; botocore would say that the server responded with 500."""
    status = response_dict["status_code"] if response_dict else None
    # An error that is told in XML has a code of its own.
    if status == 200 and (parsed_response or {}).get("Error", {}).get("Code") == "500":  # noqa: PLR2004
        raise ResponseParserError("its body is not XML")


class _ParserFactory:
    """Makes botocore's parsers, which then neither hold the loop nor fail on what a server gets wrong."""

    def __init__(self, factory: Any) -> None:
        self._factory = factory

    def set_parser_defaults(self, **defaults: Any) -> None:
        """Hand over what botocore wants its parsers to be made with."""
        self._factory.set_parser_defaults(**defaults)

    def create_parser(self, protocol: str) -> _Parser:
        """Make a parser."""
        return _Parser(self._factory.create_parser(protocol))


class _Parser:
    """botocore's parser of responses, but what it cannot read is always a `ResponseParserError`."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser

    async def parse(self, response: dict[str, Any], shape: Any) -> Any:
        """Parse a response; a large one in a thread."""
        body = response["body"]
        try:
            if isinstance(body, bytes) and len(body) > _PARSE_INLINE:
                parsed = await run_in_thread(lambda: asyncio.run(self._parser.parse(response, shape)))
            else:
                parsed = await self._parser.parse(response, shape)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # Of the server's text nothing but its parsing is at work here.
            msg = f"{type(error).__name__}: {error}"
            raise ResponseParserError(msg) from error
        if isinstance(parsed.get("Error"), dict):
            # botocore takes each field for a text, which it is not if the server sent it twice.
            parsed["Error"] = {name: text for name, text in parsed["Error"].items() if isinstance(text, str)}
        return parsed
