"""One question to the indexing service: which claims and indexes lead to some blocks.

    standard             equals, location and index claims, and the indexes themselves
    location             location claims of the multihash itself
    index_or_location    as standard, without equals claims
    standard_compressed  in place of an index, a location claim of the indexer's own with the range

An index that is known has to be fetched, by the delegations of whoever asks. One that cannot be is
passed over if another has the block too, and is an error (Unavailable) otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ingot.codec import multihash
from ingot.errors import Unavailable
from ingot.forge import chain, index, query, token
from ingot.forge.network.service import nonce
from ingot.forge.query import LOCATION, Location
from ingot.forge.token import Delegation, Invocation, Token

if TYPE_CHECKING:
    from ingot.forge.network.indexer import Indexer

INDEX: Final = "/assert/index"
EQUALS: Final = "/assert/equals"
KINDS: Final = ("standard", "location", "index_or_location", "standard_compressed")


@dataclass(frozen=True, slots=True)
class Slice:
    """By the slice's multihash and the archive's behind it: that the archive has the slice."""

    index: bytes  # the archive's multihash


class Query:
    """``find`` what is asked about, one after the other, then ``answer``."""

    def __init__(
        self, indexer: Indexer, kind: str, spaces: Sequence[str], delegations: Sequence[Delegation]
    ) -> None:
        self._indexer = indexer
        self._kind = kind
        self._spaces = spaces
        self._delegations = delegations
        self._claims: dict[bytes, Token] = {}
        self._indexes: dict[bytes, bytes] = {}
        self._fetched: dict[bytes, bytes] = {}

    def answer(self) -> bytes:
        return query.encode(list(self._claims.values()), self._indexes)

    async def find(self, name: bytes) -> None:
        """Everything about one multihash; Unavailable when an index of it cannot be had."""
        for place in await self._indexer.places(name, self._spaces):
            self._add(place.claim)
        if self._kind == "location":
            return
        if self._kind != "index_or_location":
            for claim in await self._indexer.known(EQUALS, name):
                self._add(claim)
        failures, read = [], 0
        for key, row in await self._indexer.state.page(Slice, name):
            if len(key) == len(name) + len(row.index):
                try:
                    await self._find_in(row.index, name)
                    read += 1
                except Unavailable as error:
                    failures.append(str(error))
        if failures and not read:
            raise Unavailable("; ".join(failures))

    def _add(self, claim: Invocation) -> None:
        self._claims[claim.cid] = claim

    async def _find_in(self, archive: bytes, name: bytes) -> None:
        places = await self._indexer.places(archive, self._spaces)
        if archive not in self._fetched:
            self._fetched[archive] = await self._fetch(archive, places)
        data = self._fetched[archive]
        shards = index.decode(data)
        where = [
            place
            for shard, slices in shards.items()
            if name in slices
            for place in await self._indexer.places(shard, self._spaces)
        ]
        if self._kind == "standard_compressed":
            for place in query.locate(name, where, [shards]):
                self._add(self._shortened(place, name))
            return
        for claim in await self._indexer.known(INDEX, archive):
            self._add(claim)
        for place in (*places, *where):
            self._add(place.claim)
        for place in where or places:
            context = query.context(place.space, place.blob)
            if self._indexes.setdefault(context, data) != data:
                # Several archives of one shard: the others go by their own names.
                self._indexes[query.context(place.space, archive)] = data

    async def _fetch(self, archive: bytes, places: Sequence[Location]) -> bytes:
        """An index archive, by the delegations of whoever asks."""
        failures = []
        for place in places:
            proofs = chain.find(
                self._delegations,
                issuer=self._indexer.did,
                subject=place.space,
                command="/content/retrieve",
                now=self._indexer.now(),
                arguments={"blob": {"digest": place.blob}, "range": [place.start, place.end]},
            )
            if proofs is None:
                failures.append(f"no delegations to read from {place.space} were sent")
                continue
            try:
                return await self._indexer.fetch([place], proofs)
            except Unavailable as error:
                failures.append(str(error))
        why = "; ".join(failures) or "it has no location in the spaces that were named"
        raise Unavailable(f"the index {multihash.to_text(archive)}: {why}")

    def _shortened(self, place: Location, name: bytes) -> Invocation:
        """A location claim of the indexer, in place of an index and the location of its shard."""
        assert place.end is not None
        return token.invoke(
            self._indexer.signer,
            subject=self._indexer.did,
            command=LOCATION,
            arguments={
                "range": {"start": place.start, "end": place.end},
                "space": place.space,
                "content": name,
                "location": list(place.urls),
            },
            expires=None,
            nonce=nonce(),
        )
