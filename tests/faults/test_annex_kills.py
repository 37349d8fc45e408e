"""The publisher is killed (SIGKILL) at a random moment; the next one finishes what it began.

10 times; 100 times with ``LSST_LFA_SOAK``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import Close, Fault, ReceiveSlowly, Reset, Silence, Status
from .annex_harness import open_annex_harness, until
from .harness import BUCKET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .annex_harness import AnnexHarness

KILLS = 100 if "LSST_LFA_SOAK" in os.environ else 10
ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio, hashlib, os, random, sys
from lsst_lfa import LargeFileAnnex, S3Session
from tests.faults.annex_harness import QUICK
from tests.faults.harness import BUCKET

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # at once, and whole

class Topic:
    async def set_write(self, *, force_output=None, **fields):
        say("announced", fields["id"], fields["url"], fields["checkSum"], fields["byteSize"])

async def publish(annex, name, dice):
    data = dice.randbytes(dice.choice((10, 100_000, 3_000_000)))
    source = data if dice.random() < 0.5 else bytearray(data)
    say("began", name, hashlib.md5(data).hexdigest(), len(data))
    file = await annex.publish(source, generator="image", id=name, key=f"GC:1/image/{name}.fits")
    say("returned", name, file.url, file.check_sum, file.byte_size)

async def main(url, folder, run):
    dice = random.Random(int(run))
    session = S3Session(
        endpoint_url=url, access_key_id="id", secret_access_key="secret", region="us-east-1", config=QUICK
    )
    annex = LargeFileAnnex(session.bucket(BUCKET), "GC", 1, event=Topic(), spool=folder, upload_timeout=0.3)
    await annex.start()
    say("ready")
    for number in range(0, 1000, 2):
        await asyncio.gather(*(publish(annex, f"{run}-{number + n}", dice) for n in range(2)))

# What takes long is done once: this process forks for each order, and has no loop and no threads.
say("warm")
for line in iter(sys.stdin.readline, ""):
    pid = os.fork()
    if not pid:
        asyncio.run(main(*line.rstrip("\\n").split("\\t")))
    os.waitpid(pid, 0)
    say("over")
"""


class Victims:
    """Publishers to be killed, one after the other, and what they said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._orders, self._lines = process, process.stdin, process.stdout
        self.returned: dict[str, list[str]] = {}
        self.announced: dict[str, list[list[str]]] = {}
        self.began: dict[str, tuple[str, int]] = {}
        self._words = 0

    async def _heard(self) -> str:
        async with asyncio.timeout(60):
            word, *rest = (await self._lines.readline()).decode().split()
        self._words += 1
        if word == "returned":
            self.returned[rest[0]] = rest[1:]
        elif word == "announced":
            self.announced.setdefault(rest[0], []).append(rest[1:])
        elif word == "began":
            self.began[rest[0]] = (rest[1], int(rest[2]))
        return word

    async def warm(self) -> None:
        """Wait until it can take orders."""
        assert await self._heard() == "warm"

    async def live(self, *order: str, words: int, seconds: float) -> None:
        """Give an order, and kill who carries it out so many seconds after it has said so many words."""
        self._orders.write("\t".join(order).encode() + b"\n")
        while await self._heard() != "ready":
            pass
        enough = self._words + words
        listening = asyncio.ensure_future(self._listen())
        await until(lambda: self._words >= enough)
        await asyncio.sleep(seconds)
        (child,) = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        await listening

    async def _listen(self) -> None:
        while await self._heard() != "over":
            pass


@asynccontextmanager
async def open_victims() -> AsyncIterator[Victims]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    try:
        yield Victims(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


def faults(dice: random.Random) -> list[Fault]:
    """Return what S3 does this time."""
    actions = (Status(503, "SlowDown"), Silence(), Reset(), Close(carry_out=True), ReceiveSlowly(2_000_000))
    return [Fault("*", dice.choice(actions), nth=dice.randrange(1, 8), times=dice.randrange(1, 20)) for _ in range(2)]


def check_folder(harness: AnnexHarness, victims: Victims) -> None:
    """Assert that all that lies in the folder is whole, or is explained by its sidecar."""
    for name in harness.files():
        path = harness.folder / name
        if path.name.endswith(".part"):
            assert path.name.startswith(".lfa-")
        elif path.name.endswith(".lfa.jsonl"):
            assert json.loads(path.read_text().splitlines()[0])["bucket"] == BUCKET
        else:
            assert path.with_name(f"{path.name}.lfa.jsonl").exists()
            data = path.read_bytes()
            assert (hashlib.md5(data).hexdigest(), len(data)) == victims.began[path.name.removesuffix(".fits")]


def check_objects(harness: AnnexHarness, victims: Victims) -> None:
    """Assert that no object is anything but a whole file."""
    for (_, key), stored in harness.server.objects.items():
        if key.startswith("GC:1/"):
            digest = (hashlib.md5(stored.data).hexdigest(), stored.size)
            assert digest == victims.began[key.removeprefix("GC:1/image/").removesuffix(".fits")]


async def test_killed_while_publishing(tmp_path: Path) -> None:
    dice = random.Random(int(os.environ.get("LSST_LFA_SEED", "1")))
    async with open_annex_harness(tmp_path) as harness, open_victims() as victims:
        await victims.warm()
        waited = 0
        for run in range(KILLS):
            harness.server.script(*faults(dice))
            await victims.live(
                harness.server.endpoint_url,
                str(harness.folder),
                str(run),
                words=dice.randrange(13),
                seconds=dice.uniform(0, 0.05),
            )
            check_folder(harness, victims)
            check_objects(harness, victims)
            waited += any(name.endswith(".fits") for name in harness.files())
        harness.server.script()
        await harness.annex.start()
        assert await harness.annex.wait_stored(60)
        for fields in harness.topic.written:
            announced: list[Any] = [fields["url"], fields["checkSum"], str(fields["byteSize"])]
            victims.announced.setdefault(fields["id"], []).append(announced)
        check_objects(harness, victims)
        for name, (url, md5, size) in victims.returned.items():
            assert [url, md5, size] in victims.announced[name]
            data = harness.object(url.removeprefix(f"{harness.server.endpoint_url}/{BUCKET}/"))
            assert data is not None
            assert (hashlib.md5(data).hexdigest(), str(len(data))) == (md5, size)
        for events in victims.announced.values():
            for url, md5, size in events:
                data = harness.object(url.removeprefix(f"{harness.server.endpoint_url}/{BUCKET}/"))
                assert data is not None
                assert (hashlib.md5(data).hexdigest(), str(len(data))) == (md5, size)
        assert [name for name in harness.files() if not name.endswith(".part")] == []
        assert waited
        assert len(victims.began) > len(victims.returned) > KILLS / 2
        twice = sum(len(events) > 1 for events in victims.announced.values())
        print(
            f"\n{KILLS} kills: {len(victims.began)} files begun, {len(victims.returned)} returned, "
            f"{len(victims.announced)} announced ({twice} of them more than once)"
        )
