"""The node cache of one gateway and the ways to fill it from the segments.

The tree's functions are synchronous and never read a disk; what they lack they name by raising
``Missing``. This class answers that: first with what needs no waiting, then by waiting. Nodes are
immutable, so whoever loads one loads it for everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from ingot import mst
from ingot.codec.cid import to_text
from ingot.errors import Corruption, Missing, NotFound, Unavailable
from ingot.messages import Cid
from ingot.ports import RecordSource

T = TypeVar("T")

LOADS_MAX = 512
"""Rounds of loading one call may take: 129 layers, and a page of 1,000 that meets few of its nodes
in memory; more means that the cache forgets faster than it is filled."""


class Blocks(Protocol):
    """Where blocks are read: the segment store."""

    def read_now(self, cid: Cid) -> bytes | None: ...
    async def read(self, cid: Cid) -> bytes: ...
    def prefetch(self, cids: Sequence[Cid]) -> None: ...


class Published:
    """Blocks that published heads name: one that is nowhere is damage, not a key that is absent."""

    def __init__(self, blocks: RecordSource) -> None:
        self._blocks = blocks

    def read_now(self, cid: Cid) -> bytes | None:
        try:
            return self._blocks.read_now(cid)
        except NotFound as error:
            raise lost(cid) from error

    def read_many_now(self, cids: Sequence[Cid]) -> list[bytes | None]:
        return self._blocks.read_many_now(cids)

    async def read(self, cid: Cid) -> bytes:
        try:
            return await self._blocks.read(cid)
        except NotFound as error:
            raise lost(cid) from error

    def prefetch(self, cids: Sequence[Cid]) -> None:
        self._blocks.prefetch(cids)

    async def read_part(self, cid: Cid, start: int, into: memoryview) -> None:
        try:
            await self._blocks.read_part(cid, start, into)
        except NotFound as error:
            raise lost(cid) from error


class Lost(Corruption):
    """A block that is in no segment. Damage, unless only heads reach it that their bucket has left:
    compaction drops that (``newest``)."""


def lost(cid: Cid) -> Lost:
    return Lost(f"block {to_text(cid)}", "to be in a segment", "that none has it")


class Nodes:
    """``run`` calls a tree function until nothing is missing."""

    def __init__(self, blocks: Blocks, budget: int) -> None:
        self.blocks = blocks
        self.cache = mst.NodeCache(budget)

    def load_now(self, cids: Sequence[Cid]) -> list[Cid]:
        """Take in what can be read without waiting; returns what cannot."""
        waiting = []
        for cid in cids:
            block = self.blocks.read_now(cid)
            if block is None:
                waiting.append(cid)
            else:
                self.cache.add(cid, block)
        return waiting

    async def load(self, cids: Sequence[Cid]) -> None:
        waiting = self.load_now(cids)
        self.blocks.prefetch(waiting)
        for cid in waiting:
            self.cache.add(cid, await self.blocks.read(cid))

    def run_now(self, call: Callable[[], T]) -> T:
        """``call()``, loading without waiting; raises Missing with what would have to be waited
        for."""
        for _ in range(LOADS_MAX):
            try:
                return call()
            except Missing as missing:
                waiting = self.load_now(missing.cids)
                if waiting:
                    raise Missing(waiting) from None
        raise Unavailable("the node cache is too small for the load")

    async def run(self, call: Callable[[], T]) -> T:
        for _ in range(LOADS_MAX):
            try:
                return self.run_now(call)
            except Missing as missing:
                await self.load(missing.cids)
        raise Unavailable("the node cache is too small for the load")
