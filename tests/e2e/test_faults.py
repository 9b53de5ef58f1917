"""A real ``ingot serve`` over a Postgres that goes away, forgets, or belongs to somebody else."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from ingot.registry.embedded import EmbeddedPostgres
from tests.e2e import crash
from tests.support.process import Gateway

pytestmark = pytest.mark.slow


def put(gateway: Gateway, key: str, body: bytes) -> int:
    client = gateway.client()
    status = client.put(f"/box/{key}", body).status
    client.close()
    return status


def test_kill_9_rounds(private_data: Path) -> None:
    starts = crash.run(4, 7, private_data.parent)
    assert len(starts) == 4


def test_postgres_away_and_back(private_postgres: EmbeddedPostgres, private_path: Path) -> None:
    dsn = private_postgres.start_blocking()
    with Gateway(private_path / "gateway", "--postgres", dsn) as gateway:
        client = gateway.client()
        assert client.put("/box", b"").status == 200
        assert client.put("/box/before", b"1").status == 200
        private_postgres.stop_blocking()
        answers = []

        def write() -> None:
            mine = gateway.client()
            answers.append(mine.put("/box/during", b"2"))
            mine.close()

        writers = [threading.Thread(target=write) for _ in range(8)]
        for writer in writers:
            writer.start()
        assert client.get("/box/before").body == b"1", (
            "reads need no Postgres while the lease holds"
        )
        for writer in writers:
            writer.join()
        assert {answer.status for answer in answers} == {503}
        assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
        private_postgres.start_blocking()
        deadline = time.monotonic() + 30
        while client.put("/box/after", b"3").status != 200:
            assert time.monotonic() < deadline, "it did not recover"
        assert client.get("/box/after").body == b"3"
        assert client.get("/box/before").body == b"1"
    private_postgres.stop_blocking()


def test_postgres_that_lost_its_last_commits(
    private_postgres: EmbeddedPostgres, private_path: Path
) -> None:
    dsn = private_postgres.start_blocking()
    data = private_path / "gateway"
    with Gateway(data, "--postgres", dsn) as gateway:
        client = gateway.client()
        assert client.put("/box", b"").status == 200
        assert client.put("/box/old", b"old").status == 200
    private_postgres.stop_blocking()
    subprocess.run(["cp", "-a", private_path / "data", private_path / "backup"], check=True)
    private_postgres.start_blocking()
    with Gateway(data, "--postgres", dsn) as gateway:
        for number in range(20):
            assert put(gateway, f"new{number}", b"%d" % number) == 200
        assert gateway.client().delete("/box/old").status == 204
    private_postgres.stop_blocking()
    shutil.rmtree(private_path / "data")
    (private_path / "backup").rename(private_path / "data")
    private_postgres.start_blocking()
    with Gateway(data, "--postgres", dsn) as gateway:
        client = gateway.client()
        assert client.list_all("box") == {f"new{n}": len(str(n)) for n in range(20)}
        assert client.get("/box/new7").body == b"7"
        assert client.get("/box/old").status == 404
    assert "had lost its last 21 commits" in (private_path / "gateway.log").read_text()
    private_postgres.stop_blocking()


def refused(data: Path, dsn: str) -> str:
    with pytest.raises(AssertionError, match="ended with 2") as failure:
        Gateway(data, "--postgres", dsn)
    return str(failure.value)


def test_emptied_and_foreign_postgres(
    private_postgres: EmbeddedPostgres, private_path: Path
) -> None:
    dsn = private_postgres.start_blocking()
    mine, other = private_path / "mine", private_path / "other"
    with Gateway(mine, "--postgres", dsn) as gateway:
        client = gateway.client()
        assert client.put("/box", b"").status == 200
        for number in range(5):
            assert client.put(f"/box/{number}", b"x").status == 200
    segments = sorted(path.name for path in (mine / "segments").iterdir())
    assert "belongs to store" in refused(other, dsn)
    run = ["psql", "-q", dsn, "-c", "drop schema ingot cascade"]
    subprocess.run(run, check=True, stderr=subprocess.DEVNULL)
    told = refused(mine, dsn)
    assert "ingot restore" in told and "nothing was changed" in told
    assert sorted(path.name for path in (mine / "segments").iterdir()) == segments
    private_postgres.stop_blocking()


def test_standby_takes_over_the_directory(private_data: Path) -> None:
    first = Gateway(private_data)
    assert first.client().put("/box", b"").status == 200
    assert first.client().put("/box/k", b"1").status == 200
    second: list[Gateway] = []
    waiting = threading.Thread(target=lambda: second.append(Gateway(private_data)))
    waiting.start()
    log = private_data.with_name("data.log")
    while "standby" not in log.read_text():
        assert waiting.is_alive()
    assert put(first, "k2", b"2") == 200, "the first serves on"
    first.kill()
    waiting.join(30)
    with second[0] as gateway:
        assert gateway.client().get("/box/k").body == b"1"
        assert gateway.client().get("/box/k2").body == b"2"
        assert put(gateway, "k3", b"3") == 200


def test_orderly_stop_finishes_requests(private_data: Path) -> None:
    gateway = Gateway(private_data)
    assert gateway.client().put("/box", b"").status == 200
    acknowledged: list[str] = []

    def write(number: int) -> None:
        client = gateway.client()
        try:
            for step in range(10_000):
                if client.put(f"/box/{number}-{step}", b"x").status == 200:
                    acknowledged.append(f"{number}-{step}")
        except OSError:
            pass  # it has stopped
        except Exception as error:  # a response cut short
            acknowledged.append(f"broken: {error!r}")

    writers = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for writer in writers:
        writer.start()
    while len(acknowledged) < 200:
        assert gateway.process.poll() is None
    assert gateway.stop() == 0
    for writer in writers:
        writer.join()
    with Gateway(private_data) as again:
        assert set(acknowledged) <= set(again.client().list_all("box"))
