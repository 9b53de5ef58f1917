"""Test directories in memory: for files of which no test says that they outlive a power cut.

What tests of the Forge network wait for is the disk, hundreds of syncs each: of the network's own
files, which stand in for machines elsewhere.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM = 1 << 30  # bytes; containers often have 64 MiB there


def in_memory(otherwise: Path) -> Iterator[Path]:
    """A directory for the time of a test; ``otherwise`` where the machine has no room for one."""
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < ROOM:
        yield otherwise
        return
    path = Path(tempfile.mkdtemp(prefix="ingot-test-", dir=MEMORY))
    try:
        yield path
    finally:
        shutil.rmtree(path)
