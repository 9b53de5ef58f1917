"""The states of segments on their way to the registry: written in order, and repeated until it can
take them.

Nobody of those who change a state waits for it, but for one: a file may only go once the registry
knows that it is cold (``record``). Made by ``ingot.server``.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from ingot.errors import Unavailable
from ingot.limits import ROWS_END_S, ROWS_RETRY_S
from ingot.ports import Registry
from ingot.segments.model import Row

log: Final = logging.getLogger("ingot")


class SegmentRows:
    """``put`` from the loop at any time; ``start`` when the registry may be written to."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._queue: asyncio.Queue[tuple[Row, asyncio.Future[None] | None] | None]
        self._queue = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def put(self, row: Row) -> None:
        """Have a state written behind those that were put before."""
        self._queue.put_nowait((row, None))

    async def record(self, row: Row) -> None:
        """As ``put``; returns when it is written. Unavailable when it cannot be."""
        written = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((row, written))
        await written

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Write what is left, if the registry is there. A statement that is cut off costs its
        connection, so the last is given a moment."""
        if self._task is None:
            return
        self._queue.put_nowait(None)
        await asyncio.wait([self._task], timeout=ROWS_END_S)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while (item := await self._queue.get()) is not None:
            row, written = item
            try:
                await self._write(row)
            except Exception as error:  # one row must not stop those behind it
                log.exception("the state of a segment was not recorded")
                if written is not None and not written.done():
                    written.set_exception(Unavailable(f"it was not recorded: {error}"))
            else:
                if written is not None and not written.done():
                    written.set_result(None)

    async def _write(self, row: Row) -> None:
        while True:
            try:
                return await self._registry.put_segment(row)
            except Unavailable:
                await asyncio.sleep(ROWS_RETRY_S)
