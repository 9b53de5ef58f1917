"""Verifying segments: every frame counts, each damage is found, and the commits are one chain."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingot._speedups import frame
from ingot.messages import Head, HeadMove
from ingot.segments import format, verify
from ingot.segments.verify import Suspects, Verified
from tests.segments.machine import LEASE, Machine, blocks_of, cid_of
from tests.sim.disk import SimFiles

BUCKET = b"bucket's own id."


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    machine.start()
    yield machine
    machine.crash()


def committed(machine: Machine, count: int, size: int = 3000) -> list[bytes]:
    contents = [machine.random.randbytes(size) for _ in range(count)]
    for content in contents:
        machine.commit(content)
    return contents


def check(machine: Machine) -> Verified:
    return machine.run(machine.store.verify(lambda line: None))


def place(machine: Machine, cid: bytes) -> tuple[str, int, int]:
    """Its segment's file, and where its frame begins and ends."""
    (found,) = machine.store.places(cid)
    start = found.offset - len(frame.head(cid, found.length))
    name = format.file_name(found.stream, found.number)
    return name, start, found.offset + found.length


def test_all_is_good(machine: Machine) -> None:
    contents = committed(machine, 30)
    chunks = [machine.random.randbytes(9000) for _ in range(5)]
    machine.commit(b"record", bodies=[machine.upload(chunk) for chunk in chunks])
    for _ in range(2):  # in the open segments, then in sealed ones
        found = check(machine)
        assert not found.spots and not found.broken and not found.remarks
        assert found.frames == 2 * len(contents) + 2 + len(chunks)
        assert (found.first_commit, found.last_commit) == (1, 31)
        assert found.segments == len(machine.store.rows()) >= 4
        assert len(found.heads) == 31
        machine.stop()
        machine.start()


def test_damage_anywhere_is_one_spot(machine: Machine) -> None:
    """Whichever byte of a frame it is: its length, its CID, its data."""
    contents = committed(machine, 12)
    chunk = machine.random.randbytes(9000)
    machine.commit(b"record", bodies=[machine.upload(chunk)])
    machine.stop()
    machine.start()
    total = check(machine).frames
    for content in (contents[0], contents[7], chunk):
        name, start, end = place(machine, cid_of(content))
        for offset in (start, start + 1, start + 2, start + 3, start + 20, start + 40, end - 1):
            machine.spoil(name, offset)
            found = check(machine)
            (spot,) = found.spots
            assert (format.file_name(*spot.key), spot.start, spot.end) == (name, start, end)
            assert found.frames == total - 1 and not found.broken
            if offset > start + 37:
                assert spot.cids == [cid_of(content)]
            assert Suspects(found.spots).of(cid_of(content), machine.store.places(cid_of(content)))
            other = cid_of(contents[1])
            assert not Suspects(found.spots).of(other, machine.store.places(other))
            machine.spoil(name, offset)  # back as it was
    assert not check(machine).spots


def test_several_frames_in_one_spot(machine: Machine) -> None:
    contents = committed(machine, 1)
    blocks = [machine.random.randbytes(500) for _ in range(5)]
    machine.commit(*blocks)
    committed(machine, 1)
    machine.stop()
    machine.start()
    for block in blocks[1:4]:
        name, start, _ = place(machine, cid_of(block))
        machine.spoil(name, start + 50)
    (spot,) = check(machine).spots
    assert spot.cids == [cid_of(block) for block in blocks[1:4]]
    assert spot.start == place(machine, cid_of(blocks[1]))[1]
    assert spot.end == place(machine, cid_of(blocks[4]))[1]
    assert contents


def test_a_record_that_is_damaged_breaks_the_chain(machine: Machine) -> None:
    committed(machine, 3)
    cid, _ = machine.commit(b"four")
    committed(machine, 3)
    machine.stop()
    machine.start()
    name, start, _ = place(machine, cid)
    machine.spoil(name, start + 60)
    found = check(machine)
    (line,) = found.broken
    assert line.startswith("commit 4 is missing before log-")
    (spot,) = found.spots
    assert spot.lost and "commit 4" in spot.needed_by


def test_the_newest_record_is_damaged(machine: Machine) -> None:
    committed(machine, 3)
    cid, _ = machine.commit(b"four")
    machine.stop()
    machine.start()
    name, start, _ = place(machine, cid)
    machine.spoil(name, start + 60)
    found = check(machine)
    assert found.broken == ["commit 4 is missing at the end of the log"]
    assert found.spots[0].lost and found.last_commit == 3


