"""Answers of one turn of the loop leave together: nobody's is lost, mixed up, or late for ever."""

from __future__ import annotations

import asyncio
import functools

import pytest

from ingot.http.shared import Counters
from ingot.limits import (
    REQUESTS_PER_TURN,
    SEND_TOGETHER_BYTES_MAX,
    SENDS_TOGETHER_MAX,
    SENDS_TOGETHER_MIN,
)
from ingot.messages import Request, Response
from tests.listener.harness import Client, Host, Site, put, request
from tests.net.waiting import until

MANY = SENDS_TOGETHER_MAX + 6


def answered(counters: Counters, requests: int) -> bool:
    return counters.requests == requests and counters.bytes_out > 0


async def crowd(host: Host, site: object, count: int) -> list[Client]:
    server = await host.serve(site)  # type: ignore[arg-type]
    clients = [await host.connect(server) for _ in range(count)]
    await until(lambda: server.counters.connections_open == count)
    return clients


@pytest.mark.parametrize("count", [1, SENDS_TOGETHER_MIN - 1, SENDS_TOGETHER_MIN, MANY])
async def test_everybody_gets_their_own_answer(host: Host, count: int) -> None:
    clients = await crowd(host, Site(), count)
    for path in (b"hello", b"later", b"hello"):
        for number, client in enumerate(clients):
            await client.send(request(b"GET", b"/%b?%d" % (path, number)))
        for number, client in enumerate(clients):
            assert (await client.answer()).body == path + b"%d" % number
    assert host.servers[0].counters.requests == 3 * count


async def test_bodies_and_pipelined_requests_in_a_crowd(host: Host) -> None:
    clients = await crowd(host, Site(), 2 * SENDS_TOGETHER_MIN)
    for number, client in enumerate(clients):
        body = b"%d" % number * 1000
        await client.send(
            put(b"/take", body),
            request(b"GET", b"/hello?%d" % number),
            put(b"/refuse", body),
            request(b"GET", b"/later"),
        )
    for number, client in enumerate(clients):
        assert (await client.answer()).body == b"%d" % number * 1000
        assert (await client.answer()).body == b"hello%d" % number
        assert (await client.answer()).status == 403
        assert (await client.answer()).body == b"later"


async def test_waiters_that_are_answered_in_one_turn(host: Host) -> None:
    site = Site()
    clients = await crowd(host, site, MANY)
    for number, client in enumerate(clients):
        await client.send(request(b"GET", b"/held?%d" % number))
    await until(lambda: site.waiting == MANY)
    site.gate.set()
    for number, client in enumerate(clients):
        assert (await client.answer()).body == b"held%d" % number
        assert (await client.get()).body == b"hello"


async def test_one_that_is_gone_costs_the_others_nothing(host: Host) -> None:
    site = Site()
    clients = await crowd(host, site, 2 * SENDS_TOGETHER_MIN)
    for client in clients:
        await client.send(request(b"GET", b"/held"))
    await until(lambda: site.waiting == len(clients))
    for client in clients[::2]:
        client.reset()
    site.gate.set()
    for client in clients[1::2]:
        assert (await client.answer()).body == b"held"
    counters = host.servers[0].counters
    await until(lambda: counters.connections_open == len(clients) // 2)
    assert counters.handler_errors == 0


@pytest.mark.slow
async def test_an_answer_that_the_peer_does_not_take_at_once(host: Host) -> None:
    """What the kernel does not take goes the way of every other answer, and is not lost."""
    body = bytes(range(250)) * (SEND_TOGETHER_BYTES_MAX // 250 - 4)

    async def handler(request: Request) -> Response:
        return Response(200, [], body)

    clients = await crowd(host, handler, SENDS_TOGETHER_MIN)
    slow = host.raw(host.servers[0], receive_buffer=4096)
    loop = asyncio.get_running_loop()
    counters = host.servers[0].counters
    # One request at a time, until the windows and buffers of both sides are full of answers.
    requests = whole = 0
    while counters.bytes_out == requests * whole and requests < 2000:
        slow.sendall(request(b"GET", b"/"))
        requests += 1
        await until(functools.partial(answered, counters, requests))
        for _ in range(5):
            await asyncio.sleep(0)
        whole = whole or counters.bytes_out
    assert counters.bytes_out < requests * whole, "never full"
    assert (await clients[0].get()).body == body
    received = bytearray()
    while received.count(b"HTTP/1.1 200 OK") < requests or not received.endswith(body):
        received += await loop.run_in_executor(None, slow.recv, 1 << 20)
    assert received.count(body) == requests


async def test_a_drain_lets_answers_out_that_were_made(host: Host) -> None:
    site = Site()
    clients = await crowd(host, site, 2 * SENDS_TOGETHER_MIN)
    for client in clients:
        await client.send(request(b"GET", b"/held"))
    await until(lambda: site.waiting == len(clients))
    site.gate.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await host.servers[0].drain(10)
    for client in clients:
        assert (await client.answer()).body == b"held"
        assert await client.ended() == b""


async def test_a_close_drops_what_was_not_sent(host: Host) -> None:
    clients = await crowd(host, Site(), 2 * SENDS_TOGETHER_MIN)
    server = host.servers[0]
    for client in clients:
        await client.send(request(b"GET", b"/later"))
    await server.close()
    for client in clients:
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            for _ in range(2):
                await client.answer()


async def test_a_turn_of_the_loop_takes_only_so_many_requests(host: Host) -> None:
    """A flood of requests leaves room for what else the loop has to hear."""
    turn, taken = 0, dict[int, int]()

    async def site(request: Request) -> Response:
        taken[turn] = taken.get(turn, 0) + 1
        return Response(200, [], b"ok")

    count = 4 * REQUESTS_PER_TURN
    clients = await crowd(host, site, count)
    loop = asyncio.get_running_loop()
    counting = True

    def next_turn() -> None:
        nonlocal turn
        turn += 1
        if counting:
            loop.call_soon(next_turn)

    loop.call_soon(next_turn)
    for _ in range(3):
        for client in clients:
            client.writer.write(request(b"GET", b"/"))
        for client in clients:
            assert (await client.answer()).body == b"ok"
    counting = False
    assert sum(taken.values()) == 3 * count
    assert max(taken.values()) <= 2 * REQUESTS_PER_TURN, "those of a turn, and of the one before"


async def test_clients_that_leave_while_they_are_held_back(host: Host) -> None:
    site = Site()
    clients = await crowd(host, site, 3 * REQUESTS_PER_TURN)
    for client in clients:
        client.writer.write(request(b"GET", b"/hello"))
    for client in clients[::2]:
        client.reset()
    for client in clients[1::2]:
        assert (await client.answer()).status == 200
    server = host.servers[0]
    await until(lambda: server.counters.connections_open == len(clients) // 2)
    for client in clients[1::2]:
        assert (await client.get()).status == 200
