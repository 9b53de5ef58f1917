"""What lies in a space: which blobs are segments, which are indexes of them, which are neither.

The space lists its blobs by hash and size alone. Where each lies its upload service says, and its
first bytes tell what it is:

    our header, the placeholder for a root              a body segment
    our header, a link; an index archive's first block  an index archive
    our header, a link; anything else                   a unit, if its root is a commit record
    anything else                                       somebody else's

A blob that cannot be read is set aside, with why. Indexes are only looked at for the segments that
they speak of; ``contents`` reads them again, so that what is held does not grow with the blocks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, TypeVar

from ingot.codec import varint
from ingot.codec.cid import CID_BYTES, DAG_CBOR_PREFIX
from ingot.errors import Corruption, FormatError, IngotError, NotFound, Unavailable
from ingot.forge import index
from ingot.forge.blob import BlobRef
from ingot.forge.errors import Malformed, Refused
from ingot.forge.holdings import Holdings
from ingot.forge.query import Location
from ingot.limits import (
    FORGE_BREAKER_OPEN_S,
    FORGE_INDEX_BYTES_MAX,
    RESTORE_LOOKS,
    RESTORE_PROGRESS_S,
    RESTORE_READ_BYTES,
)
from ingot.messages import Cid
from ingot.restore.target import Say
from ingot.segments import format
from ingot.segments.adopt import Contents
from ingot.segments.scan import SEARCH_FACTOR

T = TypeVar("T")

HEAD_BYTES: Final = 256  # of a blob, that tell what it is
# How the first block of an index archive begins: a shard's, or that of the root of an empty one.
_OF_INDEX: Final = (b"\x82\x58\x22\x12\x20", b"\xa1\x75" + index.FORMAT.encode())


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob of the space, and where nodes say that they have it."""

    ref: BlobRef
    places: Sequence[Location]

    def __str__(self) -> str:
        return f"{self.ref} ({self.ref.size} bytes)"


@dataclass(frozen=True, slots=True)
class Unread:
    """``passing``: it may be had later, as far as the answers tell."""

    blob: Blob
    why: str
    passing: bool


@dataclass(slots=True)
class Survey:
    """``archives`` are the index archives by the multihash of the segment that they speak of."""

    units: list[tuple[Blob, Cid]] = field(default_factory=list)  # with the root in the header
    bodies: list[Blob] = field(default_factory=list)
    archives: dict[bytes, list[Blob]] = field(default_factory=dict)
    unread: list[Unread] = field(default_factory=list)
    foreign: int = 0
    blobs: int = 0

    def add_unread_segments(self, damage: list[str]) -> None:
        """What cannot be read and has an index is a segment: what lies in it is known, and comes
        back when it can be read. It stands as one of bodies, for its commits cannot be read."""
        for blob, why in ((one.blob, one.why) for one in self.unread):
            known = blob.ref.digest in self.archives
            held = "; its index is here, so what it holds can be read when it can" * known
            damage.append(f"{blob} cannot be read: {why}{held}")
            if known:
                self.bodies.append(blob)


