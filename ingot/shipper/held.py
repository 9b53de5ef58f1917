"""Which buckets are held: their heads need something that Forge lacks because it was damaged here.

Where no file shipped with damage nobody is held and nothing is asked. Called by the shipper, before
it moves the watermark.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ingot.messages import Cid, CommitRecord, Damage, ForgeRoot, Head, Shipment
from ingot.shipper.lifecycle import BODY, INDEXED, Key
from ingot.shipper.roots import Roots
from ingot.shipper.sources import Reach, Sources


class Held:
    """``rows`` and ``damage`` are the shipper's, as they change. ``why`` has each held bucket's
    reason, in words. Without ``reach`` nobody knows who needs what is bad, and all that move are
    held."""

    def __init__(
        self,
        sources: Sources,
        reach: Reach | None,
        rows: Mapping[Key, Shipment],
        damage: Mapping[Key, Damage],
        logger: logging.Logger,
    ) -> None:
        self.why: dict[bytes, str] = {}
        self._sources, self._reach = sources, reach
        self._rows, self._damage = rows, damage
        self._logger = logger

    def lost(self, record: CommitRecord) -> list[Damage]:
        """The body segments that a commit needs, that Forge has not and of which nothing is left
        here, as damage from end to end; without what is known of them already. To be asked of a
        commit that the watermark may pass, which waits for all that is here."""
        found = []
        for needs in record.bodies:
            key = BODY, needs.segment
            row, known = self._rows.get(key), self._damage.get(key)
            if row is not None and row.state == INDEXED:
                continue
            if known is None or not known.spans or known.spans[-1][1] < needs.end:
                found.append(Damage(*key, ((0, needs.end),)))
        return found

    async def divide(self, roots: Roots) -> tuple[list[ForgeRoot], list[ForgeRoot]]:
        """The roots that move, and those that are held."""
        if not self._damage:
            return roots.moved, []
        moved: list[ForgeRoot] = []
        held: list[ForgeRoot] = []
        why: dict[bytes, str] = {}
        for root in roots.moved:
            lacks = None
            if root.head is not None:
                lacks = await self._lacking(roots.there(root.bucket), root.head)
            if lacks is None:
                moved.append(root)
                continue
            held.append(root)
            name = roots.names.get(root.bucket, root.bucket.hex())
            why[root.bucket] = f"bucket {name}: Forge's root of it stays behind, {lacks}"
            if root.bucket not in self.why:
                self._logger.error("%s", why[root.bucket])
        self.why = why
        return moved, held

    async def _lacking(self, there: Head | None, head: Head) -> str | None:
        if self._reach is None:
            return "it may need what was damaged"
        return await self._reach.lacking(there, head, self._available)

    def _available(self, cid: Cid) -> bool:
        """Whether a confirmed file has the block, good."""
        for key, offset in self._sources.copies(cid):
            row, damage = self._rows.get(key), self._damage.get(key)
            spans = damage.spans if damage is not None else ()
            if row is not None and row.state == INDEXED:
                if not any(start <= offset < stop for start, stop in spans):
                    return True
        return False
