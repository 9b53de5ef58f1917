"""CreateMultipartUpload, UploadPart, UploadPartCopy, AbortMultipartUpload.

A part takes the same way in as an object: the same body stream, the same digests, the same checks.
It then stands in the bucket's uploads tree instead of its objects. Which checksums are asked of a
part was declared when the upload was created; where nothing was declared, a client may send any,
and a CRC-64 is kept beside it for the object. ``ingot.s3.completing`` puts the parts together,
``ingot.s3.upload_listing`` shows them.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ingot.bucket.leaf import State
from ingot.bucket.model import Bucket
from ingot.bucket.part import NoSuchUpload, Part, Upload
from ingot.bucket.record import Record
from ingot.limits import PARTS_MAX, PUT_BYTES_MAX
from ingot.messages import Body, Header, Response
from ingot.s3.acl_operations import check_own, with_acl
from ingot.s3.actions import action_of
from ingot.s3.call import (
    Call,
    Handler,
    is_settled,
    named_bucket,
    open_again,
    open_bucket,
    xml_response,
)
from ingot.s3.copy_source import parse_copy_source
from ingot.s3.copying import TOO_LARGE, checksum_algorithm, find_source, source_headers
from ingot.s3.dates import iso, parse_date
from ingot.s3.errors import S3Error
from ingot.s3.expiration import Expirations
from ingot.s3.headers import Index, encrypt_by_default, encryption_headers, write_headers
from ingot.s3.locking import state_of_write
from ingot.s3.payload import DEFAULT_ALGORITHMS, PREFIX, VerifiedBody
from ingot.s3.xml import document, element

if TYPE_CHECKING:
    from ingot.bucket.store import Store
    from ingot.ports import Clock

COMPOSITE: Final = "COMPOSITE"
FULL_OBJECT: Final = "FULL_OBJECT"
CHECKSUM_TYPE: Final = b"x-amz-checksum-type"
COPY_RANGE: Final = b"x-amz-copy-source-range"
INITIATED: Final = b"x-amz-if-match-initiated-time"
DEFAULT_ALGORITHM: Final = DEFAULT_ALGORITHMS[0]  # of what the client declares nothing about

# What each algorithm can be of, the default first: CRCs of neighbours combine, and a hash cannot be
# continued from the hashes of pieces.
_TYPES: Final = {
    "crc32": (COMPOSITE, FULL_OBJECT),
    "crc32c": (COMPOSITE, FULL_OBJECT),
    "crc64nvme": (FULL_OBJECT,),
    "sha1": (COMPOSITE,),
    "sha256": (COMPOSITE,),
}
_RANGE: Final = re.compile(rb"bytes=([0-9]{1,19})-([0-9]{1,19})")


class MultipartOperations:
    """Operations on an open upload and one part of it."""

    def __init__(self, store: Store, clock: Clock, expirations: Expirations) -> None:
        self._store = store
        self._clock = clock
        self._expirations = expirations

    def handlers(self) -> dict[str, Handler]:
        return {
            "CreateMultipartUpload": self.create,
            "UploadPart": self.upload_part,
            "UploadPartCopy": self.upload_part_copy,
            "AbortMultipartUpload": self.abort,
        }

    async def create(self, call: Call) -> Response:
        written = write_headers(call.request.index, call.now_ms)
        algorithm, kind = _declared(call)
        bucket = open_bucket(self._store, call)
        state = with_acl(call, bucket, written, state_of_write(call, bucket, written))
        encrypt_by_default(written.headers, bucket.config)
        account = call.account
        upload = Upload(
            call.key,
            "",
            self._clock.now_ms(),
            account.id,
            account.display_name,
            written.headers,
            written.metadata,
            algorithm,
            kind == COMPOSITE,
            state or State(),
        )
        upload = await self._store.uploads.create(bucket, upload)
        names = f"{element('Bucket', call.bucket)}{element('Key', call.key.decode())}"
        response = xml_response(
            document("InitiateMultipartUploadResult", f"{names}<UploadId>{upload.id}</UploadId>")
        )
        if algorithm:
            response.headers.append((b"x-amz-checksum-algorithm", algorithm.upper().encode()))
            response.headers.append((CHECKSUM_TYPE, kind.encode()))
        response.headers += encryption_headers(upload.headers)
        response.headers += await self._expirations.abort_headers(bucket, upload)
        return response

    async def upload_part(self, call: Call) -> Response:
        store, request = self._store, call.request
        number = part_number(call)
        written = write_headers(request.index, call.now_ms)  # for what it refuses
        check_own(written, request.index)
        verified = VerifiedBody(request, call.authenticated)
        bucket = open_bucket(store, call)
        upload = await open_upload(store, bucket, call)
        shown, algorithms = _part_algorithms(upload, verified)
        body = await store.ingest(verified, algorithms)
        verified.check(body)
        part = Part(body, self._clock.now_ms(), body.checksums)
        bucket = await upload_again(store, call, bucket, upload)
        await store.uploads.put_part(bucket, upload, number, part)
        value = b2a_base64(part.checksums[shown], newline=False)
        headers: list[Header] = [
            (b"ETag", b'"%s"' % part.etag.encode()),
            (PREFIX + shown.encode(), value),
        ]
        return Response(200, headers + encryption_headers(upload.headers))

    async def upload_part_copy(self, call: Call) -> Response:
        store, index = self._store, call.request.index
        source = parse_copy_source(index[b"x-amz-copy-source"])
        number = part_number(call)
        check_own(write_headers(index, call.now_ms), index)  # for what they refuse
        wanted = index.get(COPY_RANGE)
        bounds = None if wanted is None else _parse_range(wanted)
        bucket = open_bucket(store, call)
        upload = await open_upload(store, bucket, call)
        source_bucket, of_source = await find_source(store, call, source)
        found = of_source.record
        start, stop = _bounds(bounds, wanted, found.body.size)
        algorithm = upload.algorithm or DEFAULT_ALGORITHM
        body = self._known(found, start, stop, algorithm)
        if body is None:
            body = await store.slice(found.body, start, stop, (algorithm,))
        else:
            await store.check_body(body)
        part = Part(body, self._clock.now_ms(), body.checksums)
        bucket = await upload_again(store, call, bucket, upload)
        await store.uploads.put_part(bucket, upload, number, part)
        checksum = ""
        if upload.algorithm:
            value = b2a_base64(part.checksums[algorithm], newline=False).decode()
            checksum = element(f"Checksum{algorithm.upper()}", value)
        response = xml_response(
            document(
                "CopyPartResult",
                f"<LastModified>{iso(part.created_ms)}</LastModified>"
                f"<ETag>&quot;{part.etag}&quot;</ETag>{checksum}",
            )
        )
        response.headers += source_headers(source_bucket, of_source)
        response.headers += encryption_headers(upload.headers)
        return response

    def _known(self, found: Record, start: int, stop: int, algorithm: str) -> Body | None:
        """The body of a whole object all of whose digests are known: nothing need be read."""
        body = found.body
        if (start, stop) != (0, body.size) or body.md5 is None:
            return None
        if found.composite or algorithm not in found.checksums:
            return None
        return self._store.pin(replace(body, checksums={algorithm: found.checksums[algorithm]}))

    async def abort(self, call: Call) -> Response:
        initiated = _initiated(call)
        bucket, upload = await open_to_initiator(self._store, call)
        if initiated is not None and initiated != upload.created_ms // 1000:
            raise S3Error("PreconditionFailed", Condition=INITIATED.decode())
        await self._store.uploads.abort(bucket, upload)
        return Response(204)


async def open_upload(store: Store, bucket: Bucket, call: Call) -> Upload:
    """The request's upload, and the right to write its parts: NoSuchUpload, AccessDenied."""
    upload = await store.uploads.find(bucket, call.key, upload_id(call))
    _check_upload(call, bucket, upload)
    return upload


