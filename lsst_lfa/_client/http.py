"""The HTTP session behind aiobotocore's client, on aiohttp.

aiobotocore accepts one through ``AioConfig(http_session_cls=...)``: anything
that is an async context manager, and has ``close`` and ``send`` for a prepared
request.
"""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import aiohttp
from botocore.parsers import ResponseParserError
from multidict import CIMultiDict
from yarl import URL

from lsst_lfa import errors
from lsst_lfa._transfer.concurrency import Turnstile, in_thread
from lsst_lfa._transfer.etag import parts_in
from lsst_lfa._transfer.failures import TransportError
from lsst_lfa._transfer.request_body import RepeatableBody, RequestBody
from lsst_lfa._transfer.response_body import connection_protocol
from lsst_lfa._transfer.timeouts import note_work

from .connections import Connector, Resolver, transports_used
from .tls import make_tls_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from types import TracebackType

__all__ = ["HttpSession", "read_body"]

_READ_BUFFER = 256 * 1024
# The maximum that is read of an error's body, and of any other; S3 has no longer lists.
_MAX_ERROR_BODY = 64 * 1024
_MAX_BODY = 32 * 1024 * 1024
_KEEPALIVE = 12.0
# A server that expects TLS responds to a plain request with this (RFC 8446, 5.1), as aiohttp shows it.
_TLS_ALERT = r"\x15\x03"


