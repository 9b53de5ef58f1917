"""Compiled reads of what is in memory against their twin, on real files."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingot._speedups import resident_c, resident_py

MODULES: tuple[Any, ...] = (resident_c, resident_py)
DATA = os.urandom(100_000)


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    opened = os.open(path, os.O_RDONLY)
    yield opened
    os.close(opened)


@pytest.mark.parametrize("name", ["read", "read_many"])
def test_signatures_and_docstrings(name: str) -> None:
    one, other = getattr(resident_c, name), getattr(resident_py, name)
    assert inspect.getdoc(one) == inspect.getdoc(other)
    assert inspect.signature(one, eval_str=True) == inspect.signature(other, eval_str=True)


@pytest.mark.parametrize("module", MODULES)
def test_reads(module: Any, fd: int) -> None:
    places = [(0, 0), (1, 5), (40_000, 99), (100_000, 0)]
    wanted = [DATA[offset : offset + length] for length, offset in places]
    assert [module.read(fd, *place) for place in places] == wanted
    assert module.read_many({"f": fd}, [("f", at, n) for n, at in places], 1 << 20) == wanted
    assert module.read(fd, 2, 99_999) is None, "short"
    odd = [None, ("f", 99_999, 2), ("f", 3, 1), None]
    assert module.read_many({"f": fd}, odd, 1 << 20) == [None, None, DATA[3:4], None]
    assert module.read_many({}, [], 1 << 20) == []


@pytest.mark.parametrize("module", MODULES)
def test_no_more_than_there_is_room_for(module: Any, fd: int) -> None:
    places = [None, (1, 0, 10), (1, 0, 10), None, (1, 0, 10)]
    for room, count in ((0, 0), (1, 2), (10, 2), (11, 3), (20, 3), (21, 5)):
        assert len(module.read_many({1: fd}, places, room)) == count


@pytest.mark.parametrize("module", MODULES)
def test_errors(module: Any, fd: int) -> None:
    closed = os.dup(fd)
    os.close(closed)
    for bad, offset in ((closed, 0), (fd, -2)):
        with pytest.raises(OSError):
            module.read(bad, 1, offset)
        with pytest.raises(OSError):
            module.read_many({0: fd, 1: bad}, [(0, 0, 1), (1, offset, 1)], 99)
    with pytest.raises(KeyError):
        module.read_many({}, [("f", 0, 1)], 99)
    with pytest.raises(ValueError):
        module.read(fd, -1, 0)
