"""Keeping the loop awake for the moment that a commit takes. See ``BusyPoll``."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from ingot.ports import Clock

WEIGHT: Final = 1 / 8  # of the last commit in what is usual
TRIAL_EVERY: Final = 64  # commits, of which the last few are made the other way
TRIAL: Final = 6
GAIN: Final = 0.9  # polling has to make commits this much quicker to go on


class BusyPoll:
    """Turns the loop without pause while a commit is under way, where that makes commits quicker.

    A loop that sleeps through a sync of 0.2 ms and a swap of 0.4 ms wakes up on a halted processor
    with cold caches, twice a commit: for a lone client that is a third of a PUT's latency. Polling
    costs the time of a processor, which on a busy machine, or under a quota, somebody else wants,
    Postgres or the log's own thread perhaps; then commits get slower by it. So both ways are
    measured: every ``TRIAL_EVERY`` commits a few go the other way, and the quicker one is kept.

    A commit is polled for ``limit_s`` at the most, and not at all where commits usually take
    longer, where the process may use one processor only, or with a limit of 0. Requests are served
    meanwhile as ever.
    """

    def __init__(self, clock: Clock, limit_s: float) -> None:
        self._clock = clock
        self._limit_s = limit_s if len(os.sched_getaffinity(0)) > 1 else 0.0
        self._usual_s: dict[bool, float | None] = {True: None, False: None}  # polled or not
        self._commits = 0
        self._under_way = 0
        self._polled = False  # the newest one under way
        self._until = 0.0
        self._turning = False
        self.turns = 0

    def begin(self) -> float:
        """A commit begins. The time, for ``end``."""
        now = self._clock.monotonic()
        self._polled = self._choose()
        self._under_way += 1
        self._until = now + self._limit_s
        if self._polled and not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)
        return now

    def end(self, began: float) -> None:
        """A commit is over, however it ended."""
        self._under_way -= 1
        self._commits += 1
        took = min(self._clock.monotonic() - began, 2 * self._limit_s)
        usual = self._usual_s[self._polled]
        self._usual_s[self._polled] = took if usual is None else usual + (took - usual) * WEIGHT

    def _choose(self) -> bool:
        """Whether to poll now."""
        if self._limit_s == 0.0:
            return False
        with_polling, without = self._usual_s[True], self._usual_s[False]
        if without is None:
            return False  # begin with a few plain ones
        better = without < self._limit_s and (with_polling is None or with_polling < without * GAIN)
        trial = self._commits % TRIAL_EVERY >= TRIAL_EVERY - TRIAL and without < self._limit_s
        return better != trial

    def _turn(self) -> None:
        self.turns += 1
        wanted = self._polled and self._under_way > 0
        self._turning = wanted and self._clock.monotonic() < self._until
        if self._turning:
            asyncio.get_running_loop().call_soon(self._turn)
