"""What listings show of records, kept by CID: a page of a thousand keys then reads no record.

The twin of ``summaries_c`` and its specification. Called by ``ingot.bucket.reading``. Pure.

A record never changes, so neither does its summary, and nothing here is ever out of date. A summary
is 36 bytes (``entries`` makes and shows it) and takes a slot of 64, with the first 28 bytes of the
digest: no two records that agree in these can be made. Which summaries go when all slots are taken
is each twin's affair; what is found is what was added.
"""

from __future__ import annotations

from collections.abc import Sequence

from ingot._speedups.entries_py import SUMMARY_BYTES, SUMMARY_KIND
from ingot._speedups.frame_py import CID_BYTES

__all__ = ["SLOT_BYTES", "Summaries"]

SLOT_BYTES = 64


class Summaries:
    """Takes at most ``room`` bytes, and for a while half as much again when it has grown; it
    begins small. ValueError for room for fewer than 1,024 summaries."""

    def __init__(self, room: int) -> None:
        if room < 1024 * SLOT_BYTES:
            raise ValueError(f"no room for summaries: {room} bytes")
        self._most = room // SLOT_BYTES
        self._found: dict[bytes, bytes] = {}

    @property
    def bytes_used(self) -> int:
        """Memory that is taken, in bytes."""
        return len(self._found) * SLOT_BYTES

    def find_many(self, cids: Sequence[bytes]) -> list[bytes | None]:
        """The summary of each of these records, None where there is none."""
        return [self._found.get(_digest(cid)) for cid in cids]

    def add_many(self, cids: Sequence[bytes], summaries: Sequence[bytes]) -> None:
        """Keep the summary of each of these records; what is none, as a block, is not kept."""
        for cid, summary in zip(cids, summaries, strict=True):
            digest = _digest(cid)
            if len(summary) != SUMMARY_BYTES or summary[0] != SUMMARY_KIND:
                continue
            if digest not in self._found and len(self._found) == self._most:
                del self._found[next(iter(self._found))]
            self._found[digest] = summary


def _digest(cid: bytes) -> bytes:
    if len(cid) != CID_BYTES:
        raise ValueError(f"a CID has {CID_BYTES} bytes, not {len(cid)}")
    return cid[4:]
