"""Publishing an index and asking for what it has: who may fetch it, and what an answer proves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import pytest

from ingot.codec import car, cid, multihash
from ingot.codec.dag_cbor import Cid
from ingot.forge import container, document, index, query, token
from ingot.forge.container import HEADER
from ingot.forge.errors import Refused
from ingot.forge.network import Network
from ingot.forge.network.faults import ErrorReceipt, ExpiredDelegations, FlippedBit
from ingot.forge.query import Answer, Location
from ingot.forge.token import Delegation, Receipt, Token
from tests.forge.network.client import Client
from tests.forge.support import VECTORS


class Shard:
    """A CAR of a few blocks, and its index."""

    def __init__(self, count: int = 3) -> None:
        self.blocks = [os.urandom(200 + number) for number in range(count)]
        self.data = car.encode_archive(
            [bytes.fromhex("01550000")], [(cid.of_chunk(block), block) for block in self.blocks]
        )
        self.digest = multihash.of(self.data)
        _, offset = car.decode_header(self.data)
        rows = [
            (multihash.of_cid(frame.cid), frame.block, frame.end - frame.block)
            for frame in car.frames(self.data, offset)
        ]
        (self.index,) = index.archives(self.digest, rows)
        self.index_cid = cid.of_archive(multihash.of(self.index)[2:])


async def publish(client: Client, archive: bytes, *proofs: Delegation) -> Receipt:
    """``/index/add``; with the delegation that lets the service fetch it, or with others."""
    digest = multihash.of(archive)
    shown = proofs or (
        client.grant(
            client.agent,
            client.network.upload.did,
            "/content/retrieve",
            [["==", ".blob.digest", digest]],
            lasting=30,
        ),
    )
    invocation = client.ask(
        "/index/add",
        {"index": Cid(cid.of_archive(digest[2:]))},
        meta={"retrievalAuth": [Cid(one.cid) for one in (client.right, *shown)]},
    )
    receipt, _ = await client.call(invocation, *shown)
    return receipt


async def stored(client: Client) -> Shard:
    shard = Shard()
    await client.store(shard.data)
    await client.store(shard.index)
    return shard


async def ask(
    client: Client,
    wanted: Sequence[bytes],
    kind: str = "standard",
    proofs: Sequence[Delegation] | None = None,
    spaces: Sequence[str] | None = None,
) -> tuple[int, bytes]:
    indexer = client.network.indexer
    assert indexer is not None
    path = query.path(wanted, [client.space.did] if spaces is None else spaces, kind)
    shown: Sequence[Token] = proofs if proofs is not None else reading(client)
    headers = {}
    if shown:
        headers[HEADER] = container.to_header(shown, container.Form.GZIP_BASE64URL)
    async with client.session.get(indexer.url + path, headers=headers) as response:
        return response.status, await response.read()


def reading(client: Client) -> list[Delegation]:
    indexer = client.network.indexer
    assert indexer is not None
    return [client.right, client.grant(client.agent, indexer.did, "/content/retrieve", lasting=60)]


def places(client: Client, answer: Answer, wanted: bytes) -> list[Location]:
    assert not answer.refused
    documents = {
        one.did: document.of_service(one.did, one.signer.public.did)
        for one in client.network.services
    }
    good, refused = query.commitments(
        answer, [client.space.did], client.network.upload.now(), documents
    )
    assert not refused
    return query.locate(wanted, good, list(answer.indexes.values()))


async def test_blocks_are_found_by_the_index_and_fetched(network: Network, client: Client) -> None:
    shard = await stored(client)
    assert (await publish(client, shard.index)).result() == {}
    for block in shard.blocks:
        status, body = await ask(client, [multihash.of(block)])
        assert status == 200
        (place,) = places(client, query.decode(body), multihash.of(block))
        assert place.blob == shard.digest and place.end is not None
        _, found, receipt = await client.retrieve(place, place.start, place.end)
        assert found == block and receipt.result() == {}
    answer = query.decode(body)
    assert {claim.command for claim in answer.claims.values()} == {
        "/assert/location",
        "/assert/index",
    }
    assert list(answer.indexes.values()) == [index.decode(shard.index)]
    assert network.indexer is not None
    assert network.indexer.effects["indexed", multihash.of(shard.index)] == 1
    assert network.indexer.effects["published", shard.digest] == 1


async def test_names_in_an_answer_are_binary(client: Client) -> None:
    shard = await stored(client)
    (await publish(client, shard.index)).result()
    _, body = await ask(client, [multihash.of(shard.blocks[0])])
    assert query.context(client.space.did, shard.digest) in body


async def test_the_index_of_the_vectors(client: Client) -> None:
    segment, archive = (VECTORS / name for name in ("segment.car", "index.car"))
    await client.store(segment.read_bytes())
    await client.store(archive.read_bytes())
    (await publish(client, archive.read_bytes())).result()
    (slices,) = index.decode(archive.read_bytes()).values()
    for wanted, (start, end) in slices.items():
        status, body = await ask(client, [wanted])
        (place,) = places(client, query.decode(body), wanted)
        assert (status, place.start, place.end) == (200, start, end)
        _, found, _ = await client.retrieve(place, start, end)
        assert multihash.of(found) == wanted


async def test_kinds_of_queries(client: Client) -> None:
    shard = await stored(client)
    (await publish(client, shard.index)).result()
    wanted = multihash.of(shard.blocks[1])
    _, body = await ask(client, [wanted], "location", proofs=[])
    assert not query.decode(body).claims
    _, body = await ask(client, [shard.digest], "location", proofs=[])
    (place,) = places(client, query.decode(body), shard.digest)
    assert place.end == len(shard.data) - 1
    status, body = await ask(client, [wanted], "standard_compressed")
    answer = query.decode(body)
    (place,) = places(client, answer, wanted)
    assert client.network.indexer is not None
    assert (place.node, place.blob) == (client.network.indexer.did, wanted)
    start = shard.data.index(shard.blocks[1])
    assert (place.start, place.end) == (start, start + len(shard.blocks[1]) - 1)
    assert not answer.indexes
    _, body = await ask(client, [os.urandom(1) and multihash.of(b"nobody has this")])
    assert not query.decode(body).claims
    status, body = await ask(client, [wanted], "no such kind")
    assert (status, b"type" in body) == (400, True)
    status, _ = await ask(client, [])
    assert status == 400


async def test_equal_contents_are_claims(client: Client) -> None:
    indexer = client.network.indexer
    assert indexer is not None
    one, other = multihash.of(b"one"), cid.of_chunk(b"other")
    claim = client.ask(
        "/assert/equals",
        {"content": one, "equals": Cid(other)},
        audience=indexer.did,
        subject=client.agent.did,
        proofs=[],
    )
    receipt, _ = await client.call(claim, url=f"{indexer.url}/claims")
    assert receipt.result() == {}
    for name in (one, multihash.of_cid(other)):
        _, body = await ask(client, [name], spaces=[])
        assert list(query.decode(body).claims) == [claim.cid]
        _, body = await ask(client, [name], "index_or_location", spaces=[])
        assert not query.decode(body).claims
    async with client.session.get(f"{indexer.url}/claim/{cid.to_text(claim.cid)}") as response:
        assert await response.read() == claim.data


async def test_a_query_without_the_right_to_read_fails(client: Client) -> None:
    shard = await stored(client)
    (await publish(client, shard.index)).result()
    wanted = [multihash.of(shard.blocks[0])]
    indexer = client.network.indexer
    assert indexer is not None
    expired = client.grant(client.agent, indexer.did, "/content/retrieve", lasting=-10)
    other = client.grant(client.agent, indexer.did, "/blob/list")
    for proofs in ([], [client.right, expired], [client.right, other], [client.right]):
        status, body = await ask(client, wanted, proofs=proofs)
        assert (status, b"no delegations" in body) == (500, True)
    status, body = await ask(client, wanted, spaces=[client.agent.did])
    assert (status, b"no location" in body) == (500, True)


async def test_a_shard_of_several_indexes(client: Client) -> None:
    shard = Shard(count=4)
    (slices,) = index.decode(shard.index).values()
    halves = [dict(list(slices.items())[at::2]) for at in (0, 1)]
    await client.store(shard.data)
    for half in halves:
        archive = index.encode({shard.digest: half})
        await client.store(archive)
        (await publish(client, archive)).result()
    _, body = await ask(client, list(slices))
    answer = query.decode(body)
    assert len(answer.indexes) == 2
    for wanted, (start, end) in slices.items():
        (place,) = places(client, answer, wanted)
        assert (place.start, place.end) == (start, end)


async def test_a_block_that_another_space_has_too(network: Network, client: Client) -> None:
    shard = await stored(client)
    (await publish(client, shard.index)).result()
    other = Client(network, client.session, seed=7)
    await network.provision(other.space.did)
    again = Shard(count=1)
    again.data = car.encode_archive(
        [bytes.fromhex("01550000")], [(cid.of_chunk(shard.blocks[0]), shard.blocks[0])]
    )
    digest = multihash.of(again.data)
    start = len(again.data) - len(shard.blocks[0])
    wanted = multihash.of(shard.blocks[0])
    (archive,) = index.archives(digest, [(wanted, start, len(shard.blocks[0]))])
    await other.store(again.data)
    await other.store(archive)
    (await publish(other, archive)).result()
    for each, blob in ((client, shard.digest), (other, digest)):
        status, body = await ask(each, [wanted])
        (place,) = places(each, query.decode(body), wanted)
        assert (status, place.blob, place.space) == (200, blob, each.space.did)


async def test_wrong_bytes_of_the_index_are_no_index(network: Network, client: Client) -> None:
    shard = await stored(client)
    (place,) = [await client.store(shard.index)]
    network.node(place.node).faults.add("GET /piece", FlippedBit())
    with pytest.raises(Refused, match="HandlerExecutionError.*expected zQm"):
        (await publish(client, shard.index)).result()
    assert (await publish(client, shard.index)).result() == {}
    network.node(place.node).faults.add("GET /piece", FlippedBit())
    status, _ = await ask(client, [multihash.of(shard.blocks[0])])
    assert status == 500


async def test_an_index_is_fetched_only_with_good_delegations(
    network: Network, client: Client
) -> None:
    shard = await stored(client)
    to, command = network.upload.did, "/content/retrieve"
    policy = [["==", ".blob.digest", multihash.of(b"another")]]
    for proof in (
        client.grant(client.agent, to, command, lasting=-5),
        client.grant(client.agent, to, "/blob/add"),
        client.grant(client.agent, to, command, policy),
        client.grant(client.agent, client.agent.did, command),
    ):
        with pytest.raises(Refused, match="HandlerExecutionError.*no delegations"):
            (await publish(client, shard.index, proof)).result()
    network.upload.faults.add("/index/add", ExpiredDelegations())
    with pytest.raises(Refused, match="HandlerExecutionError.*Expired"):
        (await publish(client, shard.index)).result()
    assert (await publish(client, shard.index)).result() == {}


async def test_refusals_of_index_add(network: Network, client: Client) -> None:
    shard = Shard()
    with pytest.raises(Refused) as refused:
        (await publish(client, shard.index)).result()
    assert refused.value.name == "IndexNotFound"
    await client.store(shard.index)
    network.upload.faults.add("/index/add", ErrorReceipt("IndexerNotConfigured"))
    with pytest.raises(Refused) as refused:
        (await publish(client, shard.index)).result()
    assert refused.value.name == "IndexerNotConfigured"
    with pytest.raises(Refused) as refused:
        await client.run("/index/add", {"index": Cid(cid.of_chunk(shard.index))})
    assert refused.value.name == "MalformedArguments"
    place = await client.store(b"this is no index")
    with pytest.raises(Refused, match="HandlerExecutionError"):
        (await publish(client, b"this is no index")).result()
    assert network.indexer is not None
    assert not network.indexer.effects["indexed", place.blob]


async def test_a_network_without_an_indexer(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    async with Network(tmp_path, nodes=1, indexer=False) as network:
        client = Client(network, session)
        await network.provision(client.space.did)
        shard = await stored(client)
        with pytest.raises(Refused) as refused:
            (await publish(client, shard.index)).result()
        assert refused.value.name == "IndexerNotConfigured"


async def test_only_who_has_the_right_publishes_locations(client: Client) -> None:
    indexer = client.network.indexer
    assert indexer is not None
    place = await client.store(b"some bytes")
    arguments = {"claim": Cid(place.claim.cid), "provider": {"addresses": [b"\x04"]}}
    own = client.ask(
        "/claim/cache", arguments, audience=indexer.did, subject=client.agent.did, proofs=[]
    )
    receipt, _ = await client.call(own, place.claim, url=indexer.url)
    with pytest.raises(Refused, match="InvalidSubject"):
        receipt.result()
    stranger = client.ask(
        "/claim/cache", arguments, audience=indexer.did, subject=indexer.did, proofs=[]
    )
    receipt, _ = await client.call(stranger, place.claim, url=indexer.url)
    with pytest.raises(Refused, match="InvalidClaim"):
        receipt.result()
    forged = token.invoke(
        client.agent,
        subject=client.agent.did,
        command="/assert/location",
        arguments={**place.claim.arguments, "content": b"\x12"},
        expires=1,
        nonce=b"",
    )
    right = indexer.delegate(client.agent.did, "/claim/cache")
    asked = client.ask(
        "/claim/cache",
        {"claim": Cid(forged.cid), "provider": {"addresses": []}},
        audience=indexer.did,
        subject=indexer.did,
        proofs=[right],
    )
    receipt, _ = await client.call(asked, forged, right, url=indexer.url)
    with pytest.raises(Refused, match="HandlerExecutionError.*expired"):
        receipt.result()
