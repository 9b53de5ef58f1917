"""Differences of two trees as a stream, for changes that do not fit in memory at once.

``iter_diff`` yields chunks in key order. It raises Missing like every reader of a tree, and a
generator ends with the exception it raises: so it is given the loader instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ingot._speedups import mst
from ingot.errors import Missing

Change = tuple[bytes, bytes | None, bytes | None]
Load = Callable[[list[bytes]], None]  # puts these nodes in the cache


def iter_diff(
    cache: mst.NodeCache,
    a: bytes | None,
    b: bytes | None,
    load: Load,
    after: bytes = b"",
    salt: bytes = b"",
    chunk: int = 1000,
) -> Iterator[list[Change]]:
    """Lists of at most ``chunk`` (key, value in ``a``, value in ``b``), of keys above ``after``.

    Memory is that of a chunk and the cache. Resume anywhere with the last key seen as ``after``.
    """
    while True:
        try:
            changes = mst.diff(cache, a, b, chunk, after, salt)
        except Missing as missing:
            load(missing.cids)
            continue
        if changes:
            yield changes
        if len(changes) < chunk:
            return
        after = changes[-1][0]
