"""The flow of the vectors: what is read of its answers, and that requests have its shapes."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from ingot.clock import SystemClock
from ingot.codec.dag_cbor import Cid
from ingot.errors import Unavailable
from ingot.forge import allocation, container, query, values
from ingot.forge.blob import BlobRef
from ingot.forge.client import ForgeClient, ForgeSettings
from ingot.forge.container import CONTENT_TYPE, Container
from ingot.forge.identity import Identity
from ingot.forge.invoker import Service
from ingot.forge.token import Invocation
from tests.forge.client.support import ONCE, Server, http
from tests.forge.support import VECTORS, load, signers

FLOW = load("flow-tokens.json")
WHO: dict[str, str] = FLOW["principals"]


def read(name: str) -> Container:
    return container.decode((VECTORS / name).read_bytes())


def only(found: Container, command: str) -> Invocation:
    (made,) = (one for one in found.invocations.values() if one.command == command)
    return made


def test_the_answer_to_blob_add() -> None:
    asked = only(read("request-blob-add.cbor"), "/blob/add")
    digest = values.take(asked.arguments, bytes, "blob", "digest")
    blob = BlobRef(digest, 1410)
    assert asked.arguments == {"blob": blob.argument()}
    found = read("response-blob-add.cbor")
    (receipt,) = found.receipts_of(asked.task)
    there = allocation.read(found, receipt.result(), blob, WHO["space"], WHO["service"])
    assert there.node == WHO["node"] and there.names_digest and there.put_ok(blob) == {}
    assert there.put_key().did == WHO["putKey"]
    (allocated,) = found.receipts_of(there.allocate.task)
    address = allocation.address(allocated.result())
    assert address is not None and address.headers == {}
    assert address.url.startswith("http://127.0.0.1:3000/pdp/piece/upload/6f1ed002")
    accepted = read("receipt-endpoint-accept.cbor")
    (done,) = accepted.receipts_of(there.accept.task)
    claim = accepted.invocations[bytes(values.take(done.result(), Cid, "site"))]
    place = query.location_of(claim)
    assert (place.node, place.blob, place.start, place.end) == (WHO["node"], digest, 0, 1409)


async def test_requests_have_the_shapes_of_the_vectors(server: Server) -> None:
    bodies: list[Container] = []

    async def refuse(request: web.Request) -> web.StreamResponse:
        assert request.headers["Content-Type"] == CONTENT_TYPE
        bodies.append(container.decode(await request.read()))
        return web.Response(status=503)

    server.handler = refuse
    known, given = signers(), read("request-blob-add.cbor")
    who = Identity(known[WHO["agent"]], WHO["space"], list(given.delegations.values()))
    service = Service(WHO["service"], server.url)
    settings = ForgeSettings(upload=service, http=http(), retry=ONCE)
    archive = (VECTORS / "index.car").read_bytes()
    async with ForgeClient(settings, who, SystemClock()) as client:
        for work in (
            client.upload.add(BlobRef(multihash_of(given), 1410), None),  # type: ignore[arg-type]
            client.upload.register_index(BlobRef.of(archive)),
        ):
            try:
                await work
            except Unavailable:
                continue
    same_shape(bodies[0], given, "/blob/add")
    published = read("request-index-add.cbor")
    same_shape(bodies[1], published, "/index/add")
    (ours,), (theirs,) = leaves(bodies[1]), leaves(published)
    assert ours.policy.statements == theirs.policy.statements
    assert (ours.command, ours.subject) == (theirs.command, theirs.subject)
    listed = [bytes(one) for one in only(bodies[1], "/index/add").meta["retrievalAuth"]]  # type: ignore
    assert listed == [*only(bodies[1], "/index/add").proofs, ours.cid]


def multihash_of(given: Container) -> bytes:
    return values.take(only(given, "/blob/add").arguments, bytes, "blob", "digest")


def same_shape(ours: Container, theirs: Container, command: str) -> None:
    one, other = only(ours, command), only(theirs, command)
    fields = ("issuer", "audience", "subject", "arguments", "proofs", "cause", "issued_at")
    for name in fields:
        assert getattr(one, name) == getattr(other, name), name
    assert (one.meta or {}).keys() == (other.meta or {}).keys()
    assert len(one.nonce) == len(other.nonce) == 16
    assert len(ours.delegations) == len(theirs.delegations)


def leaves(found: Container) -> list[Any]:
    return [one for one in found.delegations.values() if one.audience == WHO["service"]]
