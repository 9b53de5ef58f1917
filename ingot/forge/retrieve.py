"""Reading from the network: finding out where blocks lie, and fetching their bytes.

``read`` fetches a range of a blob from the first of its locations that gives it, with the others
behind it. Nodes that failed lately come last. ``locate`` asks the indexer, trusts it with nothing,
and gives every location whose commitment a node signed. Neither hashes the bytes: the caller does,
and says with ``Reading.reject`` when they are wrong.

A place found by ``locate`` says in ``start`` and ``end`` which bytes of its blob are meant; the
locations of a blob itself cover it whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from ingot.codec import cid
from ingot.errors import Corruption, FormatError, Unavailable
from ingot.forge import container, did, query, retry
from ingot.forge.container import Form
from ingot.forge.document import Document
from ingot.forge.errors import BadAnswer, Malformed
from ingot.forge.invoker import Invoker, Service
from ingot.forge.query import Answer, Location
from ingot.forge.reading import RETRIEVE, Reading
from ingot.forge.retry import RetrySettings
from ingot.forge.token import Token
from ingot.limits import (
    FORGE_AUTHORITIES_MAX,
    FORGE_FAULTY_NODES_MAX,
    FORGE_FAULTY_S,
    FORGE_LOCATE_S,
    FORGE_QUERY_AUTH_S,
    FORGE_QUERY_BYTES_MAX,
    FORGE_QUERY_TOLD_MAX,
)


class Retriever:
    """``indexer`` is None where the network has none: then only known locations can be read."""

    def __init__(
        self,
        ask: Invoker,
        indexer: Service | None,
        monotonic: Callable[[], float],
        settings: RetrySettings,
        logger: logging.Logger,
    ) -> None:
        self._invoker, self._indexer, self._monotonic = ask, indexer, monotonic
        self._settings, self._logger = settings, logger
        self._faulty: dict[str, float] = {}  # node -> until when it comes last

    def read(self, locations: Iterable[Location], start: int, end: int) -> Reading:
        """The bytes ``start`` to ``end`` (both inclusive) of a blob, as they come. Use it as a
        context manager where the loop over it may be left before its end."""
        now = self._monotonic()
        self._faulty = {node: until for node, until in self._faulty.items() if now < until}
        ordered = sorted(locations, key=lambda place: place.node in self._faulty)
        return Reading(self._invoker, ordered, start, end, self._mark)

    def _mark(self, node: str) -> None:
        self._faulty.pop(node, None)
        while len(self._faulty) >= FORGE_FAULTY_NODES_MAX:
            del self._faulty[next(iter(self._faulty))]
        self._faulty[node] = self._monotonic() + FORGE_FAULTY_S

    async def locate(self, digest: bytes) -> list[Location]:
        """Every place of the block with this multihash, in the identity's space, that a node has
        signed for; none where the indexer knows of none. Unavailable where it cannot be asked, or
        knows an index that it cannot read."""
        indexer = self._indexer
        if indexer is None:
            raise Unavailable("this network has no indexer to ask where a block is", 60)
        return await retry.run(
            lambda: self._locate_in_time(indexer, digest),
            self._settings,
            self._invoker.random,
            self._logger,
            "asking the indexer",
        )

    async def _locate_in_time(self, indexer: Service, digest: bytes) -> list[Location]:
        try:
            async with asyncio.timeout(FORGE_LOCATE_S):
                return await self._locate(indexer, digest)
        except TimeoutError:
            raise Unavailable(f"{indexer.url}: no answer within {FORGE_LOCATE_S:g} s") from None

    async def _locate(self, indexer: Service, digest: bytes) -> list[Location]:
        space = self._invoker.identity.space
        grants = self._invoker.grant(indexer.did, RETRIEVE, FORGE_QUERY_AUTH_S)
        answer = await self._invoker.http.call(
            "GET",
            indexer.url.rstrip("/") + query.path([digest], [space]),
            headers={container.HEADER: container.to_header(grants, Form.GZIP_BASE64URL)},
            bytes_max=FORGE_QUERY_BYTES_MAX,
        )
        # A large answer takes tens of milliseconds to hash and its claims to verify.
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(None, query.decode, answer.body)
        except (FormatError, Corruption) as error:
            raise BadAnswer(indexer.url, f"an answer that cannot be read: {error}") from error
        documents = await self._documents(found, space)
        verify = partial(query.commitments, found, [space], self._invoker.now(), documents)
        places, refused = await loop.run_in_executor(None, verify)
        aside = [*found.refused, *refused]
        for name, why in aside[:FORGE_QUERY_TOLD_MAX]:
            self._logger.warning("%s: %s is set aside: %s", indexer.url, cid.to_text(name), why)
        if len(aside) > FORGE_QUERY_TOLD_MAX:
            more = len(aside) - FORGE_QUERY_TOLD_MAX
            self._logger.warning("%s: %d more are set aside", indexer.url, more)
        indexes = list(found.indexes.values())
        return await loop.run_in_executor(None, query.locate, digest, places, indexes)

    async def _documents(self, found: Answer, space: str) -> dict[str, Document]:
        """Those of the nodes that claim to have something; of one that cannot be had, the claims
        are not believed."""
        documents: dict[str, Document] = {}
        claims = {claim.issuer: claim for claim in _about(found.claims.values(), space)}
        unknown = [claim for node, claim in claims.items() if not did.is_key(node)]
        for claim in unknown[:FORGE_AUTHORITIES_MAX]:
            try:
                documents |= await self._invoker.resolver.documents([claim])
            except Unavailable as error:
                self._logger.warning("%s: %s", claim.issuer, error)
        return documents


def _about(claims: Iterable[Token], space: str) -> Sequence[Token]:
    found = []
    for claim in claims:
        try:
            if query.location_of(claim).space == space:
                found.append(claim)
        except Malformed:
            continue  # set aside, with its reason, when the claims are verified
    return found
