"""A disk that lies as real ones may, driven by a seed: ``ports.FileSystem`` in memory.

A file has pages that readers see and, for each, the versions that might be on the platter: the last
synced one and every one written since. A power failure picks one version of each page, or a mix of
two by sectors; the size and the directory's entries go back to what was synced plus some of what
was done since. A kill keeps what readers saw, unsynced as it is. A failed sync keeps the pages in
sight and forgets that they are not on the platter, as Linux does.

``fault`` decides, call by call, whether one fails. After ``cut`` every call raises Crashed; after
``bury`` every call does nothing, so that a dead process can be taken apart.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from ingot._speedups.lane_py import RecordedJob

PAGE = 4096
SECTOR = 512
VERSIONS_MAX = 4
DIRECTORY_FD = 3


class Crashed(BaseException):
    """The machine is off. No code may handle this."""


class Inode:
    """One file: what is seen, and what may be on the platter."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.platter: dict[int, bytes] = {}  # page -> its last synced version
        self.versions: dict[int, list[bytes]] = {}  # page -> versions written since, in order
        self.size = 0  # synced
        self.sizes: list[int] = []  # set since
        self.recycled = False

    def recycle(self, old: bytes) -> None:
        """Begin as a file that was retired, with what it held."""
        self.recycled = True
        self.seen = bytearray(old)
        self.size = len(old)
        self.platter = {n: self.page(n) for n in range(-(-len(old) // PAGE))}

    def page(self, number: int) -> bytes:
        return bytes(self.seen[number * PAGE : (number + 1) * PAGE]).ljust(PAGE, b"\0")

    def write(self, data: bytes | memoryview, offset: int) -> None:
        end = offset + len(data)
        if end > len(self.seen):
            self.seen.extend(bytes(end - len(self.seen)))
            self.sizes.append(end)
        self.seen[offset:end] = data
        for number in range(offset // PAGE, -(-end // PAGE)):
            versions = self.versions.setdefault(number, [])
            versions.append(self.page(number))
            if len(versions) > VERSIONS_MAX:
                del versions[0]

    def truncate(self, length: int) -> None:
        old = len(self.seen)
        if length < old:
            del self.seen[length:]
            if length % PAGE:
                self.versions.setdefault(length // PAGE, []).append(self.page(length // PAGE))
        else:
            self.seen.extend(bytes(length - old))
        self.sizes.append(length)

    def sync(self) -> None:
        for number, versions in self.versions.items():
            self.platter[number] = versions[-1]
        self.versions.clear()
        self.size = len(self.seen)
        self.sizes.clear()

    def forget(self, random: Random) -> None:
        """A failed sync: some pages got there, the others never will."""
        for number, versions in self.versions.items():
            if random.random() < 0.5:
                self.platter[number] = random.choice(versions)
        self.versions.clear()
        if self.sizes and random.random() < 0.5:
            self.size = self.sizes[-1]
        self.sizes.clear()

    def lose(self, random: Random) -> None:
        """Power fails: what is on the platter is what there is."""
        keep = random.random()
        for number, versions in self.versions.items():
            choice = random.random()
            if choice < keep:
                self.platter[number] = random.choice(versions)
            elif choice < keep + 0.1:
                self.platter[number] = self._torn(number, versions, random)
        self.versions.clear()
        if self.sizes:
            self.size = random.choice([self.size, *self.sizes])
            self.sizes.clear()
        content = bytearray(self.size)
        for number, page in self.platter.items():
            start = number * PAGE
            if start < self.size:
                content[start : start + PAGE] = page[: self.size - start]
        self.seen = content
        self.platter = {n: page for n, page in self.platter.items() if n * PAGE < self.size}

    def _torn(self, number: int, versions: list[bytes], random: Random) -> bytes:
        old, new = self.platter.get(number, bytes(PAGE)), random.choice(versions)
        parts = []
        for at in range(0, PAGE, SECTOR):
            parts.append(random.choice((old, new))[at : at + SECTOR])
        return b"".join(parts)


class SimFiles:
    """One directory of files; the paths' last part is the name."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.names: dict[str, Inode] = {}
        self.synced_names: dict[str, Inode] = {}
        self.operations: list[tuple[str, str, Any]] = []  # on names, since the last directory sync
        self.fds: dict[int, Inode] = {}
        self.next_fd = 10
        self.calls = 0
        self.cut_at = -1  # the call at which power fails; -1: not yet decided
        self.dead = False
        self.buried = False
        self.fault: Callable[[str, str], int] = lambda call, name: 0
        self.fake_directory_sync = False  # a mutation: the sync that is skipped
        self.stale: list[bytes] = []  # contents that a recycled file may start with
        self.protected: set[str] = set()  # names that may be opened for reading only
        self.read_only: set[int] = set()  # descriptors
        self.direct: dict[int, bool] = {}  # descriptors past the page cache; refused at a write?

    # -- power -------------------------------------------------------------------------------------

    def cut(self) -> None:
        self.dead = True

    def bury(self) -> None:
        self.dead = self.buried = True

    def power_failure(self) -> None:
        """What is left when the machine starts again."""
        random = self.random
        names = dict(self.synced_names)
        prefix = random.random() < 0.5
        limit = random.randint(0, len(self.operations))
        for index, (kind, name, detail) in enumerate(self.operations):
            if index >= limit if prefix else random.random() < 0.5:
                continue
            if kind == "create":
                names[name] = detail
            elif kind == "unlink":
                names.pop(name, None)
            elif name in names:
                names[detail] = names.pop(name)
        for inode in {id(i): i for i in [*self.names.values(), *names.values()]}.values():
            inode.lose(random)
        self.names = names
        self.synced_names = dict(names)
        self.revive()
        self.operations.clear()

    def revive(self) -> None:
        """A new process: no descriptors, everything else as it was seen."""
        self.fds.clear()
        self.read_only.clear()
        self.direct.clear()
        self.dead = self.buried = False
        self.cut_at = -1

    def clone(self, random: Random) -> SimFiles:
        """The same disk, to try another fate on."""
        other = SimFiles(random)
        twins: dict[int, Inode] = {}

        def twin(inode: Inode) -> Inode:
            if id(inode) not in twins:
                copy = twins[id(inode)] = Inode()
                copy.seen = bytearray(inode.seen)
                copy.platter = dict(inode.platter)
                copy.versions = {n: list(v) for n, v in inode.versions.items()}
                copy.size, copy.sizes = inode.size, list(inode.sizes)
                copy.recycled = inode.recycled
            return twins[id(inode)]

        other.names = {name: twin(inode) for name, inode in self.names.items()}
        other.synced_names = {name: twin(inode) for name, inode in self.synced_names.items()}
        other.operations = [
            (kind, name, twin(detail) if isinstance(detail, Inode) else detail)
            for kind, name, detail in self.operations
        ]
        other.next_fd = self.next_fd
        return other

    # -- every call --------------------------------------------------------------------------------

    def _enter(self, call: str, name: str = "") -> bool:
        """Count a call; False when the process is being taken apart."""
        if self.buried:
            return False
        if self.dead:
            raise Crashed
        self.calls += 1
        if self.calls == self.cut_at:
            self.dead = True
            raise Crashed
        number = self.fault(call, name)
        if number:
            raise OSError(number, os.strerror(number))
        return True

    def _open_fd(self, inode: Inode) -> int:
        self.next_fd += 1
        self.fds[self.next_fd] = inode
        return self.next_fd

    @staticmethod
    def _name(path: str) -> str:
        return path.rpartition("/")[2]

    def _find(self, path: str) -> Inode:
        inode = self.names.get(self._name(path))
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return inode

    def _written(self, fd: int) -> Inode:
        if fd in self.read_only:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self.fds[fd]

    # -- ports.FileSystem --------------------------------------------------------------------------

    def open(self, path: str, write: bool = False) -> int:
        if not self._enter("open", self._name(path)):
            return -1
        inode = self._find(path)
        if write and self._name(path) in self.protected:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        fd = self._open_fd(inode)
        if not write:
            self.read_only.add(fd)
        return fd

    def create(self, path: str) -> int:
        name = self._name(path)
        if not self._enter("create", name):
            return -1
        if name in self.names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        inode = self.names[name] = Inode()
        if self.stale and name.startswith("log"):
            inode.recycle(self.random.choice(self.stale))
        self.operations.append(("create", name, inode))
        return self._open_fd(inode)

    def open_direct(self, path: str) -> int:
        if not self._enter("open_direct", self._name(path)):
            return -1
        if self.random.random() < 0.3:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        fd = self._open_fd(self._find(path))
        self.direct[fd] = self.random.random() < 0.3
        return fd

    def close(self, fd: int) -> None:
        if self._enter("close"):
            del self.fds[fd]

    def size(self, fd: int) -> int:
        return len(self.fds[fd].seen) if self._enter("size") else 0

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        if not self._enter("pread"):
            return b""
        return bytes(self.fds[fd].seen[offset : offset + length])

    def pread_now(self, fd: int, length: int, offset: int) -> bytes | None:
        if not self._enter("pread_now") or self.random.random() < 0.3:
            return None
        data = bytes(self.fds[fd].seen[offset : offset + length])
        return data if len(data) == length else None

    def pread_many_now(
        self, fds: Mapping[Any, int], places: Sequence[tuple[Any, int, int] | None], room: int
    ) -> list[bytes | None]:
        found: list[bytes | None] = []
        for place in places:
            if room <= 0:
                break
            if place is None:
                found.append(None)
                continue
            file, offset, length = place
            found.append(self.pread_now(fds[file], length, offset))
            room -= length
        return found

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        if not self._enter("pwrite"):
            return len(data)
        inode = self._written(fd)
        if fd in self.direct:
            assert offset % 4096 == len(data) % 4096 == 0, "a write past the page cache, unaligned"
            if self.direct[fd]:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if inode.recycled and offset and not any(data):
            # Its blocks need not be written again; only what is behind them is zeros.
            skip = min(len(data), max(0, len(inode.seen) - offset))
            data, offset = data[skip:], offset + skip
        inode.write(data, offset)
        return len(data)

    def fdatasync(self, fd: int) -> None:
        inode = self.fds.get(fd)
        try:
            if self._enter("fdatasync") and inode is not None:
                inode.sync()
        except OSError:
            assert inode is not None
            inode.forget(self.random)
            raise

    def sync_directory(self, path: str) -> None:
        if self._enter("sync_directory") and not self.fake_directory_sync:
            self.synced_names = dict(self.names)
            self.operations.clear()

    def truncate(self, fd: int, length: int) -> None:
        if self._enter("truncate"):
            self._written(fd).truncate(length)

    def rename(self, old: str, new: str) -> None:
        if self._enter("rename", self._name(new)):
            self.names[self._name(new)] = self._find(old)
            del self.names[self._name(old)]
            self.operations.append(("rename", self._name(old), self._name(new)))

    def unlink(self, path: str) -> None:
        if self._enter("unlink", self._name(path)):
            self._find(path)
            del self.names[self._name(path)]
            self.operations.append(("unlink", self._name(path), None))

    def listdir(self, path: str) -> list[str]:
        return list(self.names) if self._enter("listdir") else []

    def mkdir(self, path: str) -> None:
        self._enter("mkdir")

    def exists(self, path: str) -> bool:
        return True

    def map(self, fd: int, length: int) -> memoryview:
        if not self._enter("map"):
            return memoryview(b"")
        return memoryview(bytes(self.fds[fd].seen[:length]))

    def free_bytes(self, path: str) -> int:
        return 1 << 40


class SimLane:
    """Runs recorded jobs, one step at a time, when the scheduler says so."""

    def __init__(self, files: SimFiles, deliver: Callable[..., object]) -> None:
        self._files = files
        self._deliver = deliver
        self._queue: list[tuple[RecordedJob, Callable[[Any], None]]] = []
        self._step = 0

    def job(self) -> RecordedJob:
        return RecordedJob()

    def submit(self, job: Any, done: Callable[[Any], None]) -> None:
        self._queue.append((job, done))

    def close(self) -> None:
        assert not self._queue

    @property
    def busy(self) -> bool:
        return bool(self._queue)

    def advance(self) -> None:
        """Do one step of the first job."""
        job, done = self._queue[0]
        try:
            if self._step < len(job.steps):
                self._run(job.steps[self._step])
            self._step += 1
        except OSError as error:
            job.error, job.failed_step = error.errno or errno.EIO, self._step
        if job.error or self._step >= len(job.steps):
            del self._queue[0]
            self._step = 0
            self._deliver(self._finish, job, done)

    def interrupt(self) -> None:
        """The process dies: part of the write under way may have been done, in any order."""
        if self._queue and self._step < len(self._queue[0][0].steps):
            step = self._queue[0][0].steps[self._step]
            if step[0] == "pwrite":
                self._write_some(step)
        for job, _ in self._queue:
            job.release()
        self._queue.clear()

    @staticmethod
    def _finish(job: RecordedJob, done: Callable[[Any], None]) -> None:
        job.release()
        done(job)

    def _run(self, step: tuple[Any, ...]) -> None:
        files = self._files
        kind = step[0]
        if kind == "pwrite":
            try:
                files.pwrite(step[1], step[3], step[2])
            except OSError:
                self._write_some(step)
                raise
        elif kind == "pread":
            _, fd, offset, view = step
            data = files.pread(fd, view.nbytes, offset)
            view[: len(data)] = data
            if len(data) < view.nbytes:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        elif kind == "fdatasync":
            files.fdatasync(step[1])
        elif kind == "update":
            step[1].update(step[2])

    def _write_some(self, step: tuple[Any, ...]) -> None:
        _, fd, offset, view = step
        inode = self._files.fds.get(fd)
        if inode is None or not view.nbytes:
            return
        random = self._files.random
        at = 0
        while at < view.nbytes:
            length = min(PAGE - (offset + at) % PAGE, view.nbytes - at)
            if random.random() < 0.5:
                inode.write(view[at : at + length], offset + at)
            at += length


class SimLanes:
    """``ports.Lanes`` over one simulated disk."""

    def __init__(self, files: SimFiles, deliver: Callable[..., object]) -> None:
        self.log = SimLane(files, deliver)
        self.body = SimLane(files, deliver)
        self.read = SimLane(files, deliver)
        self.hash_a = SimLane(files, deliver)
        self.hash_b = SimLane(files, deliver)
        self.all = [self.log, self.body, self.read, self.hash_a, self.hash_b]

    async def run(self, lane: Any, job: Any) -> None:
        raise AssertionError("the segment store has its own way to wait")
