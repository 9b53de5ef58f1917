"""The express lane and the general way: one request, one outcome, whichever way it goes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import socket
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings

from ingot._speedups import express, sigv4
from ingot.bucket.model import BucketConfig
from ingot.credentials import Account
from ingot.errors import Unavailable
from ingot.http.errors import HeadError
from ingot.http.limits import HttpLimits
from ingot.http.parser import HeadParser
from ingot.messages import Response
from ingot.s3.answers import Answers
from ingot.s3.auth import Authenticator
from ingot.s3.names import split_target
from ingot.testing import Gateway
from tests.support import heads as made
from tests.support.client import Client

ACCOUNT = Account(made.ACCESS_KEY, made.SECRET_KEY, "1" * 64, "x")


@pytest.mark.slow
@given(made.heads())
@settings(max_examples=1000, deadline=None)
def test_what_the_lane_recognises_the_general_way_accepts(case: tuple[bytes, bytes]) -> None:
    head, start = case
    listed = start[start.index(b"SignedHeaders=") + 14 : start.index(b", Signature=")]
    key = sigv4.SigningKey(made.SECRET_KEY, b"20260102", b"us-east-1")
    day_ms = sigv4.parse_stamp(b"20260102T000000Z")
    names = tuple(listed.split(b";"))
    forms = {
        start: express.Form(
            made.ACCESS_KEY, made.SECRET_KEY, key, made.SCOPE, day_ms, listed, names
        )
    }
    found = express.recognise(head, forms, made.NOW_MS, 900_000)
    if found is None:
        return
    try:
        request, framing = HeadParser(HttpLimits()).parse(head, "peer", False)
    except HeadError as error:
        raise AssertionError(head) from error
    authenticator = Authenticator({ACCOUNT.access_key: ACCOUNT}, made.REGION)
    passed = authenticator.authenticate(request, made.NOW_MS, streaming=found.put)
    assert passed.account is ACCOUNT
    assert request.method == ("PUT" if found.put else "GET") and request.target == found.target
    assert framing.persistent and not framing.expects and framing.length == found.length
    if found.bucket == b"photos":
        assert split_target(request.target) == (found.bucket.decode(), found.key, b"")
    assert request.index.get(b"content-type") == found.content_type
    assert (passed.payload.sha256 or b"").hex().encode() == (found.payload or b"") or not found.put


class Raw(Client):
    """One connection on which requests are bytes."""

    def connect(self) -> socket.socket:
        self.connection.close()
        self.connection.connect()
        sock: socket.socket = self.connection.sock
        return sock

    def head(self, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if method == "PUT":
            named["content-length"] = str(len(body))
        named.setdefault("x-amz-content-sha256", hashlib.sha256(body).hexdigest())
        sent = self.sign(method, path, "", named)
        lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in sent.items()), "", ""]
        return "\r\n".join(lines).encode()


def receive(sock: socket.socket, count: int = 1) -> list[bytes]:
    """That many answers with their bodies."""
    data, answers = b"", []
    while len(answers) < count:
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            match = re.search(rb"content-length: (\d+)", data[:end], re.IGNORECASE)
            size = end + 4 + (int(match[1]) if match else 0)
            if len(data) >= size:
                answers.append(data[:size])
                data = data[size:]
                continue
        piece = sock.recv(1 << 16)
        assert piece, data
        data += piece
    assert not data
    return answers


def plain(answer: bytes) -> bytes:
    """An answer without what is different each time."""
    return re.sub(rb"(?im)^(x-amz-request-id|date|last-modified): .*\r\n", b"", answer)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway() as running:
        client = Client(running.url, running.access_key, running.secret_key)
        assert client.request("PUT", "/photos").status == 200
        client.close()
        yield running


@pytest.fixture
def raw(gateway: Gateway) -> Iterator[Raw]:
    client = Raw(gateway.url, gateway.access_key, gateway.secret_key)
    yield client
    client.close()


def taken(gateway: Gateway) -> int:
    assert gateway.server.http is not None
    return gateway.server.http.counters.express


def twice(gateway: Gateway, raw: Raw, method: str, body: bytes = b"", **headers: str) -> bytes:
    """The answer to one request, which goes the general way first, then the lane."""
    sock = raw.connect()
    before = taken(gateway)
    head = raw.head(method, "/photos/k", body, **headers)
    answers = []
    for unusual in (b"\r\nVia: somebody\r\n", b"\r\n"):
        sock.sendall(head.replace(b"\r\n", unusual, 1) + body)
        answers += receive(sock)
    assert taken(gateway) == before + 1, answers
    assert plain(answers[0]) == plain(answers[1])
    return answers[1]


CRC = base64.b64encode(zlib.crc32(b"hello").to_bytes(4, "big")).decode()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content_type": "text/x-first"},
        {"x_amz_checksum_crc32": CRC, "x_amz_sdk_checksum_algorithm": "CRC32"},
        {"content_md5": base64.b64encode(hashlib.md5(b"hello").digest()).decode()},
        {"x_amz_content_sha256": "UNSIGNED-PAYLOAD", "accept_encoding": "identity"},
    ],
)
def test_both_ways_store_and_show_the_same(
    gateway: Gateway, raw: Raw, headers: dict[str, str]
) -> None:
    put = twice(gateway, raw, "PUT", b"hello", **headers)
    assert put.startswith(b"HTTP/1.1 200 OK\r\n")
    shown = twice(gateway, raw, "GET", x_amz_checksum_mode="ENABLED", accept=str(len(headers)))
    assert shown.endswith(b"\r\n\r\nhello")
    assert headers.get("content_type", "binary/octet-stream").encode() in shown


def test_an_empty_object(gateway: Gateway, raw: Raw) -> None:
    twice(gateway, raw, "PUT", b"", user_agent="empty")
    assert twice(gateway, raw, "GET", user_agent="empty").endswith(b"\r\n\r\n")


def test_requests_in_one_packet_are_answered_in_order(gateway: Gateway, raw: Raw) -> None:
    sock = raw.connect()
    sock.sendall(raw.head("PUT", "/photos/p", b"0") + b"0")
    sock.sendall(raw.head("GET", "/photos/p"))
    receive(sock, 2)  # both forms are known now
    before = taken(gateway)
    sent = b""
    for number in range(8):
        body = b"%d" % number
        sent += raw.head("PUT", "/photos/p", body) + body + raw.head("GET", "/photos/p")
    sock.sendall(sent)
    answers = receive(sock, 16)
    assert [answer.rpartition(b"\r\n\r\n")[2] for answer in answers[1::2]] == [
        b"%d" % number for number in range(8)
    ]
    assert taken(gateway) == before + 16


def test_a_body_that_comes_late_is_waited_for(gateway: Gateway, raw: Raw) -> None:
    twice(gateway, raw, "PUT", b"hello")
    sock = raw.connect()
    sock.sendall(raw.head("PUT", "/photos/late", b"hello"))
    sock.sendall(b"he")
    sock.sendall(b"llo")
    assert receive(sock)[0].startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ({"x_amz_content_sha256": "0" * 64}, b"hello", b"XAmzContentSHA256Mismatch"),
        ({"content_md5": base64.b64encode(b"0" * 16).decode()}, b"hello", b"BadDigest"),
        ({"content_md5": "nonsense"}, b"hello", b"InvalidDigest"),
        ({"x_amz_checksum_crc32": "AAAAAA=="}, b"hello", b"BadDigest"),
        ({"x_amz_checksum_crc32": "AAAA"}, b"hello", b"InvalidRequest"),
    ],
)
def test_a_wrong_digest_is_refused_as_ever(
    gateway: Gateway, raw: Raw, headers: dict[str, str], body: bytes, code: bytes
) -> None:
    good = {
        "content_md5": base64.b64encode(hashlib.md5(body).digest()).decode(),
        "x_amz_checksum_crc32": CRC,
        "x_amz_content_sha256": hashlib.sha256(body).hexdigest(),
    }
    twice(gateway, raw, "PUT", body, **{name: good[name] for name in headers})
    before = taken(gateway)
    sock = raw.connect()
    sock.sendall(raw.head("PUT", "/photos/bad", body, **headers) + body)
    answer = receive(sock)[0]
    assert answer.startswith(b"HTTP/1.1 400") and b"<Code>" + code + b"</Code>" in answer
    assert taken(gateway) == before
    assert raw.get("/photos/bad").status == 404


def test_a_wrong_signature_is_refused_as_ever(gateway: Gateway, raw: Raw) -> None:
    twice(gateway, raw, "PUT", b"hello")
    twice(gateway, raw, "GET")
    sock = raw.connect()
    head = raw.head("GET", "/photos/k")
    sock.sendall(head.replace(b"/photos/k ", b"/photos/j ", 1))
    assert b"SignatureDoesNotMatch" in receive(sock)[0]


def test_what_is_not_there(gateway: Gateway, raw: Raw) -> None:
    twice(gateway, raw, "PUT", b"hello")
    twice(gateway, raw, "GET")
    assert raw.get("/photos/none").code == "NoSuchKey"
    assert raw.get("/no-such-bucket/k").code == "NoSuchBucket"
    assert raw.put("/no-such-bucket/k", b"1").code == "NoSuchBucket"


async def commit_that_fails(**settings: Any) -> tuple[bytes, bytes]:
    """The answers of a PUT the general way and of one in the lane, whose commits both fail."""
    async with Gateway(**settings) as gateway:
        client = Raw(gateway.url, gateway.access_key, gateway.secret_key)
        loop = asyncio.get_running_loop()

        async def ask(*heads: bytes) -> list[bytes]:
            reader, writer = await asyncio.open_connection(client.host, client.port)
            answers = []
            for head in heads:
                writer.write(head)
                got = await reader.readuntil(b"\r\n\r\n")
                match = re.search(rb"content-length: (\d+)", got, re.IGNORECASE)
                answers.append(got + await reader.readexactly(int(match[1]) if match else 0))
            writer.close()
            return answers

        made_bucket = await ask(client.head("PUT", "/photos") + b"")
        assert made_bucket[0].startswith(b"HTTP/1.1 200"), made_bucket
        await ask(client.head("PUT", "/photos/a", b"1") + b"1")  # its form is known now
        assert gateway.server.http is not None
        before = gateway.server.http.counters.express
        pipeline = gateway.server.pipeline
        general = loop.create_task(ask(client.head("PUT", "/photos/k", b"2", range="x") + b"2"))
        in_lane = loop.create_task(ask(client.head("PUT", "/photos/k", b"3") + b"3"))
        swap = pipeline._registry.swap

        async def broken(*arguments: Any) -> None:
            pipeline.fail(Unavailable("the registry is gone for good"))
            await swap(*arguments)

        pipeline._registry.swap = broken  # type: ignore[method-assign]
        answers = await asyncio.gather(general, in_lane)
        assert gateway.server.http.counters.express == before + 1
        return answers[0][0], answers[1][0]


async def test_a_commit_that_fails_is_a_503_in_both_ways() -> None:
    general, in_lane = await commit_that_fails()
    for answer in (general, in_lane):
        assert answer.startswith(b"HTTP/1.1 503"), answer
        assert b"Retry-After" in answer and b"<Code>" in answer


def test_a_client_that_leaves_costs_nothing(gateway: Gateway, raw: Raw) -> None:
    twice(gateway, raw, "PUT", b"hello")
    other = Raw(gateway.url, gateway.access_key, gateway.secret_key)
    sock = other.connect()
    sock.sendall(raw.head("PUT", "/photos/left", b"bye") + b"bye")
    other.close()
    deadline = time.monotonic() + 20
    while raw.get("/photos/left").body != b"bye":  # its commit stands
        assert time.monotonic() < deadline
    assert raw.put("/photos/k", b"hello").status == 200


def test_an_answer_that_fails_is_its_own_trouble(gateway: Gateway, raw: Raw, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The connection it was for ends; the pipeline and everybody else go on."""
    twice(gateway, raw, "PUT", b"hello")
    complete = Answers.complete

    def broken(self: Answers, response: Response, request_id: bytes) -> Response:
        if response.status == 200 and broken_once:
            broken_once.pop()
            raise ValueError("injected")
        return complete(self, response, request_id)

    broken_once = [True]
    monkeypatch.setattr(Answers, "complete", broken)
    sock = raw.connect()
    sock.settimeout(20)
    sock.sendall(raw.head("PUT", "/photos/broken", b"1") + b"1")
    assert sock.recv(100) == b"" and not broken_once
    raw.connect()
    assert raw.put("/photos/k", b"hello").status == 200
    assert gateway.server.pipeline.failed is None
    assert raw.get("/photos/broken").body == b"1", "its commit stands"


async def test_a_batch_that_breaks_the_planner_leaves_nobody_waiting() -> None:
    async with Gateway() as gateway:
        store = gateway.server.store
        config = BucketConfig("0" * 63 + "1", "testing", 0, "us-east-1")
        await store.create_bucket("photos", config)

        def broken(*arguments: Any) -> Any:
            raise KeyError("injected")

        gateway.server.pipeline._planner.plan = broken  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            async with asyncio.timeout(10):
                await store.delete(store.bucket("photos"), [b"k"])
