"""``ingot restore`` where the segments are not what they were, or where it is cut off itself."""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ingot.bucket.compaction import compact
from ingot.bucket.pins import Pins
from ingot.config import Config
from ingot.segments.commit import decode_commit
from ingot.server import Server
from tests.support.process import Gateway
from tests.support.store import BUCKETS, Store, run

pytestmark = pytest.mark.slow

RECORD = b"\xa1\x6eingot/commit@1"
COMMITS = 60  # of ``Store.fill``; three more make the buckets


def rows(store: Store) -> list[tuple[Any, ...]]:
    """Of every bucket its name, id, sequence and roots."""
    return sorted(tuple(row)[:6] for row in store.query(BUCKETS))


def read_all(store: Store, commits: int = COMMITS) -> list[int]:
    """Which of the objects of ``Store.fill`` are there; the gateway also takes new ones."""
    with store.serve() as gateway:
        client = gateway.client()
        found = []
        for number in range(commits):
            answer = client.get(f"/{('one', 'two', 'three')[number % 3]}/k{number:04}")
            assert answer.status in (200, 404), answer
            if answer.status == 200:
                assert answer.body == b"%d" % number + answer.body[len(b"%d" % number) :]
                found.append(number)
        for name in ("one", "two", "three"):
            assert client.put(f"/{name}/new", b"x").status == 200
        client.close()
    return found


