"""Private Postgres of these tests are in memory: they are killed, the machine is not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def private_path(memory_path: Path) -> Iterator[Path]:
    path = memory_path / f"test-{os.urandom(4).hex()}"
    path.mkdir(mode=0o711)
    yield path
    shutil.rmtree(path)
