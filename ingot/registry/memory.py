"""The registry in memory (``ingot.ports.Registry``), for tests, simulation and hosts' own tests.

Behaves as ``postgres.Postgres`` does, under the same contract suite. Several registries over one
``Database`` are several gateways on one Postgres. ``Database.reachable`` takes it away, and the
hooks ``before`` and ``after`` see every call by name: they raise, wait or mutate, so a fault can
strike before a call took effect or after it, when only the answer is lost.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ingot.clock import SystemClock
from ingot.errors import ConfigError, LeaseLost, RootMoved, Unavailable
from ingot.limits import HEADS_KEPT
from ingot.messages import BucketRow, CommitRef, Damage, ForgeRoot, HeadMove, Shipment
from ingot.ports import SegmentRow as SegmentState
from ingot.registry import SegmentRow
from ingot.registry.heads import Commit, HeadRow, new_sequence, resolve, standing_for
from ingot.registry.shipments import check_roots, not_advanced

Hook = Callable[[str], Awaitable[None]]


class Ticks(Protocol):
    """The part of ``ingot.ports.Clock`` that the lease needs: the database's own time."""

    def monotonic(self) -> float: ...


@dataclass
class Database:
    """What would be in Postgres."""

    clock: Ticks = field(default_factory=SystemClock)
    wall_ms: Callable[[], int] = field(default_factory=lambda: SystemClock().now_ms)
    reachable: bool = True
    store: bytes | None = None
    lease: tuple[bytes, str, float] | None = None  # token, owner, expiry
    names: dict[str, bytes] = field(default_factory=dict)  # of live buckets
    heads: dict[bytes, list[tuple[HeadRow, CommitRef]]] = field(default_factory=dict)
    segments: dict[tuple[str, int], SegmentRow] = field(default_factory=dict)
    shipments: dict[tuple[str, int], Shipment] = field(default_factory=dict)
    forge_watermark: int = 0
    forge_network: tuple[str, str] | None = None  # service and space
    forge_roots: dict[bytes, ForgeRoot] = field(default_factory=dict)
    forge_held: dict[bytes, ForgeRoot] = field(default_factory=dict)
    damage: dict[tuple[str, int], Damage] = field(default_factory=dict)


