"""Circuit breakers: leaving a service alone that fails, so that nobody waits for its timeouts.

    closed      calls go through; so many failures in a row open it
    open        calls are refused at once, until its time is over
    half open   one call may try: its success closes the breaker, its failure opens it again

Pure; ``now`` is a monotonic time in seconds. Called by ``http``, with one breaker a service.
"""

from __future__ import annotations

from enum import Enum

from ingot.forge.errors import CircuitOpen
from ingot.limits import FORGE_BREAKER_FAILURES, FORGE_BREAKER_OPEN_S


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half open"


class Breaker:
    """Of one service. After ``admit``, one of ``succeeded``, ``failed`` or ``abandoned``."""

    def __init__(
        self,
        service: str,
        failures_max: int = FORGE_BREAKER_FAILURES,
        open_s: float = FORGE_BREAKER_OPEN_S,
    ) -> None:
        self.service = service
        self.failures = 0  # in a row
        self._failures_max, self._open_s = failures_max, open_s
        self._until = 0.0
        self._trying = False

    def state(self, now: float) -> State:
        if self.failures < self._failures_max:
            return State.CLOSED
        return State.OPEN if now < self._until and not self._trying else State.HALF_OPEN

    def admit(self, now: float) -> None:
        """CircuitOpen unless a call may be made now."""
        state = self.state(now)
        if state is State.CLOSED:
            return
        if state is State.OPEN or self._trying:
            wait_s = max(1, round(self._until - now))
            raise CircuitOpen(
                f"{self.service} failed {self.failures} times in a row: left alone", wait_s
            )
        self._trying = True

    def succeeded(self) -> None:
        self.failures, self._trying = 0, False

    def failed(self, now: float) -> None:
        self.failures += 1
        self._trying = False
        self._until = now + self._open_s

    def abandoned(self) -> None:
        """The call was cancelled: nothing was learnt about the service."""
        self._trying = False
