"""Buckets as the S3 layer sees them: read a published head, take a body in, commit a change.

Guarantees: a read sees one published head, whole; a change is answered after it is durable and its
head stands in the registry. Whoever changes a bucket hands over the one that he judged: another of
its name is NoSuchBucket. Nothing is served while the lease is not surely ours.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from ingot import limits, mst
from ingot.body import dag
from ingot.body.ingest import Ingest, ingest_small
from ingot.body.pool import Pool
from ingot.body.reader import read_range
from ingot.bucket.batch import created_head
from ingot.bucket.config_block import decode_config, encode_config
from ingot.bucket.fold import check_size
from ingot.bucket.leaf import Acl, State
from ingot.bucket.model import (
    NULL_VERSION,
    Bucket,
    BucketConfig,
    BucketExists,
    BucketNotEmpty,
    Condition,
    KeyRefused,
    NoSuchBucket,
    Outcome,
    Page,
    PreconditionFailed,
)
from ingot.bucket.mutation import (
    Answer,
    Change,
    Check,
    Configure,
    Create,
    Drop,
    Judge,
    Removal,
    Restating,
    Seen,
    StatedPut,
    Waiter,
    Write,
    as_judged,
)
from ingot.bucket.nodes import Lost, Nodes, Published, lost
from ingot.bucket.pins import Pin, Pins
from ingot.bucket.pipeline import Pipeline
from ingot.bucket.reading import Found, Reading, VersionPage
from ingot.bucket.record import Record, cid_of, decode_record, encode_record
from ingot.bucket.slices import StoredBody, Unwritten, parts_of, whole_chunks
from ingot.bucket.summaries import Summaries
from ingot.bucket.uploads import Uploads
from ingot.bucket.versions import NewState
from ingot.bucket.watch import Watch
from ingot.errors import Corruption, FormatError, IngotError, Missing, Unavailable, Unserved
from ingot.messages import Body, BodyPosition, BodyStream, Cid
from ingot.ports import Clock

__all__ = [
    "Bucket",
    "BucketConfig",
    "BucketExists",
    "BucketNotEmpty",
    "Condition",
    "KeyRefused",
    "NoSuchBucket",
    "Page",
    "PreconditionFailed",
    "Store",
]


LOOKUPS_PER_TURN = 1024
"""Blocks that are looked up, in a millisecond or less, before others have their turn."""


class Segments(Protocol):
    """What the store needs of the segment store beside commits."""

    def read_now(self, cid: Cid) -> bytes | None: ...
    def read_many_now(self, cids: Sequence[Cid]) -> list[bytes | None]: ...
    async def read(self, cid: Cid) -> bytes: ...
    async def read_part(self, cid: Cid, start: int, into: memoryview) -> None: ...
    async def append_body(self, cid: Cid, data: memoryview) -> BodyPosition: ...
    async def sync_bodies(self, positions: Sequence[BodyPosition]) -> None: ...
    async def lacking(self, cids: Sequence[Cid]) -> Cid | None: ...
    def __contains__(self, cid: Cid) -> bool: ...
    def prefetch(self, cids: Sequence[Cid]) -> None: ...


class Store:
    """All methods raise Unavailable (503) when it cannot be done now."""

    def __init__(
        self,
        segments: Segments,
        nodes: Nodes,
        pipeline: Pipeline,
        ingest: Ingest,
        pins: Pins,
        clock: Clock,
        summary_bytes: int = limits.SUMMARY_CACHE_BYTES,
    ) -> None:
        self.pipeline = pipeline
        self.tips = pipeline.tips
        self.lease_until = 0.0  # boottime; moved on by every confirmed renewal
        self.full = ""  # why no more bytes are taken, when they are not; deletions still are
        self.overfull = False  # nor those
        self._segments = segments
        self._blocks = Published(segments)
        self._nodes = nodes
        self._reading = Reading(nodes, self._blocks, segments, self.tips)
        self._summaries = Summaries(self._reading.records, summary_bytes)
        self._ingest = ingest
        self._pins = pins
        self._clock = clock
        self._watch = Watch(clock)
        self._read_pool = Pool(limits.READ_POOL_BUFFERS, limits.CHUNK_BYTES)
        self.uploads = Uploads(nodes, pipeline, pins, self._writable, self._all_there)

    # -- buckets -----------------------------------------------------------------------------------

    def _serving(self) -> None:
        if self._clock.boottime() >= self.lease_until:
            raise Unserved("the lease is not confirmed: the registry cannot be reached", 2)
        if self.pipeline.failed is not None:
            raise Unserved(f"this gateway no longer serves: {self.pipeline.failed}", 5)

    def bucket(self, name: str) -> Bucket:
        """NoSuchBucket. Never waits."""
        self._serving()
        bucket = self.tips.get(name)
        if bucket is None:
            raise NoSuchBucket(name)
        if bucket.away:
            raise _away(bucket)
        return bucket

    def newest(self, bucket: Bucket) -> Bucket:
        """The bucket as it stands now. NoSuchBucket where it was deleted, though another may have
        its name. Never waits."""
        found = self.bucket(bucket.name)
        if found.id != bucket.id:
            raise NoSuchBucket(bucket.name)
        return found

    def buckets(self) -> list[Bucket]:
        """Sorted by name."""
        self._serving()
        found = [bucket for _, bucket in sorted(self.tips.items())]
        for bucket in found:
            if bucket.away:
                raise _away(bucket)
        return found

    def count_of(self, owner: str) -> int:
        """How many buckets an owner has, of those whose configuration is there."""
        return sum(bucket.config.owner == owner for bucket in self.tips.values())

    async def fetch_away(self) -> None:
        """Read what could not be read at the start: configurations, while the network was away.
        What it still cannot give is tried again by the next call."""
        for bucket in [bucket for bucket in self.tips.values() if bucket.away]:
            assert bucket.head.config is not None
            try:
                config = decode_config(await self._segments.read(bucket.head.config))
            except Unavailable:
                return
            except IngotError as error:
                why = f"its configuration block cannot be read ({error})"
                self.pipeline.adopt(replace(bucket, read_only=why, away=False))
            else:
                self.pipeline.adopt(replace(bucket, config=config, away=False))

    async def create_bucket(self, name: str, config: BucketConfig) -> Bucket:
        """BucketExists, ConfigTooLarge."""
        self._serving()
        self._has_room()
        check_size(config)
        block = encode_config(config)
        cid = cid_of(block)
        made = Bucket(secrets.token_bytes(16), name, created_head(cid), config)
        waiter = self._waiter()
        self.pipeline.submit(Create(made, waiter, self.pipeline.deadline(), (cid, block)))
        _answer(await waiter)
        return made

    async def delete_bucket(self, bucket: Bucket) -> None:
        """NoSuchBucket, BucketNotEmpty."""
        self._writable(bucket)
        waiter = self._waiter()
        self.pipeline.submit(Drop(bucket.id, waiter, self.pipeline.deadline()))
        _answer(await waiter)

    async def configure(
        self,
        bucket: Bucket,
        document_name: str,
        document: bytes | None,
        check: Callable[[BucketConfig], None] | None = None,
    ) -> None:
        """Set a document of the bucket's configuration, or remove it (None). ``check`` is called at
        the commit with the configuration as it stands there, and refuses by raising. NoSuchBucket,
        ConfigTooLarge."""
        self._writable(bucket)
        if document is not None:
            self._has_room()
        waiter = self._waiter()
        deadline = self.pipeline.deadline()
        self.pipeline.submit(Configure(bucket.id, waiter, deadline, document_name, document, check))
        _answer(await waiter)

    # -- reading -----------------------------------------------------------------------------------

    def find_now(self, bucket: Bucket, key: bytes) -> Record | None:
        """The record of ``key`` where its blocks are at hand, else Missing. FormatError where its
        value is a leaf: whoever shows versions or state asks ``look``."""
        record = self._record_now(bucket, key)
        return None if record is None or record.delete_marker else record

    def _record_now(self, bucket: Bucket, key: bytes) -> Record | None:
        root = bucket.head.objects
        if root is None:
            return None
        value = mst.get(self._nodes.cache, root, key)
        if value is None:
            return None
        block = self._blocks.read_now(value)
        if block is None:
            raise Missing([value])
        return decode_record(block)

    async def find(self, bucket: Bucket, key: bytes) -> Record | None:
        """The record of ``key``, None where its current version is a delete marker; does not
        suspend where its blocks are at hand and it has neither versions nor state."""
        try:
            return self.find_now(bucket, key)
        except (Missing, Lost, FormatError):
            found = await self.look(bucket, key)
            return None if found is None or found.record.delete_marker else found.record

    async def look(self, bucket: Bucket, key: bytes, version: str | None = None) -> Found | None:
        """A version of ``key`` by its id (or NULL_VERSION), or the current one, even where that is
        a delete marker; with its state. Does not suspend where a bare record is at hand."""
        if bucket.config.versioning is None and (version is None or version == NULL_VERSION):
            try:
                record = self._record_now(bucket, key)
                return None if record is None else Found(record, NULL_VERSION)
            except (Missing, Lost, FormatError):
                pass
        return await self._reading.look(bucket, key, version)

    async def page(
        self, bucket: Bucket, prefix: bytes, delimiter: bytes, after: bytes | None, limit: int
    ) -> Page:
        """At most ``limit`` items greater than ``after``. A group is skipped whole when ``after``
        lies in it (mst.md section 10)."""
        if bucket.config.versioning is not None:
            return await self._reading.current_page(bucket, prefix, delimiter, after, limit)
        root, cache = bucket.head.objects, self._nodes.cache
        items, truncated = await self._nodes.run(
            lambda: mst.page(cache, root, prefix, delimiter, after, limit)
        )
        return Page(items, truncated)

    async def versions(
        self,
        bucket: Bucket,
        prefix: bytes,
        delimiter: bytes,
        after: tuple[bytes, str] | None,
        limit: int,
    ) -> VersionPage:
        """At most ``limit`` versions and groups behind ``after``: a key, and a version of it ("":
        all of them)."""
        return await self._reading.versions(bucket, prefix, delimiter, after, limit)

    def records(self, cids: Sequence[Cid]) -> AsyncGenerator[list[bytes], None]:
        """The blocks of the records that a page names, in order and some at a time."""
        return self._reading.records(cids)

    async def summaries(self, cids: Sequence[Cid]) -> list[bytes]:
        """What entries of a page show of the records that it names."""
        return await self._summaries.of(cids)

    @property
    def summary_bytes(self) -> int:
        """Memory that is taken for what listings show of records."""
        return self._summaries.bytes_used

    async def states(self, bucket: Bucket, page: Page) -> dict[bytes, Cid]:
        """The state of each key's current version on a page, where it has one."""
        if bucket.config.versioning is not None:
            return page.states
        return await self._reading.states(page)

    async def acls(self, states: Iterable[Cid]) -> dict[Cid, Acl]:
        """The ACLs that states say, of those that say one."""
        return await self._reading.acls(states)

    def read(self, body: Body, start: int, stop: int) -> AsyncGenerator[memoryview | bytes, None]:
        """The bytes [start, stop) in pieces; each valid until the next step."""
        if body.inline is None:
            self.pin(body)  # whoever replaces the object meanwhile must not end the download
        return read_range(self._blocks, body, start, stop, self._read_pool)

    # -- writing -----------------------------------------------------------------------------------

    async def ingest(self, stream: BodyStream, algorithms: tuple[str, ...]) -> Body:
        """Take a body in: chunk it, hash it (sha256, md5 and ``algorithms``), make its large chunks
        durable. Nothing is visible until a record with this body is put."""
        self._has_room()
        small = stream.take()
        if small is not None and len(small) <= limits.LOG_CHUNK_BYTES_MAX:
            return ingest_small(small, algorithms)
        pin = Pin(self._pins)
        sink = _PinningSink(self._segments, pin)
        body = await self._ingest.run(stream, sink, algorithms, taken=small)
        body.pin = pin
        return body

    def pin(self, body: Body) -> Body:
        """Keep an existing body's chunks for as long as the result is held: a copy's source."""
        body.pin = Pin(self._pins, [cid for cid, _ in body.chunks])
        return body

    async def check_body(self, body: Body) -> None:
        """Corruption where a block of a stored body is lost: before a new record refers to it. They
        are looked up; nodes are read, to know what is below them, chunks are not."""
        if body.inline is not None:
            return
        wanted: list[Cid] = []
        async with aclosing(parts_of(self._blocks, body, 0, body.size)) as parts:
            async for part in parts:
                wanted.append(part.cid)
                if len(wanted) == LOOKUPS_PER_TURN:
                    await self._all_there(wanted)
                    wanted.clear()
        await self._all_there(wanted)

    async def _all_there(self, cids: Sequence[Cid]) -> None:
        for at in range(0, len(cids), LOOKUPS_PER_TURN):
            missing = await self._segments.lacking(cids[at : at + LOOKUPS_PER_TURN])
            if missing is not None:
                raise lost(missing)
            await asyncio.sleep(0)

    async def slice(self, body: Body, start: int, stop: int, algorithms: tuple[str, ...]) -> Body:
        """The bytes [start, stop) of a stored body as a body with digests of its own. By reference
        where they are whole chunks, else taken in again."""
        source = self.pin(replace(body))
        if source.inline is not None:
            return ingest_small(source.inline[start:stop], algorithms)
        assert start < stop, "only an inline body can be empty"
        size = stop - start
        chunks = await whole_chunks(self._blocks, source, start, stop)
        async with aclosing(self.read(source, start, stop)) as pieces:
            stream = StoredBody(pieces, size)
            if chunks is None:
                made = await self.ingest(stream, algorithms)
            else:
                pin = Pin(self._pins, [cid for cid, _ in chunks])
                hashed = await self._ingest.run(stream, Unwritten(), algorithms)
                entries, depth, nodes = dag.build(chunks)
                made = replace(
                    hashed, inline=None, chunks=entries, depth=depth, blocks=nodes, positions=[]
                )
                made.pin = pin
        if made.size != size:
            raise Corruption("slice of a body", f"{size} bytes", f"{made.size} bytes")
        return made

    async def put(
        self,
        bucket: Bucket,
        record: Record,
        condition: Condition | None = None,
        state: State | None = None,
        judge: Judge | None = None,
        seen: Seen | None = None,
    ) -> Outcome | None:
        """Commit ``record`` at its key, with tags or a lock of its own: ``state``, or what
        ``judge`` gives at the commit. ``seen``: what was judged. NoSuchBucket, PreconditionFailed,
        NotFound (If-Match on an absent key), KeyRefused, StateChanged."""
        self._writable(bucket)
        block = encode_record(record)
        cid = cid_of(block)
        body = record.body
        if state or judge is not None:
            change: Change = StatedPut(
                record.key, cid, record.etag, condition, state or State(), judge
            )
        else:
            change = Change(record.key, cid, record.etag, condition)
        if seen is not None:
            change = as_judged(change, seen)
        waiter = self._waiter()
        blocks = [*body.blocks, (cid, block)]
        self.submit_put(bucket, change, blocks, waiter, body.positions)
        return _answer(await waiter)

    def submit_put(
        self,
        bucket: Bucket,
        change: Change,
        blocks: list[tuple[Cid, bytes]],
        waiter: Waiter,
        positions: Sequence[BodyPosition] = (),
    ) -> None:
        """Queue a put; ``waiter`` hears its outcome. Unavailable where it cannot be taken."""
        self._has_room()
        deadline = self.pipeline.deadline()
        self.pipeline.submit(Write(bucket.id, waiter, deadline, [change], blocks, positions))

    async def delete(
        self,
        bucket: Bucket,
        keys: list[bytes],
        conditions: list[Condition | None] | None = None,
    ) -> list[Answer]:
        """Remove keys in one commit; absent keys succeed. One answer a key, in order."""
        judged = conditions if conditions is not None else [None] * len(keys)
        now_ms = self._clock.now_ms()
        pairs = zip(keys, judged, strict=True)
        return await self.remove(bucket, [Removal(key, c, now_ms) for key, c in pairs])

    async def remove(
        self,
        bucket: Bucket,
        removals: Sequence[Removal],
        seen: Sequence[Seen | None] | None = None,
    ) -> list[Answer]:
        """Remove keys, or versions of them, in one commit. One answer each, in order. ``seen``:
        what each was judged by."""
        self._writable(bucket)
        for removal in removals:
            removal.locks_ms = self._watch.past_ms(removal.now_ms)
        waiter = self._waiter()
        deadline = self.pipeline.deadline()
        changes: list[Change] = list(removals)
        if seen is not None:
            changes = list(map(as_judged, removals, seen))
        self.pipeline.submit(Write(bucket.id, waiter, deadline, changes, []))
        answers = await waiter
        if answers and isinstance(answers[0], NoSuchBucket):
            raise answers[0]
        return answers

    async def set_state(
        self,
        bucket: Bucket,
        key: bytes,
        version: str | None,
        new: NewState,
        now_ms: int,
        seen: Seen | None = None,
        check: Check | None = None,
    ) -> Outcome | None:
        """Change the state of a version, or of the current one. ``seen``: what was judged;
        ``check`` may refuse it at the commit. NotFound, NoSuchVersion, IsDeleteMarker, Locked,
        StateChanged."""
        self._writable(bucket)
        waiter = self._waiter()
        change = Restating(key, version, new, self._watch.past_ms(now_ms), check)
        changes = [as_judged(change, seen)]
        self.pipeline.submit(Write(bucket.id, waiter, self.pipeline.deadline(), changes, []))
        return _answer(await waiter)

    def judge_room(self, used: int, most: int, reserve: int) -> None:
        """From ``most`` bytes of segments on nothing is taken that adds more than tree nodes. What
        is left, deletions above all, may take ``reserve`` on top: whoever cleans up is not kept
        from it, and yet the log has a bound."""
        text = f"the segments hold {used} bytes of the {most} that --log-bytes-max allows"
        self.full = text if used >= most else ""
        self.overfull = used >= most + reserve

    def _has_room(self) -> None:
        if self.full:
            raise Unavailable(f"no room for more: {self.full}", limits.FULL_RETRY_S)

    def writable(self, name: str) -> Bucket:
        """NoSuchBucket; Unavailable for a bucket that is read-only. Never waits."""
        bucket = self.bucket(name)
        self._takes_changes(bucket)
        return bucket

    def _writable(self, bucket: Bucket) -> Bucket:
        """As ``newest``; Unavailable for a bucket that is read-only."""
        newest = self.newest(bucket)
        self._takes_changes(newest)
        return newest

    def _takes_changes(self, bucket: Bucket) -> None:
        if bucket.read_only:
            raise Unavailable(f"bucket {bucket.name} is read-only: {bucket.read_only}", 60)
        if self.overfull:
            self._has_room()

    def _waiter(self) -> asyncio.Future[list[Answer]]:
        return asyncio.get_running_loop().create_future()


class _PinningSink:
    """Pins each chunk before it is appended."""

    def __init__(self, segments: Segments, pin: Pin) -> None:
        self._segments = segments
        self._pin = pin

    async def append_body(self, cid: Cid, data: memoryview) -> BodyPosition:
        self._pin.add(cid)
        return await self._segments.append_body(cid, data)

    async def sync_bodies(self, positions: Sequence[BodyPosition]) -> None:
        await self._segments.sync_bodies(positions)


def _answer(answers: list[Answer]) -> Outcome | None:
    if isinstance(answers[0], IngotError):
        raise answers[0]
    return answers[0]


def _away(bucket: Bucket) -> Unavailable:
    return Unavailable(f"the configuration of bucket {bucket.name} cannot be fetched now", 5)
