"""A body that is sent again is sent whole, whatever wraps it, and counted once."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import S3Session
from tests.faults.harness import CONFIG
from tests.faults.wire import Listener
from tests.servers import CertificateAuthority

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.wire import Connection

DATA = random.Random(0).randbytes(256 * 2000)
FAILED = b"HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n"
DONE = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 0\r\n\r\n'


class Keeps(Listener):
    """Keeps the bodies that come; what it says to each is given, `None` for nothing."""

    def __init__(self, *said: bytes | None, **options: Any) -> None:
        super().__init__(**options)
        self._said = list(said)
        self.bodies: list[bytes] = []

    async def serve(self, connection: Connection) -> None:
        while (head := await connection.read_head()) is not None:
            body = b""
            length = head.headers.get("content-length")
            if length is not None:
                while len(body) < int(length) and (chunk := await connection.read_some(1 << 17)):
                    body += chunk
            else:
                body = await _chunks(connection)
            self.bodies.append(_decoded(body) if "aws-chunked" in head.headers.get("content-encoding", "") else body)
            said = self._said.pop(0)
            if said is None:
                return
            await connection.write(said)


async def _chunks(connection: Connection) -> bytes:
    """Read a body in chunks of HTTP's own."""
    body = b""
    while size := int(await connection.read_until(b"\r\n"), 16):
        left = size + 2
        while left:
            chunk = await connection.read_some(left)
            assert chunk
            left -= len(chunk)
            body += chunk
        body = body[:-2]
    await connection.read_until(b"\r\n")
    return body


def _decoded(body: bytes) -> bytes:
    """Take the chunks of AWS's own encoding apart; what trails them is left."""
    data = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        count = int(size.partition(b";")[0], 16)
        if not count:
            break
        data, body = data + body[:count], body[count + 2 :]
    return data


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("setting", ["when_required", "when_supported"])
@pytest.mark.parametrize("first", [FAILED, None], ids=["an error", "a connection that closes"])
async def test_each_attempt_sends_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, setting: str, first: bytes | None
) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", setting)
    tls = CertificateAuthority(tmp_path).valid()
    keys: dict[str, Any] = {"access_key_id": "id", "secret_access_key": "secret", "verify": tls.ca}
    counts: list[int] = []
    options: dict[str, Any] = {"tls": tls.context()} if scheme == "https" else {}
    # The first leaves a connection behind, which the second finds closed.
    async with (
        Keeps(DONE, first, first, DONE, **options) as server,
        S3Session(endpoint_url=server.endpoint_url, config=CONFIG, **keys) as session,
    ):
        await session.bucket("b").upload(b"first", "k")
        await session.bucket("b").upload(DATA, "k", counts.append)
    assert server.bodies[0] == b"first"
    assert [len(body) for body in server.bodies[1:]] == [len(DATA)] * 3
    assert server.bodies[1:] == [DATA] * 3
    assert sum(counts) == len(DATA)
    assert min(counts) > 0
