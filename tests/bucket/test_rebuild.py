"""Heads out of commits alone: whole chains, broken ones, checkpoints that can be read or not."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from ingot import mst
from ingot.bucket.checkpoint import encode_head, tree_key
from ingot.bucket.model import Bucket, BucketConfig
from ingot.bucket.rebuild import Rebuilt, rebuild
from ingot.codec.cid import of_structure
from ingot.errors import Corruption, NotFound
from ingot.messages import BucketRow, Cid, CommitRecord, CommitRef, Head, HeadMove
from ingot.segments.commit import Checkpoint, encode_checkpoint, encode_commit

STORE = b"s" * 16
CONFIG = BucketConfig("owner", "Owner", 1, "us-east-1")


class Log:
    """A chain of commits in memory, and what a registry would hold after each of them."""

    def __init__(self, seed: int = 1) -> None:
        self.random = random.Random(seed)
        self.blocks: dict[Cid, bytes] = {}
        self.records: list[tuple[CommitRef, CommitRecord]] = []
        self.after: list[dict[bytes, BucketRow]] = [{}]  # rows after each commit
        self.checkpoints: dict[int, Cid] = {}  # by the commit that carries it
        self.newest = CommitRef(0, None)

    # -- what ``rebuild`` reads --------------------------------------------------------------------

    async def read(self, cid: Cid) -> bytes:
        if cid not in self.blocks:
            raise NotFound(cid.hex())
        return self.blocks[cid]

    async def holds(self, commit: CommitRef) -> bool:
        return any(ref == commit for ref, _ in self.records)

    async def commit_before(self, sequence: int) -> CommitRef | None:
        below = [ref for ref, _ in self.records if ref.sequence < sequence]
        return below[-1] if below else None

    # -- writing -----------------------------------------------------------------------------------

    def commit(self, *moves: HeadMove, checkpoint: bool = False) -> CommitRef:
        sequence = self.newest.sequence + 1
        rows = dict(self.after[-1])
        named = self.records[-1][1].checkpoint if self.records else None
        if checkpoint:
            heads = {bucket: (row.name, row.head) for bucket, row in rows.items()}
            heads |= {move.bucket: (move.name, move.new) for move in moves if move.new}
            gone = {move.bucket for move in moves if move.new is None}
            named = self._checkpoint(sequence, {b: h for b, h in heads.items() if b not in gone})
            self.checkpoints[sequence] = named
        record = CommitRecord(
            store=STORE,
            incarnation=3,
            lease=bytes(16),
            segment=1,
            sequence=sequence,
            time_ms=sequence,
            previous=self.newest.record,
            frames=0,
            frames_digest=bytes(32),
            checkpoint=named,
            bodies=(),
            moves=moves,
        )
        return self.add(record)

    def add(self, record: CommitRecord) -> CommitRef:
        block = encode_commit(record)
        ref = CommitRef(record.sequence, of_structure(block))
        assert ref.record is not None
        self.blocks[ref.record] = block
        self.records.append((ref, record))
        self.newest = ref
        rows = dict(self.after[-1])
        for move in record.moves:
            rows.pop(move.bucket, None)
            if move.new is not None:
                rows[move.bucket] = BucketRow(move.bucket, move.name, move.new, ref)
        self.after.append(rows)
        return ref

    def _checkpoint(self, sequence: int, heads: dict[bytes, tuple[str, Head]]) -> Cid:
        changes: list[tuple[bytes, Cid | None]] = []
        for bucket, (name, head) in sorted(heads.items()):
            block = encode_head(Bucket(bucket, name, head, CONFIG))
            self.blocks[of_structure(block)] = block
            changes.append((tree_key(bucket), of_structure(block)))
        applied = mst.apply(mst.NodeCache(1 << 20), None, changes)
        self.blocks.update(applied.blocks)
        block = encode_checkpoint(Checkpoint(STORE, 3, sequence, sequence, applied.root))
        self.blocks[of_structure(block)] = block
        return of_structure(block)

    def step(self, checkpoint: bool = False) -> CommitRef:
        """One commit: a bucket made, a few moved, or one deleted."""
        rows = self.after[-1]
        chance = self.random.random()
        if not rows or chance < 0.2:
            bucket = self.random.randbytes(16)
            return self.commit(
                HeadMove(bucket, f"b-{bucket.hex()}", None, Head(0)), checkpoint=checkpoint
            )
        if chance < 0.3:
            row = self.random.choice(list(rows.values()))
            move = HeadMove(row.bucket, row.name, row.head, None)
            return self.commit(move, checkpoint=checkpoint)
        moved = self.random.sample(list(rows.values()), min(len(rows), 2))
        return self.commit(*(self.put(row) for row in moved), checkpoint=checkpoint)

    def put(self, row: BucketRow) -> HeadMove:
        root = b"\x01\x71\x12\x20" + self.random.randbytes(32)
        return HeadMove(row.bucket, row.name, row.head, Head(row.head.sequence + 1, root))

    def lose(self, *sequences: int) -> None:
        for sequence in sequences:
            cid = self.records[sequence - 1][0].record
            assert cid is not None
            self.blocks.pop(cid, None)

    async def rebuild(self, whole: bool = False) -> Rebuilt:
        return await rebuild(self, STORE, lambda line: None, whole)


def heads(rows: list[BucketRow]) -> dict[bytes, tuple[str, Head]]:
    return {row.bucket: (row.name, row.head) for row in rows}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("seed", range(20))
async def test_a_whole_chain_gives_the_registry_back(seed: int, whole: bool) -> None:
    log = Log(seed)
    every = log.random.choice([0, 5, 13])
    for number in range(60):
        log.step(checkpoint=bool(every) and number % every == every - 1)
        found = await log.rebuild(whole)
        assert heads(found.rows) == heads(list(log.after[-1].values()))
        assert found.newest == log.newest and found.incarnation == 3
        assert not found.damage and not found.remarks
        newest = max(log.checkpoints, default=0)
        assert found.checkpoint == newest
        assert found.commits == (number + 1 if whole or not newest else number + 2 - newest)
        for row in found.rows:  # each head stands at the commit that its row names
            assert await log.holds(row.commit)
            assert log.after[row.commit.sequence][row.bucket].head == row.head


@pytest.mark.parametrize("seed", range(40))
async def test_what_no_lost_commit_did_alone_is_there(seed: int) -> None:
    log = Log(seed)
    for number in range(60):
        log.step(checkpoint=number % 17 == 16)
    lost = sorted(log.random.sample(range(1, 61), log.random.randrange(1, 12)))
    log.lose(*lost)
    if seed % 3 == 0:
        del log.blocks[log.checkpoints[51]]
    found = await log.rebuild()
    # What is known of a bucket: its newest move in a commit that can be read, or the checkpoint.
    known = {b: h for b, h in heads(list(log.after[found.checkpoint].values())).items()}
    for ref, record in log.records[found.checkpoint :]:
        for move in record.moves if ref.sequence not in lost else ():
            known.pop(move.bucket, None)
            if move.new is not None:
                known[move.bucket] = move.name, move.new
    assert heads(found.rows) == known
    assert found.newest == log.newest
    behind = [number for number in lost if number > found.checkpoint]
    named = " ".join(found.damage)
    assert bool(behind) == bool(found.damage)
    assert all(str(number) in named or len(behind) > 1 for number in behind)


async def test_the_newest_commit_cannot_be_read() -> None:
    log = Log()
    for _ in range(5):
        log.commit(HeadMove(log.random.randbytes(16), f"b{len(log.records)}", None, Head(0)))
    log.lose(4, 5)
    found = await log.rebuild()
    assert [row.name for row in found.rows] == ["b0", "b1", "b2"]
    assert found.newest == log.newest, "or a start would look for it"
    (line,) = found.damage
    assert line.startswith("commits 4 to 5 cannot be read")
    del log.records[3:]  # nor is its segment here
    found = await log.rebuild()
    assert found.newest == log.records[-1][0] and len(found.damage) == 1


async def test_two_buckets_of_one_name() -> None:
    """The older was deleted by a commit that is lost."""
    log = Log()
    log.commit(HeadMove(b"1" * 16, "box", None, Head(0)), checkpoint=True)
    log.commit(HeadMove(b"1" * 16, "box", Head(0), None))
    log.commit(HeadMove(b"2" * 16, "box", None, Head(0)))
    log.lose(2)
    found = await log.rebuild()
    assert heads(found.rows) == {b"2" * 16: ("box", Head(0))}
    assert len(found.damage) == 1 and "was deleted by a commit" in found.remarks[0]


async def test_checkpoints_that_cannot_be_read() -> None:
    log = Log()
    for number in range(40):
        log.step(checkpoint=number % 10 == 9)
    del log.blocks[log.checkpoints[40]]
    found = await log.rebuild()
    assert found.checkpoint == 30 and not found.damage and len(found.remarks) == 1
    for cid in log.checkpoints.values():
        log.blocks.pop(cid, None)
    found = await log.rebuild()
    assert found.checkpoint == 0 and found.commits == 40 and not found.damage
    assert heads(found.rows) == heads(list(log.after[-1].values()))


async def test_the_first_commits_are_missing() -> None:
    log = Log()
    for number in range(20):
        log.step(checkpoint=number == 14)
    del log.records[:10]
    log.blocks = {
        cid: block
        for cid, block in log.blocks.items()
        if not block.startswith(b"\xa1\x6eingot/commit@1")
        or any(ref.record == cid for ref, _ in log.records)
    }
    found = await log.rebuild()
    assert found.checkpoint == 15 and not found.damage
    assert heads(found.rows) == heads(list(log.after[-1].values()))
    found = await log.rebuild(whole=True)
    assert any("was not compared" in line for line in found.damage)
    del log.blocks[log.checkpoints[15]]
    found = await log.rebuild()
    assert found.damage[0].startswith("commits 1 to 10 cannot be read")


async def test_a_checkpoint_that_disagrees_with_the_commits() -> None:
    log = Log()
    for number in range(20):
        log.step(checkpoint=number == 14)
    lied = dict(heads(list(log.after[15].values())))
    bucket, (name, head) = lied.popitem()
    lied[bucket] = name, replace(head, sequence=head.sequence + 1)
    cid = log._checkpoint(15, lied)
    ref, record = log.records[-1]
    log.records.pop()
    log.after.pop()
    log.newest = log.records[-1][0]
    log.add(replace(record, checkpoint=cid))
    assert (await log.rebuild()).checkpoint == 15
    with pytest.raises(Corruption, match=f"bucket {bucket.hex()} in the checkpoint of commit 15"):
        await log.rebuild(whole=True)


@pytest.mark.parametrize("whole", [False, True])
async def test_numbers_that_were_used_elsewhere(whole: bool) -> None:
    """A log that lacked commits which the registry had went on behind their numbers."""
    log = Log()
    for number in range(10):
        log.step(checkpoint=number == 4)
    log.newest = CommitRef(15, log.newest.record)
    ref = log.step()
    assert ref.sequence == 16
    found = await log.rebuild(whole)
    assert heads(found.rows) == heads(list(log.after[-1].values()))
    assert found.newest == ref and not found.damage


async def test_records_that_do_not_belong_there() -> None:
    log = Log()
    for _ in range(3):
        log.step()
    for change in ({"store": b"x" * 16}, {"sequence": 9}):
        odd = Log()
        odd.step()
        ref, record = odd.records.pop()
        odd.add(replace(record, **change))
        odd.newest = replace(odd.newest, sequence=1)
        with pytest.raises(Corruption):
            await odd.rebuild()
    log.lose(1, 2, 3)
    with pytest.raises(Corruption, match="none that can be read"):
        await log.rebuild()
