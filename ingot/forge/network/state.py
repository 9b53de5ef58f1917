"""What a service remembers: records in one SQLite file, durable when ``write`` returns.

A record is a frozen dataclass whose fields are DAG-CBOR values; its class's name and a key of bytes
are where it is found again. A ``write`` is one transaction: all of it or nothing is there after a
crash. SQLite syncs its log in every commit (``synchronous=FULL``), so a power cut loses no more
than ``kill -9`` does, which is nothing that was answered.

The file is used by one thread of its own, so that the loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from ingot.codec import dag_cbor

R = TypeVar("R")
T = TypeVar("T")

_SCHEMA: Final = """\
CREATE TABLE IF NOT EXISTS records (
  kind TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID"""
_KEYS_END: Final = b"\xff" * 8  # behind every key that starts with a DID or a multihash


class Locks:
    """A lock for every key, while somebody has it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    def __call__(self, key: bytes) -> asyncio.Lock:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock


class State:
    """Open from ``open`` to ``close``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, f"forge-{path.parent.name}")
        self._file: sqlite3.Connection | None = None

    async def open(self) -> None:
        await self._run(self._open)

    async def close(self) -> None:
        if self._file is not None:
            await self._run(self._file.close)
            self._file = None
        self._thread.shutdown()

    def _open(self) -> None:
        # The thread that opened it is not the one that ends the process.
        self._file = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._file.execute("PRAGMA journal_mode=WAL")
        self._file.execute("PRAGMA synchronous=FULL")
        self._file.execute(_SCHEMA)

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def get(self, kind: type[R], key: bytes) -> R | None:
        rows = await self._run(
            self._rows, "SELECT value FROM records WHERE kind=? AND key=?", kind.__name__, key
        )
        return _record(kind, rows[0][0]) if rows else None

    async def page(
        self, kind: type[R], prefix: bytes = b"", after: bytes = b"", limit: int = -1
    ) -> list[tuple[bytes, R]]:
        """(key, record) in the order of the keys that start with ``prefix``, from behind the key
        ``after`` on, at most ``limit`` (-1: all)."""
        rows = await self._run(
            self._rows,
            "SELECT key, value FROM records WHERE kind=? AND key>=? AND key>? AND key<? "
            "ORDER BY key LIMIT ?",
            *(kind.__name__, prefix, after, prefix + _KEYS_END, limit),
        )
        return [(key, _record(kind, value)) for key, value in rows]

    async def write(
        self,
        *records: tuple[bytes, object],
        forget: Iterable[tuple[type, bytes]] = (),
    ) -> None:
        """Put (key, record) in place of what stood there, and remove (class, key) of others."""
        puts = [
            (type(record).__name__, key, dag_cbor.encode(_fields(record)))
            for key, record in records
        ]
        await self._run(self._write, puts, [(kind.__name__, key) for kind, key in forget])

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        assert self._file is not None
        return self._file.execute(statement, values).fetchall()

    def _write(
        self, puts: list[tuple[str, bytes, bytes]], removals: list[tuple[str, bytes]]
    ) -> None:
        assert self._file is not None
        self._file.execute("BEGIN IMMEDIATE")
        try:
            self._file.executemany("DELETE FROM records WHERE kind=? AND key=?", removals)
            self._file.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", puts)
        except BaseException:
            self._file.execute("ROLLBACK")
            raise
        self._file.execute("COMMIT")


def _fields(record: object) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}  # type: ignore[attr-defined]


def _record(kind: type[R], value: bytes) -> R:
    fields = dag_cbor.decode(value)
    assert isinstance(fields, dict)
    return kind(**fields)
