"""The chunked coding: any split decodes the same; anything malformed is refused; all is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.http.chunked import ChunkedDecoder
from ingot.http.errors import BodyError
from ingot.limits import CHUNK_LINE_BYTES_MAX, TRAILER_BYTES_MAX


def decode(pieces: list[bytes], room: int = 1000) -> tuple[bytes, bytes, bool]:
    """What came out, what was left over, and whether the body ended."""
    decoder, buffer, out = ChunkedDecoder(), bytearray(), bytearray()
    view = memoryview(bytearray(room))
    for piece in pieces:
        buffer += piece
        while count := decoder.decode(buffer, view):
            out += view[:count]
    return bytes(out), bytes(buffer), decoder.finished


def encode(chunks: list[bytes], extension: bytes = b"", trailer: bytes = b"") -> bytes:
    coded = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    return coded + b"0" + extension + b"\r\n" + trailer + b"\r\n"


CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


@given(
    CHUNKS,
    st.sampled_from([b"", b";a", b' ; a="\xe9 b"']),
    st.sampled_from([b"", b"x: y\r\nz:\r\n"]),
    st.integers(1, 50),
    st.data(),
)
def test_any_split_and_any_room(
    chunks: list[bytes], extension: bytes, trailer: bytes, room: int, data: st.DataObject
) -> None:
    coded = encode(chunks, extension, trailer) + b"GET / next"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(coded)), max_size=8)))
    pieces = [coded[a:b] for a, b in zip([0, *cuts], [*cuts, len(coded)], strict=True)]
    assert decode(pieces, room) == (b"".join(chunks), b"GET / next", True)


def test_byte_by_byte() -> None:
    coded = encode([b"hello", b"x" * 300], b";ext=1", b"a: b\r\n")
    pieces = [coded[at : at + 1] for at in range(len(coded))]
    assert decode(pieces) == (b"hello" + b"x" * 300, b"", True)


def test_upper_case_and_leading_zeros() -> None:
    assert decode([b"0A\r\n0123456789\r\n000\r\n\r\n"]) == (b"0123456789", b"", True)


def test_the_end_is_seen_although_there_is_no_room() -> None:
    decoder, buffer = ChunkedDecoder(), bytearray(b"3\r\nabc\r\n0\r\n\r\n")
    assert decoder.decode(buffer, memoryview(bytearray(3))) == 3
    assert decoder.finished and not buffer


@pytest.mark.parametrize(
    "coded",
    [
        b"\r\n",
        b"g\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\nx\r\n",
        b" 1\r\nx\r\n",
        b"1 \r\nx\r\n",
        b"1\nx\n0\n\n\r\n",
        b"1\r\nx\n0\r\n\r\n",
        b"1\r\nxx\r\n0\r\n\r\n",
        b"1\r\n\r\n0\r\n\r\n",
        b"1;a\0\r\nx\r\n",
        b"1;a\nb\r\nx\r\n",
        b"1;a\rb\r\nx\r\n",
        b"1 a\r\nx\r\n",
        b"ffffffffffffffff\r\n",
        b"10000000000000000\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n: x\r\n\r\n",
        b"0\r\na : x\r\n\r\n",
        b"0\r\na: x\n\r\n\r\n",
        b"0\r\na: x\0\r\n\r\n",
    ],
)
def test_malformed(coded: bytes) -> None:
    with pytest.raises(BodyError) as caught:
        decode([coded])
    assert caught.value.kind == "BadRequest"


def test_a_broken_coding_stays_broken() -> None:
    decoder, buffer, view = ChunkedDecoder(), bytearray(b"x\r\n"), memoryview(bytearray(9))
    for more in (b"", b"0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n"):
        buffer += more
        with pytest.raises(BodyError):
            decoder.decode(buffer, view)
        assert not decoder.finished


def test_lines_and_trailers_are_bounded() -> None:
    longest = b"1;" + b"x" * (CHUNK_LINE_BYTES_MAX - 2)
    assert decode([longest + b"\r\nx\r\n"])[0] == b"x"
    for endless in (longest + b"xxx", longest + b"x\r\nx", b"0" * (CHUNK_LINE_BYTES_MAX + 2)):
        with pytest.raises(BodyError):
            decode([endless])
    line = b"a: " + b"b" * 997 + b"\r\n"
    with pytest.raises(BodyError):
        decode([b"0\r\n", *[line] * (TRAILER_BYTES_MAX // 1000 + 1)])


def test_taking_past_the_decoder() -> None:
    decoder, buffer = ChunkedDecoder(), bytearray(b"5\r\n")
    assert decoder.decode(buffer, memoryview(bytearray(9))) == 0
    assert decoder.remaining == 5
    decoder.advance(5)
    buffer += b"\r\n0\r\n\r\n"
    assert decoder.decode(buffer, memoryview(bytearray(9))) == 0
    assert decoder.finished


@given(st.lists(st.binary(max_size=30), max_size=6))
def test_any_bytes(pieces: list[bytes]) -> None:
    try:
        out, left, finished = decode(pieces, 7)
    except BodyError as error:
        assert error.kind == "BadRequest"
    else:
        assert len(out) + len(left) <= sum(map(len, pieces))
        assert finished or len(left) <= CHUNK_LINE_BYTES_MAX + 2
