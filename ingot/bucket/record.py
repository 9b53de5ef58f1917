"""The object's record, ``ingot/object@1``: what a key's value block holds (design section 4).

A PUT encodes one, a GET decodes one, a listing shows a summary of each of its thousand keys. A
block is decoded only if it is exactly what ``encode_record`` writes; a record whose numbers
contradict one another is Corruption. Another format, such as ``ingot/leaf@1``, is a FormatError
that names it. Pure.

    ingot/object@1 = { key: text, size: uint, created: uint (unix ms), etag: text,
                       md5: 16 bytes, sha256: 32 bytes (of the whole body),
                       headers: {text: text}, metadata: {text: text},
                       checksums: {algorithm: digest}, composite: true, parts: [size of each],
                       part_checksums: {algorithm: the digests of the parts, one behind the other},
                       version: text, deleted: true (a delete marker, which has no body),
                       inline: bytes  or  chunks: [[link, byte length]], depth: uint }

Without ``depth`` the links are chunks; with it they are ``ingot/body@1`` nodes that many levels
high. What a record does not have is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ingot._speedups import digest, layout
from ingot.body.checksums import SIZES
from ingot.errors import Corruption
from ingot.limits import BODY_NODE_ENTRIES_MAX, INLINE_BYTES_MAX, OBJECT_BYTES_MAX
from ingot.messages import Body, Cid

OBJECT = "ingot/object@1"

_RECORD = layout.Layout(
    OBJECT,
    (
        ("key", "utf8"),
        ("md5", "bytes16?"),
        ("etag", "text?"),
        ("size", "uint"),
        ("depth", "uint?"),
        ("parts", "uints?"),
        ("chunks", "entries?"),
        ("inline", "bytes?"),
        ("sha256", "bytes32?"),
        ("created", "uint"),
        ("deleted", "true?"),
        ("headers", "texts?"),
        ("version", "text?"),
        ("metadata", "texts?"),
        ("checksums", "digests?"),
        ("composite", "true?"),
        ("part_checksums", "digests?"),
    ),
)
SUMMARY = layout.Layout(
    OBJECT,
    (
        ("etag", "text?"),
        ("size", "uint"),
        ("created", "uint"),
        ("checksums", "digests?"),
        ("composite", "true?"),
    ),
)
"""What a listing shows of a record, read past the rest: a damaged rest is not noticed there."""
_ETAG = layout.Layout(OBJECT, (("etag", "text?"),))
_STANDING = layout.Layout(OBJECT, (("etag", "text?"), ("deleted", "true?")))


@dataclass(slots=True)
class Record:
    """One version of one object."""

    key: bytes  # UTF-8
    body: Body
    etag: str  # without quotes; kept apart, since a multipart ETag is not an MD5
    created_ms: int
    headers: dict[str, str] = field(default_factory=dict)
    """Content headers as stored: content-type, content-encoding, content-disposition,
    content-language, cache-control, expires; x-amz-server-side-encryption, where a client asked
    for that name or its bucket did; x-amz-website-redirect-location. Lower-case names, latin-1
    text."""
    metadata: dict[str, str] = field(default_factory=dict)  # x-amz-meta- names without the prefix
    checksums: dict[str, bytes] = field(default_factory=dict)  # "crc64nvme" ... -> raw digest
    composite: bool = False  # checksums are of the parts' checksums
    parts: list[int] = field(default_factory=list)  # part sizes; empty unless assembled from parts
    version: str = ""  # "" on a bucket that never had versioning ("null" on the wire)
    delete_marker: bool = False
    part_checksums: dict[str, bytes] = field(default_factory=dict)
    """Of the algorithms that every part has a checksum of: their digests, one behind the other."""

    def part_checksum(self, algorithm: str, index: int) -> bytes | None:
        """The digest of one part, counted from 0; None where none was kept."""
        digests = self.part_checksums.get(algorithm)
        if digests is None:
            return None
        size = SIZES[algorithm]
        return digests[index * size : (index + 1) * size]


def encode_record(record: Record) -> bytes:
    """The record's block. ValueError for a record that ``decode_record`` would not give back.

    ``body.checksums``, ``blocks`` and ``positions`` are the write path's and are not stored. An
    empty body is inline, however it is said.
    """
    body = record.body
    inline = body.inline
    if inline is None and not body.chunks and not record.delete_marker:
        inline = b""
    fault = _fault(body.size, inline, body.chunks, body.depth, record.parts, record.delete_marker)
    fault = fault or _fault_of_parts(record.parts, record.part_checksums)
    if fault is not None:
        raise ValueError(f"{fault[0]}: expected {fault[1]}, found {fault[2]}")
    return _RECORD.encode(
        (
            record.key,
            body.md5,
            record.etag or None,
            body.size,
            body.depth or None,
            record.parts or None,
            body.chunks or None,
            inline,
            body.sha256,
            record.created_ms,
            record.delete_marker or None,
            record.headers or None,
            record.version or None,
            record.metadata or None,
            record.checksums or None,
            record.composite or None,
            record.part_checksums or None,
        )
    )


def encode_inline(
    key: bytes,
    data: bytes,
    md5: bytes,
    sha256: bytes,
    etag: str,
    created_ms: int,
    headers: dict[str, str],
    checksums: dict[str, bytes],
) -> bytes:
    """As ``encode_record``, of a small object without metadata, and without a ``Record``."""
    assert len(data) <= INLINE_BYTES_MAX
    absent = None
    return _RECORD.encode(
        (
            *(key, md5, etag, len(data), absent, absent, absent, data, sha256, created_ms),
            *(absent, headers, absent, absent, checksums, absent, absent),
        )
    )


def decode_record(block: bytes) -> Record:
    """The record of a block: FormatError where the bytes are not one, Corruption where its numbers
    contradict one another."""
    (
        key,
        md5,
        etag,
        size,
        depth,
        parts,
        chunks,
        inline,
        sha,
        created,
        deleted,
        headers,
        version,
        metadata,
        checksums,
        composite,
        part_checksums,
    ) = _RECORD.decode(block)
    if depth == 0:
        raise Corruption(f"record of {key!r}, depth", "no field", 0)
    fault = _fault(size, inline, chunks or (), depth or 0, parts or (), deleted or False)
    if part_checksums is not None:
        fault = fault or _fault_of_parts(parts or (), part_checksums)
    if fault is not None:
        raise Corruption(f"record of {key!r}, {fault[0]}", fault[1], fault[2])
    return Record(
        key,
        Body(size, md5, sha, inline, chunks or [], depth or 0),
        etag or "",
        created,
        headers or {},
        metadata or {},
        checksums or {},
        composite or False,
        parts or [],
        version or "",
        deleted or False,
        part_checksums or {},
    )


def etag_of(block: bytes) -> str:
    """The ETag alone, for a precondition; read past the rest."""
    (etag,) = _ETAG.pick(block)
    return etag or ""


def standing_of(block: bytes) -> tuple[str, bool]:
    """The ETag, and whether it is a delete marker; read past the rest."""
    etag, deleted = _STANDING.pick(block)
    return etag or "", deleted or False


def cid_of(block: bytes) -> Cid:
    """The CID of a record's block: the value that the tree holds for its key."""
    return digest.cid_dag_cbor(block)


