"""PutObject, GetObject, HeadObject, DeleteObject: the hot path.

A GET whose blocks are at hand, and a PUT up to its commit, run through here without suspending and
with little work: what a plain request does not use is behind a test of one dictionary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingot.bucket.model import Condition
from ingot.bucket.record import Record
from ingot.errors import IngotError
from ingot.messages import Body, Header, Response
from ingot.s3 import conditions
from ingot.s3.call import (
    Call,
    Handler,
    find_record,
    no_such_version,
    open_bucket,
    version_is_well_formed,
)
from ingot.s3.errors import S3Error
from ingot.s3.headers import (
    NO_LOCK,
    SSE,
    checksum_headers,
    object_headers,
    override_headers,
    validator_headers,
    write_headers,
)
from ingot.s3.payload import VerifiedBody
from ingot.s3.ranges import content_range, parse_range, part_range

if TYPE_CHECKING:
    from ingot.bucket.store import Store
    from ingot.ports import Clock

READ_CONDITIONS = frozenset(
    (b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since")
)


class ObjectOperations:
    """Operations on one object."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

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
        if written.lock:
            raise S3Error("InvalidRequest", NO_LOCK)
        if condition is not None:
            found = await store.find(bucket, call.key)
            condition.check(None if found is None else found.etag)
        body = await store.ingest(verified, verified.algorithms)
        verified.check(body)
        assert body.md5 is not None
        record = Record(
            call.key,
            body,
            body.md5.hex(),
            self._clock.now_ms(),
            written.headers,
            written.metadata,
            body.checksums,
        )
        await store.put(call.bucket, record, condition)
        headers = [(b"ETag", b'"%s"' % record.etag.encode())]
        headers += checksum_headers(record)
        if written.encrypted:
            headers.append((SSE, b"AES256"))
        return Response(200, headers)

    async def get(self, call: Call) -> Response:
        """GetObject and HeadObject, which differ in the body alone."""
        request = call.request
        index = request.index
        bucket = open_bucket(self._store, call)
        record = await find_record(self._store, bucket, call)
        if not READ_CONDITIONS.isdisjoint(index):
            asked = conditions.read_conditions(index, call.now_ms)
            if asked and not conditions.read(asked, record.etag, record.created_ms):
                return Response(304, validator_headers(record))
        headers = object_headers(record)
        if call.query:
            headers = override_headers(headers, call.query)
        status, start, stop = _selection(call, record)
        if status == 206:
            headers.append((b"Content-Range", content_range(start, stop, record.body.size)))
            if record.parts and call.parameter(b"partNumber") is not None:
                headers.append((b"x-amz-mp-parts-count", b"%d" % len(record.parts)))
        if b"x-amz-checksum-mode" in index and stop - start == record.body.size:
            if index[b"x-amz-checksum-mode"].upper() == b"ENABLED" and b"range" not in index:
                headers += checksum_headers(record)
        if request.method == "HEAD":
            return Response(status, headers, b"", stop - start)
        return self._answer(status, headers, record.body, start, stop)

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
        version = call.parameter(b"versionId") if call.query else None
        if version is not None and version != b"null":
            name = version.decode("latin-1")
            if not version_is_well_formed(name):
                raise no_such_version(call.key, name)
            return Response(204, [(b"x-amz-version-id", version)])
        condition: Condition | None = None
        if asked is not None:
            found = await self._store.find(bucket, call.key) if asked.looks else None
            condition = conditions.for_delete(asked, found)
        results = await self._store.delete(
            call.bucket, [call.key], None if condition is None else [condition]
        )
        if isinstance(results[0], IngotError):
            raise results[0]
        return Response(204)


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
        return (206 if size else 200), start, stop
    if header is not None:
        wanted = parse_range(header, size)
        if wanted is not None:
            return 206, *wanted
    return 200, 0, size


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
