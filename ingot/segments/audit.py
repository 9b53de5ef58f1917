"""Checks in the background that index runs of earlier processes are what was written.

A start trusts a run's head and reads no more of it. Until its entries have been checked a miss may
be the run's fault. A run that fails the check is replaced by runs made from its segments.

Begun by the store at a start where there are such runs.
"""

from __future__ import annotations

from ingot.segments import format, runfile
from ingot.segments.disk import Disk
from ingot.segments.index import SegmentIndex
from ingot.segments.model import SegmentInfo
from ingot.segments.runfile import OpenRun
from ingot.segments.scan import Scanner
from ingot.segments.seal import Sealer
from ingot.segments.segment import Segment


class Auditor:
    """One pass over the runs that were there at the start."""

    def __init__(self, disk: Disk, segments: SegmentIndex, sealer: Sealer, store: bytes) -> None:
        self._disk = disk
        self._index = segments
        self._sealer = sealer
        self._store = store

    async def run(self) -> None:
        for held in list(self._index.runs):
            if held.audited or held not in self._index.runs:
                continue
            try:
                if await runfile.audit(self._disk, held):
                    continue
                self._disk.problem(
                    f"{held.name} is damaged; its {len(held.infos)} segments are indexed again"
                )
                await self._replace(held)
            except OSError as error:
                self._disk.problem(
                    f"{held.name} could not be checked or replaced ({error.strerror}); it stays in "
                    "use and the next start tries again"
                )

    async def _replace(self, held: OpenRun) -> None:
        runs = self._index.runs
        newer = {key for other in runs[: runs.index(held)] for key in other.keys}
        for info in held.infos:
            if info.key in self._index.absent or info.key in newer:
                continue
            if self._index.info(info.key) == info:
                await self._rebuild(info)
        cold = [info for info in held.infos if info.key in self._index.cold]
        if cold:
            self._disk.problem(
                f"{held.name} stays in use for {len(cold)} cold segments, whose files are not "
                "here: blocks of theirs may not be found. Put the files back, or restore."
            )
            return
        await self._sealer.remove_run(held)

    async def _rebuild(self, info: SegmentInfo) -> None:
        """Scan a sealed segment again and put its run into use."""
        name = format.file_name(*info.key)
        fd = self._disk.files.open(self._disk.path(name))
        try:
            segment = Segment(info.stream, info.number, fd)
            scanned = await Scanner(self._disk, segment, self._store).scan()
        except OSError:
            self._disk.close_quietly(fd, name)
            raise
        if segment.synced < info.bytes:
            self._disk.problem(
                f"{name} is damaged at byte {scanned.stop}; what verifies is served. Check the "
                "disk; restore what is missing."
            )
            scanned.salvage()
        segment.restore(info)
        self._index.add_growing(segment)
        await self._sealer.seal(segment)
        self._disk.statistics.rebuilt += 1
