"""The services' HTTP: bodies, headers, statuses, documents; puts and ranges."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ingot.clock import SystemClock
from ingot.codec import cid, multihash
from ingot.forge import container, did, document
from ingot.forge.container import CONTENT_TYPE, HEADER, Form
from ingot.forge.network import Network
from ingot.forge.network.retrieval import header_of
from ingot.limits import FORGE_ADDRESS_TTL_S, UCAN_NONCE_BYTES
from tests.forge.network.client import Client, until
from tests.forge.support import VECTORS


async def post(client: Client, body: bytes, kind: str, url: str | None = None) -> tuple[int, bytes]:
    async with client.session.post(
        url or client.network.upload.url, data=body, headers={"Content-Type": kind}
    ) as response:
        return response.status, await response.read()


# -- containers -----------------------------------------------------------------------------------


async def test_content_types_are_compared_exactly(client: Client) -> None:
    invocation = client.ask("/space/info", {})
    body = container.encode([invocation, client.right])
    for kind in (f"{CONTENT_TYPE}; charset=utf-8", "application/cbor", CONTENT_TYPE.upper()):
        status, _ = await post(client, body, kind)
        assert status == 415
    status, answer = await post(client, body, CONTENT_TYPE)  # with a Content-Length this time
    assert status == 200
    assert container.decode(answer).receipts_of(invocation.task)


async def test_a_body_that_is_no_container(client: Client) -> None:
    for body in (b"", b"\xa0", container.pack([client.right], Form.RAW), os.urandom(100)):
        status, text = await post(client, body, CONTENT_TYPE)
        assert (status, text.startswith(b"at byte")) == (500, True)


async def test_invocations_for_others_are_passed_over(network: Network, client: Client) -> None:
    key = network.upload.signer.public.did
    mine = client.ask("/space/info", {})
    for audience in (key, network.nodes[0].did, client.agent.did):
        other = client.ask("/space/info", {}, audience=audience)
        answer = await client.send([other, client.right])
        assert not answer.tokens()
        answer = await client.send([other, mine, client.right])
        assert [one.ran for one in answer.receipts.values()] == [mine.task]


async def test_a_token_with_a_wrong_byte_is_as_none(client: Client) -> None:
    invocation = client.ask("/space/info", {})
    body = container.encode([invocation, client.right])
    at = body.index(b"ucan/inv")
    _, answer = await post(client, body[:at] + b"X" + body[at + 1 :], CONTENT_TYPE)
    assert not container.decode(answer).tokens()
    at = body.index(b"ucan/dlg")
    _, answer = await post(client, body[:at] + b"X" + body[at + 1 :], CONTENT_TYPE)
    (receipt,) = container.decode(answer).receipts_of(invocation.task)
    assert receipt.out["error"]["name"] == "UnavailableProof"


async def test_a_batch_is_answered_whole(client: Client) -> None:
    blobs = [os.urandom(9) for _ in range(20)]
    asked = [
        client.ask("/blob/add", {"blob": {"size": 9, "digest": multihash.of(blob)}})
        for blob in blobs
    ]
    answer = await client.send([*asked, client.right])
    for invocation in asked:
        (receipt,) = answer.receipts_of(invocation.task)
        assert "site" in receipt.result()
        assert receipt.audience is None and receipt.issued_at is not None
        assert len(receipt.nonce) == UCAN_NONCE_BYTES


async def test_the_request_of_the_vectors_is_for_somebody_else(client: Client) -> None:
    for name in ("request-blob-add.cbor", "request-conclude.cbor", "request-index-add.cbor"):
        status, answer = await post(client, (VECTORS / name).read_bytes(), CONTENT_TYPE)
        assert (status, container.decode(answer).tokens()) == (200, [])


async def test_receipts(network: Network, client: Client) -> None:
    place = await client.store(b"some data")
    invocation = client.ask("/space/info", {})
    receipt, _ = await client.call(invocation)
    kept = await client.receipt(invocation.task)
    assert kept is not None and kept.receipts_of(invocation.task) == [receipt]
    for name, status in (("nonsense", 400), (cid.to_text(cid.of_structure(b"")), 404)):
        for service in network.services:
            async with client.session.get(f"{service.url}/receipt/{name}") as response:
                assert response.status == status
    failed = client.ask("/ucan/conclude", {"receipt": 1}, subject=client.agent.did, proofs=[])
    receipt, _ = await client.call(failed)
    assert receipt.out["error"]["name"] == "MalformedArguments"
    url = f"{network.node(place.node).url}/claim/{cid.to_text(place.claim.cid)}"
    async with client.session.get(url) as response:
        assert await response.read() == place.claim.data


async def test_documents_are_where_the_did_says(network: Network, client: Client) -> None:
    assert network.upload.did.startswith("did:web:127.0.0.1%3A")
    for service in network.services:
        async with client.session.get(f"{service.url}/.well-known/did.json") as response:
            found = document.parse(await response.read())
        assert found == service.document
        if not did.is_key(service.did):
            assert did.web_url(service.did, insecure=True).startswith(service.url + "/.well-known")
            assert found.methods[0].key().did == service.signer.public.did
    for path in ("/", "/health"):
        async with client.session.get(network.upload.url + path) as response:
            assert response.status == 200


@pytest.mark.parametrize("methods", [("key", "key"), ("web", "web"), ("key", "web")])
async def test_services_sign_as_keys_or_hosts(
    tmp_path: Path, session: aiohttp.ClientSession, methods: tuple[str, str]
) -> None:
    service, node = methods
    async with Network(tmp_path, did_method=service, node_did_method=node) as network:
        assert network.upload.did.startswith(f"did:{service}:")
        assert all(each.did.startswith(f"did:{node}:") for each in network.nodes)
        client = Client(network, session)
        await network.provision(client.space.did)
        place = await client.store(b"signed by somebody")
        assert (await client.retrieve(place, 0, 5))[1] == b"signed"


# -- puts -----------------------------------------------------------------------------------------


async def test_puts_that_are_refused(network: Network, client: Client) -> None:
    data = os.urandom(1000)
    added = await client.add(data)
    assert added.address is not None and added.address["headers"] == {}
    wrong = bytes([data[0] ^ 1]) + data[1:]
    assert await client.put(added, wrong) == 400
    assert await client.put(added, data[:-1]) == 400
    assert await client.put(added, data + b"x") == 400

    async def chunked() -> Any:
        yield data

    async with client.session.put(added.url, data=chunked()) as response:
        assert response.status == 411
    async with client.session.put(f"{added.url}0", data=data) as response:
        assert response.status == 404
    node = network.node(added.node)
    assert not node.effects["stored", multihash.of(data)]
    assert not list((network.directory / node.key / "blobs").iterdir())
    assert await client.put(added, data) == 204
    assert await client.put(added, data) == 204
    assert node.effects["stored", multihash.of(data)] == 2


class Clock(SystemClock):
    """The machine's, and some seconds."""

    ahead_s = 0

    def now_ms(self) -> int:
        return super().now_ms() + 1000 * self.ahead_s


