"""ListMultipartUploads and ListParts.

Uploads stand in the order of their keys, those of one key in the order of their creation. A page
goes on behind a key and an upload id, whether that upload is still open or not: clients abort or
complete what a page showed before they ask for the next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ingot.body.checksums import to_text
from ingot.bucket.leaf import Acl
from ingot.bucket.part import Part, Upload, id_fits
from ingot.messages import Response
from ingot.s3.acl import person
from ingot.s3.call import Call, Handler, open_bucket, xml_response
from ingot.s3.dates import iso
from ingot.s3.errors import S3Error
from ingot.s3.expiration import Expirations
from ingot.s3.listing import INTEGER_MAX, parse_limit
from ingot.s3.multipart import COMPOSITE, FULL_OBJECT, open_to_initiator
from ingot.s3.xml import boolean, document, element, escape_bytes, url_encode

if TYPE_CHECKING:
    from ingot.bucket.store import Store

UPLOADS_MAX: Final = 1000
PARTS_SHOWN_MAX: Final = 1000


class UploadListOperations:
    """The two listings of uploads."""

    def __init__(self, store: Store, expirations: Expirations) -> None:
        self._store = store
        self._expirations = expirations

    def handlers(self) -> dict[str, Handler]:
        return {"ListMultipartUploads": self.list_uploads, "ListParts": self.list_parts}

    async def list_uploads(self, call: Call) -> Response:
        prefix = call.parameter(b"prefix") or b""
        delimiter = call.parameter(b"delimiter") or b""
        key_marker = call.parameter(b"key-marker") or b""
        id_marker = call.parameter(b"upload-id-marker") or b""
        limit = parse_limit(call.parameter(b"max-uploads") or b"", "max-uploads", UPLOADS_MAX)
        text = _encoder(call)
        bucket = open_bucket(self._store, call)
        after = ""
        if key_marker and id_marker:
            after = id_marker.decode("utf-8", "replace")
            if not id_fits(key_marker, after):
                raise _invalid("upload-id-marker", id_marker, "Invalid uploadId marker")
        page = await self._store.uploads.page(bucket, prefix, delimiter, (key_marker, after), limit)
        following = ""
        if page.truncated:
            key, last = page.items[-1]
            following = (
                f"<NextKeyMarker>{text(key)}</NextKeyMarker>"
                f"<NextUploadIdMarker>{'' if last is None else last.id}</NextUploadIdMarker>"
            )
        acls, config = call.access.acls, bucket.config
        echo = f"<Delimiter>{text(delimiter)}</Delimiter>" if delimiter else ""
        if text is url_encode:
            echo += "<EncodingType>url</EncodingType>"
        entries = "".join(
            [
                f"<CommonPrefixes><Prefix>{text(key)}</Prefix></CommonPrefixes>"
                if upload is None
                else _upload_entry(acls.of_version(config, upload.state), upload, text(key))
                for key, upload in sorted(page.items, key=lambda item: item[1] is None)
            ]
        )
        return xml_response(
            document(
                "ListMultipartUploadsResult",
                f"{element('Bucket', call.bucket)}<KeyMarker>{text(key_marker)}</KeyMarker>"
                f"{element('UploadIdMarker', id_marker.decode('utf-8', 'replace'))}{following}"
                f"<Prefix>{text(prefix)}</Prefix>{echo}<MaxUploads>{limit}</MaxUploads>"
                f"<IsTruncated>{boolean(page.truncated)}</IsTruncated>{entries}",
            )
        )

    async def list_parts(self, call: Call) -> Response:
        limit = parse_limit(call.parameter(b"max-parts") or b"", "max-parts", PARTS_SHOWN_MAX)
        marker = call.parameter(b"part-number-marker") or b""
        after = parse_limit(marker, "part-number-marker", INTEGER_MAX) if marker else 0
        bucket, upload = await open_to_initiator(self._store, call)
        parts, more = await self._store.uploads.parts(bucket, upload, after, limit)
        more = more and bool(parts)
        of = call.access.acls.of_version(bucket.config, upload.state)
        following = element("NextPartNumberMarker", str(parts[-1][0] if parts else 0))
        response = xml_response(
            document(
                "ListPartsResult",
                f"{element('Bucket', call.bucket)}{element('Key', call.key.decode())}"
                f"<UploadId>{upload.id}</UploadId>{_people(of, upload)}"
                f"<StorageClass>STANDARD</StorageClass>{_checksum(upload)}"
                f"<PartNumberMarker>{after}</PartNumberMarker>{following}"
                f"<MaxParts>{limit}</MaxParts><IsTruncated>{boolean(more)}</IsTruncated>"
                + "".join([_part_entry(upload, number, part) for number, part in parts]),
            )
        )
        response.headers += await self._expirations.abort_headers(bucket, upload)
        return response


def _encoder(call: Call) -> Callable[[bytes], str]:
    value = call.parameter(b"encoding-type") or b""
    if not value:
        return escape_bytes
    if value.lower() != b"url":
        raise _invalid("encoding-type", value, "Invalid Encoding Method specified in Request")
    return url_encode


def _upload_entry(of: Acl, upload: Upload, key: str) -> str:
    return (
        f"<Upload><Key>{key}</Key><UploadId>{upload.id}</UploadId>{_people(of, upload)}"
        f"<StorageClass>STANDARD</StorageClass><Initiated>{iso(upload.created_ms)}</Initiated>"
        f"{_checksum(upload)}</Upload>"
    )


def _part_entry(upload: Upload, number: int, part: Part) -> str:
    checksum = ""
    if upload.algorithm:
        name = f"Checksum{upload.algorithm.upper()}"
        checksum = element(name, to_text(part.checksums[upload.algorithm]))
    return (
        f"<Part><PartNumber>{number}</PartNumber><LastModified>{iso(part.created_ms)}"
        f"</LastModified><ETag>&quot;{part.etag}&quot;</ETag><Size>{part.body.size}</Size>"
        f"{checksum}</Part>"
    )


def _people(of: Acl, upload: Upload) -> str:
    """Who began the upload, and whose its object will be."""
    initiator = person("Initiator", upload.initiator, upload.initiator_name)
    return initiator + person("Owner", of.owner, of.name)


def _checksum(upload: Upload) -> str:
    if not upload.algorithm:
        return ""
    kind = COMPOSITE if upload.composite else FULL_OBJECT
    return (
        f"<ChecksumAlgorithm>{upload.algorithm.upper()}</ChecksumAlgorithm>"
        f"<ChecksumType>{kind}</ChecksumType>"
    )


def _invalid(name: str, value: bytes, message: str) -> S3Error:
    return S3Error(
        "InvalidArgument",
        message,
        ArgumentName=name,
        ArgumentValue=value.decode("utf-8", "replace"),
    )