async def upload_again(store: Store, call: Call, bucket: Bucket, upload: Upload) -> Bucket:
    """As ``open_again``, the right to go on with the upload with it."""
    newest = await open_again(store, call, bucket)
    if not is_settled(call, newest, bucket.config):
        _check_upload(call, newest, upload)
    return newest


def _check_upload(call: Call, bucket: Bucket, upload: Upload) -> None:
    if call.access.acls.count(bucket.config):
        if not call.access.may_continue(call, bucket, action_of(call.operation), upload):
            raise S3Error("AccessDenied")


async def open_to_initiator(store: Store, call: Call) -> tuple[Bucket, Upload]:
    """The request's bucket and upload, of a request that looks at the upload or ends it. Of one
    that is not there those hear who might do so to any other."""
    bucket = named_bucket(store, call)
    try:
        upload = await store.uploads.find(bucket, call.key, upload_id(call))
    except NoSuchUpload:
        open_bucket(store, call)
        raise
    if not call.access.may_continue(call, bucket, action_of(call.operation), upload):
        raise S3Error("AccessDenied")
    return bucket, upload


def upload_id(call: Call) -> str:
    """The request's; "" for one that an answer could not even repeat. It names no upload either."""
    text = (call.parameter(b"uploadId") or b"").decode("utf-8", "replace")
    return text if text.isprintable() else ""


