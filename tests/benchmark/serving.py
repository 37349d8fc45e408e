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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.servers import CephServer, CertificateAuthority, SeaweedServer

from .peers import PEERS
from .target import SMALL_SIZE, Job, Target, payload

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.servers import S3Server

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
    """

    def __init__(self, server: S3Server, target: Target) -> None:
        self.version = server.version
        self.target = target
        self._client = server.client()
        self._client.create_bucket(Bucket=target.bucket)

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
        self, peer: str, case: str, size: int = SMALL_SIZE, config: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Carry out one measurement in a process of its own; objects to download were stored before.

        Raises
        ------
        FailedError
            If the peer fails.
        """
        key = f"stored-{size}" if case in {"download", "gets"} else "sent"
        job = Job(peer, case, size, key, self.target, config or {})
        done = subprocess.run(
            [_python(peer), "-m", "tests.benchmark.child"],
            input=json.dumps(job.to_json()),
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIME_LIMIT,
            cwd=_ROOT,
            env=self.target.environment(),
        )
        if done.returncode:
            raise FailedError(done.stderr.strip() or f"status {done.returncode}")
        if case == "upload":
            self._check(key, size)
            self._remove(key, size)
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
    wanted = PEERS[peer].own_environment
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
def serve(name: str, scheme: str) -> Iterator[Service]:
    """Start a server with a bucket in it."""
    with contextlib.ExitStack() as stack:
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
        service = Service(server, target)
        stack.callback(service.close)
        yield service
