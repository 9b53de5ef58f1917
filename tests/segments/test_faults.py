"""A disk that refuses: each call in turn, then in the situations that the design names."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Iterator

import pytest

from ingot.errors import Unavailable
from ingot.messages import BodyPosition
from ingot.segments import format
from tests.segments.machine import Machine, blocks_of, cid_of
from tests.sim.disk import Inode, SimFiles

LOGS = [format.file_name("log", 1), format.file_name("log", 2)]
BODY = format.file_name("body", 1)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    machine.start()
    machine.commit(b"first")
    machine.run(machine.settle())
    yield machine
    machine.crash()


class Once:
    """Fails the next call of one kind on each of some files."""

    def __init__(self, machine: Machine, call: str, *names: str) -> None:
        self.machine, self.call, self.left = machine, call, list(names)
        self._wrap("pwrite")
        self._wrap("fdatasync")

    def _wrap(self, call: str) -> None:
        files = self.machine.files
        plain = getattr(SimFiles, call)

        def wrapped(fd: int, *rest: object) -> object:
            inode = files.fds.get(fd)
            names = [name for name, each in files.names.items() if each is inode]
            if call == self.call and names and names[0] in self.left and not files.buried:
                self.left.remove(names[0])
                if call == "fdatasync" and inode is not None:
                    inode.forget(files.random)
                raise OSError(errno.EIO, "refused")
            return plain(files, fd, *rest)

        setattr(files, call, wrapped)


# -- the log ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_a_refused_batch_goes_to_another_segment(machine: Machine, call: str) -> None:
    Once(machine, call, LOGS[0])
    _, record = machine.commit(b"second", b"first")
    assert (record.segment, record.sequence) == (2, 2)
    assert record.frames == 2, "what the closed segment has is written again"
    machine.run(machine.settle())
    assert machine.store.statistics.poisoned == 1
    rows = {row.number: row for row in machine.store.rows() if row.stream == "log"}
    assert rows[1].state == "sealed" and rows[1].last_commit == 1
    assert machine.commit(b"third")[1].segment == 2
    machine.crash(power=True)
    found = machine.start()
    assert found.newest is not None and found.newest[1].sequence == 3 and not found.problems
    for content in (b"first", b"second", b"third"):
        assert machine.read(content) == content


def test_refused_twice_is_unavailable_and_uses_up_no_number(machine: Machine) -> None:
    Once(machine, "fdatasync", *LOGS)
    with pytest.raises(Unavailable, match="the log cannot be written"):
        machine.commit(b"lost")
    assert cid_of(b"lost") not in machine.store
    _, record = machine.commit(b"second")
    assert record.sequence == 2
    machine.crash(power=True)
    found = machine.start()
    assert found.newest is not None and found.newest[1] == record and not found.problems
    assert machine.read(b"second") == b"second" and machine.read(b"first") == b"first"


def test_a_refused_commit_that_is_on_the_disk_after_all_is_void_once_another_stands(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sync failed but the bytes got there: two records carry one number."""
    monkeypatch.setattr(Inode, "forget", lambda inode, random: inode.sync())
    Once(machine, "fdatasync", *LOGS)
    with pytest.raises(Unavailable):
        machine.commit(b"refused")
    _, record = machine.commit(b"instead")
    assert record.sequence == 2
    machine.crash(power=True)
    for name in machine.names("run"):
        machine.files.unlink("/segments/" + name)
    found = machine.start()
    assert found.newest is not None and found.newest[1] == record and not found.problems
    assert machine.commits() == [1, 2]


def test_a_full_disk_is_said_and_writes_go_on_when_there_is_room(machine: Machine) -> None:
    machine.files.free_bytes = lambda path: 1000  # type: ignore[method-assign]
    machine.files.fault = lambda call, name: errno.ENOSPC if call == "pwrite" else 0
    names = set(machine.files.names)
    for _ in range(3):
        with pytest.raises(Unavailable, match="no space left") as caught:
            machine.commit(b"too much")
        assert caught.value.retry_after_s > 1
    with pytest.raises(Unavailable, match="no space left"):
        machine.upload(b"x" * 5000)
    machine.run(machine.settle())
    assert set(machine.files.names) <= names | {format.file_name("run", 1)}, "no litter"
    assert machine.read(b"first") == b"first"
    machine.files.fault = lambda call, name: 0
    del machine.files.free_bytes  # type: ignore[method-assign]
    assert machine.commit(b"fits")[1].sequence == 2
    position = machine.upload(b"x" * 5000)
    machine.run(machine.store.sync_bodies([position]))


