"""The log stream: group commits, each one write and one sync (design section 5, stages 3 and 4).

Guarantees: ``commit`` returns when the frames and the commit record that counts them are durable;
before that no reader finds them. Sequences are gapless. After a failed write or sync the segment is
closed for good and the batch, whose bytes are still held, is written once more to another one; if
that fails too the sequence is not consumed and the next commit tries afresh.

Whatever a failed attempt left on the disk proves nothing: the next record that does become durable
names the same predecessor, and recovery voids what the chain does not go through.

Called by the store, one commit at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256

from ingot._speedups import frame
from ingot.codec import cid as cids
from ingot.errors import RequestError, Unavailable
from ingot.limits import PINS_MAX
from ingot.messages import BodyPosition, Cid, CommitRecord, HeadMove
from ingot.segments import format
from ingot.segments.commit import encode_commit
from ingot.segments.disk import Disk, unavailable
from ingot.segments.seal import Sealer
from ingot.segments.segment import Preparer, Segment

ATTEMPTS = 2
_PAGE = memoryview(bytes(format.PAGE_BYTES))


@dataclass(frozen=True, slots=True)
class Batch:
    """What one commit is asked to make durable."""

    lease: bytes
    blocks: Sequence[tuple[Cid, bytes]]
    moves: Sequence[HeadMove]
    bodies: Sequence[BodyPosition]
    checkpoint: Cid | None
    pins: Collection[Cid]


class LogStream:
    """The one writer of log segments. ``sequence`` and ``previous`` are of the last commit."""

    def __init__(self, disk: Disk, preparer: Preparer, sealer: Sealer) -> None:
        self.sequence = 0
        self.previous: Cid | None = None
        self.current: Segment | None = None
        self._disk = disk
        self._preparer = preparer
        self._sealer = sealer
        self._store = b""
        self._incarnation = 0
        self._busy = False
        self._behind: list[Segment] = []  # closed since the last commit

    def start(self, store: bytes, incarnation: int, sequence: int, previous: Cid | None) -> None:
        self._store, self._incarnation = store, incarnation
        self.sequence, self.previous = sequence, previous

    async def commit(self, batch: Batch) -> tuple[Cid, CommitRecord]:
        assert not self._busy, "commits go one at a time"
        self._busy = True
        try:
            for attempt in range(ATTEMPTS):
                try:
                    return await self._attempt(batch)
                except OSError as error:
                    if attempt + 1 == ATTEMPTS:
                        what = "the log cannot be written"
                        raise unavailable(what, error, self._disk.directory) from error
            raise AssertionError("unreachable")
        finally:
            self._busy = False

    async def _attempt(self, batch: Batch) -> tuple[Cid, CommitRecord]:
        segment = self.current or await self._open()
        cid, record, data = self._pack(segment, batch)
        if segment.end + len(data) > self._disk.settings.segment_bytes_max:
            if segment.empty:
                raise RequestError(f"a batch of {len(data)} bytes is larger than a segment may be")
            self._retire(segment)
            segment = await self._open()
            cid, record, data = self._pack(segment, batch)
        lane = self._disk.lanes.log
        end = segment.end + len(data)
        job = lane.job()
        job.pwrite(segment.fd, segment.end, data)
        # The page is written whole, for else its rest, zeros too, would have to be read first.
        job.pwrite(segment.fd, end, _PAGE[: -end % len(_PAGE)])
        job.fdatasync(segment.fd)
        try:
            await self._disk.run(lane, job)
        except OSError as error:
            self._poison(segment, error)
            raise
        self._publish(segment, cid, record, data)
        return cid, record

    def _pack(self, segment: Segment, batch: Batch) -> tuple[Cid, CommitRecord, bytes]:
        """The batch as it stands in ``segment``. A block that the segment has is not repeated; one
        that another segment has is, since segments are dropped one by one."""
        fresh = segment.table.fresh(batch.blocks)
        self._disk.statistics.repeated += len(batch.blocks) - len(fresh)
        record = CommitRecord(
            store=self._store,
            incarnation=self._incarnation,
            lease=batch.lease,
            segment=segment.number,
            sequence=self.sequence + 1,
            time_ms=self._disk.clock.now_ms(),
            previous=self.previous,
            frames=len(fresh),
            frames_digest=sha256(b"".join(fresh)).digest(),
            checkpoint=batch.checkpoint,
            bodies=tuple(batch.bodies),
            moves=tuple(batch.moves),
            pins=self._kept(batch.pins),
        )
        block = encode_commit(record)
        cid = cids.of_structure(block)
        return cid, record, frame.pack([*fresh.items(), (cid, block)])

    def _kept(self, pins: Collection[Cid]) -> tuple[Cid, ...]:
        """Pinned blocks of the segments behind the last commit: a request that is still under way
        may refer to them, whatever their own segment's roots say."""
        tables = [segment.table for segment in self._behind]
        kept = [cid for cid in pins if any(table.find(cid) is not None for table in tables)]
        if len(kept) > PINS_MAX:
            raise Unavailable("requests under way refer to too many blocks of one segment", 1)
        return tuple(sorted(kept))

    def _publish(self, segment: Segment, cid: Cid, record: CommitRecord, data: bytes) -> None:
        """The sync has returned: readers may find the frames, the chain goes on from the record."""
        segment.table.add_frames(data, 0, len(data), segment.end, True)
        segment.end += len(data)
        segment.synced = segment.end
        segment.note_commit(cid, record.sequence, record.previous)
        segment.note_needs(record.bodies)
        self._behind.clear()
        self.sequence, self.previous = record.sequence, cid
        if segment.first_commit == record.sequence:
            segment.since = self._disk.clock.monotonic()
            self._sealer.announce(segment)
        statistics = self._disk.statistics
        statistics.commits += 1
        statistics.log_syncs += 1
        statistics.commit_bytes += len(data)
        if segment.end >= self._disk.settings.seal_bytes:
            self._rotate(segment)

    def seal_aged(self, age_s: float) -> None:
        """Close the open segment if it has held something for longer, and nothing is under way."""
        segment = self.current
        if segment is not None and not segment.empty and not self._busy:
            if self._disk.clock.monotonic() - segment.since >= age_s:
                self._rotate(segment)

    def _rotate(self, segment: Segment) -> None:
        """Seal it in the background and go on in the next one, if that is ready."""
        self._retire(segment)
        self.current = self._preparer.take_now()
        if self.current is not None:
            self._sealer.opened(self.current)

    async def _open(self) -> Segment:
        """The next segment, waiting for it where it is not ready."""
        segment = self._preparer.take_now()
        if segment is None:
            self._disk.statistics.rotations_waited += 1
            segment = await self._preparer.take()
        self.current = segment
        self._sealer.opened(segment)
        return segment

    def _retire(self, segment: Segment) -> None:
        self.current = None
        self._behind.append(segment)
        self._disk.statistics.rotations += 1
        self._sealer.submit(segment)

    def _poison(self, segment: Segment, error: OSError) -> None:
        self._disk.statistics.poisoned += 1
        self._disk.problem(
            f"{segment.name}: a write or sync at byte {segment.end} failed ({error.strerror}); "
            "the segment was closed and the batch goes to another one. Check the disk."
        )
        segment.poison(error)
        self.current = None
        self._behind.append(segment)
        self._sealer.submit(segment)

    async def close(self) -> None:
        """Seal the open segment; nothing is committed any more."""
        segment, self.current = self.current, None
        if segment is not None:
            self._sealer.submit(segment)
