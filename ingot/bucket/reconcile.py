"""Log and registry brought together at a start, before anything is served (design sections 5, 7).

- The registry is behind the log: the missing commits are swapped forward from their records.
- The registry is ahead: commits are missing from the log. Their buckets are read-only and reported.
- The registry is unexpectedly empty: nothing is served or deleted; ``ingot restore`` is named.
- Both at one sequence with different heads: the bucket is read-only and reported; where it keeps
  missing commits from being swapped forward, Corruption, and nothing is served.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from ingot.bucket.config_block import decode_config
from ingot.bucket.model import Bucket, BucketConfig
from ingot.errors import ConfigError, Corruption, IngotError, RootMoved
from ingot.messages import BucketRow, Cid, CommitRecord
from ingot.ports import Registry

log = logging.getLogger("ingot.reconcile")

UNDER_WAY_MAX = 2
"""Commits that may be durable in the log and not in the registry without anything being lost: the
pipeline's depth."""


class CommitHistory(Protocol):
    """The part of the segment store that is read here."""

    def scan_commits(self, after: int) -> Iterable[tuple[Cid, CommitRecord]]: ...
    async def read(self, cid: Cid) -> bytes: ...


@dataclass(slots=True)
class Reconciled:
    """Where the gateway stands. ``report`` is what an operator must hear, a line each."""

    buckets: list[Bucket]
    replayed: int = 0
    report: list[str] = field(default_factory=list)


async def reconcile(
    history: CommitHistory,
    newest: CommitRecord | None,
    registry: Registry,
    lease: bytes,
    in_log: int | None = None,
) -> Reconciled:
    """``newest`` is the newest commit of the log; ``in_log`` its sequence, known even where
    the record itself is damaged. Raises ConfigError where nothing may be served,
    Corruption where log and registry contradict each other, Unavailable without the registry."""
    if in_log is None:
        in_log = newest.sequence if newest is not None else 0
    rows = await registry.buckets()
    in_registry = await registry.newest_commit()
    if in_registry == 0 and in_log > UNDER_WAY_MAX:
        raise ConfigError(
            f"the registry is empty but the log holds {in_log} commits: nothing is served and "
            "nothing was changed. Point --postgres at the right database, or rebuild this one "
            "with 'ingot restore --from-segments'."
        )
    outcome = Reconciled([])
    standing = [in_registry, *(row.commit for row in rows)]
    floor = max((commit for commit in standing if commit <= in_log), default=0)
    if in_registry > in_log:  # what is in the log was swapped, but for what was under way
        floor = max(floor, in_log - UNDER_WAY_MAX)
    missed = list(history.scan_commits(floor)) if in_log > floor else []
    for _, record in reversed(missed):
        outcome.replayed += await _swap_forward(registry, lease, record)
    if missed:
        if len(missed) > UNDER_WAY_MAX:
            outcome.report.append(
                f"the registry had lost its last {len(missed)} commits "
                f"({floor + 1} to {in_log}); they were put back from the log"
            )
        rows = await registry.buckets()
    contradicted = _contradicted(newest, rows) if newest is not None else {}
    for row in rows:
        why = contradicted.get(row.bucket, "")
        outcome.buckets.append(await _bucket(history, row, in_log, why, outcome.report))
    return outcome


async def _swap_forward(registry: Registry, lease: bytes, record: CommitRecord) -> bool:
    """Whether the commit had to be swapped."""
    try:
        if not record.moves or await registry.swapped(record.moves):
            return False
        await registry.swap(lease, record.sequence, record.moves)
        return True
    except RootMoved as error:
        raise Corruption(
            f"commit {record.sequence} of the log",
            "the registry at the heads before or after it",
            str(error),
        ) from error


def _contradicted(newest: CommitRecord, rows: list[BucketRow]) -> dict[bytes, str]:
    """Buckets of the newest commit that stand at its sequence with another head, and why that
    makes them read-only."""
    by_id = {row.bucket: row for row in rows}
    found = {}
    for move in newest.moves:
        row = by_id.get(move.bucket)
        if row is None or move.new is None or row.head.sequence != move.new.sequence:
            continue
        if row.head != move.new:
            found[row.bucket] = (
                f"at sequence {row.head.sequence} the registry holds another head than commit "
                f"{newest.sequence} of the log: one of the two is not this store's history"
            )
    return found


async def _bucket(
    history: CommitHistory, row: BucketRow, in_log: int, why: str, report: list[str]
) -> Bucket:
    """The bucket of one row; read-only where the log lacks what it needs."""
    config = BucketConfig(owner="", owner_name="", created_ms=0, region="")
    try:
        if row.head.config is not None:
            config = decode_config(await history.read(row.head.config))
    except IngotError as error:
        why = why or f"its configuration block cannot be read ({error})"
    if row.commit > in_log:
        why = (
            f"its newest commit is {row.commit} and the log ends at {in_log}: "
            "the commits between are missing from this data directory"
        )
    bucket = Bucket(row.bucket, row.name, row.head, config)
    if why:
        report.append(f"bucket {row.name} is read-only: {why}")
        bucket = replace(bucket, read_only=why)
    return bucket
