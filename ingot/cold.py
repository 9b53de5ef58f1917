"""Files of cold segments, read from the Forge network: ``ingot.ports.ColdSource``.

Guarantees: every provider that is known to have a file is asked before it is said that nobody has
it, and the indexing service after them, for places that are not known here. What it names is
remembered for a minute, so that a stream of blocks asks it once. Hashes nothing.

A provider is a storage node, by its DID. ``ingot.server`` puts this behind the segment store.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ingot.errors import FormatError, IngotError, NotFound, Unavailable
from ingot.forge import query, token
from ingot.forge.errors import Malformed
from ingot.forge.query import Location
from ingot.forge.reading import Reading
from ingot.forge.retrieve import Retriever
from ingot.limits import COLD_LOCATED_MAX, COLD_LOCATED_S
from ingot.messages import Shipment
from ingot.ports import Registry

Key = tuple[str, int]  # stream and number

log: Final = logging.getLogger("ingot.cold")


@dataclass(frozen=True, slots=True)
class Shipped:
    """A segment's file in the network: its multihash, and where nodes say that they have it."""

    digest: bytes
    locations: Sequence[Location]


def locations_of(tokens: Iterable[bytes]) -> list[Location]:
    """The locations in ``/assert/location`` tokens as a shipment keeps them. They were verified
    when they came; one that cannot be read any more is reported and left out."""
    found = []
    for data in tokens:
        try:
            found.append(query.location_of(token.decode(data)))
        except (Malformed, FormatError) as error:
            log.error("a location that was kept cannot be read: %s", error)
    return found


class Shipments:
    """The registry's shipments as reading and retiring need them: ``shipped`` for a
    ``NetworkSource``, ``confirmed`` for a ledger. ``state`` is that of a confirmed shipment. The
    rows are held, so a cold read asks the registry only about a segment that it was never told of.
    """

    def __init__(self, registry: Registry, state: str) -> None:
        self._registry = registry
        self._state = state
        self._rows: dict[Key, Shipment] = {}
        self._shipped: dict[Key, Shipped] = {}  # of those that were asked for
        self._reading = asyncio.Lock()

    async def confirmed(self) -> set[Key]:
        """As the registry has it now. Unavailable."""
        await self._read()
        return {key for key, row in self._rows.items() if row.state == self._state}

    async def shipped(self, key: Key) -> Shipped | None:
        """Unavailable where the registry would have to be asked and cannot be."""
        if key not in self._rows or not self._rows[key].locations:
            async with self._reading:  # whoever waited here has an answer already
                if key not in self._rows or not self._rows[key].locations:
                    await self._read()
        row = self._rows.get(key)
        if row is not None and key not in self._shipped:
            self._shipped[key] = Shipped(row.digest, locations_of(row.locations))
        return self._shipped.get(key)

    async def row(self, key: Key) -> Shipment | None:
        """As it was read last."""
        if key not in self._rows:
            await self._read()
        return self._rows.get(key)

    async def _read(self) -> None:
        rows = await self._registry.shipments()
        self._shipped.clear()
        self._rows = {(row.stream, row.number): row for row in rows}


class NetworkSource:
    """See the module's head. ``shipped`` tells of a segment from what is known here, None for one
    that was never shipped; ``indexed`` says whether the network has an indexing service."""

    def __init__(
        self,
        retriever: Retriever,
        shipped: Callable[[Key], Awaitable[Shipped | None]],
        indexed: bool,
        monotonic: Callable[[], float],
    ) -> None:
        self._retriever = retriever
        self._shipped = shipped
        self._indexed = indexed
        self._monotonic = monotonic
        self._located: OrderedDict[bytes, tuple[float, list[Location]]] = OrderedDict()
        self._locating = asyncio.Lock()

    async def providers(self, key: Key) -> Sequence[str]:
        shipped = await self._shipped(key)
        places = shipped.locations if shipped is not None else ()
        return list(dict.fromkeys(place.node for place in places))

    async def read(
        self, key: Key, start: int, stop: int, provider: str | None = None
    ) -> NetworkReading:
        assert start < stop
        shipped = await self._shipped(key)
        if shipped is None:
            raise NotFound(f"{key[0]} segment {key[1]} was never shipped")
        places = [place for place in shipped.locations if provider in (None, place.node)]
        more = self._more(shipped) if self._indexed and provider is None else None
        return NetworkReading(self._retriever, places, start, stop, more)

    def _more(self, shipped: Shipped) -> Callable[[], Awaitable[list[Location]]]:
        async def more() -> list[Location]:
            known = {place.urls for place in shipped.locations}
            places = await self._locate(shipped.digest)
            return [place for place in places if place.urls not in known]

        return more

    async def _locate(self, digest: bytes) -> list[Location]:
        async with self._locating:  # an answer may be large, and is everybody's
            until, places = self._located.get(digest, (0.0, []))
            if self._monotonic() < until:
                return places
            # A location that covers part of a blob speaks of the blob's own bytes, as a range does.
            places = await self._retriever.locate(digest)
            self._located[digest] = self._monotonic() + COLD_LOCATED_S, places
            self._located.move_to_end(digest)
            while len(self._located) > COLD_LOCATED_MAX:
                self._located.popitem(last=False)
            return places


class NetworkReading:
    """A ``Reading`` of the known places, and behind it one of those that the indexer names."""

    def __init__(
        self,
        retriever: Retriever,
        places: Sequence[Location],
        start: int,
        stop: int,
        more: Callable[[], Awaitable[list[Location]]] | None,
    ) -> None:
        self._retriever, self._places, self._stop, self._more = retriever, places, stop, more
        self._failure: IngotError | None = None  # of the known places
        self._begin(start)

    @property
    def position(self) -> int:
        return self._reading.position

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._reading)
        except (NotFound, Unavailable) as error:
            more, self._more = self._more, None
            if more is None:
                raise
            await self._go_on(more, error)
        try:
            return await anext(self._reading)
        except NotFound as error:
            raise self._both(error) from error

    async def _go_on(
        self, more: Callable[[], Awaitable[list[Location]]], error: IngotError
    ) -> None:
        """Read on from places that were not tried."""
        self._failure = error
        try:
            places = await more()
        except Unavailable as silent:
            raise Unavailable(f"{error}; and where else it may be: {silent}") from silent
        if not places:
            raise error
        self._places = places
        self._begin(self.position)

    def _begin(self, start: int) -> None:
        self._began = start
        self._reading: Reading = self._retriever.read(self._places, start, self._stop - 1)

    def _both(self, error: NotFound) -> IngotError:
        """That nobody has it is only known where each one said so."""
        if isinstance(self._failure, NotFound):
            return NotFound(f"{self._failure}; {error}")
        return Unavailable(f"{self._failure}; {error}")

    def reject(self, since: int, why: str) -> None:
        if since >= self._began:
            self._reading.reject(since, why)
            return
        # A known place gave the first of these bytes: those it goes on with give them all again.
        self._reading.close()
        self._begin(since)

    async def aclose(self) -> None:
        await self._reading.aclose()
