"""What we set in aiobotocore: HTTP session, signer, client configuration."""

from __future__ import annotations

import asyncio
import base64
import copy
import functools
import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Self, cast

import aiohttp
import botocore
import botocore.auth
from aiobotocore.config import AioConfig
from aiobotocore.hooks import AioHierarchicalEmitter
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from botocore.exceptions import NoCredentialsError
from botocore.handlers import add_expect_header, validate_bucket_name
from botocore.loaders import create_loader
from botocore.parsers import ResponseParserError
from botocore.utils import parse_timestamp
from multidict import CIMultiDict
from yarl import URL

from . import errors
from .naming import is_tenant

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence

    from botocore.session import Session as BotoSession

__all__ = ["Body", "Settings", "aws_config", "open_client"]

_SIGNER = "lsst-lfa-s3v4"
_READ_BUFFER = 256 * 1024


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where the service is, and who we are. Its repr holds no secret."""

    endpoint_url: str | None
    profile: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None
    region: str | None = None
    verify: bool | str | None = None
    hermetic: bool = False
    """Nothing of the user's own configuration, which is in files and profiles, has a say."""
    presigned_url: str | None = None
    """All that is ever asked for, to the letter, and without credentials. It is a secret."""
    max_connections: int = 32
    connect_timeout: float = 3.0
    request_timeout: float = 10.0

    def __repr__(self) -> str:
        return f"Settings(endpoint_url={self.endpoint_url!r}, profile={self.profile!r})"

    def configure(self, session: BotoSession) -> None:
        """Point a botocore session, sync or async, at these settings."""
        if self.hermetic:
            for name in ("config_file", "credentials_file"):
                session.set_config_variable(name, os.devnull)
            session.get_component("config_store").set_config_provider("profile", _Nothing())
        elif self.profile is not None:
            session.set_config_variable("profile", self.profile)
        session.register_component("data_loader", _data_loader(session.get_config_variable("data_path")))

    def client_arguments(self, session: BotoSession) -> dict[str, Any]:
        """Return the arguments of ``create_client``, but for ``config``."""
        return {
            "service_name": "s3",
            "endpoint_url": self.endpoint_url,
            "region_name": self.region or session.get_config_variable("region") or "us-east-1",
            "aws_access_key_id": self.access_key_id,
            "aws_secret_access_key": self.secret_access_key,
            "aws_session_token": self.session_token,
            "verify": self.verify,
        }


class _Nothing:
    """A botocore configuration provider that provides nothing."""

    def provide(self) -> None:
        return None


def aws_config(settings: Settings, session: BotoSession) -> dict[str, Any]:
    """Arguments of botocore's ``Config``, the same for our client and boto3's."""
    config: dict[str, Any] = {
        "signature_version": "s3v4" if settings.presigned_url is None else botocore.UNSIGNED,
        # Retries are our own: botocore's share a quota per client and skip 429 and 408.
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        "connect_timeout": settings.connect_timeout,
        "read_timeout": settings.request_timeout,
        "max_pool_connections": settings.max_connections,
        # As it is: botocore would put a long one together for each request.
        "user_agent": f"lsst_lfa botocore/{botocore.__version__}",
    }
    if settings.endpoint_url is not None:
        config["s3"] = {"addressing_style": "path"}
    if settings.hermetic and settings.presigned_url is None:  # the mock's client, which stays in this machine
        config["proxies"] = {}
    # Ceph RGW over https refuses botocore's default, streamed checksums. What
    # the user set by hand wins.
    for name in ("request_checksum_calculation", "response_checksum_validation"):
        by_hand = f"AWS_{name.upper()}" in os.environ or name in session.get_scoped_config()
        if settings.hermetic or not by_hand:
            config[name] = "when_required"
    return config


async def open_client(settings: Settings) -> AsyncGenerator[Any, None]:
    """Yield one client, which is closed when the generator is.

    A bare generator, with no other beneath it: an event loop that ends closes
    all it knows of at the same time, and one cannot be closed while another does.
    """
    session, arguments = await asyncio.to_thread(_prepare, settings)
    async with session.create_client(**arguments) as client:
        adapt(client)
        for operation in ("PutObject", "UploadPart"):
            client.meta.events.register_first(f"choose-signer.s3.{operation}", _choose_signer)
        client.meta.events.register("response-received.s3", _require_xml)
        yield client


