"""Every bucket's head out of the commits alone: what a registry that was lost held (``ingot
restore``).

From the newest commit the chain is followed back; each record is found by the hash that the next
one names, so whoever believes the newest believes all. The first move of a bucket that is met is
its last, hence its head. That goes on to the commit of the newest checkpoint that can be read
whole, whose tree has the heads of all other buckets; or to the first commit.

A record that cannot be read breaks the chain; it goes on with the next one that can be found. The
moves of later commits hold whole heads, so what is lost is what the missing commits, and no later
ones, did to a bucket: that is named. Two buckets of one name show that the older was deleted there.

Where the segments came from is nothing to this module: it reads through ``History``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ingot import mst
from ingot.bucket.checkpoint import decode_head, tree_key
from ingot.codec.cid import to_text
from ingot.errors import Corruption, IngotError
from ingot.messages import BucketRow, Cid, CommitRecord, CommitRef, Head, HeadMove
from ingot.segments.commit import Checkpoint, decode_checkpoint, decode_commit

COMMITS_PER_REPORT = 100_000
COMMITS_PER_TURN = 64  # then others have theirs


class History(Protocol):
    """The part of a segment store that is read here."""

    @property
    def newest(self) -> CommitRef: ...
    async def commit_before(self, sequence: int) -> CommitRef | None: ...
    async def holds(self, commit: CommitRef) -> bool: ...
    async def read(self, cid: Cid) -> bytes: ...


@dataclass(slots=True)
class Rebuilt:
    """What the registry is to hold, and what an operator must hear: a line for each thing."""

    newest: CommitRef
    rows: list[BucketRow] = field(default_factory=list)
    incarnation: int = 1  # of the newest commit that can be read
    commits: int = 0  # that were followed
    checkpoint: int = 0  # the commit whose checkpoint was taken; 0: none
    damage: list[str] = field(default_factory=list)  # something may be lost
    remarks: list[str] = field(default_factory=list)  # nothing is


async def rebuild(
    history: History, store: bytes, say: Callable[[str], None], whole: bool = False
) -> Rebuilt:
    """The heads of ``store``. ``whole``: follow the commits to the first, and compare what they
    come to with the checkpoint. ``say`` hears how far it is. Corruption where those two differ,
    where a record is not what its place in the chain says, or where none can be read."""
    walk = _Walk(history, store, say, whole)
    await walk.run()
    return walk.outcome()


class _Walk:
    def __init__(
        self, history: History, store: bytes, say: Callable[[str], None], whole: bool
    ) -> None:
        self._history, self._store, self._say, self._whole = history, store, say, whole
        self._found = Rebuilt(history.newest)
        self._moved: dict[bytes, tuple[HeadMove, CommitRef]] = {}  # by bucket, since the checkpoint
        self._older: dict[bytes, HeadMove] = {}  # and up to it, where all commits are followed
        self._holes: list[tuple[int, int]] = []  # first and last commit that cannot be read
        self._taken: tuple[int, dict[bytes, tuple[str, Head]]] | None = None
        self._carrier = history.newest  # a commit at which the checkpoint's heads stand
        self._newest_read = CommitRef(0, None)
        self._tried: set[Cid] = set()

    async def run(self) -> None:
        wanted: CommitRef | None = self._history.newest
        assert wanted is not None
        above, broken = wanted.sequence + 1, False
        while wanted is not None and wanted.record is not None:
            record = await self._record(wanted.record, above)
            if record is None:
                broken = True
                wanted = await self._history.commit_before(wanted.sequence)
                continue
            if broken:
                self._holes.append((record.sequence + 1, above - 1))
            above, broken = record.sequence, False
            await self._take(CommitRef(record.sequence, wanted.record), record)
            if self._taken is not None and above <= self._taken[0] and not self._whole:
                break
            wanted = CommitRef(above - 1, record.previous)
        else:
            if above > 1:
                self._holes.append((1, above - 1))
        if self._found.commits == 0 and above > 1:
            raise Corruption("the log", f"{above - 1} commits", "none that can be read")
        if not await self._history.holds(self._found.newest):
            self._found.newest = self._newest_read
        self._judge()

    async def _record(self, cid: Cid, above: int) -> CommitRecord | None:
        """None, with a line, for one that cannot be read."""
        try:
            record = decode_commit(await self._history.read(cid))
        except IngotError as error:
            self._say(f"commit record {to_text(cid)} cannot be read: {error}")
            return None
        if record.store != self._store or record.sequence >= above:
            raise Corruption(
                f"commit record {to_text(cid)}",
                f"a commit below {above} of store {self._store.hex()}",
                f"commit {record.sequence} of store {record.store.hex()}",
            )
        return record

    async def _take(self, ref: CommitRef, record: CommitRecord) -> None:
        found = self._found
        if found.commits == 0:
            self._newest_read = ref
            found.incarnation = record.incarnation
        found.commits += 1
        if found.commits % COMMITS_PER_REPORT == 0:
            self._say(f"{found.commits} commits followed, from {found.newest.sequence} back")
        if found.commits % COMMITS_PER_TURN == 0:
            await asyncio.sleep(0)
        if self._taken is None and record.checkpoint not in (None, *self._tried):
            await self._try_checkpoint(record)
        if self._taken is not None and record.sequence >= self._taken[0]:
            self._carrier = ref
        for move in record.moves:
            if self._taken is None or record.sequence > self._taken[0]:
                self._moved.setdefault(move.bucket, (move, ref))
            else:
                self._older.setdefault(move.bucket, move)

    # -- the checkpoint ----------------------------------------------------------------------------

    async def _try_checkpoint(self, record: CommitRecord) -> None:
        cid = record.checkpoint
        assert cid is not None
        self._tried.add(cid)
        try:
            checkpoint = decode_checkpoint(await self._history.read(cid))
            if checkpoint.store != self._store or checkpoint.sequence > record.sequence:
                raise Corruption("a checkpoint", f"one before {record.sequence}", checkpoint)
            heads = await self._heads(checkpoint)
        except IngotError as error:
            self._found.remarks.append(
                f"the checkpoint that commit {record.sequence} names cannot be read, an earlier "
                f"one or the commits alone have to do: {error}"
            )
            return
        self._taken = checkpoint.sequence, heads
        self._found.checkpoint = checkpoint.sequence

    async def _heads(self, checkpoint: Checkpoint) -> dict[bytes, tuple[str, Head]]:
        """Name and head of every bucket, by its id."""
        heads: dict[bytes, tuple[str, Head]] = {}
        check, read = mst.TreeCheck(checkpoint.root), self._history.read
        while (wanted := check.next_wanted) is not None:
            for key, value, _ in check.feed(wanted, await read(wanted)):
                bucket, name, head = decode_head(await read(value))
                if tree_key(bucket) != key:
                    raise Corruption("a checkpoint's head", key, tree_key(bucket))
                heads[bucket] = name, head
            await asyncio.sleep(0)
        return heads

    # -- what it comes to --------------------------------------------------------------------------

    def _judge(self) -> None:
        """What the missing commits cost, and whether the checkpoint agrees with the commits."""
        at = self._taken[0] if self._taken is not None else 0
        for first, last in self._holes:
            if last <= at:
                which = _range(first, last)
                self._found.remarks.append(f"{which} cannot be read; a later checkpoint stands in")
                continue
            self._found.damage.append(
                f"{_range(max(first, at + 1), last)} cannot be read: what was done there to a "
                "bucket that no later commit moved is lost, the bucket stands as it was before (or "
                "is missing, or is back)"
            )
        if not self._whole or self._taken is None:
            return
        if any(first <= at for first, _ in self._holes):
            self._found.damage.append(
                f"the checkpoint of commit {at} was not compared: commits before it are missing"
            )
            return
        alone = {b: (move.name, move.new) for b, move in self._older.items() if move.new}
        for bucket in {*alone, *self._taken[1]}:
            if alone.get(bucket) != self._taken[1].get(bucket):
                raise Corruption(
                    f"bucket {bucket.hex()} in the checkpoint of commit {at}",
                    f"as the commits leave it, {alone.get(bucket)}",
                    self._taken[1].get(bucket),
                )

    def outcome(self) -> Rebuilt:
        rows: dict[bytes, BucketRow] = {}
        if self._taken is not None:
            for bucket, (name, head) in self._taken[1].items():
                rows[bucket] = BucketRow(bucket, name, head, self._carrier)
        for bucket, (move, ref) in self._moved.items():
            rows.pop(bucket, None)
            if move.new is not None:
                rows[bucket] = BucketRow(bucket, move.name, move.new, ref)
        by_name: dict[str, BucketRow] = {}
        for row in sorted(rows.values(), key=lambda row: row.commit.sequence):
            older = by_name.get(row.name)
            if older is not None:
                self._found.remarks.append(
                    f"bucket {row.name} of commit {older.commit.sequence} was deleted by a commit "
                    f"that cannot be read, for commit {row.commit.sequence} has another of the name"
                )
            by_name[row.name] = row
        self._found.rows = sorted(by_name.values(), key=lambda row: row.name)
        return self._found


def _range(first: int, last: int) -> str:
    return f"commit {first}" if first == last else f"commits {first} to {last}"
