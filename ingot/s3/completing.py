"""CompleteMultipartUpload: parts become an object, in one commit that copies no byte of them.

What the client lists is judged on the parts as they are read; the commit then happens only if
these same parts still stand. Where one was replaced in between, everything is judged again. A
client that asks again, because it never heard the answer, hears the same one.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple

from ingot.body.checksums import to_text
from ingot.bucket.assembly import assemble
from ingot.bucket.model import Bucket, Outcome, StateChanged
from ingot.bucket.part import Completed, NoSuchUpload, Part, PartsChanged, Upload
from ingot.bucket.record import Record
from ingot.errors import Unavailable
from ingot.limits import (
    COMPLETE_ENTRIES_BYTES,
    COMPLETE_TRIES,
    OBJECT_BYTES_MAX,
    PART_BYTES_MIN,
    PARTS_MAX,
)
from ingot.messages import Header, Request, Response
from ingot.s3 import conditions
from ingot.s3.call import (
    Call,
    Handler,
    bucket_url,
    open_again,
    open_bucket,
    seen,
    xml_response,
)
from ingot.s3.errors import S3Error
from ingot.s3.expiration import Expirations
from ingot.s3.headers import ALGORITHMS, Index, encryption_headers
from ingot.s3.locking import judge_of_write
from ingot.s3.multipart import (
    COMPOSITE,
    FULL_OBJECT,
    checksum_type,
    open_upload,
    type_mismatch,
    upload_again,
    upload_id,
)
from ingot.s3.payload import (
    NO_VALUES,
    PREFIX,
    SDK_ALGORITHM,
    SIZES,
    algorithm_of,
    parse_base64,
    parse_checksum,
)
from ingot.s3.versioning import outcome_headers
from ingot.s3.xml import Element, document, element, malformed, parse_in_steps, url_encode

if TYPE_CHECKING:
    from ingot.bucket.store import Store
    from ingot.ports import Clock

OBJECT_SIZE: Final = b"x-amz-mp-object-size"
PARTS_GAP: Final = 8  # a part takes a tenth of a millisecond to read, to find one takes some
ELEMENTS_A_PART: Final = 12  # itself, its number, its ETag, a checksum of every kind there is
_CHECKSUM_ELEMENTS: Final = {f"Checksum{name.upper()}": name for name in ALGORITHMS}


class Wanted(NamedTuple):
    """One part of the list, as the client names it."""

    number: int
    etag: str
    checksums: tuple[tuple[str, str], ...]  # (algorithm, base64)


class Promises(NamedTuple):
    """What the request's head says of the object to be; None where it says nothing."""

    size: int | None
    kind: str | None
    algorithm: str
    digest: bytes

    def check(self, upload: Upload, record: Record) -> None:
        """Raise unless ``record`` is all that was promised."""
        kind = COMPOSITE if upload.composite else FULL_OBJECT
        if self.kind is not None and self.kind != kind:
            raise S3Error(
                "InvalidRequest",
                f"The upload was created using the {kind} checksum mode. The complete request must "
                "use the same checksum mode.",
            )
        if self.size is not None and self.size != record.body.size:
            raise S3Error(
                "InvalidRequest",
                f"The provided 'x-amz-mp-object-size' header value {self.size} does not match what "
                f"was computed: {record.body.size}",
            )
        if not self.algorithm:
            return
        if self.algorithm not in record.checksums:
            raise type_mismatch(upload.algorithm, self.algorithm)
        if record.checksums[self.algorithm] != self.digest:
            raise S3Error(
                "BadDigest",
                f"The {self.algorithm.upper()} you specified did not match the calculated "
                "checksum.",
            )