class MemoryRegistry:
    """One gateway's registry over ``database``."""

    def __init__(
        self,
        database: Database | None = None,
        *,
        before: Hook | None = None,
        after: Hook | None = None,
        token: Callable[[], bytes] = lambda: os.urandom(16),
    ) -> None:
        self.database = database if database is not None else Database()
        self.before, self.after = before, after
        self.warnings: list[str] = []
        self._token = token
        self._is_open = False
        self._stands: HeadRow | None = None  # swapped or read last: it must stand at each swap

    async def open(self) -> None:
        self._is_open = True
        await self._enter("open")
        await self._leave("open")

    async def close(self) -> None:
        self._is_open = False

    async def _enter(self, call: str) -> Database:
        if not self._is_open:
            raise Unavailable("the registry is not open")
        if self.before is not None:
            await self.before(call)
        if not self.database.reachable:
            raise Unavailable("the database cannot be reached")
        return self.database

    async def _leave(self, call: str) -> None:
        if self.after is not None:
            await self.after(call)

    # -- whose store this is, and who may write ---------------------------------------------------

    async def store_id(self) -> bytes | None:
        database = await self._enter("store_id")
        await self._leave("store_id")
        return database.store

    async def claim(self, store: bytes) -> None:
        database = await self._enter("claim")
        if database.store is None:
            database.store = store
        await self._leave("claim")
        if database.store != store:
            raise ConfigError(
                f"the database belongs to store {database.store.hex()}, this data directory to "
                f"store {store.hex()}"
            )

    async def acquire(self, owner: str, ttl_s: float, dead: bytes | None = None) -> bytes | None:
        database = await self._enter("acquire")
        now = database.clock.monotonic()
        token = None
        if database.lease is None or database.lease[2] <= now or database.lease[0] == dead:
            token = self._token()
            database.lease = (token, owner, now + ttl_s)
        await self._leave("acquire")
        return token

    async def renew(self, token: bytes, ttl_s: float) -> None:
        database = await self._enter("renew")
        owner = self._fence(token)
        database.lease = (token, owner, database.clock.monotonic() + ttl_s)
        await self._leave("renew")

    async def release(self, token: bytes) -> None:
        database = await self._enter("release")
        if database.lease is not None and database.lease[0] == token:
            database.lease = None
        await self._leave("release")

    async def holder(self) -> tuple[str, float] | None:
        database = await self._enter("holder")
        await self._leave("holder")
        if database.lease is None:
            return None
        _, owner, expiry = database.lease
        left = expiry - database.clock.monotonic()
        return (owner, left) if left > 0 else None

    def _fence(self, token: bytes) -> str:
        """The owner, if ``token`` still is the lease's. Expired but not taken is still held."""
        lease = self.database.lease
        if lease is None or lease[0] != token:
            raise LeaseLost("the lease was taken by another gateway")
        return lease[1]

    # -- heads ------------------------------------------------------------------------------------

    async def buckets(self) -> list[BucketRow]:
        database = await self._enter("buckets")
        rows = []
        for name, bucket in sorted(database.names.items(), key=lambda item: item[0].encode()):
            row, commit = database.heads[bucket][-1]
            assert row.head is not None, "a live bucket ends in a tombstone"
            rows.append(BucketRow(bucket, name, row.head, commit))
        await self._leave("buckets")
        return rows

    async def newest_commit(self) -> CommitRef:
        database = await self._enter("newest_commit")
        await self._leave("newest_commit")
        newest = [rows[-1] for rows in database.heads.values()]
        if not newest:
            return CommitRef(0, None)
        self._stands, commit = max(newest, key=lambda row: row[1].sequence)
        return commit

    async def swap_forward(self, token: bytes, commits: Sequence[Commit]) -> None:
        for commit, moves in commits:
            await self.swap(token, commit, moves)

    async def swap(self, token: bytes, commit: CommitRef, moves: Sequence[HeadMove]) -> None:
        database = await self._enter("swap")
        self._fence(token)
        stands = self._stands
        if stands and stands not in [row for row, _ in database.heads.get(stands.bucket, ())]:
            raise LeaseLost("the database lost commits that it had")
        rows = [HeadRow(move.bucket, new_sequence(move), move.new) for move in moves]
        if len({move.bucket for move in moves}) != len(moves):
            raise RootMoved(f"commit {commit.sequence}: a bucket is moved twice")
        names = dict(database.names)
        for move in moves:
            self._check(move)
            if move.new is None:
                del names[move.name]
        for move in moves:
            if move.old is None and names.setdefault(move.name, move.bucket) != move.bucket:
                raise RootMoved(f"commit {commit.sequence}: the name {move.name} is taken")
        database.names = names
        for row in rows:
            database.heads.setdefault(row.bucket, []).append((row, commit))
        await self._leave("swap")
        self._note(moves)

    def _note(self, moves: Sequence[HeadMove]) -> None:
        if moves:
            self._stands = HeadRow(moves[-1].bucket, new_sequence(moves[-1]), moves[-1].new)

    def _check(self, move: HeadMove) -> None:
        rows = self.database.heads.get(move.bucket)
        standing = rows[-1][0].head if rows else None
        deleted = rows is not None and standing is None
        # A move is of the bucket, whatever it is called; a deletion frees the name it gives.
        misnamed = move.new is None and self.database.names.get(move.name) != move.bucket
        if deleted or standing != move.old or misnamed:
            raise RootMoved(f"bucket {move.name}: the head is not as expected")

    async def swapped(self, moves: Sequence[HeadMove]) -> bool:
        database = await self._enter("swapped")
        rows = [row for move in moves for row, _ in database.heads.get(move.bucket, ())]
        await self._leave("swapped")
        done = resolve(moves, rows)
        if done:
            self._note(moves)
        return done

    async def import_heads(
        self, token: bytes, store: bytes, newest: CommitRef, rows: Sequence[BucketRow]
    ) -> None:
        database = await self._enter("import_heads")
        self._fence(token)
        if database.heads:
            raise RootMoved("the registry holds heads already")
        if database.store is not None and database.store != store:
            raise ConfigError(f"the database belongs to store {database.store.hex()}")
        if len({row.name for row in rows}) != len(rows):
            raise RootMoved("two buckets have one name")
        heads = [(HeadRow(row.bucket, row.head.sequence, row.head), row.commit) for row in rows]
        nobody = standing_for(newest, rows, self._token())
        if nobody is not None:
            heads.append((nobody, newest))
        database.store = store
        database.names = {row.name: row.bucket for row in rows}
        database.heads = {row.bucket: [(row, commit)] for row, commit in heads}
        await self._leave("import_heads")

    async def prune(self, keep: int = HEADS_KEPT) -> int:
        database = await self._enter("prune")
        dropped = 0
        for bucket, rows in database.heads.items():
            oldest = rows[-1][0].sequence - max(keep, 1)
            kept = [row for row in rows if row[0].sequence > oldest]
            dropped += len(rows) - len(kept)
            database.heads[bucket] = kept
        await self._leave("prune")
        return dropped

    # -- segments ---------------------------------------------------------------------------------

    async def put_segment(self, row: SegmentState) -> None:
        database = await self._enter("put_segment")
        database.segments[row.stream, row.number] = _copy(row)
        await self._leave("put_segment")

    async def segments(self) -> list[SegmentState]:
        database = await self._enter("segments")
        await self._leave("segments")
        return [_copy(row) for _, row in sorted(database.segments.items())]

    # -- what is shipped --------------------------------------------------------------------------

    async def put_shipment(self, token: bytes, row: Shipment) -> None:
        database = await self._enter("put_shipment")
        self._fence(token)
        database.shipments[row.stream, row.number] = row
        await self._leave("put_shipment")

    async def shipments(self) -> list[Shipment]:
        database = await self._enter("shipments")
        await self._leave("shipments")
        return [row for _, row in sorted(database.shipments.items())]

    async def advance_forge(
        self,
        token: bytes,
        commit: int,
        roots: Sequence[ForgeRoot],
        held: Sequence[ForgeRoot] = (),
    ) -> None:
        check_roots(commit, roots, held)
        database = await self._enter("advance_forge")
        self._fence(token)
        moved = dict(database.forge_roots)
        for root in roots:
            standing = moved.pop(root.bucket, None)
            if root.head is None:
                continue
            if standing is not None and standing.head is not None:
                if standing.head.sequence >= root.head.sequence:
                    raise not_advanced(commit)
            moved[root.bucket] = root
        if database.forge_watermark >= commit:
            raise not_advanced(commit)
        database.forge_watermark, database.forge_roots = commit, moved
        for root in roots:
            database.forge_held.pop(root.bucket, None)
        database.forge_held |= {root.bucket: root for root in held}
        await self._leave("advance_forge")

    async def claim_forge(self, token: bytes, service: str, space: str) -> tuple[str, str]:
        database = await self._enter("claim_forge")
        self._fence(token)
        if database.forge_network is None or not database.shipments:
            database.forge_network = service, space
        standing = database.forge_network
        await self._leave("claim_forge")
        return standing

    async def clock_ms(self) -> int:
        database = await self._enter("clock_ms")
        now_ms = database.wall_ms()
        await self._leave("clock_ms")
        return now_ms

    async def forge_watermark(self) -> int:
        database = await self._enter("forge_watermark")
        await self._leave("forge_watermark")
        return database.forge_watermark

    async def forge_roots(self) -> list[ForgeRoot]:
        database = await self._enter("forge_roots")
        await self._leave("forge_roots")
        return [root for _, root in sorted(database.forge_roots.items())]

    async def forge_held(self) -> list[ForgeRoot]:
        database = await self._enter("forge_held")
        await self._leave("forge_held")
        return [root for _, root in sorted(database.forge_held.items())]

    async def put_damage(self, token: bytes, damage: Damage) -> None:
        database = await self._enter("put_damage")
        self._fence(token)
        database.damage[damage.stream, damage.number] = damage
        await self._leave("put_damage")

    async def damage(self) -> list[Damage]:
        database = await self._enter("damage")
        await self._leave("damage")
        return [damage for _, damage in sorted(database.damage.items())]


def _copy(row: SegmentState) -> SegmentRow:
    return SegmentRow(
        row.stream, row.number, row.state, row.bytes, row.root, row.first_commit, row.last_commit
    )
