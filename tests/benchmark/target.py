"""Where transfers go, and what is transferred. Standard library only: each peer's environment imports it."""

from __future__ import annotations

import os
import random
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CASES", "DROPS", "FILES", "LARGE", "MANY", "SCENARIOS", "SMALL", "SMALL_SIZE", "Job", "Target", "payload"]

LARGE = ("upload", "download")
"""Cases with one large object, in memory."""
FILES = ("upload-file", "download-file")
"""The same from a file, and to one."""
SMALL = ("puts", "gets")
"""Cases with many objects of `SMALL_SIZE`: so many at a time, and one at a time."""
MANY = ("puts-1000", "gets-1000")
"""A thousand of them by one `asyncio.TaskGroup`."""
CHANGES = ("upload-changes", "download-changes")
"""Cases with a line that changes its rate."""
DROPS = ("upload-drops", "download-drops")
"""Cases with a line that drops a connection each second."""
SCENARIOS = (*CHANGES, *DROPS)
"""Cases that need a line, with one large object after another."""
CASES = {"memory": LARGE, "files": FILES, "small": SMALL, "many": MANY, "changes": CHANGES, "drops": DROPS}
SMALL_SIZE = 100_000

_BLOCK = 1024 * 1024


@dataclass(frozen=True)
class Target:
    """A bucket on a server, and who we are to it."""

    endpoint_url: str
    bucket: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    ca_file: str | None
    streamed_checksums: bool
    """Whether the server takes botocore's default checksums, which go behind the body over https."""
    line: int | None = None
    """Port of the line that leads to the server, by which it is told to change."""

    @property
    def secure(self) -> bool:
        return urlsplit(self.endpoint_url).scheme == "https"

    def environment(self) -> dict[str, str]:
        """Return the environment of a process that measures: nothing of the user's own set-up is in it."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.upper().startswith(("AWS_", "S3_", "SSL_")) and not name.upper().endswith("_PROXY")
        }
        kept |= {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "S3_ENDPOINT_URL": self.endpoint_url,
        }
        if self.ca_file is not None:
            kept |= {"AWS_CA_BUNDLE": self.ca_file, "SSL_CERT_FILE": self.ca_file}
        if not self.streamed_checksums:
            kept |= {
                "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
                "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
            }
        return kept


@dataclass(frozen=True)
class Job:
    """One measurement."""

    peer: str
    """Whom to measure, e.g. ``ours`` or ``ours-8``."""
    case: str
    size: int
    key: str
    target: Target
    config: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `TransferConfig`, for this package only."""
    warm_up: int = 20_000_000
    """Bytes to transfer each way before something large is measured: a CSC runs for months."""
    core: int | None = None
    """The core to run on; any by default."""

    @property
    def sends(self) -> bool:
        """Whether what is measured goes up."""
        return self.case.startswith(("upload", "puts"))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Job:
        return cls(**values | {"target": Target(**values["target"])})


def payload(size: int) -> bytes:
    """Return ``size`` bytes that are always the same, and that nothing can compress at a glance."""
    block = random.Random(size).randbytes(_BLOCK)
    whole, rest = divmod(size, _BLOCK)
    return block * whole + block[:rest]
