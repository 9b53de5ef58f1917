"""An event loop without time or sockets: tasks run until they wait, then a lane moves on.

Which lane, and when, is the seed's choice, so one seed is one history. Nothing sleeps.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from random import Random
from typing import Any, TypeVar

from tests.sim.disk import Crashed, SimFiles, SimLanes

T = TypeVar("T")


class Stuck(Exception):
    """Tasks wait and nothing is under way that could wake them."""


class SimLoop(asyncio.AbstractEventLoop):
    """See the module's head."""

    def __init__(self, files: SimFiles, random: Random) -> None:
        self._ready: deque[asyncio.Handle] = deque()
        self._files = files
        self._random = random
        self.lanes = SimLanes(files, self.call_soon)
        self.errors: list[BaseException | str] = []
        self.tasks: set[asyncio.Task[Any]] = set()

    # -- what asyncio's futures and tasks ask of a loop --------------------------------------------

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **_: Any) -> Any:
        task = asyncio.Task(coro, loop=self)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        future = self.create_future()

        def call() -> None:
            try:
                result = func(*args)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call_soon(call)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._files.dead:
            self.errors.append(context.get("exception") or str(context.get("message")))

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    # -- running -----------------------------------------------------------------------------------

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """The result of ``main``; Crashed when the power failed meanwhile."""
        asyncio._set_running_loop(self)
        try:
            task: asyncio.Task[T] = self.create_task(main)
            random, files = self._random, self._files
            while not task.done():
                if self._ready and random.random() < 0.8:
                    self._ready.popleft()._run()
                else:
                    self._move()
                if files.dead:
                    raise Crashed
                if self.errors:
                    raise AssertionError(f"an error on the loop: {self.errors[0]!r}")
            return task.result()
        finally:
            asyncio._set_running_loop(None)

    def _move(self) -> None:
        busy = [lane for lane in self.lanes.all if lane.busy]
        if busy:
            try:
                self._random.choice(busy).advance()
            except Crashed:
                return
        elif self._ready:
            self._ready.popleft()._run()
        else:
            raise Stuck("every task waits and no lane has a job")

    def bury(self) -> None:
        """Take the dead process apart without letting it do anything."""
        self._files.cut()
        for lane in self.lanes.all:
            lane.interrupt()
        self._files.bury()
        asyncio._set_running_loop(self)
        try:
            while self.tasks:
                task = self.tasks.pop()
                task._log_destroy_pending = False
                if task.done():
                    task.exception()
                else:
                    task.get_coro().close()  # may make other tasks on its way out
        finally:
            asyncio._set_running_loop(None)
            self._ready.clear()
