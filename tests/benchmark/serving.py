"""Starts a server, and the processes that measure against it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.servers import CephServer, CertificateAuthority, SeaweedServer

from .line import LOOPBACK, order, run_line
from .peers import parse_peer
from .target import DROPS, SMALL_SIZE, Job, Target, payload

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.servers import S3Server

    from .line import LineSpec

__all__ = ["SERVERS", "FailedError", "Service", "serve"]

SERVERS: Mapping[str, type[S3Server]] = {"ceph": CephServer, "seaweedfs": SeaweedServer}
_ROOT = Path(__file__).parents[2]
_BUCKET = "benchmark"
_MEMORY = Path("/proc/meminfo")
_TIME_LIMIT = 900.0
_PATIENCE = 90.0
_KEPT_FREE = 2 * 1024**3


class FailedError(Exception):
    """A measurement that did not end well."""


class Service:
    """A server under way, and the measurements against it.

    Parameters
    ----------
    server : `S3Server`
        The server.
    target : `Target`
        A bucket on it.
    core : `int`, optional
        The core that measurements run on; any by default.
    """

    def __init__(self, server: S3Server, target: Target, core: int | None = None) -> None:
        self.version = server.version
        self.target = target
        self.core = core
        self._lines: dict[str, tuple[LineSpec, Target]] = {}
        self._client = server.client()
        self._client.create_bucket(Bucket=target.bucket)

    @property
    def lines(self) -> list[str]:
        """The titles of the lines to the server, without loopback."""
        return list(self._lines)

    def add_line(self, spec: LineSpec, port: int) -> None:
        """Let measurements go over a line that runs on a port."""
        endpoint = urlsplit(self.target.endpoint_url)
        endpoint_url = endpoint._replace(netloc=f"{endpoint.hostname}:{port}").geturl()
        self._lines[spec.title] = spec, replace(self.target, endpoint_url=endpoint_url, line=port)

    def reach(self, line: str) -> Target:
        """Return the bucket as it is seen over a line, which is as it was at first."""
        if line == LOOPBACK:
            return self.target
        spec, target = self._lines[line]
        assert target.line is not None
        order(target.line, rate=spec.rate_mb * 1e6)
        return target

    def close(self) -> None:
        """Close what `store` and `measure` use."""
        self._client.close()

    def store(self, size: int) -> str:
        """Store an object that all peers download, and return its key."""
        key = f"stored-{size}"
        self._client.put_object(Bucket=self.target.bucket, Key=key, Body=payload(size))
        return key

    def _check(self, key: str, size: int) -> None:
        stored = self._client.head_object(Bucket=self.target.bucket, Key=key)["ContentLength"]
        if stored != size:
            message = f"{stored} bytes were stored, not {size}"
            raise FailedError(message)

    def _remove(self, key: str, size: int) -> None:
        """Delete an object, and wait for memory: Ceph keeps objects there, deleted ones for half a minute."""
        self._client.delete_object(Bucket=self.target.bucket, Key=key)
        until = time.monotonic() + _PATIENCE
        while _free_memory() < _KEPT_FREE + 4 * size and time.monotonic() < until:
            time.sleep(1)

    def measure(
        self,
        peer: str,
        case: str,
        size: int = SMALL_SIZE,
        config: Mapping[str, Any] | None = None,
        *,
        line: str = LOOPBACK,
        **options: Any,
    ) -> dict[str, Any]:
        """Carry out one measurement in a process of its own; objects to download were stored before.

        Parameters
        ----------
        peer, case : `str`
            Whom to measure, doing what.
        size : `int`, optional
            Bytes of an object.
        config : mapping, optional
            Arguments of `TransferConfig`.
        line : `str`, optional
            Title of the line to measure over.
        **options
            More of the `Job`.

        Raises
        ------
        FailedError
            If the peer fails.
        """
        key = f"stored-{size}" if case.startswith(("download", "gets")) else "sent"
        job = Job(peer, case, size, key, self.reach(line), config or {}, core=self.core, **options)
        try:
            result = _run(job)
            if case.startswith("upload"):
                self._check(key, size)
            orphans = self._abort_orphans()
            if case in DROPS:
                result["measures"]["orphans"] = orphans
        finally:
            self._abort_orphans()  # those of a peer that failed are not the next one's
            if case.startswith("upload"):
                self._remove(key, size)
        return result

    def _abort_orphans(self) -> int:
        """Abort the multipart uploads that were left, and return how many there were."""
        found = self._client.list_multipart_uploads(Bucket=self.target.bucket).get("Uploads", [])
        for each in found:
            self._client.abort_multipart_upload(Bucket=self.target.bucket, Key=each["Key"], UploadId=each["UploadId"])
        return len(found)


def _run(job: Job) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [_python(job.peer), "-m", "tests.benchmark.child"],
            input=json.dumps(job.to_json()),
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIME_LIMIT,
            cwd=_ROOT,
            env=job.target.environment(),
        )
    except subprocess.TimeoutExpired as error:
        message = f"it took more than {error.timeout:g} s"
        raise FailedError(message) from error
    if done.returncode:
        raise FailedError(done.stderr.strip() or f"status {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _free_memory() -> int:
    for line in _MEMORY.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    raise KeyError(_MEMORY)


def _python(peer: str) -> str:
    """Return the interpreter that has a peer, whose own environment is made when it is first asked for."""
    wanted = parse_peer(peer)[0].own_environment
    if wanted is None:
        return sys.executable
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "lsst_lfa-benchmark" / f"{wanted}-py{sys.version_info.major}{sys.version_info.minor}"
    python = folder / "bin" / "python"
    finished = folder / "finished"
    if not finished.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", wanted], check=True)
        finished.touch()
    return str(python)


@contextmanager
def _pinned() -> Iterator[int]:
    """Keep this process, and the servers that it starts, on one core; give another one."""
    cores = os.sched_getaffinity(0)
    server, client = min(cores), max(cores)
    if server == client:
        message = "there is only one core"
        raise FailedError(message)
    os.sched_setaffinity(0, {server})
    try:
        yield client
    finally:
        os.sched_setaffinity(0, cores)


@contextmanager
def serve(name: str, scheme: str, lines: Sequence[LineSpec] = (), *, pin: bool = False) -> Iterator[Service]:
    """Start a server with a bucket in it, and lines to it.

    Parameters
    ----------
    name : `str`
        One of `SERVERS`.
    scheme : `str`
        ``http`` or ``https``, which goes over the lines as it is.
    lines : sequence of `LineSpec`, optional
        The lines.
    pin : `bool`, optional
        Keep the server and the lines on one core, and measure on another.
    """
    with contextlib.ExitStack() as stack:
        core = stack.enter_context(_pinned()) if pin else None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lsst_lfa-benchmark-")))
        secure = scheme == "https"
        tls = CertificateAuthority(folder / "ca").valid() if secure else None
        server = stack.enter_context(SERVERS[name](folder / name, tls=tls))
        endpoint_url = server.https_endpoint_url if secure else server.endpoint_url
        assert endpoint_url is not None
        target = Target(
            endpoint_url=endpoint_url,
            bucket=_BUCKET,
            access_key_id=server.access_key_id,
            secret_access_key=server.secret_access_key,
            ca_file=server.ca_file if secure else None,
            # Ceph refuses them where they go behind the body, which is over https.
            streamed_checksums=not (secure and name == "ceph"),
        )
        service = Service(server, target, core)
        stack.callback(service.close)
        port = urlsplit(endpoint_url).port
        assert port is not None
        for spec in lines:
            service.add_line(spec, stack.enter_context(run_line(folder, spec, port)))
        yield service
