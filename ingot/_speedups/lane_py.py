"""A lane: one thread that runs jobs in order and reports through an eventfd.

The twin of ``lane_c`` and its specification. The compiled lane never takes the GIL; this one
does, so it is for tests and for reading. ``ingot.offload`` makes lanes and puts their eventfd on
the loop; the segment store and body ingest submit jobs.

A ``RecordedJob`` is a plain list of steps, so that a simulated lane can interpret it instead:

    ("pwrite", fd, offset, buffer)      all of it; adjacent ones become one pwritev
    ("pread", fd, offset, buffer)       the whole buffer; a short file is EIO
    ("fdatasync", fd)
    ("sync_file_range", fd, offset, length)
    ("update", hasher, buffer)

Buffers are exported from the step's making until the completion is delivered, so no step can see
memory that was freed or moved. Steps stop at the first that fails.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any

from ingot._speedups.digest_py import Hasher

Buffer = Any  # whatever has the buffer protocol, contiguous
_VECTOR_MAX = 1024  # IOV_MAX
_WRITE_OUT = 2  # SYNC_FILE_RANGE_WRITE: begin writing back, wait for nothing
_BUILDING, _SUBMITTED, _DONE = range(3)

_libc = ctypes.CDLL(None, use_errno=True)


class RecordedJob:
    """Steps for a lane, in order. A job runs once."""

    def __init__(self) -> None:
        self.steps: list[tuple[Any, ...]] = []
        self.error = 0  # errno of the failed step, 0 when all went well
        self.failed_step = -1  # index of that step
        self.token: Any = None  # the submitter's own
        self.bytes = 0  # in all its buffers
        self.state = _BUILDING
        self.done: Callable[[RecordedJob], None] | None = None

    def pwrite(self, fd: int, offset: int, buffer: Buffer) -> None:
        """Write all of ``buffer`` at ``offset``."""
        self._add("pwrite", fd, offset, memoryview(buffer).cast("B"))

    def pread(self, fd: int, offset: int, buffer: Buffer) -> None:
        """Fill the whole (writable) buffer; a short file is EIO."""
        view = memoryview(buffer).cast("B")
        if view.readonly:
            raise BufferError("pread needs a writable buffer")
        self._add("pread", fd, offset, view)

    def fdatasync(self, fd: int) -> None:
        """Make what was written to ``fd`` durable."""
        self._add("fdatasync", fd)

    def sync_file_range(self, fd: int, offset: int, length: int) -> None:
        """Start writing a range back; a hint, which a file system may not know."""
        self._add("sync_file_range", fd, offset, length)

    def update(self, hasher: Hasher, buffer: Buffer) -> None:
        """Feed ``hasher``, which belongs to the job from its submission to its completion."""
        self._add("update", hasher, memoryview(buffer).cast("B"))

    def _add(self, *step: Any) -> None:
        if self.state != _BUILDING:
            raise RuntimeError("the job was submitted already")
        self.steps.append(step)
        if isinstance(step[-1], memoryview):
            self.bytes += step[-1].nbytes

    def hold(self, count: int) -> None:
        """Take (1) or give back (-1) the hashers."""
        for step in self.steps:
            if step[0] == "update":
                step[1].held += count

    def release(self) -> None:
        """Give the buffers back. The steps stay readable but for those."""
        for step in self.steps:
            if isinstance(step[-1], memoryview):
                step[-1].release()

    def run(self) -> None:
        """Do the steps on the calling thread; a failure is left in ``error``."""
        at = 0
        while at < len(self.steps):
            run = self._adjacent(at)
            try:
                if run > 1:
                    at = _write_vector(self.steps, at, run)
                else:
                    _run_step(self.steps[at])
                    at += 1
            except _StepFailed as failure:
                self.error, self.failed_step = failure.errno, failure.step
                return
            except OSError as failure:
                self.error, self.failed_step = failure.errno or errno.EIO, at
                return

    def _adjacent(self, at: int) -> int:
        """How many steps from ``at`` on are writes that continue one another."""
        if self.steps[at][0] != "pwrite":
            return 1
        _, fd, end, buffer = self.steps[at]
        count = 1
        for step in self.steps[at + 1 : at + _VECTOR_MAX]:
            end += buffer.nbytes
            if step[0] != "pwrite" or step[1] != fd or step[2] != end:
                break
            buffer = step[3]
            count += 1
        return count


Job = RecordedJob


class _StepFailed(Exception):
    def __init__(self, step: int, number: int) -> None:
        super().__init__(step, number)
        self.step, self.errno = step, number


def _run_step(step: tuple[Any, ...]) -> None:
    kind = step[0]
    if kind == "pwrite":
        _, fd, offset, buffer = step
        while buffer.nbytes:
            written = os.pwrite(fd, buffer, offset)
            if written == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            buffer, offset = buffer[written:], offset + written
    elif kind == "pread":
        _, fd, offset, buffer = step
        while buffer.nbytes:
            got = os.preadv(fd, [buffer], offset)
            if got == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            buffer, offset = buffer[got:], offset + got
    elif kind == "fdatasync":
        os.fdatasync(step[1])
    elif kind == "sync_file_range":
        _, fd, offset, length = step
        numbers = ctypes.c_int64(offset), ctypes.c_int64(length)
        if _libc.sync_file_range(fd, *numbers, _WRITE_OUT) < 0:
            number = ctypes.get_errno()
            if number != errno.ENOSYS:
                raise OSError(number, os.strerror(number))
    else:
        step[1].feed(step[2])


def _write_vector(steps: list[tuple[Any, ...]], at: int, count: int) -> int:
    """Write ``count`` adjacent steps from ``at`` on in as few calls as it takes; the next step."""
    fd, offset = steps[at][1:3]
    views = [step[3] for step in steps[at : at + count]]
    while True:
        while views and views[0].nbytes == 0:
            views.pop(0)
            at += 1
        if not views:
            return at
        try:
            written = os.pwritev(fd, views, offset)
        except OSError as failure:
            raise _StepFailed(at, failure.errno or errno.EIO) from failure
        if written == 0:
            raise _StepFailed(at, errno.EIO)
        offset += written
        while views and written >= views[0].nbytes:
            written -= views.pop(0).nbytes
            at += 1
        if written:
            views[0] = views[0][written:]


class Lane:
    """One thread with a FIFO of jobs; see ``ingot.ports.Lane``.

    ``fileno()`` turns readable when completions wait; ``drain()`` delivers them on the caller's
    thread. ``jobs`` and ``bytes`` count what was submitted and not yet delivered. In a child after
    a fork the thread is gone: ``submit`` refuses, everything else does nothing.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.jobs = 0
        self.bytes = 0
        self._pid = os.getpid()
        self._pending: deque[RecordedJob] = deque()
        self._finished: deque[RecordedJob] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._closed = False
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # A daemon: a host that exits without closing must not wait for it for ever.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def __del__(self) -> None:
        if hasattr(self, "_thread") and not self._closed and self._pid == os.getpid():
            warnings.warn(f"lane {self.name} was never closed", ResourceWarning, stacklevel=2)
            self.close()

    def job(self) -> RecordedJob:
        """A new, empty job."""
        return RecordedJob()

    def fileno(self) -> int:
        """The eventfd; -1 once closed."""
        return self._event

    def submit(self, job: Any, done: Callable[[Any], None]) -> None:
        """Run ``job`` after those before it; ``drain`` calls ``done(job)`` afterwards."""
        if self._pid != os.getpid():
            raise RuntimeError("the lane belongs to the parent of this process")
        if self._closing:
            raise RuntimeError("the lane is closed")
        if job.state != _BUILDING:
            raise RuntimeError("the job was submitted already")
        job.state, job.done = _SUBMITTED, done
        job.hold(1)
        self.jobs += 1
        self.bytes += job.bytes
        with self._changed:
            self._pending.append(job)
            self._changed.notify()

    def drain(self) -> None:
        """Deliver every completion that waits; then raise what the first failed callback raised."""
        if self._event < 0 or self._pid != os.getpid():
            return
        try:
            os.eventfd_read(self._event)
        except BlockingIOError:
            pass  # nothing new was announced; what was announced before may still lie here
        failure: BaseException | None = None
        while self._finished:
            job = self._finished.popleft()
            done = job.done
            assert done is not None
            job.state, job.done = _DONE, None
            self.jobs -= 1
            self.bytes -= job.bytes
            job.hold(-1)
            job.release()
            try:
                done(job)
            except BaseException as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Finish what was submitted, deliver completions, join the thread."""
        if self._closed:
            return
        self._closed = True
        if self._pid == os.getpid():
            with self._changed:
                self._closing = True
                self._changed.notify()
            self._thread.join()
        try:
            self.drain()
        finally:
            event, self._event = self._event, -1
            os.close(event)

    def _work(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            with self._changed:
                while not self._pending and not self._closing:
                    self._changed.wait()
                if not self._pending:
                    return
                job = self._pending.popleft()
            job.run()
            self._finished.append(job)
            os.eventfd_write(self._event, 1)
