"""The registry in memory answers as the one in Postgres does, over random histories."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ingot.errors import IngotError
from ingot.messages import CommitRef, Head, HeadMove
from ingot.registry.memory import MemoryRegistry
from ingot.registry.postgres import Postgres

NAMES = ["a", "b", "c"]
BUCKETS = [bytes([n]) * 16 for n in range(5)]
CIDS = [None, b"x" * 36, b"y" * 36]


@pytest.fixture
async def pair(emptied: str) -> AsyncIterator[tuple[Any, Any]]:
    both = (MemoryRegistry(), Postgres(emptied))
    for registry in both:
        await registry.open()
    yield both
    for registry in both:
        await registry.close()


class History:
    """Random moves, most of them possible: it remembers each bucket's head to aim well."""

    wrong = 0.15

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.names, self.buckets = list(NAMES), list(BUCKETS)
        self.standing: dict[bytes, tuple[str, Head]] = {}

    def head(self, sequence: int) -> Head:
        return Head(sequence, *(self.random.choice(CIDS) for _ in range(3)))

    def move(self, bucket: bytes) -> HeadMove:
        name, old = self.standing.get(bucket, (self.random.choice(self.names), None))
        if self.random.random() < self.wrong:  # at the wrong name, or from a head that is not there
            name = self.random.choice(self.names)
        if self.random.random() < self.wrong:
            old = self.random.choice([None, self.head(self.random.randrange(4))])
        if old is None:
            return HeadMove(bucket, name, None, self.head(self.random.choice([0, 0, 3])))
        if self.random.random() < 0.2:
            return HeadMove(bucket, name, old, None)
        return HeadMove(bucket, name, old, self.head(old.sequence + 1))

    def moves(self) -> list[HeadMove]:
        chosen = self.random.sample(self.buckets, self.random.choice([0, 1, 1, 1, 2, 3]))
        return [self.move(bucket) for bucket in chosen]

    def done(self, moves: list[HeadMove]) -> None:
        for move in moves:
            if move.new is None:
                self.standing.pop(move.bucket)
            else:
                self.standing[move.bucket] = (move.name, move.new)


class LongHistory(History):
    """Seldom wrong: names are many, and a deleted bucket is followed by another one."""

    wrong = 0.003

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.names = [f"n{n}" for n in range(1000)]

    def done(self, moves: list[HeadMove]) -> None:
        super().done(moves)
        gone = {move.bucket for move in moves if move.new is None}
        self.buckets = [self.random.randbytes(16) if b in gone else b for b in self.buckets]


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
        cid = commit.to_bytes(36, "big")
        answers = [
            (
                await outcome(registry.swapped(moves)),
                await outcome(registry.swap(token, CommitRef(commit, cid), moves)),
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


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
async def test_many_at_a_time_are_as_one_by_one(pair: tuple[Any, Any], seed: int) -> None:
    """And where one of them cannot be swapped, what stands is what some of them before it left."""
    single, many = pair
    history = LongHistory(seed)
    tokens = [await registry.acquire("one", 600.0) for registry in pair]
    commit, refused = 0, False
    while commit < 600 and not refused:
        group, states = [], [await state(single)]
        for _ in range(history.random.choice([2, 3, 20, 60])):
            commit += 1
            moves, ref = history.moves(), CommitRef(commit, commit.to_bytes(36, "big"))
            group.append((ref, moves))
            if refused:
                continue
            if await outcome(single.swap(tokens[0], ref, moves)) is None:
                history.done(moves)
                states.append(await state(single))
            else:
                refused = True
        told = await outcome(many.swap_forward(tokens[1], group))
        assert (told is not None) == refused, f"seed {seed}, commit {commit}: {group}"
        assert await state(many) in (states if refused else states[-1:]), f"seed {seed}: {group}"


async def state(registry: Any) -> object:
    return await registry.buckets(), await registry.newest_commit()
