"""The values of the segment store: settings, locations, segment states, what a start found."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ingot import limits
from ingot.messages import BodyPosition, Cid, CommitRecord

OPEN = "open"
SEALED = "sealed"
QUARANTINED = "quarantined"
REPLACED = "replaced"  # by a unit
DAMAGED = "damaged"  # and replaced by a unit that has what is good of it; the file is kept
COLD = "cold"  # its file is gone: the network has it, and the index here

Key = tuple[str, int]  # stream and number: a segment


@dataclass(frozen=True, slots=True)
class SegmentSettings:
    """Sizes in bytes. The defaults are for production; tests make everything small."""

    seal_bytes: int = limits.SEGMENT_SEAL_BYTES  # a segment this long is sealed
    segment_bytes_max: int = limits.SEGMENT_BYTES_MAX
    log_ahead_bytes: int = limits.SEGMENT_SEAL_BYTES + limits.MIB
    """How much of the next log segment is written with zeros before it is needed. A sync of written
    blocks takes half the time; the last batch may reach a little past the sealing size."""
    body_ahead_bytes: int = 0
    """The same for body segments. Large chunks are synced rarely, and writing them twice would cost
    a long upload more than it gains."""
    fill_step_bytes: int = 256 * limits.KIB  # of those zeros at a time; commits go between
    write_behind_bytes: int = 8 * limits.MIB  # a body is sent to the disk in pieces of this size
    scan_bytes: int = 8 * limits.MIB  # the window through which recovery reads
    merge_bytes: int = 256 * limits.KIB  # of entries: a step of indexing
    runs_a_tier: int = 4  # that many runs of one size become one
    open_files_max: int = 256  # of sealed segments, for reading

    def __post_init__(self) -> None:
        assert 4096 <= self.seal_bytes <= self.segment_bytes_max < 1 << 32
        assert self.fill_step_bytes % 4096 == 0
        assert self.runs_a_tier >= 2


@dataclass(frozen=True, slots=True)
class Location:
    """Where a block's data stand."""

    stream: str
    number: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """What is known about a segment that is written no more; kept in its run."""

    stream: str
    number: int
    state: str
    bytes: int  # its logical length
    first_commit: int = 0  # commit sequences; 0 and 0 when it has none
    last_commit: int = 0
    root: Cid | None = None  # its last commit record
    before: Cid | None = None  # the commit record that its first one names as the previous
    needs: BodyPosition | None = None  # the furthest body position that its commits name

    @property
    def key(self) -> Key:
        return self.stream, self.number

    def as_state(self, state: str) -> SegmentInfo:
        return replace(self, state=state)


@dataclass(frozen=True, slots=True)
class Row:
    """The state of one segment for the registry (``ingot.ports.SegmentRow``)."""

    stream: str
    number: int
    state: str
    bytes: int
    root: Cid | None
    first_commit: int
    last_commit: int


def row_of(info: SegmentInfo) -> Row:
    return Row(
        info.stream,
        info.number,
        info.state,
        info.bytes,
        info.root,
        info.first_commit,
        info.last_commit,
    )


@dataclass(slots=True)
class Recovered:
    """What a start found."""

    newest: tuple[Cid, CommitRecord] | None = None
    commits: list[tuple[Cid, int]] = field(default_factory=list)
    """CIDs and sequences in order, of the segments that were open when the last process ended."""
    scanned: int = 0  # segments
    scanned_bytes: int = 0
    problems: list[str] = field(default_factory=list)  # what, where, what to do


@dataclass(slots=True)
class Statistics:
    """Counters since the start, for metrics."""

    commits: int = 0
    commit_bytes: int = 0
    log_syncs: int = 0
    bodies: int = 0
    body_bytes: int = 0
    body_syncs: int = 0
    repeated: int = 0  # frames not written because the open segment has them
    poisoned: int = 0  # segments closed for good after a failed write or sync
    rotations: int = 0
    rotations_waited: int = 0  # for the next segment, which was not ready
    sealed: int = 0
    seal_failures: int = 0
    merged: int = 0  # runs
    units: int = 0  # made
    salvaged: int = 0  # of those, from what is good of a damaged segment
    rebuilt: int = 0  # segments indexed again
    retired: int = 0  # segments whose file was removed
    fetched: int = 0  # blocks of cold segments, from the network
    fetched_bytes: int = 0
    rejected: int = 0  # blocks that came with wrong bytes
    cache_hits: int = 0  # blocks of cold segments, from the cache on disk
    reads: int = 0
    reads_waited: int = 0  # for the disk
    verified: int = 0  # blocks hashed at their first read
    corrupt: int = 0
