"""Reads blocks where the index says they stand, and hashes each at its first read after a start.

What is in the page cache is read on the loop; the rest on a lane, which hashes it too. A copy that
is damaged or cannot be read is passed over, and reported, where another segment has the block. A
block of which no file here has a good copy, and a cold segment has one, is fetched (``cold``). A
miss is NotFound only once every index run was audited, for a damaged run could hide the block.

Used by the store.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence

from ingot._speedups import digest
from ingot.errors import Corruption, IngotError, NotFound, Unavailable
from ingot.limits import (
    HASH_OFFLOAD_BYTES,
    PASSED_OVER_TOLD_MAX,
    READ_MANY_BLOCKS,
    READ_MANY_BYTES,
)
from ingot.messages import Cid
from ingot.segments import format
from ingot.segments.cold import ColdReader
from ingot.segments.disk import Disk, OpenFiles, unavailable
from ingot.segments.index import Place, SegmentIndex
from ingot.segments.model import Key


class Reader:
    """See the module's head. ``audit`` is the running audit of the runs, if any."""

    def __init__(
        self, disk: Disk, segments: SegmentIndex, files: OpenFiles, cold: ColdReader
    ) -> None:
        self.audit: asyncio.Task[None] | None = None
        self._told: set[Cid] = set()  # of these a copy was passed over
        self._disk = disk
        self._index = segments
        self._files = files
        self._cold = cold

    def read_now(self, cid: Cid) -> bytes | None:
        """The block, or None where it takes waiting: for the disk, a long hash, another copy, the
        audit or the network."""
        found = self._index.find(cid)
        if found is None:
            if self._index.doubtful or self._index.cold_place(cid) is not None:
                return None
            raise NotFound(f"block {cid.hex()} is in no segment")
        key, offset, length, verified = found
        disk = self._disk
        try:
            data = disk.files.pread_now(self._files.fd(key), length, offset)
        except OSError:
            return None  # the waiting read meets it again, and says so
        if data is not None:
            disk.statistics.reads += 1
            if not verified:
                return self._checked(cid, data)
        return data

    def read_many_now(self, cids: Sequence[Cid]) -> list[bytes | None]:
        """As ``read_now``, of the first of these blocks: as many as one step should read. None also
        for a block that is nowhere, and for all of them when the disk has an error: ``read`` meets
        it again, and says so."""
        places, unverified = self._index.find_many(cids[:READ_MANY_BLOCKS])
        fds: dict[Key, int] = {}
        keys = {place[0] for place in places if place is not None}
        if not keys.isdisjoint(self._index.absent):
            absent = self._index.absent
            places = [None if one is not None and one[0] in absent else one for one in places]
            keys -= absent
        try:
            for key in keys:
                fds[key] = self._files.pin(key)
            found = self._disk.files.pread_many_now(fds, places, READ_MANY_BYTES)
        except OSError:
            return [None] * len(places)
        finally:
            for key in fds:
                self._files.unpin(key)
        self._disk.statistics.reads += len(found) - found.count(None)
        for at in unverified:
            data = found[at] if at < len(found) else None
            if data is not None:
                found[at] = self._checked(cids[at], data)
        return found

    def _checked(self, cid: Cid, data: bytes) -> bytes | None:
        """The data of the copy that ``lookup`` gives, hashed for the first time; None: damaged, but
        there may be a better one."""
        place = self._index.lookup(cid)
        assert place is not None, "found a moment ago"
        found = digest.sha256(data)
        if found != cid[4:]:
            if len(self._index.places(cid)) > 1 or self._index.doubtful:
                return None
            if self._index.cold_place(cid) is not None:
                return None
            raise self._corrupt(place, cid, found)
        self._verified(place, cid)
        return data

    async def read(self, cid: Cid) -> bytes:
        """The block, from whichever copy is good."""
        data = self.read_now(cid)
        if data is not None:
            return data
        return await self._any_copy(cid)

    async def read_hashed(self, cid: Cid) -> bytes:
        """As ``read``, and hashed here although it was since the start: for who acts on the block
        in a way that cannot be taken back."""
        data = await self.read(cid)
        found = digest.sha256(data)
        if found != cid[4:]:
            place = self._index.lookup(cid)
            if place is not None:
                raise self._corrupt(place, cid, found)
            raise Corruption(f"block {cid.hex()}", f"sha256 {cid[4:].hex()}", found.hex())
        return data

    async def read_part(self, cid: Cid, start: int, into: memoryview) -> None:
        """Bytes of the block from ``start`` on; the whole of it is hashed if it was not yet."""
        place = self._index.lookup(cid)
        if place is not None and place.verified and start + into.nbytes <= place.length:
            self._disk.statistics.reads += 1
            try:
                if into.nbytes > HASH_OFFLOAD_BYTES or not self._copy_now(place, into, start):
                    await self._load(place, into, start, None)
                return
            except (Corruption, Unavailable):
                if len(self._index.places(cid)) < 2:
                    raise
        data = await self._any_copy(cid)
        if start + into.nbytes > len(data):
            raise Corruption(
                f"block {cid.hex()}", f"bytes up to {start + into.nbytes}", f"{len(data)} bytes"
            )
        into[:] = memoryview(data)[start : start + into.nbytes]

    def _copy_now(self, place: Place, into: memoryview, start: int) -> bool:
        """Copy a little from memory: quicker than the way to a lane and back."""
        try:
            fd = self._files.fd(place.key)
            data = self._disk.files.pread_now(fd, into.nbytes, place.offset + start)
        except OSError:
            return False
        if data is None:
            return False
        into[:] = data
        return True

    async def raw(self, key: Key, offset: int, length: int) -> bytes:
        """Bytes of a segment's file as they lie there. OSError."""
        data, lane = bytearray(length), self._disk.lanes.read
        fd = self._files.pin(key)
        try:
            job = lane.job()
            job.pread(fd, offset, data)
            await self._disk.run(lane, job)
        finally:
            self._files.unpin(key)
        return bytes(data)

    # -- copies ------------------------------------------------------------------------------------

    async def _any_copy(self, cid: Cid) -> bytes:
        while True:
            failure: IngotError | None = None
            places = self._index.places(cid)
            for place in places:
                try:
                    data = await self._whole(place, cid)
                except (Corruption, Unavailable) as error:
                    failure = error
                    continue
                if failure is not None:
                    self._passed_over(cid, failure)
                return data
            tried = {place.key for place in places}
            if any(place.key not in tried for place in self._index.places(cid)):
                continue  # a unit took the place of its segments meanwhile
            if self._index.cold_place(cid) is not None:
                data = await self._cold.read(cid)
                if failure is not None:
                    self._passed_over(cid, failure)
                return data
            if self.audit is None or self.audit.done():
                raise failure or NotFound(f"block {cid.hex()} is in no segment")
            await asyncio.wait([self.audit])

    async def _whole(self, place: Place, cid: Cid) -> bytes:
        data = bytearray(place.length)
        self._disk.statistics.reads += 1
        hasher = None if place.verified else digest.Hasher("sha256")
        await self._load(place, memoryview(data), 0, hasher)
        if hasher is not None:
            found = hasher.digest()
            if found != cid[4:]:
                raise self._corrupt(place, cid, found)
            self._verified(place, cid)
        return bytes(data)

    async def _load(
        self, place: Place, into: memoryview, start: int, hasher: digest.Hasher | None
    ) -> None:
        disk, lane = self._disk, self._disk.lanes.read
        disk.statistics.reads_waited += 1
        try:
            fd = self._files.pin(place.key)
        except OSError as error:
            raise self._unreadable(place, error) from error
        try:
            job = lane.job()
            job.pread(fd, place.offset + start, into)
            if hasher is not None:
                job.update(hasher, into)
            await disk.run(lane, job)
        except OSError as error:
            if error.errno == errno.EIO and disk.files.size(fd) < place.offset + place.length:
                where = f"{format.file_name(*place.key)} at byte {place.offset}"
                short = f"a file of {disk.files.size(fd)}"
                raise Corruption(where, f"{place.length} bytes", short) from error
            raise self._unreadable(place, error) from error
        finally:
            self._files.unpin(place.key)

    # -- outcomes ----------------------------------------------------------------------------------

    def _verified(self, place: Place, cid: Cid) -> None:
        self._disk.statistics.verified += 1
        place.verify(cid)

    def _corrupt(self, place: Place, cid: Cid, found: bytes) -> Corruption:
        self._disk.statistics.corrupt += 1
        where = f"{format.file_name(*place.key)} at byte {place.offset}, {place.length} bytes"
        return Corruption(where, f"sha256 {cid[4:].hex()}", f"sha256 {found.hex()}")

    def _passed_over(self, cid: Cid, failure: IngotError) -> None:
        """Say so, once for each block."""
        if cid not in self._told and len(self._told) < PASSED_OVER_TOLD_MAX:
            self._told.add(cid)
            self._disk.problem(f"{failure}; another copy of block {cid.hex()} is good and is used")

    def _unreadable(self, place: Place, error: OSError) -> Unavailable:
        where = f"{format.file_name(*place.key)} at byte {place.offset} cannot be read"
        return unavailable(where, error, self._disk.directory)
