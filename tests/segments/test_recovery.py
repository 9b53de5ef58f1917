"""What a start makes of damage and of what a crash left, one situation at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ingot._speedups import frame
from ingot.codec import dag_cbor
from ingot.errors import Corruption, NotFound, Unavailable
from ingot.messages import CommitRecord, CommitRef
from ingot.segments import format, log
from ingot.segments.commit import COMMIT, encode_commit
from ingot.segments.model import Recovered
from tests.segments.machine import Machine, cid_of
from tests.sim.disk import SimFiles

LOG_1 = format.file_name("log", 1)


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    machine.start()
    yield machine
    machine.crash()


def committed(machine: Machine, count: int, size: int = 700) -> list[bytes]:
    contents = [machine.random.randbytes(size) for _ in range(count)]
    for content in contents:
        machine.commit(content)
    return contents


def offset_of(machine: Machine, content: bytes) -> int:
    place = machine.store.find(cid_of(content))
    assert place is not None
    return place.offset


def sequences(found: Recovered) -> list[int]:
    return [sequence for _, sequence in found.commits]


# -- crashes ---------------------------------------------------------------------------------------


def test_what_was_open_is_scanned_and_sealed(machine: Machine) -> None:
    contents = committed(machine, 5)
    machine.crash()
    found = machine.start()
    assert sequences(found) == [1, 2, 3, 4, 5] and not found.problems
    assert [(row.state, row.last_commit) for row in machine.store.rows()] == [("sealed", 5)]
    assert all(machine.read(content) == content for content in contents)
    assert machine.commit(b"next")[1].sequence == 6
    machine.crash()
    assert sequences(machine.start()) == [6], "what is sealed is not scanned again"


def test_the_cost_of_a_start_is_that_of_the_open_segment(machine: Machine) -> None:
    committed(machine, 60, 5000)
    machine.stop()
    machine.start()
    committed(machine, 2)
    machine.crash()
    found = machine.start()
    sealed = sum(row.bytes for row in machine.store.rows())
    open_and_prepared = 2 * machine.settings.log_ahead_bytes + 2 * format.HEADER_BYTES
    assert found.scanned_bytes <= open_and_prepared < sealed / 4


def test_a_torn_batch_is_the_end_and_no_problem(machine: Machine) -> None:
    contents = committed(machine, 3)
    machine.crash()
    machine.spoil(LOG_1, offset_of(machine, contents[2]) + 5)
    found = machine.start()
    assert sequences(found) == [1, 2] and not found.problems
    with pytest.raises(NotFound):
        machine.read(contents[2])
    assert machine.commit(b"other")[1].sequence == 3
    machine.crash()
    found = machine.start()
    assert sequences(found) == [3] and not found.problems
    assert machine.commits() == [1, 2, 3]


def test_a_prepared_segment_is_used_by_the_next_process(machine: Machine) -> None:
    machine.run(machine.settle())
    before = machine.files.names.copy()
    machine.stop()
    machine.start()
    _, record = machine.commit(b"first")
    assert record.segment == 1 and machine.file(LOG_1) is before[LOG_1]


def test_a_half_prepared_segment_is_made_anew(machine: Machine) -> None:
    machine.stop()
    machine.file(LOG_1).truncate(20)
    machine.spoil(LOG_1, 0, bytes(20))
    found = machine.start()
    machine.commit(b"first")
    assert not found.problems and LOG_1 not in machine.files.names
    assert machine.names("log")[0] == format.file_name("log", 2)


def test_an_unfinished_run_is_removed(machine: Machine) -> None:
    machine.files.create("/segments/" + format.file_name("run", 9) + ".tmp")
    machine.crash()
    assert not machine.start().problems
    assert machine.names("run") == []


# -- damage ----------------------------------------------------------------------------------------


def test_damage_before_acknowledged_commits_is_quarantined_and_salvaged(machine: Machine) -> None:
    contents = committed(machine, 8)
    newest = machine.commit(b"last")
    machine.crash()
    before = len(machine.file(LOG_1).seen)
    machine.spoil(LOG_1, offset_of(machine, contents[3]) + 5)
    for start in (1, 2):
        found = machine.start()
        assert len(found.problems) == 1 and LOG_1 in found.problems[0], start
        assert "quarantined" in found.problems[0]
        assert found.newest == newest, "numbers that were given out are not given out again"
        rows = [(row.number, row.state) for row in machine.store.rows()]
        assert rows == [(1, "quarantined")]
        for content in [*contents[:3], *contents[4:], b"last"]:
            assert machine.read(content) == content
        with pytest.raises(NotFound):
            machine.read(contents[3])
        if start == 1:
            machine.crash()
    assert len(machine.file(LOG_1).seen) == before, "the file stays as it is"
    assert machine.commit(b"goes on")[1].sequence == newest[1].sequence + 1


def test_a_damaged_commit_record_in_the_middle(machine: Machine) -> None:
    contents = committed(machine, 3)
    cid, _ = machine.commit(b"a")
    committed(machine, 3)
    machine.crash()
    place = machine.store.find(cid)
    assert place is not None
    machine.spoil(LOG_1, place.offset + 9)
    found = machine.start()
    assert found.newest is not None and found.newest[1].sequence == 7
    assert len(found.problems) == 1 and "commit 4" in found.problems[0]
    assert machine.read(b"a") == b"a" and machine.read(contents[0]) == contents[0]
    with pytest.raises(NotFound):
        machine.commits()


def test_a_damaged_last_batch_that_the_next_segment_continues(machine: Machine) -> None:
    """It looks torn, but what follows shows that it was acknowledged."""
    contents = committed(machine, 4)
    machine.crash()
    machine.start()
    last = machine.commit(b"in segment two")
    machine.stop()
    for name in machine.names("run"):
        machine.files.unlink("/segments/" + name)
    machine.spoil(LOG_1, machine.file(LOG_1).seen.index(contents[3]) + 5)
    found = machine.start()
    assert len(found.problems) == 1 and LOG_1 in found.problems[0]
    assert found.newest == last
    assert machine.commits() == [1, 2, 3, 4, 5]
    with pytest.raises(NotFound):
        machine.read(contents[3])
    assert machine.read(contents[2]) == contents[2]


def test_pages_that_cannot_be_read(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = committed(machine, 10, 3000)
    machine.crash()
    bad = offset_of(machine, contents[4]) // 4096
    pread = SimFiles.pread

    def failing(self: SimFiles, fd: int, length: int, offset: int) -> bytes:
        log = self.fds.get(fd) is self.names[LOG_1]
        if log and offset // 4096 <= bad <= (offset + length - 1) // 4096:
            raise OSError(5, "Input/output error")
        return pread(self, fd, length, offset)

    monkeypatch.setattr(SimFiles, "pread", failing)
    found = machine.start()
    assert any("1 pages cannot be read" in text for text in found.problems)
    assert any("quarantined" in text for text in found.problems)
    assert found.newest is not None and found.newest[1].sequence == 10
    monkeypatch.undo()
    assert machine.read(contents[0]) == contents[0] and machine.read(contents[9]) == contents[9]


def test_a_damaged_header(machine: Machine) -> None:
    contents = committed(machine, 2)
    machine.crash()
    machine.spoil(LOG_1, 3)
    found = machine.start()
    assert sequences(found) == [1, 2] and len(found.problems) == 1
    assert "its header is damaged" in found.problems[0]
    assert machine.read(contents[1]) == contents[1]


def test_a_body_that_commits_need_is_damaged(machine: Machine) -> None:
    chunks = [machine.random.randbytes(6000) for _ in range(3)]
    positions = [machine.upload(chunk) for chunk in chunks]
    machine.commit(b"record", bodies=positions)
    machine.crash()
    machine.spoil(format.file_name("body", 1), offset_of(machine, chunks[1]) + 100)
    found = machine.start()
    assert len(found.problems) == 1 and "body-" in found.problems[0]
    assert machine.read(chunks[0]) == chunks[0] and machine.read(chunks[2]) == chunks[2]
    with pytest.raises(NotFound):
        machine.read(chunks[1])


def test_a_body_that_nobody_needs_ends_where_it_is_torn(machine: Machine) -> None:
    chunks = [machine.random.randbytes(6000) for _ in range(3)]
    machine.commit(b"record", bodies=[machine.upload(chunks[0])])
    for chunk in chunks[1:]:
        machine.upload(chunk)
    machine.crash()
    machine.spoil(format.file_name("body", 1), offset_of(machine, chunks[1]) + 100)
    assert not machine.start().problems
    assert machine.read(chunks[0]) == chunks[0]
    with pytest.raises(NotFound):
        machine.read(chunks[2])


def test_bytes_made_to_look_like_commits_are_a_clients_bytes(machine: Machine) -> None:
    """A chunk may hold the frames of another gateway's log, or of this one's."""
    machine.commit(b"mine")
    hostile = bytes(machine.file(LOG_1).seen[: 59 + 400])
    contents = [hostile, hostile[59:], format.COMMIT_MARK + b"rubbish"]
    machine.commit(*contents)
    torn = machine.random.randbytes(100)
    machine.commit(torn, hostile + b"again")
    machine.crash()
    machine.spoil(LOG_1, offset_of(machine, torn))
    found = machine.start()
    assert sequences(found) == [1, 2] and not found.problems
    assert all(machine.read(content) == content for content in contents)


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine whose segments are many times as long as recovery's window."""
    monkeypatch.setattr(frame, "FRAME_BYTES_MAX", 8000)
    machine = Machine(
        seal_bytes=400_000, segment_bytes_max=500_000, log_ahead_bytes=410_000, scan_bytes=16_000
    )
    machine.start()
    yield machine
    machine.crash()