def test_commits_that_only_the_registry_knows(machine: Machine) -> None:
    committed(machine, 2)
    machine.store.resume_after(7)
    assert check(machine).broken == ["commits 3 to 7 are missing at the end of the log"]
    committed(machine, 1)
    (line,) = check(machine).broken
    assert line.startswith("commits 3 to 7 are missing before log-")


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_segment_that_is_missing(machine: Machine, which: int) -> None:
    committed(machine, 20)
    machine.stop()
    rows = [row for row in machine.store.rows() if row.stream == "log"]
    machine.files.unlink("/segments/" + format.file_name("log", rows[which].number))
    machine.start()
    found = check(machine)
    first, last = rows[which].first_commit, rows[which].last_commit
    (line,) = found.broken
    assert line.startswith(f"commits {first} to {last} are missing")
    assert not found.spots and found.segments == len(rows) - 1


def test_heads_follow_the_moves(machine: Machine) -> None:
    def commit(old: Head | None, new: Head | None) -> None:
        move = HeadMove(BUCKET, "box", old, new)
        machine.run(machine.store.commit(LEASE, blocks_of(b"x"), [move], []))

    commit(None, Head(0))
    commit(Head(0), Head(1, cid_of(b"x", 0x71)))
    assert check(machine).heads[BUCKET].new == Head(1, cid_of(b"x", 0x71))
    commit(Head(0), Head(1))
    (line,) = check(machine).broken
    assert "commit 3 moves bucket box from a head at which no commit left it" in line
    commit(Head(1), None)
    assert BUCKET not in check(machine).heads


def test_a_record_that_does_not_fit_its_frames(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a page of a recycled file never got to the disk, and another frame stands there."""
    content, other = machine.random.randbytes(500), machine.random.randbytes(500)
    committed(machine, 2)
    machine.commit(content)
    machine.stop()
    machine.start()
    name, start, end = place(machine, cid_of(content))
    machine.spoil(name, start, frame.pack(blocks_of(other)))
    assert len(frame.pack(blocks_of(other))) == end - start
    found = check(machine)
    assert not found.spots and len(found.broken) == 1
    assert "commit 3 does not fit the frames before it" in found.broken[0]


def test_pages_that_cannot_be_read_and_a_file_that_was_cut(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = committed(machine, 6, 3500)
    machine.stop()
    machine.start()
    name, start, end = place(machine, cid_of(contents[2]))
    pread = SimFiles.pread

    def failing(self: SimFiles, fd: int, length: int, offset: int) -> bytes:
        if self.fds.get(fd) is self.names[name] and offset <= start + 100 < offset + length:
            raise OSError(5, "Input/output error")
        return pread(self, fd, length, offset)

    with monkeypatch.context() as patch:
        patch.setattr(SimFiles, "pread", failing)
        assert any(spot.start <= start + 100 < spot.end for spot in check(machine).spots)
    assert not check(machine).spots
    machine.file(name).truncate(end + 100)
    found = check(machine)
    assert [spot.start for spot in found.spots] and found.spots[-1].end > end + 100
    assert any("commits" in line for line in found.broken)


def test_a_header_and_a_file_that_is_gone(machine: Machine) -> None:
    contents = committed(machine, 12)
    machine.stop()
    machine.start()
    first, second = machine.names("log")[:2]
    machine.spoil(first, 20)
    found = check(machine)
    assert not found.spots and len(found.remarks) == 0, "the root may be any"
    machine.spoil(first, 3)
    assert "header is damaged" in check(machine).remarks[0]
    machine.files.unlink("/segments/" + second)
    found = check(machine)
    assert any(f"{second} cannot be opened" in line for line in found.remarks)
    assert any(format.file_name(*spot.key) == second for spot in found.spots)
    assert contents


def test_progress_is_said(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "BYTES_PER_REPORT", 20_000)
    committed(machine, 30)
    said: list[str] = []
    found = machine.run(machine.store.verify(said.append))
    assert len(said) >= 3 and all(line.startswith("segments: ") for line in said)
    assert f"of {sum(row.bytes for row in machine.store.rows())} bytes" in said[0]
    assert found.read <= sum(row.bytes for row in machine.store.rows())
