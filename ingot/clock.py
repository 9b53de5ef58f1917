"""The only time: wall clock for records, monotonic clocks for deadlines and the lease."""

from __future__ import annotations

import time


class SystemClock:
    """The machine's clocks (``ingot.ports.Clock``)."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
