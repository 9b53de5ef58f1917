"""A node's bytes: one file for each blob, named by its multihash.

A blob is hashed while it is read, written to a file without a name of its own, synced, and then
renamed: what has a blob's name is whole, and was on disk before ``receive`` returned. What was cut
off is removed at the next start.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from io import FileIO
from pathlib import Path
from uuid import uuid4

from ingot.codec import multihash
from ingot.limits import NETWORK_READ_BYTES

_UNFINISHED = ".part"


class WrongBytes(Exception):
    """The bytes are not those that were promised; nothing was kept."""


class Blobs:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        for left in directory.glob(f"*{_UNFINISHED}"):
            left.unlink()

    def path(self, digest: bytes) -> Path:
        """Where the blob of a multihash is, or would be."""
        return self._directory / multihash.to_text(digest)

    def size(self, digest: bytes) -> int | None:
        """None where the blob is not here."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    async def receive(self, stream: AsyncIterator[bytes], size: int, digest: bytes) -> bytes:
        """Keep the bytes of a stream, and return their multihash. WrongBytes unless they are
        ``size`` bytes of the multihash ``digest``, or of any where that is empty."""
        part = self._directory / f"{uuid4().hex}{_UNFINISHED}"
        hasher, received = sha256(), 0
        try:
            file = await asyncio.to_thread(FileIO, part, "xb")
            try:
                async for piece in stream:
                    received += len(piece)
                    if received > size:
                        raise WrongBytes(f"more than {size} bytes")
                    await asyncio.to_thread(_take, file, hasher.update, piece)
                found = multihash.of_digest(hasher.digest())
                if received != size:
                    raise WrongBytes(f"{received} bytes in place of {size}")
                if digest not in (b"", found):
                    raise WrongBytes(f"bytes of {multihash.to_text(found)}")
                await asyncio.to_thread(os.fsync, file.fileno())
            finally:
                file.close()
            await asyncio.to_thread(self._name, part, found)
        finally:
            part.unlink(missing_ok=True)
        return found

    def _name(self, part: Path, digest: bytes) -> None:
        part.rename(self.path(digest))
        sync_directory(self._directory)

    async def read(self, digest: bytes, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from ``start`` to ``end``, both inclusive, of a blob that is here."""
        descriptor = await asyncio.to_thread(os.open, self.path(digest), os.O_RDONLY)
        try:
            while start <= end:
                length = min(NETWORK_READ_BYTES, end + 1 - start)
                piece = await asyncio.to_thread(os.pread, descriptor, length, start)
                if not piece:
                    raise OSError(f"{self.path(digest)} ends at byte {start}")
                yield piece
                start += len(piece)
        finally:
            os.close(descriptor)

    async def remove(self, digest: bytes) -> None:
        await asyncio.to_thread(self.path(digest).unlink, missing_ok=True)
        await asyncio.to_thread(sync_directory, self._directory)


def _take(file: FileIO, update: Callable[[bytes], None], piece: bytes) -> None:
    update(piece)
    view = memoryview(piece)
    while view:
        view = view[file.write(view) :]


def sync_directory(directory: Path) -> None:
    """What was created, renamed or removed in it is so for good."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
