"""Puts the parts of an upload together to one object, by reference: no byte of a part is touched.

The body's entries are those of the parts' bodies, one behind the other: chunks, or nodes over the
chunks of a large part. A part brings at most PART_ENTRIES_MAX of them (``compact``, when it is
uploaded), so a Complete writes a few hundred bytes a part, however large the parts are. Checksums
of the whole come from those of the parts, and the ETag from their MD5s. Pure; called by the S3
layer, before the commit of a Complete or of a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import md5
from typing import Final

from awscrt import checksums as _crt

from ingot.body import dag
from ingot.body.checksums import SIZES, one_shot
from ingot.bucket.part import Part, Upload
from ingot.bucket.record import Record
from ingot.codec.cid import of_chunk, of_structure
from ingot.limits import INLINE_BYTES_MAX, PART_ENTRIES_MAX
from ingot.messages import Body, Cid

DEFAULT_ALGORITHM: Final = "crc64nvme"  # of uploads that declare none
COMBINE: Final[dict[str, Callable[[int, int, int], int]]] = {
    "crc32": _crt.combine_crc32,
    "crc32c": _crt.combine_crc32c,
    "crc64nvme": _crt.combine_crc64nvme,
}
"""crc(a ‖ b) from crc(a), crc(b) and the length of b, in less than a microsecond each."""


def compact(body: Body) -> Body:
    """``body`` with at most PART_ENTRIES_MAX entries: more chunks get a node of their own."""
    if len(body.chunks) <= PART_ENTRIES_MAX:
        return body
    block = dag.encode_node(body.chunks)
    cid = of_structure(block)
    return replace(
        body,
        chunks=[(cid, body.size)],
        depth=body.depth + 1,
        blocks=[*body.blocks, (cid, block)],
    )


def assemble(upload: Upload, parts: Sequence[Part], created_ms: int) -> Record:
    """The record of the object that ``parts`` make up, in this order."""
    digests = b"".join([part.md5 for part in parts])
    checksums, composite = _checksums(upload, parts)
    return Record(
        upload.key,
        _join([part.body for part in parts]),
        f"{md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}",
        created_ms,
        upload.headers,
        upload.metadata,
        checksums,
        composite,
        [part.body.size for part in parts],
        part_checksums=_part_checksums(upload, parts),
    )


def whole_checksums(record: Record) -> dict[str, bytes] | None:
    """Checksums of the whole object in place of composite ones. None where that takes its bytes:
    of hashes, and of records that do not have those of their parts."""
    whole: dict[str, bytes] = {}
    for name in record.checksums:
        if name not in COMBINE or name not in record.part_checksums:
            return None
        sums = [record.part_checksum(name, index) or b"" for index in range(len(record.parts))]
        whole[name] = _combined(name, sums, record.parts)
    return whole


def _join(bodies: Sequence[Body]) -> Body:
    size = sum([body.size for body in bodies])
    filled = [body for body in bodies if body.size]
    if size <= INLINE_BYTES_MAX and all(body.inline is not None for body in filled):
        return Body(size, None, None, b"".join([body.inline or b"" for body in filled]))
    entries: list[tuple[Cid, int]] = []
    blocks: list[tuple[Cid, bytes]] = []
    for body in filled:
        if body.inline is not None:
            chunk = of_chunk(body.inline)
            entries.append((chunk, body.size))
            blocks.append((chunk, body.inline))
        else:
            entries += body.chunks
    chunks, above, nodes = dag.build(entries)
    depth = max([body.depth for body in filled]) + above
    return Body(size, None, None, None, chunks, depth, [*blocks, *nodes])


def _part_checksums(upload: Upload, parts: Sequence[Part]) -> dict[str, bytes]:
    """What clients can ask of each part later: the checksums that were declared, or that came with
    every part though nothing was. The CRC-64 that we keep beside those is for the object's."""
    names = {upload.algorithm}
    if not upload.algorithm:
        names = set.intersection(*[set(part.checksums) for part in parts]) - {DEFAULT_ALGORITHM}
    return {name: b"".join([part.checksums[name] for part in parts]) for name in sorted(names)}


def _checksums(upload: Upload, parts: Sequence[Part]) -> tuple[dict[str, bytes], bool]:
    """The checksums of the object, and whether they are composite: over those of its parts. An
    upload that declared none has a CRC-64 of the whole, as every object."""
    name = upload.algorithm or DEFAULT_ALGORITHM
    if upload.composite:
        return {name: one_shot(name, b"".join([part.checksums[name] for part in parts]))}, True
    sums = [part.checksums[name] for part in parts]
    return {name: _combined(name, sums, [part.body.size for part in parts])}, False


def _combined(name: str, sums: Sequence[bytes], sizes: Sequence[int]) -> bytes:
    """The CRC of the whole from those of its pieces."""
    combine, whole = COMBINE[name], 0
    for digest, size in zip(sums, sizes, strict=True):
        whole = combine(whole, int.from_bytes(digest, "big"), size)
    return whole.to_bytes(SIZES[name], "big")
