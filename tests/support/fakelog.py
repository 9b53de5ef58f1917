"""A commit log in memory that tests can hold, fail and chill."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from hashlib import sha256

from ingot.errors import IngotError, NotFound
from ingot.messages import BodyPosition, Cid, CommitRecord, CommitRef, HeadMove
from ingot.segments.commit import encode_commit


class FakeLog:
    """``events`` tells the order of what happened; ``hold`` stops commits until it is set."""

    def __init__(self, events: list[str] | None = None) -> None:
        self.blocks: dict[Cid, bytes] = {}
        self.commits: list[CommitRecord] = []
        self.events = events if events is not None else []
        self.hold = asyncio.Event()
        self.hold.set()
        self.failures: list[IngotError] = []
        self.segment = 1  # that commits go to
        self.segments: dict[int, dict[Cid, bytes]] = {}  # what went to each
        self.cold: set[Cid] = set()  # cannot be read without waiting
        self.prefetched: list[Cid] = []

    async def commit(
        self,
        lease: bytes,
        blocks: Sequence[tuple[Cid, bytes]],
        moves: Sequence[HeadMove],
        bodies: Sequence[BodyPosition],
        checkpoint: Cid | None = None,
        pins: Collection[Cid] = (),
    ) -> tuple[Cid, CommitRecord]:
        sequence = len(self.commits) + 1
        self.events.append(f"append {sequence}")
        await asyncio.sleep(0)
        await self.hold.wait()
        if self.failures:
            raise self.failures.pop(0)
        for cid, block in blocks:
            assert cid[4:] == sha256(block).digest(), "a block under another's CID"
        behind: dict[Cid, bytes] = {}
        if self.commits and self.commits[-1].segment != self.segment:
            behind = self.segments[self.commits[-1].segment]
        record = CommitRecord(
            store=bytes(16),
            incarnation=1,
            lease=lease,
            segment=self.segment,
            sequence=sequence,
            time_ms=sequence,
            previous=None,
            frames=len(blocks),
            frames_digest=bytes(32),
            checkpoint=checkpoint,
            bodies=tuple(bodies),
            moves=tuple(moves),
            pins=tuple(sorted(cid for cid in pins if cid in behind)),
        )
        self.blocks.update(blocks)
        self.segments.setdefault(self.segment, {}).update(blocks)
        self.commits.append(record)
        self.events.append(f"synced {sequence}")
        return record_cid(record), record

    def read_now(self, cid: Cid) -> bytes | None:
        if cid in self.cold:
            return None
        if cid not in self.blocks:
            raise NotFound(cid.hex())
        return self.blocks[cid]

    def read_many_now(self, cids: Sequence[Cid]) -> list[bytes | None]:
        """A few at a time, so that short pages have seams too."""
        return [None if cid in self.cold else self.blocks.get(cid) for cid in cids[:3]]

    async def read(self, cid: Cid) -> bytes:
        await asyncio.sleep(0)
        self.cold.discard(cid)
        found = self.read_now(cid)
        assert found is not None
        return found

    def prefetch(self, cids: Sequence[Cid]) -> None:
        self.prefetched += cids

    async def lacking(self, cids: Sequence[Cid]) -> Cid | None:
        await asyncio.sleep(0)
        return next((cid for cid in cids if cid not in self.blocks), None)

    @property
    def sequence(self) -> int:
        return self.commits[-1].sequence if self.commits else 0

    async def holds(self, commit: CommitRef) -> bool:
        if commit.record is None:
            return any(record.sequence == commit.sequence for record in self.commits)
        return any(record_cid(record) == commit.record for record in self.commits)

    async def commits_after(self, after: int) -> AsyncIterator[tuple[Cid, CommitRecord]]:
        for record in self.commits:
            if record.sequence > after:
                yield record_cid(record), record


def record_cid(record: CommitRecord) -> Cid:
    return b"\x01\x71\x12\x20" + sha256(encode_commit(record)).digest()
