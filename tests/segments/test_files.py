"""The real file system and the real lanes under the store."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from ingot._speedups import resident
from ingot.clock import SystemClock
from ingot.errors import Unavailable
from ingot.messages import Head, HeadMove
from ingot.offload import Lanes
from ingot.segments.files import SystemFiles
from ingot.segments.model import SegmentSettings
from ingot.segments.store import SegmentStore
from tests.segments.machine import LEASE, STORE, cid_of

SETTINGS = SegmentSettings(
    seal_bytes=256 * 1024, log_ahead_bytes=300 * 1024, fill_step_bytes=64 * 1024
)
MOVES = [HeadMove(bytes(16), "bucket", None, Head(0))]


@pytest.fixture
async def lanes() -> AsyncIterator[Lanes]:
    lanes = Lanes(asyncio.get_running_loop())
    yield lanes
    lanes.close()


def made(lanes: Lanes, directory: Path, settings: SegmentSettings = SETTINGS) -> SegmentStore:
    return SegmentStore(SystemFiles(), lanes, str(directory), settings, SystemClock())


async def test_a_life_on_a_real_disk(lanes: Lanes, tmp_path: Path) -> None:
    rng = random.Random(1)
    store = made(lanes, tmp_path / "segments")
    assert (await store.open(STORE, 1)).newest is None
    assert (tmp_path / "segments").stat().st_mode & 0o777 == 0o700
    contents = [rng.randbytes(rng.randint(0, 20_000)) for _ in range(60)]
    chunks = [rng.randbytes(rng.randint(70_000, 200_000)) for _ in range(8)]

    async def upload(chunk: bytes) -> None:
        position = await store.append_body(cid_of(chunk), memoryview(chunk))
        await store.sync_bodies([position])

    uploads = [asyncio.create_task(upload(chunk)) for chunk in chunks]
    for content in contents:
        await store.commit(LEASE, [(cid_of(content), content)], MOVES, [])
    for task in uploads:
        await task
    for content in [*contents, *chunks]:
        assert await store.read(cid_of(content)) == content
    # A process that dies here leaves this behind.
    shutil.copytree(tmp_path / "segments", tmp_path / "crashed")
    await store.close()
    for name in ("segments", "crashed"):
        again = made(lanes, tmp_path / name)
        found = await again.open(STORE, 2)
        assert not found.problems and found.newest is not None
        assert found.newest[1].sequence == 60
        sequences = [record.sequence async for _, record in again.commits_after(0)]
        assert sequences == list(range(1, 61))
        for content in [*contents, *chunks]:
            assert await again.read(cid_of(content)) == content
            part = bytearray(len(content) // 2)
            await again.read_part(cid_of(content), len(content) // 4, memoryview(part))
            start = len(content) // 4
            assert part == content[start : start + len(part)]
        _, record = await again.commit(LEASE, [], MOVES, [])
        assert record.sequence == 61
        await again.close()
    for path in (tmp_path / "segments").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


async def test_the_next_log_segment_has_its_blocks_written(lanes: Lanes, tmp_path: Path) -> None:
    store = made(lanes, tmp_path / "segments")
    await store.open(STORE, 1)
    await store.commit(LEASE, [], MOVES, [])
    log = tmp_path / "segments" / "log-00000000000000000001.car"
    assert log.stat().st_size == SETTINGS.log_ahead_bytes
    assert log.stat().st_blocks * 512 >= SETTINGS.log_ahead_bytes
    await store.close()
    assert log.stat().st_size < 1000


async def test_a_directory_that_cannot_be_made(lanes: Lanes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = made(lanes, tmp_path / "file" / "segments")
    with pytest.raises(Unavailable, match="no segment directory"):
        await store.open(STORE, 1)


async def test_a_disk_that_is_full_beforehand(lanes: Lanes, tmp_path: Path) -> None:
    settings = replace(SETTINGS, log_ahead_bytes=1 << 60)
    store = made(lanes, tmp_path / "segments", settings)
    await store.open(STORE, 1)
    with pytest.raises(Unavailable, match="no space left"):
        await store.commit(LEASE, [], MOVES, [])
    await store.close()
    assert not [path for path in (tmp_path / "segments").iterdir() if "log" in path.name]


def test_the_calls_themselves(tmp_path: Path) -> None:
    files = SystemFiles()
    path = str(tmp_path / "a")
    fd = files.create(path)
    assert not os.get_inheritable(fd)
    with pytest.raises(FileExistsError):
        files.create(path)
    data = os.urandom(10_000)
    assert files.pwrite(fd, data, 5) == 10_000
    files.fdatasync(fd)
    assert files.size(fd) == 10_005
    assert files.pread(fd, 10_000, 5) == data == files.pread_now(fd, 10_000, 5)
    assert files.pread(fd, 20_000, 5) == data, "as much as there is"
    assert files.pread_now(fd, 20_000, 5) is None
    places = [("a", 5, 7), None, ("a", 5, 20_000), ("a", 10_004, 1)]
    assert files.pread_many_now({"a": fd}, places, 99_999) == [data[:7], None, None, data[-1:]]
    assert files.pread(fd, 5, 20_000) == b""
    view = files.map(fd, 10_005)
    assert view[5:] == data and view.readonly
    view.release()
    files.truncate(fd, 10)
    assert files.size(fd) == 10
    files.close(fd)
    with pytest.raises(OSError) as caught:
        files.pread_now(fd, 1, 0)
    assert caught.value.errno == errno.EBADF
    with pytest.raises(OSError):
        files.pread_many_now({"a": fd}, [("a", 0, 1)], 99)
    files.rename(path, path + "b")
    files.sync_directory(str(tmp_path))
    assert files.listdir(str(tmp_path)) == ["ab"] and files.exists(path + "b")
    fd = files.open(path + "b")
    with pytest.raises(OSError):
        files.pwrite(fd, b"x", 0)
    assert len(files.map(fd, 0)) == 0
    files.close(fd)
    files.unlink(path + "b")
    assert not files.exists(path + "b")
    files.mkdir(path)
    assert files.free_bytes(path) > 0


@pytest.mark.parametrize("many", [False, True])
def test_a_file_system_without_nowait_reads_with_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    files = SystemFiles()
    fd = files.create(str(tmp_path / "a"))
    files.pwrite(fd, b"data", 0)

    def refused(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "no RWF_NOWAIT")

    monkeypatch.setattr(resident, "read", refused)
    monkeypatch.setattr(resident, "read_many", refused)
    if many:
        assert files.pread_many_now({"a": fd}, [("a", 0, 4), None], 99) == [None, None]
    else:
        assert files.pread_now(fd, 4, 0) is None
    monkeypatch.undo()
    assert files.pread_now(fd, 4, 0) is None, "asked once, not at every read"
    assert files.pread_many_now({"a": fd}, [("a", 0, 4)], 99) == [None]
    files.close(fd)
