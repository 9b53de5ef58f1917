"""Migrations: applied once, in order, all or none, and never changed afterwards."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ingot.errors import ConfigError
from ingot.messages import CommitRef, Head, HeadMove
from ingot.registry import migrate
from ingot.registry.postgres import Postgres

RELEASED = [str(migration) for migration in migrate.load(migrate.directory())]
MORE = f"{len(RELEASED) + 1:04d}_more"


@pytest.fixture
async def admin(postgres: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(postgres)
    await connection.execute("DROP SCHEMA IF EXISTS ingot CASCADE")
    yield connection
    await connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The released migrations and one more."""
    copy = tmp_path / "migrations"
    shutil.copytree(migrate.directory(), copy)
    (copy / f"{MORE}.sql").write_text(
        "CREATE TABLE ingot.more (n int); INSERT INTO ingot.more VALUES (1);"
    )
    return copy


async def test_each_is_applied_once_and_in_order(admin: Any, path: Path) -> None:
    assert await migrate.migrate(admin) == RELEASED
    assert await migrate.migrate(admin, path) == [MORE]
    assert await migrate.migrate(admin, path) == []
    rows = await admin.fetch("SELECT number, name FROM ingot.migrations ORDER BY number")
    assert [f"{row['number']:04d}_{row['name']}" for row in rows] == [*RELEASED, MORE]
    assert await admin.fetchval("SELECT count(*) FROM ingot.more") == 1


async def test_heads_from_before_their_records_were_kept(
    postgres: str, admin: Any, tmp_path: Path
) -> None:
    shutil.copy(migrate.directory() / "0001_init.sql", tmp_path)
    await migrate.migrate(admin, tmp_path)
    await admin.execute(
        "INSERT INTO ingot.heads (bucket, sequence, commit) VALUES ($1, 0, 5)", b"b" * 16
    )
    await admin.execute("INSERT INTO ingot.buckets (name, bucket) VALUES ('b', $1)", b"b" * 16)
    registry = Postgres(postgres)
    await registry.open()
    (row,) = await registry.buckets()
    assert row.commit == CommitRef(5, None) == await registry.newest_commit()
    token = await registry.acquire("one", 60.0)
    assert token is not None
    newer = CommitRef(6, b"r" * 36)
    await registry.swap(token, newer, [HeadMove(row.bucket, "b", row.head, Head(1))])
    assert [row.commit for row in await registry.buckets()] == [newer]
    await registry.close()


async def test_a_failed_migration_leaves_nothing(admin: Any, path: Path) -> None:
    (path / f"{MORE}.sql").write_text("CREATE TABLE ingot.more (n int); SELECT 1/0;")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate.migrate(admin, path)
    assert await admin.fetchval("SELECT to_regnamespace('ingot')") is None


async def test_starters_at_the_same_time_wait_for_one_another(postgres: str, admin: Any) -> None:
    registries = [Postgres(postgres) for _ in range(4)]
    await asyncio.gather(*(registry.open() for registry in registries))
    for registry in registries:
        await registry.close()
    assert await admin.fetchval("SELECT count(*) FROM ingot.migrations") == len(RELEASED)


async def test_an_edited_migration_is_refused(admin: Any, tmp_path: Path, path: Path) -> None:
    await migrate.migrate(admin, path)
    edited = tmp_path / "edited"
    shutil.copytree(path, edited)
    with (edited / f"{MORE}.sql").open("a") as file:
        file.write("-- a harmless remark\n")
    with pytest.raises(ConfigError, match=rf"{MORE} .*never edited"):
        await migrate.migrate(admin, edited)


async def test_a_newer_schema_is_refused(postgres: str, admin: Any, path: Path) -> None:
    await migrate.migrate(admin, path)
    with pytest.raises(ConfigError, match=rf"{MORE}, newer than this program"):
        await Postgres(postgres).open()


async def test_another_migration_of_that_number_is_refused(
    admin: Any, tmp_path: Path, path: Path
) -> None:
    await migrate.migrate(admin, path)
    renamed = tmp_path / "renamed"
    shutil.copytree(path, renamed)
    other = MORE.replace("more", "other")
    (renamed / f"{MORE}.sql").rename(renamed / f"{other}.sql")
    with pytest.raises(ConfigError, match=f"{MORE} where this program has {other}"):
        await migrate.migrate(admin, renamed)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ([], "no migrations found"),
        (["0001_init.sql", "0003_gap.sql"], "number 2 belongs"),
        (["0002_late.sql"], "number 1 belongs"),
        (["0001_init.sql", "0001_twice.sql"], "number 2 belongs"),
        (["1_short.sql"], "NNNN_name.sql"),
    ],
)
def test_a_directory_that_is_not_in_order(tmp_path: Path, names: list[str], complaint: str) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1;")
    with pytest.raises(ConfigError, match=complaint):
        migrate.load(tmp_path)


def test_line_ends_do_not_change_a_checksum(tmp_path: Path) -> None:
    sums = set()
    for folder, end in (("unix", b"\n"), ("other", b"\r\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0001_init.sql").write_bytes(b"SELECT 1;" + end + b"SELECT 2;" + end)
        sums.add(migrate.load(tmp_path / folder)[0].sha256)
    assert len(sums) == 1


def test_released_migrations_stay_as_they_are() -> None:
    """A database that has one refuses a changed one: add a migration instead."""
    released = {
        "0002_heads_record": "1e3eb6f295a2a50304a5ea32ea3fb8e9961858f248b478463b6b73095f423d59",
        "0003_units": "7667c9fa8541fb754e2f3233525d0031878dad7f8d5b3b244987fff55da92470",
        "0004_shipments": "871a16809f6fceb74a0403383e906c037364363ccbbb98e452c7f225d15f64be",
        "0001_init": "65071c553e2a05c765fad103dffeed8a9b24a599d3d077fa0ccf179a8444a2bd",
    }
    found = {str(migration): migration.sha256 for migration in migrate.load(migrate.directory())}
    assert {name: found[name] for name in released} == released
