"""What the shipper asks of whoever has the files; ``ingot.segments.store.SegmentStore`` is one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from ingot.messages import Cid, CommitRecord, Head, SealedSegment

Block = tuple[bytes, int, int]
"""A block in a file: its multihash, the offset of its first byte, its length."""
Span = tuple[int, int]
"""Of a file: its first byte, and the one behind its last."""


class Sources(Protocol):
    """Files that are written no more. Methods raise Unavailable or OSError where the disk does not
    give what it should, Corruption where what it gives is wrong."""

    def shippable(self) -> list[SealedSegment]:
        """The units and body segments that are here, sealed; also damaged ones."""
        ...

    def body_numbers(self) -> Collection[int]:
        """Of all body segments that are or should be here, also those that cannot ship: still
        written, damaged, missing."""
        ...

    def open_file(self, segment: SealedSegment) -> AbstractContextManager[int]:
        """A descriptor for reading, open and unchanged until the context ends."""
        ...

    async def examine(self, segment: SealedSegment) -> tuple[bytes, tuple[Span, ...]]:
        """The sha2-256 multihash of the whole file, and where in it nothing is good."""
        ...

    def blocks_of(
        self, segment: SealedSegment, spans: Sequence[Span]
    ) -> AsyncGenerator[list[Block], None]:
        """The file's blocks outside ``spans``, some at a time."""
        ...

    def copies(self, cid: Cid) -> Sequence[tuple[tuple[str, int], int]]:
        """Which files, retired ones too, have the block, and at which byte."""
        ...

    def commits_after(self, after: int) -> AsyncGenerator[tuple[Cid, CommitRecord], None]:
        """The commits with a sequence above ``after``, oldest first."""
        ...


class Reach(Protocol):
    """Knows what a head reaches; ``ingot.bucket.reach.Reach`` is one."""

    async def lacking(
        self, there: Head | None, head: Head, available: Callable[[Cid], bool]
    ) -> str | None:
        """What of ``head`` is not ``available`` or cannot be read, the first that is met, in words;
        None: nothing. What ``there`` reaches is available. Unfetched where the network has to be
        asked and is away."""
        ...
