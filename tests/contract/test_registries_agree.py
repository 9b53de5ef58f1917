"""The registry in memory answers as the one in Postgres does, over random histories."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from ingot.errors import IngotError
from ingot.messages import Head, HeadMove
from ingot.registry.memory import MemoryRegistry
from ingot.registry.postgres import Postgres

NAMES = ["a", "b", "c"]
BUCKETS = [bytes([n]) * 16 for n in range(5)]
CIDS = [None, b"x" * 36, b"y" * 36]


@pytest.fixture
async def pair(postgres: str) -> AsyncIterator[tuple[Any, Any]]:
    admin = await asyncpg.connect(postgres)
    await admin.execute("DROP SCHEMA IF EXISTS ingot CASCADE")
    await admin.close()
    both = (MemoryRegistry(), Postgres(postgres))
    for registry in both:
        await registry.open()
    yield both
    for registry in both:
        await registry.close()


class History:
    """Random moves, most of them possible: it remembers each bucket's head to aim well."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.standing: dict[bytes, tuple[str, Head]] = {}

    def head(self, sequence: int) -> Head:
        return Head(sequence, *(self.random.choice(CIDS) for _ in range(3)))

    def move(self, bucket: bytes) -> HeadMove:
        name, old = self.standing.get(bucket, (self.random.choice(NAMES), None))
        if self.random.random() < 0.15:  # at the wrong name, or from a head that is not there
            name = self.random.choice(NAMES)
        if self.random.random() < 0.15:
            old = self.random.choice([None, self.head(self.random.randrange(4))])
        if old is None:
            return HeadMove(bucket, name, None, self.head(self.random.choice([0, 0, 3])))
        if self.random.random() < 0.2:
            return HeadMove(bucket, name, old, None)
        return HeadMove(bucket, name, old, self.head(old.sequence + 1))

    def moves(self) -> list[HeadMove]:
        chosen = self.random.sample(BUCKETS, self.random.choice([0, 1, 1, 1, 2, 3]))
        return [self.move(bucket) for bucket in chosen]

    def done(self, moves: list[HeadMove]) -> None:
        for move in moves:
            if move.new is None:
                self.standing.pop(move.bucket)
            else:
                self.standing[move.bucket] = (move.name, move.new)


async def outcome(call: Any) -> object:
    try:
        return await call
    except IngotError as error:
        return type(error)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
async def test_they_agree(pair: tuple[Any, Any], seed: int) -> None:
    history = History(seed)
    tokens = [await registry.acquire("one", 600.0) for registry in pair]
    done = 0
    for commit in range(1, 80):
        moves = history.moves()
        if commit % 20 == 0:
            pruned = [await registry.prune(2) for registry in pair]
            assert pruned[0] == pruned[1], f"seed {seed}, commit {commit}"
        answers = [
            (
                await outcome(registry.swapped(moves)),
                await outcome(registry.swap(token, commit, moves)),
                await outcome(registry.swapped(moves)),
            )
            for registry, token in zip(pair, tokens, strict=True)
        ]
        assert answers[0] == answers[1], f"seed {seed}, commit {commit}: {moves}"
        states = [(await registry.buckets(), await registry.newest_commit()) for registry in pair]
        assert states[0] == states[1], f"seed {seed}, commit {commit}: {moves}"
        if answers[0][1] is None:
            assert answers[0][2] is True
            history.done(moves)
            done += bool(moves)
    assert done > 10
