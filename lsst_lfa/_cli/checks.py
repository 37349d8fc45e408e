"""The checks of a service, one after another: each builds on what the ones before have found."""

from __future__ import annotations

import asyncio
import os
import secrets
import statistics
import time
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from lsst_lfa import TransferConfig, errors, sites
from lsst_lfa._bucket_for import make_session
from lsst_lfa._transfer.concurrency import in_thread, uninterrupted
from lsst_lfa._urls import ObjectUrl
from lsst_lfa.salobj import AsyncS3Bucket

from .probing import Endpoint, ask, connect, shake_hands
from .runner import exit_code, message

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence

    from lsst_lfa import S3Session
    from lsst_lfa._bucket import S3Bucket

    from .targets import Places

__all__ = ["Finding", "State", "run_checks", "worst"]

State = Literal["OK", "failed", "not tried"]

_SIZE: Final = 1024
_AWS: Final = "https://s3.amazonaws.com"
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html: RequestTimeTooSkewed
_LARGEST_SKEW: Final = 900.0
_NOTABLE_SKEW: Final = 60.0
_RESOLUTION: Final = 2.0
_SOON: Final = 21
"""Days."""


@dataclass(frozen=True)
class Finding:
    """What a check has found.

    Attributes
    ----------
    name : `str`
        What was checked.
    state : {"OK", "failed", "not tried"}
        The outcome.
    message : `str`
        The details: for a failure, the cause and the remedy.
    error : `Exception` or `None`
        Of a failure, for the exit code.
    seconds : `float` or `None`
        What was measured.
    """

    name: str
    state: State
    message: str
    error: Exception | None = None
    seconds: float | None = None


def worst(findings: Sequence[Finding]) -> Exception | None:
    """Return the error with the highest exit code; `None` if nothing failed."""
    return max((each.error for each in findings if each.error is not None), key=exit_code, default=None)


def _ok(name: str, text: str, seconds: float | None = None) -> Finding:
    return Finding(name, "OK", text, seconds=seconds)


def _failed(name: str, error: Exception) -> Finding:
    return Finding(name, "failed", message(error), error)


def _skipped(name: str, why: str) -> Finding:
    return Finding(name, "not tried", why)


def _config(limit: float) -> TransferConfig:
    """Return settings that try nothing twice. A list, or a write, is more work than the refusal of a plain request."""
    return TransferConfig(max_attempts=1, stall_timeout=2 * limit, total_timeout=4 * limit, cleanup_timeout=5)


async def run_checks(places: Places, target: str | None, *, write: bool, limit: float) -> AsyncGenerator[Finding, None]:
    """Check everything in order of importance; each check builds on what the ones before have found.

    ``limit`` is how many seconds to wait for a connection, and for a response.
    """
    try:
        url = await in_thread(_locate, places, target)
        session = make_session(url, anonymous=False, config=_config(limit), connect_timeout=limit)
        named = session.endpoint_url
        endpoint = await in_thread(Endpoint.find, named or _AWS, url.profile, limit)
    except (click.ClickException, errors.LfaError, ValueError) as error:
        yield _failed("endpoint", error)
        for name in ("connection", "TLS", "clock", "latency", "credentials", "bucket", "write"):
            yield _skipped(name, "the endpoint is not known")
        return
    async with aclosing(session):
        yield _ok("endpoint", named or "AWS: neither --site, LSST_SITE nor S3_ENDPOINT_URL is set")
        up = True
        async for finding in _check_network(endpoint, url.bucket):
            up = up and finding.state != "failed"
            yield finding
        async for finding in _check_service(session, url, up=up, write=write):
            yield finding


def _locate(places: Places, target: str | None) -> ObjectUrl:
    """Return the service and the bucket, by default that of the site's annex."""
    if target is not None or places.bucket is not None:
        return places.prefix(target)
    name = places.site or os.environ.get("LSST_SITE", "").strip()
    bucket = annex_bucket(sites.current(name), sites.known()) if name else ""
    return ObjectUrl(places.endpoint_url(), bucket, "", places.profile)


def annex_bucket(site: sites.Site, known: Mapping[str, sites.Site]) -> str:
    """Return the bucket of a site's annex; where there are only copies, that of the first one."""
    if not site.mirrors or site.mirrors[0] not in known:
        return AsyncS3Bucket.make_bucket_name(site.instance)
    name = AsyncS3Bucket.make_bucket_name(known[site.mirrors[0]].instance)
    return f"{site.tenant}:{name}" if site.tenant else name


async def _check_network(endpoint: Endpoint, bucket: str) -> AsyncGenerator[Finding, None]:
    """Check what needs no credentials."""
    left = ["connection", "TLS", "service", "clock", "latency"]
    try:
        address, seconds = await connect(endpoint)
        via = " (the proxy)" if endpoint.proxy else ""
        yield _ok(left.pop(0), f"{address}{via} in {_ms(seconds)}", seconds)
        yield await _check_tls(endpoint)
        left.pop(0)
        responses = await ask(endpoint, bucket)
    except errors.LfaError as error:
        yield _failed(left[0], error)
        for name in left[1:]:
            if name != "service":
                yield _skipped(name, f"{left[0]} failed")
        return
    yield clock(responses.skew)
    seconds = statistics.median(responses.latencies)
    yield _ok("latency", f"{_ms(seconds)}, the median of {len(responses.latencies)} requests", seconds)


