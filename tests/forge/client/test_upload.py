"""Adding blobs, publishing indexes, listing and removing, against the network with its faults."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ingot.codec import multihash
from ingot.errors import ConfigError, Corruption, IngotError, Unavailable
from ingot.forge import index
from ingot.forge.blob import BlobRef, BytesSource
from ingot.forge.breaker import State
from ingot.forge.client import ForgeClient
from ingot.forge.errors import BadAnswer, CircuitOpen, Refused, TooLarge
from ingot.forge.identity import Identity
from ingot.forge.invoker import Service
from ingot.forge.network import Network
from ingot.forge.network.faults import (
    Close,
    ErrorReceipt,
    ExpiredDelegations,
    Fault,
    Hold,
    LateReceipts,
    LostResponse,
    MissingReceipt,
    Status,
)
from tests.forge.builders import grant
from tests.forge.client.support import (
    ONCE,
    HandClock,
    client_of,
    http,
    noise,
    someone,
    source_of,
    store,
)
from tests.forge.support import person


def effects(network: Network, name: str, data: bytes) -> int:
    """How often something was done to a blob, on all nodes together."""
    return sum(node.effects[name, multihash.of(data)] for node in network.nodes)


def puts(network: Network) -> int:
    return sum(node.requests["PUT /upload"] for node in network.nodes)


async def test_a_blob_is_stored_once_and_its_location_checked(
    network: Network, client: ForgeClient
) -> None:
    data = noise(700_000)
    (place,) = await store(client, data)
    assert place.blob == multihash.of(data) and place.space == client.identity.space
    assert (place.start, place.end) == (0, len(data) - 1)
    assert network.node(place.node).blobs.path(place.blob).read_bytes() == data
    (again,) = await store(client, data)
    assert again.claim.cid == place.claim.cid
    assert effects(network, "stored", data) == effects(network, "accepted", data) == 1
    assert puts(network) == 1


async def test_a_blob_that_is_registered_is_not_read(client: ForgeClient) -> None:
    data = noise(1000)
    await store(client, data)

    class Unreadable:
        length = len(data)

        async def read(self, offset: int, length: int, hasher: Any) -> bytes:
            raise AssertionError("read")

    assert await client.upload.add(BlobRef.of(data), Unreadable())


async def test_another_space_shares_the_bytes(network: Network, client: ForgeClient) -> None:
    data = noise(1000)
    await store(client, data)
    other = someone(2)
    await network.provision(other.space)
    async with client_of(network, other) as second:
        (place,) = await store(second, data)
    assert place.space == other.space
    assert 1 <= effects(network, "stored", data) <= 2  # two, where the other node was chosen


ONE_STEP_LOST: list[tuple[str, str, Fault]] = [
    ("upload", "/blob/add", Close()),
    ("upload", "/blob/add", LostResponse()),
    ("upload", "/blob/add", MissingReceipt()),
    ("upload", "/blob/add", Status(503)),
    ("upload", "/blob/add", ErrorReceipt("CandidateUnavailable")),
    ("upload", "/blob/add", ExpiredDelegations()),
    ("node", "/blob/allocate", LostResponse()),
    ("node", "PUT /upload", Close()),
    ("node", "PUT /upload", LostResponse()),
    ("node", "PUT /upload", Status(500)),
    ("node", "PUT /upload", Status(400)),
    ("upload", "/ucan/conclude", Close()),
    ("upload", "/ucan/conclude", LostResponse()),
    ("upload", "/ucan/conclude", MissingReceipt()),
    ("upload", "/ucan/conclude", Status(502)),
    ("upload", "/ucan/conclude", LateReceipts()),
    ("node", "/blob/accept", Close()),
    ("node", "/blob/accept", LostResponse()),
    ("node", "/blob/accept", ErrorReceipt("Oops")),
    ("upload", "GET /receipt", LateReceipts()),
    ("upload", "GET /receipt", Status(500)),
    ("upload", "GET /did.json", Status(500)),
]


@pytest.mark.parametrize(("who", "route", "fault"), ONE_STEP_LOST, ids=repr)
async def test_whatever_is_lost_once_the_blob_is_stored_once(
    network: Network, client: ForgeClient, who: str, route: str, fault: Fault
) -> None:
    for service in [network.upload] if who == "upload" else network.nodes:
        service.faults.add(route, fault)
    data = noise(300_000)
    (place,) = await store(client, data)
    assert network.node(place.node).blobs.path(place.blob).read_bytes() == data
    assert network.upload.effects["registered", place.blob] == 1
    assert effects(network, "stored", data) == effects(network, "accepted", data) == 1


@pytest.mark.parametrize(
    ("who", "route"),
    [("upload", "/blob/add"), ("node", "PUT /upload"), ("upload", "/ucan/conclude")],
)
async def test_an_add_that_failed_is_begun_again_later(
    network: Network, who: str, route: str
) -> None:
    """As by another process: what the first attempt did is found, not done again."""
    data = noise(100_000)
    for service in [network.upload] if who == "upload" else network.nodes:
        service.faults.add(route, LostResponse())
    async with client_of(network, retry=ONCE) as first:
        with pytest.raises(Unavailable):
            await store(first, data)
    async with client_of(network) as second:
        (place,) = await store(second, data)
    assert effects(network, "stored", data) == effects(network, "accepted", data) == 1
    assert network.node(place.node).blobs.path(place.blob).read_bytes() == data


async def test_a_service_that_is_away_and_comes_back(network: Network) -> None:
    data, clock = noise(1000), HandClock()
    settings = http(breaker_failures=2, breaker_open_s=10)
    async with client_of(network, clock=clock, http=settings, retry=ONCE) as client:
        await network.upload.hang_up()
        for expected in (False, False, True):
            with pytest.raises(Unavailable) as caught:
                await store(client, data)
            assert isinstance(caught.value, CircuitOpen) is expected
        assert client.breakers()[network.upload.url] is State.OPEN
        await network.upload.listen()
        with pytest.raises(CircuitOpen):
            await store(client, data)
        clock.now += 10
        assert client.breakers()[network.upload.url] is State.HALF_OPEN
        assert await store(client, data)
        assert client.breakers()[network.upload.url] is State.CLOSED


async def test_a_space_without_a_provider_is_refused(network: Network) -> None:
    async with client_of(network, someone(3)) as client:
        with pytest.raises(Refused, match="InsufficientStorage") as caught:
            await store(client, b"bytes")
        assert caught.value.name == "InsufficientStorage"
        assert caught.value.service == network.upload.did
        assert network.upload.requests["/blob/add"] == 1
        with pytest.raises(Refused, match="UnknownSpace"):
            await client.upload.space_info()


async def test_rights_that_are_missing_or_over(network: Network) -> None:
    for who in (someone(1, "/content/retrieve"), someone(1, expires=1)):
        async with client_of(network, who) as client:
            with pytest.raises(ConfigError, match=r"/blob/add on did:key.*ingot space import"):
                await store(client, b"bytes")
    assert not network.upload.requests["/blob/add"]


async def test_proofs_that_the_service_finds_expired(network: Network, client: ForgeClient) -> None:
    network.upload.faults.add("/blob/add", ErrorReceipt("Expired"), times=None)
    with pytest.raises(Unavailable, match="Expired"):
        await store(client, b"bytes")
    assert network.upload.requests["/blob/add"] == 3


async def test_a_service_under_another_did_says_nothing(network: Network) -> None:
    wrong = Service(network.upload.signer.public.did, network.upload.url)
    async with client_of(network, upload=wrong, retry=ONCE) as client:
        with pytest.raises(BadAnswer, match="another DID"):
            await store(client, b"bytes")


async def test_a_receipt_that_stays_away(network: Network, client: ForgeClient) -> None:
    network.upload.faults.add("/ucan/conclude", LateReceipts(), times=None)
    network.upload.faults.add("GET /receipt", LateReceipts(), times=None)
    data = noise(1000)
    # The next attempt finds the accept receipt in the answer to its /blob/add.
    assert await store(client, data)
    assert network.upload.requests["GET /receipt"] == 5
    assert effects(network, "stored", data) == effects(network, "accepted", data) == 1


async def test_a_node_that_never_accepts(network: Network, client: ForgeClient) -> None:
    for node in network.nodes:
        node.faults.add("/blob/accept", ErrorReceipt("Oops", "no room"), times=None)
    with pytest.raises(Unavailable, match="Oops"):
        await store(client, b"bytes")


async def test_bytes_that_are_not_the_blob_are_not_sent_whole(
    network: Network, client: ForgeClient
) -> None:
    data = noise(600_000)
    ref = BlobRef.of(data)
    with source_of(data[:-1] + b"x" if data[-1:] != b"x" else data[:-1] + b"y") as source:
        with pytest.raises(Corruption, match="to be sent as blob zQm"):
            await client.upload.add(ref, source)
    assert puts(network) == 1 and effects(network, "stored", data) == 0
    with pytest.raises(Corruption):
        await client.upload.add(ref, BytesSource(data[1:]))
    with source_of(data) as source:
        cut = type(source)(source.fd, source.offset + 100, source.length)
        with pytest.raises(Corruption, match="a file to be sent ends at byte"):
            await client.upload.add(ref, cut)
    assert await store(client, data)


async def test_blobs_that_no_node_takes() -> None:
    with pytest.raises(TooLarge):
        BlobRef(multihash.of(b""), 0)
    with pytest.raises(TooLarge):
        BlobRef(multihash.of(b""), 268_435_457)
    with pytest.raises(IngotError):
        BlobRef(b"\x11\x14" + bytes(20), 1)


@pytest.mark.slow
async def test_a_home_node_gets_every_blob_or_nobody_does(network: Network) -> None:
    home, other = network.nodes
    async with client_of(network, home=home.did) as client:
        stored = 0
        for number in range(8):
            try:
                (place,) = await store(client, b"blob %d" % number)
            except Unavailable as error:
                assert other.did in str(error) and home.did in str(error)
            else:
                stored += 1
                assert place.node == home.did
        assert not other.requests["PUT /upload"]
        assert home.requests["PUT /upload"] == stored
        assert other.requests["/blob/reject"] == other.requests["/blob/allocate"]


async def test_what_lies_elsewhere_already_stays_and_is_told(
    network: Network, client: ForgeClient, caplog: pytest.LogCaptureFixture
) -> None:
    data = noise(1000)
    (place,) = await store(client, data)
    (other,) = [node.did for node in network.nodes if node.did != place.node]
    for home, told in ((place.node, False), (other, True)):
        async with client_of(network, home=home) as chosen:
            assert [one.node for one in await store(chosen, data)] == [place.node]
        assert (f"is for {other}, and lies at {place.node} already" in caplog.text) is told


@pytest.mark.slow
async def test_listing_and_removing(network: Network, client: ForgeClient) -> None:
    datas = [noise(100 + number) for number in range(5)]
    for data in datas:
        await store(client, data)
    found, cursor = {}, None
    while True:
        page = await client.upload.list_blobs(cursor, 2)
        assert 0 < len(page.blobs) <= 2
        found |= {row.blob.digest: row.blob.size for row in page.blobs}
        if (cursor := page.cursor) is None:
            break
    assert found == {multihash.of(data): len(data) for data in datas}
    network.upload.faults.add("/blob/remove", LostResponse())
    await client.upload.remove(multihash.of(datas[0]))
    await client.upload.remove(multihash.of(datas[0]))
    page = await client.upload.list_blobs()
    assert {row.blob.digest for row in page.blobs} == {multihash.of(data) for data in datas[1:]}
    assert await client.upload.space_info() == [network.upload.did]
    assert await store(client, datas[0])


@pytest.mark.slow
async def test_an_index_is_published_and_found(network: Network, client: ForgeClient) -> None:
    data = noise(5000)
    (place,) = await store(client, data)
    slices = [(multihash.of(data[at : at + 1000]), at, 1000) for at in range(0, 5000, 1000)]
    (archive,) = index.archives(multihash.of(data), slices)
    published = await client.upload.publish_index(archive)
    assert published.indexed and published.blob == BlobRef.of(archive)
    again = await client.upload.publish_index(archive)
    assert again.indexed and again.locations == published.locations
    for name, start, length in slices:
        (found,) = await client.retriever.locate(name)
        assert (found.start, found.end) == (start, start + length - 1)
        assert (found.blob, found.claim) == (place.blob, place.claim)
        async with client.retriever.read([found], start, start + length - 1) as reading:
            assert b"".join([piece async for piece in reading]) == data[start : start + length]


async def test_a_network_without_an_indexer(tmp_path: Any) -> None:
    async with Network(tmp_path / "forge", nodes=1, indexer=False) as network:
        await network.provision(someone().space)
        async with client_of(network) as client:
            (archive,) = index.archives(multihash.of(b"shard"), [(multihash.of(b"s"), 0, 5)])
            published = await client.upload.publish_index(archive)
            assert not published.indexed and published.locations
            with pytest.raises(Unavailable, match="no indexer"):
                await client.retriever.locate(multihash.of(b"s"))


async def test_an_index_that_is_refused(network: Network, client: ForgeClient) -> None:
    (archive,) = index.archives(multihash.of(b"shard"), [(multihash.of(b"s"), 0, 5)])
    network.upload.faults.add("/index/add", ErrorReceipt("IndexNotFound"))
    with pytest.raises(Refused, match="IndexNotFound"):
        await client.upload.publish_index(archive)
    network.upload.faults.add("/index/add", LostResponse())
    assert (await client.upload.publish_index(archive)).indexed


async def test_an_indexer_that_was_given_an_expired_right(
    network: Network, client: ForgeClient
) -> None:
    (archive,) = index.archives(multihash.of(b"shard"), [(multihash.of(b"s"), 0, 5)])
    network.upload.faults.add("/index/add", ExpiredDelegations(), times=None)
    with pytest.raises(Unavailable, match="/index/add now"):
        await client.upload.publish_index(archive)
    network.upload.faults.clear()
    assert (await client.upload.publish_index(archive)).indexed


@pytest.mark.slow
async def test_many_at_a_time(network: Network, client: ForgeClient) -> None:
    datas = [noise(50_000 + number) for number in range(40)]
    same = [datas[0]] * 8
    found = await asyncio.gather(*(store(client, data) for data in (*datas, *same)))
    assert [places[0].blob for places in found] == [multihash.of(each) for each in (*datas, *same)]
    assert len({places[0].claim.cid for places in found}) == 40
    assert sum(effects(network, "accepted", data) for data in datas) == 40


async def test_a_cancelled_add_leaves_the_file_to_its_owner(network: Network) -> None:
    data = noise(2_000_000)
    hold = Hold()
    for node in network.nodes:
        node.faults.add("PUT /upload", hold)
    async with client_of(network) as client:
        with source_of(data) as source:
            adding = asyncio.ensure_future(client.upload.add(BlobRef.of(data), source))
            await hold.arrived.wait()
            adding.cancel()
            with pytest.raises(asyncio.CancelledError):
                await adding
        hold.release()
        assert await store(client, data)


async def test_chains_of_several_delegations(network: Network) -> None:
    space, middle, agent = person(1), person(50), person(51)
    chain = [
        grant(space, middle.did, space.did, "/"),
        grant(middle, agent.did, space.did, "/blob"),
        grant(middle, agent.did, None, "/index/add"),
        grant(middle, agent.did, space.did, "/content/retrieve"),
    ]
    async with client_of(network, Identity(agent, space.did, chain)) as client:
        (archive,) = index.archives(multihash.of(b"shard"), [(multihash.of(b"s"), 0, 5)])
        published = await client.upload.publish_index(archive)
        assert published.indexed
        read = client.retriever.read(published.locations, 0, len(archive) - 1)
        assert b"".join([piece async for piece in read]) == archive
    async with client_of(network, Identity(space, space.did)) as owner:
        assert (await owner.upload.publish_index(archive)).indexed
