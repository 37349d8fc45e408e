"""When a request is retried, and when it is abandoned."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from lsst_lfa import LfaError, TransferConfig
from lsst_lfa._transfer.failures import RequestInfo, translate_error
from lsst_lfa._transfer.retry import RetryPolicy, back_off
from lsst_lfa._transfer.timeouts import StallTimeout

REQUEST = RequestInfo("put_object", "b", "k", "http://host")


@given(failures=st.integers(1, 100_000), spread=st.floats(0, 1))
def test_back_off_doubles_up_to_five_seconds(failures: int, spread: float) -> None:
    assert 0.125 <= back_off(0.25, failures, spread) <= 5
    assert back_off(0.25, 1, 0) == 0.25
    assert back_off(0.25, 3, 0) == 1.0
    assert back_off(0.25, 3, 1) == 0.5


def busy(retry_after: str) -> LfaError:
    metadata = {"HTTPStatusCode": 503, "HTTPHeaders": {"retry-after": retry_after}}
    error = ClientError({"Error": {"Code": "SlowDown"}, "ResponseMetadata": metadata}, "PutObject")
    failure = translate_error(error, REQUEST)
    assert failure is not None
    return failure


async def test_a_server_that_says_when_to_come_back_is_heard() -> None:
    failure = busy("7")
    config = TransferConfig(retry_delay=0.1)
    async with StallTimeout(config) as timeout:
        assert RetryPolicy(config).delay_after(failure, timeout) == 7
        assert RetryPolicy(replace(config, retry_timeout=5)).delay_after(failure, timeout) is None


@pytest.mark.parametrize(
    "garbage", ["", "-7", "7.5", "7e1", "nan", "inf", "\uff17", "\xb2", "0x7", "Fri, 01 Jan 2100 00:00:00 GMT"]
)
async def test_one_that_says_it_in_no_valid_way_is_not(garbage: str) -> None:
    config = TransferConfig(retry_delay=0.1)
    async with StallTimeout(config) as timeout:
        delay = RetryPolicy(config).delay_after(busy(garbage), timeout)
        assert delay is not None
        assert delay <= 0.1


async def test_the_time_limit_of_an_attempt_is_not_left_to_the_garbage_collector() -> None:
    """The collector would stop the event loop to free one of these, its task and its context for each request."""
    timeout = StallTimeout(TransferConfig())
    async with timeout:
        with timeout.suspended():
            pass
    left = weakref.ref(timeout)
    del timeout
    assert left() is None
