"""Every command, and every way in which it is refused under a name of the protocol."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from ingot.codec import cid, multihash
from ingot.codec.dag_cbor import Cid
from ingot.forge import did, query, token, values
from ingot.forge.errors import Refused
from ingot.forge.network import Network
from ingot.forge.network.faults import Close, ErrorReceipt
from ingot.forge.signature import Attestor
from ingot.forge.token import Invocation, Token
from ingot.limits import FORGE_BLOB_BYTES_MAX
from tests.forge.network.client import Client, now, site
from tests.forge.support import person


async def refused(
    client: Client, invocation: Invocation, *along: Token, url: str | None = None
) -> str:
    """The name of the error that an invocation is answered with."""
    receipt, _ = await client.call(invocation, *along, url=url)
    with pytest.raises(Refused) as error:
        receipt.result()
    failed = error.value.name == "HandlerExecutionError"
    assert (receipt.expires is not None) == failed
    return error.value.name


def named(data: bytes) -> dict[str, Any]:
    return {"blob": {"size": len(data), "digest": multihash.of(data)}}


# -- what every command goes through --------------------------------------------------------------


async def test_what_is_not_allowed_is_refused_by_name(network: Network, client: Client) -> None:
    arguments = named(b"data")
    space, agent, stranger = client.space, client.agent, person(9)
    expired = client.grant(space, agent.did, "/", lasting=-1)
    narrow = client.grant(space, agent.did, "/blob/list")
    policy = client.grant(space, agent.did, "/blob", [["==", ".blob.size", 5]])
    selector = client.grant(space, agent.did, "/blob", [["==", ".nothing.here", 5]])
    others = client.grant(space, stranger.did, "/")
    early = token.delegate(
        space,
        audience=agent.did,
        subject=space.did,
        command="/",
        expires=None,
        not_before=now() + 999,
        nonce=b"",
    )
    cases = [
        ("Expired", client.ask("/blob/add", arguments, expires=now() - 1), []),
        ("Expired", client.ask("/blob/add", arguments, proofs=[expired]), [expired]),
        ("TooEarly", client.ask("/blob/add", arguments, proofs=[early]), [early]),
        ("InvalidClaim", client.ask("/blob/add", arguments, proofs=[]), []),
        ("InvalidAudience", client.ask("/blob/add", arguments, proofs=[others]), [others]),
        ("InvalidSubject", client.ask("/blob/add", arguments, subject=person(8).did), []),
        ("UnavailableProof", client.ask("/blob/add", arguments, proofs=[others]), []),
        ("UnknownError", client.ask("/blob/add", arguments, proofs=[narrow]), [narrow]),
        ("MatchError", client.ask("/blob/add", arguments, proofs=[policy]), [policy]),
        ("ResolutionError", client.ask("/blob/add", arguments, proofs=[selector]), [selector]),
        (
            "DIDKeyResolutionError",
            client.ask("/blob/add", arguments, signer=agent.issuing_as("did:web:127.0.0.1%3A1")),
            [],
        ),
        (
            "InvalidSignature",
            client.ask("/blob/add", arguments, signer=agent.issuing_as(network.upload.did)),
            [],
        ),
        ("HandlerNotFound", client.ask("/no/such/command", {}, proofs=[]), []),
        ("MalformedArguments", client.ask("/blob/add", {}), []),
        ("MalformedArguments", client.ask("/blob/add", {"blob": {"size": 1}}), []),
        ("MalformedArguments", client.ask("/blob/add", named(b"")), []),
        (
            "MalformedArguments",
            client.ask("/blob/add", {"blob": {"size": 1, "digest": b"short"}}),
            [],
        ),
        (
            "UnsupportedDigestCode",
            client.ask("/blob/add", {"blob": {"size": 1, "digest": b"\x11\x14" + bytes(20)}}),
            [],
        ),
        (
            "UnsupportedDigestCode",
            client.ask("/blob/add", {"blob": {"size": 1, "digestCode": 17}}),
            [],
        ),
    ]
    for name, invocation, along in cases:
        assert await refused(client, invocation, *along) == name
    assert not any(node.requests["/blob/allocate"] for node in network.nodes)


async def test_a_refusal_does_not_replace_an_answer(network: Network, client: Client) -> None:
    added = await client.add(b"data")
    assert await client.put(added, b"data") == 204
    await client.conclude(added)
    place = await client.location(added)
    for audience, url in (
        (network.upload.did, network.upload.url),
        (added.node, network.node(added.node).url),
    ):
        same = client.ask(
            "/blob/accept",
            added.accept.arguments,
            audience=audience,
            subject=added.node,
            proofs=[],
            nonce=b"",
        )
        assert same.task == added.accept.task
        await refused(client, same, url=url)
    assert (await client.location(added)).claim == place.claim


# -- spaces and accounts --------------------------------------------------------------------------


async def test_a_space_nobody_provisioned_stores_nothing(network: Network, client: Client) -> None:
    other = Client(network, client.session, seed=7)
    assert await refused(other, other.ask("/blob/add", named(b"x"))) == "InsufficientStorage"
    index = {"index": Cid(cid.of_archive(bytes(32)))}
    assert await refused(other, other.ask("/index/add", index)) == "InsufficientStorage"
    assert await refused(other, other.ask("/space/info", {})) == "UnknownSpace"
    assert await client.run("/space/info", {}) == {"providers": [network.upload.did]}


async def test_an_account_provisions_a_space(network: Network, client: Client) -> None:
    other = Client(network, client.session, seed=7)
    proof = await network.login("user+tag@example.com", other.agent.did)
    account = did.of_email("user+tag@example.com")

    def asked(subject: str = account, provider: str = network.upload.did) -> Invocation:
        arguments = {"consumer": other.space.did, "provider": provider}
        proofs = [] if subject == other.agent.did else [proof]
        return other.ask("/provider/add", arguments, subject=subject, proofs=proofs)

    assert await refused(other, asked(other.agent.did), proof) == "InvalidAccount"
    elsewhere = asked(provider=network.nodes[0].did)
    assert await refused(other, elsewhere, proof) == "ProviderNotAllowed"
    receipt, _ = await other.call(asked(), proof)
    assert isinstance(receipt.result()["id"], str)
    assert await other.run("/space/info", {}) == {"providers": [network.upload.did]}
    await other.store(b"now it can")


async def test_an_account_without_a_plan_provisions_nothing(
    network: Network, client: Client
) -> None:
    account = did.of_email("poor@example.com")
    proof = token.delegate(
        Attestor(account, network.upload.signer),
        audience=client.agent.did,
        subject=account,
        command="/provider",
        expires=None,
        nonce=b"",
    )
    arguments = {"consumer": client.space.did, "provider": network.upload.did}
    invocation = client.ask("/provider/add", arguments, subject=account, proofs=[proof])
    assert await refused(client, invocation, proof) == "AccountPlanMissing"
    forged = token.delegate(
        Attestor(account, person(5)),
        audience=client.agent.did,
        subject=account,
        command="/provider",
        expires=None,
        nonce=b"",
    )
    invocation = client.ask("/provider/add", arguments, subject=account, proofs=[forged])
    assert await refused(client, invocation, forged) == "InvalidSignature"


# -- blobs ----------------------------------------------------------------------------------------


async def test_a_blob_that_no_node_takes(network: Network, client: Client) -> None:
    arguments = {"blob": {"size": FORGE_BLOB_BYTES_MAX + 1, "digest": multihash.of(b"")}}
    assert await refused(client, client.ask("/blob/add", arguments)) == "CandidateUnavailable"
    for node in network.nodes:
        node.faults.add("/blob/allocate", ErrorReceipt("CandidateUnavailable"))
    assert await refused(client, client.ask("/blob/add", named(b"x"))) == "CandidateUnavailable"
    network.nodes[0].faults.add("POST /", Close())
    network.nodes[1].faults.add("POST /", Close())
    assert await refused(client, client.ask("/blob/add", named(b"x"))) == "CandidateUnavailable"
    assert await client.store(b"x")


async def test_another_node_takes_what_one_refuses(network: Network, client: Client) -> None:
    data = os.urandom(99)
    first = (await client.add(data)).node
    other = Client(network, client.session, seed=7)
    await network.provision(other.space.did)
    network.node(first).faults.add("/blob/allocate", ErrorReceipt("CandidateUnavailable"))
    assert (await other.add(data)).node != first
    assert (await client.add(data)).node == first


async def test_a_node_allocates_for_the_upload_service_only(
    network: Network, client: Client
) -> None:
    node = network.nodes[0]
    arguments = {**named(b"x"), "cause": Cid(cid.of_structure(b"")), "space": client.space.did}
    asked = client.ask("/blob/allocate", arguments, audience=node.did, subject=node.did, proofs=[])
    assert await refused(client, asked, url=node.url) == "InvalidClaim"
    asked = client.ask("/blob/allocate", arguments, audience=node.did)
    assert await refused(client, asked, url=node.url) == "InvalidSubject"
    size = {"blob": {"size": FORGE_BLOB_BYTES_MAX + 1, "digest": multihash.of(b"")}}
    (proof, *_) = node.grant(client.agent.did)
    asked = client.ask(
        "/blob/allocate", arguments | size, audience=node.did, subject=node.did, proofs=[proof]
    )
    assert await refused(client, asked, proof, url=node.url) == "BlobSizeLimitExceeded"


async def test_bytes_that_another_space_stored_need_no_put(
    network: Network, client: Client
) -> None:
    data = os.urandom(500)
    place = await client.store(data)
    other = Client(network, client.session, seed=7)
    await network.provision(other.space.did)
    status, _, receipt = await other.retrieve(place, 0, 9)
    assert status == 404 and receipt.out["error"]["name"] == "NotAllocated"
    added = await other.add(data)
    assert added.address is None and added.allocated == {"size": 500}
    (accepted,) = added.answer.receipts_of(added.accept.task)
    assert added.answer.receipts_of(added.put.task)
    mine = await other.location(added)
    assert mine.claim.cid == site(accepted) and mine.space == other.space.did
    assert (await other.retrieve(mine, 0, 499))[1] == data
    assert network.node(place.node).effects["stored", place.blob] == 1
    assert network.node(place.node).effects["accepted", place.blob] == 2


async def test_many_spaces_store_the_same_bytes_at_once(network: Network, client: Client) -> None:
    data = os.urandom(500)
    clients = [Client(network, client.session, seed=20 + number) for number in range(8)]
    for each in clients:
        await network.provision(each.space.did)
    places = await asyncio.gather(*(each.store(data) for each in clients))
    assert network.indexer is not None
    url = network.indexer.url + query.path([multihash.of(data)], [], "location")
    async with client.session.get(url) as response:
        answer = query.decode(await response.read())
    assert set(answer.claims) == {place.claim.cid for place in places}
    for each, place in zip(clients, places, strict=True):
        assert (await each.retrieve(place, 0, 499))[1] == data
    await asyncio.gather(
        *(each.run("/blob/remove", {"digest": place.blob}) for each in clients[1:])
    )
    assert (await clients[0].retrieve(places[0], 0, 499))[1] == data


async def test_an_addition_that_is_repeated_before_its_put(
    network: Network, client: Client
) -> None:
    data = os.urandom(500)
    first, second = await client.add(data), await client.add(data)
    assert first.node == second.node
    assert (first.allocated["size"], second.allocated["size"]) == (500, 0)
    assert await client.put(first, data) == 204
    third = await client.add(data)
    assert third.address is None
    place = await client.location(third)
    for earlier in (first, second):
        await client.conclude(earlier)
        assert (await client.location(earlier)).claim == place.claim
    node = network.node(place.node)
    assert node.effects["accepted", place.blob] == node.effects["stored", place.blob] == 1


async def test_a_blob_whose_digest_is_told_after_the_put(network: Network, client: Client) -> None:
    data = os.urandom(5000)
    added = await client.add(data, {"size": len(data), "digestCode": 18})
    assert added.put.arguments["body"] == {"size": len(data), "digestCode": 18}
    assert await client.put(added, data) == 204
    receipt = added.done({"blob": {"digest": multihash.of(b"another")}})
    invocation = client.concluding(receipt)
    answer = await client.send([invocation, receipt])
    answers = answer.receipts_of(invocation.task) + answer.receipts_of(added.accept.task)
    assert [one.out["error"]["name"] for one in answers if "error" in one.out] == [
        "HandlerExecutionError"
    ]
    await client.conclude(added, {"blob": {"digest": multihash.of(data)}})
    place = await client.location(added)
    assert place.blob == multihash.of(data)
    assert (await client.retrieve(place, 0, 4999))[1] == data
    listed = await client.run("/blob/list", {})
    assert listed["results"][0]["blob"] == {"size": 5000, "digest": place.blob}


async def test_conclusions_that_are_none(network: Network, client: Client) -> None:
    data = os.urandom(50)
    added = await client.add(data)
    receipt = added.done({})
    assert await refused(client, client.concluding(receipt)) == "ConclusionReceiptNotFound"
    single = "receipts" if network.upload.generation == "seed" else "receipt"
    other = client.ask("/ucan/conclude", {single: []}, subject=client.agent.did, proofs=[])
    assert await refused(client, other) == "MalformedArguments"
    forged = token.answer(client.agent, ran=added.put.task, out={"ok": {}}, expires=None, nonce=b"")
    assert await refused(client, client.concluding(forged), forged) == "HandlerExecutionError"
    unknown = token.answer(
        client.agent, ran=cid.of_structure(b"?"), out={"ok": {}}, expires=None, nonce=b""
    )
    concluded, _ = await client.call(client.concluding(unknown), unknown)
    assert concluded.result() == {}
    assert not network.node(added.node).requests["/blob/accept"]


async def test_concluding_what_was_not_put(network: Network, client: Client) -> None:
    added = await client.add(b"never put")
    receipt = added.done({})
    invocation = client.concluding(receipt)
    concluded, answer = await client.call(invocation, receipt)
    if network.upload.generation == "seed":
        assert values.take(concluded.out, str, "error", "name") == "HandlerExecutionError"
    else:
        assert concluded.result() == {}
        (accepted,) = answer.receipts_of(added.accept.task)
        assert accepted.issuer == added.node and "error" in accepted.out
    assert await client.receipt(added.accept.task) is None
    assert await client.put(added, b"never put") == 204
    await client.conclude(added)
    assert await client.location(added)


async def test_lists_have_pages(client: Client) -> None:
    blobs = {}
    for number in range(5):
        place = await client.store(os.urandom(10 + number))
        blobs[place.blob] = 10 + number
    found: dict[bytes, int] = {}
    cursor: dict[str, str] = {}
    pages = 0
    while True:
        page = await client.run("/blob/list", {"size": 2, **cursor})
        assert page["size"] == len(page["results"]) <= 2
        for row in page["results"]:
            assert abs(row["insertedAt"] - now()) < 100
            found[row["blob"]["digest"]] = row["blob"]["size"]
        pages += 1
        if "cursor" not in page:
            break
        cursor = {"cursor": page["cursor"]}
    assert (found, pages) == (blobs, 3)
    for wrong in ({"size": 0}, {"cursor": "?"}, {"size": "2"}):
        assert await refused(client, client.ask("/blob/list", wrong)) == "MalformedArguments"


async def test_a_removed_blob_is_gone_where_no_other_space_has_it(
    network: Network, client: Client
) -> None:
    data = os.urandom(70)
    place = await client.store(data)
    other = Client(network, client.session, seed=7)
    await network.provision(other.space.did)
    mine = await other.store(data)
    assert await client.run("/blob/remove", {"digest": place.blob}) == {}
    assert await client.run("/blob/remove", {"digest": place.blob}) == {}
    assert (await client.run("/blob/list", {}))["results"] == []
    status, _, receipt = await client.retrieve(place, 0, 9)
    assert (status, receipt.out["error"]["name"]) == (404, "NotAllocated")
    assert (await other.retrieve(mine, 0, 69))[1] == data
    await other.run("/blob/remove", {"digest": place.blob})
    status, _, receipt = await other.retrieve(mine, 0, 9)
    assert (status, receipt.out["error"]["name"]) == (404, "NotFound")
    assert network.upload.effects["removed", place.blob] == 2
    again = await client.add(data)
    assert again.address is not None
    assert await client.store(data)


async def test_a_node_releases_only_for_a_removal(network: Network, client: Client) -> None:
    place = await client.store(b"to be kept")
    node = network.node(place.node)
    proof = next(one for one in node.grant(client.agent.did) if one.command == "/blob/release")
    removal = client.ask("/blob/remove", {"digest": multihash.of(b"another")})
    unproven = client.ask("/blob/remove", {"digest": place.blob}, proofs=[])

    def release(cause: Invocation) -> Invocation:
        arguments = {"cause": Cid(cause.task), "space": client.space.did, "digest": place.blob}
        return client.ask(
            "/blob/release", arguments, audience=node.did, subject=node.did, proofs=[proof]
        )

    assert await refused(client, release(removal), proof, url=node.url) == "UnknownCause"
    assert await refused(client, release(removal), removal, proof, url=node.url) == "InvalidCause"
    assert await refused(client, release(unproven), unproven, proof, url=node.url) == "InvalidCause"
    assert (await client.retrieve(place, 0, 9))[1] == b"to be kept"


async def test_aborting_an_addition(network: Network, client: Client) -> None:
    data = os.urandom(60)
    added = await client.add(data)
    digest = multihash.of(data)
    nothing = {"cause": Cid(cid.of_structure(b"?")), "digest": digest}
    assert await refused(client, client.ask("/blob/abort", nothing)) == "MissingCause"
    arguments = {"cause": Cid(added.invocation.task), "digest": digest}
    assert await client.run("/blob/abort", arguments) == {}
    assert await client.put(added, data) == 404
    assert await refused(client, client.ask("/blob/abort", arguments)) == "MissingCause"
    place = await client.store(data)
    assert await refused(client, client.ask("/blob/abort", arguments)) == "BlobAccepted"
    node = network.node(place.node)
    proof = next(one for one in node.grant(client.agent.did) if one.command == "/blob/reject")
    asked = client.ask(
        "/blob/reject",
        {"space": client.space.did, "digest": digest},
        audience=node.did,
        subject=node.did,
        proofs=[proof],
    )
    assert await refused(client, asked, proof, url=node.url) == "BlobAccepted"


# -- uploads --------------------------------------------------------------------------------------


async def test_uploads_are_listed_with_their_shards(client: Client) -> None:
    roots = [Cid(cid.of_structure(bytes([number]))) for number in range(3)]
    shards = [Cid(cid.of_archive(bytes([number]) * 32)) for number in range(3)]
    index = Cid(cid.of_archive(bytes(32)))
    for root in roots:
        assert await client.run("/upload/add", {"root": root, "shards": []}) == {}
    await client.run("/upload/add", {"root": roots[0], "shards": shards[:2], "index": index})
    await client.run("/upload/add", {"root": roots[0], "shards": shards[1:]})
    first = await client.run("/upload/list", {"size": 2})
    rest = await client.run("/upload/list", {"size": 2, "cursor": first["cursor"]})
    rows = {bytes(row["root"]): row.get("index") for row in first["results"] + rest["results"]}
    assert rows == {bytes(roots[0]): index, bytes(roots[1]): None, bytes(roots[2]): None}
    assert "cursor" not in rest
    page = await client.run("/upload/shard/list", {"root": roots[0], "size": 2})
    assert page["results"] == shards[:2]
    page = await client.run("/upload/shard/list", {"root": roots[0], "cursor": page["cursor"]})
    assert page == {"size": 1, "results": shards[2:]}
    await client.run("/upload/remove", {"root": roots[1]})
    left = await client.run("/upload/list", {})
    assert len(left["results"]) == 2
    assert await refused(client, client.ask("/upload/add", {"shards": []})) == "MalformedArguments"
