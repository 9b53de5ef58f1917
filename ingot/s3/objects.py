"""PutObject, GetObject, HeadObject, DeleteObject: the hot path.

A GET whose blocks are at hand, and a PUT up to its commit, run through here without suspending and
with little work: what a plain request does not use is behind a test of one dictionary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingot.bucket.leaf import State
from ingot.bucket.model import Bucket, Condition
from ingot.bucket.mutation import Removal
from ingot.bucket.record import Record
from ingot.credentials import ANONYMOUS
from ingot.errors import IngotError
from ingot.messages import Body, Header, Response
from ingot.s3 import conditions
from ingot.s3.acl_operations import with_acl
from ingot.s3.call import (
    Call,
    Handler,
    asked_version,
    find_object,
    is_settled,
    open_again,
    open_bucket,
    seen,
)
from ingot.s3.deleting import found_by, why_refused
from ingot.s3.errors import S3Error
from ingot.s3.expiration import Expirations, expiration_headers
from ingot.s3.headers import (
    WriteHeaders,
    check_overrides,
    checksum_headers,
    encrypt_by_default,
    encryption_headers,
    object_headers,
    override_headers,
    part_headers,
    state_headers,
    validator_headers,
    write_headers,
)
from ingot.s3.locking import bypasses, judge_of_write, state_of_write, visible
from ingot.s3.payload import VerifiedBody
from ingot.s3.ranges import content_range, parse_range, part_number, part_range
from ingot.s3.versioning import outcome_headers, version_headers

if TYPE_CHECKING:
    from ingot.bucket.store import Store
    from ingot.ports import Clock

READ_CONDITIONS = frozenset(
    (b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since")
)


class ObjectOperations:
    """Operations on one object."""

    def __init__(self, store: Store, clock: Clock, expirations: Expirations) -> None:
        self._store = store
        self._clock = clock
        self._expirations = expirations

    def handlers(self) -> dict[str, Handler]:
        return {
            "PutObject": self.put,
            "GetObject": self.get,
            "HeadObject": self.get,
            "DeleteObject": self.delete,
        }

    async def put(self, call: Call) -> Response:
        store, request = self._store, call.request
        index = request.index
        written = write_headers(index, call.now_ms)
        verified = VerifiedBody(request, call.authenticated)
        condition = None
        if b"if-match" in index or b"if-none-match" in index:
            condition = conditions.for_write(index)
        bucket = open_bucket(store, call)
        state = _state(call, bucket, written)
        if condition is not None:
            found = await store.find(bucket, call.key)
            condition.check(None if found is None else found.etag)
        encrypt_by_default(written.headers, bucket.config)
        body = await store.ingest(verified, verified.algorithms)
        verified.check(body)
        assert body.md5 is not None
        judged, bucket = bucket.config, await open_again(store, call, bucket)
        if not is_settled(call, bucket, judged):
            state = _state(call, bucket, written)
        record = Record(
            call.key,
            body,
            body.md5.hex(),
            self._clock.now_ms(),
            written.headers,
            written.metadata,
            body.checksums,
        )
        judge = judge_of_write(call, bucket, state, record.created_ms)
        outcome = await store.put(
            bucket, record, condition, state, judge, seen(call, bucket, call.key)
        )
        headers = [(b"ETag", b'"%s"' % record.etag.encode())]
        headers += checksum_headers(record)
        if outcome is not None:
            headers += outcome_headers(outcome)
        headers += encryption_headers(record.headers)
        if not bucket.config.plain:
            headers += await self._expirations.headers(bucket, record, state)
        return Response(200, headers)

    async def get(self, call: Call) -> Response:
        """GetObject and HeadObject, which differ in the body alone."""
        request = call.request
        index = request.index
        if call.query:
            if call.account is ANONYMOUS:
                check_overrides(call.query)
            part = call.parameter(b"partNumber")
            if part is not None:
                part_number(part)  # refused before it is told whether there is an object
        bucket = open_bucket(self._store, call)
        rules = None
        if not bucket.config.plain and call.parameter(b"versionId") is None:
            self._keep_learned(call)
            rules = await self._expirations.rules(bucket)
        found = await find_object(self._store, bucket, call)
        record = found.record
        versions = version_headers(bucket, found.version)
        if not READ_CONDITIONS.isdisjoint(index):
            asked = conditions.read_conditions(index, call.now_ms)
            if asked and not conditions.read(asked, record.etag, record.created_ms):
                return Response(304, validator_headers(record) + versions)
        headers = object_headers(record) + versions
        if found.state:
            headers += state_headers(visible(call, bucket, found.state))
        if rules is not None:
            headers += expiration_headers(rules, record, found.state.tags)
        if call.query:
            headers = override_headers(headers, call.query)
        status, start, stop = _selection(call, record)
        if status == 206:
            headers.append((b"Content-Range", content_range(start, stop, record.body.size)))
        if call.query and record.parts and call.parameter(b"partNumber") is not None:
            headers.append((b"x-amz-mp-parts-count", b"%d" % len(record.parts)))
        if index.get(b"x-amz-checksum-mode", b"").upper() == b"ENABLED" and b"range" not in index:
            headers += _checksums(call, record, stop - start)
        if request.method == "HEAD":
            return Response(status, headers, b"", stop - start)
        return self._answer(status, headers, record.body, start, stop)

    def _keep_learned(self, call: Call) -> None:
        """Pin the body of an object that was looked at to judge the request: before its bytes are
        asked for, the rules of the bucket may have to be read, in which others have their turn."""
        learned = call.learned
        if learned is not None and learned.found is not None:
            body = learned.found.record.body
            if body.inline is None:
                self._store.pin(body)

    def _answer(
        self, status: int, headers: list[Header], body: Body, start: int, stop: int
    ) -> Response:
        inline = body.inline
        if inline is not None:
            whole = stop - start == len(inline)
            return Response(status, headers, inline if whole else inline[start:stop])
        if start == stop:
            return Response(status, headers)
        return Response(status, headers, self._store.read(body, start, stop), stop - start)

    async def delete(self, call: Call) -> Response:
        index = call.request.index
        asked = conditions.delete_conditions(
            _text(index.get(b"if-match")),
            _text(index.get(b"x-amz-if-match-last-modified-time")),
            _text(index.get(b"x-amz-if-match-size")),
        )
        bucket = open_bucket(self._store, call)
        version = asked_version(call)
        condition: Condition | None = None
        if asked is not None:
            found = await found_by(self._store, bucket, call.key, version) if asked.looks else None
            condition = conditions.for_delete(asked, found)
            bucket = await open_again(self._store, call, bucket)
        bypass = version is not None and bypasses(call, bucket, call.key)
        marker = None
        if not bucket.config.plain:
            marker = call.access.acls.marker(call, bucket.config)
        removal = Removal(call.key, condition, call.now_ms, version, bypass, marker)
        judged_by = [seen(call, bucket, call.key)]
        [outcome] = await self._store.remove(bucket, [removal], judged_by)
        if isinstance(outcome, IngotError):
            raise await why_refused(self._store, bucket, removal, outcome)
        return Response(204, outcome_headers(outcome))


def _state(call: Call, bucket: Bucket, written: WriteHeaders) -> State | None:
    """What the new version begins with, as far as the request may say so."""
    state = None if written.state is None else state_of_write(call, bucket, written)
    if written.acl or not bucket.config.plain:
        state = with_acl(call, bucket, written, state)
    return state


def _selection(call: Call, record: Record) -> tuple[int, int, int]:
    """Status and the bytes [start, stop) that a read wants."""
    size = record.body.size
    header = call.request.index.get(b"range")
    part = call.parameter(b"partNumber") if call.query else None
    if part is not None:
        if header is not None:
            raise S3Error(
                "InvalidRequest", "Cannot specify both Range header and partNumber query parameter"
            )
        start, stop = part_range(part, size, record.parts)
        return (206 if start < stop else 200), start, stop  # no Content-Range says "no byte"
    if header is not None and conditions.heeds_range(call.request.index, record):
        wanted = parse_range(header, size)
        if wanted is not None:
            return 206, *wanted
    return 200, 0, size


def _checksums(call: Call, record: Record, length: int) -> list[Header]:
    """The checksum of what a read without a range gives: of a part or of the object."""
    part = call.parameter(b"partNumber") if call.query and record.parts else None
    if part is not None:
        return part_headers(record, int(part) - 1)
    return checksum_headers(record) if length == record.body.size else []


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
