"""ListObjectVersions: the page of a bucket with versions, as XML.

Versions and delete markers stand in one order, by key and from the newest to the oldest, so the two
kinds of elements are interleaved. Called by ``ingot.s3.listing``, which knows what was asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from itertools import groupby
from typing import TYPE_CHECKING

from ingot._speedups import entries
from ingot.bucket.record import SUMMARY, decode_record
from ingot.bucket.values import Fact, value_of
from ingot.messages import Cid
from ingot.s3.dates import iso
from ingot.s3.xml import boolean, key_texts

if TYPE_CHECKING:
    from ingot.bucket.reading import Listed
    from ingot.bucket.store import Store

_BEFORE = b"<Version><Key>"


async def write_versions(
    store: Store,
    items: Sequence[Listed | bytes],
    encoded: bool,
    owner: str,
    others: Mapping[Cid, str],
) -> list[bytes]:
    """What a page shows: its versions, then its groups. ``owner`` is the element of whose a version
    is; ``others`` have those of states that say otherwise."""
    listed = [item for item in items if not isinstance(item, bytes)]
    names = key_texts([item.key for item in listed], encoded)

    def kind(each: tuple[Listed, bytes, bytes]) -> tuple[bool, str]:
        state = each[0].state
        return _is_marker(each[2]), owner if state is None else others.get(state, owner)

    shown, at = [], 0
    async with aclosing(store.records([item.record for item in listed])) as parts:
        async for blocks in parts:
            some = zip(listed[at:], names[at:], blocks, strict=False)
            for (marker, whose), run in groupby(some, kind):
                write = _markers if marker else _versions
                shown.append(write(list(run), whose))
            at += len(blocks)
    for name in key_texts([item for item in items if isinstance(item, bytes)], encoded):
        shown.append(b"<CommonPrefixes><Prefix>%b</Prefix></CommonPrefixes>" % name)
    return shown


_Run = list[tuple["Listed", bytes, bytes]]


def _is_marker(block: bytes) -> bool:
    fact = value_of(block)
    return isinstance(fact, Fact) and fact.marker


def _versions(run: _Run, owner: str) -> bytes:
    """A few versions in a row. What stands between a key and its time is part of the name here."""
    names = [name + _named(item).encode() for item, name, _ in run]
    after = f"<StorageClass>STANDARD</StorageClass>{owner}</Version>".encode()
    blocks = [block for _, _, block in run]
    return entries.write(SUMMARY, names, blocks, _BEFORE, b"<LastModified>", after)


def _markers(run: _Run, owner: str) -> bytes:
    return b"".join(
        f"<DeleteMarker><Key>{name.decode()}{_named(item)}"
        f"<LastModified>{iso(decode_record(block).created_ms)}</LastModified>{owner}"
        "</DeleteMarker>".encode()
        for item, name, block in run
    )


def _named(item: Listed) -> str:
    return f"</Key><VersionId>{item.version}</VersionId><IsLatest>{boolean(item.latest)}</IsLatest>"
