"""Reads of what is in the page cache, and of nothing else: no read here waits for a disk.

The twin of ``resident_c`` and its specification. Called by ``ingot.segments.files``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any


def read(fd: int, length: int, offset: int) -> bytes | None:
    """The bytes of a file if all of them are in memory (RWF_NOWAIT), else None; OSError."""
    data = bytearray(length)
    try:
        got = os.preadv(fd, [data], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return None
    return bytes(data) if got == length else None


def read_many(
    fds: Mapping[Any, int], places: Sequence[tuple[Any, int, int] | None], room: int
) -> list[bytes | None]:
    """As ``read``, of each (file, offset, length), None for None; ``fds`` has the descriptors. Up
    to the one that has ``room`` bytes read in all."""
    found: list[bytes | None] = []
    for place in places:
        if room <= 0:
            break
        if place is None:
            found.append(None)
            continue
        file, offset, length = place
        found.append(read(fds[file], length, offset))
        room -= length
    return found
