"""``ingot fsck``: walk every head to every byte it refers to, hash everything, name what is wrong.

Reads only. A finding says which bucket, which key where one is affected, which block, and where
that block should lie. It finds missing and damaged blocks, nodes that break the tree's rules,
records whose key contradicts the tree, and bodies whose bytes do not give the recorded sizes and
digests; of objects and of the parts of open uploads alike.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from hashlib import md5, sha256
from typing import Protocol

from ingot import mst
from ingot.body.reader import read_range
from ingot.bucket.model import Bucket
from ingot.bucket.part import decode_completed, decode_part, decode_upload, id_fits, split_key
from ingot.bucket.record import decode_record
from ingot.codec.cid import to_text
from ingot.errors import IngotError
from ingot.messages import Body, Cid
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
            place = f"bucket {bucket.name}, upload {key!r}"
            block = await self._block(value, place)
            if block is not None:
                await self._check_upload(key, block, place)

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
            digests = await self._check_body(record.body, place, record.parts)
            if digests and record.parts:
                etag = f"{md5(digests, usedforsecurity=False).hexdigest()}-{len(record.parts)}"
                if etag != record.etag:
                    self._damaged(f"{place}: its parts do not give the recorded ETag")

    async def _check_upload(self, key: bytes, block: bytes, place: str) -> None:
        """One entry of the uploads tree: an upload, a part of one, or what became of one."""
        try:
            of_key, upload_id, number = split_key(key)
            if number:
                body = decode_part(block).body
                if self._read_bodies:
                    await self._check_body(body, place)
                return
            if not of_key:
                found = decode_completed(block).key
                good = id_fits(found, upload_id)
            else:
                upload = decode_upload(block)
                found = upload.key
                good = (found, upload.id) == (of_key, upload_id)
        except IngotError as error:
            self._damaged(f"{place}: its block cannot be read: {error}")
            return
        if not good:
            self._damaged(f"{place}: its block is of key {found!r}")

    async def _check_body(self, body: Body, place: str, parts: Sequence[int] = ()) -> bytes:
        """Returns the MD5s of the parts, one behind the other; an object that was not put together
        is one part."""
        read, end = 0, 0
        whole, digests = sha256(), b""
        try:
            for size in parts or (body.size,):
                end += size
                part = md5(usedforsecurity=False)
                async with aclosing(read_range(self._segments, body, end - size, end)) as pieces:
                    async for piece in pieces:
                        whole.update(piece)
                        part.update(piece)
                        read += len(piece)
                digests += part.digest()
        except IngotError as error:
            self._damaged(f"{place}: byte {read} of {body.size} and on cannot be read: {error}")
            return b""
        self.found.bytes += read
        if read != body.size:
            self._damaged(f"{place}: {read} bytes where its record says {body.size}")
        if body.sha256 is not None and whole.digest() != body.sha256:
            self._damaged(f"{place}: its bytes do not give the recorded sha256")
        if body.md5 is not None and not parts and digests != body.md5:
            self._damaged(f"{place}: its bytes do not give the recorded md5")
        return digests

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
