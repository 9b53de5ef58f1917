"""What a gateway runs where a Forge network is named: its segments go there, and are read back.

    open ──seal by age──> sealed ──compaction──> units ──shipper──> confirmed ──retiring──> cold
                                   bodies ──────────────┘

Nothing of a request waits for any of it but the read of a block whose file is not here any more.
With the network away everything waits and goes on by itself. Attached by ``ingot.server`` before
the segments are opened, ended before they are closed; with the lease gone it does no more.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from ingot import limits
from ingot.bucket.compaction import Compaction
from ingot.bucket.pins import Pins
from ingot.bucket.reach import Reach
from ingot.cold import NetworkSource, Shipments
from ingot.errors import ConfigError, Unavailable
from ingot.forge.breaker import State
from ingot.forge.client import ForgeClient
from ingot.ports import Clock, Registry
from ingot.segments.coldnotes import ColdNotes
from ingot.segments.commit import decode_commit
from ingot.segments.model import COLD, Key, Row, SegmentInfo, row_of
from ingot.segments.retiring import Retiring
from ingot.segments.store import SegmentStore
from ingot.shipper.lifecycle import INDEXED
from ingot.shipper.publish import Ours, Publisher
from ingot.shipper.shipper import Shipper
from ingot.standing import Teller


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippingSettings:
    """``warm_bytes``: what all segments should take here. ``cache_bytes``: for what is read back.
    Others in seconds."""

    warm_bytes: int
    cache_bytes: int = limits.COLD_CACHE_BYTES
    seal_age_s: float = limits.SEAL_AGE_S
    unit_age_s: float = limits.UNIT_AGE_S
    round_s: float = limits.RETENTION_ROUND_S

    @property
    def unit_bytes(self) -> int:
        """Of log segments that become one unit: the newest unit stays, so it must not be all that
        may."""
        return min(limits.UNIT_SOURCE_BYTES, self.warm_bytes // 4)


class Shipping:
    """See the module's head. ``indexed``: the network has an indexing service. ``directory`` is the
    data directory."""

    def __init__(
        self,
        client: ForgeClient,
        segments: SegmentStore,
        registry: Registry,
        token: bytes,
        pins: Pins,
        clock: Clock,
        settings: ShippingSettings,
        *,
        store: bytes,
        incarnation: int,
        record: Callable[[Row], Awaitable[None]],
        indexed: bool,
        directory: str,
        notes: ColdNotes,
    ) -> None:
        self._client = client
        self._segments = segments
        self._registry, self._token = registry, token
        self._settings = settings
        self._cache = os.path.join(directory, "cache")
        shipments = Shipments(registry, INDEXED)
        self._compaction = Compaction(
            segments, pins, clock, settings.unit_bytes, settings.unit_age_s
        )
        ours = Ours(segments, store, incarnation, decode_commit)
        publisher = Publisher(client.uploads, client.holdings.root_block, ours)
        self.shipper = Shipper(
            segments,
            registry,
            token,
            client.upload,
            publisher=publisher,
            reach=Reach(segments),
        )
        ledger = _Ledger(shipments, registry, record, notes)
        self._retiring = Retiring(segments, ledger, settings.warm_bytes, clock, settings.round_s)
        self._source = NetworkSource(client.retriever, shipments.shipped, indexed, clock.monotonic)
        self._teller = Teller(directory, self.shipper.standing, clock)
        self._tasks: list[asyncio.Task[None]] = []

    async def attach(self) -> None:
        """Have blocks of cold segments read from the network; a start may need some. ConfigError
        where another network has them."""
        ours = self._client.service, self._client.identity.space
        theirs = await self._registry.claim_forge(self._token, *ours)
        if theirs != ours:
            raise ConfigError(
                f"what was shipped from here is in space {theirs[1]} of the upload service "
                f"{theirs[0]}, and now space {ours[1]} of {ours[0]} is named: nothing is served. "
                "Name the ones of before; for another network begin with an empty data directory "
                "and database, and copy with an S3 client"
            )
        await self._client.open()
        await self._segments.open_cache(self._cache, self._settings.cache_bytes)
        self._segments.fetch = self._source

    @property
    def running(self) -> bool:
        """Between ``start`` and ``stop``."""
        return bool(self._tasks)

    @property
    def warm_bytes(self) -> int:
        """Over it the files of confirmed segments go."""
        return self._settings.warm_bytes

    def breakers(self) -> dict[str, State]:
        """How each service of the network that was called stands."""
        return self._client.breakers()

    async def start(self) -> None:
        await self.shipper.start()
        await self._retiring.start()
        pause_s = min(1.0, self._settings.seal_age_s)
        self._tasks = [
            asyncio.create_task(self._seal(pause_s)),
            asyncio.create_task(self._compaction.run(pause_s)),
            asyncio.create_task(self._teller.run()),
            asyncio.create_task(self._retire_no_more()),
        ]

    async def stop(self) -> None:
        """Leave everything as it is; what was under way begins anew at the next start. May be
        repeated."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
            await self._teller.tell()
        await self._retiring.stop()
        await self.shipper.stop()

    async def close(self) -> None:
        """Nothing is read from the network any more."""
        await self._client.close()

    def changed(self) -> None:
        """The state of a segment has."""
        self.shipper.wake()

    async def _retire_no_more(self) -> None:
        """Whatever ended the shipper ends retiring too: the network is not ours to rely on then."""
        await self.shipper.ended.wait()
        await self._retiring.stop()

    async def _seal(self, pause_s: float) -> None:
        while True:
            await asyncio.sleep(pause_s)
            self._segments.seal_aged(self._settings.seal_age_s)


class _Ledger:
    """What retiring asks and says. ``record`` returns when a segment's state is in the registry,
    behind those that were to be written before: an older one must not come later."""

    def __init__(
        self,
        shipments: Shipments,
        registry: Registry,
        record: Callable[[Row], Awaitable[None]],
        notes: ColdNotes,
    ) -> None:
        self._notes = notes
        self._shipments = shipments
        self._registry = registry
        self._record = record

    async def confirmed(self) -> Collection[Key]:
        """Not those of which the network has not all: a bad sector may read well again, and who
        salvages needs the file."""
        damaged = {(one.stream, one.number) for one in await self._registry.damage() if one.spans}
        return await self._shipments.confirmed() - damaged

    async def note_cold(self, info: SegmentInfo) -> None:
        row = await self._shipments.row(info.key)
        if row is None:
            raise Unavailable(f"nothing is known of {info.stream} {info.number} any more")
        try:
            await asyncio.to_thread(self._notes.keep, [row])
        except OSError as error:
            raise Unavailable(f"what is cold cannot be noted: {error}") from error
        await self._record(row_of(info.as_state(COLD)))
