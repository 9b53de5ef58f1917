"""The entries of a listing: from records' blocks to XML, with nothing made of them in between.

The plain version and the specification of ``entries_c``. A page has a thousand entries, which is
why the block of a record is not made a record first: the few fields that an entry shows are picked
out of it, by the layout's rules and with its errors. Called by ``ingot.s3.listing``. Pure.

What an entry shows of a record fits into a summary, which is kept in memory (``summaries_py``) and
nowhere else. It is 36 bytes, integers little-endian:

    1 ‖ checksum (1) ‖ parts (2) ‖ MD5 (16) ‖ size (8) ‖ time, in ms since 1970 (8)

``checksum`` is 0 for none, else 1 and more for ``ALGORITHMS``; 128 is added for a composite one.
``parts`` is the number behind the ETag's hyphen, 0 for an ETag that is a plain MD5. A record whose
ETag or checksum is of another kind has no summary.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from html import escape

from ingot._speedups.layout_py import Layout

__all__ = ["summaries", "write"]

SUMMARY_BYTES = 36
SUMMARY_KIND = 1  # its first byte, which no block has
ALGORITHMS = ("crc32", "crc32c", "crc64nvme", "sha1", "sha256")
PARTS_MAX = (1 << 16) - 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253402300799999  # the end of the year 9999
_ETAG = re.compile(r"([0-9a-f]{32})(?:-([1-9][0-9]{0,4}))?", re.ASCII)
_SUMMARY = struct.Struct("<BBH16sQQ")
_COMPOSITE = 128


def summaries(summary: Layout, blocks: Sequence[bytes]) -> list[bytes]:
    """The summary of each record, or its block where it has none. FormatError for a block that
    ``summary`` refuses."""
    return [summarized(summary, block) for block in blocks]


def summarized(summary: Layout, block: bytes) -> bytes:
    """One of ``summaries``."""
    etag, size, created, checksums, composite = summary.pick(block)
    name = next(iter(checksums)) if checksums else ""
    usual = _ETAG.fullmatch(etag or "")
    if usual is None or created > _LAST_MS or (name and name not in ALGORITHMS):
        return block
    parts = int(usual[2] or 0)
    if parts > PARTS_MAX:
        return block
    checksum = (ALGORITHMS.index(name) + 1 if name else 0) | (_COMPOSITE if composite else 0)
    return _SUMMARY.pack(SUMMARY_KIND, checksum, parts, bytes.fromhex(usual[1]), size, created)


def write(
    summary: Layout,
    names: Sequence[bytes],
    blocks: Sequence[bytes],
    before: bytes,
    between: bytes,
    after: bytes,
) -> bytes:
    """One entry a record: ``before``, its name, ``between``, then when it was made and what follows
    that, its ETag, checksum and size, ``after``. What is given is XML already, and for a record its
    block or its summary.

    ``summary`` picks etag, size, created, checksums and composite, in this order. FormatError for a
    block that it refuses, OverflowError for a time behind the year 9999.
    """
    return b"".join(
        [
            entry(summary, name, block, before, between, after)
            for name, block in zip(names, blocks, strict=True)
        ]
    )


def entry(
    summary: Layout, name: bytes, block: bytes, before: bytes, between: bytes, after: bytes
) -> bytes:
    """One entry of ``write``."""
    etag, size, created, algorithm, composite = _shown(summary, block)
    second = _EPOCH + timedelta(seconds=created // 1000)
    checksum = ""
    if algorithm:
        algorithm = escape(algorithm.upper())
        kind = "COMPOSITE" if composite else "FULL_OBJECT"
        checksum = (
            f"<ChecksumAlgorithm>{algorithm}</ChecksumAlgorithm><ChecksumType>{kind}</ChecksumType>"
        )
    fields = (
        f"{second:%Y-%m-%dT%H:%M:%S}.000Z</LastModified>"
        f"<ETag>&quot;{escape(etag)}&quot;</ETag>{checksum}<Size>{size}</Size>"
    )
    return b"".join((before, name, between, fields.encode(), after))


def _is_summary(block: bytes) -> bool:
    """Whether ``summaries`` can have made it."""
    return (
        len(block) == SUMMARY_BYTES
        and block[0] == SUMMARY_KIND
        and block[1] & ~_COMPOSITE <= len(ALGORITHMS)
        and int.from_bytes(block[-8:], "little") <= _LAST_MS
    )


def _shown(summary: Layout, block: bytes) -> tuple[str, int, int, str, bool]:
    """ETag, size, time in ms, checksum's algorithm and whether it is composite."""
    if _is_summary(block):
        _, checksum, parts, md5, size, created = _SUMMARY.unpack(block)
        number = checksum & ~_COMPOSITE
        etag = f"{md5.hex()}-{parts}" if parts else md5.hex()
        return etag, size, created, ALGORITHMS[number - 1] if number else "", checksum != number
    etag, size, created, checksums, composite = summary.pick(block)
    return etag or "", size, created, next(iter(checksums or {}), ""), bool(composite)
