"""The loop stays awake for a quick commit, and only for that."""

from __future__ import annotations

import asyncio
import os

import pytest

from ingot.bucket.busy_poll import BusyPoll


class StillClock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def boottime(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    return StillClock()


async def turns_made(poll: BusyPoll, count: int = 20) -> int:
    before = poll.turns
    for _ in range(count):
        await asyncio.sleep(0)
    return poll.turns - before


async def commits(
    poll: BusyPoll, clock: StillClock, count: int, plain_s: float, polled_s: float
) -> int:
    """Make commits that take so long, depending on whether they are polled; how many were."""
    polled = 0
    for _ in range(count):
        began = poll.begin()
        was_polled = await turns_made(poll, 3) > 1
        polled += was_polled
        clock.now += polled_s if was_polled else plain_s
        poll.end(began)
        await asyncio.sleep(0)
    return polled


async def warmed(clock: StillClock) -> BusyPoll:
    """One that has found out that polling pays."""
    poll = BusyPoll(clock, 0.002)
    await commits(poll, clock, 20, 0.001, 0.0006)
    return poll


async def test_the_loop_turns_until_the_commit_is_over(clock: StillClock) -> None:
    poll = await warmed(clock)
    began = poll.begin()
    assert await turns_made(poll) >= 19
    poll.end(began)
    assert await turns_made(poll) <= 1


async def test_others_are_served_meanwhile(clock: StillClock) -> None:
    poll = await warmed(clock)
    began = poll.begin()
    reader, writer = os.pipe()
    arrived = asyncio.Event()
    asyncio.get_running_loop().add_reader(reader, arrived.set)
    try:
        os.write(writer, b"x")
        await asyncio.wait_for(arrived.wait(), 10)
        assert poll.turns
    finally:
        asyncio.get_running_loop().remove_reader(reader)
        os.close(reader)
        os.close(writer)
        poll.end(began)


async def test_two_commits_share_the_turns(clock: StillClock) -> None:
    poll = await warmed(clock)
    first, second = poll.begin(), poll.begin()
    assert await turns_made(poll) <= 20
    poll.end(first)
    assert await turns_made(poll) >= 19
    poll.end(second)
    assert await turns_made(poll) <= 1


async def test_a_commit_that_takes_long_is_slept_through(clock: StillClock) -> None:
    poll = await warmed(clock)
    poll.begin()
    assert await turns_made(poll) >= 19
    clock.now += 0.003
    assert await turns_made(poll) <= 1


async def test_where_commits_are_slow_the_loop_sleeps(clock: StillClock) -> None:
    poll = BusyPoll(clock, 0.002)
    assert await commits(poll, clock, 200, 0.010, 0.009) == 0


async def test_where_polling_pays_it_is_done(clock: StillClock) -> None:
    poll = BusyPoll(clock, 0.002)
    assert await commits(poll, clock, 1000, 0.001, 0.0006) > 850


async def test_where_polling_makes_commits_slower_it_ends(clock: StillClock) -> None:
    """Somebody else wants the processor: Postgres, a neighbour, a quota."""
    poll = await warmed(clock)
    await commits(poll, clock, 200, 0.001, 0.0015)
    assert await commits(poll, clock, 1000, 0.001, 0.0015) < 150
    await commits(poll, clock, 500, 0.001, 0.0006)  # and begins again once that is over
    assert await commits(poll, clock, 1000, 0.001, 0.0006) > 850


@pytest.mark.parametrize(("processors", "limit_s"), [({0}, 0.002), ({0, 1}, 0.0)])
async def test_never(monkeypatch: pytest.MonkeyPatch, processors: set[int], limit_s: float) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: processors)
    clock = StillClock()
    poll = BusyPoll(clock, limit_s)
    assert await commits(poll, clock, 200, 0.001, 0.0005) == 0
