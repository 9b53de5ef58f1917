"""Blobs on our side: what one is called, and where its bytes are read from.

A blob is named by its sha2-256 multihash and its size. Its bytes come from a *source*, a range of a
file or bytes in memory, a piece at a time and as often as they are needed; a file is read on a
thread, and never while the loop waits. Called by ``upload`` and ``http``.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

from ingot.codec import multihash
from ingot.errors import Corruption
from ingot.forge import values
from ingot.forge.errors import Malformed, TooLarge
from ingot.limits import FORGE_BLOB_BYTES_MAX
from ingot.offload import settled


@dataclass(frozen=True, slots=True)
class BlobRef:
    """``digest`` is the multihash, 34 bytes. TooLarge for a blob that no node takes."""

    digest: bytes
    size: int

    def __post_init__(self) -> None:
        if multihash.split(self.digest)[0] != multihash.SHA2_256:
            raise Malformed(("digest",), "a sha2-256 multihash", self.digest[:4].hex())
        if not 0 < self.size <= FORGE_BLOB_BYTES_MAX:
            raise TooLarge(f"a blob of {self.size} bytes; nodes take 1 to {FORGE_BLOB_BYTES_MAX}")

    @classmethod
    def of(cls, data: bytes) -> BlobRef:
        return cls(multihash.of(data), len(data))

    def __str__(self) -> str:
        return f"blob {multihash.to_text(self.digest)}"

    def argument(self) -> dict[str, object]:
        """The ``blob`` of an invocation, in the form that both generations of services read."""
        return {"size": self.size, "digest": self.digest}

    def check(self, value: object, *path: str) -> bool:
        """Malformed unless the map at ``path`` is about this blob. False where it only names the
        hash function (``digestCode``, of newer services), so that the digest is still to be said.
        """
        size = values.take(value, int, *path, "size")
        digest = values.get(value, bytes, *path, "digest")
        code = values.get(value, int, *path, "digestCode")
        if size != self.size:
            raise Malformed((*path, "size"), str(self.size), str(size))
        if digest is not None and digest != self.digest:
            raise Malformed((*path, "digest"), self.digest.hex(), digest.hex())
        if digest is None and code != multihash.SHA2_256:
            raise Malformed(path, "a digest, or the code of sha2-256", f"digestCode {code}")
        return digest is not None


class Source(Protocol):
    """Where a blob's bytes come from."""

    @property
    def length(self) -> int: ...

    async def read(self, offset: int, length: int, hasher: Any) -> bytes:
        """So many bytes from ``offset`` of the source on, all of them, fed to ``hasher``; OSError,
        or Corruption where the source ends before."""
        ...


@dataclass(frozen=True, slots=True)
class FileRange:
    """``length`` bytes of an open file, which stays open and unchanged until the call ends that it
    was given to. The file's position is not used."""

    fd: int
    offset: int
    length: int

    async def read(self, offset: int, length: int, hasher: Any) -> bytes:
        reading = asyncio.get_running_loop().run_in_executor(
            None, self._read, offset, length, hasher
        )
        await settled([reading])  # also when cancelled: the caller may close the file then
        return reading.result()

    def _read(self, offset: int, length: int, hasher: Any) -> bytes:
        pieces, at = [], self.offset + offset
        end = at + length
        while at < end:
            piece = os.pread(self.fd, end - at, at)
            if not piece:
                raise Corruption(f"a file to be sent ends at byte {at}", end, at)
            hasher.update(piece)
            pieces.append(piece)
            at += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


@dataclass(frozen=True, slots=True)
class BytesSource:
    """Bytes in memory, such as an index archive."""

    data: bytes

    @property
    def length(self) -> int:
        return len(self.data)

    async def read(self, offset: int, length: int, hasher: Any) -> bytes:
        piece = self.data[offset : offset + length]
        hasher.update(piece)
        return piece


def new_hasher() -> Any:
    return sha256()
