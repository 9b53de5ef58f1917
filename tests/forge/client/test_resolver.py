"""DID documents: from where, how long, and what of one that cannot be had."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from ingot.errors import Unavailable
from ingot.forge import container, document, index, signature, token
from ingot.forge.errors import BadAnswer, Malformed
from ingot.forge.http import Http
from ingot.forge.invoker import Invoker
from ingot.forge.keys import Signer
from ingot.forge.network import Network
from ingot.forge.network.faults import Status
from ingot.forge.resolver import Resolver
from ingot.forge.token import Delegation
from ingot.limits import (
    DID_DOCUMENT_METHODS_MAX,
    DID_DOCUMENT_TTL_S,
    FORGE_AUTHORITIES_MAX,
    FORGE_DOCUMENTS_MAX,
)
from tests.forge.builders import ask, grant
from tests.forge.client.support import Server, client_of, http, noise, someone, store
from tests.forge.support import NOW, person


class Web:
    """Services on one server, each at a path; ``keys`` are what their documents say now."""

    def __init__(self, server: Server) -> None:
        self.server, self.time = server, 0.0
        self.keys: dict[str, Signer] = {}
        server.handler = self.answer

    def did(self, name: str = "up") -> str:
        return f"did:web:{urlsplit(self.server.url).netloc.replace(':', '%3A')}:{name}"

    def signed(self, name: str = "up") -> Delegation:
        """A token by a service, whose key is the one of now."""
        signer = self.keys.setdefault(name, person(len(self.keys) + 1)).issuing_as(self.did(name))
        return grant(signer, person(9).did, self.did(name))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        name = request.path.split("/")[1]
        made = document.of_service(self.did(name), self.keys[name].public.did)
        return web.Response(body=json.dumps(made.to_json()).encode())


@pytest.fixture
async def web_of(server: Server) -> Web:
    return Web(server)


@pytest.fixture
async def resolver(web_of: Web) -> AsyncIterator[Resolver]:
    session = Http(lambda: web_of.time, http())
    await session.open()
    yield Resolver(session, lambda: web_of.time)
    await session.close()


async def test_a_document_is_held_for_hours(web_of: Web, resolver: Resolver) -> None:
    tok = web_of.signed()
    for at, fetched in ((0, 1), (DID_DOCUMENT_TTL_S - 1, 1), (DID_DOCUMENT_TTL_S, 2)):
        web_of.time = at
        documents = await resolver.documents([tok, tok, grant(person(1), person(2).did, None)])
        assert set(documents) == {web_of.did()}
        signature.check(tok, NOW, documents)
        assert len(web_of.server.requests) == fetched
    assert web_of.server.requests[0].path == "/up/did.json"


async def test_another_key_is_found_after_forgetting(web_of: Web, resolver: Resolver) -> None:
    web_of.signed()
    await resolver.documents([web_of.signed()])
    web_of.keys["up"] = person(200)
    tok = web_of.signed()
    with pytest.raises(Exception, match="no method"):
        signature.check(tok, NOW, await resolver.documents([tok]))
    resolver.forget([web_of.did()])
    signature.check(tok, NOW, await resolver.documents([tok]))


async def test_only_so_many_are_fetched_and_held(web_of: Web, resolver: Resolver) -> None:
    tokens = [web_of.signed(f"a{number}") for number in range(FORGE_AUTHORITIES_MAX + 4)]
    assert len(await resolver.documents(tokens)) == FORGE_AUTHORITIES_MAX
    assert len(web_of.server.requests) == FORGE_AUTHORITIES_MAX
    assert FORGE_AUTHORITIES_MAX < FORGE_DOCUMENTS_MAX


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b""), (500, b""), (200, b"{}"), (200, b"<html>"), (200, b" " * 100_000), (302, b"")],
    ids=lambda value: repr(value)[:20],
)
async def test_documents_that_cannot_be_had(
    web_of: Web, resolver: Resolver, status: int, body: bytes
) -> None:
    tok = web_of.signed()

    async def bad(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body)

    web_of.server.handler = bad
    with pytest.raises(Unavailable):
        await resolver.documents([tok])
    web_of.server.handler = web_of.answer
    assert await resolver.documents([tok])


async def test_kinds_that_are_not_fetched(resolver: Resolver) -> None:
    plc = grant(person(1).issuing_as("did:plc:abc"), person(2).did, None)
    assert await resolver.documents([plc]) == {}


async def test_given_documents(web_of: Web) -> None:
    tok = web_of.signed()
    given = {web_of.did(): document.of_service(web_of.did(), web_of.keys["up"].public.did)}
    session = Http(lambda: 0.0, http())  # not even open
    signature.check(tok, NOW, await Resolver(session, lambda: 0.0, given).documents([tok]))


@pytest.mark.parametrize("method", ["web", "key"])
async def test_nodes_and_services_of_either_kind(tmp_path: Path, method: str) -> None:
    async with Network(tmp_path / "f", did_method=method, node_did_method=method) as network:
        await network.provision(someone().space)
        data = noise(1000)
        async with client_of(network) as client:
            (place,) = await store(client, data)
            assert place.node.startswith(f"did:{method}:")
            (archive,) = index.archives(place.blob, [(place.blob, 0, 1000)])
            await client.upload.publish_index(archive)
        async with client_of(network) as fresh:
            found = await fresh.retriever.locate(place.blob)
            assert {one.claim.cid for one in found} == {place.claim.cid}
            read = fresh.retriever.read(found, 0, 999)
            assert b"".join([piece async for piece in read]) == data
        if method == "web":
            for node in network.nodes:
                node.faults.add("GET /did.json", Status(500), times=None)
            async with client_of(network) as fresh:
                assert await fresh.retriever.locate(place.blob) == []


async def test_a_document_is_fetched_once_for_all_receipts_of_an_answer(
    web_of: Web, resolver: Resolver
) -> None:
    """None of which it helps to believe; then it is fetched again for the next answer."""
    web_of.signed()
    task, wrong = ask(person(1), person(2).did, "/a").task, person(77).issuing_as(web_of.did())
    made = [
        token.answer(wrong, ran=task, out={"ok": {}}, expires=None, nonce=bytes([number]))
        for number in range(20)
    ]
    found = container.decode(container.encode(made))
    judge = Invoker(resolver._http, resolver, someone(), lambda: NOW * 1000, bytes)
    for fetched in (1, 2):
        with pytest.raises(BadAnswer, match="not believed"):
            await judge.receipt_in(found, task, web_of.did())
        assert len(web_of.server.requests) == fetched


async def test_a_document_has_only_so_many_methods() -> None:
    shown = document.of_service("did:web:x", person(1).public.did).to_json()
    for count in (DID_DOCUMENT_METHODS_MAX, DID_DOCUMENT_METHODS_MAX + 1):
        methods = [{"type": "Multikey", "id": f"#{number}"} for number in range(count)]
        data = json.dumps({**shown, "verificationMethod": methods}).encode()
        if count == DID_DOCUMENT_METHODS_MAX:
            assert len(document.parse(data).methods) == count
        else:
            with pytest.raises(Malformed, match="at most 16 methods"):
                document.parse(data)
