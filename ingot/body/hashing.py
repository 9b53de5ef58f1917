"""The digests of one body while it arrives, on the hash lanes or in place.

A body needs sha2-256 and MD5 of the whole, sha2-256 of every chunk (its CID), and the checksums
that the client asked for. Spans are fed in order; a span below HASH_OFFLOAD_BYTES is hashed in
place, since handing it over would cost more; a larger one goes to the lanes, which run their jobs
in order, so nobody waits between spans. CRCs are always computed in place: they run at memory
speed.

    one body being hashed     sha2-256 on one lane, MD5 on the other: 1.5 times as fast
    several                   each body on one lane: no lane waits for another

The sha2-256 of the first chunk is that of the whole so far: an object of one chunk is hashed once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from ingot import ports
from ingot._speedups import digest
from ingot.body.checksums import CRCS, SIZES
from ingot.errors import Unavailable
from ingot.limits import HASH_OFFLOAD_BYTES
from ingot.messages import Cid
from ingot.offload import Completion

RAW_PREFIX: Final = b"\x01\x55\x12\x20"  # of a chunk's CID


class HashLanes:
    """Which lane a body uses next; one for all bodies of a server."""

    def __init__(self, first: ports.Lane, second: ports.Lane) -> None:
        self._lanes = (first, second)
        self._bytes = [0, 0]  # handed over and not yet hashed
        self.bodies = 0  # that have jobs in flight

    def choose(self) -> tuple[int, int]:
        """The lane for sha2-256 and the lane for MD5, for a body that has nothing in flight."""
        quiet = 0 if self._bytes[0] <= self._bytes[1] else 1
        return (quiet, 1 - quiet) if self.bodies == 0 else (quiet, quiet)

    def misplaced(self, at: tuple[int, int], own_bytes: int) -> bool:
        """Whether a body with ``own_bytes`` in flight on lanes ``at`` had better choose again."""
        if self.bodies == 1:
            return at[0] == at[1]
        # The other lane would still be the quieter one after the move.
        return at[0] != at[1] or self._bytes[1 - at[0]] + own_bytes < self._bytes[at[0]]

    def submit(
        self,
        number: int,
        hashers: list[digest.Hasher],
        span: memoryview,
        done: Callable[[int, int], None],
    ) -> None:
        """Feed ``span`` to each hasher on a lane; ``done(bytes, errno)`` afterwards."""
        lane = self._lanes[number]
        job = lane.job()
        for hasher in hashers:
            job.update(hasher, span)
        length = span.nbytes * len(hashers)

        def finished(job: ports.Job) -> None:
            self._bytes[number] -= length
            done(length, job.error)

        lane.submit(job, finished)
        self._bytes[number] += length


class ChunkDigest:
    """One chunk: its CID, and when the lanes are done with its bytes."""

    def __init__(self, body: BodyDigests, hasher: digest.Hasher) -> None:
        self.hasher = hasher
        self.jobs = 0
        self._body = body
        self._cid: Cid | None = None

    async def cid(self) -> Cid:
        """The chunk's CID, once the last span that was added is hashed."""
        # Kept, because the first chunk's hasher goes on with the whole.
        while self._cid is None:
            if self.hasher.held:
                await self._body.job_finished()
                continue
            self._body.check()
            self._cid = RAW_PREFIX + self.hasher.digest()
        return self._cid

    async def hashed(self) -> None:
        """Return when no lane reads the chunk's bytes any more."""
        while self.jobs:
            await self._body.job_finished()


class BodyDigests:
    """All digests of one body: ``add`` spans, await ``next_chunk`` between chunks, ``finish``."""

    def __init__(self, lanes: HashLanes, algorithms: tuple[str, ...]) -> None:
        self._lanes = lanes
        self._algorithms = algorithms
        self._crcs = {name: 0 for name in algorithms if name in CRCS}
        self._sha256 = digest.Hasher("sha256")
        self._md5 = digest.Hasher("md5")
        self._sha1 = digest.Hasher("sha1") if "sha1" in algorithms else None
        self._at = (0, 0)  # the lanes of the jobs in flight
        self._bytes = 0
        self._error = 0
        self._turn: Completion | None = None
        self.jobs = 0  # in flight
        self.chunk = ChunkDigest(self, self._sha256)

    def add(self, span: memoryview, last: bool) -> None:
        """Go on over ``span``, part of the current chunk and, if ``last``, the end of it. The bytes
        must stay as they are until the chunk's ``hashed`` returns."""
        for name, crc in self._crcs.items():
            self._crcs[name] = CRCS[name](span, crc)
        chunk = [self.chunk.hasher]
        whole = [] if self.chunk.hasher is self._sha256 else [self._sha256]
        if self._sha1 is not None:
            whole.append(self._sha1)
        if self.jobs == 0:
            if span.nbytes < HASH_OFFLOAD_BYTES:
                for hasher in (*chunk, *whole, self._md5):
                    hasher.update(span)
                return
            self._at = self._lanes.choose()
        first, second = self._at
        # At a chunk's end its CID is awaited, so that the chunk can be written while the rest of
        # the digests are computed: it gets a job of its own.
        jobs = [(first, chunk), (first, whole)] if last else [(first, chunk + whole)]
        if first == second:
            number, rest = jobs.pop()
            jobs.append((number, [*rest, self._md5]))
        else:
            jobs.append((second, [self._md5]))
        for number, hashers in jobs:
            if hashers:
                self._submit(number, hashers, span)

    async def next_chunk(self) -> None:
        """Begin another chunk. Spans of those before may still be on the lanes."""
        if self.chunk.hasher is self._sha256:
            await self.chunk.cid()  # read before the whole goes on
        if self.jobs and self._lanes.misplaced(self._at, self._bytes):
            await self.idle()
        self.chunk = ChunkDigest(self, digest.Hasher("sha256"))

    async def idle(self) -> None:
        """Return when no job is in flight."""
        while self.jobs:
            await self.job_finished()

    async def finish(self) -> tuple[bytes, bytes, dict[str, bytes]]:
        """sha2-256 and MD5 of the whole and the checksums asked for."""
        await self.idle()
        self.check()
        sha256 = self._sha256.digest()
        checksums = {}
        for name in self._algorithms:
            if name in self._crcs:
                checksums[name] = self._crcs[name].to_bytes(SIZES[name], "big")
            elif name == "sha1" and self._sha1 is not None:
                checksums[name] = self._sha1.digest()
            else:
                checksums[name] = sha256
        return sha256, self._md5.digest(), checksums

    async def job_finished(self) -> None:
        """Return when the next of the jobs in flight has finished."""
        if self._turn is None:
            self._turn = Completion()
        await self._turn

    def check(self) -> None:
        """Raise when a lane could not hash."""
        if self._error:
            raise Unavailable(f"a digest failed: {os.strerror(self._error)}")

    def _submit(self, number: int, hashers: list[digest.Hasher], span: memoryview) -> None:
        chunk = self.chunk

        def done(length: int, error: int) -> None:
            chunk.jobs -= 1
            self.jobs -= 1
            self._bytes -= length
            self._lanes.bodies -= self.jobs == 0
            self._error = self._error or error
            turn, self._turn = self._turn, None
            if turn is not None:
                turn.set_result(None)

        self._lanes.submit(number, hashers, span, done)
        self._lanes.bodies += self.jobs == 0
        self.jobs += 1
        chunk.jobs += 1
        self._bytes += span.nbytes * len(hashers)
