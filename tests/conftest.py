"""Shared fixtures, and how the suite is run: by several processes, one directory or all of it.

Each process has its own session: one private Postgres, started when first asked for, and one
directory of temporary files. So a test shares only the machine with a test of another process.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from ingot.registry.embedded import EmbeddedPostgres
from tests.support.memory import in_memory

# A slow machine is no failure: times belong to benchmarks.
settings.register_profile("ingot", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ingot")

# Tests start hundreds of processes, and where this is set each compiles the package for itself;
# pytest keeps none of the test files either, whose assertions take it a quarter of a minute.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at its options
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Directories are tested by one process more than there are processors, as much of a test is
    waiting. Single files and tests by this one; ``-n`` decides otherwise.
    """
    if hasattr(config, "workerinput"):
        config.args = begin_elsewhere(config)
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # this is one of those processes, and begins no more of them
    given = config.option
    if getattr(given, "numprocesses", 0) is not None or given.usepdb or given.collectonly:
        return
    if all(os.path.isdir(argument) for argument in config.args):
        given.numprocesses = len(os.sched_getaffinity(0)) + 1
        if given.dist == "no":  # neighbours stay together: they share what their module sets up
            given.dist = "worksteal"


def begin_elsewhere(config: pytest.Config) -> list[str]:
    """What is to be tested, from another place on in each process: what one has compiled the others
    find. Otherwise each would compile every test file of a new checkout, at the same time."""
    places: list[str] = []
    for argument in config.args:
        path = config.invocation_params.dir / argument
        if not path.is_dir():
            places.append(argument)
            continue
        inside = sorted(path.iterdir())
        places += [str(each) for each in inside if each.is_dir() and each.name[0] not in "._"]
        places += [str(each) for each in inside if each.match("test_*.py")]
    given: dict[str, Any] = config.workerinput  # type: ignore[attr-defined]  # pytest-xdist gives it
    first = int(given["workerid"].removeprefix("gw")) * len(places) // given["workercount"]
    return places[first:] + places[:first]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Wherever a process has begun, tests have one order."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: str(item.path))


def pytest_collection_finish() -> None:
    """Thousands of tests stay: the garbage collector need not look at them again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def reachable_path() -> Iterator[Path]:
    """A temporary directory that an unprivileged Postgres can enter (pytest's own cannot be)."""
    path = Path(tempfile.mkdtemp(prefix="ingot-tests-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def memory_path(reachable_path: Path) -> Iterator[Path]:
    """The like in memory, where there is room. A Postgres makes and removes thousands of files, and
    that takes a disk's file system most of the time."""
    with contextmanager(in_memory)(reachable_path) as path:
        path.chmod(0o711)
        yield path


@pytest.fixture(scope="session")
def postgres(memory_path: Path) -> Iterator[str]:
    """The DSN of a private Postgres, with durable settings; its database starts out empty."""
    server = EmbeddedPostgres(memory_path / "session")
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
def private_data(template: Path, private_path: Path) -> Path:
    """A data directory with a private Postgres of one test's own, not started, and nothing else."""
    data = private_path / "data"  # with sixteen mebibytes of zeros in it, which need no copy
    subprocess.run(["cp", "-a", "--sparse=always", template, data], check=True)
    return data


@pytest.fixture
def private_postgres(private_data: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(private_data)
