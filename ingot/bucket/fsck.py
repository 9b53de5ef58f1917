"""``ingot fsck``: walk every head to every byte it refers to, hash everything, name what is wrong.

Reads only. A finding says which bucket, which key where one is affected, which block, and where
that block should lie. It finds missing and damaged blocks, nodes that break the tree's rules,
records whose key contradicts the tree, and bodies whose bytes do not give the recorded sizes and
digests; of objects, all their versions and the parts of open uploads alike.

What is in a cold segment and cannot be fetched is no finding: it is counted, and what lies below it
is not looked at.

With what ``ingot.segments.verify`` found in the files it also tells damage that costs something
from damage that does not, and whether the commits in the log lead to the heads that stand.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from hashlib import md5, sha256
from typing import Protocol

from ingot import mst
from ingot.body.reader import read_range
from ingot.bucket.config_block import decode_config
from ingot.bucket.leaf import LEAF_PREFIX, Leaf, decode_leaf, decode_state, order_of
from ingot.bucket.model import Bucket
from ingot.bucket.part import decode_completed, decode_part, decode_upload, id_fits, split_key
from ingot.bucket.record import decode_record
from ingot.bucket.slices import parts_of
from ingot.codec.cid import to_text
from ingot.errors import IngotError, Unfetched
from ingot.messages import Body, Cid
from ingot.mst.verify import any_key, valid_key
from ingot.segments.model import Location
from ingot.segments.verify import BYTES_PER_REPORT, Suspects, Verified

KEYS_PER_REPORT = 10_000


class Segments(Protocol):
    """What is read here of the segment store."""

    def read_now(self, cid: Cid) -> bytes | None: ...
    async def read(self, cid: Cid) -> bytes: ...
    async def read_part(self, cid: Cid, start: int, into: memoryview) -> None: ...
    def prefetch(self, cids: Sequence[Cid]) -> None: ...
    def where(self, cid: Cid) -> str:
        """The segment and offset at which a block lies, or "in no segment"."""
        ...

    def places(self, cid: Cid) -> Sequence[Location]: ...


@dataclass(slots=True)
class Findings:
    """Totals, and one line for each thing that is wrong."""

    buckets: int = 0
    keys: int = 0
    bytes: int = 0  # of bodies that were read
    cold: int = 0  # blocks, and the rests of bodies, that are cold and could not be fetched
    damage: list[str] = field(default_factory=list)  # of what is kept, or of the log itself
    harmless: list[str] = field(default_factory=list)  # nothing that is kept is lost by it


class Fsck:
    """One check of a store. ``say`` hears of progress and of every finding. ``verified`` is what
    the files of the segments hold; without it only what the buckets reach is looked at."""

    def __init__(
        self,
        segments: Segments,
        say: Callable[[str], None],
        read_bodies: bool = True,
        verified: Verified | None = None,
    ) -> None:
        self.found = Findings()
        self._segments = segments
        self._say = say
        self._read_bodies = read_bodies
        self._verified = verified
        self._suspects = Suspects(verified.spots if verified is not None else ())

    async def check(self, buckets: list[Bucket]) -> Findings:
        if self._verified is not None:
            self._check_log(buckets, self._verified)
        await self._check_buckets(buckets)
        if self._verified is not None:
            self._judge(self._verified)
        return self.found

    def _check_log(self, buckets: list[Bucket], verified: Verified) -> None:
        """Whether the log alone would give every bucket its head."""
        for line in verified.broken:
            self._damaged(line)
        for line in verified.remarks:
            self._harmless(line)
        ends = dict(verified.heads)
        for bucket in buckets:
            move = ends.pop(bucket.id, None)
            if move is None and verified.unread:
                continue  # it may stand where a commit in a cold segment left it
            if move is None or move.new != bucket.head:
                left = "nowhere" if move is None or move.new is None else f"at {move.new.sequence}"
                self._damaged(
                    f"bucket {bucket.name} stands at head {bucket.head.sequence}, the commits in "
                    f"the log leave it {left}: they alone could not rebuild it"
                )
        for move in ends.values():
            self._damaged(f"bucket {move.name} is in the log, but the registry does not have it")

    def _judge(self, verified: Verified) -> None:
        """What the damage in the files means, now that everything was reached that can be."""
        still = "that can still be reached" if self.found.damage else "that is kept"
        for spot in verified.spots:
            if spot.lost:
                self._damaged(f"{spot}: damaged, and lost to {spot.needed_by}")
            elif spot.needed_by:
                self._harmless(f"{spot}: damaged, but {spot.needed_by} can be read all the same")
            else:
                self._harmless(f"{spot}: damaged, and nothing {still} needs it")

    async def _reached(self, cid: Cid, what: str) -> bool:
        """Note that ``what`` needs a block; False where that lies in damage and cannot be read."""
        readable = True
        for spot in self._suspects.of(cid, self._segments.places(cid)) if self._suspects else ():
            try:
                await self._segments.read(cid)
            except Unfetched:
                pass  # damaged here, and the network has it
            except IngotError:
                readable = False
            if not spot.lost:
                spot.needed_by, spot.lost = what, not readable
        return readable

    async def _check_buckets(self, buckets: list[Bucket]) -> None:
        for bucket in buckets:
            damage, keys = len(self.found.damage), self.found.keys
            await self._check_bucket(bucket)
            self.found.buckets += 1
            verdict = "ok" if len(self.found.damage) == damage else "DAMAGED"
            self._say(f"bucket {bucket.name}: {self.found.keys - keys} keys, {verdict}")

    async def _check_bucket(self, bucket: Bucket) -> None:
        head = bucket.head
        if bucket.read_only:
            self._damaged(f"bucket {bucket.name} is read-only: {bucket.read_only}")
        if head.config is not None:
            await self._check_config(head.config, f"bucket {bucket.name}: configuration")
        async for key, value in self._entries(bucket, head.objects, "objects"):
            self.found.keys += 1
            if self.found.keys % KEYS_PER_REPORT == 0:
                self._say(f"bucket {bucket.name}: {self.found.keys} keys so far")
            place = f"bucket {bucket.name}, key {key.decode('utf-8', 'replace')!r}"
            await self._check_value(bucket, key, value, place)
        async for key, value in self._entries(bucket, head.uploads, "uploads"):
            place = f"bucket {bucket.name}, upload {key!r}"
            block = await self._block(value, place)
            if block is not None:
                await self._check_upload(key, block, place)

    async def _check_config(self, cid: Cid, place: str) -> None:
        block = await self._block(cid, place)
        if block is not None:
            try:
                decode_config(block)
            except IngotError as error:
                self._damaged(f"{place} cannot be read: {error}")

    async def _check_value(self, bucket: Bucket, key: bytes, value: Cid, place: str) -> None:
        """A key's record, or its leaf with all that this leads to."""
        block = await self._block(value, f"{place}: record")
        if block is None:
            return
        if not block.startswith(LEAF_PREFIX):
            await self._check_record(key, block, place)
            return
        try:
            leaf = decode_leaf(block)
        except IngotError as error:
            self._damaged(f"{place}: its leaf cannot be read: {error}")
            return
        await self._check_version(key, leaf, place)
        null = None
        tree = f"versions of {key!r}"
        async for order, each in self._entries(bucket, leaf.older, tree):
            older = f"{place}, older version {order!r}"
            block = await self._block(each, f"{older}: record")
            if block is None:
                continue
            one = Leaf(each)
            try:
                if block.startswith(LEAF_PREFIX):
                    one = decode_leaf(block)
            except IngotError as error:
                self._damaged(f"{older}: its leaf cannot be read: {error}")
                continue
            if one.version is None:
                null = order.decode("ascii", "replace")
            elif order_of(one.version).encode() != order:
                self._damaged(f"{older}: its id is {one.version}, which leads elsewhere")
            if one.older is not None:
                self._damaged(f"{older}: it has older versions of its own")
            await self._check_version(key, one, older)
        if null != leaf.null:
            self._damaged(f"{place}: its null version is at {null}, its leaf says {leaf.null}")

    async def _check_version(self, key: bytes, leaf: Leaf, place: str) -> None:
        """The record and the state of one version."""
        block = await self._block(leaf.current, f"{place}: record")
        if block is not None:
            await self._check_record(key, block, place)
        if leaf.state is not None:
            block = await self._block(leaf.state, f"{place}: state")
            try:
                if block is not None:
                    decode_state(block)
            except IngotError as error:
                self._damaged(f"{place}: its state cannot be read: {error}")

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
            self._segments.prefetch([value for _, value, _ in entries])
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
                await self._check_body(decode_part(block).body, place)
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
        """Returns the MD5s of the parts, one behind the other, b"" where they were not read; an
        object that was not put together is one part."""
        if self._suspects:
            await self._reach_chunks(body, place)
        if not self._read_bodies:
            return b""
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
        except Unfetched:
            self._count(read, place)
            self.found.cold += 1
            return b""
        except IngotError as error:
            self._damaged(f"{place}: byte {read} of {body.size} and on cannot be read: {error}")
            return b""
        self._count(read, place)
        if read != body.size:
            self._damaged(f"{place}: {read} bytes where its record says {body.size}")
        if body.sha256 is not None and whole.digest() != body.sha256:
            self._damaged(f"{place}: its bytes do not give the recorded sha256")
        if body.md5 is not None and not parts and digests != body.md5:
            self._damaged(f"{place}: its bytes do not give the recorded md5")
        return digests

    async def _reach_chunks(self, body: Body, place: str) -> None:
        """See which damaged chunks the body needs; without reading it only those are found."""
        if body.inline is not None:
            return
        try:
            async with aclosing(parts_of(self._segments, body, 0, body.size)) as parts:
                async for part in parts:
                    if not await self._reached(part.cid, place) and not self._read_bodies:
                        self._damaged(f"{place}: chunk {to_text(part.cid)} cannot be read")
        except Unfetched:
            self.found.cold += not self._read_bodies
        except IngotError as error:
            if not self._read_bodies:
                self._damaged(f"{place}: a node of its body cannot be read: {error}")

    def _count(self, read: int, place: str) -> None:
        before = self.found.bytes
        self.found.bytes += read
        if before // BYTES_PER_REPORT < self.found.bytes // BYTES_PER_REPORT:
            self._say(f"{place}: {self.found.bytes} bytes of bodies so far")

    async def _block(self, cid: Cid, what: str) -> bytes | None:
        """The block, hashed here; None where it is cold and, with a finding, missing or damaged."""
        await self._reached(cid, what)
        try:
            block = self._segments.read_now(cid)
            if block is None:
                block = await self._segments.read(cid)
        except Unfetched:
            self.found.cold += 1
            return None
        except IngotError as error:
            self._damaged(f"{what} {to_text(cid)} ({self._segments.where(cid)}): {error}")
            return None
        if sha256(block).digest() != cid[-32:]:
            where = self._segments.where(cid)
            self._damaged(f"{what} {to_text(cid)} ({where}): its bytes have another hash")
            return None
        return bytes(block)

    def _harmless(self, line: str) -> None:
        self.found.harmless.append(line)
        self._say(line)

    def _damaged(self, line: str) -> None:
        self.found.damage.append(line)
        self._say(line)
