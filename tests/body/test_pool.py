"""The buffer pool: its cap, its order, what comes back to it."""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import random

import pytest

from ingot.body.pool import Pool
from ingot.errors import Unavailable

SIZE = 2 * mmap.PAGESIZE


def pool(count: int = 3, **settings: float) -> Pool:
    return Pool(count, SIZE, mangle=True, **settings)  # type: ignore[arg-type]


def address(buffer: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def test_buffers_start_on_a_page_and_have_the_size() -> None:
    buffer = pool().try_acquire()
    assert buffer is not None and buffer.nbytes == SIZE and not buffer.readonly
    assert address(buffer) % mmap.PAGESIZE == 0


def test_the_cap_holds_and_counts() -> None:
    subject = pool(2)
    first, second = subject.try_acquire(), subject.try_acquire()
    assert subject.try_acquire() is None
    assert first is not None and second is not None and subject.out == 2
    subject.release(first)
    assert subject.out == 1 and subject.try_acquire() is first


def test_what_comes_back_is_overwritten_in_debug_mode() -> None:
    subject = pool(2)
    buffer = subject.try_acquire()
    assert buffer is not None
    buffer[:4] = b"data"
    stale = buffer[:4]
    subject.release(buffer)
    assert bytes(stale) == b"\xcc" * 4


def test_only_a_few_stay_warm() -> None:
    subject = pool(8, idle=2)
    buffers = [subject.try_acquire() for _ in range(8)]
    for buffer in buffers:
        assert buffer is not None
        subject.release(buffer)
    assert (subject.out, subject.idle) == (0, 2)


async def test_waiters_are_served_in_order_and_nobody_overtakes() -> None:
    subject = pool(1)
    held = await subject.acquire()
    order: list[int] = []

    async def wait(number: int) -> None:
        buffer = await subject.acquire()
        order.append(number)
        assert subject.try_acquire() is None
        subject.release(buffer)

    waiters = [asyncio.ensure_future(wait(number)) for number in range(5)]
    await asyncio.sleep(0)
    assert subject.waiting == 5
    subject.release(held)
    assert subject.try_acquire() is None, "those who wait come first"
    await asyncio.gather(*waiters)
    assert order == [0, 1, 2, 3, 4] and (subject.out, subject.waiting) == (0, 0)


@pytest.mark.parametrize("when", ["waiting", "handed over"])
async def test_a_cancelled_waiter_loses_no_buffer(when: str) -> None:
    subject = pool(1)
    held = await subject.acquire()
    first = asyncio.ensure_future(subject.acquire())
    second = asyncio.ensure_future(subject.acquire())
    await asyncio.sleep(0)
    if when == "waiting":
        first.cancel()
        await asyncio.sleep(0)
        subject.release(held)
    else:
        subject.release(held)
        first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    subject.release(await second)
    assert (subject.out, subject.waiting) == (0, 0)


async def test_a_wait_ends() -> None:
    subject = pool(1, wait_s=0.01)
    held = await subject.acquire()
    with pytest.raises(Unavailable, match="too many bodies"):
        await subject.acquire()
    assert subject.waiting == 0
    subject.release(held)
    assert subject.out == 0


@pytest.mark.parametrize("seed", range(20))
async def test_any_order_of_use_keeps_the_count(seed: int) -> None:
    chance = random.Random(seed)
    subject = pool(3, wait_s=60)
    shared: set[int] = set()

    async def use() -> None:
        for _ in range(20):
            buffer = await subject.acquire()
            assert id(buffer) not in shared, "one buffer, two users"
            shared.add(id(buffer))
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            shared.discard(id(buffer))
            subject.release(buffer)

    users = [asyncio.ensure_future(use()) for _ in range(10)]
    for _ in range(30):
        await asyncio.sleep(0)
        if chance.random() < 0.2:
            chance.choice(users).cancel()
    outcomes = await asyncio.gather(*users, return_exceptions=True)
    for outcome in outcomes:
        assert outcome is None or isinstance(outcome, asyncio.CancelledError)
    assert subject.waiting == 0 and subject.out == len(shared)