def _prepare(settings: Settings) -> tuple[AioSession, dict[str, Any]]:
    """Read what a client needs from disk: botocore's models, configuration, credentials."""
    session = AioSession(event_hooks=copy.copy(_builtin_handlers()), include_builtin_handlers=False)
    settings.configure(session)
    session.warm_up_loader_caches("s3")
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_parse_time)
    # How long an answer may take is bounded by us, for each attempt: see `retry.Pace`.
    kind = PlainHttpSession if (settings.endpoint_url or "").startswith("http:") else HttpSession
    http_session = functools.partial(kind, presigned_url=settings.presigned_url)
    config = AioConfig(http_session_cls=http_session, **aws_config(settings, session) | {"read_timeout": None})
    arguments = settings.client_arguments(session) | {"config": config}
    if settings.presigned_url is not None:
        return session, arguments
    # Providers of credentials read files where they run; the session keeps what they find.
    if settings.access_key_id is None and asyncio.run(session.get_credentials()) is None:
        raise NoCredentialsError
    return session, arguments


def _parse_time(text: Any) -> datetime:
    """Parse a time as S3 writes it in headers or in XML: twenty times as fast as botocore, which takes any form."""
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        with suppress(TypeError, ValueError):
            time = parse(str(text))
            if time.tzinfo is not None:
                return time
    return cast("datetime", parse_timestamp(text))


@functools.cache
def _data_loader(path: str | None) -> Any:
    """Return what reads botocore's models, and keeps them: 0.1 s for the first session only, boto3's too."""
    return create_loader(path)


@functools.cache
def _builtin_handlers() -> AioHierarchicalEmitter:
    """Return botocore's own handlers of events: 10 ms for the first session only, the others take a copy."""
    emitter = AioHierarchicalEmitter()
    AioSession(event_hooks=emitter)
    return emitter


def adapt(client: Any) -> None:
    """Set what every client of ours needs, boto3's too."""
    events = client.meta.events
    # aiohttp waits for a "100 Continue" without limit.
    events.unregister("before-call.s3", add_expect_header)
    events.unregister("before-parameter-build.s3", validate_bucket_name)
    events.register("before-parameter-build.s3", _validate_bucket)
    # Required of DeleteObjects by RGW, and no longer sent by botocore.
    events.register("before-call.s3.DeleteObjects", _content_md5)


def _validate_bucket(params: dict[str, Any], **kwargs: object) -> None:
    """Let a Ceph tenant's ``tenant:bucket`` pass where botocore would not."""
    if not is_tenant(str(params.get("Bucket", ""))):
        validate_bucket_name(params, **kwargs)


def _content_md5(params: dict[str, Any], **_: object) -> None:
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"].setdefault("Content-MD5", base64.b64encode(digest).decode())


def _require_xml(response_dict: dict[str, Any] | None, parsed_response: dict[str, Any] | None, **_: object) -> None:
    """Refuse a good answer that is no XML; botocore would say that the server answered with 500."""
    status = response_dict["status_code"] if response_dict else None
    # An error that is told in XML has a code of its own.
    if status == 200 and (parsed_response or {}).get("Error", {}).get("Code") == "500":  # noqa: PLR2004
        msg = "it is no XML"
        raise ResponseParserError(msg)


