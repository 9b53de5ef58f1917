"""A room of so many units, of which each holder has a share: who finds it full waits in turn.

Holders take turns with each other, and what one of them waits for is served in the order it came.
So one who asks for a thousand things waits longer, and nobody else does; and nobody holds more than
his share, however long he keeps it. Called by ``ingot.s3.documents``, for memory and for time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import NamedTuple

from ingot.errors import Unavailable


class _Waiter(NamedTuple):
    units: int
    future: asyncio.Future[None]


class Room:
    """``units_max`` for all, ``share_max`` for one holder; ``wait_s`` that anybody waits."""

    def __init__(self, what: str, units_max: int, share_max: int, wait_s: float) -> None:
        assert 0 < share_max <= units_max
        self._what = what
        self._units_max, self._share_max = units_max, share_max
        self._wait_s = wait_s
        self.held = 0
        self._held_by: dict[str, int] = {}
        self._waiting: OrderedDict[str, deque[_Waiter]] = OrderedDict()

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    async def acquire(self, holder: str, units: int) -> None:
        """Have so many units more, in turn; Unavailable when there was no room for too long."""
        assert 0 <= units <= self._share_max
        if holder not in self._waiting and self._fits(holder, units):
            self._take(holder, units)
            return
        loop = asyncio.get_running_loop()
        waiter = _Waiter(units, loop.create_future())
        self._waiting.setdefault(holder, deque()).append(waiter)
        deadline = loop.call_later(self._wait_s, self._give_up, waiter.future)
        try:
            await waiter.future
        except BaseException:
            if waiter.future.done() and not waiter.future.cancelled():
                if waiter.future.exception() is None:
                    self.release(holder, units)  # it was given and not taken
            self._forget(holder, waiter)
            raise
        finally:
            deadline.cancel()

    def release(self, holder: str, units: int) -> None:
        """Give back so many units."""
        left = self._held_by[holder] - units
        assert left >= 0
        self.held -= units
        if left:
            self._held_by[holder] = left
        else:
            del self._held_by[holder]
        self._serve()

    def _fits(self, holder: str, units: int) -> bool:
        return (
            self.held + units <= self._units_max
            and self._held_by.get(holder, 0) + units <= self._share_max
        )

    def _take(self, holder: str, units: int) -> None:
        self.held += units
        self._held_by[holder] = self._held_by.get(holder, 0) + units

    def _serve(self) -> None:
        """One thing for each holder who waits, while there is room. Who has had his turn goes to
        the end; the first for whom the room as a whole is too full keeps his place."""
        for holder in [*self._waiting]:
            queue = self._waiting[holder]
            while queue and queue[0].future.done():  # given up, by whoever will find that out
                queue.popleft()
            if not queue:
                del self._waiting[holder]
                continue
            units = queue[0].units
            if self.held + units > self._units_max:
                return
            if self._fits(holder, units):
                self._take(holder, units)
                queue.popleft().future.set_result(None)
                self._waiting.move_to_end(holder)
                if not queue:
                    del self._waiting[holder]

    def _forget(self, holder: str, waiter: _Waiter) -> None:
        queue = self._waiting.get(holder)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._waiting[holder]
            self._serve()  # those behind may want less

    def _give_up(self, future: asyncio.Future[None]) -> None:
        if not future.done():
            future.set_exception(Unavailable(f"{self._what}: no room became free"))
