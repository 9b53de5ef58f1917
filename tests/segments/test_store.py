"""What the segment store promises its callers, on the simulated disk."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest

from ingot.errors import Corruption, NotFound, RequestError, Unavailable
from ingot.limits import READ_MANY_BLOCKS, READ_MANY_BYTES
from ingot.messages import CommitRecord
from ingot.segments import format
from ingot.segments.commit import decode_commit
from ingot.segments.model import Location, Row
from tests.segments.machine import LEASE, STORE, Machine, blocks_of, cid_of
from tests.sim.disk import SimFiles


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    assert machine.start().newest is None
    yield machine
    machine.crash()


def test_a_commit_can_be_read_and_survives_a_clean_stop(machine: Machine) -> None:
    cid, record = machine.commit(b"one", b"two")
    assert (record.sequence, record.previous, record.frames) == (1, None, 2)
    assert (record.store, record.lease, record.incarnation) == (STORE, LEASE, 1)
    digest = sha256(cid_of(b"one") + cid_of(b"two")).digest()
    assert record.frames_digest == digest
    assert machine.read(b"one") == b"one"
    assert decode_commit(machine.run(machine.store.read(cid))) == record
    machine.stop()
    found = machine.start()
    assert found.newest == (cid, record) and not found.problems
    assert not found.commits, "nothing was left open"
    assert machine.read(b"two") == b"two"
    second = machine.commit(b"three")
    assert (second[1].sequence, second[1].previous, second[1].incarnation) == (2, cid, 2)
    assert second[1].segment > record.segment, "a segment is never appended to after a start"


def test_a_commit_is_not_to_be_found_before_its_sync_returned(machine: Machine) -> None:
    async def look() -> None:
        commit = asyncio.get_running_loop().create_task(machine.committing(blocks_of(b"new")))
        seen = []
        while not commit.done():
            seen.append((cid_of(b"new") in machine.store, machine.store.statistics.log_syncs))
            await asyncio.sleep(0)
        assert (True, 0) not in seen and (False, 0) in seen
        assert cid_of(b"new") in machine.store

    machine.run(look())


def test_commits_go_one_at_a_time(machine: Machine) -> None:
    async def two() -> None:
        first = asyncio.get_running_loop().create_task(machine.committing(blocks_of(b"1")))
        await asyncio.sleep(0)
        with pytest.raises(AssertionError, match="one at a time"):
            await machine.committing(blocks_of(b"2"))
        await first

    machine.run(two())


def test_a_cancelled_commit_is_durable_and_in_the_chain(machine: Machine) -> None:
    """The bytes are with the log lane: losing interest in them changes nothing."""

    submitted = asyncio.Event()
    submit = machine.loop.lanes.log.submit

    def watched(job: Any, done: Any) -> None:
        submitted.set()
        submit(job, done)

    machine.loop.lanes.log.submit = watched  # type: ignore[method-assign]

    async def cancel() -> None:
        commit = asyncio.get_running_loop().create_task(machine.committing(blocks_of(b"x" * 50)))
        await submitted.wait()
        commit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await commit

    machine.run(cancel())
    assert machine.read(b"x" * 50) == b"x" * 50
    _, record = machine.commit(b"next")
    assert record.sequence == 2
    machine.crash(power=True)
    found = machine.start()
    assert [sequence for _, sequence in found.commits] == [1, 2]


def test_a_block_is_written_once_a_segment_and_again_in_the_next(machine: Machine) -> None:
    machine.commit(b"tree node", b"a")
    _, record = machine.commit(b"tree node", b"b", b"b")
    assert record.frames == 1 and machine.store.statistics.repeated == 2
    first = machine.store.find(cid_of(b"tree node"))
    while machine.store.statistics.rotations == 0:
        machine.commit(machine.random.randbytes(5000))
    _, record = machine.commit(b"tree node")
    assert record.frames == 1
    machine.run(machine.settle())  # the first segment is sealed: the open one is asked first
    later = machine.store.find(cid_of(b"tree node"))
    assert isinstance(first, Location) and isinstance(later, Location)
    assert later.number > first.number


def test_the_first_commit_behind_a_segment_names_what_is_pinned_of_it(machine: Machine) -> None:
    first, elsewhere = cid_of(b"read by a request"), cid_of(b"a chunk of a body segment")
    _, record = machine.commit(b"read by a request", pins=[first])
    assert record.pins == (), "nothing was closed"
    while machine.store.statistics.rotations == 0:
        assert machine.commit(machine.random.randbytes(5000), pins=[first])[1].pins == ()
    assert machine.commit(b"next", pins=[elsewhere, first])[1].pins == (first,)
    assert machine.commit(b"after", pins=[elsewhere, first])[1].pins == ()


def test_a_segment_that_a_fault_closed_has_its_pins_named_too(machine: Machine) -> None:
    machine.commit(b"read by a request")
    real, left = SimFiles.fdatasync, [1]

    def refused(files: SimFiles, fd: int) -> None:
        if left and "log-00000000000000000001.car" in [
            name for name, inode in files.names.items() if inode is files.fds.get(fd)
        ]:
            left.pop()
            raise OSError(errno.EIO, "refused")
        real(files, fd)

    machine.files.fdatasync = refused.__get__(machine.files)  # type: ignore[method-assign]
    _, record = machine.commit(b"next", pins=[cid_of(b"read by a request")])
    assert record.segment == 2 and record.pins == (cid_of(b"read by a request"),)
    assert machine.commit(b"after", pins=[cid_of(b"next")])[1].pins == ()


def test_rotation_seals_behind_the_writer(machine: Machine) -> None:
    rows: list[Row] = []
    machine.store.on_change = rows.append
    contents = [machine.random.randbytes(6000) for _ in range(12)]
    last: dict[int, tuple[bytes, CommitRecord]] = {}
    for content in contents:
        cid, record = machine.commit(content)
        last[record.segment] = cid, record
    machine.run(machine.settle())
    sealed = [row for row in rows if row.state == "sealed"]
    assert len(sealed) == machine.store.statistics.rotations >= 2
    for row in sealed:
        assert row.root == last[row.number][0]
        assert row.last_commit == last[row.number][1].sequence
        file = machine.file(format.file_name("log", row.number))
        assert len(file.seen) == row.bytes, "cut to the logical length"
        assert format.root_of(bytes(file.seen)) == row.root
    opened = {row.number for row in rows if row.state == "open"}
    assert opened == set(last)
    assert [row for row in machine.store.rows() if row.state == "sealed"] == sealed
    assert all(machine.read(content) == content for content in contents)
    assert machine.commits() == list(range(1, 13))
    assert machine.commits(9) == [10, 11, 12] and machine.commits(12) == []


def test_a_batch_too_large_for_the_rest_of_a_segment_opens_the_next(machine: Machine) -> None:
    machine.commit(machine.random.randbytes(20_000))
    _, record = machine.commit(*(machine.random.randbytes(15_000) for _ in range(4)))
    assert record.segment == 2
    with pytest.raises(RequestError):
        machine.commit(*(machine.random.randbytes(15_000) for _ in range(5)))
    _, record = machine.commit(b"goes on")
    assert record.sequence == 3


def test_a_sealed_segment_is_a_car_file_that_other_tools_read(machine: Machine) -> None:
    import dag_cbor

    cid, _ = machine.commit(b"block")
    machine.upload(b"chunk" * 2000)
    machine.stop()
    for name, root in (("log", cid), ("body", format.PLACEHOLDER)):
        data = bytes(machine.file(machine.names(name)[0]).seen)
        assert data[0] == format.HEADER_BYTES - 1
        header = dag_cbor.decode(data[1 : format.HEADER_BYTES])
        assert isinstance(header, dict) and header["version"] == 1
        assert bytes(header["roots"][0]) == root  # type: ignore[index,call-overload]


# -- bodies ----------------------------------------------------------------------------------------


def test_a_chunk_can_be_read_before_it_is_durable(machine: Machine) -> None:
    data = machine.random.randbytes(9000)
    position = machine.upload(data)
    assert machine.store.statistics.body_syncs == 0 and machine.read(data) == data
    machine.run(machine.store.sync_bodies([position]))
    assert machine.store.statistics.body_syncs == 1
    machine.run(machine.store.sync_bodies([position]))
    assert machine.store.statistics.body_syncs == 1, "it is durable already"
    assert machine.upload(data) == position, "the open segment has it"


def test_one_sync_serves_all_who_wait(machine: Machine) -> None:
    async def many() -> None:
        loop = asyncio.get_running_loop()
        chunks = [machine.random.randbytes(100) for _ in range(8)]
        positions = [
            await machine.store.append_body(cid_of(chunk), memoryview(chunk)) for chunk in chunks
        ]
        waits = [loop.create_task(machine.store.sync_bodies([each])) for each in positions]
        await asyncio.sleep(0)
        waits[0].cancel()
        for wait in waits[1:]:
            await wait

    machine.run(many())
    assert machine.store.statistics.body_syncs == 1


def test_a_commit_syncs_the_bodies_it_names(machine: Machine) -> None:
    data = machine.random.randbytes(12_000)
    position = machine.upload(data)
    machine.commit(b"record", bodies=[position])
    machine.crash(power=True)
    found = machine.start()
    assert found.newest is not None and found.newest[1].bodies == (position,)
    assert not found.problems
    assert machine.read(data) == data


def test_uploads_side_by_side_across_rotations(machine: Machine) -> None:
    chunks = [[machine.random.randbytes(7000) for _ in range(6)] for _ in range(5)]

    async def upload(mine: list[bytes]) -> None:
        positions = [
            await machine.store.append_body(cid_of(chunk), memoryview(chunk)) for chunk in mine
        ]
        await machine.store.sync_bodies(positions)
        for chunk in mine:
            assert await machine.store.read(cid_of(chunk)) == chunk

    async def everybody() -> None:
        loop = asyncio.get_running_loop()
        for task in [loop.create_task(upload(mine)) for mine in chunks]:
            await task

    machine.run(everybody())
    machine.crash(power=True)
    machine.start()
    assert all(machine.read(chunk) == chunk for mine in chunks for chunk in mine)


# -- reading ---------------------------------------------------------------------------------------


def test_a_part_of_a_block(machine: Machine) -> None:
    data = machine.random.randbytes(15_000)
    machine.upload(data)
    machine.stop()
    for after_start in (True, False):
        if after_start:
            machine.start()
        for start, length in ((0, 15_000), (14_999, 1), (15_000, 0), (4000, 5000)):
            part = bytearray(length)
            machine.run(machine.store.read_part(cid_of(data), start, memoryview(part)))
            assert part == data[start : start + length]
    assert machine.store.statistics.verified == 1
    with pytest.raises(Corruption, match="bytes up to 15001"):
        machine.run(machine.store.read_part(cid_of(data), 1, memoryview(bytearray(15_000))))


def test_nobody_has_it(machine: Machine) -> None:
    machine.commit(b"something")
    with pytest.raises(NotFound):
        machine.read(b"nothing")
    with pytest.raises(NotFound):
        machine.store.read_now(cid_of(b"nothing"))
    assert machine.store.find(cid_of(b"nothing")) is None
    assert cid_of(b"nothing") not in machine.store


def test_a_block_is_hashed_at_its_first_read_after_a_start(machine: Machine) -> None:
    machine.commit(b"block" * 100)
    assert machine.read(b"block" * 100) and machine.store.statistics.verified == 0
    machine.stop()
    machine.start()
    before = machine.store.statistics.verified
    for _ in range(5):
        machine.read(b"block" * 100)
    assert machine.store.statistics.verified == before + 1


@pytest.mark.parametrize("how", ["read", "read_now", "read_part", "read_many_now"])
def test_a_damaged_block_is_corruption_with_its_place(machine: Machine, how: str) -> None:
    data = b"content" * 100
    machine.commit(b"before", data)
    machine.stop()
    machine.start()
    place = machine.store.find(cid_of(data))
    assert place is not None
    machine.spoil(format.file_name("log", 1), place.offset + 350)
    machine.run(machine.settle())  # the index is above suspicion
    with pytest.raises(Corruption) as caught:
        if how == "read":
            machine.read(data)
        elif how == "read_part":
            machine.run(machine.store.read_part(cid_of(data), 5, memoryview(bytearray(5))))
        elif how == "read_many_now":
            while machine.store.read_many_now([cid_of(b"before"), cid_of(data)]):
                pass  # the cache of the simulated disk is cold now and then
        else:
            while machine.store.read_now(cid_of(data)) is None:
                pass  # the cache of the simulated disk is cold now and then
    assert f"log-{1:020d}.car at byte {place.offset}" in str(caught.value)
    assert cid_of(data)[4:].hex() in str(caught.value)
    assert machine.read(b"before") == b"before"


def test_another_copy_stands_in_for_a_damaged_one(machine: Machine) -> None:
    machine.commit(b"twice" * 50)
    machine.stop()
    machine.start()
    machine.commit(b"twice" * 50)
    machine.stop()
    machine.start()
    place = machine.store.find(cid_of(b"twice" * 50))
    assert place is not None
    machine.spoil(format.file_name("log", place.number), place.offset)
    assert machine.read(b"twice" * 50) == b"twice" * 50


def test_read_now_waits_for_nothing(machine: Machine) -> None:
    machine.commit(b"cold")
    machine.files.pread_now = lambda fd, length, offset: None  # type: ignore[method-assign]
    assert machine.store.read_now(cid_of(b"cold")) is None
    assert machine.read(b"cold") == b"cold"
    assert machine.store.statistics.reads_waited == 1


def warm(machine: Machine, *contents: bytes) -> list[bytes | None]:
    """What ``read_many_now`` gives where the cache of the simulated disk is never cold."""
    files = machine.files
    files.pread_now = lambda *place: files.pread(*place) or None  # type: ignore[method-assign]
    return machine.store.read_many_now([cid_of(content) for content in contents])


def test_many_blocks_are_read_together_and_hashed_once_each(machine: Machine) -> None:
    contents = [b"block %d" % n * 50 for n in range(20)]
    machine.commit(*contents[:10])
    machine.stop()
    machine.start()
    machine.commit(*contents[10:])
    before = machine.store.statistics.verified
    for _ in range(3):
        wanted = [*contents[::-1], b"nowhere"]
        assert warm(machine, *wanted) == [*contents[::-1], None]
    assert machine.store.statistics.verified == before + 10, "the others were written just now"
    with pytest.raises(NotFound):
        machine.read(b"nowhere")


def test_no_more_is_read_together_than_one_step_should(machine: Machine) -> None:
    small = [b"%d" % n for n in range(READ_MANY_BLOCKS + 10)]
    machine.commit(*small)
    assert warm(machine, *small) == small[:READ_MANY_BLOCKS]
    large = [bytes([n]) * 9000 for n in range(READ_MANY_BYTES // 9000 + 10)]
    for content in large:
        machine.commit(content)
    assert warm(machine, *large) == large[: READ_MANY_BYTES // 9000 + 1]
    assert warm(machine) == []


def test_many_blocks_in_more_segments_than_may_be_open(machine: Machine) -> None:
    contents = [machine.random.randbytes(9000) for _ in range(40)]
    for content in contents:
        machine.commit(content)
    machine.run(machine.settle())
    sealed = [row for row in machine.store.rows() if row.state == "sealed"]
    assert len(sealed) > machine.settings.open_files_max
    assert warm(machine, *contents, *contents) == contents * 2
    machine.read(contents[0])  # opens no more than it closes
    machine.stop()


def test_many_blocks_with_a_damaged_copy_or_a_file_that_is_gone(machine: Machine) -> None:
    machine.commit(b"twice" * 50, b"fine")
    machine.stop()
    machine.start()
    machine.commit(b"twice" * 50)
    machine.stop()
    machine.start()
    place = machine.store.find(cid_of(b"twice" * 50))
    assert place is not None
    machine.spoil(format.file_name("log", place.number), place.offset)
    assert warm(machine, b"twice" * 50, b"fine") == [None, b"fine"], "left to the waiting read"
    assert machine.read(b"twice" * 50) == b"twice" * 50
    machine.stop()
    machine.start()
    away = format.file_name("log", 1)
    inode = machine.files.names.pop(away)
    assert warm(machine, b"twice" * 50, b"fine") == [None, None]
    with pytest.raises(Unavailable, match=away):
        machine.read(b"fine")
    machine.files.names[away] = inode
    assert warm(machine, b"twice" * 50, b"fine") == [None, b"fine"]


def test_many_blocks_wait_for_nothing(machine: Machine) -> None:
    machine.commit(b"cold", b"warm")
    place = machine.store.find(cid_of(b"cold"))
    assert place is not None
    pread = machine.files.pread
    machine.files.pread_now = (  # type: ignore[method-assign]
        lambda fd, length, offset: None if offset == place.offset else pread(fd, length, offset)
    )
    cids = [cid_of(b"cold"), cid_of(b"warm")]
    assert machine.store.read_many_now(cids) == [None, b"warm"]
    assert machine.store.statistics.reads_waited == 0


def test_descriptors_of_sealed_segments_are_few(machine: Machine) -> None:
    contents = [machine.random.randbytes(9000) for _ in range(40)]
    for content in contents:
        machine.commit(content)
    machine.run(machine.settle())
    assert len([row for row in machine.store.rows() if row.state == "sealed"]) > 6
    for content in contents:
        assert machine.read(content) == content
    assert len(machine.files.fds) <= machine.settings.open_files_max + 4
    machine.stop()
