"""The machine's files to look at only: what would be written goes to memory, nameless.

So a segment store can be opened, recovered and read as at a start while every file stays as it is
and none appears. A file that is there is never open for writing: the store takes it for one that it
may only read, seals it in memory and leaves it. ``refused`` tells how it says so, for whoever shows
its report.

Memory: the index runs that a start would write, 48 bytes for each block of a segment that has none.
Used by ``ingot restore --dry-run``.
"""

from __future__ import annotations

import errno
import os

from ingot.segments.files import SystemFiles

REFUSED = f"may not be written ({os.strerror(errno.EROFS)})"


class Overlay(SystemFiles):
    """See the module's head. ``close_all`` lets go of what was written."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[str, int] = {}  # by path: descriptors of files in memory
        self._gone: set[str] = set()
        self._directories: set[str] = set()

    def open(self, path: str, write: bool = False) -> int:
        if path in self._made:
            return os.open(f"/proc/self/fd/{self._made[path]}", os.O_RDWR | os.O_CLOEXEC)
        if path in self._gone:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if write:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return super().open(path)

    def create(self, path: str) -> int:
        if self.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self._made[path] = os.memfd_create(os.path.basename(path), os.MFD_CLOEXEC)
        return self.open(path, write=True)

    def open_direct(self, path: str) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)

    def sync_directory(self, path: str) -> None:
        pass

    def rename(self, old: str, new: str) -> None:
        self.unlink(new)
        self._made[new] = self._made.pop(old)

    def unlink(self, path: str) -> None:
        if path in self._made:
            os.close(self._made.pop(path))
        else:
            self._gone.add(path)

    def listdir(self, path: str) -> list[str]:
        made = {os.path.basename(name) for name in self._made if os.path.dirname(name) == path}
        if path in self._directories:
            return [*made]
        there = {name for name in super().listdir(path) if f"{path}/{name}" not in self._gone}
        return [*made | there]

    def mkdir(self, path: str) -> None:
        """A directory in memory; nothing may be there under its name."""
        if self.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self._directories.add(path)

    def exists(self, path: str) -> bool:
        if path in self._made or path in self._directories:
            return True
        return path not in self._gone and super().exists(path)

    def close_all(self) -> None:
        while self._made:
            os.close(self._made.popitem()[1])
