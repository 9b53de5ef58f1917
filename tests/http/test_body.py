"""Request bodies over a scripted source: every way to read them gives the bytes, once, in order."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.http.body import NO_BODY, ChunkedBody, CountedBody, ReceivedBody
from ingot.http.errors import BodyError
from ingot.limits import HEAD_READ_BYTES


class Script:
    """A peer that sends given pieces and then breaks the connection."""

    def __init__(self, received: bytes, pieces: list[bytes], arrived: bool = False) -> None:
        self.pending = bytearray(received)
        self.pieces = [piece for piece in pieces if piece]
        self.arrived = arrived  # whether the next piece is there without waiting
        self.waits = 0

    async def receive(self, view: memoryview) -> int:
        assert len(view) > 0
        self.waits += 1
        if not self.pieces:
            raise BodyError("IncompleteBody", "the script is over")
        return self._next(view)

    async def receive_pending(self) -> None:
        view = memoryview(bytearray(64))
        self.pending += view[: await self.receive(view)]

    def receive_now(self, view: memoryview) -> int:
        return self._next(view) if self.arrived and self.pieces else -1

    def _next(self, view: memoryview) -> int:
        piece = self.pieces[0]
        count = min(len(view), len(piece))
        view[:count] = piece[:count]
        self.pieces[:1] = [piece[count:]] if piece[count:] else []
        return count


def run(coroutine):  # type: ignore[no-untyped-def]
    """Bodies wait for nothing but their source, and that one never waits: no loop is needed."""
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    return done.value.value


async def drain(body: ReceivedBody, room: int) -> bytes:
    out, view = bytearray(), memoryview(bytearray(room))
    while count := await body.readinto(view):
        out += view[:count]
    return bytes(out)


def chunked(data: bytes, size: int) -> bytes:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


def split(data: bytes, cuts: list[int]) -> tuple[bytes, list[bytes]]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    return pieces[0], pieces[1:]


CUTS = st.lists(st.integers(0, 500), max_size=5)


@given(st.binary(min_size=1, max_size=300), CUTS, st.integers(1, 400), st.booleans())
def test_counted(data: bytes, cuts: list[int], room: int, take_first: bool) -> None:
    received, pieces = split(data, cuts)
    received, pieces = (received, [*pieces, b"next"]) if pieces else (received + b"next", [])
    source = Script(received, pieces)
    body = CountedBody(source, len(data))
    assert (body.length, body.left) == (len(data), len(data))
    got = body.take() if take_first else None
    if got is None:
        got = run(drain(body, room))
    assert got == data
    assert body.left == 0
    assert bytes(source.pending) + b"".join(source.pieces) == b"next"


@given(st.binary(max_size=300), st.integers(1, 100), CUTS, st.integers(1, 400), st.booleans())
def test_chunked(data: bytes, size: int, cuts: list[int], room: int, take_first: bool) -> None:
    received, pieces = split(chunked(data, size) + b"next", cuts)
    source = Script(received, pieces)
    body = ChunkedBody(source)
    assert body.length is None
    got = body.take() if take_first else None
    if got is None:
        got = run(drain(body, room))
    assert got == data
    assert body.left == 0
    assert bytes(source.pending) + b"".join(source.pieces) == b"next"


def test_large_chunks_go_straight_into_the_readers_memory() -> None:
    data = bytes(range(256)) * 800
    coded = chunked(data, 100_000)
    head = coded.index(b"\r\n") + 2
    source = Script(coded[:head], [coded[head:]])
    body = ChunkedBody(source)
    view = memoryview(bytearray(300_000))
    assert run(body.readinto(view)) == 100_000  # in one go, and not a byte beyond the chunk
    assert not source.pending
    assert bytes(view[:100_000]) + run(drain(body, 70_000)) == data


def test_take_never_waits() -> None:
    source = Script(b"ab", [b"cd"])
    body = CountedBody(source, 4)
    assert body.take() is None
    assert source.waits == 0
    assert run(body.read(4)) == b"abcd"


def test_take_gets_what_has_arrived_behind_the_head() -> None:
    source = Script(b"ab", [b"cd"], arrived=True)
    assert CountedBody(source, 4).take() == b"abcd"
    source = Script(b"", [b"ab", b"cd"], arrived=True)
    body = CountedBody(source, 4)
    assert body.take() is None  # it tries once
    assert run(body.read(10)) == b"abcd"
    source = Script(b"", [b"x"], arrived=True)
    assert CountedBody(source, HEAD_READ_BYTES + 1).take() is None
    assert source.pieces == [b"x"]


@pytest.mark.parametrize("make", [lambda s: CountedBody(s, 4), ChunkedBody])
def test_take_gives_the_whole_or_nothing(make) -> None:  # type: ignore[no-untyped-def]
    source = Script(b"4\r\nabcd\r\n0\r\n\r\n" if make is ChunkedBody else b"abcd", [])
    body = make(source)
    assert run(body.readinto(memoryview(bytearray(2)))) == 2
    assert body.take() is None
    assert run(drain(body, 9)) == b"cd"
    assert body.take() is None


def test_take_of_part_of_a_chunked_body_loses_nothing() -> None:
    source = Script(b"3\r\nabc\r\n3\r\nd", [b"ef\r\n0\r\n\r\n"])
    body = ChunkedBody(source)
    assert body.take() is None
    assert run(drain(body, 2)) == b"abcdef"


@pytest.mark.parametrize("coded", [True, False])
def test_read_is_limited(coded: bool) -> None:
    def body(data: bytes) -> ReceivedBody:
        if coded:
            return ChunkedBody(Script(b"", [chunked(data, 7)]))
        return CountedBody(Script(b"", [data]), len(data))

    assert run(body(b"x" * 20).read(20)) == b"x" * 20
    with pytest.raises(BodyError) as caught:
        run(body(b"x" * 21).read(20))
    assert caught.value.kind == "EntityTooLarge"


def test_a_body_announced_too_large_is_not_read_at_all() -> None:
    source = Script(b"", [b"x" * 100])
    with pytest.raises(BodyError):
        run(CountedBody(source, 100).read(99))
    assert source.waits == 0


@pytest.mark.parametrize("coded", [True, False])
def test_a_body_that_breaks_off(coded: bool) -> None:
    source = Script(b"", [b"5\r\nab" if coded else b"ab"])
    body = ChunkedBody(source) if coded else CountedBody(source, 5)
    for _ in range(2):
        with pytest.raises(BodyError) as caught:
            run(body.read(100))
        assert caught.value.kind == "IncompleteBody"
    assert body.left != 0


def test_broken_coding() -> None:
    for received, pieces in ((b"zz\r\n", []), (b"", [b"1\r\nabc"])):
        body = ChunkedBody(Script(received, pieces))
        with pytest.raises(BodyError) as caught:
            run(body.read(9))
        assert caught.value.kind == "BadRequest"


@pytest.mark.parametrize("coded", [True, False])
def test_after_the_answer_nothing_is_read(coded: bool) -> None:
    """A handler that kept the body must not get at the bytes of the next request."""
    source = Script(b"5\r\nhello\r\n0\r\n\r\n", [])
    body = ChunkedBody(source) if coded else CountedBody(source, 5)
    body.detach()
    with pytest.raises(BodyError):
        run(body.readinto(memoryview(bytearray(5))))
    assert body.take() is None
    assert source.pending


def test_settling_finds_the_end_that_has_arrived() -> None:
    body = ChunkedBody(Script(b"3\r\nabc\r\n0\r\n\r\nGET", []))
    assert body.left is None
    body.settle()
    assert body.left == 0
    for broken in (b"3\r\nab", b"zz\r\n", b"zz\r\n0\r\n\r\n", b""):
        body = ChunkedBody(Script(broken, []))
        for _ in range(2):
            body.settle()
            assert body.left is None


def test_no_body() -> None:
    assert asyncio.run(NO_BODY.read(5)) == b"" == NO_BODY.take()
    assert run(NO_BODY.readinto(memoryview(bytearray(5)))) == 0
    assert NO_BODY.length == 0
