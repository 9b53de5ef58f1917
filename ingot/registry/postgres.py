"""The registry in Postgres (``ingot.ports.Registry``), on asyncpg.

Guarantees: a swap is committed durably and under the fence before it returns; what cannot be known
(an answer that was lost) is Unavailable, and ``swapped`` finds out. Losing Postgres is never waited
for: every call raises Unavailable at once until a connection is there again (``line``).

Two connections for life. Swaps go one after the other on the first, with a statement prepared once:
on a second connection the order of two swaps would be undefined, and a pool or ``transaction()``
costs more than the statement itself. Everything else shares the second. A pool lent by the host
gives both; it must belong to the running loop and reset its connections on release, as it does by
default. With ``statement_cache_size=0`` (pgbouncer in transaction mode) every call is a transaction
of its own and nothing is prepared or left in the session: right, and slower.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import asyncpg

from ingot.errors import ConfigError, IngotError, LeaseLost, RootMoved, Unavailable
from ingot.limits import (
    PRUNE_ROWS,
    REGISTRY_CALL_S,
    REGISTRY_CONNECT_S,
    REGISTRY_PRUNE_S,
    REGISTRY_RECONNECT_S,
    REGISTRY_SCAN_S,
    SWAP_TIMEOUT_S,
)
from ingot.messages import BucketRow, CommitRef, Damage, ForgeRoot, Head, HeadMove, Shipment
from ingot.ports import SegmentRow as SegmentState
from ingot.registry import SegmentRow, statements
from ingot.registry.heads import (
    Commit,
    HeadRow,
    chain,
    columns,
    is_plain,
    kinds,
    new_sequence,
    resolve,
    runs,
    scalars,
    standing_for,
)
from ingot.registry.line import Line, transaction, translate
from ingot.registry.migrate import migrate
from ingot.registry.shipments import (
    check_roots,
    columns_of,
    columns_of_roots,
    not_advanced,
    shipment_of,
)

T = TypeVar("T")
SERVER_VERSION_MIN = 13
CACHED_STATEMENTS = 100


class Postgres:
    """``Postgres(dsn)``, or ``Postgres(pool=pool)`` with a pool of the host's."""

    def __init__(
        self,
        dsn: str | None = None,
        *,
        pool: Any = None,
        statement_cache_size: int = CACHED_STATEMENTS,
        logger: logging.Logger | None = None,
    ) -> None:
        if (dsn is None) == (pool is None):
            raise ConfigError("the registry needs either a Postgres DSN or a pool, and not both")
        self._dsn, self._pool = dsn, pool
        self._pooled_sessions = statement_cache_size == 0  # a session may be anyone's
        self._statement_cache_size = statement_cache_size
        self._logger = logger or logging.getLogger("ingot.registry")
        self._swaps = Line("swap", self._connect, self._discard, self._prepare_swaps, self._logger)
        self._calls = Line("second", self._connect, self._discard, self._session, self._logger)
        self.warnings: list[str] = []  # what ``open`` found unsafe, one sentence each
        # Bucket and sequence of the head that was swapped or read last: it must stand at each swap.
        self._stands: tuple[bytes | None, int | None] = (None, None)

    # -- life -------------------------------------------------------------------------------------

    async def open(self) -> None:
        if self._pool is not None and self._pool.get_max_size() < 2:
            raise ConfigError("the pool lent to the registry must allow two connections for life")
        try:
            async with asyncio.timeout(REGISTRY_CONNECT_S + REGISTRY_SCAN_S):
                await self._first_look(await self._first_connection())
                await self._calls.open()
                await self._swaps.open()
        except BaseException as error:
            await self.close()
            meaning = explained(error, self._dsn)
            if meaning is error:
                raise
            raise meaning from error

    async def close(self) -> None:
        await self._swaps.close()
        await self._calls.close()

    async def _first_connection(self) -> Any:
        """A Postgres that is starting, perhaps recovering from a crash, is worth waiting for."""
        for attempt in itertools.count():
            try:
                return await self._connect()
            except asyncpg.CannotConnectNowError as error:
                if attempt == 0:
                    self._logger.warning("waiting for Postgres: %s", error)
            await asyncio.sleep(REGISTRY_RECONNECT_S[min(attempt, len(REGISTRY_RECONNECT_S) - 1)])

    async def _first_look(self, connection: Any) -> None:
        """Settings as the server has them, before the session changes them; then the schema."""
        try:
            version = connection.get_server_version().major
            if version < SERVER_VERSION_MIN:
                raise ConfigError(
                    f"Postgres {version} is too old: {SERVER_VERSION_MIN} or newer is needed"
                )
            if await connection.fetchval("SELECT pg_is_in_recovery()"):
                raise ConfigError("this Postgres is a read-only standby: give the primary's DSN")
            self.warnings = [
                _WARNINGS[row["name"]]
                for row in await connection.fetch(statements.SETTINGS)
                if row["setting"] == "off"
            ]
            for warning in self.warnings:
                self._logger.warning("%s", warning)
            for name in await migrate(connection):
                self._logger.info("applied migration %s", name)
        finally:
            await self._discard(connection)

    async def _connect(self) -> Any:
        if self._pool is not None:
            return await self._pool.acquire(timeout=REGISTRY_CONNECT_S)
        return await asyncpg.connect(
            self._dsn,
            timeout=REGISTRY_CONNECT_S,
            statement_cache_size=self._statement_cache_size,
            max_cached_statement_lifetime=0,
        )

    async def _discard(self, connection: Any) -> None:
        try:
            if self._pool is not None:
                await self._pool.release(connection, timeout=1.0)
            else:
                await connection.close(timeout=1.0)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self._logger.debug("closing a connection to Postgres: %s", error)
            connection.terminate()

    async def _session(self, connection: Any) -> None:
        if not self._pooled_sessions:
            await connection.execute(statements.SESSION)

    async def _prepare_swaps(self, connection: Any) -> Any:
        """Each form of the swap as a function of its arguments; None behind a pooler."""
        if self._pooled_sessions:
            return None
        await connection.execute(statements.SESSION_SWAP)
        return {sql: (await connection.prepare(sql)).fetch for sql in statements.SWAPS}

    async def _call(
        self, work: Callable[[Any], Awaitable[T]], limit_s: float, together: bool = False
    ) -> T:
        """Run ``work`` with the second connection; ``together``: its statements in one
        transaction."""
        async with self._calls.lock:
            connection = self._calls.get()
            try:
                async with asyncio.timeout(limit_s):
                    if not self._pooled_sessions and not together:
                        return await work(connection)
                    async with transaction(connection):
                        await connection.execute("SET LOCAL synchronous_commit = on")
                        return await work(connection)
            except BaseException as error:
                self._calls.fail(connection, error)

    async def _fetch(self, sql: str, *args: object, limit_s: float = REGISTRY_CALL_S) -> list[Any]:
        async def work(connection: Any) -> list[Any]:
            rows: list[Any] = await connection.fetch(sql, *args)
            return rows

        return await self._call(work, limit_s)

    # -- whose store this is, and who may write ---------------------------------------------------

    async def store_id(self) -> bytes | None:
        rows = await self._fetch(statements.STORE_ID)
        return rows[0][0] if rows else None

    async def claim(self, store: bytes) -> None:
        await self._fetch(statements.CLAIM, store)
        found = await self.store_id()
        if found != store:
            raise ConfigError(
                f"the database belongs to store {found.hex() if found else 'none'}, this data "
                f"directory to store {store.hex()}"
            )

    async def acquire(self, owner: str, ttl_s: float, dead: bytes | None = None) -> bytes | None:
        token = os.urandom(16)
        taken = await self._fetch(statements.ACQUIRE, token, owner, ttl_s, dead)
        return token if taken else None

    async def renew(self, token: bytes, ttl_s: float) -> None:
        if not await self._fetch(statements.RENEW, token, ttl_s):
            raise LeaseLost("the lease was taken by another gateway")

    async def release(self, token: bytes) -> None:
        await self._fetch(statements.RELEASE, token)

    async def holder(self) -> tuple[str, float] | None:
        rows = await self._fetch(statements.HOLDER)
        return (rows[0][0], rows[0][1]) if rows else None

    # -- heads ------------------------------------------------------------------------------------

    async def buckets(self) -> list[BucketRow]:
        rows = await self._fetch(statements.BUCKETS, limit_s=REGISTRY_SCAN_S)
        return [
            BucketRow(bucket, name, Head(sequence, *roots), CommitRef(commit, record))
            for bucket, name, sequence, *roots, commit, record in rows
        ]

    async def newest_commit(self) -> CommitRef:
        rows = await self._fetch(statements.NEWEST_COMMIT, limit_s=REGISTRY_SCAN_S)
        if not rows:
            return CommitRef(0, None)
        commit, record, *stands = rows[0]
        self._stands = (stands[0], stands[1])
        return CommitRef(commit, record)

    async def swap(self, token: bytes, commit: CommitRef, moves: Sequence[HeadMove]) -> None:
        sql, args = _swap(commit, moves)
        stands = self._stands
        for move in moves:
            if (move.bucket, move.old and move.old.sequence) == stands:
                stands = (None, None)  # the move itself compares it
                break
        await self._moved(sql, (token, *stands, *args), len(moves), commit)
        self._note(moves)

    async def swap_forward(self, token: bytes, commits: Sequence[Commit]) -> None:
        for run in runs(commits):
            commit, moves = run[0]
            if len(run) == 1:
                await self.swap(token, commit, moves)
            else:
                arrays = chain(run)
                args = (token, *self._stands, *arrays)
                await self._moved(statements.SWAP_RUN, args, len(arrays[0]), commit)
                self._note(run[-1][1])

    def _note(self, moves: Sequence[HeadMove]) -> None:
        if moves:
            self._stands = moves[-1].bucket, new_sequence(moves[-1])

    async def _moved(
        self, sql: str, args: tuple[object, ...], count: int, commit: CommitRef
    ) -> None:
        """Run one form of the swap; it moved ``count`` heads, or raises. The path of every PUT: one
        statement, and nothing around it that it can do without."""
        line = self._swaps
        async with line.lock:
            connection = line.get()
            try:
                if line.prepared is not None:
                    rows = await line.prepared[sql](*args, timeout=SWAP_TIMEOUT_S)
                else:
                    async with asyncio.timeout(SWAP_TIMEOUT_S), transaction(connection):
                        rows = await connection.fetch(sql, *args)
            except asyncpg.UniqueViolationError as error:
                raise RootMoved(
                    f"commit {commit.sequence}: a row was there already: {error}"
                ) from error
            except BaseException as error:
                line.fail(connection, error)
        fenced, moved = rows[0]
        if not fenced:
            raise LeaseLost(
                "the lease was taken by another gateway, or Postgres lost commits that it had"
            )
        if moved != count:
            raise RootMoved(f"commit {commit.sequence}: of {count} heads some are not as expected")

    async def swapped(self, moves: Sequence[HeadMove]) -> bool:
        """Waits for a swap that still runs in a backend whose client is gone."""
        buckets = [move.bucket for move in moves]
        sequences = [new_sequence(move) for move in moves]

        async def work(connection: Any) -> Any:
            await connection.execute(statements.BARRIER)
            return await connection.fetch(statements.STANDING, buckets, sequences)

        rows = await self._call(work, REGISTRY_CALL_S, together=True)
        done = resolve(
            moves,
            [
                HeadRow(bucket, sequence, None if deleted else Head(sequence, *roots))
                for bucket, sequence, deleted, *roots in rows
            ],
        )
        if done:
            self._note(moves)
        return done

    async def import_heads(
        self, token: bytes, store: bytes, newest: CommitRef, rows: Sequence[BucketRow]
    ) -> None:
        nobody = standing_for(newest, rows, os.urandom(16))

        async def work(connection: Any) -> None:
            if not await connection.fetch(statements.HOLD, token):
                raise LeaseLost("the lease was taken by another gateway")
            if await connection.fetchval(statements.ANY_HEAD):
                raise RootMoved("the registry holds heads already")
            await connection.execute(statements.CLAIM, store)
            found = await connection.fetchval(statements.STORE_ID)
            if found != store:
                raise ConfigError(f"the database belongs to store {found.hex()}")
            await connection.execute(statements.DROP_NAMES)
            names = [row.name for row in rows], [row.bucket for row in rows]
            await connection.execute(statements.IMPORT_NAMES, *names)
            heads = [_imported(row.bucket, row.head, row.commit) for row in rows]
            if nobody is not None:
                heads.append(_imported(nobody.bucket, Head(nobody.sequence), newest, True))
            if heads:
                await connection.execute(statements.IMPORT_HEADS, *zip(*heads, strict=True))

        try:
            await self._call(work, REGISTRY_SCAN_S, together=True)
        except asyncpg.UniqueViolationError as error:
            raise RootMoved(f"two buckets have one name: {error}") from error

    async def prune(self, keep: int) -> int:
        async def work(connection: Any) -> str:
            status: str = await connection.execute(statements.PRUNE, max(keep, 1), PRUNE_ROWS)
            return status

        dropped = 0
        while True:  # the second connection is free between the batches, for a renewal
            count = int((await self._call(work, REGISTRY_PRUNE_S)).rpartition(" ")[2])
            dropped += count
            if count < PRUNE_ROWS:
                return dropped

    # -- segments ---------------------------------------------------------------------------------

    async def put_segment(self, row: SegmentState) -> None:
        await self._fetch(
            statements.PUT_SEGMENT,
            row.stream,
            row.number,
            row.state,
            row.bytes,
            row.root,
            row.first_commit,
            row.last_commit,
        )

    async def segments(self) -> list[SegmentState]:
        rows = await self._fetch(statements.SEGMENTS, limit_s=REGISTRY_SCAN_S)
        return [SegmentRow(*row) for row in rows]

    # -- what is shipped --------------------------------------------------------------------------

    async def put_shipment(self, token: bytes, row: Shipment) -> None:
        await self._fenced(statements.PUT_SHIPMENT, token, *columns_of(row))

    async def shipments(self) -> list[Shipment]:
        rows = await self._fetch(statements.SHIPMENTS, limit_s=REGISTRY_SCAN_S)
        return [shipment_of(tuple(row)) for row in rows]

    async def advance_forge(
        self,
        token: bytes,
        commit: int,
        roots: Sequence[ForgeRoot],
        held: Sequence[ForgeRoot] = (),
    ) -> None:
        check_roots(commit, roots, held)
        args = (token, commit, *columns_of_roots(roots), *columns_of_roots(held))
        fenced, moved = (await self._fetch(statements.ADVANCE_FORGE, *args))[0]
        if not fenced:
            raise LeaseLost("the lease was taken by another gateway")
        if not moved:
            raise not_advanced(commit)

    async def claim_forge(self, token: bytes, service: str, space: str) -> tuple[str, str]:
        fenced, *standing = (await self._fetch(statements.CLAIM_FORGE, token, service, space))[0]
        if not fenced:
            raise LeaseLost("the lease was taken by another gateway")
        return standing[0], standing[1]

    async def clock_ms(self) -> int:
        return int((await self._fetch(statements.CLOCK))[0][0])

    async def forge_watermark(self) -> int:
        rows = await self._fetch(statements.FORGE_WATERMARK)
        return int(rows[0][0])

    async def forge_roots(self) -> list[ForgeRoot]:
        return await self._roots(statements.FORGE_ROOTS)

    async def forge_held(self) -> list[ForgeRoot]:
        return await self._roots(statements.FORGE_HELD)

    async def _roots(self, statement: str) -> list[ForgeRoot]:
        return [
            ForgeRoot(bucket, Head(sequence, *roots), commit)
            for bucket, sequence, *roots, commit in await self._fetch(
                statement, limit_s=REGISTRY_SCAN_S
            )
        ]

    async def put_damage(self, token: bytes, damage: Damage) -> None:
        starts = [start for start, _ in damage.spans]
        stops = [stop for _, stop in damage.spans]
        await self._fenced(
            statements.PUT_DAMAGE, token, damage.stream, damage.number, starts, stops
        )

    async def damage(self) -> list[Damage]:
        rows = await self._fetch(statements.DAMAGE, limit_s=REGISTRY_SCAN_S)
        return [
            Damage(stream, number, tuple(zip(starts, stops, strict=True)))
            for stream, number, starts, stops in rows
        ]

    async def _fenced(self, statement: str, token: bytes, *args: object) -> None:
        rows = await self._fetch(statement, token, *args)
        if not rows[0][0]:
            raise LeaseLost("the lease was taken by another gateway")