class HttpSession:
    """An aiohttp session in the form that aiobotocore expects.

    It never follows a redirect: that would send the body and the session token
    to whatever origin the response names, under a signature that is not meant
    for it. A request that ends without a response aborts its connection,
    because a connection that is merely closed keeps sending buffered data.

    Parameters
    ----------
    timeout : `tuple` or `float`, optional
        Seconds to wait for a connection, and for a response. Only the former
        counts: how long a response may take is bounded for each attempt.
    proxies : `dict`, optional
        Proxies by scheme.
    verify : `bool` or `str`
        Whether certificates are verified, or the file of authorities to use.
    client_cert : `str` or `tuple`, optional
        A certificate to present to the server.
    **_
        Other arguments of aiobotocore's: how many connections may be open is
        decided before a request is made.
    """

    def __init__(
        self,
        *,
        timeout: tuple[float, float | None] | float | None = None,
        proxies: Mapping[str, str] | None = None,
        verify: bool | str = True,
        client_cert: str | tuple[str, str] | None = None,
        **_: Any,
    ) -> None:
        connect_timeout = timeout[0] if isinstance(timeout, (tuple, list)) else timeout
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        self._proxies = proxies or {}
        self._verify = verify
        self._client_cert = client_cert
        self._lock = asyncio.Lock()
        self._turn = Turnstile()
        self._context: ssl.SSLContext | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=Connector(limit=0, keepalive_timeout=_KEEPALIVE, resolver=Resolver()),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            skip_auto_headers={"Content-Type"},
            auto_decompress=False,
            read_bufsize=_READ_BUFFER,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def send(self, request: Any) -> _Response:
        """Carry out a request that botocore prepared.

        Raises
        ------
        aiohttp.ClientError, TimeoutError
            If the server cannot be reached, or the connection is lost.
        botocore.parsers.ResponseParserError
            If the response claims a success that is impossible.
        TransportError
            If the response is a redirect, or a setting is wrong.
        """
        headers = CIMultiDict((name, _text(value)) for name, value in request.headers.items())
        headers["Accept-Encoding"] = "identity"
        # aiohttp would wait for a "100 Continue" without limit. It is not signed.
        headers.pop("Expect", None)
        body = RepeatableBody(request.body) if hasattr(request.body, "__anext__") else request.body
        upload = body if isinstance(body, (RequestBody, RepeatableBody)) else None
        response, transport = await self._open(request.method, request.url, headers, body)
        if request.stream_output and response.status < 300:  # noqa: PLR2004
            # The engine reads it, including its headers.
            return _Response(str(response.url), response.status, CIMultiDict(), response)
        # Refused before all was sent: nobody reads the rest, which must not go out on a connection that others may
        # get.
        unsent = (upload is not None and upload.unsent > 0) or (
            transport is not None and transport.get_write_buffer_size() > 0
        )
        try:
            if unsent and (protocol := connection_protocol(response, "force_close")) is not None:
                # Else the next request may get the connection before it is aborted, and has to be sent again.
                protocol.force_close()
            if unsent and response.status < 300:  # noqa: PLR2004
                # Whatever it claims to have stored, it is not the whole body.
                raise ResponseParserError("it reports success before the server had all of the body")
            content = await read_body(response)
        except BaseException:
            unsent = True
            raise
        finally:
            if unsent or not response.content.at_eof():
                response.close()
                if transport is not None:
                    transport.abort()
        await self._turn()
        return _Response(str(response.url), response.status, _headers(response), response, content)

    async def get(self, url: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Request a URL exactly as given; any response but a redirect is accepted.

        Raises
        ------
        As `send`; no error shows the URL.
        """
        try:
            response, _ = await self._open("GET", url, CIMultiDict(headers, **{"Accept-Encoding": "identity"}), None)
            return response
        except aiohttp.ClientConnectorError:
            raise
        except aiohttp.ClientError as error:
            # Its own text, and that of its cause, may show the URL.
            failure: Exception = aiohttp.ClientPayloadError(type(error).__name__)
        except TimeoutError:
            failure = TimeoutError()
        raise failure

    async def _open(
        self, method: str, url: str, headers: CIMultiDict[str], data: Any
    ) -> tuple[aiohttp.ClientResponse, asyncio.Transport | None]:
        """Send a request, and read the head of its response.

        The transport is `None` only if aiohttp already has it back, with
        nothing left to read, and never reported it to us.
        """
        if self._session is None:
            raise aiohttp.ClientConnectionError("the session is closed")
        # aiohttp takes this as an option, not as a header.
        chunked = headers.pop("Transfer-Encoding", None)
        connecting = await self._connecting(url, headers)
        transports: list[asyncio.Transport] = []
        token = transports_used.set(transports)
        failure: Exception | None = None
        try:
            response = await self._session.request(
                method,
                URL(url, encoded=True),
                headers=headers,
                data=data,
                chunked=chunked == "chunked" or None,
                allow_redirects=False,
                **connecting,
            )
            failure = _refusal(response)
            if failure is None:
                connection = response.connection
                return response, transports[-1] if transports else connection and connection.transport
            response.close()
        except aiohttp.ClientResponseError as error:
            failure = _unreadable(error, url)
        except BaseException:
            _abort(transports)
            raise
        finally:
            transports_used.reset(token)
        _abort(transports)
        # Outside the except clause: aiohttp's error has the request's headers, with all that was signed.
        raise failure

    async def _connecting(self, url: str, headers: CIMultiDict[str]) -> dict[str, Any]:
        """Return the options that say by which proxy and TLS context a URL is reached; or add them to its headers."""
        proxy = _Proxy.parse(self._proxies.get(URL(url, encoded=True).scheme))
        tunnelled = url.startswith("https:")
        encrypted = tunnelled or (proxy is not None and proxy.url.scheme == "https")
        options: dict[str, Any] = {"ssl": await self._tls_context() if encrypted else True}
        if proxy is None:
            return options
        if tunnelled:
            return options | {"proxy": proxy.url, "proxy_headers": proxy.headers}
        headers.extend(proxy.headers)
        return options | {"proxy": proxy.url}

    async def _tls_context(self) -> ssl.SSLContext:
        """Return the one TLS context; reading the certificate authorities takes 30 ms, in a thread."""
        async with self._lock:
            if self._context is None:
                self._context = await in_thread(make_tls_context, self._verify, self._client_cert)
            return self._context


class _Response:
    """A response in the form that botocore expects, which awaits its content.

    Attributes
    ----------
    raw : `aiohttp.ClientResponse`
        aiohttp's own response.
    """

    def __init__(
        self, url: str, status: int, headers: CIMultiDict[str], raw: aiohttp.ClientResponse, content: bytes = b""
    ) -> None:
        self.url = url
        self.status_code = status
        self.headers = headers
        self.raw = raw
        self._content = content

    @property
    async def content(self) -> bytes:
        """The body."""
        return self._content


async def read_body(response: aiohttp.ClientResponse) -> bytes:
    """Read a short body, or as much of an error's body as is worth reading.

    S3 sends white space before the body for as long as it is working.
    """
    failed = response.status >= 300  # noqa: PLR2004
    limit = _MAX_ERROR_BODY if failed else _MAX_BODY
    chunks: list[bytes] = []
    size = 0
    while size < limit and (chunk := await response.content.read(limit - size)):
        size += len(chunk)
        if chunks or (chunk := chunk.lstrip()):
            chunks.append(chunk)
        else:
            note_work()
    if size == limit and not failed:
        msg = f"the body is longer than {limit} bytes"
        raise aiohttp.ClientPayloadError(msg)
    return b"".join(chunks)


def _headers(response: aiohttp.ClientResponse) -> CIMultiDict[str]:
    return CIMultiDict((_text(name), _text(value)) for name, value in response.raw_headers)


def _text(value: str | bytes) -> str:
    """Decode a header; some servers send Latin-1."""
    if isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _abort(transports: list[asyncio.Transport]) -> None:
    for transport in transports:
        transport.abort()


def _refusal(response: aiohttp.ClientResponse) -> Exception | None:
    """Return the reason why a response cannot be used; `None` if it can."""
    coding = response.headers.get("Transfer-Encoding", "chunked")
    if 300 <= response.status < 400 and response.status != 304:  # noqa: PLR2004 - a redirect
        return _redirect_refused(response)
    wrong = None
    if response.status < 200:  # noqa: PLR2004
        wrong = f"the connection was switched to another protocol (status {response.status})"
    elif coding.strip().lower() not in {"chunked", "identity"}:
        wrong = f"the body has a transfer encoding that was not requested ({coding})"
    elif response.status < 300 and _is_compressed(response):  # noqa: PLR2004
        wrong = f"the body was compressed in transit ({response.headers['Content-Encoding']}), which was not requested"
    refusal: Exception | None = None if wrong is None else ResponseParserError(wrong)
    return refusal


def _is_compressed(response: aiohttp.ClientResponse) -> bool:
    """Whether a proxy compressed the body; one that was stored compressed has its length, or S3's own ETag."""
    headers = response.headers
    if headers.get("Content-Encoding", "identity").strip().lower() == "identity":
        return False
    etag = headers.get("ETag", "")
    return parts_in(etag) is None and ("Transfer-Encoding" in headers or etag.startswith("W/"))


def _unreadable(error: aiohttp.ClientResponseError, url: str) -> Exception:
    """Return what is wrong with a response's headers, or with a proxy's response."""
    unreadable: Exception = ResponseParserError(error.message)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        if error.status >= 500:  # noqa: PLR2004 - it may have better luck
            return aiohttp.ClientConnectionError(f"the proxy responded with {error.status}: {error.message}")
        return TransportError(
            errors.UnreachableError,
            f"the proxy refused the connection ({error.status}: {error.message})",
            "Check HTTPS_PROXY, the user and password in it, and NO_PROXY.",
        )
    if url.startswith("http:") and _TLS_ALERT in error.message:
        return TransportError(errors.ConfigurationError, "the server expects TLS", "Use an https:// URL.")
    return unreadable


def _redirect_refused(response: aiohttp.ClientResponse) -> TransportError:
    region = response.headers.get("x-amz-bucket-region")
    there = f" The bucket is in {region}: set AWS_DEFAULT_REGION, or S3Session(region={region!r})." if region else ""
    return TransportError(
        errors.RedirectRefusedError,
        f"the server responded with a redirect ({response.status}); redirects are never followed",
        f"Check S3_ENDPOINT_URL and the region: they should name the bucket's own service.{there}",
    )


class _Proxy(NamedTuple):
    """A proxy and, separately, its credentials, in the form of headers.

    aiohttp would otherwise keep them with each connection, and show them in
    its errors.
    """

    url: URL
    headers: dict[str, str]

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        if not text:
            return None
        try:
            url = URL(text if "://" in text else f"http://{text.removeprefix('//')}")
            port = url.port
        except ValueError:
            url, port = URL(), None
        if url.scheme not in {"http", "https"} or not url.host or port is None:
            raise TransportError(
                errors.ConfigurationError,
                f"the proxy's URL ({text.rpartition('@')[2]}) is not http(s)://host:port",
                "Check HTTPS_PROXY and HTTP_PROXY.",
            )
        if not url.user and not url.password:
            return cls(url, {})
        credentials = f"{url.user or ''}:{url.password or ''}".encode()
        return cls(url.with_user(None), {"Proxy-Authorization": f"Basic {base64.b64encode(credentials).decode()}"})