class HttpSession(AIOHTTPSession):
    """aiobotocore's HTTP session, but it never follows a redirect, and knows the way to a presigned URL.

    botocore is not told of it: its errors and logs show the URLs that it makes.
    """

    def __init__(self, *, presigned_url: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._target = {} if presigned_url is None else {"url": URL(presigned_url, encoded=True)}

    async def send(self, request: Any) -> Any:
        """Carry out a prepared request."""
        answer = await super().send(request)
        # botocore asks for each of 40 headers, which its own mapping finds by three calls.
        answer.headers = CIMultiDict(answer.headers)
        return answer

    async def _get_session(self, proxy_url: str | None) -> Any:
        return _Direct(await super()._get_session(proxy_url), self._target)


class PlainHttpSession(HttpSession):
    """The same for http, where there is no certificate to verify: to read the authorities takes 30 ms."""

    def _build_ssl_contexts(self, proxy_url: str | None) -> tuple[ssl.SSLContext, ssl.SSLContext | None]:
        if proxy_url is None:
            # It trusts nobody, should https ever come to it.
            return self._get_ssl_context(), None
        contexts: tuple[ssl.SSLContext, ssl.SSLContext | None] = super()._build_ssl_contexts(proxy_url)
        return contexts


class _Direct:
    """An aiohttp session that refuses redirects.

    A redirect followed sends the body and the session token to whatever
    origin the answer names, under a signature that is not meant for it.
    """

    def __init__(self, session: aiohttp.ClientSession, target: dict[str, URL]) -> None:
        self._session = session
        self._target = target

    async def request(self, method: str, **options: Any) -> aiohttp.ClientResponse:
        options |= self._target
        try:
            response = await self._session.request(method, allow_redirects=False, read_bufsize=_READ_BUFFER, **options)
        except aiohttp.ClientResponseError as error:
            if not self._target:
                raise
            # It tells the URL, which is a secret.
            msg = f"{error.status} {error.message}"
            raise aiohttp.ClientError(msg) from None
        if 300 <= response.status < 400 and response.status != 304:  # noqa: PLR2004
            response.close()
            msg = f"redirect {response.status}"
            raise errors.RedirectRefusedError(msg)
        return response


class Body:
    """A request's body, in memory: hashed off the loop, sent in slices.

    An async iterator for aiohttp, which would copy ``bytes`` and read file
    objects 64 KiB at a time; a file object for botocore, which wants to read
    it when it computes a checksum of its own.

    Parameters
    ----------
    views : sequence of `memoryview`
        The bytes.
    chunk_size : `int`
        Bytes in a slice.
    on_sent : callable
        Called with the number of bytes after each slice that was taken.
    """

    def __init__(self, views: Sequence[memoryview], chunk_size: int, on_sent: Callable[[int], None]) -> None:
        self._views = views
        self._chunk_size = chunk_size
        self._on_sent = on_sent
        self._position = 0
        self._size = sum(view.nbytes for view in views)
        self.sha256 = ""
        self.md5: str | None = None

    def digest(self, *, md5: bool) -> None:
        """Compute what the signature needs. Call it in a thread: it takes a while."""
        # Each view as a whole: between two of them the thread would want the interpreter's lock again.
        sha256, content_md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        for view in self._views:
            sha256.update(view)
            if md5:
                content_md5.update(view)
        self.sha256 = sha256.hexdigest()
        if md5:
            self.md5 = base64.b64encode(content_md5.digest()).decode()

    def _slices(self) -> Iterator[memoryview]:
        for view in self._views:
            for start in range(0, view.nbytes, self._chunk_size):
                yield view[start : start + self._chunk_size]

    def __aiter__(self) -> AsyncIterator[memoryview]:
        return _Slices(self._slices(), self._on_sent)

    def __len__(self) -> int:
        return self._size

    def tell(self) -> int:
        """Return the position that `read` has come to."""
        return self._position

    def seek(self, position: int) -> int:
        """Move to ``position``, for `read`."""
        self._position = position
        return position

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes from the position on."""
        stop = self._size if size is None or size < 0 else min(self._position + size, self._size)
        pieces, base = [], 0
        for view in self._views:
            pieces.append(view[max(self._position - base, 0) : max(stop - base, 0)])
            base += view.nbytes
        self._position = stop
        return b"".join(pieces)


class _Slices:
    """Hands out slices, and counts each when the next is asked for: then it was taken.

    Not an async generator: one that a broken request leaves unfinished would
    need a task to close it.
    """

    def __init__(self, slices: Iterator[memoryview], on_sent: Callable[[int], None]) -> None:
        self._slices = slices
        self._on_sent = on_sent
        self._taken = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> memoryview:
        if self._taken:
            self._on_sent(self._taken)
            self._taken = 0
            # A socket that takes all at once would let nobody else have the loop.
            await asyncio.sleep(0)
        piece = next(self._slices, None)
        if piece is None:
            raise StopAsyncIteration
        self._taken = piece.nbytes
        return piece


class _Signer(botocore.auth.S3SigV4Auth):
    """botocore's signer, but it takes a `Body`'s digest as it is.

    botocore would hash the body itself, on the event loop.
    """

    def payload(self, request: Any) -> str:
        if isinstance(request.data, Body) and request.data.sha256:
            return request.data.sha256
        return str(super().payload(request))


botocore.auth.AUTH_TYPE_MAPS[_SIGNER] = _Signer


def _choose_signer(signature_version: str, **_: object) -> str | None:
    # Presigned URLs ask for "s3v4-query": those are botocore's.
    return _SIGNER if signature_version == "s3v4" else None
