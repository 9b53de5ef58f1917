"""By how much the wall clock was moved, by mistake or on purpose, since this process began.

CLOCK_BOOTTIME, which nobody can set, tells how much time passed. What is lost once its time is over
asks here first: what rules expire (``ingot.expiring``), and versions whose retention ends
(``Store``). A clock that was moved before cannot be told from one that is right.
"""

from __future__ import annotations

from ingot.limits import CLOCK_MOVED_MS_MAX
from ingot.ports import Clock


class Watch:
    """Over ``clock``, from now on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_ms, self._began = clock.now_ms(), clock.boottime()

    def moved_ms(self, now_ms: int) -> int:
        """How far ``now_ms``, which the clock said just now, is ahead of the time that passed."""
        passed_ms = round((self._clock.boottime() - self._began) * 1000)
        return now_ms - self._began_ms - passed_ms

    def past_ms(self, now_ms: int) -> int:
        """``now_ms``, or where the clock was moved too far ahead, the time without that."""
        moved_ms = self.moved_ms(now_ms)
        return now_ms - moved_ms if moved_ms > CLOCK_MOVED_MS_MAX else now_ms
