"""Blobs on their way through the upload service, from ``/blob/add`` to the accept receipt.

    add       allocate on a node, and announce the put and the accept that are to follow: their
              invocations, with everything that is already known about them
    conclude  the put is done, says its receipt: have the node accept, and keep its receipt

A blob that is registered in a space is answered with all its earlier tokens. One that was only
allocated is allocated anew, on the same node if that still answers; if the node has the bytes, the
service writes the put's receipt itself and goes straight on to accept. The accept invocation has an
empty nonce, so its task is known before it is sent, and sending it twice is the same task. All
that one step decides is on disk, in one transaction, before it is answered.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from ingot.codec.dag_cbor import Cid
from ingot.errors import Corruption, IngotError, Unavailable
from ingot.forge import container, query, signature, token, values
from ingot.forge.errors import InvalidAudience
from ingot.forge.keys import Signer
from ingot.forge.network.arguments import Blob, Failure
from ingot.forge.network.records import held
from ingot.forge.network.service import Answer, Call, nonce
from ingot.forge.network.state import Locks
from ingot.forge.token import Delegation, Invocation, Receipt, Token

if TYPE_CHECKING:
    from ingot.forge.network.upload import UploadService


@dataclass(frozen=True, slots=True)
class Registration:
    """A node that blobs may go to, by its DID: with the delegations it gave."""

    url: str
    grants: list[bytes]

    def proof(self, command: str) -> Delegation:
        for data in self.grants:
            one = token.decode(data)
            if isinstance(one, Delegation) and one.command == command:
                return one
        raise Unavailable(f"the node at {self.url} did not grant {command}")


@dataclass(frozen=True, slots=True)
class Addition:
    """By its put task. ``receipts`` are those of allocate and, once known, of put and accept;
    ``claims`` what belongs to the last (the location commitment, the /pdp/accept invocation)."""

    space: str
    size: int
    digest: bytes  # empty while it is not known
    node: str
    cause: bytes  # the /blob/add task
    invocations: list[bytes]  # allocate, put, accept
    receipts: list[bytes]
    claims: list[bytes]

    def tokens(self) -> list[Token]:
        return [token.decode(data) for data in (*self.invocations, *self.receipts, *self.claims)]

    def _invocation(self, at: int) -> Invocation:
        made = token.decode(self.invocations[at])
        assert isinstance(made, Invocation)
        return made

    def put(self) -> Invocation:
        return self._invocation(1)

    def accept(self) -> Invocation:
        return self._invocation(2)

    def answer(self) -> list[Token]:
        """The accept receipt and what belongs to it; nothing while there is none."""
        if len(self.receipts) < 3:
            return []
        return [token.decode(data) for data in (self.receipts[2], *self.claims)]

    def blob(self) -> Blob:
        return Blob(self.size, self.digest)


@dataclass(frozen=True, slots=True)
class Pending:
    """By ``held``: the put task of the newest addition of a blob."""

    put: bytes


@dataclass(frozen=True, slots=True)
class Registered:
    """A blob of a space, by ``held``. ``inserted`` is in Unix seconds."""

    put: bytes
    size: int
    inserted: int


class Additions:
    def __init__(self, service: UploadService) -> None:
        self._service = service
        self._state = service.state
        self._locks = Locks()

    async def register(self, node: str, registration: Registration) -> None:
        """Let blobs go to a node."""
        await self._state.write((node.encode(), registration))

    async def _nodes(self, digest: bytes, first: str) -> list[tuple[str, Registration]]:
        """All nodes, ``first`` before the others, those in an order that the digest decides: every
        node gets its share, and a test that runs again meets the same node."""
        rows = [(key.decode(), row) for key, row in await self._state.page(Registration)]
        return sorted(
            rows, key=lambda row: (row[0] != first, sha256(digest + row[0].encode()).digest())
        )

    # -- add ----------------------------------------------------------------------------------

    async def add(self, space: str, blob: Blob, cause: bytes) -> Addition:
        """The addition to answer with; a Failure when no node takes the blob."""
        key = held(space, blob.digest or cause)
        async with self._locks(key):
            earlier = await self._earlier(key) if blob.digest else None
            if earlier is not None and earlier.answer():
                return earlier
            addition = await self._allocate(space, blob, cause, earlier.node if earlier else "")
            put = addition.put().task
            await self._state.write((put, addition), (key, Pending(put)))
            if len(addition.receipts) == 2:
                addition = await self._accept(addition)
            return addition

    async def _earlier(self, key: bytes) -> Addition | None:
        registered = await self._state.get(Registered, key)
        pending = None if registered else await self._state.get(Pending, key)
        put = registered.put if registered else pending.put if pending else None
        return await self._state.get(Addition, put) if put else None

    async def _allocate(self, space: str, blob: Blob, cause: bytes, first: str) -> Addition:
        refusals = []
        arguments = {"blob": blob.value(), "cause": Cid(cause), "space": space}
        for node, registration in await self._nodes(blob.digest or cause, first):
            proof = registration.proof("/blob/allocate")
            allocate = self._service.invoke(node, "/blob/allocate", arguments, [proof])
            try:
                receipt, _ = await self._service.peers.call(registration.url, allocate, [proof])
                address = values.get(receipt.result(), dict, "address")
            except IngotError as error:
                refusals.append(f"{node}: {error}")
                continue
            key = Signer.from_seed(blob.digest[-32:] if blob.digest else os.urandom(32))
            put = self._put(key, blob, allocate.task)
            accept = self._announce(node, registration, put, space, blob)
            receipts = [receipt.data]
            if address is None:
                done = self._service.sign_receipt(put.task, {"ok": {}}, signer=key)
                receipts.append(done.data)
            return Addition(
                space,
                blob.size,
                blob.digest,
                node,
                cause,
                [allocate.data, put.data, accept.data],
                receipts,
                [],
            )
        raise Failure("CandidateUnavailable", "; ".join(refusals) or "there are no nodes")

    def _put(self, key: Signer, blob: Blob, allocate: bytes) -> Invocation:
        """What the client is to do; it signs the receipt with the key in ``meta``."""
        return token.invoke(
            key,
            audience=key.did,
            subject=key.did,
            command="/http/put",
            arguments={"body": blob.value(), "destination": values.promise(allocate)},
            expires=None,
            nonce=nonce(),
            meta={"keys": {"id": key.did, "keys": {key.did: key.to_tagged()}}},
        )

    def _announce(
        self, node: str, registration: Registration, put: Invocation, space: str, blob: Blob
    ) -> Invocation:
        return token.invoke(
            self._service.signer,
            audience=node,
            subject=node,
            command="/blob/accept",
            arguments={"_put": values.promise(put.task), "blob": blob.value(), "space": space},
            proofs=[registration.proof("/blob/accept").cid],
            expires=None,
            nonce=b"",
        )

    # -- conclude -----------------------------------------------------------------------------

    async def conclude(self, receipt: Receipt) -> list[Token] | None:
        """The node's accept receipt for a put that ``receipt`` says is done, and what belongs to
        it; None when nobody here announced such a put, or when it failed."""
        addition = await self._state.get(Addition, receipt.ran)
        if addition is None or "ok" not in receipt.out:
            return None
        if receipt.issuer != addition.put().issuer:
            raise InvalidAudience(f"a receipt by {receipt.issuer}, not by {addition.put().issuer}")
        signature.check(
            receipt, self._service.now(), await self._service.peers.documents([receipt])
        )
        async with self._locks(held(addition.space, addition.digest or addition.cause)):
            addition = await self._state.get(Addition, receipt.ran)
            assert addition is not None
            if not addition.answer():
                addition = replace(addition, receipts=[*addition.receipts[:1], receipt.data])
                return await self._ask(addition)
            return addition.answer()

    async def _accept(self, addition: Addition) -> Addition:
        """As ``conclude``, for bytes that the node had; the node's refusal is a failure."""
        (answer, *_) = await self._ask(addition)
        assert isinstance(answer, Receipt)
        answer.result()
        kept = await self._state.get(Addition, addition.put().task)
        assert kept is not None
        return kept

    async def _ask(self, addition: Addition) -> list[Token]:
        """Send the announced accept, and keep what comes back unless it is an error."""
        registration = await self._state.get(Registration, addition.node.encode())
        assert registration is not None
        accept, put = addition.accept(), addition.put()
        proofs = [token.decode(data) for data in registration.grants]
        receipt, came = await self._service.peers.call(
            registration.url, accept, [*proofs, put, token.decode(addition.receipts[1])]
        )
        if "ok" not in receipt.out:
            return [receipt]
        claims = [*came.invocations.values()]
        digest = self._check(receipt, claims, addition)
        done = replace(
            addition,
            digest=digest,
            receipts=[*addition.receipts[:2], receipt.data],
            claims=[claim.data for claim in claims],
        )
        key = held(addition.space, digest)
        earlier = await self._state.get(Registered, key)
        inserted = earlier.inserted if earlier else self._service.now()
        await self._state.write(
            (put.task, done),
            (key, Registered(put.task, addition.size, inserted)),
            (accept.task, Answer(container.encode(done.answer()))),
            forget=[(Pending, key)],
        )
        self._service.effects["registered", digest] += 1
        return done.answer()

    def _check(self, receipt: Receipt, claims: list[Invocation], addition: Addition) -> bytes:
        """The multihash of the blob that the node vouches for."""
        site = values.take(receipt.result(), Cid, "site")
        for claim in claims:
            if claim.cid == site:
                place = query.location_of(claim)
                if (place.node, place.space) == (addition.node, addition.space):
                    if addition.digest in (b"", place.blob):
                        return place.blob
        raise Corruption(f"the answer of {addition.node}", "its location commitment", "another")

    # -- taking back --------------------------------------------------------------------------

    async def remove(self, space: str, digest: bytes, call: Call) -> None:
        """Take a blob out of a space; nothing to do when it is not in it."""
        key = held(space, digest)
        async with self._locks(key):
            found = await self._state.get(Registered, key)
            addition = await self._state.get(Addition, found.put) if found else None
            if addition is None:
                return
            cause = {"cause": Cid(call.invocation.task)}
            named = [call.request.delegations[name] for name in call.invocation.proofs]
            await self._tell(
                addition.node, "/blob/release", space, digest, cause, [call.invocation, *named]
            )
            await self._state.write(
                forget=[(Registered, key), (Addition, addition.put().task), (Pending, key)]
            )
            self._service.effects["removed", digest] += 1

    async def abort(self, space: str, digest: bytes, cause: bytes) -> None:
        """Take back an addition that was not concluded."""
        key = held(space, digest)
        async with self._locks(key):
            if await self._state.get(Registered, key):
                raise Failure("BlobAccepted", "the blob was accepted: remove it")
            pending = await self._state.get(Pending, key)
            addition = await self._state.get(Addition, pending.put) if pending else None
            if addition is None or addition.cause != cause:
                raise Failure("MissingCause", "no such addition is under way in this space")
            await self._tell(addition.node, "/blob/reject", space, digest)
            await self._state.write(forget=[(Pending, key), (Addition, addition.put().task)])

    async def _tell(
        self,
        node: str,
        command: str,
        space: str,
        digest: bytes,
        more: Mapping[str, object] | None = None,
        along: list[Token] | None = None,
    ) -> None:
        registration = await self._state.get(Registration, node.encode())
        assert registration is not None
        proof = registration.proof(command)
        arguments = {"space": space, "digest": digest, **(more or {})}
        told = self._service.invoke(node, command, arguments, [proof])
        receipt, _ = await self._service.peers.call(registration.url, told, [proof, *(along or [])])
        receipt.result()
