"""Log and registry brought together at a start, before anything is served (design sections 5, 7).

- The registry is behind the log: the missing commits are swapped forward from their records.
- The registry is ahead: commits are missing from the log. Their buckets are read-only and reported,
  at every start until the commits are there: a bucket's row names the record of the commit that
  made its head, which is looked up in the log. That also finds a log that went another way.
- The registry is unexpectedly empty: nothing is served or deleted; ``ingot restore`` is named.
- A missing commit cannot be swapped forward: Corruption, and nothing is served.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from ingot.bucket.config_block import decode_config
from ingot.bucket.model import Bucket, BucketConfig
from ingot.errors import ConfigError, Corruption, IngotError, RootMoved, Unfetched
from ingot.limits import REPLAY_MOVES
from ingot.messages import BucketRow, Cid, CommitRecord, CommitRef, HeadMove
from ingot.ports import Registry

log = logging.getLogger("ingot.reconcile")

UNDER_WAY_MAX = 2
"""Commits that may be durable in the log and not in the registry without anything being lost: the
pipeline's depth."""


class Blocks(Protocol):
    async def read(self, cid: Cid) -> bytes: ...


class CommitHistory(Blocks, Protocol):
    """The part of the segment store that is read here."""

    @property
    def sequence(self) -> int: ...
    async def holds(self, commit: CommitRef) -> bool: ...
    def commits_after(self, after: int) -> AsyncIterator[tuple[Cid, CommitRecord]]: ...


@dataclass(slots=True)
class Reconciled:
    """Where the gateway stands. ``report`` is what an operator must hear, a line each."""

    buckets: list[Bucket]
    replayed: int = 0
    report: list[str] = field(default_factory=list)


async def reconcile(history: CommitHistory, registry: Registry, lease: bytes) -> Reconciled:
    """Raises ConfigError where nothing may be served, Corruption where log and registry contradict
    each other, Unavailable without the registry, LeaseLost."""
    in_log, newest = history.sequence, await registry.newest_commit()
    if newest.sequence == 0 and in_log > UNDER_WAY_MAX:
        raise ConfigError(
            f"the registry is empty but the log holds {in_log} commits: nothing is served and "
            "no bucket or segment was changed. Point --postgres at the right database, or rebuild "
            "this one with 'ingot restore --from-segments'."
        )
    outcome = Reconciled([])
    rows = await registry.buckets()
    lacking = {row.bucket for row in rows if not await history.holds(row.commit)}
    floor = newest.sequence
    if floor > 0 and not await history.holds(newest):
        # Another log wrote that number. What this one has under lower numbers was swapped before,
        # but for what was under way.
        floor = min(floor, max(in_log - UNDER_WAY_MAX, 0))
        outcome.report.append(
            f"the registry's newest commit, {newest.sequence}, is not in this data directory, "
            f"whose log ends at {in_log}. Bring back the newest log, or restore."
        )
    if in_log > floor:
        replay = _Replay(registry, lease, newest.sequence, lacking, outcome)
        async for cid, record in history.commits_after(floor):
            await replay.add(CommitRef(record.sequence, cid), record.moves)
        await replay.flush()
        if outcome.replayed > UNDER_WAY_MAX:
            outcome.report.append(
                f"the registry had lost its last {outcome.replayed} commits "
                f"({floor + 1} to {in_log}); they were put back from the log"
            )
        rows = await registry.buckets()
    for row in rows:
        bucket = await bucket_of(history, row, row.bucket in lacking, outcome.report)
        outcome.buckets.append(bucket)
    return outcome


@dataclass(slots=True)
class _Replay:
    """Swaps commits of the log forward, oldest first. ``known`` is the registry's newest sequence;
    buckets that are ``lacking`` commits are left where they stand."""

    registry: Registry
    lease: bytes
    known: int
    lacking: set[bytes]
    outcome: Reconciled
    waiting: list[tuple[CommitRef, list[HeadMove]]] = field(default_factory=list)
    moves: int = 0

    async def add(self, commit: CommitRef, moves: tuple[HeadMove, ...]) -> None:
        left = [move for move in moves if move.bucket not in self.lacking]
        if not left:
            return
        if commit.sequence > self.known:
            self.waiting.append((commit, left))
            self.moves += len(left)
            if self.moves >= REPLAY_MOVES:
                await self.flush()
            return
        try:
            if not await self.registry.swapped(left):
                await self.registry.swap(self.lease, commit, left)
                self.outcome.replayed += 1
        except RootMoved as error:  # if it was swapped it stands; else nobody was told it did
            self.outcome.report.append(
                f"commit {commit.sequence} of the log was left out, for the registry went on "
                f"without it: {error}"
            )

    async def flush(self) -> None:
        if not self.waiting:
            return
        try:
            await self.registry.swap_forward(self.lease, self.waiting)
        except RootMoved as error:
            first, last = self.waiting[0][0].sequence, self.waiting[-1][0].sequence
            raise Corruption(
                f"commits {first} to {last} of the log",
                "the registry at the heads before them",
                str(error),
            ) from error
        self.outcome.replayed += len(self.waiting)
        self.waiting, self.moves = [], 0


async def bucket_of(history: Blocks, row: BucketRow, lacking: bool, report: list[str]) -> Bucket:
    """The bucket of one row; read-only where the log lacks what it needs."""
    config, why = BucketConfig(owner="", owner_name="", created_ms=0, region=""), ""
    away = False
    try:
        if row.head.config is not None:
            config = decode_config(await history.read(row.head.config))
    except Unfetched as error:
        away = True
        report.append(
            f"bucket {row.name} cannot be served before the network can be reached, where its "
            f"configuration lies: {error}"
        )
    except IngotError as error:
        why = f"its configuration block cannot be read ({error})"
    if lacking:
        why = (
            f"its newest commit, {row.commit.sequence}, is missing from this data directory. Bring "
            "back the log that has it, or restore."
        )
    bucket = Bucket(row.bucket, row.name, row.head, config, away=away)
    if why:
        report.append(f"bucket {row.name} is read-only: {why}")
        bucket = replace(bucket, read_only=why)
    return bucket