def test_a_segment_whose_index_cannot_be_written_stays_readable(machine: Machine) -> None:
    machine.files.fault = lambda call, name: (
        errno.ENOSPC if call == "create" and name.startswith("run") else 0
    )
    contents = [machine.random.randbytes(6000) for _ in range(10)]
    for content in contents:
        machine.commit(content)
    machine.run(machine.settle())
    assert machine.store.statistics.seal_failures > 0 and not machine.names("run")
    assert all(machine.read(content) == content for content in contents)
    machine.files.fault = lambda call, name: 0
    while machine.store.statistics.sealed == 0:
        machine.commit(machine.random.randbytes(6000))
        machine.run(machine.settle())
    assert len([row for row in machine.store.rows() if row.state == "open"]) <= 1
    machine.stop()
    assert machine.start().scanned <= 2


# -- bodies ----------------------------------------------------------------------------------------


def test_a_refused_body_write_closes_the_segment_at_its_last_good_sync(machine: Machine) -> None:
    kept, lost, refused = (machine.random.randbytes(5000) for _ in range(3))
    position = machine.upload(kept)
    machine.run(machine.store.sync_bodies([position]))
    unsynced = machine.upload(lost)
    Once(machine, "pwrite", BODY)
    with pytest.raises(Unavailable, match="was not stored"):
        machine.upload(refused)
    machine.run(machine.settle())
    assert machine.read(kept) == kept
    assert cid_of(lost) not in machine.store and cid_of(refused) not in machine.store
    with pytest.raises(Unavailable):
        machine.run(machine.store.sync_bodies([unsynced]))
    with pytest.raises(Unavailable):
        machine.commit(b"record", bodies=[unsynced])
    machine.run(machine.store.sync_bodies([position]))
    again = machine.upload(lost)
    assert again.segment > unsynced.segment
    machine.commit(b"record", bodies=[position, again])
    machine.crash(power=True)
    assert not machine.start().problems
    assert machine.read(kept) == kept and machine.read(lost) == lost


def test_no_second_sync_of_a_file_is_believed(machine: Machine) -> None:
    first, second = machine.random.randbytes(5000), machine.random.randbytes(5000)
    positions = [machine.upload(first), machine.upload(second)]
    Once(machine, "fdatasync", BODY)

    async def two() -> None:
        loop = asyncio.get_running_loop()
        waits = [loop.create_task(machine.store.sync_bodies([position])) for position in positions]
        for wait in waits:
            with pytest.raises(Unavailable):
                await wait

    machine.run(two())
    for position in positions:
        with pytest.raises(Unavailable):
            machine.run(machine.store.sync_bodies([position]))
    assert cid_of(first) not in machine.store
    with pytest.raises(Unavailable):
        machine.run(machine.store.sync_bodies([BodyPosition(99, 60)]))


# -- every call in turn ----------------------------------------------------------------------------


async def script(machine: Machine, shown: dict[bytes, bytes]) -> None:
    """Some of everything; ``shown`` gets what was acknowledged."""
    chunks = [bytes([n]) * 9000 for n in range(4)]
    for chunk in chunks:
        try:
            position = await machine.store.append_body(cid_of(chunk), memoryview(chunk))
            await machine.store.sync_bodies([position])
        except Unavailable:
            continue
        content = b"record" + chunk[:4]
        blocks = blocks_of(content, machine.random.randbytes(7000))
        try:
            await machine.committing(blocks, [position])
        except Unavailable:
            continue
        shown.update(blocks)
        shown[cid_of(chunk)] = chunk
    await machine.store.close()


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("lasting", [1, 3])
def test_each_call_refused_in_turn_loses_nothing(number: int, lasting: int) -> None:
    """Fail the 1st, the 2nd, the 3rd call, until a run has fewer; then start twice and look."""
    at = 0
    while True:
        at += 1
        machine = Machine()
        shown: dict[bytes, bytes] = {}
        calls = 0

        def fault(call: str, name: str, at: int = at) -> int:
            nonlocal calls
            calls += 1
            return number if at <= calls < at + lasting else 0

        machine.files.fault = fault
        try:
            machine.start()
            machine.run(script(machine, shown))
        except Unavailable:
            pass  # the start was refused
        reached = calls >= at
        machine.files.fault = lambda call, name: 0
        machine.crash(power=True)
        for power in (True, False):
            found = machine.start()
            assert not [text for text in found.problems if "damaged" in text], found.problems
            for cid, content in shown.items():
                assert machine.run(machine.store.read(cid)) == content, f"call {at}"
            machine.commits()
            machine.crash(power=power)
        if not reached:
            assert at > 100 and len(shown) == 12
            return
