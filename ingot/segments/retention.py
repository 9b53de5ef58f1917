"""Which files of segments go, so that a disk has room for what is read: decided here, purely.

A file may go when the network surely has it. Over the budget, bodies go before units, because a
listing or a lookup needs units only; of each kind those first that were not read for the longest
time, and of equally old ones the oldest. What is not confirmed never goes, even if that means to
stay above the budget: the log's byte limit then refuses writes.

Called by ``retiring``. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingot.segments import format
from ingot.segments.model import Key


@dataclass(frozen=True, slots=True)
class Warm:
    """A segment that could be retired as far as this directory goes."""

    key: Key
    bytes: int
    last_read: int  # or first seen; in any unit
    confirmed: bool  # by the network


def order_of(warm: Sequence[Warm]) -> list[Warm]:
    """What may go, in the order in which it does."""
    return sorted(
        (one for one in warm if one.confirmed),
        key=lambda one: (one.key[0] != format.BODY, one.last_read, one.key[1]),
    )


def chosen(warm: Sequence[Warm], used: int, budget: int) -> list[Warm]:
    """Those that go, in order, until of ``used`` bytes no more than ``budget`` are left."""
    going = []
    for one in order_of(warm):
        if used <= budget:
            break
        going.append(one)
        used -= one.bytes
    return going
