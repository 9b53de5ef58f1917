"""Which segment holds a block: tables of those that grow, runs of those that are sealed.

Guarantees: a block is found from the moment its segment's table has it; when a segment is sealed
its run is in use before its table goes. A lookup asks the few tables and O(log) of the store's size
runs, most of which their filters answer. Nothing here waits.

Used by the store and the streams; changed by the sealer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ingot._speedups import index
from ingot.messages import Cid
from ingot.segments.model import Key, Location, SegmentInfo
from ingot.segments.runfile import OpenRun
from ingot.segments.segment import Segment

TIER_ENTRIES = 4096  # runs below this are of one size
TIER_GROWTH_BITS = 2  # each tier is four times the one before


@dataclass(slots=True)
class Place:
    """One copy of a block, whether it was hashed since the start, and how to note that."""

    key: Key
    offset: int
    length: int
    verified: bool
    holder: Segment | OpenRun
    position: int

    def verify(self, cid: Cid) -> None:
        self.verified = True
        if isinstance(self.holder, Segment):
            self.holder.table.verify(cid)
        elif self.position < len(self.holder):
            self.holder.run.verify(self.position)


class SegmentIndex:
    """All segments of a store that are in this directory."""

    def __init__(self) -> None:
        self.growing: dict[Key, Segment] = {}
        self.runs: list[OpenRun] = []
        self.trusted: set[Key] = set()  # sealed by this process, which hashed every frame
        self.absent: set[Key] = set()  # a run knows them, but they are not here, or replaced
        self.cold: set[Key] = set()  # of those absent, the ones that the network has
        self.damaged: set[int] = set()  # log segments whose units have only what was good of them
        self._infos: dict[Key, SegmentInfo] = {}

    # -- finding -----------------------------------------------------------------------------------

    def find(self, cid: Cid) -> tuple[Key, int, int, bool] | None:
        """Segment, offset, length and whether it was verified, of the copy that ``lookup`` gives:
        all that reading it takes."""
        for key, segment in self.growing.items():
            found = segment.table.find(cid)
            if found is not None:
                return (key, *found)
        for held in self.runs:
            entry = held.run.lookup(cid)
            if entry is not None:
                name, offset, length, verified = entry
                if name >= len(held.infos):
                    break
                key = held.infos[name].key
                if key in self.absent:
                    break
                return key, offset, length, verified or key in self.trusted
        else:
            return None
        place = self.lookup(cid)
        return None if place is None else (place.key, place.offset, place.length, place.verified)

    def find_many(self, cids: Sequence[Cid]) -> tuple[list[tuple[Key, int, int] | None], list[int]]:
        """Segment, offset and length of each block's copy, None where there is none; and the
        positions of those that have yet to be hashed. Whether the file is here is not asked: see
        ``absent``."""
        tables = [(segment.table, key) for key, segment in self.growing.items()]
        runs = [(held.run, held.keys) for held in self.runs]
        return index.find_many(tables, runs, self.trusted, cids)

    def lookup(self, cid: Cid) -> Place | None:
        """A copy of the block; the one most easily read."""
        for segment in self.growing.values():
            found = segment.table.find(cid)
            if found is not None:
                return Place(segment.key, *found, segment, -1)
        for held in self.runs:
            position = held.run.find(cid)
            if position >= 0:
                place = self._place(held, position)
                if place.key not in self.absent:
                    return place
                return next(self._places(cid), None)
        return None

    def places(self, cid: Cid) -> list[Place]:
        """Every copy of the block, for when one is damaged."""
        return list(self._places(cid))

    def cold_place(self, cid: Cid) -> Place | None:
        """A copy of the block in a cold segment."""
        return next(self._cold_places(cid), None) if self.cold else None

    def cold_places(self, cid: Cid) -> list[Place]:
        """Every copy of the block in a cold segment."""
        return list(self._cold_places(cid)) if self.cold else []

    def _places(self, cid: Cid) -> Iterator[Place]:
        for segment in self.growing.values():
            found = segment.table.find(cid)
            if found is not None:
                yield Place(segment.key, *found, segment, -1)
        for place in self._in_runs(cid):
            if place.key not in self.absent:
                yield place

    def _cold_places(self, cid: Cid) -> Iterator[Place]:
        for place in self._in_runs(cid):
            if place.key in self.cold:
                yield place

    def _in_runs(self, cid: Cid) -> Iterator[Place]:
        for held in self.runs:
            position = held.run.find(cid)
            while position >= 0 and held.run.holds(position, cid):
                yield self._place(held, position)
                position += 1

    def _place(self, held: OpenRun, position: int) -> Place:
        name, offset, length = held.run.entry(position)
        # An entry that names no segment is damaged; the audit will say so, reading it must fail.
        key = held.infos[name].key if name < len(held.infos) else ("log", 0)
        verified = key in self.trusted or held.run.verified(position)
        return Place(key, offset, length, verified, held, position)

    def locate(self, cid: Cid) -> Location | None:
        place = self.lookup(cid)
        if place is None:
            return None
        return Location(*place.key, place.offset, place.length)

    @property
    def doubtful(self) -> bool:
        """Whether a run in use was not audited yet, so that a miss may be a damaged entry."""
        return any(not held.audited for held in self.runs)

    # -- segments ----------------------------------------------------------------------------------

    def info(self, key: Key) -> SegmentInfo | None:
        segment = self.growing.get(key)
        return segment.info() if segment is not None else self._infos.get(key)

    def sealed(self) -> list[SegmentInfo]:
        return list(self._infos.values())

    def add_growing(self, segment: Segment) -> None:
        self.growing[segment.key] = segment

    def forget(self, key: Key) -> None:
        """A unit stands for this segment. What runs still say of it is passed over."""
        self._infos.pop(key, None)
        self.absent.add(key)

    def chill(self, key: Key) -> None:
        """The file of this segment is not here, and the network has it."""
        self.absent.add(key)
        self.cold.add(key)

    def warm(self, key: Key) -> None:
        """The file of a cold segment is here after all."""
        self.cold.discard(key)
        self.absent.discard(key)

    def audited(self, key: Key) -> bool:
        """Whether what the runs say of this segment is surely right."""
        return all(held.audited for held in self.runs if key in held.keys)

    def drop_growing(self, segment: Segment) -> None:
        self.growing.pop(segment.key, None)

    # -- runs --------------------------------------------------------------------------------------

    def add_run(self, held: OpenRun) -> None:
        """Take the run of a segment into use; the newest are asked first."""
        self.runs.insert(0, held)
        for info in held.infos:
            self._infos[info.key] = info

    def add_old_run(self, held: OpenRun) -> None:
        """Take a run of an earlier process into use; of one segment the newest run is right."""
        self.runs.append(held)
        for info in held.infos:
            self._infos.setdefault(info.key, info)

    def replace_table(self, segment: Segment, held: OpenRun) -> None:
        """The run of a segment comes into use, then its table goes."""
        self.add_run(held)
        self.trusted.add(segment.key)
        self.drop_growing(segment)

    def replace_runs(self, old: list[OpenRun], held: OpenRun) -> None:
        """A merged run takes the place of those it was made of."""
        self.runs[self.runs.index(old[0])] = held
        self.runs = [run for run in self.runs if run not in old]

    def drop_run(self, held: OpenRun) -> None:
        self.runs.remove(held)

    def crowded(self, runs_a_tier: int) -> list[OpenRun]:
        """The runs of the lowest tier that has ``runs_a_tier`` of them; none: nothing to merge."""
        tiers: dict[int, list[OpenRun]] = {}
        for held in self.runs:
            if held.audited:  # a damaged run must not be merged into a good one
                size = len(held) // TIER_ENTRIES
                tiers.setdefault(size.bit_length() // TIER_GROWTH_BITS, []).append(held)
        for _, runs in sorted(tiers.items()):
            if len(runs) >= runs_a_tier:
                return runs
        return []
