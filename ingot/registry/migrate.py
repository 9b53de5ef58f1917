"""Brings a database's schema ``ingot`` up to this program: ``migrations/NNNN_name.sql`` in order.

Everything happens in one transaction under an advisory lock, so of several starters one migrates
and the others find it done; a failure leaves the schema as it was. The checksum of every applied
migration is kept and verified: a released file was edited, or the database is newer than this
program, and either is a ConfigError. Called by ``Postgres.open`` only, never after a reconnect.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ingot.errors import ConfigError
from ingot.registry.line import transaction

LOCK = 0x696E676F74  # "ingot": the advisory lock's key, the same in every release

_LEDGER = """
CREATE TABLE ingot.migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.number:04d}_{self.name}"


def directory() -> Path:
    """In a wheel beside this module; in a source checkout at the top level."""
    inside = Path(__file__).parent / "migrations"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "migrations"


@cache
def load(path: Path) -> tuple[Migration, ...]:
    """The migrations of ``path`` in order; their numbers are 1, 2, 3 without a gap."""
    found = []
    for file in sorted(path.glob("*.sql")):
        match = re.fullmatch(r"(\d{4})_([a-z0-9_]+)\.sql", file.name)
        if match is None:
            raise ConfigError(f"{file}: a migration is named NNNN_name.sql")
        sql = file.read_text(encoding="utf-8").replace("\r\n", "\n")
        found.append(Migration(int(match[1]), match[2], sql))
    if not found:
        raise ConfigError(f"no migrations found in {path}: the installation is incomplete")
    for expected, migration in enumerate(found, 1):
        if migration.number != expected:
            raise ConfigError(f"{path}: {migration} stands where number {expected} belongs")
    return tuple(found)


async def migrate(connection: Any, path: Path | None = None) -> list[str]:
    """Apply what is missing, on an asyncpg connection; returns the names of what was applied."""
    wanted = load(path or directory())
    # Looked at first without the lock: a role that may use the schema but not create one gets past
    # a database that is up to date, which is every start but the first.
    applied = await _applied(connection)
    if len(applied) == len(wanted):
        _verify(applied, wanted)
        return []
    async with transaction(connection):
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        if not await connection.fetchval("SELECT to_regnamespace('ingot') IS NOT NULL"):
            await connection.execute("CREATE SCHEMA ingot")
        if not await connection.fetchval("SELECT to_regclass('ingot.migrations') IS NOT NULL"):
            await connection.execute(_LEDGER)
        applied = await _applied(connection)
        _verify(applied, wanted)
        fresh = wanted[len(applied) :]
        for migration in fresh:
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO ingot.migrations (number, name, sha256) VALUES ($1, $2, $3)",
                migration.number,
                migration.name,
                migration.sha256,
            )
    return [str(migration) for migration in fresh]


async def _applied(connection: Any) -> list[tuple[int, str, str]]:
    if not await connection.fetchval("SELECT to_regclass('ingot.migrations') IS NOT NULL"):
        return []
    rows = await connection.fetch(
        "SELECT number, name, sha256 FROM ingot.migrations ORDER BY number"
    )
    return [(row["number"], row["name"], row["sha256"]) for row in rows]


def _verify(applied: list[tuple[int, str, str]], wanted: tuple[Migration, ...]) -> None:
    for position, (number, name, sha256) in enumerate(applied):
        if position >= len(wanted):
            raise ConfigError(
                f"the database has migration {number:04d}_{name}, newer than this program, which "
                f"knows up to {wanted[-1]}: run the newer ingot"
            )
        known = wanted[position]
        if (number, name) != (known.number, known.name):
            raise ConfigError(
                f"the database has migration {number:04d}_{name} where this program has {known}"
            )
        if sha256 != known.sha256:
            raise ConfigError(
                f"migration {known} was applied with other contents: released migrations are "
                f"never edited (applied {sha256[:16]}, here {known.sha256[:16]})"
            )
