"""The package's own mock server, behind the interface of the real ones."""

from __future__ import annotations

from contextlib import ExitStack
from importlib.metadata import version
from typing import TYPE_CHECKING

from .base import S3Server

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MotoServer"]


class MotoServer(S3Server):
    """`lsst_lfa.MockS3Server`: in this process, at once, and lenient where the real ones are strict.

    Parameters
    ----------
    folder : `~pathlib.Path`
        Not used: the mock keeps everything in memory.
    """

    name = "moto"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.version = f"moto {version('moto')}"
        self._running = ExitStack()

    def _serve(self) -> None:
        # Imported here: tests against a real server need no mock, which takes half a second to import.
        from lsst_lfa import MockS3Server

        server = self._running.enter_context(MockS3Server())
        self.endpoint_url = server.endpoint_url
        self.access_key_id = server.access_key_id
        self.secret_access_key = server.secret_access_key

    def stop(self) -> None:
        """Stop the mock and forget its data. No effect if it does not run."""
        self._running.close()
        super().stop()
