"""Telling the user that S3 has a file."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._large_file import LargeFile

__all__ = ["StoredCallback"]

log = logging.getLogger(__name__)


class StoredCallback:
    """The user's ``on_stored``, whose errors are logged.

    Parameters
    ----------
    function : callable or `None`
        A function or a coroutine function of a `LargeFile`.
    """

    def __init__(self, function: Callable[[LargeFile], object] | None) -> None:
        self._function = function

    async def __call__(self, file: LargeFile) -> None:
        """Call it, and wait for it."""
        if self._function is None:
            return
        try:
            result = self._function(file)
            if inspect.isawaitable(result):
                await result
        except Exception:
            log.exception("on_stored failed for %s", file.url)
