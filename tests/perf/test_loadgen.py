"""The load generator counts what a server really got and answered, and says when one misbehaves."""

from __future__ import annotations

import importlib.util
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("Cython")
PERF = Path(__file__).parents[2] / "perf"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PERF / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


loadgen: Any = load("loadgen")


class Server:
    """A thread a connection; ``answer`` gets each whole request and returns what to send."""

    def __init__(self, answer: Callable[[bytes, bytes], bytes | None]) -> None:
        self.answer = answer
        self.requests: list[tuple[bytes, bytes]] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.threads: list[threading.Thread] = []

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self.serve, args=(client,))
            thread.start()
            self.threads.append(thread)

    def serve(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as stream:
            while head := b"".join(iter(stream.readline, b"\r\n")) if stream.peek(1) else b"":
                found = re.search(rb"Content-Length: (\d+)", head)
                body = stream.read(int(found[1]) if found else 0)
                self.requests.append((head, body))
                answer = self.answer(head, body)
                if answer is None:
                    return
                client.sendall(answer)
                if b"Connection: close" in answer:
                    return


@contextmanager
def serving(answer: Callable[[bytes, bytes], bytes | None]) -> Iterator[Server]:
    server = Server(answer)
    accepting = threading.Thread(target=server.accept)
    accepting.start()
    try:
        yield server
    finally:
        server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()
        accepting.join()
        for thread in server.threads:
            thread.join()


def response(body: bytes = b"", status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{more}content-length: {len(body)}\r\n\r\n".encode() + body


def plan(server: Server, operation: str, **fields: Any) -> Any:
    fields = {"once": True, "seconds": 30.0, "count": 60, "connections": 3, **fields}
    keys = {"access_key": "AKIA", "secret_key": "secret"}
    return loadgen.Plan(server.url, operation, **keys, **fields)


def test_every_put_arrives_whole_and_different() -> None:
    with serving(lambda head, body: response()) as server:
        result = loadgen.run(plan(server, "put", size=300_000, prefix="p"))
    assert (result.requests, result.failures, result.statuses) == (60, 0, {200: 60})
    assert not result.wrapped and sum(result.histogram.values()) == 60
    targets = {head.split(b" ")[1].decode() for head, _ in server.requests}
    assert targets == {"/perf/" + loadgen.key_of("p", number) for number in range(60)}
    assert {len(body) for _, body in server.requests} == {300_000}
    assert len({body for _, body in server.requests}) == 60
    assert 0 < result.min_ns <= result.max_ns <= result.elapsed_ns
    assert result.min_ns / 1000 <= result.percentile_us(0.5) <= result.max_ns / 1000


def test_bodies_are_received_whole() -> None:
    big = bytes(3_000_000)
    with serving(lambda head, body: response(big)) as server:
        result = loadgen.run(plan(server, "get", count=12))
    assert result.received_bytes == 12 * len(big)


def test_signatures_are_right() -> None:
    """Checked with botocore's signer, over the request as it arrived."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    with serving(lambda head, body: response()) as server:
        loadgen.run(plan(server, "put", count=2))
        loadgen.run(plan(server, "list", count=2, delimiter="/"))
        loadgen.run(plan(server, "list", count=2))
    assert len(server.requests) == 6
    for head, body in server.requests:
        lines = head.decode().split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        given = headers.pop("Authorization")
        signed = ("Host", "X-Amz-Date", "X-Amz-Content-SHA256")
        request = AWSRequest(method, server.url + target, data=body)
        for name in signed:
            request.headers[name] = headers[name]
        request.context["timestamp"] = headers["X-Amz-Date"]
        request.context["payload_signing_enabled"] = True
        signer = S3SigV4Auth(Credentials("AKIA", "secret"), "s3", "us-east-1")
        text = signer.string_to_sign(request, signer.canonical_request(request))
        assert given.endswith("Signature=" + signer.signature(text, request))


def test_failures_are_counted_and_shown() -> None:
    def answer(head: bytes, body: bytes) -> bytes:
        bad = len(server.requests) % 4 == 0
        return response(b"<Code>SlowDown</Code>", "503 Slow Down") if bad else response()

    with serving(answer) as server:
        result = loadgen.run(plan(server, "put", connections=1))
    assert result.statuses == {200: 45, 503: 15}
    assert result.failures == 15 and "SlowDown" in result.sample


def test_a_connection_that_the_server_closes_is_replaced() -> None:
    with serving(lambda head, body: response(more="Connection: close\r\n")) as server:
        result = loadgen.run(plan(server, "get"))
    assert result.statuses == {200: 60} and result.failures == 0
    assert result.reconnects >= 57


def test_a_response_cut_short_is_broken() -> None:
    cut = response(b"x" * 100)[:-50]
    count = iter(range(1000))
    more = "Connection: close\r\n"

    def answer(head: bytes, body: bytes) -> bytes | None:
        number = next(count)
        return None if number % 3 == 0 else response(b"y", more=more) if number % 3 == 1 else cut

    with serving(lambda head, body: answer(head, body)) as server:
        server.serve = close_after(server)  # type: ignore[method-assign]
        result = loadgen.run(plan(server, "get", count=9, connections=1))
    assert result.broken == 6 and result.statuses == {200: 3}


def close_after(server: Server) -> Callable[[socket.socket], None]:
    """Answer one request, then close."""

    def serve(client: socket.socket) -> None:
        with client:
            head = client.recv(65536)
            answer = server.answer(head, b"") if head else None
            if answer is not None:
                client.sendall(answer)

    return serve


def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(RuntimeError, match="cannot go on against"):
            loadgen.run(loadgen.Plan(url, "raw"))


def test_percentiles() -> None:
    """The histogram's slots cover every time once, each at most a 64th wide."""
    uppers = [loadgen._upper_ns(slot) for slot in range(60 * 64 - 1)]
    assert uppers == sorted(set(uppers))
    for lower, upper in zip(uppers[64:], uppers[65:], strict=False):
        assert upper - lower <= lower / 64 + 1
    fields = dict.fromkeys(
        ("elapsed_ns", "received_bytes", "sum_ns", "min_ns", "reconnects", "broken", "issued"), 0
    )
    result = loadgen.Result(
        requests=4,
        max_ns=9_000,
        statuses={},
        histogram={10: 2, 64: 1, 700: 1},
        tenths=[],
        sample="",
        **fields,
    )
    assert result.percentile_us(0.5) == 0.01
    assert result.percentile_us(0.75) == 0.064
    assert result.percentile_us(1.0) == 9.0
