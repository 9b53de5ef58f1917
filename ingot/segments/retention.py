"""Which files of segments go, so that a disk has room for what is read: decided here, purely.

A file may go when the network surely has it. Over the budget, bodies go before units, because a
listing or a lookup needs units only; of each kind those first that were not read for the longest
time, and of equally old ones the oldest. What is not confirmed never goes, even if that means to
stay above the budget: the log's byte limit then refuses writes. Before a file goes, parts of
it are read back (``probes``).

Called by ``retiring``. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ingot.limits import RETENTION_PROBE_BYTES, RETENTION_PROBES
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


def probes(size: int, random: Callable[[int], bytes]) -> list[tuple[int, int]]:
    """Which parts of a file of ``size`` bytes are read back, each from a byte up to another: its
    end, and some anywhere; of a small file everything. ``random`` gives so many bytes."""
    if size <= RETENTION_PROBES * RETENTION_PROBE_BYTES:
        return [(0, size)]
    last = size - RETENTION_PROBE_BYTES
    more = (int.from_bytes(random(8)) % (last + 1) for _ in range(RETENTION_PROBES - 1))
    return [(start, start + RETENTION_PROBE_BYTES) for start in (last, *more)]
