"""Storing blobs with the upload service: add, publish an index, list, remove (forge.md section 4).
``uploads`` has what a space names as its content.

Adding is a flow of steps, and each attempt begins at its first one. That is safe at any time, also
after a crash in the middle, since the service's answer to ``/blob/add`` says how far the blob is:

    the answer has                         what is left to do
    an address to put the bytes at         PUT, conclude, wait for the accept receipt
    none: the node has the bytes           conclude, wait
    the accept receipt                     nothing; no byte is sent twice

An add ends with the node's location commitment, checked: signed by the node that accepted, for this
blob, this space and all its bytes. Both generations of services are spoken to: a conclusion names
its receipt in both ways, and the accept receipt is taken from its answer if it is there.

Operations raise Unavailable where trying later may help, after some tries of their own; Refused
where the service says no; ConfigError where the identity lacks a right; Corruption where the source
does not have the blob's bytes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from ingot.codec import cid, multihash
from ingot.codec.dag_cbor import Cid
from ingot.errors import FormatError, NotFound, Unavailable
from ingot.forge import allocation, invoker, query, retry, signature, token, values
from ingot.forge.allocation import Allocation
from ingot.forge.blob import BlobRef, BytesSource, Source
from ingot.forge.container import Container
from ingot.forge.errors import (
    BadAnswer,
    Expired,
    Malformed,
    Refused,
    TooLarge,
    UcanError,
    UnsupportedKey,
)
from ingot.forge.http import origin_of
from ingot.forge.invoker import Invoker, Reply, Service
from ingot.forge.keys import Signer
from ingot.forge.query import Location
from ingot.forge.retry import RetrySettings
from ingot.forge.token import Receipt
from ingot.limits import (
    FORGE_INDEX_BYTES_MAX,
    FORGE_RETRIEVAL_AUTH_S,
    FORGE_URLS_MAX,
    UCAN_TTL_S,
)
from ingot.ports import ProviderSelector

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Published:
    """An index archive that is stored; ``indexed`` is False where the network has no indexer."""

    blob: BlobRef
    locations: list[Location]
    indexed: bool


@dataclass(frozen=True, slots=True)
class Listed:
    """One blob of a space; ``inserted`` as the service writes it."""

    blob: BlobRef
    inserted: object


@dataclass(frozen=True, slots=True)
class Page:
    """``cursor`` asks for what follows; None at the end."""

    blobs: list[Listed]
    cursor: str | None


class UploadClient:
    """``receipts`` is the URL under which the service keeps receipts by their task."""

    def __init__(
        self,
        ask: Invoker,
        service: Service,
        receipts: str,
        providers: ProviderSelector,
        settings: RetrySettings,
        logger: logging.Logger,
    ) -> None:
        self._invoker, self._service, self._receipts = ask, service, receipts
        self._providers, self._settings, self._logger = providers, settings, logger

    @property
    def _space(self) -> str:
        return self._invoker.identity.space

    async def _often(self, what: str, work: Callable[[], Awaitable[T]]) -> T:
        return await retry.run(work, self._settings, self._invoker.random, self._logger, what)

    # -- blobs ------------------------------------------------------------------------------------

    async def add(self, blob: BlobRef, source: Source) -> list[Location]:
        """Have a blob stored for the space; where it lies, by the word of who has it. ``source`` is
        read once or more, or not at all."""
        return await self._often(f"adding {blob}", lambda: self._add(blob, source))

    async def located(self, blob: BlobRef) -> list[Location]:
        """Where a blob of the space lies, by the word of who has it; the service keeps that of what
        was stored. Nothing is sent: NotFound where the service would have the bytes sent."""
        return await self._often(f"locating {blob}", lambda: self._add(blob, None))

    async def _add(self, blob: BlobRef, source: Source | None) -> list[Location]:
        reply = await self._invoker.ask(self._service, "/blob/add", {"blob": blob.argument()})
        try:
            there = allocation.read(reply.container, reply.ok, blob, self._space, self._service.did)
            documents = await self._invoker.resolver.documents(there.signed())
            for made in there.signed():
                signature.check(made, self._invoker.now(), documents)
        except (Malformed, UcanError) as error:
            raise invoker.bad(self._service.url, "the answer to /blob/add", error) from error
        accepted = await self._receipt(reply.container, there.accept.task, there.node)
        if accepted is not None:
            await self._note_elsewhere(there, blob, source)
            return [await self._location(reply.container, accepted, there, blob)]
        done = await self._receipt(reply.container, there.put.task, there.put.issuer)
        if done is None:
            key = self._put_key(there)
            await self._put(reply, there, blob, source)
            done = self._put_receipt(key, there, blob)
        else:
            await self._note_elsewhere(there, blob, source)
        found, accepted = await self._conclude(done, there, blob)
        return [await self._location(found, accepted, there, blob)]

    async def _receipt(self, found: Container, task: bytes, executor: str) -> Receipt | None:
        return await self._invoker.receipt_in(found, task, executor)

    async def _put(
        self, reply: Reply, there: Allocation, blob: BlobRef, source: Source | None
    ) -> None:
        """Send the bytes, unless the node has them."""
        allocated = await self._receipt(reply.container, there.allocate.task, there.node)
        if allocated is None:
            raise BadAnswer(self._service.url, "an answer to /blob/add without what the node said")
        try:
            address = allocation.address(invoker.result(allocated, "/blob/allocate"))
            if address is None:
                await self._note_elsewhere(there, blob, source)
                return
            origin_of(address.url, self._invoker.http.settings.insecure)
        except Malformed as error:
            raise invoker.bad(there.node, "the address for a blob", error) from error
        if source is None:
            await self._abort(blob, reply.invocation.task)
            raise NotFound(f"{there.node} has no bytes of {blob}, it would have them sent")
        wanted = await self._providers.node_for(blob.digest, blob.size)
        if wanted is not None and wanted != there.node:
            await self._abort(blob, reply.invocation.task)
            raise Unavailable(f"{blob} is for {wanted}, and the service allocated at {there.node}")
        await self._invoker.http.put(address.url, address.headers, blob, source)

    async def _note_elsewhere(
        self, there: Allocation, blob: BlobRef, source: Source | None
    ) -> None:
        """Say so where a blob lies already, and not at the node that is chosen for it. It is not
        refused: the service answers for what it has, and would never have it sent again."""
        if source is None:
            return
        wanted = await self._providers.node_for(blob.digest, blob.size)
        if wanted is not None and wanted != there.node:
            self._logger.warning(
                "%s is for %s, and lies at %s already: it stays there", blob, wanted, there.node
            )

    async def _abort(self, blob: BlobRef, cause: bytes) -> None:
        """Give an allocation back: the service would come to the same one again and again."""
        arguments = {"cause": Cid(cause), "digest": blob.digest}
        try:
            await self._invoker.ask(self._service, "/blob/abort", arguments)
        except Refused as error:
            self._logger.warning("an allocation for %s is not given back: %s", blob, error)

    async def _conclude(
        self, receipt: Receipt, there: Allocation, blob: BlobRef
    ) -> tuple[Container, Receipt]:
        """Tell the service that the bytes are there; the node's receipt for having accepted them,
        and what came with it."""
        names = {"receipt": Cid(receipt.cid), "receipts": [Cid(receipt.cid)]}
        reply = await self._invoker.ask(
            self._service,
            "/ucan/conclude",
            names,
            subject=self._invoker.identity.agent.did,
            along=[receipt],
        )
        accepted = await self._receipt(reply.container, there.accept.task, there.node)
        if accepted is not None:
            return reply.container, accepted
        for poll in range(self._settings.polls):
            if poll:
                await asyncio.sleep(self._settings.poll_s)
            stored = await self._invoker.stored_receipt(
                self._receipts, there.accept.task, there.node
            )
            if stored is not None:
                return stored[1], stored[0]
        raise Unavailable(
            f"{self._service.url} has no receipt of {there.node} for {blob} yet, asked "
            f"{self._settings.polls} times"
        )

    def _put_key(self, there: Allocation) -> Signer:
        try:
            return there.put_key()
        except (Malformed, UnsupportedKey) as error:
            raise invoker.bad(self._service.url, "the key of an /http/put", error) from error

    def _put_receipt(self, key: Signer, there: Allocation, blob: BlobRef) -> Receipt:
        """Our word, by the blob's own key, that its bytes are at the node."""
        return token.answer(
            key,
            ran=there.put.task,
            out={"ok": there.put_ok(blob)},
            expires=None,
            issued_at=self._invoker.now(),
            nonce=self._invoker.nonce(),
        )

    async def _location(
        self, found: Container, accepted: Receipt, there: Allocation, blob: BlobRef
    ) -> Location:
        """The commitment that an accept receipt names, checked."""
        try:
            # Whatever the node's reason, another attempt begins with another allocation.
            ok = accepted.result()
        except Refused as error:
            raise Unavailable(f"{there.node} does not accept {blob}: {error}") from error
        try:
            claim = found.invocations.get(invoker.link(ok, "site"))
            if claim is None:
                raise Malformed(("site",), "the location commitment along with it", "none")
            place = query.location_of(claim)
            said = (place.node, place.space, place.blob, place.start)
            if said != (there.node, self._space, blob.digest, 0):
                raise Malformed((), f"{there.node}'s location of {blob}", "that of another")
            if place.end is not None and place.end != blob.size - 1:
                raise Malformed(("range",), f"all {blob.size} bytes", f"0 to {place.end}")
            for url in place.urls[:FORGE_URLS_MAX]:
                origin_of(url, self._invoker.http.settings.insecure)
            now = self._invoker.now()
            if claim.expires is not None and now >= claim.expires:
                raise Expired(f"the location commitment expired at {claim.expires}")
            documents = await self._invoker.resolver.documents([claim])
            signature.check(claim, now, documents)
        except (Malformed, UcanError) as error:
            raise invoker.bad(there.node, f"the location of {blob}", error) from error
        return place

    async def remove(self, digest: bytes) -> None:
        """Have a blob of the space forgotten, by its multihash."""
        await self._often(
            f"removing blob {multihash.to_text(digest)}",
            lambda: self._invoker.ask(self._service, "/blob/remove", {"digest": digest}),
        )

    async def list_blobs(self, cursor: str | None = None, size: int | None = None) -> Page:
        """Some of the space's blobs, ``size`` at most where the service goes by it."""
        wanted = {"cursor": cursor, "size": size}
        arguments = {name: value for name, value in wanted.items() if value is not None}
        reply = await self._often(
            "listing blobs", lambda: self._invoker.ask(self._service, "/blob/list", arguments)
        )
        try:
            rows = values.take(reply.ok, list, "results")
            blobs = []
            for at, row in enumerate(rows):
                digest = values.take(reply.ok, bytes, "results", at, "blob", "digest")
                length = values.take(reply.ok, int, "results", at, "blob", "size")
                blobs.append(Listed(BlobRef(digest, length), row.get("insertedAt")))
            return Page(blobs, values.get(reply.ok, str, "cursor") or None)
        except (Malformed, FormatError, TooLarge) as error:
            raise BadAnswer(self._service.url, f"the answer to /blob/list: {error}") from error

    # -- indexes and the space --------------------------------------------------------------------

    async def publish_index(self, archive: bytes) -> Published:
        """Store an index archive and have it published, so that its slices can be found. The
        indexer fetches it with a right that is delegated for that one blob. A network without an
        indexer (``IndexerNotConfigured``) is no failure: ``indexed`` says so."""
        if len(archive) > FORGE_INDEX_BYTES_MAX:
            raise TooLarge(
                f"an index of {len(archive)} bytes; readers take {FORGE_INDEX_BYTES_MAX}"
            )
        blob = await asyncio.get_running_loop().run_in_executor(None, BlobRef.of, archive)
        locations = await self.add(blob, BytesSource(archive))
        return Published(blob, locations, await self.register_index(blob))

    async def register_index(self, blob: BlobRef) -> bool:
        """The second half of ``publish_index``, for an archive that is stored: False where the
        network has no indexer."""
        try:
            await self._often(f"publishing the index {blob}", lambda: self._index_add(blob))
        except Refused as error:
            if error.name != "IndexerNotConfigured":
                raise
            self._logger.info("%s is stored and not published: %s", blob, error)
            return False
        return True

    async def _index_add(self, blob: BlobRef) -> None:
        grants = self._invoker.grant(
            self._service.did,
            "/content/retrieve",
            max(FORGE_RETRIEVAL_AUTH_S, UCAN_TTL_S),
            policy=[["==", ".blob.digest", blob.digest]],
        )
        digest = multihash.split(blob.digest)[1]
        await self._invoker.ask(
            self._service,
            "/index/add",
            {"index": Cid(cid.of_archive(digest))},
            meta={"retrievalAuth": [Cid(one.cid) for one in grants]},
            along=grants,  # the service builds the chain from these, whatever the list says
        )

    async def space_info(self) -> list[str]:
        """The providers of the space, by their DIDs; Refused ``UnknownSpace`` where it has none."""
        reply = await self._often(
            "asking about the space", lambda: self._invoker.ask(self._service, "/space/info", {})
        )
        try:
            count = len(values.take(reply.ok, list, "providers"))
            return [values.take(reply.ok, str, "providers", at) for at in range(count)]
        except Malformed as error:
            raise invoker.bad(self._service.url, "the answer to /space/info", error) from error
