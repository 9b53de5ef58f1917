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
from ingot.messages import CommitRecord, Head, HeadMove
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
            await self.log.commit(token, blocks, [move], [])
            if n < swapped:
                await self.registry.swap(token, n + 1, [move])
            head = new
        return self

    @property
    def newest(self) -> CommitRecord | None:
        return self.log.commits[-1] if self.log.commits else None

    async def reconcile(self) -> Any:
        return await reconcile(self.log, self.newest, self.registry, self.token)


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
    assert len(outcome.report) == 1


async def test_same_sequence_other_head() -> None:
    world = await World().build(5, 5)
    record = world.log.commits[-1]
    assert record.moves[0].new is not None
    other = dataclasses.replace(record.moves[0].new, objects=root(99))
    move = dataclasses.replace(record.moves[0], new=other)
    world.log.commits[-1] = dataclasses.replace(record, moves=(move,))
    outcome = await world.reconcile()
    assert "another head" in outcome.buckets[0].read_only


async def test_a_history_that_does_not_join_is_corruption() -> None:
    world = await World().build(5, 3)
    record = world.log.commits[3]
    assert record.moves[0].old is not None
    other = dataclasses.replace(record.moves[0].old, objects=root(99))
    move = dataclasses.replace(record.moves[0], old=other)
    world.log.commits[3] = dataclasses.replace(record, moves=(move,))
    with pytest.raises(Corruption):
        await world.reconcile()


async def test_lost_configuration_block_makes_the_bucket_read_only() -> None:
    world = await World().build(3, 3)
    del world.log.blocks[cid_of(BLOCK)]
    outcome = await world.reconcile()
    assert "configuration block" in outcome.buckets[0].read_only
