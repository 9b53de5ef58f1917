"""GetObjectAttributes: what is known of an object, without its bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ingot.body.checksums import to_text
from ingot.bucket.record import Record
from ingot.messages import Response
from ingot.s3.call import (
    Call,
    Handler,
    find_object,
    modified,
    open_bucket,
    require,
    xml_response,
)
from ingot.s3.errors import S3Error
from ingot.s3.headers import checksum_texts, checksum_type, part_sums
from ingot.s3.listing import INTEGER_MAX, parse_limit
from ingot.s3.versioning import version_headers
from ingot.s3.xml import boolean, document, element

if TYPE_CHECKING:
    from ingot.bucket.store import Store

ATTRIBUTES: Final = b"x-amz-object-attributes"
MAX_PARTS: Final = b"x-amz-max-parts"
MARKER: Final = b"x-amz-part-number-marker"
NAMES: Final = ("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize")
PARTS_A_PAGE: Final = 1000


class AttributeOperations:
    """GetObjectAttributes."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def handlers(self) -> dict[str, Handler]:
        return {"GetObjectAttributes": self.get}

    async def get(self, call: Call) -> Response:
        bucket = open_bucket(self._store, call)
        # They tell what a HEAD tells, so they are no way round the right to that.
        of_version = call.parameter(b"versionId") is not None
        require(call, bucket, "GetObjectVersion" if of_version else "GetObject", call.key)
        wanted = _wanted(call)
        index = call.request.index
        most = parse_limit(index.get(MAX_PARTS, b""), "max-parts", PARTS_A_PAGE)
        after = parse_limit(index.get(MARKER, b"0"), "part-number-marker", INTEGER_MAX)
        found = await find_object(self._store, bucket, call)
        record = found.record
        texts: dict[str, Callable[[], str]] = {
            "ETag": lambda: element("ETag", record.etag),
            "Checksum": lambda: _checksum(record),
            "ObjectParts": lambda: _parts(record, most, after),
            "StorageClass": lambda: "<StorageClass>STANDARD</StorageClass>",
            "ObjectSize": lambda: f"<ObjectSize>{record.body.size}</ObjectSize>",
        }
        content = "".join(texts[name]() for name in NAMES if name in wanted)
        response = xml_response(document("GetObjectAttributesResponse", content))
        response.headers.append((b"Last-Modified", modified(record)))
        response.headers += version_headers(bucket, found.version)
        return response


def _wanted(call: Call) -> set[str]:
    """The attributes that are asked for; InvalidRequest for none, InvalidArgument for others."""
    value = call.request.index.get(ATTRIBUTES, b"").decode("latin-1")
    names = {name.strip() for name in value.split(",")} - {""}
    if not names:
        raise S3Error(
            "InvalidRequest",
            "The x-amz-object-attributes header specifying the attributes to be retrieved is "
            "either missing or empty",
        )
    if not names.issubset(NAMES):
        raise S3Error(
            "InvalidArgument",
            "Invalid attribute name specified.",
            ArgumentName=ATTRIBUTES.decode(),
            ArgumentValue=value,
        )
    return names


def _checksum(record: Record) -> str:
    texts = "".join(
        element(f"Checksum{name.upper()}", value) for name, value in checksum_texts(record)
    )
    if not texts:
        return ""
    return f"<Checksum>{texts}<ChecksumType>{checksum_type(record)}</ChecksumType></Checksum>"


def _parts(record: Record, most: int, after: int) -> str:
    """Of an object that was put together from parts. The parts themselves are shown where the
    upload declared a checksum."""
    count = len(record.parts)
    if not count:
        return ""
    shown = f"<PartsCount>{count}</PartsCount>"
    if not part_sums(record, 0):
        return f"<ObjectParts>{shown}</ObjectParts>"
    last = min(after + most, count)
    more = most > 0 and last < count
    parts = []
    for index in range(after, last):
        sums = ""
        for name, digest in part_sums(record, index).items():
            sums += element(f"Checksum{name.upper()}", to_text(digest))
        size = record.parts[index]
        parts.append(f"<Part>{sums}<PartNumber>{index + 1}</PartNumber><Size>{size}</Size></Part>")
    return (
        f"<ObjectParts>{shown}<PartNumberMarker>{after}</PartNumberMarker>"
        f"<NextPartNumberMarker>{last}</NextPartNumberMarker><MaxParts>{most}</MaxParts>"
        f"<IsTruncated>{boolean(more)}</IsTruncated>{''.join(parts)}</ObjectParts>"
    )
