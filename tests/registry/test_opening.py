"""A database that cannot be used is named, with what to do; the password never shows."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg
import pytest

from ingot.errors import ConfigError, Unavailable
from ingot.registry import statements
from ingot.registry.embedded import EmbeddedPostgres
from ingot.registry.postgres import Postgres


@pytest.fixture
async def admin(postgres: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(postgres)
    await connection.execute("DROP SCHEMA IF EXISTS ingot CASCADE")
    yield connection
    await connection.close()


def host_of(dsn: str) -> str:
    return parse_qs(urlsplit(dsn).query)["host"][0]


async def refused(dsn: str, kind: type[Exception] = ConfigError) -> str:
    registry = Postgres(dsn)
    with pytest.raises(kind) as caught:
        await registry.open()
    with pytest.raises(Unavailable, match="not open"):
        await registry.store_id()
    text = str(caught.value)
    assert "hunter2" not in text and "\n" not in text
    return text


async def test_a_host_that_is_not_known() -> None:
    assert "no-such-host.invalid" in await refused(
        "postgresql://me:hunter2@no-such-host.invalid/db"
    )


async def test_nobody_listens(tmp_path: Path) -> None:
    text = await refused("postgresql://me:hunter2@127.0.0.1:1/db", Unavailable)
    assert "127.0.0.1:1/db" in text
    await refused(f"postgresql:///db?host={quote(str(tmp_path))}", Unavailable)


@pytest.mark.parametrize(
    "dsn",
    ["mysql://me:hunter2@host/db", "postgresql://me:hunter2@host:port/db", "host=localhost"],
)
async def test_not_a_dsn(dsn: str) -> None:
    await refused(dsn)


async def test_a_database_that_is_missing(postgres: str) -> None:
    text = await refused(f"postgresql://ingot@/nowhere?host={quote(host_of(postgres))}")
    assert '"nowhere" does not exist' in text


async def test_a_role_that_is_missing(postgres: str) -> None:
    await refused(f"postgresql://nobody:hunter2@/postgres?host={quote(host_of(postgres))}")


async def test_a_wrong_password(private_postgres: EmbeddedPostgres) -> None:
    server = private_postgres
    dsn = await server.start()
    admin = await asyncpg.connect(dsn)
    await admin.execute("CREATE ROLE app LOGIN PASSWORD 'right'")
    hba = Path(await admin.fetchval("SHOW hba_file"))
    hba.write_text("local all ingot trust\nlocal all all scram-sha-256\n")
    await admin.execute("SELECT pg_reload_conf()")
    await admin.close()
    text = await refused(f"postgresql://app:hunter2@/postgres?host={quote(host_of(dsn))}")
    assert "password" in text
    await server.stop()


async def test_a_role_that_may_not_create_a_schema(postgres: str, admin: Any) -> None:
    await admin.execute("DROP ROLE IF EXISTS poor")
    await admin.execute("CREATE ROLE poor LOGIN")
    dsn = f"postgresql://poor@/postgres?host={quote(host_of(postgres))}"
    assert "permission" in await refused(dsn)
    # Once an owner has migrated, the rights on the tables are enough.
    owner = Postgres(postgres)
    await owner.open()
    await owner.close()
    assert "permission" in await refused(dsn)
    await admin.execute("GRANT USAGE ON SCHEMA ingot TO poor")
    await admin.execute(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ingot TO poor"
    )
    registry = Postgres(dsn)
    await registry.open()
    assert await registry.acquire("one", 60.0) is not None
    await registry.close()
    await admin.execute("DROP SCHEMA ingot CASCADE")
    await admin.execute("DROP ROLE poor")


async def test_a_pool_that_is_too_small(postgres: str, admin: Any) -> None:
    pool = await asyncpg.create_pool(postgres, min_size=1, max_size=1)
    with pytest.raises(ConfigError, match="two connections"):
        await Postgres(pool=pool).open()
    await pool.close()


async def test_a_pool_gets_its_connections_back(postgres: str, admin: Any) -> None:
    pool = await asyncpg.create_pool(postgres, min_size=2, max_size=2)
    for _ in range(3):
        registry = Postgres(pool=pool)
        await registry.open()
        await registry.close()
    assert pool.get_idle_size() == 2
    async with pool.acquire() as connection:
        shown = await connection.fetchval("SHOW plan_cache_mode")
    assert shown == "auto"  # nothing of ours is left in the session
    await pool.close()


async def test_a_pool_whose_connections_die(postgres: str, admin: Any) -> None:
    pool = await asyncpg.create_pool(postgres, min_size=0, max_size=4)
    registry = Postgres(pool=pool)
    await registry.open()
    before = registry._swaps.connection
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    deadline = time.monotonic() + 10.0
    while registry._swaps.connection in (None, before) or registry._calls.connection is None:
        assert time.monotonic() < deadline, "it did not connect again"
        await asyncio.sleep(0.002)
    assert await registry.store_id() is None
    await registry.close()
    await pool.close()


def test_dsn_or_pool_and_not_both() -> None:
    for arguments in ({}, {"dsn": "postgresql://x", "pool": object()}):
        with pytest.raises(ConfigError, match="either a Postgres DSN or a pool"):
            Postgres(**arguments)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *(("SWAP_ONE", 13), ("SWAP", 13), ("SWAP_RUN", 14), ("SWAP_ANY", 16)),
        *(("STANDING", 2), ("BUCKETS", 0)),
    ],
)
async def test_plans_made_on_empty_tables_probe_indexes(
    postgres: str, admin: Any, name: str, arguments: int
) -> None:
    """A swap is planned once, before there are heads: a plan that scans them all would stay."""
    registry = Postgres(postgres)
    await registry.open()
    await registry.close()
    await admin.execute(statements.SESSION_SWAP)
    await admin.execute(f"PREPARE plan AS {getattr(statements, name)}")
    nulls = f"({', '.join(['NULL'] * arguments)})" if arguments else ""
    plan = [row[0] for row in await admin.fetch(f"EXPLAIN EXECUTE plan{nulls}")]
    await admin.execute("DEALLOCATE plan")
    await admin.execute("RESET ALL")
    bad = [step for step in plan if re.search(r"Seq Scan on (heads|buckets)|Hash|Merge", step)]
    assert bad == [] and any("Index Scan" in step for step in plan)
