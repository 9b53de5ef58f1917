"""The indexing service: which nodes have a blob, and in which blob a block lies.

    /claim/cache     a node's location commitment, sent along
    /assert/index    an index archive: fetched from its node with the delegations sent along, read,
                     and all its slices known when the receipt is sent
    /assert/equals   two names of one content
    GET /claims      ``queries``: the claims about some multihashes, and the indexes they are in
    GET /claim/CID   one claim's token
    POST /claims     the same as POST /

Nothing of an index but its slices' digests is kept: a query fetches the archive again, by the
delegations in the query's own header, and cannot be answered without them. ``effects``:
"published", by the multihash of a location commitment's blob, and "indexed", by that of an archive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from ingot.codec import cid, multihash
from ingot.errors import Corruption, FormatError, IngotError, Unavailable
from ingot.forge import container, did, index, query, signature, token, validate, values
from ingot.forge.container import HEADER, Container
from ingot.forge.errors import Expired, Malformed
from ingot.forge.network.arguments import Failure, digest_of, link_of, links_of
from ingot.forge.network.faults import Applied, FlippedBit
from ingot.forge.network.peers import read
from ingot.forge.network.queries import EQUALS, INDEX, KINDS, Query, Slice
from ingot.forge.network.records import Claim
from ingot.forge.network.service import Call, Service
from ingot.forge.query import LOCATION, Location
from ingot.forge.token import Delegation, Invocation
from ingot.limits import FORGE_INDEX_BYTES_MAX, NETWORK_QUERY_NAMES_MAX


@dataclass(frozen=True, slots=True)
class Claims:
    """By kind of claim and multihash: the claims about it, as token CIDs."""

    names: list[bytes]


class Indexer(Service):
    name = "indexer"

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._keeping = asyncio.Lock()
        self.commands |= {
            "/claim/cache": self._cache,
            INDEX: self._index,
            EQUALS: self._equals,
        }
        self.http |= {
            "POST /claims": ("POST", "/claims", self._post),
            "GET /claims": ("GET", "/claims", self._query),
            "GET /claim": ("GET", "/claim/{cid}", self._claim),
        }
        self.declare()

    # -- publishing ---------------------------------------------------------------------------

    async def _cache(self, call: Call) -> object:
        name = link_of(call.arguments, "claim")
        for at in range(len(values.take(call.arguments, list, "provider", "addresses"))):
            values.take(call.arguments, bytes, "provider", "addresses", at)
        if call.subject != self.did:
            raise Failure("InvalidSubject", f"a right over {self.did} is needed to publish here")
        claim = call.request.invocations.get(name)
        if claim is None:
            raise Unavailable("the claim was not sent along")
        await self._check(claim)
        place = query.location_of(claim)
        await self._keep(claim, [place.blob])
        self.effects["published", place.blob] += 1
        return {}

    async def _check(self, claim: Invocation) -> None:
        if claim.expires is not None and self.now() >= claim.expires:
            raise Expired(f"the {claim} expired at {claim.expires}")
        signature.check(claim, self.now(), await self.peers.documents([claim]))

    async def _keep(self, claim: Invocation, about: Iterable[bytes], *more: Any) -> None:
        records: list[tuple[bytes, object]] = [(claim.cid, Claim(claim.data)), *more]
        async with self._keeping:  # two claims about one blob must not lose one another
            for digest in about:
                key = _about(claim.command, digest)
                known = await self.state.get(Claims, key) or Claims([])
                if claim.cid not in known.names:
                    records.append((key, Claims([*known.names, claim.cid])))
            await self.state.write(*records)

    async def _equals(self, call: Call) -> object:
        content = digest_of(call.arguments, "content")
        other = multihash.of_cid(link_of(call.arguments, "equals"))
        await self._keep(call.invocation, [content, other])
        return {}

    async def _index(self, call: Call) -> object:
        name = link_of(call.arguments, "index")
        digest = multihash.of_cid(name)
        proofs = self._authorization(call)
        spaces = {proof.subject for proof in proofs if proof.subject is not None}
        places = await self.places(digest, spaces)
        if not places:
            raise Unavailable(f"no location of {multihash.to_text(digest)} was published")
        archive = await self.fetch(places, proofs)
        slices = {block for blocks in index.decode(archive).values() for block in blocks}
        rows = [(block + digest, Slice(digest)) for block in slices]
        await self._keep(call.invocation, [digest], *rows)
        self.effects["indexed", digest] += 1
        return {}

    def _authorization(self, call: Call) -> list[Delegation]:
        """The delegations that the invocation's ``retrievalAuth`` names, root first."""
        meta = call.invocation.meta or {}
        names = links_of(meta, "retrievalAuth")
        missing = [name for name in names if name not in call.request.delegations]
        if missing:
            raise Unavailable(f"the delegation {cid.to_text(missing[0])} was not sent along")
        return [call.request.delegations[name] for name in names]

    # -- fetching -----------------------------------------------------------------------------

    async def places(self, digest: bytes, spaces: Iterable[str]) -> list[Location]:
        """The location commitments of a blob, for these spaces or, if there are none, for any."""
        wanted = set(spaces)
        found = []
        for claim in await self.known(LOCATION, digest):
            place = query.location_of(claim)
            if place.space in wanted or not wanted:
                found.append(place)
        return found

    async def known(self, command: str, digest: bytes) -> list[Invocation]:
        known = await self.state.get(Claims, _about(command, digest))
        claims = []
        for name in known.names if known else ():
            row = await self.state.get(Claim, name)
            claim = token.decode(row.token) if row else None
            if isinstance(claim, Invocation):
                claims.append(claim)
        return claims

    async def fetch(self, places: Sequence[Location], proofs: Sequence[Delegation]) -> bytes:
        """An index archive, whole and hashed, from the first place that gives it."""
        failures = []
        for place in places:
            if place.end is None:
                failures.append(f"{place.node} does not say where the index ends")
                continue
            try:
                return await self._retrieve(place, place.end, proofs)
            except (IngotError, aiohttp.ClientError, TimeoutError) as error:
                failures.append(f"{place.node}: {error or type(error).__name__}")
        raise Unavailable(f"the index cannot be fetched: {'; '.join(failures)}")

    async def _retrieve(self, place: Location, end: int, proofs: Sequence[Delegation]) -> bytes:
        if end - place.start >= FORGE_INDEX_BYTES_MAX:
            raise Unavailable(f"an index of {end + 1 - place.start} bytes")
        invocation = self.invoke(
            place.node,
            "/content/retrieve",
            {"blob": {"digest": place.blob}, "range": [place.start, end]},
            list(proofs),
            subject=place.space,
        )
        header = container.to_header([invocation, *proofs])
        async with self.peers.session.get(
            place.urls[0], headers={HEADER: header}, allow_redirects=False
        ) as response:
            body = await read(response, FORGE_INDEX_BYTES_MAX)
            answer = container.from_header(response.headers.get(HEADER, ""))
        receipts = answer.receipts_of(invocation.task)
        if not receipts:
            raise Unavailable(f"status {response.status}, no receipt")
        validate.validate_receipt(
            receipts[0],
            task=invocation.task,
            executor=place.node,
            now=self.now(),
            documents=await self.peers.documents(receipts),
        )
        receipts[0].result()
        if multihash.of(body) != place.blob:
            raise Corruption(place.urls[0], multihash.to_text(place.blob), f"{len(body)} others")
        return body

    # -- queries ------------------------------------------------------------------------------

    async def _query(self, request: web.Request, faults: Applied) -> web.StreamResponse:
        try:
            kind = request.query.get("type", KINDS[0])
            names = [multihash.from_text(text) for text in request.query.getall("multihash", [])]
            spaces = [did.check(text) for text in request.query.getall("spaces", [])]
            sent = request.headers.get(HEADER)
            asked = container.from_header(sent) if sent else Container()
        except (FormatError, Malformed) as error:
            return web.Response(status=400, text=str(error))
        if kind not in KINDS or not 0 < len(names) <= NETWORK_QUERY_NAMES_MAX:
            return web.Response(status=400, text=f"a type of {', '.join(KINDS)}, and multihashes")
        asking = Query(self, kind, spaces, list(asked.delegations.values()))
        try:
            for name in dict.fromkeys(names):
                await asking.find(name)
            body = asking.answer()
        except IngotError as error:
            return web.Response(status=500, text=str(error))
        if faults.get(FlippedBit):
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        response = web.Response(body=body, content_type="application/vnd.ipld.car")
        response.enable_compression()
        return response

    async def _claim(self, request: web.Request, _: Applied) -> web.StreamResponse:
        try:
            name = bytes(cid.from_text(request.match_info["cid"]))
        except FormatError as error:
            return web.Response(status=400, text=str(error))
        claim = await self.state.get(Claim, name)
        if claim is None:
            return web.Response(status=404, text="no such claim")
        return web.Response(body=claim.token, content_type="application/vnd.ipld.dag-cbor")


def _about(command: str, digest: bytes) -> bytes:
    return command.encode() + digest
