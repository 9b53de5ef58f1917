"""What entries of listings show of records: from memory, and of records that were never listed here
from their blocks.

A summary stays right as long as it stays at all, since a record never changes. A page of a thousand
keys that were listed before reads no record, which is four fifths of its work. Used by the bucket
store.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import cast

from ingot._speedups import entries, summaries
from ingot.bucket.record import SUMMARY
from ingot.messages import Cid

Records = Callable[[Sequence[Cid]], AsyncGenerator[list[bytes], None]]


class Summaries:
    """``records`` gives records' blocks, in order and some at a time; memory is for at most
    ``room`` bytes of summaries."""

    def __init__(self, records: Records, room: int) -> None:
        self._records = records
        self._held = summaries.Summaries(room)

    @property
    def bytes_used(self) -> int:
        return self._held.bytes_used

    async def of(self, cids: Sequence[Cid]) -> list[bytes]:
        """Of each record what ``entries.write`` takes."""
        found = self._held.find_many(cids)
        missing = [at for at, one in enumerate(found) if one is None]
        asked = [cids[at] for at in missing]
        at = 0
        async with aclosing(self._records(asked)) as parts:
            async for blocks in parts:
                some = entries.summaries(SUMMARY, blocks)
                self._held.add_many(asked[at : at + len(some)], some)
                for one in some:
                    found[missing[at]] = one
                    at += 1
        return cast("list[bytes]", found)
