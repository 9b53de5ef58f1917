"""Names in the directory that are no files we may use, some of them like those of our own files.

Each is reported, left as it is and never used: not for its number, and no new file meets it.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ingot.clock import SystemClock
from ingot.errors import NotFound
from ingot.offload import Lanes
from ingot.segments import format
from ingot.segments.files import SystemFiles
from ingot.segments.segment import Numbers
from ingot.segments.store import SegmentStore
from tests.segments.machine import STORE, Machine, blocks_of
from tests.segments.test_files import MOVES, SETTINGS
from tests.sim.disk import Inode

LOG_1 = format.file_name("log", 1)


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    machine.start()
    yield machine
    machine.crash()


class Strays:
    """Names of which ``open`` says what it says of a directory, a dangling link and the like."""

    def __init__(self, machine: Machine, *names: str, number: int = errno.EISDIR) -> None:
        self.machine, self.number = machine, number
        self.inodes = {name: machine.files.names.get(name, Inode()) for name in names}
        machine.files.names |= self.inodes
        machine.files.fault = self._fault

    def _fault(self, call: str, name: str) -> int:
        return self.number if call == "open" and name in self.inodes else 0

    def gone(self) -> None:
        self.machine.files.fault = lambda call, name: 0

    @property
    def untouched(self) -> bool:
        return all(self.machine.file(name) is inode for name, inode in self.inodes.items())


def rotate(machine: Machine, segments: int) -> list[bytes]:
    """Commit until so many more segments were begun; what was committed."""
    contents: list[bytes] = []
    until = machine.store.statistics.rotations + segments
    while machine.store.statistics.rotations < until:
        contents.append(machine.random.randbytes(5000))
        machine.commit(contents[-1])
    machine.run(machine.settle())
    return contents


# -- on the simulated disk -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number",
    [errno.EISDIR, errno.ENOENT, errno.ELOOP, errno.EPERM, errno.EACCES, errno.ENXIO, errno.EINVAL],
)
@pytest.mark.parametrize("kind", ["log", "body", "run"])
def test_a_name_that_cannot_be_opened(machine: Machine, kind: str, number: int) -> None:
    contents = rotate(machine, 2)
    machine.stop()
    stray = format.file_name(kind, 7)
    strays = Strays(machine, stray, number=number)
    found = machine.start()
    assert len(found.problems) == 1, found.problems
    assert stray in found.problems[0] and "left alone" in found.problems[0]
    assert os.strerror(number) in found.problems[0]
    contents += rotate(machine, 9)
    chunks = [machine.random.randbytes(9000) for _ in range(20)]
    positions = [machine.upload(chunk) for chunk in chunks]
    machine.commit(b"record", bodies=positions)
    machine.stop()
    assert strays.untouched
    found = machine.start()
    assert len(found.problems) == 1, "no new file met it"
    assert found.newest is not None and found.newest[1].bodies == tuple(positions)
    assert all(machine.read(content) == content for content in [*contents, *chunks])


def test_an_unfinished_run_that_is_no_file(machine: Machine) -> None:
    machine.stop()
    stray = format.file_name("run", 1) + ".tmp"
    strays = Strays(machine, stray)
    found = machine.start()
    assert len(found.problems) == 1 and stray in found.problems[0]
    rotate(machine, 2)
    assert machine.store.statistics.seal_failures == 0
    machine.stop()
    assert strays.untouched


@pytest.mark.parametrize("kind", ["log", "body", "run"])
@pytest.mark.parametrize("number", [10**20 - 1, 2**64, 2**63, 2**63 - 1])
def test_the_highest_numbers_there_are(machine: Machine, kind: str, number: int) -> None:
    """Numbers go on where they were: the one behind these would have no name, no place in an
    index, no row in the registry."""
    machine.commit(b"first")
    machine.stop()
    stray = machine.files.names[format.file_name(kind, number)] = Inode()
    stray.recycle(b"precious")
    found = machine.start()
    assert len(found.problems) >= 1 and all(str(number) in text for text in found.problems)
    contents = rotate(machine, 3)
    chunk = machine.random.randbytes(9000)
    machine.commit(b"record", bodies=[machine.upload(chunk)])
    machine.stop()
    for name in machine.files.names:
        assert len(name) == len(format.file_name(name.partition("-")[0], 1)), name
    if kind != "run":  # one that is damaged is made again
        assert machine.file(format.file_name(kind, number)) is stray
    machine.start()
    assert max(row.number for row in machine.store.rows()) < 20
    assert all(machine.read(content) == content for content in [*contents, chunk, b"first"])


def test_a_number_of_21_digits_is_no_name_of_ours(machine: Machine) -> None:
    machine.commit(b"first")
    machine.stop()
    stray = f"log-{10**20}.car"
    machine.files.names[stray] = Inode()
    found = machine.start()
    assert found.problems == [f"left alone, not files of a segment store: {stray}"]
    assert machine.commit(b"second")[1].segment < 10


def test_a_name_that_is_no_text_can_be_reported(machine: Machine) -> None:
    machine.stop()
    machine.files.names[os.fsdecode(b"log-\xff\xfe.car")] = Inode()
    (problem,) = machine.start().problems
    assert problem.encode()


def test_a_prepared_segment_under_the_highest_number_is_not_used(machine: Machine) -> None:
    machine.run(machine.settle())
    machine.stop()
    name = format.file_name("log", 2**63 - 1)
    machine.files.names[name] = machine.files.names.pop(LOG_1)
    (problem,) = machine.start().problems
    assert name in problem and "left alone" in problem
    assert machine.commit(b"first")[1].segment < 10
    rotate(machine, 2)
    machine.stop()
    found = machine.start()
    assert found.newest is not None and len(found.problems) == 1
    assert name in machine.files.names


def test_a_copy_of_a_segment_under_a_high_number(machine: Machine) -> None:
    """Its records name another segment, so it proves nothing; numbers go on below it."""
    contents = rotate(machine, 1)
    machine.stop()
    copy = Inode()
    copy.recycle(bytes(machine.file(LOG_1).seen))
    machine.files.names[format.file_name("log", 2**63 - 1)] = copy
    machine.start()
    contents += rotate(machine, 2)
    machine.stop()
    machine.start()
    assert all(machine.read(content) == content for content in contents)
    assert machine.commit(b"goes on")[1].segment < 20


def test_a_sealed_segment_that_cannot_be_opened_is_as_one_that_is_missing(
    machine: Machine,
) -> None:
    contents = rotate(machine, 3)
    machine.stop()
    strays = Strays(machine, machine.names("log")[1], number=errno.EPERM)
    found = machine.start()
    assert len(found.problems) == 2, found.problems
    assert all(machine.names("log")[1] in text for text in found.problems)
    assert any("is missing: commits" in text for text in found.problems)
    readable = 0
    for content in contents:
        try:
            readable += machine.read(content) == content
        except NotFound:
            pass
    assert 0 < readable < len(contents)
    sequence = machine.commit(b"goes on")[1].sequence
    machine.stop()
    assert strays.untouched
    strays.gone()
    found = machine.start()
    assert not found.problems and found.newest is not None
    assert found.newest[1].sequence == sequence
    assert all(machine.read(content) == content for content in contents)


def test_a_sealed_segment_need_not_be_writable(machine: Machine) -> None:
    contents = rotate(machine, 3)
    machine.stop()
    machine.files.protected = set(machine.names("log")) | set(machine.names("run"))
    before = {name: machine.file(name) for name in machine.files.protected}
    found = machine.start()
    assert not [text for text in found.problems if LOG_1 in text]
    assert all(machine.read(content) == content for content in contents)
    for name in machine.names("run"):
        machine.spoil(name, 20)  # the segments have to be read again
    machine.stop()
    machine.start()
    assert all(machine.read(content) == content for content in contents)
    assert before[LOG_1] is machine.file(LOG_1)


def test_an_open_segment_that_may_not_be_written_is_read(machine: Machine) -> None:
    contents = [machine.random.randbytes(700) for _ in range(3)]
    for content in contents:
        machine.commit(content)
    machine.crash()
    machine.files.protected = {LOG_1}
    before = bytes(machine.file(LOG_1).seen)
    found = machine.start()
    assert len(found.problems) == 1, found.problems
    assert LOG_1 in found.problems[0] and "not permitted" in found.problems[0]
    assert found.newest is not None and found.newest[1].sequence == 3
    assert all(machine.read(content) == content for content in contents)
    _, record = machine.commit(b"next")
    assert record.sequence == 4 and record.segment > 1
    machine.stop()
    assert bytes(machine.file(LOG_1).seen) == before
    assert not machine.start().problems, "it is sealed: nobody needs to write to it"
    assert machine.commits() == [1, 2, 3, 4]


def test_a_prepared_segment_that_may_not_be_written_is_not_used(machine: Machine) -> None:
    machine.run(machine.settle())
    machine.stop()
    machine.files.protected = {LOG_1}
    before = bytes(machine.file(LOG_1).seen)
    found = machine.start()
    assert len(found.problems) == 1 and LOG_1 in found.problems[0]
    assert machine.commit(b"first")[1].segment == 2
    machine.stop()
    assert bytes(machine.file(LOG_1).seen) == before


def test_what_comes_back_is_not_void(machine: Machine) -> None:
    """An open segment could not be opened at one start. The registry knew its commits, so the next
    ones have other numbers, and those that come back are not refused ones."""
    machine.commit(b"one")
    machine.crash()
    machine.start()
    for content in (b"two", b"three"):
        machine.commit(content)
    machine.crash()
    name = [name for name in machine.names("log") if b"two" in machine.file(name).seen][0]
    strays = Strays(machine, name, number=errno.EPERM)
    machine.start()
    machine.store.resume_after(3)
    assert machine.commit(b"four")[1].sequence == 4
    machine.crash()
    strays.gone()
    found = machine.start()
    assert len(found.problems) == 1 and "chain of commits breaks" in found.problems[0]
    for content in (b"one", b"two", b"three", b"four"):
        assert machine.read(content) == content
    assert found.newest is not None and found.newest[1].sequence == 4


def test_numbers_pass_over_what_is_there() -> None:
    numbers = Numbers()
    for number in (2, 3, 5, 2**63 - 1):
        numbers.avoid("log", number)
    assert [numbers.take("log") for _ in range(3)] == [1, 4, 6]
    numbers.seen("log", 9)
    assert numbers.take("log") == 10
    assert numbers.take("body") == 1


# -- on a real disk --------------------------------------------------------------------------------


@pytest.fixture
async def lanes() -> AsyncIterator[Lanes]:
    lanes = Lanes(asyncio.get_running_loop())
    yield lanes
    lanes.close()


def planted(segments: Path) -> dict[str, str]:
    """One stray of every sort for every kind of file: name and what it is."""
    found = {}
    for offset, what in enumerate(("directory", "dangling", "loop", "pipe")):
        names = [format.file_name(kind, 2 + offset) for kind in ("log", "body", "run")]
        names.append(format.file_name("run", 12 + offset) + ".tmp")
        for name in names:
            path = segments / name
            if what == "directory":
                path.mkdir()
            elif what == "pipe":
                os.mkfifo(path)
            else:
                path.symlink_to(path if what == "loop" else segments / "nothing")
            found[name] = what
    return found


def as_it_is(path: Path) -> tuple[int, ...]:
    """What a change would show in; not when it was last looked at, which looking changes."""
    found = os.lstat(path)
    return found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


async def test_strays_of_every_sort_on_a_real_disk(lanes: Lanes, tmp_path: Path) -> None:
    segments = tmp_path / "segments"
    segments.mkdir()
    strays = planted(segments)
    before = {name: as_it_is(segments / name) for name in strays}
    contents = [os.urandom(50_000) for _ in range(40)]
    for incarnation in (1, 2):
        files = SystemFiles()
        store = SegmentStore(files, lanes, str(segments), SETTINGS, SystemClock())
        found = await asyncio.wait_for(store.open(STORE, incarnation), 20)
        for name in strays:
            assert any(name in text and "left alone" in text for text in found.problems), name
        if incarnation == 1:
            for content in contents:
                await store.commit(bytes(16), blocks_of(content), MOVES, [])
        for content in contents:
            assert await store.read(blocks_of(content)[0][0]) == content
        await store.close()
        assert store.statistics.seal_failures == 0
    assert {name: as_it_is(segments / name) for name in strays} == before


@pytest.mark.parametrize("what", ["directory", "pipe"])
@pytest.mark.parametrize("write", [False, True])
def test_only_a_regular_file_is_opened(tmp_path: Path, what: str, write: bool) -> None:
    path = tmp_path / "name"
    path.mkdir() if what == "directory" else os.mkfifo(path)
    with pytest.raises(OSError) as refused:
        SystemFiles().open(str(path), write)
    assert refused.value.errno in (errno.EISDIR, errno.EINVAL)
