"""The native threads of one server, and how a coroutine waits for one of them.

Five lanes: ``log`` writes and syncs commits, ``body`` writes large chunks, ``read`` reads what is
not in the page cache, ``hash_a`` and ``hash_b`` digest. Completions arrive through one eventfd a
lane, read by the loop; ``ingot.server`` makes and closes the lanes, the segment store and body
ingest submit to them.

Whoever waits for a job waits for its end: a cancellation is delivered afterwards, because until
then the job's buffers belong to the lane.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import Any

from ingot import ports
from ingot._speedups import digest, lane
from ingot.limits import HASH_OFFLOAD_BYTES

NAMES = ("log", "body", "read", "hash_a", "hash_b")


class Completion(asyncio.Future[None]):
    """A future that no cancellation reaches: a task awaiting it is cancelled once it is done."""

    def cancel(self, msg: Any | None = None) -> bool:
        return False


async def settled(futures: Iterable[asyncio.Future[Any]]) -> None:
    """Return when all are done, whatever they came to; a cancellation is delivered then too."""
    cancelled: asyncio.CancelledError | None = None
    pending = [future for future in futures if not future.done()]
    while pending:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled = error
        pending = [future for future in pending if not future.done()]
    if cancelled is not None:
        raise cancelled


class Lanes:
    """Five lanes on ``loop``, which must be the running one. See ``ingot.ports.Lanes``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lanes: dict[str, lane.Lane] = {}
        try:
            for name in NAMES:
                made = self._lanes[name] = lane.Lane(f"ingot-{name.replace('_', '-')}")
                loop.add_reader(made.fileno(), made.drain)
        except BaseException:
            self.close()
            raise
        self.log: ports.Lane = self._lanes["log"]
        self.body: ports.Lane = self._lanes["body"]
        self.read: ports.Lane = self._lanes["read"]
        self.hash_a: ports.Lane = self._lanes["hash_a"]
        self.hash_b: ports.Lane = self._lanes["hash_b"]

    def in_flight(self) -> dict[str, tuple[int, int]]:
        """Jobs and bytes submitted and not yet delivered, by lane, for metrics."""
        return {name: (each.jobs, each.bytes) for name, each in self._lanes.items()}

    async def run(self, lane: ports.Lane, job: ports.Job) -> None:
        """Submit ``job`` and wait for its completion; OSError when a step failed."""
        completion = Completion(loop=self._loop)
        lane.submit(job, lambda _: completion.set_result(None))
        await completion
        if job.error:
            raise OSError(job.error, os.strerror(job.error))

    async def sha256(self, data: Any) -> bytes:
        """The sha2-256 of ``data``; on a hash lane when it is large."""
        view = memoryview(data)
        if view.nbytes < HASH_OFFLOAD_BYTES:
            return digest.sha256(view)
        hasher = digest.Hasher("sha256")
        chosen = min(self._lanes["hash_a"], self._lanes["hash_b"], key=lambda each: each.bytes)
        job = chosen.job()
        job.update(hasher, view)
        await self.run(chosen, job)
        return hasher.digest()

    def close(self) -> None:
        """Finish every job, deliver its completion, join the threads. Blocks for as long as the
        jobs take, so a server closes its lanes when nothing is under way any more."""
        failure: BaseException | None = None
        for each in self._lanes.values():
            if each.fileno() >= 0:
                # Before the descriptor is closed: uvloop aborts the process otherwise.
                self._loop.remove_reader(each.fileno())
            try:
                each.close()
            except BaseException as error:
                failure = failure or error
        if failure is not None:
            raise failure
