"""A log that does not repeat itself: S3 may be down for a whole night."""

from __future__ import annotations

import logging
import time

__all__ = ["HourlyLog"]

log = logging.getLogger(__name__)


class HourlyLog:
    """Logs the same kind of trouble once an hour.

    Parameters
    ----------
    hour : `float`
        The time between two such logs, in seconds.
    """

    def __init__(self, hour: float) -> None:
        self._hour = hour
        self._last: dict[str, float] = {}

    def warning(self, kind: str, message: str, *args: object) -> None:
        """Log a warning, unless one of this kind was logged within the hour."""
        now = time.monotonic()
        if now - self._last.get(kind, -self._hour) >= self._hour:
            self._last[kind] = now
            log.warning(message, *args)
