"""When to retry, and when to give up: decided here, carried out by `attempts`."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from lsst_lfa.errors import ServiceError

if TYPE_CHECKING:
    from lsst_lfa.errors import LfaError

    from .config import TransferConfig
    from .timeouts import StallTimeout

__all__ = ["RetryPolicy", "back_off"]

_LONGEST_DELAY = 5.0


def back_off(first: float, failures: int, spread: float) -> float:
    """Return the seconds to wait after this many consecutive failures.

    Doubles from ``first`` to 5 s; ``spread``, from 0 to 1, reduces it by up to
    one half, so that many clients do not retry at the same time.
    """
    longest: float = min(_LONGEST_DELAY, first * 2.0 ** min(failures - 1, 100))
    return longest * (1 - spread / 2)


class RetryPolicy:
    """Decides after each failure of one request whether to retry it."""

    def __init__(self, config: TransferConfig) -> None:
        self._config = config
        self._failures = 0
        self._idle = 0.0

    def delay_after(self, error: LfaError, timeout: StallTimeout) -> float | None:
        """Seconds to wait before the next attempt; `None` to give up.

        Limits consecutive failures, and the time without progress. An attempt
        that made lasting progress resets both.
        """
        if timeout.progressed:
            self._failures, self._idle = 0, 0.0
        self._failures += 1
        self._idle += timeout.idle
        if not error.transient or self._failures >= self._config.max_attempts:
            return None
        delay = back_off(self._config.retry_delay, self._failures, random.random())  # noqa: S311 - not a secret
        delay = max(delay, _retry_after(error))
        self._idle += delay
        return delay if self._idle < self._config.retry_timeout else None


def _retry_after(error: LfaError) -> float:
    """Seconds that the server asked us to wait (RFC 9110, 10.2.3)."""
    if not isinstance(error, ServiceError):
        return 0.0
    headers: dict[str, Any] = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    value = str(headers.get("retry-after", ""))
    return float(value) if value.isascii() and value.isdecimal() else 0.0
