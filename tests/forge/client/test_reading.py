"""A node whose receipts are right and whose answers are not, or the other way round."""

from __future__ import annotations

import asyncio
import gzip
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from ingot.clock import SystemClock
from ingot.codec import multihash
from ingot.errors import FormatError, Unavailable
from ingot.forge import container, query, token
from ingot.forge.client import ForgeClient, ForgeSettings
from ingot.forge.container import HEADER
from ingot.forge.errors import TooLarge
from ingot.forge.identity import Identity
from ingot.forge.invoker import Service
from ingot.forge.keys import Signer
from ingot.forge.query import Location
from ingot.forge.token import Invocation
from ingot.limits import (
    CONTAINER_ANSWER_BYTES_MAX,
    CONTAINER_ANSWER_TOKENS_MAX,
    FORGE_RECEIPTS_MAX,
)
from tests.forge.builders import ask, grant
from tests.forge.client.support import ONCE, Server, http, someone
from tests.forge.support import NONCE, person

DATA = b"0123456789"
NODE, STRANGER = person(61), person(62)


def location(url: str) -> Location:
    arguments = {
        "space": someone().space,
        "content": multihash.of(DATA),
        "location": [url + "/piece"],
    }
    return query.location_of(ask(NODE, NODE.did, query.LOCATION, arguments=arguments))


def client_at(url: str, who: Identity | None = None, **more: Any) -> ForgeClient:
    settings = ForgeSettings(upload=Service(STRANGER.did, url), http=http(**more), retry=ONCE)
    return ForgeClient(settings, who or someone(), SystemClock())


def receipt_for(
    request: web.Request, signer: Signer = NODE, out: Any = None, ran: bytes = b""
) -> str:
    asked = container.from_header(request.headers[HEADER])
    (invocation,) = asked.invocations.values()
    made = token.answer(
        signer, ran=ran or invocation.task, out=out or {"ok": {}}, expires=None, nonce=NONCE
    )
    return container.to_header([made])


async def read(server: Server, start: int = 2, end: int = 5, **more: Any) -> bytes:
    async with client_at(server.url, **more) as client:
        async with client.retriever.read([location(server.url)], start, end) as reading:
            return b"".join([piece async for piece in reading])


Change = Callable[[web.Request], dict[str, Any]]
OTHER_TASK = ask(STRANGER, STRANGER.did, "/a").task
RIGHT: dict[str, Any] = {
    "status": 206,
    "body": DATA[2:6],
    "headers": {"Content-Range": "bytes 2-5/10"},
}


def with_header(value: str, **more: str) -> Change:
    return lambda request: {"headers": {**RIGHT["headers"], HEADER: value, **more}}


def with_receipt(**more: Any) -> Change:
    return lambda request: {"headers": {**RIGHT["headers"], HEADER: receipt_for(request, **more)}}


def with_range(said: str) -> Change:
    return lambda request: {"headers": {"Content-Range": said, HEADER: receipt_for(request)}}


WRONG: dict[str, Change] = {
    "too short": lambda _: {"body": DATA[2:5]},
    "too long": lambda _: {"body": DATA[2:7]},
    "the whole blob": lambda _: {"body": DATA, "status": 200},
    "nothing": lambda _: {"body": b""},
    "status 204": lambda _: {"body": b"", "status": 204},
    "status 302": lambda _: {"status": 302},
    "status 404 with a good receipt": lambda _: {"status": 404},
    "status 500 with a good receipt": lambda _: {"status": 500},
    "another range": with_range("bytes 3-6/10"),
    "a range that is none": with_range("bytes */10"),
    "a range of 5,000 digits": with_range("bytes " + "1" * 5000 + "-5/10"),
    "a size of 5,000 digits": with_range("bytes 2-5/" + "1" * 5000),
    "a receipt that is no container": with_header("Ehello"),
    "an empty header": with_header(""),
    "a receipt by another": with_receipt(signer=STRANGER),
    "a receipt for another task": with_receipt(ran=OTHER_TASK),
    "an error and yet the bytes": with_receipt(out={"error": {"name": "Oops", "message": "no"}}),
}


