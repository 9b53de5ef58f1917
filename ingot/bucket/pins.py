"""CIDs that requests in flight wrote or will refer to, kept from compaction until the outcome.

A pin lives as long as its ``Pin`` object, and a request holds that by holding the body: when the
last reference goes, so does the pin. Pins alive when a segment seals are roots of that segment for
ever, so they are written into the next commit record (design section 4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
        self._sealed: set[Cid] = set()

    def segment_sealed(self) -> None:
        """Remember what is pinned now, for the next commit record."""
        self._sealed.update(self.counts)

    def take_sealed(self) -> Sequence[Cid]:
        taken = sorted(self._sealed)
        self._sealed.clear()
        return taken

    def put_back(self, taken: Iterable[Cid]) -> None:
        """The commit that was to carry them failed."""
        self._sealed.update(taken)