_WARNINGS = {
    "fsync": "Postgres runs with fsync=off: a power loss can destroy the whole database",
    "full_page_writes": "Postgres runs with full_page_writes=off: a power loss can tear its pages",
    "synchronous_commit": "Postgres runs with synchronous_commit=off: ingot turns it on for "
    "itself, but anything else that writes there may lose its newest commits",
}


def _swap(commit: CommitRef, moves: Sequence[HeadMove]) -> tuple[str, tuple[object, ...]]:
    """The statement for ``moves`` and its arguments after the fence; the plain ones where nothing
    is created or deleted, which is every commit of objects only."""
    if not moves:
        return statements.FENCE, ()
    named = (commit.sequence, commit.record)
    if not is_plain(moves):
        return statements.SWAP_ANY, (*named, *columns(moves), *kinds(moves))
    if len(moves) == 1:
        return statements.SWAP_ONE, (*named, *scalars(moves[0]))
    return statements.SWAP, (*named, *columns(moves))


def _imported(
    bucket: bytes, head: Head, commit: CommitRef, deleted: bool = False
) -> tuple[object, ...]:
    """One row for ``statements.IMPORT_HEADS``."""
    roots = head.objects, head.uploads, head.config
    return (bucket, head.sequence, commit.sequence, commit.record, *roots, deleted)