def spoil(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x5A
    path.write_bytes(data)


def records(path: Path) -> list[int]:
    """Where the commit records of a segment stand."""
    return [found.start() for found in re.finditer(re.escape(RECORD), path.read_bytes())]


@pytest.mark.parametrize("last", [False, True])
def test_a_damaged_record_in_the_newest_segment(store: Store, last: bool) -> None:
    """Of one object all is there but the commit that says so; buckets moved later have it."""
    store.fill(COMMITS)
    path = store.logs()[-1]
    found = records(path)
    spoil(path, found[-1 if last else 50] + 100)
    store.drop_schema()
    number = 63 if last else len(records(path)) - len(found) + 51
    status, said = store.restore("--dry-run")
    assert status == 1 and "would be restored: 3 buckets" in said
    status, said = store.restore()
    assert status == 1 and f"commit {number} cannot be read" in said, said
    expected = list(range(COMMITS - 1)) if last else list(range(COMMITS))
    assert f"restored: 3 buckets, {len(expected)} objects, commits up to 63" in said
    assert read_all(store) == expected
    assert store.run("fsck")[0] == 1


def test_a_lost_segment_before_the_checkpoint(store: Store) -> None:
    """The heads stand in the checkpoint; objects whose blocks were there are named."""
    store.fill(COMMITS, body=bytes(40_000))
    assert len(store.logs()) >= 3
    before = rows(store)
    store.logs()[0].unlink()
    store.drop_schema()
    status, said = store.restore()
    assert status == 1 and "is missing" in said and "key 'k0000'" in said
    assert rows(store) == before
    status, said = store.run("fsck", "--no-bodies")
    assert status == 1 and "key 'k0000'" in said and "key 'k0059'" not in said


def test_a_tail_that_never_became_whole(store: Store) -> None:
    """What a crash tears was not acknowledged: its commit is not there, and nothing is amiss."""
    gateway = store.serve()
    client = gateway.client()
    assert client.put("/box", b"").status == 200
    for number in range(5):
        assert client.put(f"/box/{number}", b"x").status == 200
    gateway.kill()
    client.close()
    (path,) = store.logs()
    spoil(path, records(path)[-1] + 100)
    store.drop_schema()
    status, said = store.restore("--verify")
    assert status == 0 and "4 objects, commits up to 5" in said, said
    with store.serve() as gateway:
        client = gateway.client()
        assert [client.get(f"/box/{n}").status for n in range(5)] == [200] * 4 + [404]
        client.close()
    assert store.run("fsck")[0] == 0


@pytest.mark.parametrize("verify", [False, True])
async def test_units_among_the_segments(store: Store, verify: bool) -> None:
    await asyncio.to_thread(store.fill, COMMITS, bytes(40_000))
    server = Server(Config(data_dir=str(store.data), postgres=store.dsn, segment_bytes=1 << 20))
    await server.start(listening=False)
    settled = server.segments.settled()
    assert len(settled) >= 3
    assert await compact(server.segments, settled[:2], Pins()) is not None
    await server.stop()
    assert len(list(store.segments.glob("unit-*.car"))) == 1

    def lose_and_restore() -> None:
        before = rows(store)
        store.drop_schema()
        status, said = store.restore(*["--verify"] * verify)
        assert status == 0, said
        assert rows(store) == before
        assert read_all(store) == list(range(COMMITS))
        assert store.run("fsck")[0] == 0

    await asyncio.to_thread(lose_and_restore)


def test_the_newest_segment_is_gone(store: Store) -> None:
    """What only it said is lost, and named; what the others say is there."""
    store.fill(COMMITS, body=bytes(40_000))
    path = store.logs()[-1]
    lost = len(records(path))
    path.unlink()
    store.drop_schema()
    status, said = store.restore()
    assert status == 1 and f"commits {64 - lost} to 63 cannot be read" in said, said
    assert read_all(store) == list(range(COMMITS - lost))


def test_a_restored_store_is_a_new_incarnation(store: Store) -> None:
    """So that whoever else serves a copy of it can tell that it is the older one."""
    store.fill(5)
    for times in (1, 2):
        store.drop_schema()
        assert store.restore()[0] == 0
        with store.serve() as gateway:
            client = gateway.client()
            assert client.put("/one/more", b"x").status == 200
            client.close()
        data = store.logs()[-1].read_bytes()
        assert decode_commit(data[data.rindex(RECORD) :]).incarnation == times + 1


def test_indexes_are_lost_too(store: Store) -> None:
    store.fill(COMMITS)
    before = rows(store)
    store.drop_schema()
    for path in store.segments.glob("*.idx"):
        path.unlink()
    assert store.restore("--dry-run")[0] == 0
    assert not list(store.segments.glob("*.idx"))
    assert store.restore()[0] == 0
    assert rows(store) == before and read_all(store) == list(range(COMMITS))


@pytest.mark.parametrize("text", [None, b"{torn"])
def test_the_file_store_is_lost_too(store: Store, text: bytes | None) -> None:
    store.fill(COMMITS)
    before = rows(store)
    store.drop_schema()
    mark = store.data / "STORE"
    whose = re.search(rb'"store": "(.*?)"', mark.read_bytes())
    mark.unlink()
    if text is not None:
        mark.write_bytes(text)
    status, said = store.restore("--dry-run")
    assert status == 3 and mark.exists() == (text is not None)
    status, said = store.restore()
    assert status == 3 and whose is not None and whose[1].decode() in said
    assert rows(store) == before and read_all(store) == list(range(COMMITS))
    assert whose[0] in mark.read_bytes()
    assert (store.data / "STORE.damaged").exists() == (text is not None)


def test_a_store_file_that_is_not_of_these_segments(store: Store) -> None:
    store.fill(5)
    before = store.query("SELECT count(*) FROM ingot.heads")
    assert before[0][0]
    store.drop_schema()
    mark = store.data / "STORE"
    ours = json.loads(mark.read_bytes())
    mark.write_text(json.dumps(ours | {"store": "ab" * 16}))
    status, said = store.restore()
    assert status == 2 and ours["store"] in said and "ab" * 16 in said
    mark.write_text(json.dumps(ours | {"format": 99}))  # a later version's is not replaced
    status, said = store.restore()
    assert status == 2 and "format 99" in said and b"99" in mark.read_bytes()
    mark.write_text(json.dumps(ours))
    assert store.restore()[0] == 0
    assert read_all(store, 5) == list(range(5))


@pytest.mark.parametrize("seed", range(3))
def test_damage_anywhere(store: Store, seed: int) -> None:
    """Whatever the damage, a restore says so, the gateway starts, and no object is another."""
    store.fill(COMMITS, body=bytes(20_000))
    rng = random.Random(seed)
    for path in rng.sample(sorted(store.segments.glob("*.*")), 3):
        places = records(path) if rng.random() < 0.7 else []
        for _ in range(rng.choice((1, 5, 30))):
            where = rng.choice(places) if places else rng.randrange(path.stat().st_size)
            spoil(path, min(where + rng.randrange(200), path.stat().st_size - 1))
    if rng.random() < 0.3:
        for path in store.segments.glob("*.idx"):
            path.unlink()
    store.drop_schema()
    status, said = store.restore()
    assert status in (0, 1, 3), said
    with store.serve() as gateway:
        client = gateway.client()
        for number in range(COMMITS):
            answer = client.get(f"/{('one', 'two', 'three')[number % 3]}/k{number:04}")
            assert answer.status in (200, 404, 500), answer
            assert answer.status != 200 or answer.body == b"%d" % number + bytes(20_000)
            assert status != 0 or answer.status == 200
        client.close()


def test_every_bucket_was_deleted(store: Store) -> None:
    with store.serve() as gateway:
        client = gateway.client()
        for name in ("one", "two", "three"):
            assert client.put(f"/{name}", b"").status == 200
            assert client.delete(f"/{name}").status == 204
        client.close()
    store.drop_schema()
    assert store.restore()[0] == 0
    with store.serve() as gateway:
        client = gateway.client()
        assert client.get("/one").code == "NoSuchBucket"
        assert client.put("/one", b"").status == 200
        client.close()
    assert store.run("fsck")[0] == 0


def test_nothing_was_ever_written(store: Store) -> None:
    """A gateway that finds segments and an unused database refuses to start."""
    store.serve().stop()
    store.drop_schema()
    status, said = store.restore()
    assert status == 0 and "restored: 0 buckets, 0 objects, commits up to 0" in said
    store.fill(COMMITS)
    assert read_all(store) == list(range(COMMITS))


def test_the_private_postgres_is_lost(private_path: Path) -> None:
    data, restore = private_path / "data", ("restore", "--from-segments")
    with Gateway(data) as gateway:
        client = gateway.client()
        assert client.put("/box", b"").status == 200
        for number in range(10):
            assert client.put(f"/box/{number}", b"x").status == 200
        client.close()
    shutil.rmtree(data / "postgres")
    status, said = run(data, *restore, "--dry-run")
    assert status == 0 and "10 objects" in said and "was not looked at" in said
    assert not (data / "postgres").exists()
    status, said = run(data, *restore)
    assert status == 0 and "10 objects" in said, said
    with Gateway(data) as gateway:
        client = gateway.client()
        assert [client.get(f"/box/{number}").status for number in range(10)] == [200] * 10
        client.close()
    assert run(data, "fsck")[0] == 0


# -- a restore that is cut off ---------------------------------------------------------------------


def begin(store: Store) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "ingot.cli", "restore", "--from-segments"),
            *("--data-dir", str(store.data), "--postgres", store.dsn),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_ended_in_its_transaction(store: Store, number: signal.Signals) -> None:
    """Nothing of it stands, and the next one need not wait for the lease of the dead."""
    store.fill(COMMITS)
    before = rows(store)
    store.query("DELETE FROM ingot.heads")

    async def kill_inside() -> None:
        blocker = await asyncpg.connect(store.dsn)
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE ingot.heads IN SHARE MODE")
            restoring = begin(store)
            while not await blocker.fetchval(waiting):
                assert restoring.poll() is None, "it ended without writing"
                await asyncio.sleep(0.01)
            restoring.send_signal(number)
            _, said = restoring.communicate()
            assert restoring.returncode == (130 if number == signal.SIGINT else -9), said
            assert "Traceback" not in said
        await blocker.close()

    asyncio.run(kill_inside())
    assert store.query("SELECT * FROM ingot.heads") == []
    status, said = store.restore()
    assert status == 0, said
    assert rows(store) == before
    status, said = store.restore()
    assert status == 2 and "There is nothing to restore" in said
    assert rows(store) == before and read_all(store) == list(range(COMMITS))


@pytest.mark.parametrize("lines", [0, 1, 2, 3])
def test_killed_at_any_line_of_its_report(store: Store, lines: int) -> None:
    store.fill(COMMITS)
    before = rows(store)
    store.drop_schema()
    restoring = begin(store)
    assert restoring.stdout is not None
    for _ in range(lines):
        assert restoring.stdout.readline()
    restoring.kill()
    restoring.communicate()
    status, said = store.restore()
    assert status == 0 or (status == 2 and "There is nothing to restore" in said), said
    assert rows(store) == before and read_all(store) == list(range(COMMITS))
    assert store.run("fsck")[0] == 0