@pytest.mark.parametrize("damaged", [0, 7, 30, 58])
def test_a_segment_longer_than_the_window(long: Machine, damaged: int) -> None:
    contents = committed(long, 60, 6000)
    long.crash()
    long.spoil(LOG_1, offset_of(long, contents[damaged]) + 3000)
    found = long.start()
    assert found.newest is not None and found.newest[1].sequence == 60
    assert len(found.problems) == 1 and f"commit {damaged + 1} and" in found.problems[0]
    good = contents[:damaged] + contents[damaged + 1 :]
    assert all(long.read(content) == content for content in good)


def test_a_batch_longer_than_the_window(long: Machine) -> None:
    contents = [long.random.randbytes(6000) for _ in range(40)]
    long.commit(*contents)
    long.commit(b"after")
    long.crash()
    assert sequences(long.start()) == [1, 2]
    assert all(long.read(content) == content for content in contents)


def test_bytes_made_to_look_like_many_frames_do_not_hold_a_start_up(long: Machine) -> None:
    """Each of them would be hashed as a long frame; the search has a budget and says so."""
    first = committed(long, 1)[0]
    fakes = b"".join(b"\xf0\x3d\x01\x55\x12\x20" + n.to_bytes(4, "big") for n in range(700))
    for n in range(50):
        long.commit(bytes([n]) + fakes)
    long.crash()
    for n in range(50):
        content = bytes([n]) + fakes
        long.spoil(LOG_1, offset_of(long, content))
    found = long.start()
    assert any("was given up" in text for text in found.problems)
    assert long.read(first) == first


