"""The lanes of a server on a running loop, standard and uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from ingot._speedups import digest
from ingot.offload import Completion, Lanes, settled

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def on_loop(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Run a coroutine function with lanes on a fresh loop."""

    def run(main: Callable[[Lanes], Coroutine[Any, Any, Any]]) -> Any:
        async def with_lanes() -> Any:
            lanes = Lanes(asyncio.get_running_loop())
            try:
                return await main(lanes)
            finally:
                lanes.close()

        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(asyncio.wait_for(with_lanes(), 30))

    return run


def test_run_waits_for_the_job(on_loop: Callable[..., Any], tmp_path: Path) -> None:
    async def main(lanes: Lanes) -> None:
        fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        for lane in (lanes.log, lanes.body, lanes.read, lanes.hash_a, lanes.hash_b):
            job = lane.job()
            into = bytearray(3)
            job.pwrite(fd, 0, b"abc")
            job.pread(fd, 0, into)
            await lanes.run(lane, job)
            assert into == b"abc"
        os.close(fd)

    on_loop(main)


def test_a_failed_step_is_an_oserror(on_loop: Callable[..., Any]) -> None:
    async def main(lanes: Lanes) -> None:
        job = lanes.log.job()
        job.pwrite(-1, 0, b"abc")
        with pytest.raises(OSError) as caught:
            await lanes.run(lanes.log, job)
        assert caught.value.errno == errno.EBADF

    on_loop(main)


def test_many_waiters_on_every_lane(on_loop: Callable[..., Any]) -> None:
    async def main(lanes: Lanes) -> None:
        data = [bytes([at]) * 70_000 for at in range(100)]
        found = await asyncio.gather(*(lanes.sha256(each) for each in data))
        assert found == [hashlib.sha256(each).digest() for each in data]
        assert set(lanes.in_flight().values()) == {(0, 0)}

    on_loop(main)


def test_small_data_is_hashed_without_a_lane(on_loop: Callable[..., Any]) -> None:
    async def main(lanes: Lanes) -> None:
        coroutine = lanes.sha256(b"small")
        with pytest.raises(StopIteration) as caught:
            coroutine.send(None)
        assert caught.value.value == hashlib.sha256(b"small").digest()

    on_loop(main)


def test_in_flight_counts_jobs_and_bytes(on_loop: Callable[..., Any]) -> None:
    async def main(lanes: Lanes) -> None:
        job = lanes.hash_b.job()
        job.update(digest.Hasher("md5"), bytes(1000))
        waiter = asyncio.ensure_future(lanes.run(lanes.hash_b, job))
        await asyncio.sleep(0)
        assert lanes.in_flight()["hash_b"] == (1, 1000)
        assert lanes.in_flight()["hash_a"] == (0, 0)
        await waiter
        assert lanes.in_flight()["hash_b"] == (0, 0)

    on_loop(main)


def test_a_cancelled_waiter_is_cancelled_once_the_job_is_done(
    on_loop: Callable[..., Any],
) -> None:
    async def main(lanes: Lanes) -> None:
        data = bytearray(4_000_000)
        hasher = digest.Hasher("md5")
        job = lanes.hash_a.job()
        job.update(hasher, data)
        waiter = asyncio.ensure_future(lanes.run(lanes.hash_a, job))
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        data.append(0)  # the lane has given it back
        assert hasher.digest() == hashlib.md5(bytes(4_000_000)).digest()

    on_loop(main)


def test_settled_outlasts_cancellation(on_loop: Callable[..., Any]) -> None:
    async def main(lanes: Lanes) -> None:
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[None]] = [loop.create_future() for _ in range(2)]
        waiter = asyncio.ensure_future(settled(futures))
        for _ in range(3):
            await asyncio.sleep(0)
            waiter.cancel()
        await asyncio.sleep(0)
        assert not waiter.done() and not any(future.cancelled() for future in futures)
        futures[0].set_result(None)
        futures[1].set_exception(ValueError())
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert isinstance(futures[1].exception(), ValueError)
        await settled(futures)  # all done: returns, raises nothing

    on_loop(main)


def test_a_completion_cannot_be_cancelled(on_loop: Callable[..., Any]) -> None:
    async def main(lanes: Lanes) -> None:
        completion = Completion()
        assert not completion.cancel()

        async def wait() -> None:
            await completion

        waiter = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.sleep(0)
        assert not waiter.done()
        completion.set_result(None)
        with pytest.raises(asyncio.CancelledError):
            await waiter

    on_loop(main)


def test_closing_delivers_what_is_in_flight(on_loop: Callable[..., Any]) -> None:
    async def main(lanes: Lanes) -> None:
        waiters = []
        for lane in (lanes.hash_a, lanes.hash_b):
            for _ in range(3):
                job = lane.job()
                job.update(digest.Hasher("sha256"), bytes(300_000))
                waiters.append(asyncio.ensure_future(lanes.run(lane, job)))
        await asyncio.sleep(0)
        lanes.close()
        await asyncio.gather(*waiters)
        with pytest.raises(RuntimeError, match="closed"):
            await lanes.run(lanes.log, lanes.log.job())
        lanes.close()

    on_loop(main)


def test_no_descriptor_and_no_thread_is_left(on_loop: Callable[..., Any]) -> None:
    async def main(lanes: Lanes) -> int:
        return len(os.listdir("/proc/self/fd"))

    def names() -> list[str]:
        """Of the threads that the kernel or the interpreter knows."""
        known = [thread.name for thread in threading.enumerate()]
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):  # it ended just now
                known.append((task / "comm").read_text())
        return known

    assert on_loop(main) == on_loop(main)
    for _ in range(10_000):  # a joined thread may be listed until the kernel has buried it
        if not any(name.startswith("ingot-") for name in names()):
            return
    raise AssertionError(names())
