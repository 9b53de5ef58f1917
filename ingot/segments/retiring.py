"""Keeps the files of segments within a budget: retires what ``retention`` chooses, one by one.

    chosen ──a provider gives parts of this very file?──> noted in the registry
           ──> its file goes (``retire``)

Guarantees: a file goes only if the network confirmed it, a provider gave parts of it a moment ago
that are those of the file here (its end, and others that nobody can foresee), and the registry
knows that it is cold; in that order. A provider that says it has not, or gives otherwise, what was
confirmed is believed about no file until it gives that; this process remembers it. Whatever fails
is reported and tried again at the next round; nothing is lost by waiting.

Begun by ``ingot.server``.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ingot.errors import Corruption, IngotError, NotFound, Unavailable
from ingot.limits import RETENTION_ROUND_S
from ingot.ports import Clock
from ingot.segments import format
from ingot.segments.model import Key, SegmentInfo
from ingot.segments.retention import Warm, chosen, probes
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


@dataclass(frozen=True, slots=True)
class _Part:
    """``data`` stands at byte ``start`` of a segment's file."""

    key: Key
    start: int
    data: bytes


class Retiring:
    """``budget`` is in bytes, of all segment files together; ``random`` gives so many bytes."""

    def __init__(
        self,
        store: SegmentStore,
        ledger: Ledger,
        budget: int,
        clock: Clock,
        round_s: float = RETENTION_ROUND_S,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._budget = budget
        self._clock = clock
        self._round_s = round_s
        self._random = random
        self._seen: dict[Key, int] | None = None  # when a segment was first seen, in seconds
        self._owing: dict[str, _Part] = {}  # providers, and what each one did not give
        self._reminded: set[str] = set()  # of those, the ones that were asked in this round
        self._damaged: set[Key] = set()  # files here that are not what they were
        self._told: set[str] = set()  # what failed, of which that was said
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
        left = {one.key: one for one in warm if one.key not in self._damaged}
        used, count = store.bytes_here(), 0
        self._reminded.clear()
        while going := chosen(list(left.values()), used, self._budget):
            for one in going:  # another goes for each that has to stay
                del left[one.key]
                if not await self._retrievable(infos[one.key]):
                    continue
                await self._ledger.note_cold(infos[one.key])
                await store.retire(one.key)
                used -= one.bytes
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
        """Whether a provider has the file now, as far as parts of it tell."""
        assert self._store.fetch is not None
        parts = []
        try:
            for start, stop in probes(info.bytes, self._random):
                data = await self._store.part_of(info, start, stop - start)
                parts.append(_Part(info.key, start, data))
        except OSError as error:
            self._say(_name(info.key), f"{_name(info.key)} cannot be read: {error}")
            return False
        for provider in await self._store.fetch.providers(info.key):
            if await self._paid(provider) and await self._probe(info, provider, parts):
                return True
            if info.key in self._damaged:
                break
        return False

    async def _paid(self, provider: str) -> bool:
        """Whether it owes nothing. What it owes it is asked for once a round."""
        part = self._owing.get(provider)
        if part is None:
            return True
        if provider in self._reminded:
            return False
        self._reminded.add(provider)
        try:
            if await self._given(part, provider) != part.data:
                return False
        except (NotFound, Unavailable):
            return False
        del self._owing[provider]
        self._told.discard(provider)
        log.warning("%s gives %s again; its files may go", provider, _name(part.key))
        return True

    async def _probe(self, info: SegmentInfo, provider: str, parts: Sequence[_Part]) -> bool:
        """Compare parts of the file with what the provider gives for them."""
        name = _name(info.key)
        for part in parts:
            try:
                same = await self._given(part, provider) == part.data
            except NotFound as error:
                self._doubt(provider, part, f"{provider} has not {name}, it says: {error}")
                return False
            except Unavailable as error:
                self._say(provider, f"{name} could not be read from {provider}: {error}")
                return False
            if not same:
                what = f"{name} reads differently here and at {provider}"
                if await self._bad_here(info):
                    self._damaged.add(info.key)
                    log.error("%s, and it is damaged here. Its file stays; run fsck", what)
                else:
                    self._doubt(provider, part, what)
                return False
        self._told.discard(provider)
        return True

    async def _given(self, part: _Part, provider: str) -> bytes:
        """What the provider gives in the place of ``part``. NotFound, Unavailable."""
        assert self._store.fetch is not None
        stop = part.start + len(part.data)
        reading = await self._store.fetch.read(part.key, part.start, stop, provider)
        there = bytearray()
        try:
            while len(there) < len(part.data):
                piece = await anext(reading, None)
                if piece is None:
                    raise Unavailable(f"{provider} gave fewer bytes than it was asked for")
                there += piece
        finally:
            await reading.aclose()
        return bytes(there)

    async def _bad_here(self, info: SegmentInfo) -> bool:
        """Whether it is the file here that is not what it was."""
        key = info.key
        for segment in self._store.shippable():
            if (segment.stream, segment.number) == key:
                try:
                    _, spans = await self._store.examine(segment)
                except (Corruption, OSError) as error:
                    log.error("%s cannot be read whole: %s", _name(key), error)
                    return True
                return bool(spans)
        return True

    def _doubt(self, provider: str, part: _Part, what: str) -> None:
        self._owing[provider] = part
        self._reminded.add(provider)
        log.error(
            "%s. It was confirmed, so what this provider has is not to be relied on: no file goes "
            "because of it until it gives this one. Ask whoever runs it; what is cold may be lost.",
            what,
        )

    def _say(self, whom: str, what: str) -> None:
        if whom not in self._told:
            self._told.add(whom)
            log.error("%s; its file stays", what)


def _name(key: Key) -> str:
    return format.file_name(*key)
