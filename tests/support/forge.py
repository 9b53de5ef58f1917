"""How far a gateway's shipping is, read beside it from its private Postgres."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path

import asyncpg


@dataclass(frozen=True, slots=True)
class Standing:
    newest: int  # commit
    watermark: int
    files: dict[str, int]  # shipments by state
    bytes: dict[str, int]

    @property
    def shipped(self) -> bool:
        """Whether Forge has every commit."""
        return self.watermark == self.newest


def standing(data_dir: Path) -> Standing:
    return asyncio.run(_standing(data_dir))


async def _standing(data_dir: Path) -> Standing:
    connection = await _connect(data_dir)
    try:
        newest = await connection.fetchval("SELECT max(commit) FROM ingot.heads")
        watermark = await connection.fetchval("SELECT commit FROM ingot.forge_watermark")
        rows = await connection.fetch(
            "SELECT state, count(*) AS files, sum(bytes)::bigint AS bytes"
            " FROM ingot.shipments GROUP BY state"
        )
    finally:
        await connection.close()
    files = {row["state"]: row["files"] for row in rows}
    return Standing(newest or 0, watermark, files, {row["state"]: row["bytes"] for row in rows})


@dataclass(frozen=True, slots=True)
class Shipped:
    """What a gateway believes to have in the network, all read at one moment."""

    files: dict[bytes, tuple[str, str, int]]  # state, stream and number, by the file's multihash
    roots: dict[bytes, list[bytes]]  # of each bucket at the watermark: the CIDs in its head


def shipped(data_dir: Path) -> Shipped:
    return asyncio.run(_shipped(data_dir))


async def _shipped(data_dir: Path) -> Shipped:
    connection = await _connect(data_dir)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            rows = await connection.fetch("SELECT * FROM ingot.shipments")
            roots = await connection.fetch("SELECT * FROM ingot.forge_roots")
    finally:
        await connection.close()
    return Shipped(
        {row["digest"]: (row["state"], row["stream"], row["number"]) for row in rows},
        {
            row["bucket"]: [row[name] for name in ("objects", "uploads", "config") if row[name]]
            for row in roots
        },
    )


def _connect(data_dir: Path) -> Awaitable[asyncpg.Connection]:
    return asyncpg.connect(f"postgresql://ingot@/postgres?host={data_dir}/postgres")


def until_shipped(data_dir: Path, limit_s: float) -> Standing:
    """Poll until Forge has everything; AssertionError after ``limit_s``."""
    end = time.monotonic() + limit_s
    while not (now := standing(data_dir)).shipped:
        assert time.monotonic() < end, f"not shipped after {limit_s} s: {now}"
        time.sleep(0.2)
    return now


def segment_bytes(data_dir: Path) -> int:
    """What the files of the segments take, by their sizes: the open and the next one too."""
    total = 0
    for path in (data_dir / "segments").glob("*.car"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            pass
    return total
