"""Reads that go on at their bucket's newest head.

A reader holds on to no root: that would cost every request a step. Compaction may so drop a node or
record that only heads reach which the bucket has left, while somebody still reads by one of them.
Whoever meets that looks again where the bucket stands now: for a lookup or a listing, which is
answered as of some moment while it is under way, the newest head is as right as the one before. A
body is another matter, for part of it was sent: its chunks are pinned (``pins``).

Used by the bucket store and its uploads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

from ingot.bucket.model import Bucket, NoSuchBucket
from ingot.bucket.nodes import Lost

P = ParamSpec("P")
T = TypeVar("T")

LOOKS_MAX: Final = 3
"""At so many heads. A unit is made of segments a minute old, so that one look outlives two of them
is hardly thinkable; what is lost at all of them is damage."""


class Reader(Protocol):
    """Whose reads these are; ``tips`` are the newest heads, by name."""

    tips: dict[str, Bucket]


R = TypeVar("R", bound=Reader)
Look = Callable[Concatenate[R, Bucket, P], Coroutine[Any, Any, T]]


def at_newest(look: Look[R, P, T]) -> Look[R, P, T]:
    """``look(self, bucket, ...)``, once more with the newest head where a block of the bucket's is
    in no segment and it has moved on. NoSuchBucket where it was deleted meanwhile."""

    @functools.wraps(look)
    async def looking(reader: R, bucket: Bucket, /, *args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(LOOKS_MAX - 1):
            try:
                return await look(reader, bucket, *args, **kwargs)
            except Lost:
                newest = reader.tips.get(bucket.name)
                if newest is None or newest.id != bucket.id:
                    raise NoSuchBucket(bucket.name) from None
                if newest.head == bucket.head:
                    raise
                bucket = newest
        return await look(reader, bucket, *args, **kwargs)

    return looking
