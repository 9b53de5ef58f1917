"""Worlds for the registry's contract: one database, several gateways, time that can be moved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from ingot.registry.memory import Database, MemoryRegistry
from ingot.registry.postgres import Postgres
from tests.support import database
from tests.support.servers import lose_newest_commit


class MemoryWorld:
    """Registries over one ``Database`` whose clock stands still until it is told otherwise."""

    class Ticks:
        now = 1000.0

        def monotonic(self) -> float:
            return self.now

    def __init__(self) -> None:
        self.ticks = self.Ticks()
        self.database = Database(clock=self.ticks)
        self.opened: list[Any] = []

    async def gateway(self) -> MemoryRegistry:
        registry = MemoryRegistry(self.database)
        await registry.open()
        self.opened.append(registry)
        return registry

    async def expire_lease(self) -> None:
        self.ticks.now += 1000.0

    async def lose_newest_commit(self) -> None:
        """As a failover to a standby that had not heard of it."""
        lose_newest_commit(self.database)

    async def close(self) -> None:
        for registry in self.opened:
            await registry.close()


class PostgresWorld:
    """Registries over one Postgres; ``options`` are those of ``Postgres``."""

    def __init__(self, dsn: str, **options: Any) -> None:
        self.dsn, self.options = dsn, options
        self.opened: list[Any] = []
        self.admin: Any = None

    async def start(self, prepared: set[str]) -> None:
        self.admin = await asyncpg.connect(self.dsn)
        await empty(self.admin, self.dsn, prepared)

    async def gateway(self) -> Postgres:
        registry = Postgres(self.dsn, **self.options)
        await registry.open()
        self.opened.append(registry)
        return registry

    async def lose_newest_commit(self) -> None:
        await self.admin.execute(
            "DELETE FROM ingot.heads WHERE commit = (SELECT max(commit) FROM ingot.heads);"
            "DELETE FROM ingot.buckets WHERE bucket NOT IN (SELECT bucket FROM ingot.heads)"
        )

    async def expire_lease(self) -> None:
        await self.admin.execute("UPDATE ingot.lease SET expires_at = clock_timestamp()")

    async def close(self) -> None:
        for registry in self.opened:
            await registry.close()
        await self.admin.close()


class PoolWorld(PostgresWorld):
    """The host lends its pool to every gateway."""

    pool: Any = None

    async def gateway(self) -> Postgres:
        if self.pool is None:
            self.pool = await asyncpg.create_pool(self.dsn, min_size=1, max_size=8)
        registry = Postgres(pool=self.pool)
        await registry.open()
        self.opened.append(registry)
        return registry

    async def close(self) -> None:
        await super().close()
        if self.pool is not None:
            await self.pool.close()


@pytest.fixture(scope="module")
def prepared() -> set[str]:
    """Databases that these tests have begun with."""
    return set()


async def empty(connection: Any, dsn: str, prepared: set[str]) -> None:
    """Nothing is in the database any more. Its schema stands, but for the first test."""
    await (database.empty if dsn in prepared else database.drop)(connection)
    prepared.add(dsn)


@pytest.fixture
async def emptied(postgres: str, prepared: set[str]) -> str:
    connection = await asyncpg.connect(postgres)
    await empty(connection, postgres, prepared)
    await connection.close()
    return postgres


@pytest.fixture(params=["memory", "postgres", "pool", "pooler"])
async def world(request: pytest.FixtureRequest, prepared: set[str]) -> AsyncIterator[Any]:
    made: Any
    if request.param == "memory":
        made = MemoryWorld()
    else:
        dsn = request.getfixturevalue("postgres")
        if request.param == "pool":
            made = PoolWorld(dsn)
        else:
            made = PostgresWorld(
                dsn, **{"pooler": {"statement_cache_size": 0}}.get(request.param, {})
            )
        await made.start(prepared)
    yield made
    await made.close()
