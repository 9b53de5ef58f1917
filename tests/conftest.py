"""Shared fixtures: one private Postgres for the whole session, started when first asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from ingot.registry.embedded import EmbeddedPostgres

# A slow machine is no failure: times belong to benchmarks.
settings.register_profile("ingot", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ingot")


@pytest.fixture(scope="session")
def reachable_path() -> Iterator[Path]:
    """A temporary directory that an unprivileged Postgres can enter (pytest's own cannot be)."""
    path = Path(tempfile.mkdtemp(prefix="ingot-tests-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def postgres(reachable_path: Path) -> Iterator[str]:
    """The DSN of a private Postgres, with durable settings; its database starts out empty."""
    server = EmbeddedPostgres(reachable_path / "session")
    dsn = server.start_blocking()
    yield dsn
    server.stop_blocking()


@pytest.fixture
def private_path(reachable_path: Path) -> Iterator[Path]:
    """A directory for one test's own things."""
    path = reachable_path / f"test-{os.urandom(4).hex()}"
    path.mkdir(mode=0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def template(reachable_path: Path) -> Path:
    """A data directory whose private Postgres was made and is stopped: copying beats initdb."""
    path = reachable_path / "template"
    server = EmbeddedPostgres(path)
    server.start_blocking()
    server.stop_blocking()
    return path


@pytest.fixture
def private_postgres(template: Path, private_path: Path) -> EmbeddedPostgres:
    """A private Postgres of one test's own, not started."""
    subprocess.run(["cp", "-a", template, private_path / "data"], check=True)
    return EmbeddedPostgres(private_path / "data")