class CompleteOperations:
    """CompleteMultipartUpload."""

    def __init__(self, store: Store, clock: Clock, expirations: Expirations) -> None:
        self._store = store
        self._clock = clock
        self._expirations = expirations

    def handlers(self) -> dict[str, Handler]:
        return {"CompleteMultipartUpload": self.complete}

    async def complete(self, call: Call) -> Response:
        index = call.request.index
        promises = _promises(index)
        condition = conditions.for_write(index)
        bucket = open_bucket(self._store, call)
        body = await call.documents.read(
            call,
            entries_bytes=COMPLETE_ENTRIES_BYTES,
            request=_without_checksums(call.request),
        )
        if not body:
            raise malformed()
        wanted = await call.documents.parse(call, body, _parse_in_steps(body))
        asked = _digest(wanted)
        uploads = self._store.uploads
        for _ in range(COMPLETE_TRIES):
            bucket = await open_again(self._store, call, bucket)
            try:
                upload = await open_upload(self._store, bucket, call)
            except NoSuchUpload:
                before = await uploads.completed(bucket, call.key, upload_id(call))
                if before is None or before.asked != asked:
                    raise
                response = _answer(call, before)
                response.headers += await self._of_object(bucket, call.key, before)
                return response
            if condition is not None:  # who cannot succeed has no parts read
                current = await self._store.find(bucket, call.key)
                condition.check(None if current is None else current.etag)
            chosen = await self._choose(bucket, upload, wanted)
            record = assemble(upload, [part for _, part in chosen], self._clock.now_ms())
            promises.check(upload, record)
            again = await upload_again(self._store, call, bucket, upload)
            if again.config is not bucket.config:
                continue  # reading the parts took its time: what may be done is judged again
            try:
                state = upload.state
                judge = judge_of_write(call, bucket, state, record.created_ms)
                judged_by = seen(call, bucket, call.key)
                done, outcome = await uploads.complete(
                    bucket, upload, chosen, record, asked, condition, state, judge, judged_by
                )
            except (NoSuchUpload, PartsChanged, StateChanged):
                continue  # another request was first: see what it left
            response = _answer(call, done)
            response.headers += outcome_headers(outcome) + encryption_headers(record.headers)
            if not bucket.config.plain:
                response.headers += await self._expirations.headers(bucket, record, state)
            return response
        raise Unavailable("the upload or its object is being changed again and again")

    async def _of_object(self, bucket: Bucket, key: bytes, before: Completed) -> list[Header]:
        """The headers about the object which the upload became, if that is still current: the
        marker was written before anybody knew its version."""
        found = await self._store.look(bucket, key)
        if found is None or found.record.created_ms != before.completed_ms:
            return []
        if found.record.etag != before.etag:
            return []
        headers = outcome_headers(Outcome(found.version, False))
        headers += encryption_headers(found.record.headers)
        return headers + await self._expirations.headers(bucket, found.record, found.state)

    async def _choose(
        self, bucket: Bucket, upload: Upload, wanted: Sequence[Wanted]
    ) -> list[tuple[int, Part]]:
        """The parts of the list, each as it was named and large enough."""
        standing: dict[int, Part] = {}
        for first, last in _runs([each.number for each in wanted]):
            found, _ = await self._store.uploads.parts(bucket, upload, first - 1, last - first + 1)
            standing.update(found)
        chosen: list[tuple[int, Part]] = []
        for each in wanted:
            if upload.composite and not each.checksums:
                raise S3Error(
                    "InvalidRequest",
                    f"The upload was created using a {upload.algorithm} checksum. The complete "
                    "request must include the checksum for each part. It was missing for part "
                    f"{each.number} in the request.",
                )
            part = standing.get(each.number)
            if part is None or not _is_meant(each, part):
                raise S3Error(
                    "InvalidPart",
                    UploadId=upload.id,
                    PartNumber=str(each.number),
                    ETag=each.etag,
                )
            chosen.append((each.number, part))
        for number, part in chosen[:-1]:
            if part.body.size < PART_BYTES_MIN:
                raise S3Error(
                    "EntityTooSmall",
                    ProposedSize=str(part.body.size),
                    MinSizeAllowed=str(PART_BYTES_MIN),
                    PartNumber=str(number),
                    ETag=part.etag,
                )
        size = sum([part.body.size for _, part in chosen])
        if size > OBJECT_BYTES_MAX:
            raise S3Error(
                "EntityTooLarge", ProposedSize=str(size), MaxSizeAllowed=str(OBJECT_BYTES_MAX)
            )
        return chosen


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of what is read at once, of numbers in order: others than these are read with
    them only where that costs less than to look anew."""
    first = last = numbers[0]
    for number in numbers[1:]:
        if number - last > PARTS_GAP:
            yield first, last
            first = number
        last = number
    yield first, last


def _is_meant(wanted: Wanted, part: Part) -> bool:
    """InvalidArgument where what is said to be its checksum is none, or are several; BadDigest for
    one of an algorithm that the part came without."""
    if wanted.etag != part.etag:
        return False
    if not wanted.checksums:
        return True
    name, value = wanted.checksums[0]
    digest = parse_base64(value.encode(), SIZES[name])
    if digest is None or len(wanted.checksums) > 1:
        several = "".join(f"{name.upper()}:{value};" for name, value in wanted.checksums)
        raise S3Error(
            "InvalidArgument",
            "Invalid Base64 or multiple checksums present in request",
            ArgumentName="Checksum",
            ArgumentValue=several if len(wanted.checksums) > 1 else value,
        )
    if name not in part.checksums:
        raise S3Error(
            "BadDigest",
            f"The {name} you specified for part {wanted.number} did not match what we received.",
        )
    return part.checksums[name] == digest


# -- the request --------------------------------------------------------------------------------


def _promises(index: Index) -> Promises:
    size = index.get(OBJECT_SIZE)
    if size is not None and not (size.isdigit() and len(size) <= 19):
        negative = size[:1] == b"-" and size[1:].isdigit()
        fault = "less than zero" if negative else "invalid"
        shown = size.decode("latin-1")
        message = f"Value for x-amz-mp-object-size header is {fault}: '{shown}'"
        raise S3Error("InvalidRequest", message)
    names = [name for name in index if _is_checksum(name)]
    if len(names) > 1:
        raise S3Error(
            "InvalidRequest",
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        )
    algorithm, digest = "", b""
    for name in names:
        algorithm = algorithm_of(name)
        # A composite checksum is told with its number of parts, "digest-3", or without.
        value, dash, parts = index[name].partition(b"-")
        if dash and not parts.isdigit():
            value = index[name]  # which is none
        digest = parse_checksum(name, algorithm, value, "header")
    kind = checksum_type(index)
    return Promises(None if size is None else int(size), kind, algorithm, digest)


def _is_checksum(name: bytes) -> bool:
    return name.startswith(PREFIX) and name not in NO_VALUES


def _without_checksums(request: Request) -> Request:
    """The request as one whose checksum headers are not of its body: here they are the object's."""
    index = {k: v for k, v in request.index.items() if not _is_checksum(k) and k != SDK_ALGORITHM}
    return Request(
        request.method,
        request.target,
        request.headers,
        index,
        request.body,
        request.peer,
        request.secure,
    )


