"""Response heads: exact bytes, and nothing that a value carries can end its line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.http.writer import CLOSE, KEEP_ALIVE, HeadWriter, http_date
from ingot.limits import SEND_JOIN_BYTES
from ingot.messages import Header, Response

NOW_MS = 1_400_000_000_123
TAIL = b"Date: Tue, 13 May 2014 16:53:20 GMT\r\nServer: ingot\r\n\r\n"


def encode(response: Response, head_only: bool = False, connection: bytes = b"") -> object:
    return HeadWriter().encode(response, head_only, connection, NOW_MS)


async def pieces() -> AsyncIterator[bytes]:
    yield b"x"


def test_a_small_body_follows_its_head() -> None:
    response = Response(200, [(b"ETag", b'"e"'), (b"x-amz-meta-a", b"\xe9")], b"hello")
    start, rest = encode(response)
    lines = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nx-amz-meta-a: \xe9\r\nContent-Length: 5\r\n'
    assert start == lines + TAIL + b"hello"
    assert rest is None


def test_a_large_body_is_not_copied() -> None:
    body = bytes(SEND_JOIN_BYTES + 1)
    start, rest = encode(Response(200, [], body))
    assert start == b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(body) + TAIL
    assert rest is body


def test_a_streamed_body_comes_back() -> None:
    stream = pieces()
    start, rest = encode(Response(206, [], stream, length=1), connection=CLOSE)
    assert start == (
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\nConnection: close\r\n" + TAIL
    )
    assert rest is stream


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_length_or_body(status: int) -> None:
    start, rest = encode(Response(status, [], b"ignored"), connection=KEEP_ALIVE)
    assert b"Content-Length" not in start and b"ignored" not in start and rest is None
    assert b"\r\nConnection: keep-alive\r\n" in start


def test_head_answers_state_the_length_of_a_get() -> None:
    start, rest = encode(Response(200, [], b"", length=12345), head_only=True)
    assert b"\r\nContent-Length: 12345\r\n" in start and start.endswith(b"\r\n\r\n")
    assert rest is None
    start, rest = encode(Response(200, [], b"abc"), head_only=True)
    assert b"\r\nContent-Length: 3\r\n" in start and start.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "header",
    [
        (b"x", b"a\r\nSet-Cookie: b"),
        (b"x", b"a\nb"),
        (b"x", b"a\rb"),
        (b"x", b"a\0b"),
        (b"x\r\ny", b"a"),
        (b"x: y\r\nz", b"a"),
        (b"x y", b"a"),
        (b"x:", b"a"),
        (b"", b"a"),
        (b"\xe9", b"a"),
        (b"Content-Length", b"3"),
        (b"transfer-encoding", b"chunked"),
        (b"Connection", b"close"),
        (b"Date", b"now"),
        (b"Server", b"other"),
    ],
)
def test_headers_that_are_refused(header: Header) -> None:
    writer = HeadWriter()
    for _ in range(2):  # a refusal is not remembered as a checked name
        with pytest.raises(ValueError, match="header|connection"):
            writer.encode(Response(200, [(b"ok", b"ok"), header]), False, b"", NOW_MS)


@pytest.mark.parametrize(
    "response",
    [
        Response(100),
        Response(99),
        Response(600),
        Response(200, [], b"abc", length=4),
        Response(200, [], b"abc", length=2),
    ],
)
def test_answers_that_contradict_themselves(response: Response) -> None:
    with pytest.raises(ValueError, match="status|announced"):
        encode(response)


def test_a_stream_needs_a_length() -> None:
    with pytest.raises(ValueError, match="length"):
        encode(Response(200, [], pieces()))


def test_a_status_without_a_name() -> None:
    start, _ = encode(Response(299))
    assert start.startswith(b"HTTP/1.1 299 \r\n")


@given(st.integers(0, 253_402_300_799))
def test_dates(second: int) -> None:
    assert http_date(second) == formatdate(second, usegmt=True)


def test_the_date_line_follows_the_clock() -> None:
    writer = HeadWriter()
    seen = [writer.encode(Response(200), False, b"", ms)[0] for ms in (0, 999, 1000, 500)]
    assert seen[0] == seen[1] == seen[3] != seen[2]


@given(st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=12)), max_size=5))
def test_a_written_head_reads_back_as_it_was_meant(headers: list[Header]) -> None:
    try:
        start, _ = encode(Response(200, headers))
    except ValueError:
        return
    lines = start[: start.index(b"\r\n\r\n")].split(b"\r\n")
    assert len(lines) == 1 + len(headers) + 3
    for line, (name, value) in zip(lines[1:], headers, strict=False):
        assert line == name + b": " + value