async def test_an_address_is_good_for_a_day(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    clock = Clock()
    async with Network(tmp_path, nodes=1, open=True, clock=clock) as network:
        client = Client(network, session)
        added = await client.add(b"data")
        clock.ahead_s = FORGE_ADDRESS_TTL_S + 1
        assert await client.put(added, b"data") == 410
        clock.ahead_s = 0
        assert await client.put(added, b"data") == 204


async def test_a_put_that_breaks_off_leaves_nothing(network: Network, client: Client) -> None:
    data = os.urandom(1000)
    added = await client.add(data)
    node = network.node(added.node)
    reader, writer = await asyncio.open_connection(*node.address)
    path = added.url.removeprefix(node.url)
    head = f"PUT {path} HTTP/1.1\r\nHost: node\r\nContent-Length: 1000\r\n\r\n"
    writer.write(head.encode() + data[:500])
    await writer.drain()
    blobs = network.directory / node.key / "blobs"
    await until(lambda: bool(list(blobs.iterdir())))
    writer.close()
    await writer.wait_closed()
    await until(lambda: not list(blobs.iterdir()))
    assert await client.put(added, data) == 204
    assert [entry.name for entry in blobs.iterdir()] == [multihash.to_text(multihash.of(data))]


# -- retrievals -----------------------------------------------------------------------------------


async def test_headers_of_an_answer(client: Client) -> None:
    place = await client.store(os.urandom(100))
    for span, status, content_range in (
        ([0, 99], 200, None),
        ([0, 0], 206, "bytes 0-0/100"),
        ([99, 99], 206, "bytes 99-99/100"),
    ):
        arguments = {"blob": {"digest": place.blob}, "range": span}
        invocation = client.ask("/content/retrieve", arguments, audience=place.node)
        headers = {**header_of([invocation, client.right]), "Range": "bytes=0-1"}
        async with client.session.get(place.urls[0], headers=headers) as response:
            assert response.status == status
            assert response.headers.get("Content-Range") == content_range
            assert response.headers["Content-Length"] == str(span[1] + 1 - span[0])
            assert response.headers["Content-Type"] == "application/octet-stream"
            assert response.headers["ETag"] == f'"{multihash.to_text(place.blob)}"'
            assert "immutable" in response.headers["Cache-Control"]
            assert response.headers[HEADER][0] == "E"


@pytest.mark.parametrize(
    "form", [Form.BASE64, Form.BASE64URL, Form.GZIP_BASE64, Form.GZIP_BASE64URL]
)
async def test_forms_of_the_header(client: Client, form: Form) -> None:
    place = await client.store(b"in any form")
    arguments = {"blob": {"digest": place.blob}, "range": [0, 10]}
    invocation = client.ask("/content/retrieve", arguments, audience=place.node)
    header = {HEADER: container.to_header([invocation, client.right], form)}
    async with client.session.get(place.urls[0], headers=header) as response:
        assert await response.read() == b"in any form"
    async with client.session.post(place.urls[0], headers=header) as response:
        assert await response.read() == b"in any form"


async def test_failures_of_a_retrieval(network: Network, client: Client) -> None:
    place = await client.store(os.urandom(100))
    status, body, receipt = await client.retrieve(place, 50, 100)
    assert (status, receipt.out["error"]["name"]) == (416, "RangeNotSatisfiable")
    status, body, receipt = await client.retrieve(place, 0, 9, proofs=[])
    assert (status, body, receipt.out["error"]["name"]) == (200, b"", "InvalidClaim")
    expired = client.grant(client.space, client.agent.did, "/content/retrieve", lasting=-1)
    status, body, receipt = await client.retrieve(place, 0, 9, proofs=[expired])
    assert (status, body, receipt.out["error"]["name"]) == (200, b"", "Expired")
    other = client.grant(client.space, client.agent.did, "/blob/add")
    status, body, receipt = await client.retrieve(place, 0, 9, proofs=[other])
    assert (status, body, receipt.out["error"]["name"]) == (200, b"", "UnknownError")
    for span in ([0], [5, 4], [-1, 4], {"start": 0, "end": 4}, None):
        arguments = {"blob": {"digest": place.blob}, "range": span}
        status, body, receipt = await client.retrieve(place, 0, 9, arguments=arguments)
        assert (status, body, receipt.out["error"]["name"]) == (200, b"", "MalformedArguments")
    unknown = {"blob": {"digest": multihash.of(b"unknown")}, "range": [0, 1]}
    status, _, receipt = await client.retrieve(place, 0, 9, arguments=unknown)
    assert (status, receipt.out["error"]["name"]) == (404, "NotFound")
    added = await client.add(b"allocated, not accepted")
    assert await client.put(added, b"allocated, not accepted") == 204
    arguments = {"blob": {"digest": multihash.of(b"allocated, not accepted")}, "range": [0, 1]}
    invocation = client.ask("/content/retrieve", arguments, audience=added.node)
    url = f"{network.node(added.node).url}/piece/{cid.to_text(cid.of_chunk(b''))}"
    async with client.session.get(url, headers=header_of([invocation, client.right])) as response:
        assert (response.status, response.headers["X-Piri-Error-Name"]) == (404, "NotAllocated")


async def test_requests_that_carry_no_single_invocation(client: Client) -> None:
    place = await client.store(os.urandom(100))
    arguments = {"blob": {"digest": place.blob}, "range": [0, 1]}
    one, two = (client.ask("/content/retrieve", arguments, audience=place.node) for _ in range(2))
    elsewhere = client.ask("/content/retrieve", arguments)
    header = header_of([one, client.right])[HEADER]
    for headers in (
        {},
        {HEADER: "nonsense"},
        {HEADER: "@" + header[1:]},
        header_of([client.right]),
        header_of([elsewhere, client.right]),
        header_of([one, two, client.right]),
    ):
        async with client.session.get(place.urls[0], headers=headers) as response:
            assert response.status == 500
            assert HEADER not in response.headers
    async with client.session.get(
        place.urls[0], headers=header_of([one, elsewhere, client.right])
    ) as response:
        assert response.status == 206


async def test_a_service_reads_a_blob_of_any_space(network: Network, client: Client) -> None:
    data = os.urandom(300)
    place = await client.store(data)
    node = network.node(place.node)
    proof = next(one for one in node.grant(client.agent.did) if one.command == "/blob/retrieve")
    invocation = client.ask(
        "/blob/retrieve",
        {"blob": {"digest": place.blob}},
        audience=node.did,
        subject=node.did,
        proofs=[proof],
    )
    async with client.session.post(
        place.urls[0], headers=header_of([invocation, proof])
    ) as response:
        assert (response.status, await response.read()) == (200, data)
    receipt, _ = await client.call(invocation, proof, url=node.url)
    assert receipt.out["error"]["name"] == "HandlerNotFound"  # a body has no place for the bytes
