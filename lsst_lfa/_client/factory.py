"""Creates an aiobotocore client in the form that this package needs."""

from __future__ import annotations

import asyncio
import base64
import copy
import functools
import hashlib
from typing import TYPE_CHECKING, Any

from aiobotocore.config import AioConfig
from aiobotocore.hooks import AioHierarchicalEmitter
from aiobotocore.session import AioSession
from botocore import handlers
from botocore.exceptions import BotoCoreError
from botocore.parsers import ResponseParserError

from lsst_lfa import errors
from lsst_lfa._transfer.concurrency import in_thread
from lsst_lfa._transfer.failures import TransportError
from lsst_lfa._transfer.responses import parse_time
from lsst_lfa.naming import is_tenant

from .credentials import prepare_credentials
from .data_requests import S3DataRequests
from .http import HttpSession
from .long_lists import ParserFactory, keep_lists_from_botocore
from .signing import choose_signer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from .settings import Settings

__all__ = ["install_handlers", "open_client"]


async def open_client(settings: Settings) -> AsyncGenerator[tuple[Any, S3DataRequests], None]:
    """Yield one client, which is closed with the generator, and the requests for data that share its connections.

    A bare generator, which contains no other: an event loop that ends closes
    all generators at the same time, and one cannot be closed while another one
    is closing.
    """
    opened: list[HttpSession] = []

    def open_http(**options: Any) -> HttpSession:
        opened.append(HttpSession(**options))
        return opened[-1]

    session, arguments = await in_thread(_prepare, settings, open_http)
    try:
        context = session.create_client(**arguments)
        client = await context.__aenter__()
    except ValueError as error:
        if isinstance(error, BotoCoreError):
            raise
        raise TransportError(
            errors.ConfigurationError,
            f"botocore rejects the endpoint {arguments['endpoint_url']}",
            'Host names have only letters, digits, "-" and ".", no "_": use another name of the host, or its address.',
        ) from error
    try:
        install_handlers(client)
        for operation in ("GetObject", "PutObject", "UploadPart"):
            client.meta.events.register_first(f"choose-signer.s3.{operation}", choose_signer)
        client.meta.events.register("response-received.s3", _require_xml)
        keep_lists_from_botocore(client)
        yield client, S3DataRequests(client, opened[-1])
    finally:
        await context.__aexit__(None, None, None)


def _prepare(settings: Settings, open_http: Callable[..., HttpSession]) -> tuple[AioSession, dict[str, Any]]:
    """Read what a client needs from disk: botocore's models, configuration, credentials."""
    session = AioSession(event_hooks=copy.copy(_builtin_handlers()), include_builtin_handlers=False)
    settings.configure(session)
    # Otherwise they are read when the client is created, on the event loop: once, in 0.1 s.
    if hasattr(session, "warm_up_loader_caches"):
        session.warm_up_loader_caches("s3")
    parsers = session.get_component("response_parser_factory")
    parsers.set_parser_defaults(timestamp_parser=parse_time)
    session.register_component("response_parser_factory", ParserFactory(parsers))
    # We limit the time of a response ourselves, for each attempt: see `StallTimeout`.
    # Providers of credentials read files, run programs, and call services; the session keeps what they return.
    sign = settings.signs(lambda: asyncio.run(session.get_credentials()))
    if sign:
        asyncio.run(prepare_credentials(session, settings))
    try:
        options = settings.config_arguments(session, sign=sign) | {"read_timeout": None}
        config = AioConfig(http_session_cls=open_http, **options)
        arguments = settings.client_arguments(session) | {"config": config}
    except ValueError as error:
        hint = "Check AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, and the profile."
        raise TransportError(errors.ConfigurationError, str(error), hint) from None
    return session, arguments


@functools.cache
def _builtin_handlers() -> AioHierarchicalEmitter:
    """Return botocore's own event handlers: this takes 10 ms for the first session, and the others take a copy."""
    emitter = AioHierarchicalEmitter()
    AioSession(event_hooks=emitter)
    return emitter


def install_handlers(client: Any) -> None:
    """Set what every client of ours needs, including boto3's."""
    events = client.meta.events
    # If botocore no longer has it, its replacement stays: a tenant's bucket may be rejected.
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


def _require_xml(response_dict: dict[str, Any] | None, parsed_response: dict[str, Any] | None, **_: object) -> None:
    """Refuse a response with status 200 whose body is not XML; botocore would report status 500."""
    status = response_dict["status_code"] if response_dict else None
    # An error in XML has its own code.
    if status == 200 and (parsed_response or {}).get("Error", {}).get("Code") == "500":  # noqa: PLR2004
        raise ResponseParserError("its body is not XML")
