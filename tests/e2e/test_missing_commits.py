"""A log that lacks commits which the registry has: their buckets stay read-only, start after start,
until the commits are there."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from ingot.errors import LeaseLost
from tests.support.client import Client
from tests.support.servers import Servers, lose_newest_commit

pytestmark = pytest.mark.slow


class World:
    """A store with three buckets. ``lost`` has commits in a log segment of its own."""

    def __init__(self, place: Path) -> None:
        self.data, self.aside = place / "data", place / "aside"
        self.segments = self.data / "segments"
        self.servers = Servers()

    def running(self) -> AbstractContextManager[Client]:
        return self.servers.running(self.data)

    def build(self) -> World:
        with self.running() as client:
            for name in ("lost", "kept", "gone"):
                assert client.put(f"/{name}", b"").status == 200
                assert client.put(f"/{name}/old", b"old").status == 200
        shutil.copytree(self.segments, self.aside)
        with self.running() as client:
            for n in range(5):
                assert client.put(f"/lost/new{n}", b"new").status == 200
            assert client.delete("/gone/old").status == 204
            assert client.delete("/gone").status == 204
        return self

    def check(self, key: str) -> None:
        """What holds while commits are missing."""
        with self.running() as client:
            refused = client.put(f"/lost/{key}", b"x")
            assert (refused.status, refused.code) == (503, "SlowDown"), refused
            assert client.get("/lost/new3").status == 500, "what is not here is not made up"
            assert client.get("/gone").code == "NoSuchBucket"
            assert client.put(f"/kept/{key}", b"x").status == 200
            assert client.get("/kept/old").body == b"old"
            assert "bucket lost is read-only" in self.report()
            assert "bucket kept" not in self.report()

    def report(self) -> str:
        return "\n".join(self.servers.made[-1].report)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path).build()


def test_a_log_put_back_to_an_older_copy(world: World) -> None:
    """Later commits of other buckets must not hide that some are missing."""
    shutil.rmtree(world.segments)
    shutil.copytree(world.aside, world.segments)
    for start in range(4):
        world.check(f"start{start}")


def test_a_segment_in_the_middle_that_is_put_back_later(world: World) -> None:
    with world.running() as client:
        assert client.put("/kept/later", b"later").status == 200
    _, segment, *later = sorted(world.segments.glob("log-*"))
    assert later
    segment.rename(world.aside / "segment")
    for start in range(2):
        world.check(f"start{start}")
    (world.aside / "segment").rename(segment)
    with world.running() as client:
        assert client.put("/lost/more", b"more").status == 200, world.report()
        assert client.get("/lost/new3").body == b"new"
        assert client.get("/kept/start1").body == b"x"


def test_rows_from_before_commit_records_were_kept(world: World) -> None:
    shutil.rmtree(world.segments)
    shutil.copytree(world.aside, world.segments)
    heads = world.servers.database.heads
    for bucket, rows in heads.items():
        heads[bucket] = [(row, replace(commit, record=None)) for row, commit in rows]
    for start in range(3):
        world.check(f"start{start}")


def test_a_failover_that_lost_commits_of_a_bucket_that_is_at_rest(tmp_path: Path) -> None:
    """Later commits of other buckets must not hide it: they are put back at the next start."""
    servers, data = Servers(), tmp_path / "data"
    with servers.running(data) as client:
        for name in ("rest", "busy"):
            assert client.put(f"/{name}", b"").status == 200
        for n in range(5):
            assert client.put(f"/rest/{n}", b"acknowledged").status == 200
        for _ in range(3):
            lose_newest_commit(servers.database)
        assert client.put("/busy/k", b"x").status == 503
        assert client.put("/busy/k", b"x").status == 503
        assert isinstance(servers.made[-1].pipeline.failed, LeaseLost)
    with servers.running(data) as client:
        assert [client.get(f"/rest/{n}").body for n in range(5)] == [b"acknowledged"] * 5
        assert client.put("/busy/k", b"x").status == 200
