"""A store on the simulated disk, one coroutine at a time, for tests that stage one situation."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterable, Sequence
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

from ingot.messages import BodyPosition, CommitRecord, Head, HeadMove
from ingot.segments.model import Recovered, SegmentSettings
from ingot.segments.store import SegmentStore
from tests.sim.disk import Inode, SimFiles
from tests.sim.loop import SimLoop
from tests.sim.world import LEASE, SETTINGS, STORE, SimClock, cid_of

T = TypeVar("T")

__all__ = ["LEASE", "STORE", "Machine", "blocks_of", "cid_of"]


def blocks_of(*contents: bytes) -> list[tuple[bytes, bytes]]:
    return [(cid_of(data), data) for data in contents]


class Machine:
    """``store`` is the running one; ``crash`` ends it, ``start`` brings the next."""

    def __init__(self, seed: int = 1, **settings: Any) -> None:
        self.random = Random(seed)
        self.files = SimFiles(self.random)
        self.clock = SimClock()
        self.settings: SegmentSettings = replace(SETTINGS, **settings)
        self.incarnation = 0
        self.loop = SimLoop(self.files, self.random)
        self.store: SegmentStore

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(work)

    def start(
        self, store: bytes = STORE, cold: frozenset[tuple[str, int]] = frozenset()
    ) -> Recovered:
        self.incarnation += 1
        self.loop = SimLoop(self.files, self.random)
        self.store = SegmentStore(
            self.files, self.loop.lanes, "/segments", self.settings, self.clock
        )
        return self.run(self.store.open(store, self.incarnation, cold))

    def crash(self, power: bool = False) -> None:
        self.loop.bury()
        if power:
            self.files.power_failure()
        else:
            self.files.revive()

    def stop(self) -> None:
        self.run(self.store.close())
        self.run(self.settle())
        assert not self.files.fds, "descriptors are left open"

    async def settle(self) -> None:
        """Until nothing goes on in the background."""
        await self.store._disk.settle()
        for preparer in self.store._preparers:
            if preparer._task is not None:
                await asyncio.wait([preparer._task])

    def commit(
        self,
        *contents: bytes,
        bodies: Sequence[BodyPosition] = (),
        pins: Collection[bytes] = (),
    ) -> tuple[bytes, CommitRecord]:
        return self.run(self.committing(blocks_of(*contents), bodies, pins))

    async def committing(
        self,
        blocks: Iterable[tuple[bytes, bytes]],
        bodies: Sequence[BodyPosition] = (),
        pins: Collection[bytes] = (),
    ) -> tuple[bytes, CommitRecord]:
        move = HeadMove(self.random.randbytes(16), "bucket", None, Head(0))
        return await self.store.commit(LEASE, list(blocks), [move], bodies, None, pins)

    def commits(self, after: int = 0) -> list[int]:
        """The sequences of the commits that the log holds."""

        async def found() -> list[int]:
            return [record.sequence async for _, record in self.store.commits_after(after)]

        return self.run(found())

    def upload(self, data: bytes) -> BodyPosition:
        return self.run(self.store.append_body(cid_of(data), memoryview(data)))

    def read(self, data: bytes) -> bytes:
        """The block whose content should be ``data``."""
        return self.run(self.store.read(cid_of(data)))

    # -- the disk --------------------------------------------------------------------------------

    def names(self, kind: str) -> list[str]:
        return sorted(name for name in self.files.names if name.startswith(kind))

    def file(self, name: str) -> Inode:
        return self.files.names[name]

    def spoil(self, name: str, offset: int, change: bytes = b"") -> None:
        """Damage bytes at rest, on the platter and in the cache."""
        inode = self.file(name)
        inode.sync()
        old = bytes(inode.seen[offset : offset + max(1, len(change))])
        inode.write(change or bytes(byte ^ 0x5A for byte in old), offset)
        inode.sync()
