"""CopyObject: a new record that refers to an existing body. No byte of the object moves.

A copy's checksum is of the whole object: where the source's is of its parts' checksums, CRCs are
combined. Where that cannot be, or the client names a checksum that the source does not have, the
body is taken in again, as an upload of itself, because only that reads all of it, with bounded
memory and off the loop.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ingot.bucket.assembly import whole_checksums
from ingot.bucket.leaf import State
from ingot.bucket.record import Record
from ingot.bucket.slices import StoredBody
from ingot.errors import Corruption
from ingot.limits import PUT_BYTES_MAX
from ingot.messages import Header, Response
from ingot.s3 import conditions
from ingot.s3.acl_operations import with_acl
from ingot.s3.call import (
    NO_TAGS,
    Call,
    Handler,
    check_expected,
    check_right,
    is_settled,
    learn_object,
    look,
    no_such_key,
    no_such_version,
    open_again,
    open_bucket,
    require,
    seen,
    version_is_well_formed,
)
from ingot.s3.copy_source import CopySource, parse_copy_source
from ingot.s3.dates import iso
from ingot.s3.errors import S3Error
from ingot.s3.expiration import Expirations
from ingot.s3.headers import (
    ALGORITHMS,
    OWN_STORED,
    REDIRECT_STORED,
    STORAGE_CLASS,
    WriteHeaders,
    checksum_texts,
    checksum_type,
    encrypt_by_default,
    encryption_headers,
    write_headers,
)
from ingot.s3.locking import judge_of_write, state_of_write
from ingot.s3.versioning import outcome_headers
from ingot.s3.xml import document

if TYPE_CHECKING:
    from ingot.bucket.model import Bucket
    from ingot.bucket.reading import Found
    from ingot.bucket.store import Store
    from ingot.ports import Clock

TO_ITSELF: Final = (
    "This copy request is illegal because it is trying to copy an object to itself without "
    "changing the object's metadata, storage class, website redirect location or encryption "
    "attributes."
)
OF_A_MARKER: Final = (
    "The source of a copy request may not specifically refer to a delete marker by version id."
)
TOO_LARGE: Final = (
    f"The specified copy source is larger than the maximum allowable size for a copy source: "
    f"{PUT_BYTES_MAX}"
)


class CopyOperations:
    """CopyObject."""

    def __init__(self, store: Store, clock: Clock, expirations: Expirations) -> None:
        self._store = store
        self._clock = clock
        self._expirations = expirations

    def handlers(self) -> dict[str, Handler]:
        return {"CopyObject": self.copy}

    async def copy(self, call: Call) -> Response:
        store, index = self._store, call.request.index
        source = parse_copy_source(index[b"x-amz-copy-source"])
        replaces = _directive(call, b"x-amz-metadata-directive")
        retags = _directive(call, b"x-amz-tagging-directive")
        written = write_headers(index, call.now_ms)
        algorithm = checksum_algorithm(call)
        condition = conditions.for_write(index)
        if not retags:
            # What the header says is not stored, and what is, is not known yet.
            call.request_tags = NO_TAGS
            if written.state is not None:
                written.state = replace(written.state, tags={})
        bucket = open_bucket(store, call)
        state = with_acl(call, bucket, written, state_of_write(call, bucket, written))
        source_bucket, of_source = await find_source(store, call, source)
        found = of_source.record
        if found.body.size > PUT_BYTES_MAX:
            raise S3Error("InvalidRequest", TOO_LARGE)
        changes = replaces or retags or written.encrypted or algorithm is not None
        changes = changes or REDIRECT_STORED in written.headers or STORAGE_CLASS in index
        if not changes and (source.bucket, source.key) == (call.bucket, call.key):
            if source.version is None and bucket.config.versioning is None:
                raise S3Error("InvalidRequest", TO_ITSELF)
        if condition is not None:
            current = await store.find(bucket, call.key)
            condition.check(None if current is None else current.etag)
        encrypt_by_default(written.headers, bucket.config)
        record = self._record(call, found, written, replaces)
        if record.composite:
            _make_whole(record)
        if record.composite or (algorithm is not None and algorithm not in record.checksums):
            await self._take_in_again(record, algorithm or next(iter(record.checksums)))
        else:
            await store.check_body(record.body)
        tags = None
        if not retags:
            tags = await _copied_tags(store, call, bucket, source_bucket, source, of_source)
        judged, bucket = bucket.config, await open_again(store, call, bucket)
        if not is_settled(call, bucket, judged):
            if tags:
                require(call, bucket, "PutObjectTagging", call.key)
            state = with_acl(call, bucket, written, state_of_write(call, bucket, written))
        if tags is not None:
            state = replace(state or State(), tags=tags)
        judge = judge_of_write(call, bucket, state, record.created_ms)
        outcome = await store.put(
            bucket, record, condition, state, judge, seen(call, bucket, call.key)
        )
        response = Response(200, [(b"Content-Type", b"application/xml")], _result(record))
        response.headers += outcome_headers(outcome)
        response.headers += source_headers(source_bucket, of_source)
        response.headers += encryption_headers(record.headers)
        if not bucket.config.plain:
            response.headers += await self._expirations.headers(bucket, record, state)
        return response

    def _record(self, call: Call, found: Record, written: WriteHeaders, replaces: bool) -> Record:
        """The source was pinned and stays so for as long as its copy is under way, so that nothing
        reclaims the chunks which the new record is about to name."""
        return Record(
            call.key,
            found.body,
            found.etag,
            self._clock.now_ms(),
            written.headers if replaces else _kept_headers(found, written),
            written.metadata if replaces else found.metadata,
            found.checksums,
            found.composite,
            found.parts,
            part_checksums=found.part_checksums,
        )

    async def _take_in_again(self, record: Record, algorithm: str) -> None:
        size = record.body.size
        stream = StoredBody(self._store.read(record.body, 0, size), size)
        body = await self._store.ingest(stream, (algorithm,))
        if body.size != size or body.md5 is None:
            raise Corruption("copy source", f"{size} bytes", f"{body.size} bytes")
        record.body, record.etag = body, body.md5.hex()
        record.checksums, record.composite = body.checksums, False
        record.parts, record.part_checksums = [], {}


def _make_whole(record: Record) -> None:
    """Checksums of the whole object, where those of its parts tell them. Its ETag stays that of an
    upload in parts: its MD5 nobody knows."""
    whole = whole_checksums(record)
    if whole is not None:
        record.checksums, record.composite = whole, False


async def _copied_tags(
    store: Store,
    call: Call,
    bucket: Bucket,
    source_bucket: Bucket,
    source: CopySource,
    found: Found,
) -> dict[str, str]:
    """The source's tags. Whoever copies them must be allowed to read them, and to give them to the
    object in ``bucket``: tags may open it to others."""
    tags = found.state.tags
    if tags:
        action = "GetObjectTagging" if source.version is None else "GetObjectVersionTagging"
        require(call, source_bucket, action, source.key)
        call.request_tags = tags
        await learn_object(store, call, bucket)
        check_right(call, bucket)
        require(call, bucket, "PutObjectTagging", call.key)
    return tags


def _kept_headers(found: Record, written: WriteHeaders) -> dict[str, str]:
    """The source's, but for what is the copy's own: its encryption and where it redirects to."""
    kept = {name: value for name, value in found.headers.items() if name not in OWN_STORED}
    return kept | {name: written.headers[name] for name in OWN_STORED if name in written.headers}


async def find_source(store: Store, call: Call, source: CopySource) -> tuple[Bucket, Found]:
    """The bucket and the version that a copy reads, with the right to read it and on the client's
    conditions. Its body is pinned for as long as it is held."""
    index = call.request.index
    await call.access.read_policy(call.documents, store.bucket(source.bucket))
    bucket = store.bucket(source.bucket)
    check_expected(bucket, call, b"x-amz-source-expected-bucket-owner")
    action = "GetObject" if source.version is None else "GetObjectVersion"
    await call.access.learn(store, call, bucket, source.key, source.version, action)
    require(call, bucket, action, source.key)
    version = source.version
    if version is not None and not version_is_well_formed(version):
        raise no_such_version(source.key, version)
    of_source = await look(store, bucket, call, source.key, version)
    if of_source is None and version is not None:
        raise no_such_version(source.key, version)
    if of_source is None or (version is None and of_source.record.delete_marker):
        raise no_such_key(call, bucket, source.key)
    found = of_source.record
    if found.delete_marker:
        raise S3Error("InvalidRequest", OF_A_MARKER)
    store.pin(found.body)
    asked = conditions.read_conditions(index, call.now_ms, conditions.COPY_PREFIX)
    if asked:
        conditions.read(asked, found.etag, found.created_ms)
    return bucket, of_source


def source_headers(bucket: Bucket, found: Found) -> list[Header]:
    """The header that names the version which was copied, of a bucket with versions."""
    if bucket.config.versioning is None:
        return []
    return [(b"x-amz-copy-source-version-id", found.version.encode())]


def _directive(call: Call, name: bytes) -> bool:
    """Whether the copy takes the request's own values instead of the source's."""
    value = call.request.index.get(name, b"COPY")
    if value not in (b"COPY", b"REPLACE"):
        raise S3Error(
            "InvalidArgument",
            "Unknown metadata directive."
            if name == b"x-amz-metadata-directive"
            else "Unknown tagging directive.",
            ArgumentName=name.decode(),
            ArgumentValue=value.decode("latin-1"),
        )
    return value == b"REPLACE"


def checksum_algorithm(call: Call) -> str | None:
    """The checksum that the object is to have; None where the client leaves it to us."""
    value = call.request.index.get(b"x-amz-checksum-algorithm")
    if value is None:
        return None
    name = value.decode("latin-1").lower()
    if name not in ALGORITHMS:
        raise S3Error(
            "InvalidRequest",
            "Checksum algorithm provided is unsupported. Please try again with any of the valid "
            "types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]",
        )
    return name


def _result(record: Record) -> bytes:
    texts = "".join(
        f"<Checksum{name.upper()}>{value}</Checksum{name.upper()}>"
        for name, value in checksum_texts(record)
    )
    if texts:
        texts += f"<ChecksumType>{checksum_type(record)}</ChecksumType>"
    return document(
        "CopyObjectResult",
        f"<LastModified>{iso(record.created_ms)}</LastModified>"
        f"<ETag>&quot;{record.etag}&quot;</ETag>{texts}",
    )
