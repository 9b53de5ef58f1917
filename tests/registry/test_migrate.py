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
from ingot.registry import migrate
from ingot.registry.postgres import Postgres


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
    (copy / "0002_more.sql").write_text(
        "CREATE TABLE ingot.more (n int); INSERT INTO ingot.more VALUES (1);"
    )
    return copy


async def test_each_is_applied_once_and_in_order(admin: Any, path: Path) -> None:
    assert await migrate.migrate(admin) == ["0001_init"]
    assert await migrate.migrate(admin, path) == ["0002_more"]
    assert await migrate.migrate(admin, path) == []
    rows = await admin.fetch("SELECT number, name FROM ingot.migrations ORDER BY number")
    assert [tuple(row) for row in rows] == [(1, "init"), (2, "more")]
    assert await admin.fetchval("SELECT count(*) FROM ingot.more") == 1


async def test_a_failed_migration_leaves_nothing(admin: Any, path: Path) -> None:
    (path / "0002_more.sql").write_text("CREATE TABLE ingot.more (n int); SELECT 1/0;")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate.migrate(admin, path)
    assert await admin.fetchval("SELECT to_regnamespace('ingot')") is None


async def test_starters_at_the_same_time_wait_for_one_another(postgres: str, admin: Any) -> None:
    registries = [Postgres(postgres) for _ in range(4)]
    await asyncio.gather(*(registry.open() for registry in registries))
    for registry in registries:
        await registry.close()
    assert await admin.fetchval("SELECT count(*) FROM ingot.migrations") == 1


async def test_an_edited_migration_is_refused(admin: Any, tmp_path: Path, path: Path) -> None:
    await migrate.migrate(admin, path)
    edited = tmp_path / "edited"
    shutil.copytree(path, edited)
    with (edited / "0002_more.sql").open("a") as file:
        file.write("-- a harmless remark\n")
    with pytest.raises(ConfigError, match=r"0002_more .*never edited"):
        await migrate.migrate(admin, edited)


async def test_a_newer_schema_is_refused(postgres: str, admin: Any, path: Path) -> None:
    await migrate.migrate(admin, path)
    with pytest.raises(ConfigError, match=r"0002_more, newer than this program"):
        await Postgres(postgres).open()


async def test_another_migration_of_that_number_is_refused(
    admin: Any, tmp_path: Path, path: Path
) -> None:
    await migrate.migrate(admin, path)
    renamed = tmp_path / "renamed"
    shutil.copytree(path, renamed)
    (renamed / "0002_more.sql").rename(renamed / "0002_other.sql")
    with pytest.raises(ConfigError, match=r"0002_more where this program has 0002_other"):
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
    released = {"0001_init": "65071c553e2a05c765fad103dffeed8a9b24a599d3d077fa0ccf179a8444a2bd"}
    found = {str(migration): migration.sha256 for migration in migrate.load(migrate.directory())}
    assert {name: found[name] for name in released} == released