def _fault_of_parts(
    parts: Sequence[int], part_checksums: dict[str, bytes]
) -> tuple[str, object, object] | None:
    for name, digests in part_checksums.items():
        if name not in SIZES:
            return "checksums of the parts", "known algorithms", name
        if not parts or len(digests) != SIZES[name] * len(parts):
            expected = f"{name} of {len(parts)} parts"
            return "checksums of the parts", expected, f"{len(digests)} bytes"
    return None


def _fault(
    size: int,
    inline: bytes | None,
    chunks: Sequence[tuple[bytes, int]],
    depth: int,
    parts: Sequence[int],
    delete_marker: bool,
) -> tuple[str, object, object] | None:
    """(what, expected, found) where the numbers of a record contradict one another."""
    if not 0 <= size <= OBJECT_BYTES_MAX:
        return "size", f"0 to {OBJECT_BYTES_MAX}", size
    if parts and sum(parts) != size:
        return "sum of the parts", size, sum(parts)
    if depth and not chunks:
        return "depth", "entries", "none"
    if delete_marker:
        return ("delete marker", "no body", f"{size} bytes") if size or chunks or inline else None
    if inline is not None:
        if chunks:
            return "body", "inline bytes or chunks", "both"
        if len(inline) != size or size > INLINE_BYTES_MAX:
            return "inline body", f"{size} bytes, {INLINE_BYTES_MAX} at most", len(inline)
        return None
    if not 0 < len(chunks) <= BODY_NODE_ENTRIES_MAX:
        return "entries of the body", f"1 to {BODY_NODE_ENTRIES_MAX}", len(chunks)
    total = 0
    for _, length in chunks:
        if length < 1:
            return "length of a chunk", "at least 1", length
        total += length
    return ("sum of the chunks", size, total) if total != size else None
