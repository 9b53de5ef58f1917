"""Keeps the files of segments within a budget: retires what ``retention`` chooses, one by one.

    chosen ──a provider was read from? else compare the file's tail──> noted in the registry
           ──> its file goes (``retire``)

Guarantees: a file goes only if the network confirmed it, a provider that has it was read from with
success since the start, and the registry knows that it is cold; in that order. Whatever fails is
reported and tried again at the next round; nothing is lost by waiting.

Begun by ``ingot.server``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Final, Protocol

from ingot.errors import IngotError, NotFound, Unavailable
from ingot.limits import RETENTION_PROBE_BYTES, RETENTION_ROUND_S
from ingot.ports import Clock
from ingot.segments import format
from ingot.segments.model import Key, SegmentInfo
from ingot.segments.retention import Warm, chosen
from ingot.segments.store import SegmentStore

log: Final = logging.getLogger("ingot.segments")


class Ledger(Protocol):
    """What the registry knows of segments in the network."""

    async def confirmed(self) -> Collection[Key]:
        """Segments that the network surely has, whole and retrievable."""
        ...

    async def note_cold(self, info: SegmentInfo) -> None:
        """Record durably that the file of this segment may be gone; a start is told so then. After
        whatever ``on_change`` has told of it before: an older state must not take its place."""
        ...


class Retiring:
    """``budget`` is in bytes, of all segment files together."""

    def __init__(
        self,
        store: SegmentStore,
        ledger: Ledger,
        budget: int,
        clock: Clock,
        round_s: float = RETENTION_ROUND_S,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._budget = budget
        self._clock = clock
        self._round_s = round_s
        self._seen: dict[Key, int] | None = None  # when a segment was first seen, in seconds
        self._probed: set[str] = set()  # providers that were read from with success
        self._told: set[str] = set()  # that were not, of which that was said
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        while True:
            try:
                await self.round()
            except IngotError as error:
                log.warning("no files of segments are retired now: %s", error)
            except Exception:
                log.exception("retiring files of segments failed")
            await asyncio.sleep(self._round_s)

    async def round(self) -> int:
        """Retire what is to go now; how many segments that was. IngotError where the registry, the
        network or the disk cannot be reached."""
        store, now = self._store, int(self._clock.monotonic())
        self._warm(store.retirable(), now, ())
        if store.fetch is None or store.bytes_here() <= self._budget:
            return 0
        confirmed = await self._ledger.confirmed()
        infos = {info.key: info for info in store.retirable()}
        warm = self._warm(infos.values(), now, confirmed)
        count = 0
        for one in chosen(warm, store.bytes_here(), self._budget):
            if not await self._retrievable(infos[one.key]):
                continue
            await self._ledger.note_cold(infos[one.key])
            await store.retire(one.key)
            count += 1
        return count

    def _warm(
        self, infos: Collection[SegmentInfo], now: int, confirmed: Collection[Key]
    ) -> list[Warm]:
        """What was there at the start counts as never read, what came later as read when it did."""
        since = 0 if self._seen is None else now
        before = self._seen or {}
        self._seen = {info.key: before.get(info.key, since) for info in infos}
        read = self._store.read_times(now)
        return [
            Warm(
                info.key,
                info.bytes,
                max(self._seen[info.key], read.get(info.key, 0)),
                info.key in confirmed,
            )
            for info in infos
        ]

    # -- probes ------------------------------------------------------------------------------------

    async def _retrievable(self, info: SegmentInfo) -> bool:
        """Whether one who has the file was read from, now or before."""
        assert self._store.fetch is not None
        providers = await self._store.fetch.providers(info.key)
        if not self._probed.isdisjoint(providers):
            return True
        for provider in providers:
            if await self._probe(info, provider):
                self._probed.add(provider)
                self._told.discard(provider)
                return True
        return False

    async def _probe(self, info: SegmentInfo, provider: str) -> bool:
        """Compare the end of the file with what the provider gives for it."""
        source, name = self._store.fetch, format.file_name(*info.key)
        assert source is not None
        length = min(info.bytes, RETENTION_PROBE_BYTES)
        try:
            here = await self._store.tail_of(info, length)
            reading = await source.read(info.key, info.bytes - length, info.bytes, provider)
            there = bytearray()
            try:
                while len(there) < length:
                    there += await anext(reading)
            finally:
                await reading.aclose()
        except (NotFound, Unavailable, OSError, StopAsyncIteration) as error:
            self._say(provider, f"{name} could not be read from {provider}: {error}")
            return False
        if there != here:
            self._say(provider, f"{name} reads differently here and at {provider}. Run fsck.")
            return False
        return True

    def _say(self, provider: str, what: str) -> None:
        if provider not in self._told:
            self._told.add(provider)
            log.error("%s; its file stays", what)
