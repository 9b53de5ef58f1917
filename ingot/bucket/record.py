"""The object's record, ``ingot/object@1``: what a key's value block holds (design section 4)."""

from __future__ import annotations

from dataclasses import dataclass, field

from ingot.messages import Body, Cid


@dataclass(slots=True)
class Record:
    """One version of one object."""

    key: bytes  # UTF-8
    body: Body
    etag: str  # without quotes; kept apart, since a multipart ETag is not an MD5
    created_ms: int
    headers: dict[str, str] = field(default_factory=dict)
    """Content headers as stored: content-type, content-encoding, content-disposition,
    content-language, cache-control, expires. Lower-case names, latin-1 text."""
    metadata: dict[str, str] = field(default_factory=dict)  # x-amz-meta- names without the prefix
    checksums: dict[str, bytes] = field(default_factory=dict)  # "crc64nvme" ... -> raw digest
    composite: bool = False  # checksums are of the parts' checksums
    parts: list[int] = field(default_factory=list)  # part sizes; empty unless assembled from parts
    version: str = ""  # "" on a bucket that never had versioning ("null" on the wire)
    delete_marker: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """What a listing shows of a record; decoded without building the rest."""

    size: int
    etag: str
    created_ms: int
    checksum: str  # algorithm name or ""
    composite: bool


def encode_record(record: Record) -> bytes: ...
def decode_record(block: bytes) -> Record: ...
def summarize(block: bytes) -> Summary: ...
def cid_of(block: bytes) -> Cid: ...