@pytest.mark.parametrize("wrong", [*WRONG, "nothing wrong"])
async def test_answers_of_a_node(server: Server, wrong: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        fields = {**RIGHT, **(WRONG[wrong](request) if wrong in WRONG else {})}
        headers = {HEADER: receipt_for(request), **fields.pop("headers")}
        return web.Response(**fields, headers=headers)

    server.handler = answer
    if wrong == "nothing wrong":
        assert await read(server) == DATA[2:6]
    else:
        with pytest.raises(Unavailable, match=NODE.did):
            await read(server)


async def test_what_a_node_is_asked(server: Server) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        headers = {HEADER: receipt_for(request)}
        return web.Response(body=DATA, headers=headers)

    server.handler = answer
    assert await read(server, 0, 9) == DATA
    (request,) = server.requests
    assert (request.method, request.path) == ("GET", "/piece")
    asked = container.from_header(request.headers[HEADER])
    (invocation,) = asked.invocations.values()
    assert isinstance(invocation, Invocation)
    assert (invocation.command, invocation.audience) == ("/content/retrieve", NODE.did)
    assert invocation.subject == someone().space and invocation.issuer == someone().agent.did
    assert invocation.arguments == {"blob": {"digest": multihash.of(DATA)}, "range": [0, 9]}
    assert set(asked.delegations) == set(invocation.proofs) and len(invocation.proofs) == 1


async def test_a_node_that_gives_a_byte_now_and_then(server: Server) -> None:
    """Never silent for long, and never done."""
    released = asyncio.Event()

    async def drips(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={HEADER: receipt_for(request)})
        response.content_length = len(DATA)
        await response.prepare(request)
        await response.write(DATA[:1])
        while not released.is_set():  # as a stall that the time between bytes does not notice
            await asyncio.wait([asyncio.ensure_future(released.wait())], timeout=0.01)
        return response

    server.handler = drips
    with pytest.raises(Unavailable, match="slower than the slowest allowed"):
        await read(server, 0, 9, answer_s=0.1, rate_min=1e9)
    released.set()


@pytest.mark.slow
async def test_a_slow_reader_is_not_a_slow_node(server: Server) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=DATA, headers={HEADER: receipt_for(request)})

    server.handler = answer
    async with client_at(server.url, answer_s=1.0, stall_s=1.0, rate_min=1e9) as client:
        async with client.retriever.read([location(server.url)], 0, 9) as reading:
            got = await anext(reading)
            await asyncio.sleep(1.2)  # longer than the node would be given
            got += b"".join([piece async for piece in reading])
    assert got == DATA


async def test_a_chain_too_long_for_a_header(server: Server) -> None:
    people = [person(number) for number in range(70, 150)]
    space = people[0]
    links = [
        grant(giver, taker.did, space.did) for giver, taker in zip(people, people[1:], strict=False)
    ]
    who = Identity(people[-1], space.did, links)
    async with client_at(server.url, who) as client:
        place = location(server.url)
        arguments = {**place.claim.arguments, "space": space.did}
        place = query.location_of(ask(NODE, NODE.did, query.LOCATION, arguments=arguments))
        with pytest.raises(TooLarge, match="shorter chain"):
            await anext(client.retriever.read([place], 0, 9))
    assert not server.requests


@pytest.mark.parametrize("receipt", [True, False])
async def test_a_node_that_drips_what_it_is_judged_by(server: Server, receipt: bool) -> None:
    """Its error text, or the document that its receipt is checked with: the next one is asked."""
    released = asyncio.Event()
    web_node = NODE.issuing_as(f"did:web:{server.url.removeprefix('http://').replace(':', '%3A')}")

    async def drips(request: web.Request) -> web.StreamResponse:
        if request.path == "/good":
            return web.Response(body=DATA, headers={HEADER: receipt_for(request)})
        response = web.StreamResponse(status=500)
        if receipt and request.path == "/piece":
            response.headers[HEADER] = receipt_for(request, signer=web_node)
        response.content_length = 1000
        await response.prepare(request)
        while not released.is_set():
            await response.write(b"x")
            await asyncio.wait([asyncio.ensure_future(released.wait())], timeout=0.02)
        return response

    server.handler = drips
    good = location(server.url)
    good = replace(good, urls=(server.url + "/good",))
    bad = replace(location(server.url), node=web_node.did if receipt else NODE.did)
    async with client_at(server.url, connect_s=0.1, answer_s=0.1) as client:
        began = asyncio.get_running_loop().time()
        async with client.retriever.read([bad, good], 0, 9) as reading:
            assert b"".join([piece async for piece in reading]) == DATA
        assert asyncio.get_running_loop().time() - began < 5
    released.set()


async def test_receipts_and_tokens_in_one_answer_are_few(server: Server) -> None:
    """Each of them would cost a check of a signature, or of as many as the document has keys."""
    strangers = iter([0, FORGE_RECEIPTS_MAX + 5])

    async def answer(request: web.Request) -> web.StreamResponse:
        count = next(strangers)
        asked = container.from_header(request.headers[HEADER])
        (invocation,) = asked.invocations.values()
        made = [
            token.answer(
                signer,
                ran=invocation.task,
                out={"ok": {}},
                expires=None,
                nonce=number.to_bytes(2, "big"),
            )
            for signer in (STRANGER, NODE)
            for number in range(count if signer is STRANGER else 1)
        ]
        value = container.to_header(made)
        return web.Response(body=DATA, headers={HEADER: value})

    server.handler = answer
    for _ in range(2):
        assert await read(server, 0, 9) == DATA  # the node's own counts, whoever else signed
    value = container.pack(
        [grant(person(1), person(2).did, None, nonce=bytes([n])) for n in range(33)],
        container.Form.GZIP_BASE64,
    ).decode()
    with pytest.raises(FormatError, match=f"at most {CONTAINER_ANSWER_TOKENS_MAX} tokens"):
        container.from_answer(value)
    bomb = "E" + b64encode(gzip.compress(bytes(CONTAINER_ANSWER_BYTES_MAX + 1))).decode()
    with pytest.raises(FormatError, match=f"at most {CONTAINER_ANSWER_BYTES_MAX} bytes"):
        container.from_answer(bomb)
