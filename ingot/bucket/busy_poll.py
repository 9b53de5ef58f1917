"""Keeping the loop awake for the moment that a commit takes. See ``BusyPoll``."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from ingot.ports import Clock

WEIGHT: Final = 1 / 8  # of the last commit in what is usual


class BusyPoll:
    """Turns the loop without pause while a commit is under way, if commits are quick here.

    A loop that sleeps through a sync of 0.2 ms and a swap of 0.4 ms wakes up on a halted processor
    with cold caches, twice a commit: for a lone client that is a third of a PUT's latency. It takes
    time of a processor that nobody else wanted: other requests are served meanwhile as ever, and
    every turn makes the system calls at which the kernel gives the processor to whoever waits for
    it. A commit is polled for ``limit_s`` at the most, and not at all where commits usually take
    longer (slow disks, a loaded machine), where the process may use one processor only, or with a
    limit of 0.
    """

    def __init__(self, clock: Clock, limit_s: float) -> None:
        self._clock = clock
        self._limit_s = limit_s if len(os.sched_getaffinity(0)) > 1 else 0.0
        self._usual_s = 0.0
        self._under_way = 0
        self._until = 0.0
        self._turning = False
        self.turns = 0

    def begin(self) -> float:
        """A commit begins. The time, for ``end``."""
        now = self._clock.monotonic()
        self._under_way += 1
        self._until = now + self._limit_s
        if not self._turning and self._usual_s < self._limit_s:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)
        return now

    def end(self, began: float) -> None:
        """A commit is over, however it ended."""
        self._under_way -= 1
        took = min(self._clock.monotonic() - began, 2 * self._limit_s)
        self._usual_s += (took - self._usual_s) * WEIGHT

    def _turn(self) -> None:
        self.turns += 1
        self._turning = self._under_way > 0 and self._clock.monotonic() < self._until
        if self._turning:
            asyncio.get_running_loop().call_soon(self._turn)