def _where(dsn: str | None) -> str:
    """Host, port and database of a DSN, and never its password."""
    if dsn is None:
        return "(the host's pool)"
    try:
        parts = urlsplit(dsn)
        host = parts.hostname or (parse_qs(parts.query).get("host") or ["(default host)"])[0]
        port = f":{parts.port}" if parts.port else ""
        return f"{host}{port}{parts.path}"
    except ValueError:
        return "(unreadable DSN)"


def explained(error: BaseException, dsn: str | None) -> BaseException:
    """What ``open`` raises: ConfigError for a setting to correct, Unavailable for a server away."""
    where = _where(dsn)
    if isinstance(error, IngotError) or not isinstance(error, Exception):
        return error
    if isinstance(
        error, asyncpg.InvalidPasswordError | asyncpg.InvalidAuthorizationSpecificationError
    ):
        return ConfigError(f"Postgres at {where} refuses the user or the password: {error}")
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return ConfigError(f"Postgres at {where}: {error}; create it, or correct the DSN")
    if isinstance(error, socket.gaierror):
        return ConfigError(f"Postgres at {where}: the host name is not known: {error}")
    if isinstance(error, asyncpg.PostgresError):
        if getattr(error, "sqlstate", "") == "42501":
            return ConfigError(f"Postgres at {where} denies a needed permission: {error}")
        return translate(error)
    if isinstance(error, asyncpg.ClientConfigurationError | ValueError):
        return ConfigError(f"the Postgres DSN cannot be used: {error}")
    if isinstance(error, OSError | asyncpg.InterfaceError):
        return Unavailable(
            f"cannot reach Postgres at {where}: {str(error) or type(error).__name__}"
        )
    return error
