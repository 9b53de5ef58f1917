"""Where a restore writes to, wherever what it restores comes from: registry, lease, files.

Guarantee: nothing is written to a registry that holds heads, is another store's, or whose lease
somebody has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from ingot import limits
from ingot.config import Config
from ingot.datadir import DataDirectory
from ingot.errors import ConfigError, RootMoved

if TYPE_CHECKING:
    from ingot.bucket.rebuild import Rebuilt
    from ingot.ports import FileSystem, Registry

Say = Callable[[str], None]

NOTHING_TO_RESTORE = (
    "There is nothing to restore and nothing was changed: start 'ingot serve'. To have it rebuilt "
    "all the same, as the segments are, drop its schema first (DROP SCHEMA ingot CASCADE; where "
    "the Postgres is the private one, move the data directory's postgres/ away)"
)


async def fill(registry: Registry, token: bytes, store: bytes, rebuilt: Rebuilt) -> None:
    """Write what was rebuilt into a registry without heads, whose lease ``token`` is. ConfigError
    where it has some."""
    try:
        await registry.import_heads(token, store, rebuilt.newest, rebuilt.rows)
    except RootMoved as error:
        raise ConfigError(
            f"{error}, though it names no live bucket: it is half empty and nothing was changed. "
            "Drop its schema (DROP SCHEMA ingot CASCADE) and restore again"
        ) from error


async def refuse_used(registry: Registry, store: bytes) -> None:
    """ConfigError for a registry that is not to be restored into."""
    refuse_store(await registry.store_id(), store)
    newest, rows = await registry.newest_commit(), await registry.buckets()
    if newest.sequence or rows:
        raise ConfigError(
            f"the registry holds {len(rows)} buckets of this store, up to commit "
            f"{newest.sequence}. {NOTHING_TO_RESTORE}"
        )


def refuse_store(theirs: bytes | None, ours: bytes) -> None:
    if theirs not in (None, ours):
        raise ConfigError(
            f"the registry belongs to store {theirs.hex() if theirs else ''}, the segments to "
            f"store {ours.hex()}: nothing was changed. Point --postgres at an empty database"
        )


async def open_registry(
    config: Config, directory: DataDirectory, stack: contextlib.AsyncExitStack
) -> Registry:
    from ingot.registry.postgres import Postgres

    dsn = config.postgres
    if dsn is None:
        from ingot.registry.embedded import EmbeddedPostgres

        private = EmbeddedPostgres(directory.path)
        dsn = await private.start()
        stack.push_async_callback(private.stop)
    registry = Postgres(dsn, statement_cache_size=config.postgres_statement_cache)
    await registry.open()
    stack.push_async_callback(registry.close)
    return registry


async def take_lease(
    registry: Registry, directory: DataDirectory, stack: contextlib.AsyncExitStack
) -> bytes:
    """The lease's token, kept renewed until everything else has ended. Nobody is waited for: who
    has it is alive, or its lease ends by itself."""
    from ingot.clock import SystemClock
    from ingot.lease import Lease

    owner = f"{socket.gethostname()}:{os.getpid()}:{directory.path} (restore)"
    token = await registry.acquire(owner, limits.LEASE_TTL_S, directory.last_lease())
    if token is None:
        held = await registry.holder()
        holder, left = held if held is not None else ("nobody, a moment ago", 0.0)
        raise ConfigError(
            f"the store is held by {holder}: stop that gateway first. If it has ended, its lease "
            f"runs out in {left:.0f} s"
        )
    lease = Lease(registry, SystemClock(), logging.getLogger("ingot"))
    lease.token = token
    stack.push_async_callback(lease.release)
    keeping = asyncio.create_task(lease.keep())
    stack.push_async_callback(_end, keeping)
    directory.keep_lease(token)
    return token


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def target_files(stack: contextlib.AsyncExitStack, dry_run: bool) -> FileSystem:
    if dry_run:
        from ingot.segments.overlay import Overlay

        overlay = Overlay()
        stack.callback(overlay.close_all)
        return overlay
    from ingot.segments.files import SystemFiles

    return SystemFiles()