async def _check_tls(endpoint: Endpoint) -> Finding:
    if not endpoint.tls:
        return _skipped("TLS", "the URL begins with http://")
    if endpoint.proxy:
        return _skipped("TLS", "it goes through a proxy; what follows uses it")
    version, until = await shake_hands(endpoint)
    if until is None:
        return _ok("TLS", version)
    days = (until - datetime.now(UTC)).days
    soon = f", in {days} days: renew it" if days < _SOON else ""
    return _ok("TLS", f"{version}, the certificate is valid until {until:%Y-%m-%d}{soon}")


def clock(skew: float | None) -> Finding:
    """Return what it means that this machine's clock is so many seconds ahead of the server's."""
    if skew is None:
        return _skipped("clock", "the server does not tell its time")
    seconds = abs(skew)
    if seconds < _RESOLUTION:
        return _ok("clock", f"within {_RESOLUTION:.0f} s of the server's", skew)
    text = f"this machine is {seconds:.0f} s {'ahead of' if skew > 0 else 'behind'} the server"
    if seconds >= _LARGEST_SKEW:
        text += ", so it refuses requests. Set the clock (timedatectl, chronyc)."
        return Finding("clock", "failed", text, errors.ConfigurationError(text), skew)
    return _ok("clock", text + ("; is it kept by NTP?" if seconds >= _NOTABLE_SKEW else ""), skew)


async def _check_service(session: S3Session, url: ObjectUrl, *, up: bool, write: bool) -> AsyncGenerator[Finding, None]:
    """Check what needs credentials."""
    try:
        async with session:
            pass
    except errors.LfaError as error:
        yield _failed("credentials", error)
        yield _skipped("bucket", "there are no credentials")
        yield _skipped("write", "there are no credentials")
        return
    async for finding in _check_bucket(session, url, up=up, write=write):
        yield finding


async def _check_bucket(session: S3Session, url: ObjectUrl, *, up: bool, write: bool) -> AsyncGenerator[Finding, None]:
    source = credential_source(os.environ, url.profile)
    if not up or not url.bucket:
        why = "an earlier check failed" if not up else "name a bucket, or a site"
        yield _ok("credentials", f"found {source}; not tried at the server")
        yield _skipped("bucket", why)
        yield _skipped("write", why)
        return
    bucket = session.bucket(url.bucket)
    error = await _error_of(bucket.check(session.config.stall_timeout))
    if isinstance(error, errors.AuthenticationError):
        yield _failed("credentials", error)
        yield _skipped("bucket", "the credentials are not accepted")
        yield _skipped("write", "the credentials are not accepted")
        return
    # Whoever is told that the bucket is missing, or not theirs, is known to the server.
    known = error is None or isinstance(error, (errors.BucketNotFoundError, errors.AccessDeniedError))
    yield _ok("credentials", f"found {source}" + (", and accepted" if known else ""))
    yield _ok("bucket", f"{url.bucket} can be listed") if error is None else _failed("bucket", error)
    if not write:
        yield _skipped("write", "--write does")
    elif isinstance(error, errors.BucketNotFoundError):
        yield _skipped("write", "there is no such bucket")
    else:
        yield await _write(bucket)


async def _error_of(work: Awaitable[Any]) -> errors.LfaError | None:
    try:
        await work
    except errors.LfaError as error:
        return error
    return None


async def _write(bucket: S3Bucket) -> Finding:
    """Write a small object, read it back, and delete it, whatever happens."""
    key = f"lsst-lfa-check/{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    data = secrets.token_bytes(_SIZE)
    begun = time.monotonic()
    try:
        try:
            await bucket.upload(data, key, content_type="application/octet-stream")
            back = await bucket.read(key)
        except BaseException:
            await uninterrupted(_delete(bucket, key), grace=10.0)  # it may have been stored all the same
            raise
        await bucket.delete(key)
    except errors.LfaError as error:
        return _failed("write", error)
    if back != data:
        text = f"s3://{bucket.name}/{key}: the data read differ from those written. Do not use this service."
        return Finding("write", "failed", text, errors.IntegrityError(text))
    seconds = time.monotonic() - begun
    return _ok("write", f"{_SIZE} bytes written, read back and deleted in {_ms(seconds)}", seconds)


async def _delete(bucket: S3Bucket, key: str) -> None:
    with suppress(errors.LfaError):
        async with asyncio.timeout(10):
            await bucket.delete(key)


def credential_source(environ: Mapping[str, str], profile: str | None) -> str:
    """Return where credentials were found, but not what they are."""
    if profile is not None:
        return f"by the profile {profile}"
    if environ.get("AWS_ACCESS_KEY_ID"):
        return "in AWS_ACCESS_KEY_ID"
    named = environ.get("AWS_PROFILE")
    return f"by AWS_PROFILE={named}" if named else "in AWS's files, or those of this machine"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
