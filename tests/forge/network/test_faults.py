"""Every fault, where it is taken from, and how often it comes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import aiohttp
import pytest

from ingot.codec import multihash
from ingot.errors import Corruption, FormatError
from ingot.forge import container, query, signature
from ingot.forge.errors import InvalidSignature, Refused
from ingot.forge.network import Network
from ingot.forge.network.faults import (
    Close,
    Delay,
    ErrorReceipt,
    ExpiredDelegations,
    Fault,
    FlippedBit,
    ForgedReceipt,
    Hold,
    LateReceipts,
    LostResponse,
    MissingReceipt,
    Status,
    Truncated,
)
from ingot.forge.network.retrieval import header_of
from ingot.forge.query import Location
from tests.forge.network.client import Client, now

LOST = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)


async def test_a_refusal_comes_as_often_as_asked(network: Network, client: Client) -> None:
    faults = network.upload.faults
    faults.add("/space/info", ErrorReceipt("Busy", "later"), times=2, after=1)
    for expected in (None, "Busy", "Busy", None):
        receipt, _ = await client.call(client.ask("/space/info", {}))
        assert ("error" in receipt.out) == (expected is not None)
        if expected:
            with pytest.raises(Refused, match="Busy: later"):
                receipt.result()
    faults.add("/space/info", ErrorReceipt("Busy"), times=None)
    for _ in range(3):
        with pytest.raises(Refused):
            await client.run("/space/info", {})
    faults.clear("/space/info")
    assert await client.run("/space/info", {})
    assert network.upload.requests["/space/info"] == 8


async def test_faults_that_would_do_nothing_are_refused(network: Network) -> None:
    for route, fault in (
        ("/no/such/command", Close()),
        ("/content/retrieve", Close()),
        ("POST /", FlippedBit()),
        ("GET /receipt", MissingReceipt()),
        ("/blob/add", LateReceipts()),
        ("/blob/add", Truncated()),
    ):
        with pytest.raises(ValueError, match=route):
            network.upload.faults.add(route, fault)
    network.nodes[0].faults.add("/content/retrieve", Close())


async def test_nothing_is_done_and_nothing_answered(network: Network, client: Client) -> None:
    data = os.urandom(100)
    for route in ("/blob/add", "POST /"):
        network.upload.faults.add(route, Close())
        with pytest.raises(LOST):
            await client.add(data)
    assert not any(node.requests["/blob/allocate"] for node in network.nodes)
    added = await client.add(data)
    node = network.node(added.node)
    node.faults.add("PUT /upload", Close())
    with pytest.raises(LOST):
        await client.put(added, data)
    assert not node.effects["stored", multihash.of(data)]
    assert await client.put(added, data) == 204


async def test_done_and_the_response_is_lost(network: Network, client: Client) -> None:
    data = os.urandom(100)
    digest = multihash.of(data)
    network.upload.faults.add("/blob/add", LostResponse())
    with pytest.raises(LOST):
        await client.add(data)
    assert sum(node.requests["/blob/allocate"] for node in network.nodes) == 1
    added = await client.add(data)
    assert added.allocated["size"] == 0
    node = network.node(added.node)
    node.faults.add("PUT /upload", LostResponse())
    with pytest.raises(LOST):
        await client.put(added, data)
    assert node.effects["stored", digest] == 1
    assert (await client.add(data)).address is None
    network.upload.faults.add("/ucan/conclude", LostResponse())
    with pytest.raises(LOST):
        await client.conclude(added)
    assert node.effects["accepted", digest] == 1
    await client.conclude(added)
    assert await client.location(added)
    assert node.effects["accepted", digest] == node.effects["stored", digest] == 1


async def test_statuses(network: Network, client: Client) -> None:
    added = await client.add(b"data")
    node = network.node(added.node)
    for code in (400, 500, 503):
        node.faults.add("PUT /upload", Status(code))
        assert await client.put(added, b"data") == code
    network.upload.faults.add("/space/info", Status(502, "bad gateway"))
    body = container.encode([client.ask("/space/info", {}), client.right])
    headers = {"Content-Type": container.CONTENT_TYPE}
    async with client.session.post(network.upload.url, data=body, headers=headers) as response:
        assert (response.status, await response.text()) == (502, "bad gateway")
    assert await client.put(added, b"data") == 204


async def test_an_answer_without_the_receipt(network: Network, client: Client) -> None:
    network.upload.faults.add("/blob/add", MissingReceipt())
    data = os.urandom(10)
    blob = {"size": len(data), "digest": multihash.of(data)}
    invocation = client.ask("/blob/add", {"blob": blob})
    answer = await client.send([invocation, client.right])
    assert not answer.receipts_of(invocation.task)
    assert {one.command for one in answer.invocations.values()} == {
        "/blob/allocate",
        "/http/put",
        "/blob/accept",
    }
    kept = await client.receipt(invocation.task)
    assert kept is not None and kept.receipts_of(invocation.task)


async def test_receipts_that_come_late(network: Network, client: Client) -> None:
    added = await client.add(b"data")
    assert await client.put(added, b"data") == 204
    network.upload.faults.add("/ucan/conclude", LateReceipts())
    network.upload.faults.add("GET /receipt", LateReceipts(), times=3)
    answer = await client.conclude(added)
    assert not answer.receipts_of(added.accept.task)
    for _ in range(3):
        assert await client.receipt(added.accept.task) is None
    assert await client.location(added)


async def test_receipts_by_a_stranger(network: Network, client: Client) -> None:
    place = await client.store(b"data")
    network.upload.faults.add("/space/info", ForgedReceipt())
    network.upload.faults.add("GET /receipt", ForgedReceipt())
    network.node(place.node).faults.add("/content/retrieve", ForgedReceipt())
    invocation = client.ask("/space/info", {})
    told, _ = await client.call(invocation)
    asked = await client.receipt(invocation.task)
    assert asked is not None
    (late,) = asked.receipts.values()
    _, body, given = await client.retrieve(place, 0, 3)
    assert body == b"data"
    documents = {network.upload.did: network.upload.document}
    for receipt in (told, late, given):
        assert "ok" in receipt.out
        with pytest.raises(InvalidSignature):
            signature.check(receipt, now(), documents)
    told, _ = await client.call(invocation)
    signature.check(told, now(), documents)
    network.nodes[0].faults.add("/blob/allocate", ForgedReceipt(), times=None)
    nodes = {(await client.add(os.urandom(9))).node for _ in range(5)}
    assert nodes == {network.nodes[1].did}


async def test_delegations_that_expired(network: Network, client: Client) -> None:
    network.upload.faults.add("/blob/add", ExpiredDelegations())
    with pytest.raises(Refused, match="^Expired"):
        await client.store(b"data")
    for node in network.nodes:
        node.faults.add("/blob/allocate", ExpiredDelegations())
    with pytest.raises(Refused, match=r"CandidateUnavailable.*Expired.*Expired"):
        await client.store(b"data")
    place = await client.store(b"data")
    network.node(place.node).faults.add("/content/retrieve", ExpiredDelegations())
    status, body, receipt = await client.retrieve(place, 0, 3)
    assert (status, body, receipt.out["error"]["name"]) == (200, b"", "Expired")
    assert (await client.retrieve(place, 0, 3))[1] == b"data"


async def test_one_bit_of_the_bytes_is_wrong(network: Network, client: Client) -> None:
    data = os.urandom(700_000)
    place = await client.store(data)
    network.node(place.node).faults.add("GET /piece", FlippedBit(), times=None)
    for start, end in ((0, len(data) - 1), (5, 5), (100_000, 650_000)):
        _, body, receipt = await client.retrieve(place, start, end)
        right = data[start : end + 1]
        wrong = int.from_bytes(body, "big") ^ int.from_bytes(right, "big")
        assert len(body) == len(right) and wrong.bit_count() == 1
        assert receipt.result() == {}


async def test_ranges_that_end_too_early(network: Network, client: Client) -> None:
    data = os.urandom(600_000)
    place = await client.store(data)
    faults = network.node(place.node).faults
    for missing in (1, 300_000, 400_000):
        faults.add("GET /piece", Truncated(missing))
        status, body, _ = await client.retrieve(place, 0, 399_999)
        assert (status, body) == (206, data[: 400_000 - missing])
        faults.add("GET /piece", Truncated(missing, cut=True))
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.retrieve(place, 0, 399_999)
    assert (await client.retrieve(place, 0, 399_999))[1] == data[:400_000]


async def test_a_request_is_held_until_released(network: Network, client: Client) -> None:
    hold = Hold()
    network.upload.faults.add("/blob/add", hold)
    adding = asyncio.ensure_future(client.add(b"data"))
    await hold.arrived.wait()
    assert await client.run("/space/info", {})
    assert not adding.done()
    hold.release()
    assert (await adding).address is not None
    network.upload.faults.add("GET /health", Delay(0.001))
    async with client.session.get(f"{network.upload.url}/health") as response:
        assert response.status == 200


async def test_a_service_that_is_away_and_comes_back(network: Network, client: Client) -> None:
    place = await client.store(b"data")
    node = network.node(place.node)
    await node.hang_up()
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.retrieve(place, 0, 3)
    others = [await client.add(os.urandom(8)) for _ in range(6)]
    assert {each.node for each in others} == {each.did for each in network.nodes} - {node.did}
    await node.listen()
    assert (await client.retrieve(place, 0, 3))[1] == b"data"
    await network.upload.hang_up()
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.run("/space/info", {})
    await network.upload.listen()
    assert await client.run("/space/info", {})


async def test_an_indexer_that_is_away_keeps_accepts_from_succeeding(
    network: Network, client: Client
) -> None:
    assert network.indexer is not None
    added = await client.add(b"data")
    assert await client.put(added, b"data") == 204
    await network.indexer.hang_up()
    receipt = added.done({})
    answer = await client.send([client.concluding(receipt), receipt])
    errors = [one.out["error"]["name"] for one in answer.receipts.values() if "error" in one.out]
    assert errors == ["HandlerExecutionError"]
    await network.indexer.listen()
    await client.conclude(added)
    place = await client.location(added)
    assert network.indexer.effects["published", place.blob] == 1
    assert network.node(place.node).effects["accepted", place.blob] == 1


STEPS = [
    ("upload", "/blob/add"),
    ("node-0", "/blob/allocate"),
    ("node-0", "PUT /upload"),
    ("upload", "/ucan/conclude"),
    ("node-0", "/blob/accept"),
    ("indexer", "/claim/cache"),
]


@pytest.mark.parametrize(
    ("name", "route", "fault"),
    [
        (*step, fault)
        for step in STEPS
        for fault in (Close(), LostResponse(), Status(500), MissingReceipt())
        if fault != MissingReceipt() or step[1].startswith("/")
    ],
)
async def test_whatever_goes_wrong_inside_a_repeated_upload_is_done_once(
    tmp_path: Path, session: aiohttp.ClientSession, name: str, route: str, fault: Fault
) -> None:
    data = os.urandom(100)
    async with Network(tmp_path, nodes=1, open=True) as network:
        client = Client(network, session)
        (service,) = [each for each in network.services if each.key == name]
        service.faults.add(route, fault)
        failures = 0
        while True:
            try:
                place = await client.store(data)
                break
            except (aiohttp.ClientError, Refused, AssertionError, ValueError):
                failures += 1
                assert failures == 1
        (node,), indexer = network.nodes, network.indexer
        assert indexer is not None
        assert node.effects["accepted", place.blob] == 1
        assert node.effects["stored", place.blob] == 1
        assert network.upload.effects["registered", place.blob] == 1
        assert (await client.retrieve(place, 0, 99))[1] == data
        assert (await client.store(data)).claim == place.claim


async def test_an_answer_of_the_indexer_with_a_wrong_bit(network: Network, client: Client) -> None:
    assert network.indexer is not None
    place = await client.store(b"data")
    network.indexer.faults.add("GET /claims", FlippedBit())
    url = network.indexer.url + query.path([place.blob], [client.space.did])
    for wrong in (True, False):
        async with client.session.get(url) as response:
            body = await response.read()
        try:
            refused = bool(query.decode(body).refused)
        except (Corruption, FormatError):
            refused = True
        assert refused == wrong


async def test_lost_retrievals(network: Network, client: Client, tmp_path: Path) -> None:
    place: Location = await client.store(b"data")
    node = network.node(place.node)
    for route in ("/content/retrieve", "GET /piece"):
        for fault in (Close(), LostResponse()):
            node.faults.add(route, fault)
            with pytest.raises(LOST):
                await client.retrieve(place, 0, 3)
    node.faults.add("/content/retrieve", MissingReceipt())
    arguments = {"blob": {"digest": place.blob}, "range": [0, 3]}
    invocation = client.ask("/content/retrieve", arguments, audience=place.node)
    async with client.session.get(
        place.urls[0], headers=header_of([invocation, client.right])
    ) as response:
        assert (response.status, await response.read()) == (200, b"data")
        assert container.HEADER not in response.headers
