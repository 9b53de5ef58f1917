"""What the shipper asks of whoever has the files; ``ingot.segments.store.SegmentStore`` is one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import AbstractContextManager
from typing import Protocol

from ingot.messages import Cid, CommitRecord, SealedSegment

Block = tuple[bytes, int, int]
"""A block in a file: its multihash, the offset of its first byte, its length."""


class Sources(Protocol):
    """Files that are written no more. Methods raise Unavailable or OSError where the disk does not
    give what it should, Corruption where what it gives is wrong."""

    def shippable(self) -> list[SealedSegment]:
        """The units and body segments that are here, whole."""
        ...

    def body_numbers(self) -> Collection[int]:
        """Of all body segments that are or should be here, also those that cannot ship: still
        written, damaged, missing."""
        ...

    def open_file(self, segment: SealedSegment) -> AbstractContextManager[int]:
        """A descriptor for reading, open and unchanged until the context ends."""
        ...

    async def digest_of(self, segment: SealedSegment) -> bytes:
        """The sha2-256 multihash of the whole file, once every frame of it was found good."""
        ...

    def blocks_of(self, segment: SealedSegment) -> AsyncGenerator[list[Block], None]:
        """The file's blocks, some at a time."""
        ...

    def commits_after(self, after: int) -> AsyncGenerator[tuple[Cid, CommitRecord], None]:
        """The commits with a sequence above ``after``, oldest first."""
        ...
