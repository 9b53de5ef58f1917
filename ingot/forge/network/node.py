"""A storage node: gives addresses for blobs, takes their bytes, vouches for where they are.

    /blob/allocate   upload service, about the node: {size, address?}; no address: it has the bytes
    /blob/accept     upload service, about the node: {site, pdp}, with the location commitment
    /blob/reject     takes back an allocation, /blob/release what was accepted
    PUT /pdp/piece/upload/ID   the bytes; a Content-Length, the size and digest allocated
    GET /piece/CID   bytes, for a /content/retrieve in the header (``retrieval``)
    GET /claim/CID   a location commitment's token

Blobs are kept once however many spaces have them; allocations and acceptances are by space.
Accepting is the same however often it is asked for: one location commitment for a blob in a space,
which the indexer has heard of when the receipt is sent. ``effects``: "stored" and "accepted", by
multihash.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiohttp import web

from ingot.codec import cid, multihash
from ingot.codec.dag_cbor import Cid
from ingot.errors import FormatError, Unavailable
from ingot.forge import token, values
from ingot.forge.errors import UcanError
from ingot.forge.network.arguments import Blob, Failure, did_of, digest_of, link_of
from ingot.forge.network.blobs import Blobs, WrongBytes
from ingot.forge.network.faults import Applied
from ingot.forge.network.records import Acceptance, Allocation, Claim, Upload, held
from ingot.forge.network.retrieval import Retrieval
from ingot.forge.network.service import Call, Service, nonce
from ingot.forge.network.state import Locks
from ingot.forge.query import LOCATION
from ingot.forge.token import Delegation, Invocation
from ingot.limits import FORGE_ADDRESS_TTL_S, FORGE_BLOB_BYTES_MAX, NETWORK_READ_BYTES

GRANTED = ("/blob/allocate", "/blob/accept", "/blob/release", "/blob/reject", "/blob/retrieve")
_LENGTH = re.compile(r"[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Publishing:
    """Where a node makes its locations known, and by which right."""

    url: str
    did: str
    proofs: Sequence[Delegation]


class Node(Service):
    name = "node"

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.blobs: Blobs
        self.publishing: Publishing | None = None
        self._locks = Locks()  # by digest: spaces share the bytes
        self.commands |= {
            "/blob/allocate": self._allocate,
            "/blob/accept": self._accept,
            "/blob/release": self._release,
            "/blob/reject": self._reject,
        }
        self.retrieval = Retrieval(self)
        self.http |= {
            "PUT /upload": ("PUT", "/pdp/piece/upload/{id}", self._put),
            "GET /piece": ("GET", "/piece/{cid}", self.retrieval.serve),
            "POST /piece": ("POST", "/piece/{cid}", self.retrieval.serve),
            "GET /claim": ("GET", "/claim/{cid}", self._claim),
        }
        self.header_commands |= self.retrieval.commands
        self.declare()

    def keep_in(self, directory: Path) -> None:
        self.blobs = Blobs(directory)

    def grant(self, upload_service: str) -> list[Delegation]:
        """What the upload service may do with this node, as given at registration."""
        return [self.delegate(upload_service, command) for command in GRANTED]

    def _own(self, call: Call) -> None:
        if call.subject != self.did:
            raise Failure("InvalidSubject", f"{call.invocation.command} is about a node")

    # -- allocate and put ---------------------------------------------------------------------

    async def _allocate(self, call: Call) -> object:
        self._own(call)
        blob, space = Blob.read(call.arguments), did_of(call.arguments, "space")
        link_of(call.arguments, "cause")
        if blob.size > FORGE_BLOB_BYTES_MAX:
            raise Failure(
                "BlobSizeLimitExceeded", f"{blob.size} bytes; a blob has {FORGE_BLOB_BYTES_MAX}"
            )
        key = held(space, blob.digest) if blob.digest else call.invocation.task
        async with self._locks(blob.digest or key):
            earlier = await self.state.get(Allocation, key)
            if blob.digest and self.blobs.size(blob.digest) is not None:
                if earlier is None:
                    await self.state.write((key, Allocation(blob.size, "")))
                return {"size": 0 if earlier else blob.size}
            upload = uuid4().hex
            expires = self.now() + FORGE_ADDRESS_TTL_S
            await self.state.write(
                (key, Allocation(blob.size, upload)),
                (upload.encode(), Upload(key, blob.size, blob.digest, expires, b"")),
            )
        url = f"{self.url}/pdp/piece/upload/{upload}"
        address = {"url": url, "expires": expires, "headers": {}}
        return {"size": 0 if earlier else blob.size, "address": address}

    async def _put(self, request: web.Request, _: Applied) -> web.StreamResponse:
        key = request.match_info["id"].encode()
        upload = await self.state.get(Upload, key)
        if upload is None or await self.state.get(Allocation, upload.allocation) is None:
            return web.Response(status=404, text="no such upload")
        if self.now() >= upload.expires:
            return web.Response(status=410, text="the address is expired")
        length = request.headers.get("Content-Length", "")
        if not _LENGTH.fullmatch(length):
            return web.Response(status=411, text="a Content-Length is needed")
        if int(length) != upload.size:
            return web.Response(status=400, text=f"{upload.size} bytes were allocated")
        try:
            found = await self.blobs.receive(
                request.content.iter_chunked(NETWORK_READ_BYTES), upload.size, upload.digest
            )
        except WrongBytes as error:
            return web.Response(status=400, text=str(error))
        await self.state.write((key, replace(upload, received=found)))
        self.effects["stored", found] += 1
        return web.Response(status=204)

    # -- accept -------------------------------------------------------------------------------

    async def _accept(self, call: Call) -> object:
        self._own(call)
        blob, space = Blob.read(call.arguments), did_of(call.arguments, "space")
        put = values.promised(call.arguments, "_put")
        digest = blob.digest or await self._received(put, call)
        key = held(space, digest)
        async with self._locks(digest):
            if blob.digest and await self.state.get(Allocation, key) is None:
                raise Unavailable("the blob is not allocated in this space")
            if self.blobs.size(digest) != blob.size:
                raise Unavailable(f"the bytes of {multihash.to_text(digest)} were not received")
            accepted = await self.state.get(Acceptance, key)
            if accepted is None:
                accepted = self._vouch(space, digest, blob.size)
                claim = token.decode(accepted.location)
                await self.state.write(
                    (key, accepted),
                    (key, Allocation(blob.size, "")),
                    (claim.cid, Claim(accepted.location)),
                )
                self.effects["accepted", digest] += 1
            location, pdp = token.decode(accepted.location), token.decode(accepted.pdp)
            assert isinstance(location, Invocation) and isinstance(pdp, Invocation)
            if not accepted.published and self.publishing is not None:
                await self._publish(location, self.publishing)
                await self.state.write((key, replace(accepted, published=True)))
        call.attached += [location, pdp]
        return {"pdp": values.promise(pdp.task), "site": Cid(location.cid)}

    async def _received(self, put: bytes, call: Call) -> bytes:
        """The digest of a blob that was allocated without one: that of what was put, which is
        found by way of the put invocation and has to be what the put's receipt says."""
        invocation = call.request.invocation_of(put)
        if invocation is None:
            raise Unavailable("the put invocation was not sent along")
        allocated = await self.state.get(
            Allocation, values.promised(invocation.arguments, "destination")
        )
        if allocated is None:
            raise Unavailable("the put is for no allocation of this node")
        upload = await self.state.get(Upload, allocated.upload.encode())
        if upload is None or not upload.received:
            raise Unavailable("the bytes were not received")
        for receipt in call.request.receipts_of(put):
            if values.get(receipt.out, bytes, "ok", "blob", "digest") == upload.received:
                return upload.received
        raise Unavailable("no receipt of the put names the digest that was received")

    def _vouch(self, space: str, digest: bytes, size: int) -> Acceptance:
        name = cid.to_text(cid.RAW_PREFIX[:2] + digest)
        location = self._claimed(
            LOCATION,
            {
                "range": {"start": 0, "end": size - 1},
                "space": space,
                "content": digest,
                "location": [f"{self.url}/piece/{name}"],
            },
        )
        pdp = token.invoke(
            self.signer,
            audience=self.did,
            subject=self.did,
            command="/pdp/accept",
            arguments={"blob": digest},
            expires=None,
            nonce=b"",
        )
        return Acceptance(size, location.data, pdp.data, published=False)

    def _claimed(self, command: str, arguments: dict[str, object]) -> Invocation:
        return token.invoke(
            self.signer,
            subject=self.did,
            command=command,
            arguments=arguments,
            expires=None,
            nonce=nonce(),
        )

    async def _publish(self, location: Invocation, to: Publishing) -> None:
        invocation = self.invoke(
            to.did,
            "/claim/cache",
            {"claim": Cid(location.cid), "provider": {"addresses": [self._multiaddr()]}},
            list(to.proofs),
        )
        receipt, _ = await self.peers.call(to.url, invocation, [*to.proofs, location])
        receipt.result()

    def _multiaddr(self) -> bytes:
        """``/ip4/HOST/tcp/PORT/http`` in binary (multiaddr codes 4, 6 and 480)."""
        host, port = self.address
        parts = [int(part) for part in host.split(".")] if host.count(".") == 3 else [127, 0, 0, 1]
        return b"\x04" + bytes(parts) + b"\x06" + port.to_bytes(2, "big") + b"\xe0\x03"

    # -- taking back --------------------------------------------------------------------------

    async def _reject(self, call: Call) -> object:
        self._own(call)
        space, digest = did_of(call.arguments, "space"), digest_of(call.arguments, "digest")
        async with self._locks(digest):
            if await self.state.get(Acceptance, held(space, digest)):
                raise Failure("BlobAccepted", "the blob was accepted: release it")
            await self._forget(space, digest)
        return {}

    async def _release(self, call: Call) -> object:
        self._own(call)
        space, digest = did_of(call.arguments, "space"), digest_of(call.arguments, "digest")
        cause = call.request.invocation_of(link_of(call.arguments, "cause"))
        if cause is None:
            raise Failure("UnknownCause", "the invocation that is the cause was not sent along")
        named = cause.arguments.get("digest")
        if cause.command != "/blob/remove" or cause.subject != space or named != digest:
            raise Failure("InvalidCause", "the cause is no removal of this blob from this space")
        try:
            await self.validate(cause, call.request)
        except UcanError as error:
            raise Failure("InvalidCause", str(error)) from error
        async with self._locks(digest):
            await self._forget(space, digest)
        return {}

    async def _forget(self, space: str, digest: bytes) -> None:
        key = held(space, digest)
        await self.state.write(forget=[(Allocation, key), (Acceptance, key)])
        kept = await self.state.page(Acceptance) + await self.state.page(Allocation)
        if not any(other.endswith(b"\0" + digest) for other, _ in kept):
            await self.blobs.remove(digest)

    async def _claim(self, request: web.Request, _: Applied) -> web.StreamResponse:
        try:
            name = bytes(cid.from_text(request.match_info["cid"]))
        except FormatError as error:
            return web.Response(status=400, text=str(error))
        claim = await self.state.get(Claim, name)
        if claim is None:
            return web.Response(status=404, text="no such claim")
        return web.Response(body=claim.token, content_type="application/vnd.ipld.dag-cbor")
