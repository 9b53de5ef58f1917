"""A look at a database that changes nothing, not even its schema (``ingot restore --dry-run``)."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from ingot.limits import REGISTRY_CONNECT_S, REGISTRY_SCAN_S
from ingot.registry.postgres import explained


@dataclass(frozen=True, slots=True)
class Look:
    store: bytes | None  # the one that claimed it
    heads: bool  # whether it holds any


async def look(dsn: str) -> Look:
    """ConfigError for a DSN to correct, Unavailable for a server that is away."""
    try:
        connection = await asyncpg.connect(dsn, timeout=REGISTRY_CONNECT_S)
        try:
            if not await connection.fetchval("SELECT to_regclass('ingot.heads') IS NOT NULL"):
                return Look(None, False)
            store = await connection.fetchval("SELECT store_id FROM ingot.store")
            heads = await connection.fetchval(
                "SELECT EXISTS (SELECT FROM ingot.heads)", timeout=REGISTRY_SCAN_S
            )
            return Look(store, heads)
        finally:
            await connection.close()
    except BaseException as error:
        meaning = explained(error, dsn)
        if meaning is error:
            raise
        raise meaning from error
