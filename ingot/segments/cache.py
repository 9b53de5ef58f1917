"""Blocks that were fetched from the network, kept on the disk for the next who wants them.

    cache-<20 digits>.blocks     a hole, then the data of blocks one behind the other

Guarantees: never more than ``bytes_max`` on the disk; what comes out has the hash that was asked
for, since it is hashed at every read. Nothing is ever synced and nothing rests on it: where the
blocks stand is known in memory only, so a start throws away what the last process left, and a disk
that refuses costs fetching again.

The newest file grows until it has an eighth of the room, or a gibibyte, and the oldest goes when
all is taken.
Called by ``cold``.
"""

from __future__ import annotations

import re
from typing import Final

from ingot._speedups import digest, index
from ingot.limits import COLD_CACHE_FILE_BLOCKS_MAX, GIB
from ingot.messages import Cid
from ingot.segments.disk import Disk

FILES_MIN: Final = 8
FIRST: Final = 64  # where data begin: no table of blocks takes an offset of 0
_NAME: Final = re.compile(r"cache-[0-9]{20}\.blocks")


class _File:
    """One file of the cache. ``users`` read or write it: it is closed when gone and unused."""

    __slots__ = ("end", "fd", "gone", "name", "table", "users")

    def __init__(self, name: str, fd: int) -> None:
        self.name, self.fd = name, fd
        self.table = index.Table()
        self.end, self.users, self.gone = FIRST, 0, False


class BlockCache:
    """A cache in ``directory``, which is its own."""

    def __init__(self, disk: Disk, directory: str, bytes_max: int) -> None:
        self._disk = disk
        self._directory = directory
        self._files_max = max(FILES_MIN, -(-bytes_max // GIB))
        self._file_bytes = bytes_max // self._files_max
        self._files: list[_File] = []  # the oldest first
        self._number = 0
        self._told = False

    async def open(self) -> None:
        """Throw away what is there. A cache that cannot be used is reported and stays empty."""
        await self._disk.call(self._clear)

    def _clear(self) -> None:
        files = self._disk.files
        try:
            if not files.exists(self._directory):
                files.mkdir(self._directory)
            for name in files.listdir(self._directory):
                if _NAME.fullmatch(name):
                    files.unlink(f"{self._directory}/{name}")
        except OSError as error:
            self._trouble(error)

    async def close(self) -> None:
        for file in self._files:
            self._disk.close_quietly(file.fd, file.name)
        self._files.clear()
        await self._disk.call(self._clear)

    async def get(self, cid: Cid) -> bytes | None:
        """The block, if it is here and its bytes are what they should be."""
        for file in reversed(self._files):
            found = file.table.find(cid)
            if found is not None:
                return await self._read(file, cid, *found[:2])
        return None

    async def _read(self, file: _File, cid: Cid, offset: int, length: int) -> bytes | None:
        data, hasher = bytearray(length), digest.Hasher("sha256")
        lane = self._disk.lanes.read
        job = lane.job()
        job.pread(file.fd, offset, data)
        job.update(hasher, data)
        file.users += 1
        try:
            await self._disk.run(lane, job)
        except OSError as error:
            self._trouble(error)
            return None
        finally:
            self._release(file)
        if hasher.digest() != cid[4:]:
            self._disk.problem(f"{file.name}, byte {offset}: damaged, and fetched again")
            return None
        self._disk.statistics.cache_hits += 1
        return bytes(data)

    async def put(self, cid: Cid, data: bytes) -> None:
        """Keep a block, whose bytes have its hash."""
        if FIRST + len(data) > self._file_bytes or any(f.table.find(cid) for f in self._files[-1:]):
            return
        try:
            file = await self._room(len(data))
            offset, file.end = file.end, file.end + len(data)
            lane = self._disk.lanes.read
            job = lane.job()
            job.pwrite(file.fd, offset, data)
            file.users += 1
            try:
                await self._disk.run(lane, job)
            finally:
                self._release(file)
        except OSError as error:
            self._trouble(error)
            return
        if not file.gone:
            file.table.add(cid, offset, len(data), False)

    async def _room(self, length: int) -> _File:
        newest = self._files[-1] if self._files else None
        if newest is not None and newest.end + length <= self._file_bytes:
            if len(newest.table) < COLD_CACHE_FILE_BLOCKS_MAX:
                return newest
        while len(self._files) >= self._files_max:
            self._drop(self._files[0])
        self._number += 1
        name = f"cache-{self._number:020d}.blocks"
        # On the loop: two calls of it would else make a file each.
        file = _File(name, self._disk.files.create(f"{self._directory}/{name}"))
        self._files.append(file)
        return file

    def _drop(self, file: _File) -> None:
        self._files.remove(file)
        file.gone = True
        try:
            self._disk.files.unlink(f"{self._directory}/{file.name}")
        except OSError as error:
            self._trouble(error)
        file.users += 1
        self._release(file)

    def _release(self, file: _File) -> None:
        file.users -= 1
        if file.gone and not file.users:
            self._disk.close_quietly(file.fd, file.name)

    def _trouble(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            self._disk.problem(
                f"{self._directory} cannot be used as a cache ({error.strerror}); blocks of cold "
                "segments are fetched each time. Check the disk."
            )
