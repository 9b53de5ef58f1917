"""Compaction: finds what is live of sealed log segments and has a unit put in their place.

Runs beside the gateway's work, a slice of the loop at a time, one unit after the other. Reads what
it looks at through the segment store, every block hashed. See ``liveness`` for what is kept and
``ingot.segments.compact`` for how the unit takes its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Protocol

from ingot.bucket.liveness import Liveness, Roots
from ingot.bucket.pins import Pins
from ingot.limits import COMPACT_STEP_BLOCKS
from ingot.messages import Cid, CommitRecord
from ingot.segments.model import SegmentInfo


class Segments(Protocol):
    """The part of the segment store that compaction needs."""

    def settled(self) -> list[SegmentInfo]: ...
    def commits_of(self, info: SegmentInfo) -> AsyncIterator[tuple[Cid, CommitRecord]]: ...
    def holding(self, infos: Sequence[SegmentInfo]) -> Callable[[Cid], bool]: ...
    async def commit_after(self, info: SegmentInfo) -> CommitRecord | None: ...
    async def read(self, cid: Cid) -> bytes: ...
    async def replace(
        self, sources: Sequence[SegmentInfo], live: Collection[Cid]
    ) -> SegmentInfo: ...


async def compact(segments: Segments, sources: Sequence[SegmentInfo], pins: Pins) -> SegmentInfo:
    """Put one unit in the place of ``sources``, which are in a row in ``segments.settled()``.
    FormatError or Corruption for a segment that has to stay as it is, OSError where the disk
    refuses; then nothing has changed."""
    roots = Roots()
    # Requests that began before the segments' end may still read there; those that began later
    # read from heads that reach, of these segments, only what the last heads here reach. Whoever
    # has committed since is answered for by the commit behind, so this comes before looking there.
    roots.pins.update(pins.counts)
    for info in sources:
        async for cid, record in segments.commits_of(info):
            roots.add(cid, record)
    behind = await segments.commit_after(sources[-1])
    if behind is not None:
        roots.follow(behind)
    walk = Liveness(roots, segments.holding(sources))
    while wanted := walk.wanted(COMPACT_STEP_BLOCKS):
        for cid in wanted:
            walk.feed(cid, await segments.read(cid))
        await asyncio.sleep(0)
    return await segments.replace(sources, walk.live)
