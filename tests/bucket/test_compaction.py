"""Compaction of a whole gateway's log: real segments, real objects, writes going on meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ingot.bucket.compaction import Compaction
from ingot.bucket.record import Record
from ingot.clock import SystemClock
from ingot.errors import Corruption, FormatError
from ingot.limits import MIB
from tests.bucket.life import NOW, Life


async def test_everything_is_there_afterwards_and_after_a_restart(life: Life) -> None:
    await life.fill(3)
    before = {info.number: info.bytes for info in life.segments.settled()}
    unit = await life.compact()
    assert unit.bytes < sum(before.values()) / 2
    assert [info.number for info in life.segments.settled()] == []
    await life.check()
    await life.work(20)
    await life.fsck()
    await life.stop()
    await life.start()
    await life.check()
    await life.fill(2)
    await life.compact()
    await life.check()
    await life.fsck()


async def test_writes_go_on_meanwhile(life: Life) -> None:
    await life.fill(4)
    making = asyncio.create_task(life.compact(count=2))
    await life.work(150)
    first = await making
    making = asyncio.create_task(life.compact())
    await life.work(150)
    second = await making
    assert first.last_commit + 1 == second.first_commit
    await life.check()
    await life.fsck()


async def test_the_newest_segment_with_no_commit_behind_it(life: Life) -> None:
    """What a request holds of it stays, though no commit says so yet."""
    await life.put("read", 30_000)
    data = life.objects["read"]
    record = await life.store.find(life.store.bucket("b"), b"read")
    life.store.pin(record.body)
    await life.put("read", 10)
    life.segments.seal_aged(0.0)
    await life.until_settled(1)
    newest = life.segments.settled()[-1]
    assert await life.segments.commit_after(newest) is None
    await life.compact()
    await life.store.put(life.store.bucket("b"), Record(b"copy", record.body, "e", NOW))
    life.objects["copy"] = data
    del record
    await life.check()
    await life.fsck()


async def test_segments_are_sealed_by_age(life: Life) -> None:
    life.segments.seal_aged(0.0)  # holds the creation of the bucket
    life.segments.seal_aged(0.0)  # and now nothing
    await life.until_settled(1)
    assert len(life.segments.settled()) == 1
    await life.put("small", 10)
    await life.put("large", 200_000)
    life.segments.seal_aged(3600.0)
    assert len(life.segments.settled()) == 1
    life.segments.seal_aged(0.0)
    await life.put("small", 20)
    await life.until_settled(2)
    for _ in range(100_000):
        bodies = [row.state for row in life.segments.rows() if row.stream == "body"]
        if bodies == ["sealed"]:
            break
        await asyncio.sleep(0)
    assert bodies == ["sealed"]
    await life.check()
    await life.fsck()


async def test_what_a_request_reads_survives(life: Life) -> None:
    """An object that was read, and pinned, before it was replaced within the segment."""
    await life.put("read", 30_000)
    data = life.objects["read"]
    record = await life.store.find(life.store.bucket("b"), b"read")
    life.store.pin(record.body)
    await life.put("read", 10)
    await life.fill(2)
    await life.compact()
    pieces = [bytes(piece) async for piece in life.store.read(record.body, 0, len(data))]
    assert b"".join(pieces) == data
    copy = Record(b"copy", record.body, "e", NOW)
    del record
    await life.store.put(life.store.bucket("b"), copy)
    life.objects["copy"] = data
    del copy
    await life.check()
    await life.fsck()


async def spoil_victim(life: Life, runs: bool = False) -> None:
    """Flip a bit in a live record of a settled segment; with ``runs`` the indexes go as well."""
    found = [
        (path, at)
        for path in sorted((life.directory / "segments").glob("log-*.car"))
        if (at := path.read_bytes().find(life.objects["victim"])) >= 0
    ]
    await life.stop()
    path, at = found[0]
    with path.open("r+b") as file:
        file.seek(at + 7)
        byte = file.read(1)
        file.seek(at + 7)
        file.write(bytes([byte[0] ^ 1]))
    for run in (life.directory / "segments").glob("run-*") if runs else ():
        run.unlink()
    await life.start()
    del life.objects["victim"]


async def test_compaction_alone_leaves_a_segment_with_damage(life: Life) -> None:
    await life.put("victim", 3000)
    await life.fill(1)
    await spoil_victim(life)
    await life.put("behind", 5)
    before = life.segments.settled()
    with pytest.raises(Corruption):
        await life.compact()
    assert life.segments.settled() == before
    await life.check()


def compaction(life: Life, unit_bytes: int = 3 * MIB, age_s: float = 3600.0) -> Compaction:
    return Compaction(life.segments, life.store._pins, SystemClock(), unit_bytes, age_s)


async def test_units_are_made_of_enough_segments(life: Life) -> None:
    making = compaction(life, unit_bytes=2 * MIB)
    await life.fill(1)
    assert await making.step() is None, "one of 1 MiB is not enough"
    await life.fill(5)
    while await making.step():
        pass
    assert making.made == 2 and len(life.segments.settled()) == 1
    assert await compaction(life, age_s=0.0).step() is not None, "it has waited long enough"
    assert not life.segments.settled()
    await life.check()
    await life.fsck()


async def test_it_goes_on_beside_the_work_and_past_damage(
    life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    await life.fill(1)
    await life.put("victim", 3000)
    await life.fill(3)
    await spoil_victim(life)
    making = compaction(life, unit_bytes=4 * MIB, age_s=0.0)
    running = asyncio.create_task(making.run(0.001))
    await life.work(200)
    for _ in range(100_000):
        if making.made and not life.segments.settled():
            break
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not life.segments.settled()
    assert caplog.text.count("has all that is good of log segment") == 1
    assert caplog.text.count("it is kept as log-") == 1
    (kept,) = (life.directory / "segments").glob("*.damaged")
    await life.check()
    lost = await life.lost("victim")
    assert "in no segment" in lost or "none has it" in lost
    content = kept.read_bytes()
    await life.stop()
    await life.start()
    assert any(kept.name in line for line in life.gateway.server.report)
    assert kept.read_bytes() == content
    await life.check()
    await life.put("victim", 3000)
    await life.check()


async def test_a_quarantined_segment_becomes_a_unit_too(life: Life) -> None:
    """Its index was lost, so that a start read it and knows that acknowledged frames are bad."""
    await life.put("victim", 3000)
    await life.fill(2)
    await spoil_victim(life, runs=True)
    (damaged,) = [info for info in life.segments.settled() if info.state == "quarantined"]
    making = compaction(life, age_s=0.0)
    while await making.step():
        pass
    assert not life.segments.settled()
    rows = {(row.stream, row.number): row for row in life.segments.rows()}
    unit = rows["unit", damaged.number]
    assert (unit.state, unit.first_commit) == ("sealed", damaged.first_commit)
    assert unit.last_commit == damaged.last_commit
    await life.check()
    await life.lost("victim")
    await life.stop()
    await life.start()
    await life.check()


async def test_a_block_that_nobody_can_judge_keeps_its_segment_whole(life: Life) -> None:
    """Nothing is damaged: the unit has everything, and nothing is kept beside it."""

    class Unjudged:
        def __getattr__(self, name: str) -> Any:
            return getattr(life.segments, name)

        async def read_hashed(self, cid: bytes) -> bytes:
            raise FormatError(0, "a block of ours", "one of a later version")

    await life.fill(2)
    before = life.segments.settled()[0]
    making = Compaction(Unjudged(), life.store._pins, SystemClock(), 1, 0.0)
    unit = await making.step()
    assert unit is not None and unit.bytes == before.bytes
    assert not list((life.directory / "segments").glob("*.damaged"))
    await life.check()
    await life.fsck()
