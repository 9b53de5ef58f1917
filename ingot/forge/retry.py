"""Trying an operation again: so often, after waits that double, each drawn at random.

An operation is a whole step of the protocol, signed afresh every time, that may be repeated. Only
Unavailable is tried again; a service that a breaker keeps closed is not waited for. The wait is
drawn evenly from nothing to the doubled bound ("full jitter"), so that clients which failed
together do not come back together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from ingot import limits
from ingot.errors import Unavailable
from ingot.forge.errors import CircuitOpen

T = TypeVar("T")
Random = Callable[[int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySettings:
    tries: int = limits.FORGE_TRIES
    backoff_s: float = limits.FORGE_BACKOFF_S
    backoff_max_s: float = limits.FORGE_BACKOFF_MAX_S
    polls: int = limits.FORGE_POLLS
    poll_s: float = limits.FORGE_POLL_S


def wait_s(settings: RetrySettings, failures: int, random: Random) -> float:
    """How long to wait after so many failures in a row, one at least."""
    bound = min(settings.backoff_s * (1 << min(failures - 1, 32)), settings.backoff_max_s)
    return bound * int.from_bytes(random(4), "big") / (1 << 32)


async def run(
    work: Callable[[], Awaitable[T]],
    settings: RetrySettings,
    random: Random,
    logger: logging.Logger,
    what: str,
) -> T:
    """The result of ``work``, called until it does not raise Unavailable; then that of the last."""
    failures = 0
    while True:
        try:
            return await work()
        except Unavailable as error:
            failures += 1
            if failures >= settings.tries or isinstance(error, CircuitOpen):
                raise
            pause_s = wait_s(settings, failures, random)
            logger.info("%s: %s; again in %.1f s", what, error, pause_s)
            await asyncio.sleep(pause_s)
