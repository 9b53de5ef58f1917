"""Compaction: finds what is live of sealed log segments and has a unit put in their place.

Runs beside the gateway's work, a slice of the loop at a time, one unit after the other, the oldest
first. Reads what it looks at through the segment store, every block hashed. Of a segment in which
something live cannot be read a unit is made that has all the rest, so that damage holds up nobody
else. See ``liveness`` for what is kept and ``ingot.segments.compact`` for how the unit takes its
place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Protocol

from ingot.bucket.liveness import Liveness, Roots
from ingot.bucket.pins import Pins
from ingot.errors import Corruption, FormatError, IngotError, Unavailable
from ingot.limits import (
    COMPACT_STEP_BLOCKS,
    COPY_STEP_BLOCKS,
    UNIT_AGE_S,
    UNIT_SOURCE_BYTES,
    UNIT_SOURCE_BYTES_MAX,
)
from ingot.messages import Cid, CommitRecord
from ingot.ports import Clock
from ingot.segments.compact import Unsettled
from ingot.segments.model import QUARANTINED, Key, SegmentInfo

log = logging.getLogger("ingot.compaction")


class Segments(Protocol):
    """The part of the segment store that compaction needs."""

    def settled(self) -> list[SegmentInfo]: ...
    def commits_of(self, info: SegmentInfo) -> AsyncIterator[tuple[Cid, CommitRecord]]: ...
    def holding(self, infos: Sequence[SegmentInfo]) -> Callable[[Cid], bool]: ...
    async def commit_after(self, info: SegmentInfo) -> CommitRecord | None: ...
    async def read_hashed(self, cid: Cid) -> bytes: ...
    async def replace(
        self,
        sources: Sequence[SegmentInfo],
        live: Collection[Cid],
        settled: Callable[[], bool],
    ) -> SegmentInfo: ...
    async def salvage(self, info: SegmentInfo) -> SegmentInfo: ...


async def compact(segments: Segments, sources: Sequence[SegmentInfo], pins: Pins) -> SegmentInfo:
    """Put one unit in the place of ``sources``, which are in a row in ``segments.settled()``.
    FormatError or Corruption for a segment that has to stay as it is, OSError where the disk
    refuses; then nothing has changed."""
    while True:
        try:
            return await _compact(segments, sources, pins)
        except Unsettled:
            pass  # with a reader who began before their end; of those there are only so many


async def _compact(segments: Segments, sources: Sequence[SegmentInfo], pins: Pins) -> SegmentInfo:
    roots = Roots()
    # Requests that began before the segments' end may still read there; those that began later
    # read from heads that reach, of these segments, only what the last heads here reach. Whoever
    # has committed since is answered for by the commit behind, so this comes before looking there.
    pinned = set(pins.counts)
    roots.pins |= pinned
    for info in sources:
        async for cid, record in segments.commits_of(info):
            roots.add(cid, record)
            if len(roots.commits) % COPY_STEP_BLOCKS == 0:
                await asyncio.sleep(0)
    behind = await segments.commit_after(sources[-1])
    if behind is not None:
        roots.follow(behind)
    holds = segments.holding(sources)
    walk = Liveness(roots, holds)
    while wanted := walk.wanted(COMPACT_STEP_BLOCKS):
        for cid in wanted:
            walk.feed(cid, await segments.read_hashed(cid))
        await asyncio.sleep(0)

    def settled() -> bool:
        """Whether nobody has begun meanwhile to read a body that the unit will lack."""
        return not any(holds(cid) for cid in pins.counts.keys() - pinned - walk.live)

    return await segments.replace(sources, walk.live, settled)


class Compaction:
    """Makes units as segments settle. A unit waits for ``unit_bytes`` of segments, since the more
    of them the less of each is live, but for no longer than ``age_s``."""

    def __init__(
        self,
        segments: Segments,
        pins: Pins,
        clock: Clock,
        unit_bytes: int = UNIT_SOURCE_BYTES,
        age_s: float = UNIT_AGE_S,
    ) -> None:
        self.made = 0
        self._segments = segments
        self._pins = pins
        self._clock = clock
        self._unit_bytes = unit_bytes
        self._age_s = age_s
        self._seen: dict[Key, float] = {}  # when a segment was first found settled; monotonic

    async def run(self, pause_s: float) -> None:
        """Until it is cancelled, look every ``pause_s`` whether there is something to do."""
        while True:
            try:
                while await self.step():
                    pass
            except (OSError, IngotError) as error:
                log.warning("a unit could not be made, it is tried again: %s", error)
            except Exception:  # a bug: the segments stay, and somebody has to hear of it
                log.exception("making a unit broke, it is tried again")
            await asyncio.sleep(pause_s)

    async def step(self) -> SegmentInfo | None:
        """Make one unit if one is due."""
        sources = self._due()
        if not sources:
            return None
        try:
            unit = await self._unit_of(sources)
        except (FormatError, Corruption, Unavailable):
            for info in sources:  # one of them: the others are whole
                unit = await self._unit_alone(info)
        self.made += 1
        log.info(
            "segments %d to %d: %d of %d bytes are live and became unit %d",
            *(sources[0].number, sources[-1].number, unit.bytes),
            *(sum(info.bytes for info in sources), unit.number),
        )
        return unit

    def _due(self) -> list[SegmentInfo]:
        """The oldest segments in a row that can be one unit, once there are enough of them."""
        now = self._clock.monotonic()
        settled = self._segments.settled()
        self._seen = {info.key: self._seen.get(info.key, now) for info in settled}
        row: list[SegmentInfo] = []
        size = 0
        for info in settled:
            ends = bool(row) and info.before != row[-1].root  # what would be between is missing
            if ends or size + info.bytes > max(UNIT_SOURCE_BYTES_MAX, info.bytes):
                return row
            row.append(info)
            size += info.bytes
            if size >= self._unit_bytes:
                return row
        if row and now - self._seen[row[0].key] >= self._age_s:
            return row
        return []

    async def _unit_of(self, sources: Sequence[SegmentInfo]) -> SegmentInfo:
        if any(info.state == QUARANTINED for info in sources):
            raise Corruption("a log segment", "to be whole", "that it was quarantined")
        return await compact(self._segments, sources, self._pins)

    async def _unit_alone(self, info: SegmentInfo) -> SegmentInfo:
        """Where what is live cannot be told, or not be read, everything is kept that can."""
        try:
            return await self._unit_of([info])
        except (FormatError, Corruption, Unavailable) as error:
            unit = await self._segments.salvage(info)
            log.error(
                "unit %d has all that is good of log segment %d: %s",
                *(unit.number, info.number, error),
            )
            return unit
