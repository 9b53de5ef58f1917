"""Which lane hashes what: one body alone, several at once, and who waits for whom."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from ingot._speedups import digest_py
from ingot._speedups.lane_py import RecordedJob
from ingot.body import hashing
from ingot.body.hashing import BodyDigests, HashLanes
from ingot.errors import Unavailable
from ingot.limits import HASH_OFFLOAD_BYTES, HASH_SPAN_BYTES
from tests.body.support import content

SPAN = HASH_SPAN_BYTES


class HeldLane:
    """A lane that does a job when the test says so, and remembers what each fed."""

    def __init__(self) -> None:
        self.queue: list[tuple[RecordedJob, Callable[[Any], None]]] = []
        self.fed: list[list[str]] = []

    def job(self) -> RecordedJob:
        return RecordedJob()

    def submit(self, job: Any, done: Callable[[Any], None]) -> None:
        job.hold(1)
        self.fed.append([step[1].name for step in job.steps])
        self.queue.append((job, done))

    def close(self) -> None:
        self.go()

    def go(self, count: int | None = None, error: int = 0) -> None:
        while self.queue and count != 0:
            job, done = self.queue.pop(0)
            job.run()
            job.error = job.error or error
            job.hold(-1)
            job.release()
            done(job)
            count = None if count is None else count - 1


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> tuple[HeldLane, HeldLane, HashLanes]:
    monkeypatch.setattr(hashing, "digest", digest_py)
    first, second = HeldLane(), HeldLane()
    return first, second, HashLanes(first, second)


Rig = tuple[HeldLane, HeldLane, HashLanes]


def span(size: int = SPAN, seed: int = 0) -> memoryview:
    return memoryview(content(size, seed))


async def test_alone_a_body_has_sha256_on_one_lane_and_md5_on_the_other(rig: Rig) -> None:
    first, second, lanes = rig
    digests = BodyDigests(lanes, ())
    digests.add(span(), last=False)
    digests.add(span(), last=True)
    assert first.fed == [["sha256"], ["sha256"]], "the first chunk is hashed once"
    assert second.fed == [["md5"], ["md5"]]
    first.go()
    second.go()
    await digests.next_chunk()
    digests.add(span(), last=False)
    digests.add(span(), last=True)
    assert first.fed[2:] == [["sha256", "sha256"], ["sha256"], ["sha256"]]
    assert second.fed[2:] == [["md5"], ["md5"]]
    first.go()
    second.go()
    sha256, md5, _ = await digests.finish()
    data = bytes(span()) * 4
    assert (sha256, md5) == (hashlib.sha256(data).digest(), hashlib.md5(data).digest())


async def test_two_bodies_have_a_lane_each(rig: Rig) -> None:
    first, second, lanes = rig
    one, two, three = (BodyDigests(lanes, ()) for _ in range(3))
    one.add(span(HASH_OFFLOAD_BYTES), last=True)
    first.go()
    second.go()
    # All three begin while another is at work.
    lanes.bodies += 1
    for digests in (one, two, three):
        digests.add(span(), last=True)
    lanes.bodies -= 1
    assert first.fed[1:] == [["sha256"], ["md5"]] * 2
    assert second.fed[1:] == [["sha256"], ["md5"]]
    first.go()
    second.go()
    assert lanes.bodies == 0


async def test_a_body_moves_over_when_a_second_comes(rig: Rig) -> None:
    first, second, lanes = rig
    one, two = BodyDigests(lanes, ()), BodyDigests(lanes, ())
    one.add(span(), last=True)  # sha256 on the first lane, md5 on the second
    first.go()  # its CID is known, its MD5 is not
    two.add(span(), last=True)  # all on the first lane, which is quiet
    assert first.fed[1:] == [["sha256"], ["md5"]]
    moved = asyncio.ensure_future(one.next_chunk())
    await asyncio.sleep(0)
    assert not moved.done(), "its running MD5 is on the lane it leaves"
    second.go()
    await moved
    one.add(span(), last=True)
    assert second.fed[1:] == [["sha256"], ["sha256", "md5"]], "and chooses the quiet one"
    first.go()
    second.go()


async def test_a_body_left_alone_uses_both_lanes_again(rig: Rig) -> None:
    first, second, lanes = rig
    one = BodyDigests(lanes, ())
    lanes.bodies += 1
    one.add(span(), last=True)
    lanes.bodies -= 1
    assert first.fed == [["sha256"], ["md5"]] and not second.fed
    first.go(1)
    moved = asyncio.ensure_future(one.next_chunk())
    await asyncio.sleep(0)
    assert not moved.done()
    first.go()
    await moved
    one.add(span(), last=False)
    assert len(second.fed) == 1 and len(first.fed) == 3
    first.go()
    second.go()


async def test_a_body_leaves_a_crowded_lane_for_a_quieter_one(rig: Rig) -> None:
    _, _, lanes = rig
    lanes.bodies = 3
    lanes._bytes = [5 * SPAN, 0]
    assert lanes.misplaced((0, 0), own_bytes=2 * SPAN)
    assert not lanes.misplaced((0, 0), own_bytes=5 * SPAN), "nobody else is there"
    lanes._bytes = [5 * SPAN, 3 * SPAN]
    assert not lanes.misplaced((0, 0), own_bytes=2 * SPAN), "it would be as crowded there"
    assert lanes.misplaced((0, 0), own_bytes=SPAN)


async def test_small_spans_are_hashed_in_place_when_nothing_is_in_flight(rig: Rig) -> None:
    first, second, lanes = rig
    digests = BodyDigests(lanes, ("sha1", "crc32"))
    digests.add(span(HASH_OFFLOAD_BYTES - 1), last=True)
    assert not first.fed and not second.fed and digests.jobs == 0
    digests.add(span(), last=False)
    digests.add(span(10), last=True)  # behind it, so that the order holds
    assert [len(lane.queue) for lane in (first, second)] == [3, 2]
    first.go()
    second.go()
    data = bytes(span(HASH_OFFLOAD_BYTES - 1)) + bytes(span()) + bytes(span(10))
    sha256, md5, sums = await digests.finish()
    assert (sha256, md5) == (hashlib.sha256(data).digest(), hashlib.md5(data).digest())
    assert sums["sha1"] == hashlib.sha1(data).digest()


async def test_the_cid_waits_for_its_own_span_only(rig: Rig) -> None:
    first, second, lanes = rig
    digests = BodyDigests(lanes, ())
    digests.add(span(), last=True)
    chunk = digests.chunk
    cid, hashed = asyncio.ensure_future(chunk.cid()), asyncio.ensure_future(chunk.hashed())
    await asyncio.sleep(0)
    assert not cid.done()
    first.go()
    for _ in range(3):
        await asyncio.sleep(0)
    assert cid.done() and not hashed.done(), "the MD5 still reads the bytes"
    assert cid.result()[4:] == hashlib.sha256(span()).digest()
    second.go()
    await hashed
    # The first chunk's CID stays what it was when the whole goes on.
    await digests.next_chunk()
    digests.add(span(100, seed=1), last=True)
    assert await chunk.cid() == cid.result()


async def test_a_lane_that_cannot_hash_is_an_error(rig: Rig) -> None:
    first, second, lanes = rig
    digests = BodyDigests(lanes, ())
    digests.add(span(), last=True)
    first.go(error=5)
    second.go()
    with pytest.raises(Unavailable, match="digest failed"):
        await digests.chunk.cid()
    with pytest.raises(Unavailable, match="digest failed"):
        await digests.finish()
