"""``ingot fsck``: walk every head to every byte it refers to, hash everything, name what is wrong.

Reads only. A finding says which bucket, which key where one is affected, which block, and where that
block should lie. Finds missing and damaged blocks, nodes that break the tree's rules, records whose
key or sizes contradict the tree, body bytes that do not add up to the recorded digests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import md5, sha256
from typing import Protocol

from ingot import mst
from ingot.body.reader import read_range
from ingot.bucket.model import Bucket
from ingot.bucket.nodes import Nodes
from ingot.bucket.record import Record, decode_record
from ingot.codec.cid import to_text
from ingot.errors import IngotError
from ingot.messages import Cid

KEYS_PER_SCAN = 1000


class Segments(Protocol):
    """What is read here of the segment store."""

    def read_now(self, cid: Cid) -> bytes | None: ...
    async def read(self, cid: Cid) -> bytes: ...
    async def read_part(self, cid: Cid, start: int, into: memoryview) -> None: ...
    def where(self, cid: Cid) -> str: ...


@dataclass(slots=True)
class Findings:
    """Totals, and one line for each thing that is wrong."""

    buckets: int = 0
    keys: int = 0
    bytes: int = 0
    damage: list[str] = field(default_factory=list)


async def check(
    segments: Segments,
    buckets: list[Bucket],
    nodes: Nodes,
    say: Callable[[str], None],
    bodies: bool = True,
) -> Findings:
    """Walk all of ``buckets``; ``say`` hears of progress. ``bodies`` False skips body bytes."""
    found = Findings()
    for bucket in buckets:
        found.buckets += 1
        before = len(found.damage)
        keys = found.keys
        await _check_bucket(segments, bucket, nodes, found, bodies, say)
        verdict = "ok" if len(found.damage) == before else "DAMAGED"
        say(f"bucket {bucket.name}: {found.keys - keys} keys, {verdict}")
    return found


async def _check_bucket(
    segments: Segments,
    bucket: Bucket,
    nodes: Nodes,
    found: Findings,
    bodies: bool,
    say: Callable[[str], None],
) -> None:
    head = bucket.head
    if head.config is not None:
        await _block(segments, head.config, f"bucket {bucket.name}: configuration", found)
    for name, root in (("objects", head.objects), ("uploads", head.uploads)):
        if root is None or root == mst.EMPTY_ROOT:
            continue
        place = f"bucket {bucket.name}: {name} tree"
        async for key, value in _entries(segments, root, place, found, bucket.config.salt):
            found.keys += 1
            if found.keys % 10_000 == 0:
                say(f"bucket {bucket.name}: {found.keys} keys so far")
            where = f"bucket {bucket.name}, key {key.decode('utf-8', 'replace')!r}"
            block = await _block(segments, value, f"{where}: record", found)
            if block is not None and name == "objects":
                await _check_record(segments, key, block, where, found, bodies)
