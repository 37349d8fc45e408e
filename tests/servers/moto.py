"""The package's own mock server, behind the interface of the real ones."""

from __future__ import annotations

from contextlib import ExitStack
from importlib.metadata import version
from typing import TYPE_CHECKING

from .base import S3Server

if TYPE_CHECKING:
    from pathlib import Path

    from .tls import TlsFiles

__all__ = ["MotoServer"]


class MotoServer(S3Server):
    """`lsst_lfa.mock.MockS3Server`: in this process, at once, and lenient where the real ones are strict.

    Parameters
    ----------
    folder : `~pathlib.Path`
        Not used: the mock keeps everything in memory.
    tls : `TlsFiles`, optional
        Not supported, and a ValueError if given; an `NginxProxy` in front of the mock serves https.
    """

    name = "moto"

    def __init__(self, folder: Path, *, tls: TlsFiles | None = None) -> None:
        super().__init__(folder, tls=tls)
        if tls is not None:
            message = "the mock serves no https: put an NginxProxy in front of it"
            raise ValueError(message)
        self.version = f"moto {version('moto')}"
        self._running = ExitStack()

    def _start(self) -> None:
        # Imported here: tests against a real server need no mock, which takes half a second to import.
        from lsst_lfa.mock import MockS3Server

        server = self._running.enter_context(MockS3Server())
        self.endpoint_url = server.endpoint_url
        self.access_key_id = server.access_key_id
        self.secret_access_key = server.secret_access_key

    def stop(self) -> None:
        """Stop the mock and forget its data. No effect if it does not run."""
        self._running.close()
