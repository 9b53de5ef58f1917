"""Ships: takes every sealed file through its states, and moves the watermark behind it.

Guarantees: a file is confirmed only after nodes gave their word for all its bytes and its indexes
are stored; each state is in the registry, under the lease's fence, before the next step begins, and
every step begins anew after a crash at any point, so nothing is forgotten and a blob is stored once
in effect. A file with damage ships as it lies here, and what is bad of it is in the registry before
it is queued; a bucket whose head reaches that keeps its root, the others' advance. A file that
fails waits by itself and is tried again without end; one that can never be shipped is reported, and
holds the watermark and nobody else. Nothing waits for the shipper.

``SHIP_FILES`` files are on their way at a time, in the order of ``lifecycle.in_order``. With the
lease lost, or where the space shows that the store goes on elsewhere (``publish``), it ends by
itself; ``failed`` says so and ``ended`` is set.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ingot import limits
from ingot.errors import (
    Corruption,
    FormatError,
    IngotError,
    LeaseLost,
    Superseded,
    Unavailable,
)
from ingot.forge import index, retry
from ingot.forge.blob import BlobRef, FileRange
from ingot.forge.errors import CircuitOpen, Malformed, Refused, TooLarge
from ingot.forge.retry import RetrySettings
from ingot.forge.upload import UploadClient
from ingot.messages import Damage, SealedSegment, Shipment
from ingot.offload import settled
from ingot.ports import Registry
from ingot.shipper import lifecycle
from ingot.shipper.held import Held
from ingot.shipper.lifecycle import INDEXED, QUEUED, REFUSED, STORED, UNIT, Key
from ingot.shipper.publish import Mark, Publisher
from ingot.shipper.roots import Roots
from ingot.shipper.sources import Block, Reach, Sources

ADVANCE: Final[Key] = ("watermark", 0)
LOAD: Final[Key] = ("registry", 0)
PUBLISH: Final[Key] = ("the space's uploads", 0)
NO_FILES: Final = (ADVANCE, LOAD, PUBLISH)
# Refusals that are about the bytes themselves. Whatever else a service says may be set right there,
# or in our rights, so it is asked again.
FINAL: Final = ("BlobSizeLimitExceeded", "MalformedArguments", "UnsupportedDigestCode")
UNPROVIDED: Final = "InsufficientStorage"  # the service has no provider for the space, as a rule

Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShipperSettings:
    files: int = limits.SHIP_FILES
    indexes: int = limits.SHIP_INDEXES
    backoff_s: float = limits.SHIP_BACKOFF_S
    backoff_max_s: float = limits.SHIP_BACKOFF_MAX_S

    @property
    def backoff(self) -> RetrySettings:
        return RetrySettings(backoff_s=self.backoff_s, backoff_max_s=self.backoff_max_s)


@dataclass(frozen=True, slots=True)
class Standing:
    """How far shipping is, for lists and metrics."""

    files: dict[str, int]  # by state; those whose digest is not known yet count as queued
    bytes: dict[str, int]
    watermark: int
    oldest_ms: int | None  # when the oldest commit was made that Forge does not have; None: none
    problems: list[str]  # what holds something up, in words, as of its last attempt


class Shipper:
    """``wake`` when a segment's state has changed. ``token`` is the lease's, ``reach``
    knows what heads need (``held``)."""

    def __init__(
        self,
        sources: Sources,
        registry: Registry,
        token: bytes,
        upload: UploadClient,
        settings: ShipperSettings | None = None,
        publisher: Publisher | None = None,
        *,
        reach: Reach | None = None,
        random: Callable[[int], bytes] = os.urandom,
        logger: logging.Logger | None = None,
    ) -> None:
        self._sources, self._registry, self._token = sources, registry, token
        self._upload, self._random = upload, random
        self._publisher = publisher  # None: nobody is told of the watermark
        self._settings = settings or ShipperSettings()
        self._logger = logger or logging.getLogger("ingot.shipper")
        self.failed: Exception | None = None  # why it has ended by itself
        self.ended = asyncio.Event()  # and that it has
        self._rows: dict[Key, Shipment] = {}
        self._waiting: list[SealedSegment] = []  # not confirmed and not refused, in order
        self._damage: dict[Key, Damage] = {}  # of files that are queued at least
        self._held = Held(sources, reach, self._rows, self._damage, self._logger)
        self._roots: Roots | None = None  # None: to be read from the registry
        self._watermark = 0
        self._oldest: tuple[int, int] | None = None  # the watermark, and what was found for it
        self._given_up: set[Key] = set()  # refused before they had a row; looked at by a start
        self._doubted: dict[Key, bytes] = {}  # digests that the bytes of queued files had not
        self._loaded = False
        self._looked = False  # for files that are here
        self._behind = True  # the watermark may have to move
        self._unpublished = publisher is not None  # what the space names may be older
        self._active: dict[Key, asyncio.Task[None]] = {}
        self._not_before: dict[Key, float] = {}  # on the loop's clock, as ``_now``
        self._now = 0.0
        self._failures: Counter[Key] = Counter()  # in a row
        self._problems: dict[Key, str] = {}
        self._away = False  # a service could not be had, and nothing went well since
        self._indexing = asyncio.Semaphore(self._settings.indexes)
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns at once: the registry is read in the background."""
        assert self._task is None, "started twice"
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Leave everything as it is; what was under way begins anew next time."""
        tasks = [task for task in (self._task, *self._active.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await settled(tasks)
        self._task = None

    def wake(self) -> None:
        """There may be files to ship that were not there before."""
        self._looked, self._behind = False, True
        self._woken.set()

    @property
    def watermark(self) -> int:
        """The commit up to which Forge has everything."""
        return self._watermark

    def row(self, key: Key) -> Shipment | None:
        """What is known of one file; None where it was never queued."""
        return self._rows.get(key)

    def confirmed(self) -> list[Key]:
        """The files that the network has, whole, with their indexes."""
        return [key for key, row in self._rows.items() if row.state == INDEXED]

    async def standing(self) -> Standing:
        """Reads one segment's commit records, once for each watermark."""
        files: Counter[str] = Counter()
        size: Counter[str] = Counter()
        fresh = [one for one in self._sources.shippable() if _key(one) not in self._rows]
        for state, length in [
            *((row.state, row.bytes) for row in self._rows.values()),
            *((QUEUED, segment.bytes) for segment in fresh),
        ]:
            files[state] += 1
            size[state] += length
        problems = [*self._problems.values(), *self._held.why.values()][
            : limits.SHIP_PROBLEMS_TOLD_MAX
        ]
        oldest = None
        try:
            oldest = await self._age()
        except (IngotError, OSError) as error:
            problems.append(f"the commit behind {self._watermark} cannot be read: {error}")
        return Standing(dict(files), dict(size), self._watermark, oldest, problems)

    async def _age(self) -> int | None:
        watermark = self._watermark
        if self._oldest is None or self._oldest[0] != watermark:
            async with aclosing(self._sources.commits_after(watermark)) as commits:
                async for _, record in commits:
                    self._oldest = watermark, record.time_ms
                    return record.time_ms
            return None
        return self._oldest[1]

    # -- what is done when ------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while self.failed is None:
                self._woken.clear()
                # One time for both: a pause that ends between the two would be seen by neither.
                self._now = asyncio.get_running_loop().time()
                self._begin()
                try:
                    async with asyncio.timeout_at(self._next_time()):
                        await self._woken.wait()
                except TimeoutError:
                    pass
        except Exception as error:
            self._logger.error("shipping ends, by a mistake of ours", exc_info=error)
            self.failed = error
        finally:
            for task in self._active.values():
                task.cancel()
            self.ended.set()

    def _begin(self) -> None:
        """Begin what may begin now."""
        if self._roots is None:
            self._do(LOAD, self._load)
        elif self._behind:
            self._behind = bool(self._ends())
            if self._behind:
                self._do(ADVANCE, self._advance)
        if not self._loaded:
            return
        if self._unpublished:
            self._do(PUBLISH, self._publish)
        if not self._looked:
            self._look()
        under_way = len(self._active.keys() - set(NO_FILES))
        for segment in self._waiting:
            if under_way >= self._settings.files:
                return
            under_way += self._do(_key(segment), partial(self._ship, segment))

    def _next_time(self) -> float | None:
        """When a pause ends."""
        pauses = self._not_before.values()
        return min((until for until in pauses if until > self._now), default=None)

    def _look(self) -> None:
        """See which files are here."""
        self._looked = True
        here = {_key(segment): segment for segment in self._sources.shippable()}
        waiting = []
        for key, segment in here.items():
            row = self._rows.get(key)
            if row is None or row.state in (QUEUED, STORED):
                if key not in self._given_up:
                    waiting.append(segment)
        self._waiting = lifecycle.in_order(waiting)
        for key, row in self._rows.items():
            if row.state in (QUEUED, STORED) and key not in here:
                self._report(key, "it is to be shipped, and not here or damaged")

    def _do(self, key: Key, work: Work) -> bool:
        """Begin ``work``, unless it is under way or waits for its time."""
        if key in self._active:
            return False
        if self._not_before.get(key, 0.0) > self._now:
            return False
        self._active[key] = asyncio.create_task(self._attempt(key, work))
        return True

    async def _attempt(self, key: Key, work: Work) -> None:
        try:
            await work()
        except (LeaseLost, Superseded) as error:
            self._report(key, f"shipping has ended: {error}")
            self.failed = error
        except Exception as error:
            await self._failed(key, error)
        else:
            self._succeeded(key)
        finally:
            self._active.pop(key, None)
            self._woken.set()

    def _succeeded(self, key: Key) -> None:
        self._failures.pop(key, None)
        self._not_before.pop(key, None)
        self._problems.pop(key, None)
        if self._away:
            self._away = False
            self._logger.warning("shipping goes on")

    async def _failed(self, key: Key, error: Exception) -> None:
        """Wait before the next attempt, or give the file up."""
        if isinstance(error, CircuitOpen):
            self._pause(key, error.retry_after_s)  # nothing was tried
            self._problems[key] = f"{_name(key)}: {error}"
            return
        row = self._rows.get(key)
        if isinstance(error, Corruption) and row is not None and row.state == QUEUED:
            final = key in self._doubted  # it changes under us; else it was damaged since
            self._doubted[key] = row.digest
        else:
            final = _is_final(error) and key not in NO_FILES
        if final:
            self._report(key, f"it cannot be shipped: {error}")
            self._given_up.add(key)
            self._looked = False
            row = row and lifecycle.become(row, REFUSED)
        else:
            self._failures[key] += 1
            failures = self._failures[key]
            self._pause(key, retry.wait_s(self._settings.backoff, failures, self._random))
            if isinstance(error, Unavailable):
                self._tell_away(error)
                self._logger.info("%s: %s; attempt %d", _name(key), error, failures)
                self._problems[key] = f"{_name(key)}: {error}"
            elif isinstance(error, IngotError | OSError):
                self._report(key, str(error) + _remedy(error))
            else:
                self._logger.error("%s: a mistake of ours", _name(key), exc_info=error)
                self._problems[key] = f"{_name(key)}: {error!r}"
            row = row and lifecycle.fail(row)
        if row is not None:
            await self._note(row)

    async def _note(self, row: Shipment) -> None:
        """Keep what failed. Where that fails too, a count of attempts is lost, or a refusal will
        be heard once more."""
        key = row.stream, row.number
        self._rows[key] = row
        try:
            await self._registry.put_shipment(self._token, row)
        except LeaseLost as error:
            self.failed = error
        except IngotError as error:
            self._logger.info("%s: %s", _name(key), error)

    def _tell_away(self, error: Unavailable) -> None:
        """Once, until something goes well again."""
        if not self._away:
            self._away = True
            self._logger.warning(
                "shipping waits: %s; what is sealed stays here, and is tried again", error
            )

    def _pause(self, key: Key, seconds: float) -> None:
        self._not_before[key] = asyncio.get_running_loop().time() + seconds

    def _report(self, key: Key, text: str) -> None:
        """Tell once what a person may have to set right."""
        text = f"{_name(key)}: {text}"
        if self._problems.get(key) != text:
            self._problems[key] = text
            self._logger.error("%s", text)

    # -- the steps --------------------------------------------------------------------------------

    async def _load(self) -> None:
        """What the registry knows."""
        rows = await self._registry.shipments()
        watermark = await self._registry.forge_watermark()
        held = await self._registry.forge_held()
        roots = Roots(watermark, await self._registry.forge_roots(), held)
        if not self._loaded:
            for damage in await self._registry.damage():
                self._damage[damage.stream, damage.number] = damage
            for row in rows:
                self._rows[row.stream, row.number] = lifecycle.resume(row)
            self._loaded = True
        self._watermark, self._roots = watermark, roots

    async def _ship(self, segment: SealedSegment) -> None:
        """Take one file as far as it goes."""
        key = _key(segment)
        row = self._rows.get(key)
        if row is None or (row.state == QUEUED and self._doubted.get(key) == row.digest):
            row = await self._enqueue(segment)
        if row.bytes != segment.bytes:
            raise Corruption(_name(key), f"the {row.bytes} bytes it had", segment.bytes)
        if row.state == QUEUED:
            with self._sources.open_file(segment) as fd:
                source = FileRange(fd, 0, segment.bytes)
                places = await self._upload.add(BlobRef(row.digest, row.bytes), source)
            row = await self._put(lifecycle.store(row, [place.claim.data for place in places]))
        if row.state == STORED:
            async with self._indexing:
                published = [
                    await self._upload.publish_index(archive)
                    for archive in await self._archives(segment, row.digest)
                ]
            await self._put(lifecycle.confirm(row, [one.blob.digest for one in published]))
            self._waiting = [one for one in self._waiting if _key(one) != key]
            self._behind = True

    async def _enqueue(self, segment: SealedSegment) -> Shipment:
        digest, spans = await self._sources.examine(segment)
        if spans or segment.lacking or _key(segment) in self._damage:  # which may be over
            await self._put_damage(Damage(segment.stream, segment.number, spans))
        if spans or segment.lacking:
            bad = sum(stop - start for start, stop in spans)
            self._logger.error(
                "%s is damaged and ships without %s. Buckets that need what is bad keep the roots "
                "that Forge has of them. Check the disk; put back what is missing.",
                *(_name(_key(segment)), f"{bad} bytes of it" if bad else "blocks that it lacks"),
            )
        return await self._put(lifecycle.enqueue(segment, digest))

    async def _put_damage(self, damage: Damage) -> None:
        await self._registry.put_damage(self._token, damage)
        self._damage[damage.stream, damage.number] = damage

    async def _put(self, row: Shipment) -> Shipment:
        await self._registry.put_shipment(self._token, row)
        self._rows[row.stream, row.number] = row
        self._failures.pop((row.stream, row.number), None)
        return row

    async def _archives(self, segment: SealedSegment, digest: bytes) -> list[bytes]:
        blocks: list[Block] = []
        damage = self._damage.get(_key(segment))
        spans = damage.spans if damage is not None else ()
        async with aclosing(self._sources.blocks_of(segment, spans)) as found:
            async for some in found:
                blocks += some
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, index.archives, digest, blocks)

    # -- the watermark ----------------------------------------------------------------------------

    def _ends(self) -> list[int]:
        bodies = self._sources.body_numbers()
        return lifecycle.watermarks(self._rows.values(), bodies, self._watermark, self._damage)

    async def _advance(self) -> None:
        """Move the watermark, unit by unit, and the roots with it."""
        roots = self._roots
        assert roots is not None
        try:
            while ends := self._ends():
                end = ends[0]
                await self._fold(roots, end)
                moved, held = await self._held.divide(roots)
                await self._registry.advance_forge(self._token, end, moved, held)
                roots.settle(held)
                self._watermark = end
                self._unpublished = self._publisher is not None
            self._behind = False
        except BaseException:
            self._roots = None  # what stands is read again: an answer may have been lost
            raise
        self._logger.info("Forge has everything up to commit %d", self._watermark)

    async def _publish(self) -> None:
        """Have the space name the watermark, or only see what it names where there is none yet."""
        assert self._publisher is not None
        self._unpublished = False
        try:
            await self._publisher.publish(await self._mark())
        except BaseException:
            self._unpublished = True
            raise

    async def _mark(self) -> Mark | None:
        """None where the registry knows of no unit that ends at the watermark."""
        watermark = self._watermark
        units = [row for row in self._rows.values() if row.stream == UNIT]
        unit = next((row for row in units if row.last_commit == watermark), None)
        if unit is None:
            return None
        async with aclosing(self._sources.commits_after(watermark - 1)) as commits:
            async for cid, record in commits:
                if record.sequence == watermark:
                    return Mark(cid, unit.digest, unit.indexes[0] if unit.indexes else None)
                break
        raise Corruption("the log's commits", f"one of sequence {watermark}", "another, or none")

    async def _fold(self, roots: Roots, end: int) -> None:
        """Follow the commits up to ``end``."""
        async with aclosing(self._sources.commits_after(roots.commit)) as commits:
            async for cid, record in commits:
                if record.sequence > end:
                    break
                roots.take(cid, record)
                for lost in self._held.lost(record):
                    await self._put_damage(lost)
                    self._logger.error(
                        "%s, which commit %d needs, is nowhere. Buckets that need it keep the "
                        "roots that Forge has of them. Put the file back, and start again.",
                        *(_name((lost.stream, lost.number)), record.sequence),
                    )
                if record.sequence == end:
                    return
        raise Corruption(
            "the log's commits", f"one of sequence {end}", f"none after {roots.commit}"
        )


def _is_final(error: Exception) -> bool:
    """Whether the next attempt can only come to the same."""
    if isinstance(error, Refused):
        return error.name in FINAL
    return isinstance(error, Corruption | FormatError | Malformed | TooLarge)


def _remedy(error: Exception) -> str:
    if isinstance(error, Refused) and error.name == UNPROVIDED:
        return ". The service does not provide for the space: see 'ingot space provision --help'"
    return ""


def _key(segment: SealedSegment) -> Key:
    return segment.stream, segment.number


def _name(key: Key) -> str:
    return f"{key[0]} {key[1]}" if key not in NO_FILES else key[0]
