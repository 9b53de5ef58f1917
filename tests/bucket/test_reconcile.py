"""Log and registry at a start: behind, ahead, empty, contradicting."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ingot.bucket.config_block import encode_config
from ingot.bucket.model import BucketConfig
from ingot.bucket.reconcile import reconcile
from ingot.bucket.record import cid_of
from ingot.errors import ConfigError, Corruption
from ingot.messages import CommitRef, Head, HeadMove
from ingot.registry.memory import Database, MemoryRegistry
from tests.support.fakelog import FakeLog

CONFIG = BucketConfig("owner", "Owner", 1, "us-east-1")
BLOCK = encode_config(CONFIG)
ID = b"b" * 16


def root(n: int) -> bytes:
    return b"\x01\x71\x12\x20" + bytes([n]) * 32


class World:
    """A log with ``commits`` commits to one bucket, a registry that saw the first ``swapped``."""

    def __init__(self) -> None:
        self.log = FakeLog()
        self.registry = MemoryRegistry(Database())

    async def build(self, commits: int, swapped: int) -> World:
        await self.registry.open()
        token = await self.registry.acquire("test", 60.0)
        assert token is not None
        self.token = token
        head: Head | None = None
        for n in range(commits):
            new = Head(n, root(n) if n else None, None, cid_of(BLOCK))
            move = HeadMove(ID, "b", head, new)
            blocks = [(cid_of(BLOCK), BLOCK)] if n == 0 else []
            cid, _ = await self.log.commit(token, blocks, [move], [])
            if n < swapped:
                await self.registry.swap(token, CommitRef(n + 1, cid), [move])
            head = new
        return self

    async def reconcile(self) -> Any:
        return await reconcile(self.log, self.registry, self.token)

    async def commit(self, move: HeadMove, swapped: bool = True) -> None:
        """One more."""
        cid, record = await self.log.commit(self.token, [], [move], [])
        if swapped:
            await self.registry.swap(self.token, CommitRef(record.sequence, cid), [move])


async def test_nothing_at_all() -> None:
    outcome = await (await World().build(0, 0)).reconcile()
    assert outcome.buckets == [] and outcome.report == []


async def test_equal() -> None:
    outcome = await (await World().build(5, 5)).reconcile()
    (bucket,) = outcome.buckets
    assert bucket.config == CONFIG and bucket.head.sequence == 4 and not bucket.read_only
    assert outcome.replayed == 0


@pytest.mark.parametrize("swapped", [3, 4])
async def test_commits_under_way_are_swapped_forward_quietly(swapped: int) -> None:
    world = await World().build(5, swapped)
    outcome = await world.reconcile()
    assert outcome.buckets[0].head == Head(4, root(4), None, cid_of(BLOCK))
    assert outcome.replayed == 5 - swapped and outcome.report == []
    assert (await world.registry.buckets())[0].head.sequence == 4


async def test_the_first_commits_of_a_new_store() -> None:
    outcome = await (await World().build(2, 0)).reconcile()
    assert outcome.buckets[0].head.sequence == 1


async def test_registry_that_lost_its_last_commits_gets_them_back_and_it_is_said() -> None:
    outcome = await (await World().build(30, 10)).reconcile()
    assert outcome.buckets[0].head.sequence == 29 and outcome.replayed == 20
    assert "last 20 commits (11 to 30)" in outcome.report[0]


async def test_empty_registry_is_left_alone() -> None:
    world = await World().build(10, 0)
    with pytest.raises(ConfigError, match="ingot restore"):
        await world.reconcile()
    assert await world.registry.buckets() == []


async def test_registry_ahead_makes_the_bucket_read_only() -> None:
    world = await World().build(10, 10)
    del world.log.commits[7:]
    outcome = await world.reconcile()
    (bucket,) = outcome.buckets
    assert "missing from this data directory" in bucket.read_only
    assert bucket.head.sequence == 9
    newest, of_bucket = outcome.report
    assert "newest commit, 10, is not in this data directory, whose log ends at 7" in newest
    assert "bucket b is read-only" in of_bucket


async def test_later_commits_do_not_hide_what_is_missing() -> None:
    world = await World().build(10, 10)
    del world.log.commits[7:9]
    move = world.log.commits.pop().moves[0]
    for n in range(3):  # of other buckets, numbered on from what the registry knows
        await world.log.commit(
            world.token, [], [HeadMove(bytes([n]) * 16, f"c{n}", None, Head(0))], []
        )
        world.log.commits[-1] = dataclasses.replace(world.log.commits[-1], sequence=11 + n)
    outcome = await world.reconcile()
    assert outcome.replayed == 3
    by_name = {bucket.name: bucket for bucket in outcome.buckets}
    assert "newest commit, 10, is missing" in by_name["b"].read_only
    assert by_name["b"].head == move.new
    assert [by_name[f"c{n}"].read_only for n in range(3)] == ["", "", ""]


@pytest.mark.parametrize("of_deletion", [False, True])
async def test_another_log_took_the_number_of_a_commit_under_way(of_deletion: bool) -> None:
    """A copy of the data directory served meanwhile: what it wrote is not here, and what was under
    way here is still put in where nothing stands against it."""
    world = await World().build(5, 5)
    ours = HeadMove(b"c" * 16, "c", None, Head(0, None, None, None))
    await world.commit(ours, swapped=False)
    head = Head(4, root(4), None, cid_of(BLOCK))
    theirs = HeadMove(ID, "b", head, None if of_deletion else Head(5, root(77)))
    await world.registry.swap(world.token, CommitRef(6, root(66)), [theirs])
    outcome = await world.reconcile()
    by_name = {bucket.name: bucket for bucket in outcome.buckets}
    assert by_name["c"].head == ours.new and not by_name["c"].read_only
    assert outcome.replayed == 1
    if of_deletion:
        assert set(by_name) == {"c"}
    else:
        assert "missing from this data directory" in by_name["b"].read_only
        assert by_name["b"].head.objects == root(77)
    assert "newest commit, 6, is not in this data directory" in outcome.report[0]


async def test_another_log_moved_the_same_bucket() -> None:
    world = await World().build(5, 5)
    head = Head(4, root(4), None, cid_of(BLOCK))
    await world.commit(HeadMove(ID, "b", head, Head(5, root(5))), swapped=False)
    theirs = HeadMove(ID, "b", head, None)
    await world.registry.swap(world.token, CommitRef(6, root(66)), [theirs])
    outcome = await world.reconcile()
    assert outcome.buckets == [] and outcome.replayed == 0
    assert any("commit 6 of the log" in line for line in outcome.report)


async def test_rows_from_before_records_were_kept_are_judged_by_number() -> None:
    world = await World().build(10, 10)
    rows = world.registry.database.heads[ID]
    rows[:] = [(row, CommitRef(commit.sequence, None)) for row, commit in rows]
    assert (await world.reconcile()).report == []
    del world.log.commits[7:]
    outcome = await world.reconcile()
    assert "newest commit, 10, is missing" in outcome.buckets[0].read_only


async def test_same_sequence_other_head() -> None:
    world = await World().build(5, 5)
    record = world.log.commits[-1]
    assert record.moves[0].new is not None
    other = dataclasses.replace(record.moves[0].new, objects=root(99))
    move = dataclasses.replace(record.moves[0], new=other)
    world.log.commits[-1] = dataclasses.replace(record, moves=(move,))
    outcome = await world.reconcile()
    assert "missing from this data directory" in outcome.buckets[0].read_only
    assert outcome.buckets[0].head == record.moves[0].new


async def test_a_history_that_does_not_join_is_corruption() -> None:
    world = await World().build(5, 3)
    record = world.log.commits[3]
    assert record.moves[0].old is not None
    other = dataclasses.replace(record.moves[0].old, objects=root(99))
    move = dataclasses.replace(record.moves[0], old=other)
    world.log.commits[3] = dataclasses.replace(record, moves=(move,))
    with pytest.raises(Corruption):
        await world.reconcile()


async def test_creations_and_deletions_are_put_back_too() -> None:
    world = await World().build(3, 3)
    for n in range(30):
        await world.commit(HeadMove(bytes([n]) * 16, f"c{n}", None, Head(0)), swapped=False)
        if n % 3 == 0:
            await world.commit(HeadMove(bytes([n]) * 16, f"c{n}", Head(0), None), swapped=False)
    outcome = await world.reconcile()
    assert outcome.replayed == 40
    names = {f"c{n}" for n in range(30) if n % 3} | {"b"}
    assert {bucket.name for bucket in outcome.buckets} == names


async def test_a_long_replay_goes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingot.bucket.reconcile.REPLAY_MOVES", 4)
    world = await World().build(30, 3)
    sizes = []
    swap_forward = world.registry.swap_forward

    async def counted(token: bytes, commits: Any) -> None:
        sizes.append(len(commits))
        await swap_forward(token, commits)

    monkeypatch.setattr(world.registry, "swap_forward", counted)
    outcome = await world.reconcile()
    assert outcome.replayed == 27 and sizes == [4] * 6 + [3]
    assert outcome.buckets[0].head.sequence == 29


async def test_lost_configuration_block_makes_the_bucket_read_only() -> None:
    world = await World().build(3, 3)
    del world.log.blocks[cid_of(BLOCK)]
    outcome = await world.reconcile()
    assert "configuration block" in outcome.buckets[0].read_only