def test_a_newest_record_of_a_later_version(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be told what it is, so nothing it stands for is lost; that it cannot be read is
    said, and its number is not used again."""

    def later(record: CommitRecord) -> bytes:
        value: Any = dag_cbor.decode(encode_commit(record))
        return dag_cbor.encode({COMMIT: value[COMMIT] | {"added by a later version": 1}})

    contents = committed(machine, 2)
    with monkeypatch.context() as patch:
        patch.setattr(log, "encode_commit", later)
        contents += committed(machine, 2)
    machine.crash()
    found = machine.start()
    assert found.newest is None and len(found.problems) == 1
    assert "newest commit record cannot be read" in found.problems[0]
    assert all(machine.read(content) == content for content in contents)
    assert machine.commit(b"goes on")[1].sequence == 5


# -- files that are not as they should be ----------------------------------------------------------


def test_foreign_files_are_left_alone(machine: Machine) -> None:
    machine.stop()
    machine.files.close(machine.files.create("/segments/notes.txt"))
    found = machine.start()
    assert found.problems == ["left alone, not files of a segment store: notes.txt"]
    assert "notes.txt" in machine.files.names


def test_a_segment_of_another_store_is_left_alone(machine: Machine) -> None:
    machine.commit(b"theirs")
    machine.crash()
    content = bytes(machine.file(LOG_1).seen)
    found = machine.start(b"the other store!")
    assert len(found.problems) == 1 and "another store" in found.problems[0]
    assert found.newest is None and machine.store.find(cid_of(b"theirs")) is None
    assert bytes(machine.file(LOG_1).seen) == content
    _, record = machine.commit(b"ours")
    assert record.segment > 1 and record.sequence == 1


def test_a_missing_segment_is_reported_and_the_rest_is_served(machine: Machine) -> None:
    contents = committed(machine, 12, 6000)
    machine.stop()
    name = machine.names("log")[1]
    machine.files.unlink("/segments/" + name)
    found = machine.start()
    assert len(found.problems) == 1 and f"{name} is missing" in found.problems[0]
    readable = 0
    for content in contents:
        try:
            readable += machine.read(content) == content
        except NotFound:
            pass
    assert 0 < readable < 12
    assert machine.commit(b"next")[1].sequence == 13


def test_a_segment_shorter_than_when_it_was_sealed(machine: Machine) -> None:
    contents = committed(machine, 4, 3000)
    machine.stop()
    inode = machine.file(LOG_1)
    inode.truncate(len(inode.seen) - 2000)
    found = machine.start()
    assert any("shorter than when it was sealed" in text for text in found.problems)
    assert machine.read(contents[0]) == contents[0]
    with pytest.raises((Corruption, NotFound)):
        machine.read(contents[3])


def test_a_break_of_the_chain_is_reported_and_not_cut(machine: Machine) -> None:
    contents = committed(machine, 3)
    machine.crash()
    machine.start()
    contents += committed(machine, 3)
    machine.crash()
    machine.start()
    contents += committed(machine, 3)
    machine.stop()
    for name in [*machine.names("run"), machine.names("log")[1]]:
        machine.files.unlink("/segments/" + name)
    found = machine.start()
    assert len(found.problems) == 1
    assert "begins with commit 7, and the log before it ends with 3" in found.problems[0]
    assert found.newest is not None and found.newest[1].sequence == 9
    assert all(machine.read(content) == content for content in contents[:3] + contents[6:])


def test_commits_that_only_the_registry_knows_keep_their_numbers(machine: Machine) -> None:
    committed(machine, 2)
    machine.crash()
    machine.start()
    machine.store.resume_after(40)
    torn = machine.random.randbytes(200)
    machine.commit(torn)
    machine.crash()
    place = machine.store.find(cid_of(torn))
    assert place is not None
    machine.spoil(format.file_name("log", place.number), place.offset)
    found = machine.start()
    assert not found.problems, "one torn batch is no damage, whatever its number"
    assert found.newest is not None and found.newest[1].sequence == 2
    machine.store.resume_after(40)
    assert machine.commit(b"after")[1].sequence == 41
    machine.crash()
    found = machine.start()
    assert sequences(found) == [41] and not found.problems


# -- runs ------------------------------------------------------------------------------------------


def lose_runs(machine: Machine) -> None:
    for name in machine.names("run"):
        machine.files.unlink("/segments/" + name)


def test_lost_runs_are_made_again(machine: Machine) -> None:
    contents = committed(machine, 30, 5000)
    chunk = machine.random.randbytes(9000)
    machine.commit(b"r", bodies=[machine.upload(chunk)])
    rows = machine.store.rows()
    machine.stop()
    lose_runs(machine)
    found = machine.start()
    assert found.newest is not None and found.newest[1].sequence == 31
    assert not found.commits, "they were sealed: the registry has them"
    assert not found.problems and found.scanned > len(rows)
    assert all(machine.read(content) == content for content in [*contents, chunk])
    machine.stop()
    assert machine.start().scanned <= 2, "only what was prepared"


@pytest.mark.parametrize("offset", [3, 9, 20, 60, 113, 150, 180])
def test_a_run_with_a_damaged_head_is_made_again(machine: Machine, offset: int) -> None:
    contents = committed(machine, 6, 5000)
    machine.stop()
    name = machine.names("run")[0]
    machine.spoil(name, offset)
    found = machine.start()
    assert len(found.problems) == 1 and name in found.problems[0]
    assert all(machine.read(content) == content for content in contents)
    machine.stop()
    if offset != 9:  # a later version's run is not ours to remove
        assert name not in machine.files.names
        assert not machine.start().problems


def test_a_run_with_damaged_entries_is_found_out_and_replaced(machine: Machine) -> None:
    contents = committed(machine, 6, 4000)
    machine.stop()
    for name in machine.names("run"):
        inode = machine.file(name)
        for at in range(len(inode.seen) - 300, len(inode.seen), 10):
            machine.spoil(name, at)
    found = machine.start()
    assert not found.problems, "the heads are good"
    assert found.newest is not None and found.newest[1].sequence == 6
    # A block that the damaged entries hide is found all the same: a miss waits for the audit.
    cids = [cid_of(content) for content in contents]
    assert machine.run(machine.store.lacking(cids)) is None
    assert machine.run(machine.store.lacking([*cids, cid_of(b"none")])) == cid_of(b"none")
    assert all(machine.read(content) == content for content in contents)
    machine.run(machine.settle())
    assert machine.store.statistics.rebuilt > 0
    machine.stop()
    assert not machine.start().problems
    machine.run(machine.settle())
    assert machine.store.statistics.rebuilt == 0


def test_commits_that_damaged_entries_hide_are_found(machine: Machine) -> None:
    committed(machine, 9, 3000)
    cid, record = machine.commit(b"newest")
    machine.stop()
    for name in machine.names("run"):
        inode = machine.file(name)
        for at in range(len(inode.seen) - 500, len(inode.seen), 10):
            machine.spoil(name, at)
    machine.start()
    assert machine.commits() == list(range(1, 11))
    assert machine.run(machine.store.holds(CommitRef(record.sequence, cid)))


def test_which_commits_a_log_holds(machine: Machine) -> None:
    """By its record, whatever has its number; by its number where that is all that is known."""
    made = [machine.commit(bytes([n])) for n in range(3)]
    machine.crash()
    machine.start()
    machine.store.resume_after(7)  # 4 to 7 were made elsewhere
    made += [machine.commit(bytes([n])) for n in range(3, 5)]

    async def holds(commit: CommitRef) -> bool:
        return await machine.store.holds(commit)

    for _ in range(3):
        for cid, record in made:
            assert machine.run(holds(CommitRef(record.sequence, cid)))
        known = [n for n in range(1, 12) if machine.run(holds(CommitRef(n, None)))]
        assert known == [1, 2, 3, 8, 9] == machine.commits()
        for n in (2, 5, 9, 20):
            assert not machine.run(holds(CommitRef(n, cid_of(b"another log's"))))
        machine.stop()
        machine.start()
    log = machine.names("log")[0]
    data = machine.files.names.pop(log)
    machine.crash()
    machine.start()
    kept = [machine.run(holds(CommitRef(r.sequence, cid))) for cid, r in made]
    assert kept == [False] * 3 + [True] * 2
    machine.crash()
    machine.files.names[log] = data
    machine.start()
    assert machine.commits() == [1, 2, 3, 8, 9]


def test_runs_are_merged_and_few(machine: Machine) -> None:
    contents = committed(machine, 150, 9000)
    machine.run(machine.settle())
    sealed = [row for row in machine.store.rows() if row.state == "sealed"]
    assert len(sealed) >= 40 and len(machine.names("run")) <= 7
    assert machine.store.statistics.merged >= 30
    assert all(machine.read(content) == content for content in contents)
    machine.stop()
    assert not machine.start().problems
    machine.run(machine.settle())
    assert all(machine.read(content) == content for content in contents)
    assert [row for row in machine.store.rows() if row.number <= 40][:40] == sealed[:40]


def test_a_run_left_over_from_a_merge_is_removed(machine: Machine) -> None:
    committed(machine, 20, 9000)
    machine.stop()
    name = machine.names("run")[0]
    stray = format.file_name("run", 1)
    assert stray not in machine.files.names
    # An older run of segments that a newer one covers.
    machine.files.names[stray] = machine.file(name)
    newer = format.file_name("run", 900)
    machine.files.names[newer] = machine.file(name)
    assert not machine.start().problems
    assert stray not in machine.files.names and name not in machine.files.names


# -- a block that several segments have ------------------------------------------------------------


def copied(machine: Machine, content: bytes) -> list[tuple[str, int]]:
    """Put a block into two sealed segments: their files and its places, the one read first last."""
    for _ in range(2):
        machine.commit(content)
        committed(machine, 5, 5500)
    machine.stop()
    machine.start()
    names = [name for name in machine.names("log") if content in machine.file(name).seen]
    return [(name, machine.file(name).seen.index(content)) for name in names]


def test_a_damaged_copy_is_passed_over_and_reported_once(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    content = machine.random.randbytes(700)
    for name, offset in copied(machine, content)[1:]:
        machine.spoil(name, offset + 5)
    assert machine.read(content) == content
    part = bytearray(100)
    machine.run(machine.store.read_part(cid_of(content), 3, memoryview(part)))
    assert part == content[3:103]
    (said,) = [text for text in caplog.messages if "another copy" in text]
    assert "log-" in said and "sha256" in said


def test_a_copy_that_the_disk_does_not_give_is_passed_over(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = machine.random.randbytes(700)
    bad, offset = copied(machine, content)[-1]
    pread = SimFiles.pread

    def failing(self: SimFiles, fd: int, length: int, at: int) -> bytes:
        if self.fds.get(fd) is self.names[bad] and at <= offset < at + length:
            raise OSError(5, "Input/output error")
        return pread(self, fd, length, at)

    monkeypatch.setattr(SimFiles, "pread", failing)
    monkeypatch.setattr(SimFiles, "pread_now", lambda self, fd, length, offset: None)
    assert machine.read(content) == content
    monkeypatch.setattr(SimFiles, "pread", lambda *_: (_ for _ in ()).throw(OSError(5, "EIO")))
    with pytest.raises(Unavailable):
        machine.read(content)


# -- a disk that does not answer -------------------------------------------------------------------


def test_a_start_that_cannot_list_or_open_is_refused_and_leaves_nothing(machine: Machine) -> None:
    contents = committed(machine, 3)
    machine.crash()
    for kind in ("listdir", "open", "sync_directory"):
        machine.files.fault = lambda call, name, kind=kind: 5 if call == kind else 0  # type: ignore
        with pytest.raises(Unavailable, match="segments cannot be read"):
            machine.start()
        machine.files.fault = lambda call, name: 0
        assert not machine.files.fds
    assert sequences(machine.start()) == [1, 2, 3]
    assert machine.read(contents[0]) == contents[0]
