"""Multipart uploads of a bucket: read what is open, change it through the pipeline.

Uploads and their parts are keys of the bucket's second tree (``ingot.bucket.part``), under the same
head as its objects. Guarantees:

- Creating, uploading a part, completing and aborting are ordinary mutations: answered after they
  are durable, linearizable with everything else in the bucket.
- Complete is one batch: the object appears and the upload goes, with all of its parts, or nothing
  happens. Of several Completes and Aborts exactly one succeeds; a part that arrives later is
  refused.
- A Complete whose answer was lost can be asked again for some hours: a marker keeps the answer.
  Markers that are too old go with later mutations, a few at a time.

Called by the S3 layer, through ``Store.uploads``.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ingot import limits, mst
from ingot.bucket.assembly import compact
from ingot.bucket.leaf import State
from ingot.bucket.model import Bucket, Condition, Outcome
from ingot.bucket.mutation import (
    Answer,
    Change,
    Check,
    Judge,
    Seen,
    StatedPut,
    UploadChange,
    Write,
    as_judged,
)
from ingot.bucket.newest import at_newest
from ingot.bucket.nodes import Nodes
from ingot.bucket.part import (
    BEYOND,
    ID_RANDOM_BYTES,
    SEPARATOR,
    Completed,
    NoSuchUpload,
    Part,
    Upload,
    decode_completed,
    decode_part,
    decode_upload,
    encode_completed,
    encode_part,
    encode_upload,
    id_fits,
    make_upload_id,
    marker_key,
    marker_range,
    part_key,
    part_number,
    split_key,
    upload_key,
)
from ingot.bucket.pins import Pin, Pins
from ingot.bucket.pipeline import Pipeline
from ingot.bucket.record import Record, encode_record
from ingot.codec.cid import of_structure
from ingot.errors import Corruption, FormatError, IngotError, NotFound
from ingot.messages import BodyPosition, Cid

log = logging.getLogger("ingot.uploads")

BLOCKS_PER_TURN: Final = 64
"""Blocks that are read and decoded before others have their turn on the loop."""


@dataclass(frozen=True, slots=True)
class UploadPage:
    """``items`` in order: (key, upload) or, for a common prefix, (prefix, None)."""

    items: list[tuple[bytes, Upload | None]]
    truncated: bool


class Uploads:
    """The uploads of all buckets. ``writable`` gives a bucket as it stands now, or refuses it;
    ``all_there`` raises Corruption where a block is in no segment."""

    def __init__(
        self,
        nodes: Nodes,
        pipeline: Pipeline,
        pins: Pins,
        writable: Callable[[Bucket], Bucket],
        all_there: Callable[[Sequence[Cid]], Awaitable[None]],
    ) -> None:
        self.tips = pipeline.tips
        self._all_there = all_there
        self._nodes = nodes
        self._pipeline = pipeline
        self._pins = pins
        self._writable = writable

    # -- reading -----------------------------------------------------------------------------------

    @at_newest
    async def find(self, bucket: Bucket, key: bytes, upload_id: str) -> Upload:
        """An open upload; NoSuchUpload."""
        if not id_fits(key, upload_id):
            raise NoSuchUpload(upload_id)
        value = await self._get(bucket, upload_key(key, upload_id))
        if value is None:
            raise NoSuchUpload(upload_id)
        return decode_upload(await self._block(value))

    @at_newest
    async def completed(self, bucket: Bucket, key: bytes, upload_id: str) -> Completed | None:
        """What became of an upload, while that is remembered."""
        if not id_fits(key, upload_id):
            return None
        value = await self._get(bucket, marker_key(upload_id))
        return None if value is None else decode_completed(await self._block(value))

    @at_newest
    async def parts(
        self, bucket: Bucket, upload: Upload, after: int = 0, limit: int = limits.PARTS_MAX
    ) -> tuple[list[tuple[int, Part]], bool]:
        """At most ``limit`` parts with numbers above ``after``, in order, and whether there are
        more."""
        stem = upload.tree_key
        if limit <= 0 or after >= limits.PARTS_MAX:
            return [], False
        start = part_key(stem, after + 1)
        entries = await self._scan(bucket, start, stem + BEYOND, limit + 1)
        found = []
        for turn, (key, value) in enumerate(entries[:limit], 1):
            found.append((part_number(key), decode_part(await self._block(value))))
            if turn % BLOCKS_PER_TURN == 0:
                await asyncio.sleep(0)
        return found, len(entries) > limit

    @at_newest
    async def page(
        self,
        bucket: Bucket,
        prefix: bytes,
        delimiter: bytes,
        after: tuple[bytes, str],
        limit: int,
    ) -> UploadPage:
        """At most ``limit`` uploads behind ``after``, which is a key and an upload id, or a key for
        all of its uploads, or nothing; grouped by ``delimiter``. A key that names a group skips the
        whole of it. One seek an item: parts are stepped over."""
        items: list[tuple[bytes, Upload | None]] = []
        at: bytes | None = max(prefix, _behind(after, prefix, delimiter))
        stop = _above(prefix) if prefix else None
        if limit <= 0 or SEPARATOR in prefix:
            at = None
        while at is not None and (stop is None or at < stop):
            entries = await self._scan(bucket, at, stop, 1)
            if not entries:
                break
            if len(items) == limit:
                return UploadPage(items, True)
            tree_key, value = entries[0]
            key, _, number = split_key(tree_key)
            group = _group(key, prefix, delimiter)
            if group:
                items.append((group, None))
                at = _above(group)
            elif number:
                raise Corruption("uploads tree", "an upload before its parts", tree_key)
            else:
                items.append((key, decode_upload(await self._block(value))))
                at = tree_key + BEYOND
        return UploadPage(items, False)

    async def _get(self, bucket: Bucket, key: bytes) -> Cid | None:
        cache, root = self._nodes.cache, bucket.head.uploads
        return await self._nodes.run(lambda: mst.get(cache, root, key))

    async def _scan(
        self, bucket: Bucket, start: bytes, stop: bytes | None, limit: int
    ) -> list[tuple[bytes, Cid]]:
        cache, root = self._nodes.cache, bucket.head.uploads
        return await self._nodes.run(lambda: mst.scan(cache, root, start, stop, limit))

    async def _block(self, cid: Cid) -> bytes:
        block = self._nodes.blocks.read_now(cid)
        return block if block is not None else await self._nodes.blocks.read(cid)

    # -- changing ----------------------------------------------------------------------------------

    async def create(self, bucket: Bucket, upload: Upload) -> Upload:
        """Open an upload; it comes back with the id that it got."""
        target = self._writable(bucket)
        random = secrets.token_bytes(ID_RANDOM_BYTES)
        made = replace(upload, id=make_upload_id(upload.key, upload.created_ms, random))
        block = encode_upload(made)
        made = replace(made, cid=of_structure(block))
        puts: list[tuple[bytes, Cid | None]] = [(made.tree_key, made.cid)]
        puts += await self._outlived(target, made.created_ms)
        await self._submit(target, UploadChange(made.id, puts), [(made.cid, block)])
        return made

    async def put_part(self, bucket: Bucket, upload: Upload, number: int, part: Part) -> None:
        """Put or replace one part. NoSuchUpload when the upload ended meanwhile."""
        target = self._writable(bucket)
        part = replace(part, body=compact(part.body))
        block = encode_part(part)
        cid = of_structure(block)
        stem = upload.tree_key
        change = UploadChange(upload.id, [(part_key(stem, number), cid)], (stem, upload.cid))
        body = part.body
        await self._submit(target, change, [*body.blocks, (cid, block)], body.positions)

    async def complete(
        self,
        bucket: Bucket,
        upload: Upload,
        chosen: Sequence[tuple[int, Part]],
        record: Record,
        asked: bytes,
        condition: Condition | None = None,
        state: State | None = None,
        judge: Judge | None = None,
        seen: Seen | None = None,
    ) -> tuple[Completed, Outcome | None]:
        """Make ``record``, which was assembled from the ``chosen`` parts, the object at the
        upload's key, with ``state`` or what ``judge`` gives, and end the upload. ``seen``: what was
        judged. NoSuchUpload, PreconditionFailed, NotFound (If-Match on an absent key),
        StateChanged; PartsChanged when a chosen part was replaced meanwhile; Corruption where a
        part has lost a chunk, or the node over its many: the object would lack it too."""
        target = self._writable(bucket)
        parts_chunks = [cid for _, part in chosen for cid, _ in part.body.chunks]
        record.body.pin = Pin(self._pins, parts_chunks)
        await self._all_there(parts_chunks)
        completed = Completed(
            upload.key,
            record.etag,
            len(chosen),
            record.created_ms,
            asked,
            record.checksums,
            record.composite,
        )
        marker, block = encode_completed(completed), encode_record(record)
        marker_cid, cid = of_structure(marker), of_structure(block)
        stem = upload.tree_key
        change = UploadChange(
            upload.id,
            [
                *await self._outlived(target, record.created_ms),
                (marker_key(upload.id), marker_cid),
            ],
            (stem, upload.cid),
            [(part_key(stem, number), part.cid) for number, part in chosen],
            ends=True,
        )
        blocks = [*record.body.blocks, (cid, block), (marker_cid, marker)]
        put = Change(record.key, cid, record.etag, condition)
        if state or judge is not None:
            put = StatedPut(record.key, cid, record.etag, condition, state or State(), judge)
        outcome = await self._submit(target, change, blocks, changes=[as_judged(put, seen)])
        return completed, outcome

    async def abort(self, bucket: Bucket, upload: Upload, check: Check | None = None) -> None:
        """End an upload and forget its parts, unless ``check`` refuses it; NoSuchUpload when
        another was first."""
        stem = upload.tree_key
        change = UploadChange(upload.id, [], (stem, upload.cid), ends=True, check=check)
        await self._submit(self._writable(bucket), change, [])

    @at_newest
    async def _outlived(self, bucket: Bucket, now_ms: int) -> list[tuple[bytes, Cid | None]]:
        """Removals of markers that nobody will ask for any more. An upload was created before it
        was completed, so only the markers of old enough uploads are looked at, the oldest first."""
        before = now_ms - limits.COMPLETED_KEPT_MS
        start, stop = marker_range(before)
        entries = await self._scan(bucket, start, stop, limits.COMPLETED_PRUNED_MAX)
        found: list[tuple[bytes, Cid | None]] = []
        for key, value in entries:
            try:
                completed = decode_completed(await self._block(value))
            except (Corruption, FormatError, NotFound) as damage:
                # Nobody has asked for it: what this mutation is for must not fail with it.
                log.warning("bucket %s: marker %r cannot be read: %s", bucket.name, key, damage)
                continue
            if completed.completed_ms < before:
                found.append((key, None))
        return found

    async def _submit(
        self,
        target: Bucket,
        of_upload: UploadChange,
        blocks: list[tuple[Cid, bytes]],
        bodies: Sequence[BodyPosition] = (),
        changes: Sequence[Change] = (),
    ) -> Outcome | None:
        waiter: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        write = Write(
            target.id,
            waiter,
            self._pipeline.deadline(),
            list(changes),
            blocks,
            bodies,
            of_upload,
        )
        self._pipeline.submit(write)
        answers = await waiter
        if isinstance(answers[0], IngotError):
            raise answers[0]
        return answers[0]


def _behind(after: tuple[bytes, str], prefix: bytes, delimiter: bytes) -> bytes:
    """The first key of the tree that a page may show. Markers stand below all S3 keys."""
    key, upload_id = after
    if not key:
        return BEYOND
    if upload_id:
        return upload_key(key, upload_id) + BEYOND
    if _group(key, prefix, delimiter) == key:
        return _above(key) or key
    return key + BEYOND


def _group(key: bytes, prefix: bytes, delimiter: bytes) -> bytes:
    """The common prefix that ``key`` falls into, b"" where it stands for itself."""
    if not delimiter or not key.startswith(prefix):
        return b""
    found = key.find(delimiter, len(prefix))
    return key[: found + len(delimiter)] if found >= 0 else b""


def _above(prefix: bytes) -> bytes | None:
    """The least string above all that start with ``prefix``; None when there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None
