"""CIDs that requests in flight wrote or will refer to, kept from compaction until the outcome.

A pin lives as long as its ``Pin`` object, and a request holds that by holding the body: when the
last reference goes, so does the pin. A log segment is compacted by its own roots, so what a request
read there and refers to in a later segment has to be a root too: the first commit behind a segment
names the blocks of it that are pinned (``ingot.segments.log``, design section 4).
"""

from __future__ import annotations

from collections.abc import Iterable

from ingot.messages import Cid


class Pin:
    """Holds its CIDs until it is collected."""

    __slots__ = ("_cids", "_pins")

    def __init__(self, pins: Pins, cids: Iterable[Cid] = ()) -> None:
        self._pins = pins
        self._cids: list[Cid] = []
        for cid in cids:
            self.add(cid)

    def add(self, cid: Cid) -> None:
        self._cids.append(cid)
        counts = self._pins.counts
        counts[cid] = counts.get(cid, 0) + 1

    def __del__(self) -> None:
        counts = self._pins.counts
        for cid in self._cids:
            left = counts[cid] - 1
            if left:
                counts[cid] = left
            else:
                del counts[cid]


class Pins:
    """The pins of one gateway."""

    def __init__(self) -> None:
        self.counts: dict[Cid, int] = {}
