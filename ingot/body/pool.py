"""A capped pool of equal buffers: all the memory that bodies on their way in or out may hold.

Buffers are anonymous mappings, so they start on a page and their memory really goes back to the
system. A few stay warm, since a fresh one costs 256 page faults a MiB. Waiters are served in the
order they came, and nobody overtakes them with ``try_acquire``.

A user may wait with ``acquire`` only while it holds no buffer; a second one it takes with
``try_acquire`` and goes on without. So those who wait never hold what others wait for, and the
pool cannot deadlock. Called by ingest and reader; a server owns its pools.
"""

from __future__ import annotations

import asyncio
import mmap
import os
from collections import deque

from ingot.errors import Unavailable
from ingot.limits import POOL_IDLE_BUFFERS, POOL_WAIT_S

DEBUG = os.environ.get("INGOT_DEBUG", "") not in ("", "0")


class Pool:
    """At most ``count`` buffers of ``size`` bytes are out at any time."""

    def __init__(
        self,
        count: int,
        size: int,
        *,
        idle: int = POOL_IDLE_BUFFERS,
        wait_s: float = POOL_WAIT_S,
        mangle: bool = DEBUG,
    ) -> None:
        assert count > 0 and size > 0
        self.count = count
        self.size = size
        self.out = 0
        self._idle_max = idle
        self._wait_s = wait_s
        self._mangle = mangle  # overwrite what comes back, so that a stale view shows at once
        self._idle: list[memoryview] = []
        self._waiters: deque[asyncio.Future[memoryview]] = deque()

    @property
    def idle(self) -> int:
        """Buffers kept warm; memory in use is (out + idle) × size."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many wait; while there are any, who holds two buffers gives one back."""
        return len(self._waiters)

    def try_acquire(self) -> memoryview | None:
        """A buffer if one is to be had now and nobody waits."""
        if self._waiters or self.out >= self.count:
            return None
        self.out += 1
        return self._idle.pop() if self._idle else memoryview(mmap.mmap(-1, self.size))

    async def acquire(self) -> memoryview:
        """A buffer, in turn; Unavailable when none came back for too long."""
        buffer = self.try_acquire()
        if buffer is not None:
            return buffer
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[memoryview] = loop.create_future()
        self._waiters.append(waiter)
        deadline = loop.call_later(self._wait_s, self._give_up, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.release(waiter.result())  # it was handed over and not taken
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            raise
        finally:
            deadline.cancel()

    def release(self, buffer: memoryview) -> None:
        """Give a buffer back. Nothing may read or write it any more, no lane either."""
        assert buffer.nbytes == self.size and self.out > 0
        if self._mangle:
            buffer[:] = b"\xcc" * self.size
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(buffer)
                return
        self.out -= 1
        if len(self._idle) < self._idle_max:
            self._idle.append(buffer)

    def _give_up(self, waiter: asyncio.Future[memoryview]) -> None:
        if not waiter.done():
            self._waiters.remove(waiter)
            waiter.set_exception(Unavailable("no buffer became free; too many bodies at once"))
