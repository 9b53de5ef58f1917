"""What may become of a file on its way to Forge, in which order files go, and the watermark. Pure.

    queued    its digest is known, and which frames of it are good
    stored    a node has it; its location commitments are kept
    indexed   its index archives are stored and published: confirmed, nothing more happens to it
    refused   it cannot be shipped as it is; tried again at the next start, from where it was

    queued ──> stored ──> indexed
       └──> refused <─┘

Guarantee of the watermark: Forge has every unit up to that commit, from the first one on and
without a gap in the commits, and every body segment that these need, with all that is good of them.
It never goes back, for a confirmed file stays confirmed. A body segment counts as needed by a unit
when its number is not above that of the furthest one that the unit's commits name: numbers count
up, and commits name what was written before them. One that a unit needs and of which nothing is
here or on its way is not waited for: who moves the watermark counts it as damage (``held``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from ingot.messages import BodyPosition, SealedSegment, Shipment

UNIT: Final = "unit"
BODY: Final = "body"

QUEUED: Final = "queued"
STORED: Final = "stored"
INDEXED: Final = "indexed"
REFUSED: Final = "refused"

FOLLOWS: Final[Mapping[str, tuple[str, ...]]] = {
    QUEUED: (STORED, REFUSED),
    STORED: (INDEXED, REFUSED),
    INDEXED: (),
    REFUSED: (QUEUED, STORED),
}

Key = tuple[str, int]  # stream and number: a file


def enqueue(segment: SealedSegment, digest: bytes) -> Shipment:
    """The row of a file that is new here; ``digest`` is the multihash of the whole of it."""
    return Shipment(
        segment.stream,
        segment.number,
        QUEUED,
        digest,
        (),
        segment.bytes,
        segment.first_commit,
        segment.last_commit,
        segment.needs,
    )


def become(row: Shipment, state: str) -> Shipment:
    """The row in its next state, in which nothing has failed yet."""
    assert state in FOLLOWS[row.state], f"{row.state} is never followed by {state}"
    return replace(row, state=state, attempts=0)


def store(row: Shipment, locations: Sequence[bytes]) -> Shipment:
    """A queued file whose ``locations`` were received: one token at least."""
    assert locations, "stored nowhere"
    return replace(become(row, STORED), locations=tuple(locations))


def confirm(row: Shipment, indexes: Sequence[bytes]) -> Shipment:
    """A stored file whose index archives, by their multihashes, are stored and published."""
    return replace(become(row, INDEXED), indexes=tuple(indexes))


def fail(row: Shipment) -> Shipment:
    """One more attempt of the present step came to nothing."""
    assert FOLLOWS[row.state], "nothing is left to do"
    return replace(row, attempts=row.attempts + 1)


def resume(row: Shipment) -> Shipment:
    """A refused file as it was before; any other as it is."""
    if row.state != REFUSED:
        return row
    return become(row, STORED if row.locations else QUEUED)


def in_order(segments: Iterable[SealedSegment]) -> list[SealedSegment]:
    """Units by their commits, the oldest first, each behind the body segments that it needs; then
    body segments that no unit needs yet."""
    given = list(segments)
    units = sorted((one for one in given if one.stream == UNIT), key=lambda one: one.last_commit)
    bodies = sorted((one for one in given if one.stream == BODY), key=lambda one: one.number)
    ordered: list[SealedSegment] = []
    at = 0
    for unit in units:
        while unit.needs and at < len(bodies) and bodies[at].number <= unit.needs.segment:
            ordered.append(bodies[at])
            at += 1
        ordered.append(unit)
    return ordered + bodies[at:]


def watermarks(
    rows: Iterable[Shipment],
    bodies: Collection[int],
    after: int = 0,
    damaged: Collection[Key] = (),
) -> list[int]:
    """The commits above ``after``, all of them ends of units, that the watermark may pass in turn.

    ``rows`` are all shipments, ``bodies`` the numbers of all body segments that this log has or
    should have, whether or not they can ship. Of the ``damaged`` files there is no more than what
    shipped: nobody waits for more of a body segment that was cut short.
    """
    confirmed: dict[Key, Shipment] = {}
    units = []
    for row in rows:
        if row.state == INDEXED:
            confirmed[row.stream, row.number] = row
        if row.stream == UNIT:
            units.append(row)
    held = min((number for number in bodies if (BODY, number) not in confirmed), default=None)
    ends, at = [], 0
    for unit in sorted(units, key=lambda unit: unit.last_commit):
        if unit.state != INDEXED or unit.first_commit > at + 1:
            break
        if unit.needs is not None:
            key = BODY, unit.needs.segment
            body = confirmed.get(key)
            if body is None:
                whole = unit.needs.segment not in bodies  # or nothing is left of it
            else:
                whole = _reaches(body, unit.needs) or key in damaged
            if not whole or (held is not None and held < unit.needs.segment):
                break
        at = max(at, unit.last_commit)
        if at > after:
            ends.append(at)
    return ends


def holder(
    rows: Iterable[Shipment], bodies: Collection[int], after: int, damaged: Collection[Key] = ()
) -> Shipment | Key | None:
    """What the watermark waits for at ``after``: a file on its way; the key of a body segment that
    is not on its way; None where the commits that follow are in no unit yet. The other arguments as
    for ``watermarks``."""
    given = list(rows)
    units = [row for row in given if row.stream == UNIT and row.last_commit > after]
    unit = min(units, key=lambda unit: unit.last_commit, default=None)
    if unit is None or unit.first_commit > after + 1:
        return None
    if unit.state != INDEXED or unit.needs is None:
        return unit
    sent = {row.number: row for row in given if row.stream == BODY}
    for number in sorted({*bodies, unit.needs.segment}):
        body = sent.get(number)
        if number > unit.needs.segment:
            break
        if body is None:
            if (BODY, number) in damaged:
                continue  # nothing is left of it
            return BODY, number
        short = number == unit.needs.segment and not _reaches(body, unit.needs)
        if body.state != INDEXED or (short and (BODY, number) not in damaged):
            return body
    return unit


def _reaches(body: Shipment | None, needs: BodyPosition) -> bool:
    return body is not None and body.bytes >= needs.end
