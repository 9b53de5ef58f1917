"""The tokens of a real flow have the shape of those in the vectors, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingot.codec import cid, multihash
from ingot.codec.dag_cbor import Cid
from ingot.forge import container, index, query, token
from ingot.forge.network import Network
from ingot.forge.token import Delegation, Invocation, Receipt
from tests.forge.network.client import Client
from tests.forge.support import VECTORS, load

ROWS = [token.decode(bytes.fromhex(row["tokenHex"])) for row in load("flow-tokens.json")["tokens"]]
SEGMENT = (VECTORS / "segment.car").read_bytes()


def shape(value: object) -> object:
    """The kinds of a value; keys that are DIDs are data."""
    if isinstance(value, Mapping):
        return {
            "DID" if key.startswith("did:") else key: shape(item) for key, item in value.items()
        }
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value).__name__


def wire(invocation: Invocation) -> dict[str, Any]:
    """What can be compared between two of the same command."""
    return {
        "arguments": shape(invocation.arguments),
        "meta": shape(invocation.meta),
        "audience": invocation.audience is not None,
        "own": invocation.subject == invocation.issuer,
        "for its subject": invocation.subject == invocation.executor,
        "nonce": len(invocation.nonce),
        "proofs": len(invocation.proofs),
    }


def of_vectors(command: str) -> list[dict[str, Any]]:
    return [wire(row) for row in ROWS if type(row) is Invocation and row.command == command]


async def test_invocations(network: Network, client: Client) -> None:
    added = await client.add(SEGMENT)
    for command in ("/blob/allocate", "/http/put", "/blob/accept"):
        (made,) = [one for one in added.answer.invocations.values() if one.command == command]
        assert wire(made) == of_vectors(command)[0]
    assert added.put.issuer == load("flow-tokens.json")["principals"]["putKey"]
    place = await client.store(SEGMENT)
    assert wire(place.claim) == of_vectors("/assert/location")[0]
    assert place.claim.expires is None
    (vector,) = [row for row in ROWS if row.command == "/assert/location"][:1]
    assert isinstance(vector, Invocation)
    for name in ("content", "range"):
        assert place.claim.arguments[name] == vector.arguments[name]
    assert place.urls[0].rpartition("/")[2] == vector.arguments["location"][0].rpartition("/")[2]


async def test_receipts(network: Network, client: Client) -> None:
    added = await client.add(SEGMENT)
    assert await client.put(added, SEGMENT) == 204
    await client.conclude(added)
    answer = await client.receipt(added.accept.task)
    assert answer is not None
    vector = container.decode((VECTORS / "receipt-endpoint-accept.cbor").read_bytes())
    assert commands(answer.invocations) == commands(vector.invocations)
    (mine,), (theirs,) = answer.receipts.values(), vector.receipts.values()
    assert shape(mine.arguments) == shape(theirs.arguments)
    assert added.answer.invocations.keys() >= {added.put.cid, added.accept.cid}
    vector = container.decode((VECTORS / "response-blob-add.cbor").read_bytes())
    assert commands(added.answer.invocations) == commands(vector.invocations)
    outs = {str(shape(one.out)) for one in added.answer.receipts.values()}
    assert outs == {str(shape(one.out)) for one in vector.receipts.values()}


def commands(tokens: Mapping[bytes, Invocation]) -> set[str]:
    return {one.command for one in tokens.values()}


async def test_an_error_receipt(network: Network, client: Client) -> None:
    other = Client(network, client.session, seed=9)
    blob = {"size": 1, "digest": multihash.of(b"")}
    receipt, _ = await other.call(other.ask("/blob/add", {"blob": blob}))
    (vector,) = [row for row in ROWS if isinstance(row, Receipt) and "error" in row.out]
    assert shape(receipt.out) == shape(vector.out)
    assert receipt.out["error"]["name"] == vector.out["error"]["name"]


async def test_publishing(network: Network, client: Client) -> None:
    """What the indexer is sent, and what it then answers about."""
    archive = (VECTORS / "index.car").read_bytes()
    for data in (SEGMENT, archive):
        await client.store(data)
    right = client.grant(client.agent, network.upload.did, "/content/retrieve", lasting=30)
    asked = client.ask(
        "/index/add",
        {"index": Cid(cid.of_archive(multihash.of(archive)[2:]))},
        meta={"retrievalAuth": [Cid(client.right.cid), Cid(right.cid)]},
    )
    assert wire(asked) == of_vectors("/index/add")[0]
    receipt, _ = await client.call(asked, right)
    assert receipt.result() == {}
    assert network.indexer is not None
    wanted = next(iter(index.decode(archive).values()))
    indexer = network.indexer
    reading = client.grant(client.agent, indexer.did, "/content/retrieve", lasting=60)
    url = f"{indexer.url}/claims?multihash={multihash.to_text(next(iter(wanted)))}"
    header = {container.HEADER: container.to_header([client.right, reading])}
    async with client.session.get(url, headers=header) as response:
        answer = await response.read()
    claims = query.decode(answer).claims.values()
    (published,) = [one for one in claims if one.command == "/assert/index"]
    assert isinstance(published, Invocation)
    assert wire(published) == of_vectors("/assert/index")[0]


def test_the_vectors_have_every_kind() -> None:
    assert {type(row) for row in ROWS} == {Delegation, Invocation, Receipt}
