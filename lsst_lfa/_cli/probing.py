"""A service without credentials: the connection, TLS, and what plain requests show of its clock and latency."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from lsst_lfa import errors
from lsst_lfa._client.http import HttpSession, read_body
from lsst_lfa._client.tls import make_tls_context
from lsst_lfa._transfer.concurrency import in_thread
from lsst_lfa._transfer.failures import RequestInfo, translate_error
from lsst_lfa._transfer.responses import parse_time

__all__ = ["Endpoint", "Responses", "ask", "connect", "shake_hands"]

_REQUESTS: Final = 5
_BAD_REQUEST: Final = 400
_NOBODYS: Final = "lsst-lfa-check"
"""A bucket to ask for where none is named: AWS redirects whoever asks for the service itself."""
_PORTS: Final = {"http": 80, "https": 443}


class Endpoint(NamedTuple):
    """A service, and the way to it.

    Attributes
    ----------
    url : `str`
        Its URL.
    host, port
        What a connection is made to.
    proxy : `str`
        The proxy on the way, without credentials; "" for none.
    verify : `bool` or `str`
        How certificates are verified; see `S3Session`.
    timeout : `float`
        Seconds to wait for a connection, and for a response.
    """

    url: str
    host: str
    port: int
    proxy: str
    verify: bool | str
    timeout: float

    @classmethod
    def find(cls, url: str, profile: str | None, timeout: float) -> Endpoint:
        """Take a URL apart, and see what the environment says of proxies and certificates. It blocks."""
        parts = urlsplit(url)
        proxy = "" if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme, "")
        way = urlsplit(proxy if "://" in proxy else f"http://{proxy}") if proxy else parts
        try:
            port = way.port or _PORTS[way.scheme]
        except (ValueError, KeyError):  # the service's own URL was looked at before
            msg = "The URL of the proxy is not http(s)://host:port. Check HTTPS_PROXY and HTTP_PROXY."
            raise errors.ConfigurationError(msg) from None
        shown = f"{way.hostname}:{port}" if proxy else ""
        return cls(url, str(way.hostname), port, shown, _authorities(profile), timeout)

    @property
    def tls(self) -> bool:
        """Whether the service speaks TLS."""
        return self.url.startswith("https:")

    def unreachable(self, error: Exception) -> errors.LfaError:
        """Say why there is no connection, be it to the service or to the proxy."""
        if not self.proxy:
            return self.translate(error)
        cause, hint = f"could not connect to the proxy {self.proxy} ({error})", "Check HTTPS_PROXY and NO_PROXY."
        return RequestInfo("check", "", None, self.url).failed(errors.UnreachableError, cause, hint, transient=True)

    def translate(self, error: Exception) -> errors.LfaError:
        """Return the error that an exception means, with a remedy."""
        request = RequestInfo("check", "", None, self.url)
        if isinstance(error, TimeoutError) and error.errno is None:  # ours, not the system's
            cause = f"no response within {self.timeout:g} s"
            hint = "Check the server and the network, or raise --timeout."
            return request.failed(errors.TransferTimeoutError, cause, hint, transient=True)
        found = translate_error(error, request)
        if found is None and isinstance(error, OSError):
            hint = "Check S3_ENDPOINT_URL and the network, and that the service is running."
            found = request.failed(errors.UnreachableError, f"no connection ({error})", hint, transient=True)
        if found is None:
            raise error
        return found


def _authorities(profile: str | None) -> bool | str:
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    try:
        return Session(profile=profile).get_config_variable("ca_bundle") or True
    except BotoCoreError:  # a profile that is only in the environment
        return os.environ.get("AWS_CA_BUNDLE") or True


async def connect(endpoint: Endpoint) -> tuple[str, float]:
    """Open a connection; return its other end, and how many seconds that took.

    Raises
    ------
    LfaError
        If there is none.
    """
    begun = time.monotonic()
    try:
        async with asyncio.timeout(endpoint.timeout):
            _, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    except (OSError, ValueError) as error:
        raise endpoint.unreachable(error) from error
    with closing(writer):
        host, port = writer.get_extra_info("peername")[:2]
        return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), time.monotonic() - begun


async def shake_hands(endpoint: Endpoint) -> tuple[str, datetime | None]:
    """Do a TLS handshake; return the version, and until when the certificate is valid.

    Raises
    ------
    LfaError
        If it fails.
    """
    try:
        context = await in_thread(make_tls_context, endpoint.verify, None)
        async with asyncio.timeout(endpoint.timeout):
            _, writer = await asyncio.open_connection(
                endpoint.host, endpoint.port, ssl=context, server_hostname=endpoint.host
            )
    except Exception as error:
        raise endpoint.translate(error) from error
    with closing(writer):
        found = writer.get_extra_info("ssl_object")
        until = (found.getpeercert() or {}).get("notAfter")
        return str(found.version()), datetime.fromtimestamp(ssl.cert_time_to_seconds(until), UTC) if until else None


class Responses(NamedTuple):
    """What the responses to plain requests show.

    Attributes
    ----------
    skew : `float` or `None`
        Seconds that our clock is ahead of the server's, to a second; `None` if it tells no time.
    latencies : `list` [`float`]
        Seconds that each request took, but for the first.
    """

    skew: float | None
    latencies: list[float]


async def ask(endpoint: Endpoint, bucket: str) -> Responses:
    """Make a few requests without credentials; whether they are refused does not matter.

    Raises
    ------
    LfaError
        If the responses are not those of an S3 service.
    """
    proxies = getproxies() if endpoint.proxy else {}
    skews, latencies = [], []
    try:
        async with HttpSession(timeout=endpoint.timeout, proxies=proxies, verify=endpoint.verify) as http:
            for _ in range(1 + _REQUESTS):
                begun, now = time.monotonic(), time.time()
                async with asyncio.timeout(endpoint.timeout):
                    response = await http.get(f"{endpoint.url}/{quote(bucket or _NOBODYS)}", {})
                    with closing(response):
                        await read_body(response)
                if response.status == _BAD_REQUEST:
                    await _require_plain(endpoint)
                seconds = time.monotonic() - begun
                latencies.append(seconds)
                told = parse_time(response.headers.get("Date", ""))
                if told is not None:  # it tells whole seconds
                    skews.append(now + seconds / 2 - told.timestamp() - 0.5)
    except Exception as error:
        await _require_plain(endpoint)
        raise endpoint.translate(error) from error
    return Responses(min(skews, key=abs, default=None), latencies[1:])


async def _require_plain(endpoint: Endpoint) -> None:
    """Make sure that it is not TLS that the server expects, which it need not say in words.

    Raises
    ------
    ConfigurationError
        If it is.
    """
    if endpoint.tls or endpoint.proxy:
        return
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(endpoint.timeout):
            _, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=context)
    except OSError:
        return
    writer.close()
    request = RequestInfo("check", "", None, endpoint.url)
    raise request.failed(errors.ConfigurationError, "the server expects TLS", "Use an https:// URL.", transient=False)
