"""One Postgres connection for life: opened, used by one call at a time, replaced when it breaks.

A call never waits for a broken line: it raises Unavailable at once, while a task connects again
with backoff, at first immediately. A call that ran into its timeout, or was cancelled, leaves a
connection whose state nobody knows, so that connection is cut and the line starts over. Used by
``ingot.registry.postgres``, which keeps two: one for swaps, one for everything else.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import asyncpg

from ingot.errors import ConfigError, IngotError, LeaseLost, Unavailable
from ingot.limits import REGISTRY_CONNECT_S, REGISTRY_RECONNECT_S

# SQLSTATE classes of a server that cannot do it now: connection, transaction rolled back,
# resources, operator intervention (shutting down, starting up, cancelled), system error.
_PASSING = ("08", "40", "53", "57", "58")
# Lock not available; read-only transaction: a standby, in the middle of a failover.
_PASSING_STATES = ("55P03", "25006")
# Table, schema or column gone: this is not the database the lease was taken in.
_GONE_STATES = ("42P01", "3F000", "42703")


def translate(error: BaseException) -> BaseException:
    """What a caller of the registry should see instead of asyncpg's ``error``."""
    if isinstance(error, IngotError) or not isinstance(error, Exception):
        return error
    if isinstance(error, asyncpg.PostgresError):
        state = str(getattr(error, "sqlstate", ""))
        if state.startswith(_PASSING) or state in _PASSING_STATES:
            return Unavailable(f"Postgres cannot do it now: {error}")
        if state in _GONE_STATES:
            return LeaseLost(f"the database no longer holds ingot's tables: {error}")
        if state == "42501":
            return ConfigError(f"Postgres denies the permission: {error}")
    if isinstance(error, TimeoutError):
        return Unavailable("Postgres did not answer in time")
    if isinstance(error, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return Unavailable(f"the connection to Postgres broke: {error}")
    return error  # a mistake of ours


class Line:
    """``connect`` gives a new connection, ``discard`` returns a broken or unwanted one for good,
    ``prepare`` makes a new connection ready; what it returns is ``self.prepared`` from then on."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Awaitable[Any]],
        discard: Callable[[Any], Awaitable[None]],
        prepare: Callable[[Any], Awaitable[Any]],
        logger: Any,
    ) -> None:
        self.name = name
        self.lock = asyncio.Lock()
        self.connection: Any = None
        self.prepared: Any = None
        self._connect, self._discard, self._prepare = connect, discard, prepare
        self._logger = logger
        self._task: asyncio.Task[None] | None = None
        self._discarding: set[asyncio.Task[None]] = set()
        self._closed = True

    async def open(self) -> None:
        """Connect once; what goes wrong is raised as it is."""
        self._closed = False
        await self._attempt()

    async def close(self) -> None:
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        connection, self.connection, self.prepared = self.connection, None, None
        if connection is not None:
            await self._discard(connection)
        await asyncio.gather(*self._discarding)

    def get(self) -> Any:
        """The connection; Unavailable while there is none."""
        if self.connection is None:
            raise self.unavailable()
        return self.connection

    def unavailable(self) -> Unavailable:
        if self._closed:
            return Unavailable("the registry is not open")
        return Unavailable("there is no connection to Postgres, trying to connect")

    def fail(self, connection: Any, error: BaseException) -> NoReturn:
        """Raise what the caller of a failed call should see; replace the line if need be."""
        meaning = translate(error)
        sane = isinstance(error, asyncpg.PostgresError | IngotError) and not _is_dead(connection)
        if connection is self.connection and (not sane or isinstance(meaning, Unavailable)):
            self._lost(connection)
        if meaning is error:
            raise error
        raise meaning from error

    async def _attempt(self) -> None:
        connection = None
        try:
            async with asyncio.timeout(REGISTRY_CONNECT_S):
                connection = await self._connect()
                connection.add_termination_listener(self._terminated)
                prepared = await self._prepare(connection)
            if _is_dead(connection):
                raise Unavailable("the connection to Postgres broke while it was made ready")
        except BaseException:
            if connection is not None:
                self._cut(connection)
                await self._discard(connection)
            raise
        self.connection, self.prepared = connection, prepared

    def _terminated(self, connection: Any) -> None:
        if connection is self.connection:
            self._lost(connection)

    def _lost(self, connection: Any) -> None:
        """Cut ``connection``, so that no late answer is taken for the next one; start over."""
        self.connection = self.prepared = None
        self._cut(connection)
        discarding = asyncio.ensure_future(self._discard(connection))
        self._discarding.add(discarding)
        discarding.add_done_callback(self._discarding.discard)
        if not self._closed and self._task is None:
            self._logger.warning("lost the %s connection to Postgres", self.name)
            self._task = asyncio.get_running_loop().create_task(self._reconnect())

    def _cut(self, connection: Any) -> None:
        try:
            connection.remove_termination_listener(self._terminated)
            connection.terminate()
        except asyncpg.InterfaceError:  # a pool's connection that died is the pool's already
            self._logger.debug("the %s connection was gone already", self.name)

    async def _reconnect(self) -> None:
        attempt = 0
        while True:
            try:
                await self._attempt()
                break
            except Exception as error:
                if attempt == 0:
                    self._logger.warning("cannot reach Postgres, trying on: %s", error)
            pause = REGISTRY_RECONNECT_S[min(attempt, len(REGISTRY_RECONNECT_S) - 1)]
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            attempt += 1
        self._logger.warning("the %s connection to Postgres is back", self.name)
        self._task = None


def _is_dead(connection: Any) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:  # a pool took it back because it died
        return True


@asynccontextmanager
async def transaction(connection: Any) -> AsyncIterator[None]:
    """As ``connection.transaction()``, but it rolls back only where the connection is known to be
    sane: after a timeout that would wait for an answer without end, and the line is cut anyway."""
    await connection.execute("BEGIN")
    try:
        yield
    except (asyncpg.PostgresError, IngotError):
        await connection.execute("ROLLBACK")
        raise
    await connection.execute("COMMIT")
