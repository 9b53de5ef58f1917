"""What the upload service answers to ``/blob/add``: where the bytes go, and what is done already.

    /blob/add ok   site  = promise of /blob/accept      (service -> node)
    /blob/accept   _put  = promise of /http/put         (by a key derived from the blob)
    /http/put      destination = promise of /blob/allocate
    /blob/allocate receipt: {size, address?}            (by the node)

The links are followed through the container that came; one that leads nowhere is an error. Along
the way every argument must be about our blob and our space. Where the blob is known already, the
receipts of put and accept and the location commitment are there too. Pure; signatures are for the
caller to check (``signed``). Raises Malformed. Called by ``upload``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ingot.codec import cid
from ingot.forge import values
from ingot.forge.blob import BlobRef
from ingot.forge.container import Container
from ingot.forge.errors import Malformed
from ingot.forge.keys import Signer
from ingot.forge.token import Invocation, Token
from ingot.limits import UCAN_FIELDS_MAX


@dataclass(frozen=True, slots=True)
class Address:
    """Where one HTTP PUT takes the blob's bytes."""

    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Allocation:
    """The invocations behind a ``/blob/add``."""

    node: str
    accept: Invocation
    put: Invocation
    allocate: Invocation
    names_digest: bool  # whether the put says the digest, or its receipt has to

    def signed(self) -> list[Token]:
        """The invocations, whose signatures are to be checked."""
        return [self.accept, self.put, self.allocate]

    def put_key(self) -> Signer:
        """The key that answers for the put; Malformed where it is another's, UnsupportedKey where
        it is no ed25519 key."""
        holder = self.put.issuer
        name = values.take(self.put.meta, str, "keys", "id")
        tagged = values.take(self.put.meta, bytes, "keys", "keys", name)
        signer = Signer.from_tagged(tagged)
        if name != holder or signer.did != holder:
            raise Malformed(("keys",), f"the key of {holder}", f"that of {signer.did}")
        return signer

    def put_ok(self, blob: BlobRef) -> dict[str, object]:
        """What the put's receipt says: nothing, or the digest that only the client knows."""
        return {} if self.names_digest else {"blob": {"digest": blob.digest}}


def read(found: Container, ok: object, blob: BlobRef, space: str, service: str) -> Allocation:
    """Follow the links from the ``ok`` of a ``/blob/add``."""
    accept = _invocation(found, values.promised(ok, "site"), "/blob/accept")
    if accept.issuer != service:
        raise Malformed((), f"a /blob/accept by {service}", f"one by {accept.issuer}")
    with values.under("args"):
        _same(accept.arguments, space, "space")
        blob.check(accept.arguments, "blob")
        put = _invocation(found, values.promised(accept.arguments, "_put"), "/http/put")
        names_digest = blob.check(put.arguments, "body")
        where = values.promised(put.arguments, "destination")
    allocate = _invocation(found, where, "/blob/allocate")
    node = accept.executor
    if allocate.executor != node or allocate.issuer != service:
        raise Malformed(
            (),
            f"a /blob/allocate by {service} for {node}",
            f"one by {allocate.issuer} for {allocate.executor}",
        )
    with values.under("args"):
        _same(allocate.arguments, space, "space")
        blob.check(allocate.arguments, "blob")
    return Allocation(
        node=node,
        accept=accept,
        put=put,
        allocate=allocate,
        names_digest=names_digest,
    )


def address(ok: object) -> Address | None:
    """Of the ``ok`` of a ``/blob/allocate``: None where the node has the bytes already."""
    if values.get(ok, dict, "address") is None:
        return None
    headers = values.get(ok, dict, "address", "headers") or {}
    if len(headers) > UCAN_FIELDS_MAX:
        raise Malformed(("address", "headers"), "a few headers", str(len(headers)))
    taken = {name: values.take(ok, str, "address", "headers", name) for name in headers}
    for name, value in taken.items():
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in name + value):
            raise Malformed(("address", "headers"), "headers of one line", repr(name[:40]))
    return Address(values.take(ok, str, "address", "url"), taken)


def _invocation(found: Container, task: bytes, command: str) -> Invocation:
    made = found.invocation_of(task)
    if made is None:
        raise Malformed((), f"the {command} {cid.to_text(task)} in the answer", "none")
    if made.command != command:
        raise Malformed((), f"a {command}", f"a {made.command}")
    return made


def _same(arguments: Mapping[str, object], space: str, name: str) -> None:
    found = values.take(arguments, str, name)
    if found != space:
        raise Malformed((name,), space, found)
