"""Finds what is good in a file, and the commit records in it, by reading it frame by frame.

The chain of commits leads from each record to the one before it. Behind a record that is damaged it
is broken, and where the file STORE is lost nobody knows whose segments these are. What is found
here was hashed; which of two records of one number stands is for whoever follows the chain to say.

Called by the store, by compaction of a damaged segment, and by ``ingot restore``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import NamedTuple

from ingot._speedups import frame
from ingot.errors import FormatError
from ingot.limits import STORE_LOOK_BYTES
from ingot.messages import CommitRef
from ingot.ports import FileSystem
from ingot.segments import format
from ingot.segments.commit import decode_commit
from ingot.segments.disk import Disk
from ingot.segments.model import SegmentInfo
from ingot.segments.scan import SEARCH_FACTOR, Window


class Run(NamedTuple):
    """Good frames one behind the other: [start, stop) in the file. ``data`` are their bytes, valid
    until the next step; ``marks`` the commit records among them."""

    start: int
    stop: int
    data: memoryview
    marks: Sequence[frame.Mark]


async def good_frames(disk: Disk, info: SegmentInfo) -> AsyncGenerator[Run, None]:
    """All frames of a segment that have their hash, in runs, in the order of the file; damage is
    passed over. OSError where the file cannot be read at all."""
    fd = disk.files.open(disk.path(format.file_name(*info.key)))
    try:
        end = min(info.bytes, disk.files.size(fd))
        window, at, budget = Window(disk, fd, end, []), format.HEADER_BYTES, SEARCH_FACTOR * end
        while at < end and budget > 0:
            await window.move(at)
            tally = frame.Tally()
            length, _, wanted, marks = frame.scan(
                window.buffer, 0, window.stop, format.COMMIT_MARK, tally
            )
            if length:
                yield Run(at, at + length, memoryview(window.buffer)[:length], marks)
            at += length
            await asyncio.sleep(0)
            if at < end and not (wanted and length and not window.at_end):
                at, budget = await _next_good(window, at + 1, end, budget)
    finally:
        disk.close_quietly(fd, format.file_name(*info.key))


async def commits_in(disk: Disk, info: SegmentInfo, store: bytes) -> list[CommitRef]:
    """The commits of ``store`` whose records in one segment can be read, in the order of the file;
    damage is passed over. OSError where the file cannot be read at all."""
    found: list[CommitRef] = []
    async with aclosing(good_frames(disk, info)) as runs:
        async for run in runs:
            for mark in run.marks:
                try:
                    record = decode_commit(mark[3])
                except FormatError:
                    continue  # of a later version; the chain says what is missing
                if record.store == store:
                    found.append(CommitRef(record.sequence, mark[2]))
    return found


async def _next_good(window: Window, at: int, end: int, budget: int) -> tuple[int, int]:
    """Where the next good frame begins, and what is left of the bytes to hash in vain."""
    while at < end and budget > 0:
        await window.move(at)
        offset, budget = frame.find(window.buffer, 0, window.stop, budget)
        if offset >= 0:
            return window.base + offset, budget
        if window.at_end:
            break
        at = window.base + max(1, window.stop - frame.FRAME_BYTES_MAX)
    return end, budget


def stores_in(files: FileSystem, directory: str) -> dict[bytes, int]:
    """Store ids that the commits of a segment directory name, and in how many files. Reads the
    beginning of each; OSError where the directory cannot be read."""
    stores: dict[bytes, int] = {}
    for name in sorted(files.listdir(directory)):
        parsed = format.parse_name(name)
        if parsed is None or parsed[0] not in format.COMMITS:
            continue
        try:
            fd = files.open(f"{directory}/{name}")
        except OSError:
            continue  # no file of ours, or damaged: others will tell
        store = None
        try:
            for length in STORE_LOOK_BYTES:
                store = store or _store_of(files.pread(fd, length, format.HEADER_BYTES))
        except OSError:
            pass  # as above
        finally:
            files.close(fd)
        if store is not None:
            stores[store] = stores.get(store, 0) + 1
    return stores


def _store_of(data: bytes) -> bytes | None:
    """The store that the first good commit record names."""
    at, budget = 0, SEARCH_FACTOR * len(data)
    while 0 <= at < len(data) and budget > 0:
        end, _, _, marks = frame.scan(data, at, len(data), format.COMMIT_MARK, frame.Tally())
        for mark in marks:
            try:
                return decode_commit(mark[3]).store
            except FormatError:
                continue
        if end >= len(data) or not any(data[end : end + format.PAGE_BYTES]):
            return None  # zeros: it was prepared and not yet used from here on
        at, budget = frame.find(data, end + 1, len(data), budget)
    return None