class Progress:
    """Says how far a long step is, now and then."""

    def __init__(self, say: Say, what: str, count: int) -> None:
        self._say, self._what, self._count = say, what, count
        self._done, self._said = 0, time.monotonic()

    def step(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._said >= RESTORE_PROGRESS_S:
            self._said = now
            self._say(f"{self._done} of {self._count} {self._what}")


async def survey(space: Holdings, say: Say) -> Survey:
    """All blobs of the space. Unavailable where it cannot be listed."""
    refs: list[BlobRef] = []
    async with aclosing(space.blobs()) as pages:
        async for page in pages:
            refs += page
    say(f"the space has {len(refs)} blobs; each is looked at")
    found = Survey(blobs=len(refs))
    progress = Progress(say, "blobs looked at", len(refs))

    async def look(ref: BlobRef) -> None:
        await _look(space, ref, found)
        progress.step()

    await together(look, refs)
    refused, found.unread = found.unread, []
    if refused:
        say(f"{len(refused)} blobs could not be read; they are tried once more")
        # A node that failed a few times is left alone for so long, and it may have others.
        await asyncio.sleep(FORGE_BREAKER_OPEN_S if any(one.passing for one in refused) else 0)
        for one in refused:
            await _look(space, one.blob.ref, found)
    # As the space lists them, whatever came first: an interrupted restore numbers them again.
    order = {ref.digest: place for place, ref in enumerate(refs)}
    found.units.sort(key=lambda one: order[one[0].ref.digest])
    found.bodies.sort(key=lambda blob: order[blob.ref.digest])
    found.unread.sort(key=lambda one: order[one.blob.ref.digest])
    for archives in found.archives.values():
        archives.sort(key=lambda blob: order[blob.ref.digest])
    return found


async def together(work: Callable[[T], Awaitable[None]], items: Iterable[T]) -> None:
    """``work`` on each, ``RESTORE_LOOKS`` at a time. What one raises ends all."""
    left = iter(items)

    async def run() -> None:
        for item in left:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(RESTORE_LOOKS):
                group.create_task(run())
    except ExceptionGroup as several:
        raise several.exceptions[0] from several


async def _look(space: Holdings, ref: BlobRef, found: Survey) -> None:
    places: Sequence[Location] = ()
    try:
        places = await space.places(ref)
        head = await space.read(places, 0, min(ref.size, HEAD_BYTES))
        blob = Blob(ref, places)
        kind, root = kind_of(head)
        if kind == format.RUN and ref.size > FORGE_INDEX_BYTES_MAX:
            found.foreign += 1
        elif kind == format.RUN:
            for shard in await _shards(space, blob):
                found.archives.setdefault(shard, []).append(blob)
        elif kind == format.UNIT:
            found.units.append((blob, root))
        elif kind == format.BODY:
            found.bodies.append(blob)
        else:
            found.foreign += 1
    except (NotFound, Unavailable, Refused) as error:
        passing = isinstance(error, Unavailable)
        found.unread.append(Unread(Blob(ref, places), str(error), passing))


def kind_of(head: bytes) -> tuple[str, Cid]:
    """What a blob is by its beginning, and the root in its header: "unit", "body", "run" for an
    index archive, "" for none of ours. What claims to be a unit has yet to prove it."""
    if len(head) <= format.HEADER_BYTES or not format.is_header(head):
        return "", b""
    root = format.root_of(head)
    if root == format.PLACEHOLDER:
        return format.BODY, root
    try:
        _, cid = varint.decode(head, format.HEADER_BYTES)
    except FormatError:
        return "", b""
    data = cid + CID_BYTES
    if head.startswith(DAG_CBOR_PREFIX, cid) and head[data:].startswith(_OF_INDEX):
        return format.RUN, root
    return (format.UNIT, root) if root.startswith(DAG_CBOR_PREFIX) else ("", b"")


async def _shards(space: Holdings, archive: Blob) -> list[bytes]:
    """The segments that an index archive speaks of."""
    return list(await _index(space, archive))


async def _index(space: Holdings, archive: Blob) -> index.Index:
    """Unavailable also for an archive that is none, though it has its hash."""
    data = await space.whole(archive.ref, archive.places)
    loop = asyncio.get_running_loop()
    try:
        return await loop.run_in_executor(None, index.decode, data)
    except (FormatError, Corruption, Malformed) as error:
        raise Unavailable(f"it looks like an index archive and is none: {error}") from error


async def contents(
    space: Holdings, blob: Blob, archives: Sequence[Blob], damage: list[str], remarks: list[str]
) -> Contents:
    """Where the blocks of a segment stand: what its archives say and, where they leave something
    out, what the segment itself has there. Whoever may store a blob may store an archive that lies:
    where they contradict one another or the segment, it alone is believed, and read whole. What
    remains is a line of ``damage``."""
    found = Contents(blob.ref.size)
    for archive in archives:
        try:
            found.add((await _index(space, archive)).get(blob.ref.digest, {}))
        except IngotError as error:
            remarks.append(f"the index {archive} of {blob} was not taken: {error}")
    why = found.disputed() or await _fill_gaps(space, blob, found, damage, remarks)
    if not why:
        return found
    remarks.append(f"the indexes of {blob} are not taken, for {why}: it is read instead")
    found = Contents(blob.ref.size)
    try:
        whole = format.HEADER_BYTES, blob.ref.size
        for start, stop in await _fill(space, blob, found, *whole, SEARCH_FACTOR * blob.ref.size):
            damage.append(f"bytes {start} to {stop} of {blob} are no frames that have their hash")
    except (NotFound, Unavailable) as error:
        damage.append(f"{blob} has no index that can be believed, and cannot be read: {error}")
    return found


async def _fill_gaps(
    space: Holdings, blob: Blob, found: Contents, damage: list[str], remarks: list[str]
) -> str:
    """Enter what no index speaks of. Why the indexes cannot be right, or ""."""
    gaps = found.gaps()
    if gaps and any(stop - start > CID_BYTES + 1 for start, stop in gaps):
        missing = sum(stop - start for start, stop in gaps)
        remarks.append(f"the index of {blob} lacks {missing} bytes of it; they are read instead")
    for start, stop in gaps:
        try:
            if await _fill(space, blob, found, start, stop, 0):
                return f"bytes {start} to {stop}, which they leave out, are no frames"
        except (NotFound, Unavailable) as error:
            damage.append(f"bytes {start} to {stop} of {blob} have no index: {error}")
    return ""


async def _fill(
    space: Holdings, blob: Blob, found: Contents, start: int, stop: int, budget: int
) -> list[tuple[int, int]]:
    """Enter the frames of a piece of the segment; what of it is none. ``budget`` bounds the bytes
    that are hashed in vain to find the next good one."""
    bad: list[tuple[int, int]] = []
    held = b""
    at = start  # of the first byte of ``held``
    while at < stop:
        behind = at + len(held)
        if len(held) < RESTORE_READ_BYTES and behind < stop:
            end = min(stop, behind + RESTORE_READ_BYTES)
            held += await space.read(blob.places, behind, end)
        taken = found.read(held, at)
        if not taken:
            taken, budget = found.search(held, budget)
            if taken < 0:  # a frame may begin here that ends behind what is held
                taken = len(held) if at + len(held) == stop else len(held) // 2
            if bad and bad[-1][1] == at:
                bad[-1] = bad[-1][0], at + taken
            else:
                bad.append((at, at + taken))
            if not budget:
                return [*bad[:-1], (bad[-1][0], stop)]
        at, held = at + taken, held[taken:]
    return bad