def part_number(call: Call) -> int:
    text = call.parameter(b"partNumber") or b""
    number = int(text) if text.isdigit() and len(text) <= 10 else 0
    if not 1 <= number <= PARTS_MAX:
        raise S3Error(
            "InvalidArgument",
            f"Part number must be an integer between 1 and {PARTS_MAX}, inclusive",
            ArgumentName="partNumber",
            ArgumentValue=text.decode("utf-8", "replace"),
        )
    return number


def type_mismatch(expected: str, found: str) -> S3Error:
    return S3Error(
        "InvalidRequest",
        f"Checksum Type mismatch occurred, expected checksum Type: {expected or 'null'}, actual "
        f"checksum Type: {found or 'null'}",
    )


def checksum_type(index: Index) -> str | None:
    """The type that a header names."""
    value = index.get(CHECKSUM_TYPE)
    if value is None:
        return None
    kind = value.decode("latin-1").upper()
    if kind not in (COMPOSITE, FULL_OBJECT):
        raise S3Error("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")
    return kind


def _declared(call: Call) -> tuple[str, str]:
    """The algorithm and type of the object's checksum to be; "" and the default where the client
    leaves it to us."""
    kind = checksum_type(call.request.index)
    algorithm = checksum_algorithm(call)
    if algorithm is None:
        if kind is not None:
            raise S3Error(
                "InvalidRequest",
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm "
                "header.",
            )
        return "", FULL_OBJECT
    if kind is None:
        return algorithm, _TYPES[algorithm][0]
    if kind not in _TYPES[algorithm]:
        raise S3Error(
            "InvalidRequest",
            f"The {kind} checksum type cannot be used with the {algorithm} checksum algorithm.",
        )
    return algorithm, kind


def _part_algorithms(upload: Upload, verified: VerifiedBody) -> tuple[str, tuple[str, ...]]:
    """The checksum to answer with, and those to compute of a part."""
    given = "" if verified.algorithms is DEFAULT_ALGORITHMS else verified.algorithms[0]
    declared = upload.algorithm
    if not declared:
        if given in ("", DEFAULT_ALGORITHM):
            return DEFAULT_ALGORITHM, DEFAULT_ALGORITHMS
        return given, (given, DEFAULT_ALGORITHM)
    if given not in ("", declared) or (upload.composite and not given):
        raise type_mismatch(declared, given)
    return declared, (declared,)


def _parse_range(value: bytes) -> tuple[int, int]:
    """First and last byte; no other form of a range will do."""
    found = _RANGE.fullmatch(value)
    if found is not None and int(found[1]) <= int(found[2]):
        return int(found[1]), int(found[2])
    raise _bad_range(
        "The x-amz-copy-source-range value must be of the form bytes=first-last where first and "
        "last are the zero-based offsets of the first and last bytes to copy",
        value,
    )


def _bounds(bounds: tuple[int, int] | None, header: bytes | None, size: int) -> tuple[int, int]:
    """The bytes [start, stop) of a source of ``size``."""
    start, stop = 0, size
    if bounds is not None:
        assert header is not None
        start, stop = bounds[0], bounds[1] + 1
        if stop > size:
            raise _bad_range(
                f"Range specified is not valid for source object of size: {size}", header
            )
    if stop - start > PUT_BYTES_MAX:
        raise S3Error("InvalidRequest", TOO_LARGE)
    return start, stop


def _bad_range(message: str, value: bytes) -> S3Error:
    return S3Error(
        "InvalidArgument",
        message,
        ArgumentName=COPY_RANGE.decode(),
        ArgumentValue=value.decode("latin-1"),
    )


def _initiated(call: Call) -> int | None:
    """Unix seconds at which the upload must have been created. A time in the future counts as
    absent, as in all conditions."""
    value = call.request.index.get(INITIATED)
    if value is None:
        return None
    text = value.decode("latin-1")
    seconds = parse_date(text)
    if seconds is None:
        raise S3Error("InvalidArgument", ArgumentName=INITIATED.decode(), ArgumentValue=text)
    return None if seconds > call.now_ms // 1000 else seconds
