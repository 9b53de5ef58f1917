"""A store in memory with the semantics of ``ingot.bucket.store.Store``, and what drives an App.

Nothing here waits, so ``run_now`` can step a coroutine to its end without an event loop, and fails
when something suspends that must not.
"""

from __future__ import annotations

import hashlib
import secrets
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

from ingot._speedups import entries
from ingot.body.checksums import one_shot
from ingot.bucket.leaf import Acl, State
from ingot.bucket.model import (
    NULL_VERSION,
    Bucket,
    BucketConfig,
    BucketExists,
    BucketNotEmpty,
    Condition,
    NoSuchBucket,
    NoSuchVersion,
    Outcome,
    Page,
    StateChanged,
)
from ingot.bucket.mutation import Check, Judge, Removal, Seen
from ingot.bucket.part import NoSuchUpload
from ingot.bucket.reading import Found
from ingot.bucket.record import SUMMARY, Record, cid_of, encode_record
from ingot.bucket.versions import Keep, NewState
from ingot.codec.cid import of_chunk
from ingot.errors import IngotError, NotFound, RequestError
from ingot.limits import INLINE_BYTES_MAX
from ingot.messages import Body, BodyStream, Head

T = TypeVar("T")


def run_now(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never has to wait; what it yields for others is a turn."""
    try:
        while work.send(None) is None:
            pass
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    work.close()
    raise AssertionError("suspended")


class FakeBody:
    """A request body that has arrived already; ``reads`` counts who asked for it."""

    def __init__(
        self, data: bytes, piece: int = 1 << 20, taken: bool = True, chunked: bool = False
    ) -> None:
        self.data = data
        self.length: int | None = None if chunked else len(data)
        self.piece = piece
        self.taken = taken
        self.reads = 0
        self._offset = 0

    async def readinto(self, view: memoryview) -> int:
        self.reads += 1
        count = min(len(view), self.piece, len(self.data) - self._offset)
        view[:count] = self.data[self._offset : self._offset + count]
        self._offset += count
        return count

    def take(self) -> bytes | None:
        if not self.taken:
            return None
        self.reads += 1
        self._offset = len(self.data)
        return self.data

    async def read(self, limit: int) -> bytes:
        self.reads += 1
        if len(self.data) > limit:
            raise RequestError("the body is too long")
        self._offset = len(self.data)
        return self.data


class NoUploads:
    """Of a store in which nobody began one."""

    async def find(self, bucket: Bucket, key: bytes, upload_id: str) -> NoReturn:
        raise NoSuchUpload(upload_id)


class FakeStore:
    """Buckets as dictionaries. ``failures`` are raised, one a call, before anything happens."""

    def __init__(self) -> None:
        self.rows: dict[str, Bucket] = {}
        self.uploads = NoUploads()
        self.objects: dict[str, dict[bytes, Record]] = {}
        self.standing: dict[tuple[str, bytes], State] = {}
        self.blocks: dict[bytes, bytes] = {}  # of records that a page named
        self.failures: list[Exception] = []
        self.commits: list[tuple[str, list[bytes]]] = []
        self.pinned: list[Body] = []
        self.before_commit: list[Any] = []  # called once each, between ingest and commit

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    def bucket(self, name: str) -> Bucket:
        self._fail()
        if name not in self.rows:
            raise NoSuchBucket(name)
        return self.rows[name]

    def newest(self, bucket: Bucket) -> Bucket:
        found = self.bucket(bucket.name)
        if found.id != bucket.id:
            raise NoSuchBucket(bucket.name)
        return found

    def buckets(self) -> list[Bucket]:
        self._fail()
        return [bucket for _, bucket in sorted(self.rows.items())]

    def count_of(self, owner: str) -> int:
        return sum(bucket.config.owner == owner for bucket in self.rows.values())

    async def create_bucket(self, name: str, config: BucketConfig) -> Bucket:
        self._fail()
        if name in self.rows:
            raise BucketExists(self.rows[name].config.owner)
        self.rows[name] = Bucket(secrets.token_bytes(16), name, Head(0), config)
        self.objects[name] = {}
        return self.rows[name]

    async def delete_bucket(self, bucket: Bucket) -> None:
        name = self.newest(bucket).name
        if self.objects[name]:
            raise BucketNotEmpty(name)
        del self.rows[name], self.objects[name]

    async def configure(
        self,
        bucket: Bucket,
        document_name: str,
        document: bytes | None,
        check: Callable[[BucketConfig], None] | None = None,
    ) -> None:
        self._fail()
        if self.before_commit:
            self.before_commit.pop(0)()
        bucket, name = self.newest(bucket), bucket.name
        if check is not None:
            check(bucket.config)
        config = bucket.config.with_document(document_name, document)
        self.rows[name] = replace(bucket, config=config)
        self.commits.append((name, [document_name.encode()]))

    async def find(self, bucket: Bucket, key: bytes) -> Record | None:
        return self.objects[bucket.name].get(key)

    async def look(self, bucket: Bucket, key: bytes, version: str | None = None) -> Found | None:
        """No bucket here has versions: an object is its null version."""
        record = self.objects[bucket.name].get(key)
        if record is None or version not in (None, NULL_VERSION):
            return None
        return Found(record, NULL_VERSION, self.states_of(bucket, key))

    async def set_state(
        self,
        bucket: Bucket,
        key: bytes,
        version: str | None,
        new: NewState,
        now_ms: int,
        seen: Seen | None = None,
        check: Check | None = None,
    ) -> None:
        config = self.newest(bucket).config
        if check is not None:
            check(config)
        self._check_seen(bucket, key, seen)
        if key not in self.objects[bucket.name]:
            raise NotFound("no such key")
        if version not in (None, NULL_VERSION):
            raise NoSuchVersion(version)
        place = bucket.name, key
        self.standing[place] = new.on(self.standing.get(place, State()), now_ms)

    def _check_seen(self, bucket: Bucket, key: bytes, seen: Seen | None) -> None:
        if seen is None:
            return
        found = self.states_of(bucket, key) if key in self.objects[bucket.name] else State()
        same_acl = isinstance(seen.acl, Keep) or found.acl == seen.acl
        if not same_acl or (seen.tags is not None and found.tags != seen.tags):
            raise StateChanged("the object's tags or ACL were changed meanwhile")

    async def states(self, bucket: Bucket, page: Page) -> dict[bytes, bytes]:
        """A key stands for the CID of its state."""
        return {key: key for key, _ in page.items if self.states_of(bucket, key)}

    def states_of(self, bucket: Bucket, key: bytes) -> State:
        return self.standing.get((bucket.name, key), State())

    async def acls(self, states: Iterable[bytes]) -> dict[bytes, Acl]:
        found = {cid: state.acl for (_, cid), state in self.standing.items() if state.acl}
        return {cid: found[cid] for cid in states if cid in found}

    async def page(
        self, bucket: Bucket, prefix: bytes, delimiter: bytes, after: bytes | None, limit: int
    ) -> Page:
        """The plainest reading of mst.md section 10."""
        keys = sorted(self.objects[bucket.name])
        skipped = b""
        if after is not None and delimiter and after.startswith(prefix):
            found = after.find(delimiter, len(prefix))
            if found >= 0:
                skipped = after[: found + len(delimiter)]
        items: list[tuple[bytes, bytes | None]] = []
        start = 0 if after is None else bisect_right(keys, after)
        group = b""
        for key in keys[start:]:
            if not key.startswith(prefix) or (skipped and key.startswith(skipped)):
                continue
            if group and key.startswith(group):
                continue
            if len(items) == limit:
                return Page(items, True)
            at = key.find(delimiter, len(prefix)) if delimiter else -1
            if at >= 0:
                group = key[: at + len(delimiter)]
                items.append((group, None))
            else:
                block = block_of(self.objects[bucket.name][key])
                self.blocks[cid_of(block)] = block
                items.append((key, cid_of(block)))
        return Page(items, False)

    async def records(self, cids: list[bytes]) -> AsyncIterator[list[bytes]]:
        """A few at a time, so that short pages have seams too."""
        for at in range(0, len(cids), 3):
            yield [self.blocks[cid] for cid in cids[at : at + 3]]

    async def summaries(self, cids: list[bytes]) -> list[bytes]:
        """Every other one as a store has it in memory, the rest as blocks."""
        found = [self.blocks[cid] for cid in cids]
        found[::2] = entries.summaries(SUMMARY, found[::2])
        return found

    async def ingest(self, stream: BodyStream, algorithms: tuple[str, ...]) -> Body:
        self._fail()
        data = stream.take()
        if data is None:
            pieces = []
            buffer = bytearray(5000)
            while count := await stream.readinto(memoryview(buffer)):
                pieces.append(bytes(buffer[:count]))
            data = b"".join(pieces)
        return body_of(data, algorithms)

    def pin(self, body: Body) -> Body:
        self.pinned.append(body)
        return body

    async def check_body(self, body: Body) -> None:
        self._fail()

    async def put(
        self,
        bucket: Bucket,
        record: Record,
        condition: Condition | None = None,
        state: State | None = None,
        judge: Judge | None = None,
        seen: Seen | None = None,
    ) -> None:
        self._fail()
        if self.before_commit:
            self.before_commit.pop(0)()
        name, config = bucket.name, self.newest(bucket).config
        current = self.objects[name].get(record.key)
        if condition is not None:
            condition.check(None if current is None else current.etag)
        self._check_seen(bucket, record.key, seen)
        self.objects[name][record.key] = record
        if judge is not None:
            state = judge(config)
        self.standing[name, record.key] = state or State()
        self.commits.append((name, [record.key]))

    async def remove(
        self,
        bucket: Bucket,
        removals: list[Removal],
        seen: list[Seen | None],
    ) -> list[Exception | Outcome | None]:
        self._fail()
        if self.before_commit:
            self.before_commit.pop(0)()
        held = self.objects[self.newest(bucket).name]
        answers: list[Exception | Outcome | None] = []
        for removal, judged_by in zip(removals, seen, strict=True):
            key, condition = removal.key, removal.condition or removal.of_version
            current = held.get(key) if removal.version in (None, NULL_VERSION) else None
            try:
                if condition is not None:
                    condition.check(None if current is None else current.etag)
                self._check_seen(bucket, key, judged_by)
            except IngotError as error:
                answers.append(error)
                continue
            if removal.version in (None, NULL_VERSION):
                held.pop(key, None)
            named = removal.version
            answers.append(None if named is None else Outcome(named, False))
        self.commits.append((bucket.name, [removal.key for removal in removals]))
        return answers

    async def read(self, body: Body, start: int, stop: int) -> AsyncIterator[memoryview | bytes]:
        data = body.chunks[0][0] if body.inline is None else body.inline
        for offset in range(start, stop, 1000):
            yield memoryview(data)[offset : min(offset + 1000, stop)]


def block_of(record: Record) -> bytes:
    """The record's block; a body that is not in it is named by a CID, whatever the store keeps."""
    body = record.body
    if body.chunks:
        body = replace(body, chunks=[(of_chunk(record.key), body.size)])
    return encode_record(replace(record, body=body))


def body_of(data: bytes, algorithms: tuple[str, ...] = ()) -> Body:
    """A body; one too large for its record keeps its bytes where a CID would stand."""
    small = len(data) <= INLINE_BYTES_MAX
    return Body(
        size=len(data),
        md5=hashlib.md5(data).digest(),
        sha256=hashlib.sha256(data).digest(),
        inline=data if small else None,
        chunks=[] if small else [(data, len(data))],
        checksums={name: one_shot(name, data) for name in algorithms},
    )
