"""The directory of a store with the means to work on it: files, lanes, settings, counters.

One ``Disk`` is shared by all parts of a segment store. It keeps the rules that hold everywhere:
whoever waits for a job waits for its end, and a name is durable once its directory was synced.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from ingot.errors import Unavailable
from ingot.offload import Completion
from ingot.ports import Clock, FileSystem, Job, Lane, Lanes
from ingot.segments.format import file_name
from ingot.segments.model import Key, SegmentSettings, Statistics

log = logging.getLogger("ingot.segments")
P = ParamSpec("P")
T = TypeVar("T")


class Disk:
    """See the module's head. ``problem`` is told what a person should know."""

    def __init__(
        self,
        files: FileSystem,
        lanes: Lanes,
        directory: str,
        settings: SegmentSettings,
        clock: Clock,
    ) -> None:
        self.files = files
        self.lanes = lanes
        self.directory = directory
        self.settings = settings
        self.clock = clock
        self.statistics = Statistics()
        self.problems: list[str] | None = None  # collected during a start, logged afterwards
        self._tasks: set[asyncio.Task[Any]] = set()

    def path(self, name: str) -> str:
        return f"{self.directory}/{name}"

    def sync_directory(self) -> None:
        """Make the names in the directory durable."""
        self.files.sync_directory(self.directory)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what may wait for the file system's journal on a thread of the loop's executor.

        For the background only, a few times a segment: such a thread waits for the GIL, which is
        why writes, syncs and reads go through lanes.
        """
        bound = functools.partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(None, bound)

    def problem(self, text: str) -> None:
        text = text.encode("utf-8", "backslashreplace").decode()  # a name need not be text
        if self.problems is not None:
            self.problems.append(text)
        else:
            log.error("%s", text)

    async def run(self, lane: Lane, job: Job) -> None:
        """Submit ``job`` and return at its end; OSError when a step failed.

        A cancellation meanwhile is put off to the caller's next await, so that what follows here
        always sees the job's outcome: the bytes are on disk whoever has lost interest.
        """
        done = Completion(loop=asyncio.get_running_loop())
        lane.submit(job, lambda _: done.set_result(None))
        try:
            await done
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            task.cancel()
        if job.error:
            raise OSError(job.error, os.strerror(job.error))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Background work, which handles its own errors; ``settle`` waits for all of it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def settle(self) -> None:
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    def close_quietly(self, fd: int, what: str) -> None:
        """Close a descriptor whose content is durable or given up: an error is only reported."""
        try:
            self.files.close(fd)
        except OSError as error:
            self.problem(f"{what}: closing it failed ({error.strerror}); nothing is lost")

    def discard(self, name: str, fd: int | None) -> bool:
        """Remove a file that holds nothing. Whether it is gone; if not, the next start meets it."""
        if fd is not None:
            self.close_quietly(fd, name)
        try:
            self.files.unlink(self.path(name))
            self.sync_directory()
        except OSError as error:
            self.problem(
                f"{name} holds nothing but could not be removed ({error.strerror}); "
                "the next start will try again"
            )
            return False
        return True


def unavailable(what: str, error: OSError, directory: str) -> Unavailable:
    """503 in words: what failed, why, and what to do about a full disk."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(
            f"{what}: no space left on the disk of {directory}; free some, writes then go on", 5
        )
    return Unavailable(f"{what}: {error.strerror or error}")


class _Open:
    """A file that is open, and when it was last read."""

    __slots__ = ("fd", "read_at")

    def __init__(self, fd: int, read_at: int) -> None:
        self.fd, self.read_at = fd, read_at


class OpenFiles:
    """Descriptors of sealed segments, opened when needed; the least recently used are closed.

    A descriptor in use by a lane is pinned meanwhile, so that its number cannot be taken by
    another file under the reader.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._open: OrderedDict[Key, _Open] = OrderedDict()
        self._newest: _Open | None = None  # which is the last of them
        self._pins: dict[Key, int] = {}
        self._gone: set[Key] = set()  # to be closed by whoever reads them last
        self.now = 0  # a time that its owner moves on, in any unit
        self._read_at: dict[Key, int] = {}  # ``now`` of the last read of those closed since

    def fd(self, key: Key) -> int:
        """Valid until the caller's next await."""
        one = self._open.get(key)
        if one is None:
            fd = self._disk.files.open(self._disk.path(file_name(*key)))
            one = self._open[key] = self._newest = _Open(fd, self.now)
            self._evict(key)
        elif one is not self._newest:
            self._open.move_to_end(key)
            self._newest = one
        one.read_at = self.now
        return one.fd

    def pin(self, key: Key) -> int:
        """As ``fd``, valid until ``unpin``."""
        self._pins[key] = self._pins.get(key, 0) + 1
        try:
            return self.fd(key)
        except OSError:
            self.unpin(key)
            raise

    def unpin(self, key: Key) -> None:
        left = self._pins[key] - 1
        if left:
            self._pins[key] = left
            return
        del self._pins[key]
        if key in self._gone:
            self._gone.remove(key)
            self.forget(key)

    def forget(self, key: Key) -> None:
        """Its file goes: close the descriptor, once nobody reads from it any more."""
        if key in self._pins:
            self._gone.add(key)
        else:
            self._read_at.pop(key, None)
            self._close(key, self._open.pop(key, None))

    def read_times(self) -> dict[Key, int]:
        """``now`` at the last read of each segment since the start."""
        return self._read_at | {key: one.read_at for key, one in self._open.items()}

    def lingering(self) -> list[Key]:
        """Whose file is gone while it is still read from, so that its space is not free yet."""
        return list(self._gone)

    def close(self) -> None:
        assert not self._pins, "a read is under way"
        while self._open:
            self._close(*self._open.popitem())

    def _evict(self, newest: Key) -> None:
        spare = len(self._open) - self._disk.settings.open_files_max
        if spare <= 0:
            return
        idle = [key for key in self._open if key not in self._pins and key != newest]
        for key in idle[:spare]:
            self._read_at[key] = self._open[key].read_at
            self._close(key, self._open.pop(key))

    def _close(self, key: Key, one: _Open | None) -> None:
        if one is not None:
            self._disk.close_quietly(one.fd, file_name(*key))
            if one is self._newest:
                self._newest = None
