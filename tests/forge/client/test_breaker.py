"""The breaker's table, and waits between tries."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.errors import ConfigError, Unavailable
from ingot.forge import retry
from ingot.forge.breaker import Breaker, State
from ingot.forge.errors import CircuitOpen
from ingot.forge.retry import RetrySettings

LOGGER = logging.getLogger("tests")


def opened() -> Breaker:
    breaker = Breaker("service", failures_max=2, open_s=10)
    for _ in range(2):
        breaker.admit(0)
        breaker.failed(0)
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    breaker = Breaker("service", failures_max=2, open_s=10)
    for _ in range(3):
        breaker.failed(0)
        breaker.succeeded()
    assert breaker.state(0) is State.CLOSED
    breaker = opened()
    assert breaker.state(9.9) is State.OPEN
    with pytest.raises(CircuitOpen, match="service failed 2 times in a row") as caught:
        breaker.admit(1)
    assert caught.value.retry_after_s == 9


def test_one_call_tries_it_again() -> None:
    breaker = opened()
    assert breaker.state(10) is State.HALF_OPEN
    breaker.admit(10)
    with pytest.raises(CircuitOpen):
        breaker.admit(10)
    breaker.failed(10)
    assert breaker.state(19) is State.OPEN
    breaker.admit(20)
    breaker.abandoned()
    breaker.admit(20)
    breaker.succeeded()
    assert breaker.state(20) is State.CLOSED
    breaker.admit(20)
    breaker.admit(20)


@given(st.integers(1, 2000), st.binary(min_size=4, max_size=4))
def test_waits_are_bounded(failures: int, drawn: bytes) -> None:
    settings = RetrySettings(backoff_s=0.5, backoff_max_s=8)
    wait_s = retry.wait_s(settings, failures, lambda count: drawn[:count])
    assert 0 <= wait_s < min(8, 0.5 * 2 ** min(failures - 1, 10))


async def test_only_what_may_pass_is_tried_again() -> None:
    settings = RetrySettings(tries=3, backoff_s=0, backoff_max_s=0)
    for error, expected in (
        (Unavailable("away"), 3),
        (CircuitOpen("open"), 1),
        (ConfigError("wrong"), 1),
    ):
        calls = 0

        async def work(error: Exception = error) -> None:
            nonlocal calls
            calls += 1
            raise error

        with pytest.raises(type(error)):
            await retry.run(work, settings, bytes, LOGGER, "work")
        assert calls == expected


async def test_the_result_of_the_try_that_worked() -> None:
    results = iter([Unavailable("one"), Unavailable("two"), 3])

    async def work() -> object:
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return result

    settings = RetrySettings(tries=3, backoff_s=0, backoff_max_s=0)
    assert await retry.run(work, settings, bytes, LOGGER, "work") == 3
