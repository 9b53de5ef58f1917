"""The entries of a listing: from records' blocks to XML, with nothing made of them in between.

The plain version and the specification of ``entries_c``. A page has a thousand entries, which is
why the block of a record is not made a record first: the few fields that an entry shows are picked
out of it, by the layout's rules and with its errors. Called by ``ingot.s3.listing``. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from html import escape

from ingot._speedups.layout_py import Layout

__all__ = ["write"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def write(
    summary: Layout,
    names: Sequence[bytes],
    blocks: Sequence[bytes],
    before: bytes,
    between: bytes,
    after: bytes,
) -> bytes:
    """One entry a record: ``before``, its name, ``between``, then when it was made and what follows
    that, its ETag, checksum and size, ``after``. What is given is XML already.

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
    etag, size, created, checksums, composite = summary.pick(block)
    second = _EPOCH + timedelta(seconds=created // 1000)
    checksum = ""
    if checksums:
        algorithm = escape(next(iter(checksums)).upper())
        kind = "COMPOSITE" if composite else "FULL_OBJECT"
        checksum = (
            f"<ChecksumAlgorithm>{algorithm}</ChecksumAlgorithm><ChecksumType>{kind}</ChecksumType>"
        )
    fields = (
        f"{second:%Y-%m-%dT%H:%M:%S}.000Z</LastModified>"
        f"<ETag>&quot;{escape(etag or '')}&quot;</ETag>{checksum}<Size>{size}</Size>"
    )
    return b"".join((before, name, between, fields.encode(), after))