def _parse_in_steps(body: bytes) -> Generator[None, None, list[Wanted]]:
    """The parts, at least one, in ascending order."""
    most = PARTS_MAX * ELEMENTS_A_PART + 1
    wanted: list[Wanted] = []

    def take(node: Element) -> None:
        if node.name == "Part":
            wanted.append(_wanted(node))

    yield from parse_in_steps(body, "CompleteMultipartUpload", most, take)
    if not 1 <= len(wanted) <= PARTS_MAX:
        raise malformed()
    for each in wanted:
        if each.number < 1:
            raise S3Error(
                "InvalidArgument",
                "PartNumber must be >= 1",
                ArgumentName="PartNumber",
                ArgumentValue=str(each.number),
            )
    numbers = [each.number for each in wanted]
    if any(second <= first for first, second in zip(numbers, numbers[1:], strict=False)):
        raise S3Error("InvalidPartOrder")
    return wanted


def _wanted(node: Element) -> Wanted:
    number, etag, checksums = "", None, []
    for child in node.children:
        text = child.text.strip()
        if child.name == "PartNumber":
            number = text
        elif child.name == "ETag":
            etag = text.strip('"')
        elif child.name in _CHECKSUM_ELEMENTS and text:
            checksums.append((_CHECKSUM_ELEMENTS[child.name], text))
    digits = number.removeprefix("-")
    if etag is None or not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        raise malformed()
    return Wanted(int(number), etag, tuple(checksums))


def _digest(wanted: Sequence[Wanted]) -> bytes:
    """What tells two lists of parts apart."""
    return sha256("".join([f"{each.number}:{each.etag}\n" for each in wanted]).encode()).digest()


# -- the answer ---------------------------------------------------------------------------------


def _answer(call: Call, done: Completed) -> Response:
    suffix = f"-{done.parts}" if done.composite else ""
    checksums = "".join(
        element(f"Checksum{name.upper()}", to_text(digest) + suffix)
        for name, digest in done.checksums.items()
    )
    kind = COMPOSITE if done.composite else FULL_OBJECT
    return xml_response(
        document(
            "CompleteMultipartUploadResult",
            f"{element('Location', f'{bucket_url(call)}/{url_encode(call.key)}')}"
            f"{element('Bucket', call.bucket)}{element('Key', call.key.decode())}"
            f"<ETag>&quot;{done.etag}&quot;</ETag>{checksums}"
            f"<ChecksumType>{kind}</ChecksumType>",
        )
    )


assert frozenset(ALGORITHMS) == frozenset(SIZES)
