"""What a gateway runs where a Forge network is named: its segments go there, and are read back.

    open ──seal by age──> sealed ──compaction──> units ──shipper──> confirmed ──retiring──> cold
                                   bodies ──────────────┘

Nothing of a request waits for any of it but the read of a block whose file is not here any more.
With the network away everything waits and goes on by itself. Attached and begun by
``ingot.server`` once the segments are open, ended before they are closed; with the lease gone it
does no more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ingot import limits
from ingot.bucket.compaction import Compaction
from ingot.bucket.pins import Pins
from ingot.cold import NetworkSource, Shipped, locations_of
from ingot.forge.client import ForgeClient
from ingot.messages import Shipment
from ingot.ports import Clock, Registry
from ingot.segments.model import COLD, Key, SegmentInfo, row_of
from ingot.segments.retiring import Retiring
from ingot.segments.store import SegmentStore
from ingot.shipper import Shipper
from ingot.shipper.lifecycle import INDEXED


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippingSettings:
    """``warm_bytes``: what of confirmed segments may stay here. Others in seconds."""

    warm_bytes: int
    seal_age_s: float = limits.SEAL_AGE_S
    unit_age_s: float = limits.UNIT_AGE_S
    round_s: float = limits.RETENTION_ROUND_S


class Shipping:
    """See the module's head. ``indexed``: the network has an indexing service."""

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
        indexed: bool,
        cache: str,
        log: logging.Logger,
    ) -> None:
        self._client = client
        self._segments = segments
        self._settings = settings
        self._cache = cache
        self._log = log
        self._ledger = _Ledger(registry)
        self._compaction = Compaction(
            segments, pins, clock, limits.UNIT_SOURCE_BYTES, settings.unit_age_s
        )
        self.shipper = Shipper(segments, registry, token, client.upload)
        self._retiring = Retiring(
            segments, self._ledger, settings.warm_bytes, clock, settings.round_s
        )
        self._source = NetworkSource(
            client.retriever, self._ledger.shipped, indexed, clock.monotonic
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def attach(self) -> None:
        """Have blocks of cold segments read from the network; a start may need some."""
        await self._client.open()
        await self._segments.open_cache(self._cache, limits.COLD_CACHE_BYTES)
        self._segments.fetch = self._source

    async def start(self) -> None:
        await self.shipper.start()
        await self._retiring.start()
        pause_s = min(1.0, self._settings.seal_age_s)
        self._tasks = [
            asyncio.create_task(self._seal(pause_s)),
            asyncio.create_task(self._compaction.run(pause_s)),
        ]

    async def stop(self) -> None:
        """Leave everything as it is; what was under way begins anew at the next start."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._retiring.stop()
        await self.shipper.stop()
        await self._client.close()

    def changed(self) -> None:
        """The state of a segment has."""
        self.shipper.wake()

    async def _seal(self, pause_s: float) -> None:
        while True:
            await asyncio.sleep(pause_s)
            self._segments.seal_aged(self._settings.seal_age_s)


class _Ledger:
    """The registry's shipments, as retiring and cold reads ask for them."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._shipped: dict[Key, Shipped] = {}  # confirmed ones do not change

    async def confirmed(self) -> Collection[Key]:
        return {(row.stream, row.number) for row in await self._rows() if row.state == INDEXED}

    async def note_cold(self, info: SegmentInfo) -> None:
        row: Any = row_of(info.as_state(COLD))
        await self._registry.put_segment(row)

    async def shipped(self, key: Key) -> Shipped | None:
        if key not in self._shipped:
            await self._rows()
        return self._shipped.get(key)

    async def _rows(self) -> list[Shipment]:
        rows = await self._registry.shipments()
        for row in rows:
            key = (row.stream, row.number)
            if row.state == INDEXED and key not in self._shipped:
                self._shipped[key] = Shipped(row.digest, locations_of(row.locations))
        return rows
