"""The chain of commit records from segment to segment, as a start follows it.

A segment ends at the record that the first record of the next one names. What it has behind that
was refused, and written again as the first commit of the next one: void. A record that the next
segment names although its batch cannot be read whole was acknowledged: damage. A break between
segments is reported, not cut.

Used by ``recovery``, which gives it the log segments that hold commits in the order of their
numbers. Pure but for what it reports.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ingot.messages import Cid
from ingot.segments.format import file_name
from ingot.segments.model import QUARANTINED, SegmentInfo
from ingot.segments.scan import Scanned


@dataclass(slots=True)
class Link:
    """A segment in the chain; ``scanned`` while it is not sealed and its end may still move."""

    info: SegmentInfo
    scanned: Scanned | None = None

    @property
    def before(self) -> Cid | None:
        return self.info.before if self.scanned is None else self.scanned.segment.before


class Chain:
    """Knows its last link, and those before it that a later segment could still void."""

    def __init__(self, problem: Callable[[str], None]) -> None:
        self._problem = problem
        self._links: list[Link] = []

    @property
    def tip(self) -> SegmentInfo | None:
        """The segment that holds the newest commit."""
        return self._links[-1].info if self._links else None

    def follow(self, link: Link) -> None:
        """Join the next segment, and end those before it where its first record says. Afterwards
        all before it is settled."""
        gone = self._join(link)
        if gone:
            del self._links[-gone:]
        for previous in self._links:
            if previous.scanned is not None:
                previous.info, previous.scanned = previous.scanned.segment.info(), None
        self._links = [*self._links[-1:], link]

    def _join(self, link: Link) -> int:
        """How many links at the end are void as a whole."""
        before, gone = link.before, 0
        for previous in reversed(self._links):
            scanned = previous.scanned
            if scanned is None:
                if previous.info.root != before:
                    self._broken(previous.info.last_commit, link)
                return gone
            place = next((n for n, f in enumerate(scanned.commits) if f.cid == before), -1)
            if place < 0 and any(found.cid == before for found in scanned.later):
                self._damaged(scanned, before)
                return gone
            named = place >= 0 or previous.before == before
            # A refused batch is written again under its number. Behind another number stands what
            # was acknowledged, in a segment that could not be read at the start before this one.
            behind = scanned.commits[place + 1 :]
            if not named or (behind and behind[0].sequence != link.info.first_commit):
                self._broken(previous.info.last_commit, link)
                return gone
            void(scanned, place + 1)
            if place >= 0:
                return gone
            gone += 1
        if before is not None:
            self._broken(0, link)
        return gone

    def judge_tail(self, scanned: Scanned) -> None:
        """One torn batch is the end. What stands behind a second one was acknowledged."""
        segment = scanned.segment
        last = segment.info() if scanned.commits else self.tip or segment.info()
        known = last.last_commit
        later = [found for found in scanned.later if found.sequence > known]
        torn = all(found.sequence == known + 1 or found.previous == last.root for found in later)
        if scanned.unreadable or not torn:
            newest = max((found.sequence for found in later), default=known)
            scanned.salvage()
            self._problem(
                f"{segment.name} is damaged at byte {scanned.stop}: commit {known + 1} and perhaps "
                f"more cannot be read whole, and commits up to {newest} stand in the file. The "
                "segment is quarantined and what verifies is served. Check the disk; restore what "
                "is missing."
            )

    def _damaged(self, scanned: Scanned, named: Cid | None) -> None:
        scanned.salvage(named)
        self._problem(
            f"{scanned.segment.name} is damaged at byte {scanned.stop}: its last commit, which the "
            "next segment continues, cannot be read whole. The segment is quarantined and what "
            "verifies is served. Check the disk; restore what is missing."
        )

    def _broken(self, last: int, link: Link) -> None:
        self._problem(
            f"the chain of commits breaks before {file_name(*link.info.key)}: it begins with "
            f"commit {link.info.first_commit}, and the log before it ends with {last}. A segment "
            "is missing or damaged; what is here is served. Put it back, or restore."
        )


def void(scanned: Scanned, keep: int) -> None:
    """Drop the commits from ``keep`` on: their batches stand in a later segment."""
    segment = scanned.segment
    if keep == len(scanned.commits) or segment.state == QUARANTINED:
        return
    segment.end = segment.synced = scanned.commits[keep].start
    segment.tail = True
    del scanned.commits[keep:]
    segment.first_commit = segment.last_commit = 0
    segment.root = segment.before = segment.needs = None
    for found in scanned.commits:
        segment.note_commit(found.cid, found.sequence, found.previous)
        segment.note_needs(found.bodies)
