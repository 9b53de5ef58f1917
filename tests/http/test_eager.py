"""Stepping a coroutine by hand: no task unless it waits, and then nothing is run twice."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any

import pytest

from ingot.http import eager

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def start(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    return eager.start(coroutine, asyncio.get_running_loop())


async def test_what_does_not_wait_is_done_at_once() -> None:
    steps: list[str] = []

    async def work() -> None:
        steps.append("ran")

    assert start(work()) is None
    assert steps == ["ran"]


async def test_what_waits_goes_on_where_it_was() -> None:
    steps: list[object] = []
    first = asyncio.get_running_loop().create_future()
    second = asyncio.get_running_loop().create_future()

    async def work() -> None:
        steps.append("started")
        steps.append(await first)
        steps.append(await second)
        await asyncio.sleep(0)
        async with asyncio.timeout(5):  # there is a current task by now
            await asyncio.sleep(0)
            steps.append(asyncio.current_task() is task)

    task = start(work())
    assert task is not None and steps == ["started"]
    first.set_result("one")
    second.set_result("two")
    await task
    assert steps == ["started", "one", "two", True]


async def test_a_bare_yield_is_handed_over_too() -> None:
    async def work() -> None:
        await asyncio.sleep(0)

    task = start(work())
    assert task is not None
    await task


@pytest.mark.parametrize("waits", [0, 1, 2])
async def test_errors_come_out_where_they_can_be_seen(waits: int) -> None:
    async def work() -> None:
        for _ in range(waits):
            await asyncio.sleep(0)
        raise LookupError("x")

    if waits == 0:
        with pytest.raises(LookupError):
            start(work())
    else:
        task = start(work())
        assert task is not None
        with pytest.raises(LookupError):
            await task


async def test_an_error_of_what_was_waited_for_reaches_the_coroutine() -> None:
    future = asyncio.get_running_loop().create_future()
    caught: list[str] = []

    async def work() -> None:
        try:
            await future
        except LookupError as error:
            caught.append(str(error))

    task = start(work())
    future.set_exception(LookupError("x"))
    assert task is not None
    await task
    assert caught == ["x"]


async def test_cancellation_in_the_first_wait() -> None:
    future = asyncio.get_running_loop().create_future()
    steps: list[str] = []

    async def work() -> None:
        try:
            await future
        finally:
            await asyncio.sleep(0)  # cleaning up may wait
            steps.append("cleaned up")

    task = start(work())
    assert task is not None
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert future.cancelled() and steps == ["cleaned up"]


async def test_cancellation_that_is_survived() -> None:
    future = asyncio.get_running_loop().create_future()
    other = asyncio.get_running_loop().create_future()
    steps: list[object] = []

    async def work() -> None:
        try:
            await future
        except asyncio.CancelledError:
            steps.append(await other)

    task = start(work())
    assert task is not None
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    other.set_result("went on")
    await task
    assert steps == ["went on"]


async def test_one_context_from_start_to_end_and_none_shared() -> None:
    seen: list[str] = []

    async def work(name: str) -> None:
        seen.append(VARIABLE.get())
        token = VARIABLE.set(name)
        await asyncio.sleep(0)
        seen.append(VARIABLE.get())
        VARIABLE.reset(token)  # refused where the context is another one

    tasks = [start(work("a")), start(work("b"))]
    assert VARIABLE.get() == "unset"
    for task in tasks:
        assert task is not None
        await task
    assert seen == ["unset", "unset", "a", "b"]
