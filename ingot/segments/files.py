"""The file system (``ingot.ports.FileSystem``): the only file-system calls of the segment store.

The simulation puts another one in its place; nothing else in this package touches a file. Lanes do
their steps on descriptors that were opened here.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from ingot._speedups import resident

_NO_NOWAIT = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class SystemFiles:
    """The machine's files."""

    def __init__(self) -> None:
        self._nowait = True  # until a file system says that it cannot

    def open(self, path: str, write: bool = False) -> int:
        # A pipe would keep whoever opens it waiting; of a file O_NONBLOCK says nothing.
        flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(path, flags)
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode):
            return fd
        os.close(fd)
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, "it is not a regular file", path)

    def create(self, path: str) -> int:
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def open_direct(self, path: str) -> int:
        return os.open(path, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)

    def close(self, fd: int) -> None:
        os.close(fd)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        data = os.pread(fd, length, offset)
        if len(data) == length or not data:
            return data
        parts = [data]
        at = len(data)
        while at < length and (more := os.pread(fd, length - at, offset + at)):
            parts.append(more)
            at += len(more)
        return b"".join(parts)

    def pread_now(self, fd: int, length: int, offset: int) -> bytes | None:
        if not self._nowait:
            return None
        try:
            # A part is what was in memory, or all there is: the waiting read will tell.
            return resident.read(fd, length, offset)
        except OSError as error:
            self._judge(error)
            return None

    def pread_many_now(
        self, fds: Mapping[Any, int], places: Sequence[tuple[Any, int, int] | None], room: int
    ) -> list[bytes | None]:
        if self._nowait:
            try:
                return resident.read_many(fds, places, room)
            except OSError as error:
                self._judge(error)
        return [None] * len(places)

    def _judge(self, error: OSError) -> None:
        """Of a read that must not wait: raise it, unless the file system has no such reads."""
        if error.errno not in _NO_NOWAIT:
            raise error
        self._nowait = False

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        return os.pwrite(fd, data, offset)

    def fdatasync(self, fd: int) -> None:
        os.fdatasync(fd)

    def sync_directory(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def truncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def listdir(self, path: str) -> list[str]:
        return os.listdir(path)

    def mkdir(self, path: str) -> None:
        os.mkdir(path, 0o700)

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def map(self, fd: int, length: int) -> memoryview:
        if length == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(fd, length, access=mmap.ACCESS_READ))

    def free_bytes(self, path: str) -> int:
        stat = os.statvfs(path)
        return stat.f_bavail * stat.f_frsize
