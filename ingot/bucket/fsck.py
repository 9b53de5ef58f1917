"""``ingot fsck``: walk every head to every byte it refers to, hash everything, name what is wrong.

Reads only. A finding says which bucket, which key where one is affected, which block, and where that
block should lie. It finds missing and damaged blocks, nodes that break the tree's rules, records whose
key contradicts the tree, and bodies whose bytes do not give the recorded sizes and digests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from hashlib import md5, sha256
from typing import Protocol

from ingot import mst
from ingot.body.reader import read_range
from ingot.bucket.model import Bucket
from ingot.bucket.record import Record, decode_record
from ingot.codec.cid import to_text
from ingot.errors import IngotError
from ingot.messages import Cid
from ingot.mst.verify import any_key, valid_key

KEYS_PER_REPORT = 10_000


class Segments(Protocol):
    """What is read here of the segment store."""

    def read_now(self, cid: Cid) -> bytes | None: ...
    async def read(self, cid: Cid) -> bytes: ...
    async def read_part(self, cid: Cid, start: int, into: memoryview) -> None: ...
    def where(self, cid: Cid) -> str:
        """The segment and offset at which a block lies, or "in no segment"."""
        ...


@dataclass(slots=True)
class Findings:
    """Totals, and one line for each thing that is wrong."""

    buckets: int = 0
    keys: int = 0
    bytes: int = 0  # of bodies that were read
    damage: list[str] = field(default_factory=list)


class Fsck:
    """One check of a store. ``say`` hears of progress and of every finding."""

    def __init__(
        self, segments: Segments, say: Callable[[str], None], read_bodies: bool = True
    ) -> None:
        self.found = Findings()
        self._segments = segments
        self._say = say
        self._read_bodies = read_bodies

    async def check(self, buckets: list[Bucket]) -> Findings:
        for bucket in buckets:
            damage, keys = len(self.found.damage), self.found.keys
            await self._check_bucket(bucket)
            self.found.buckets += 1
            verdict = "ok" if len(self.found.damage) == damage else "DAMAGED"
            self._say(f"bucket {bucket.name}: {self.found.keys - keys} keys, {verdict}")
        return self.found

    async def _check_bucket(self, bucket: Bucket) -> None:
        head = bucket.head
        if head.config is not None:
            await self._block(head.config, f"bucket {bucket.name}: configuration")
        async for key, value in self._entries(bucket, head.objects, "objects"):
            self.found.keys += 1
            if self.found.keys % KEYS_PER_REPORT == 0:
                self._say(f"bucket {bucket.name}: {self.found.keys} keys so far")
            place = f"bucket {bucket.name}, key {key.decode('utf-8', 'replace')!r}"
            block = await self._block(value, f"{place}: record")
            if block is not None:
                await self._check_record(key, block, place)
        async for key, value in self._entries(bucket, head.uploads, "uploads"):
            await self._block(value, f"bucket {bucket.name}, upload {key!r}")

    async def _entries(
        self, bucket: Bucket, root: Cid | None, name: str
    ) -> AsyncIterator[tuple[bytes, Cid]]:
        """Keys and values of a tree; goes on beside what is damaged."""
        rule = valid_key if name == "objects" else any_key
        check = mst.TreeCheck(root, bucket.config.salt, rule)
        place = f"bucket {bucket.name}: {name} tree"
        while (cid := check.next_wanted) is not None:
            block = await self._block(cid, f"{place}: node")
            if block is None:
                check.skip(cid)
                continue
            try:
                entries = check.feed(cid, block)
            except IngotError as error:
                self._damaged(f"{place}: node {to_text(cid)} breaks the tree: {error}")
                check.skip(cid)
                continue
            for key, value, _ in entries:
                yield key, value

    async def _check_record(self, key: bytes, block: bytes, place: str) -> None:
        try:
            record = decode_record(block)
        except IngotError as error:
            self._damaged(f"{place}: its record cannot be read: {error}")
            return
        if record.key != key:
            self._damaged(f"{place}: its record is of key {record.key!r}")
        if self._read_bodies:
            await self._check_body(record, place)

    async def _check_body(self, record: Record, place: str) -> None:
        body, read = record.body, 0
        whole, etag = sha256(), md5(usedforsecurity=False)
        try:
            async with aclosing(read_range(self._segments, body, 0, body.size)) as pieces:
                async for piece in pieces:
                    whole.update(piece)
                    etag.update(piece)
                    read += len(piece)
        except IngotError as error:
            self._damaged(f"{place}: byte {read} of {body.size} and on cannot be read: {error}")
            return
        self.found.bytes += read
        if read != body.size:
            self._damaged(f"{place}: {read} bytes where its record says {body.size}")
        if body.sha256 is not None and whole.digest() != body.sha256:
            self._damaged(f"{place}: its bytes do not give the recorded sha256")
        if body.md5 is not None and etag.digest() != body.md5:
            self._damaged(f"{place}: its bytes do not give the recorded md5")

    async def _block(self, cid: Cid, what: str) -> bytes | None:
        """The block, hashed here; None, with a finding, where it is missing or damaged."""
        try:
            block = self._segments.read_now(cid)
            if block is None:
                block = await self._segments.read(cid)
        except IngotError as error:
            self._damaged(f"{what} {to_text(cid)} ({self._segments.where(cid)}): {error}")
            return None
        if sha256(block).digest() != cid[-32:]:
            where = self._segments.where(cid)
            self._damaged(f"{what} {to_text(cid)} ({where}): its bytes have another hash")
            return None
        return bytes(block)

    def _damaged(self, line: str) -> None:
        self.found.damage.append(line)
        self._say(line)
