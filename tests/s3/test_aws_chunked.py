"""aws-chunked (CHK-1 to CHK-5, CHK-10): published vectors, every split, every kind of damage."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
from typing import Any

import pytest
from botocore.httpchecksum import AwsChunkedWrapper, Crc32Checksum
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot._speedups import sigv4
from ingot.s3.aws_chunked import AwsChunkedDecoder, ChunkSigner
from ingot.s3.errors import S3Error
from tests.s3.auth_signing import SECRET, STAMP, checksum, frame

SCOPE = b"20130524/us-east-1/s3/aws4_request"
SEED = b"4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
TRAILER_SEED = b"106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
CRC32 = b"x-amz-checksum-crc32"
CRC32C = b"x-amz-checksum-crc32c"


def signer(seed: bytes = SEED) -> ChunkSigner:
    return ChunkSigner(sigv4.SigningKey(SECRET, STAMP[:8], b"us-east-1"), STAMP, SCOPE, seed)


def decode(
    framed: bytes,
    length: int,
    *,
    seed: bytes | None = None,
    announced: tuple[bytes, ...] | None = None,
    piece: int = 1 << 20,
    room: int = 1 << 20,
) -> tuple[bytes, dict[bytes, bytes]]:
    """Feed ``framed`` in pieces, with room for so many bytes at a time."""
    decoder = AwsChunkedDecoder(length, None if seed is None else signer(seed), announced)
    decoded = b""
    for start in range(0, len(framed), piece):
        data = memoryview(framed)[start : start + piece]
        while data:
            out = bytearray(room)
            used, filled = decoder.feed(data, memoryview(out))
            assert used or filled
            decoded += out[:filled]
            data = data[used:]
    decoder.finish()
    assert decoder.left == 0
    return decoded, decoder.trailers


def refused(framed: bytes, length: int, **options: Any) -> S3Error:
    with pytest.raises(S3Error) as error:
        decode(framed, length, **options)
    return error.value


# -- published vectors ----------------------------------------------------------------------------
def published(*signatures: bytes) -> bytes:
    framed = b""
    for data, signature in zip((b"a" * 65536, b"a" * 1024, b""), signatures, strict=True):
        framed += b"%x;chunk-signature=%b\r\n" % (len(data), signature) + data
        framed += b"\r\n" if data else b""
    return framed


def test_the_published_signed_stream() -> None:
    framed = published(
        b"ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        b"0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        b"b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    )
    framed += b"\r\n"
    assert len(framed) == 66824
    assert framed == frame([b"a" * 65536, b"a" * 1024], seed=SEED)
    assert decode(framed, 66560, seed=SEED) == (b"a" * 66560, {})
    assert refused(framed, 66560, seed=TRAILER_SEED).code == "SignatureDoesNotMatch"


def test_the_published_signed_stream_with_a_trailer() -> None:
    framed = published(
        b"b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
        b"1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
        b"2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
    )
    signature = b"d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435"
    for end in (b"\r\n", b"\n", b"\n\r\n"):
        whole = framed + CRC32C + b":sOO8/Q==" + end
        whole += b"x-amz-trailer-signature:" + signature + b"\r\n\r\n"
        found = decode(whole, 66560, seed=TRAILER_SEED, announced=(CRC32C,))
        assert found == (b"a" * 66560, {CRC32C: b"sOO8/Q=="})
    forged = whole.replace(b"sOO8/Q==", b"sOO8/A==")
    error = refused(forged, 66560, seed=TRAILER_SEED, announced=(CRC32C,))
    assert (error.code, error.status) == ("SignatureDoesNotMatch", 403)


def test_botocore_frames_the_unsigned_form() -> None:
    data = bytes(range(256)) * 100
    wrapper = AwsChunkedWrapper(io.BytesIO(data), Crc32Checksum, "x-amz-checksum-crc32", 9000)
    framed = wrapper.read()
    value = checksum("crc32", data).encode()
    assert decode(framed, len(data), announced=(CRC32,)) == (data, {CRC32: value})


# -- any splitting --------------------------------------------------------------------------------
@pytest.mark.parametrize("announced", [None, (CRC32,)])
@pytest.mark.parametrize("seed", [None, SEED])
def test_split_at_every_byte(seed: bytes | None, announced: tuple[bytes, ...] | None) -> None:
    data = bytes(range(250)) * 33
    chunks = [data[:8200], data[8200:]]
    trailers = None if announced is None else [(CRC32, b"AAAAAA==")]
    framed = frame(chunks, seed=seed, trailers=trailers)
    expected = (data, {} if announced is None else {CRC32: b"AAAAAA=="})
    assert decode(framed, len(data), seed=seed, announced=announced, piece=1) == expected
    assert decode(framed, len(data), seed=seed, announced=announced, room=1) == expected
    # Within the first data nothing changes from byte to byte; everywhere else every split is tried.
    first_data = range(100, 8200)
    for at in set(range(len(framed) + 1)) - set(first_data):
        decoder = AwsChunkedDecoder(len(data), signer() if seed else None, announced)
        out = bytearray(len(data))
        first, filled = decoder.feed(memoryview(framed)[:at], memoryview(out))
        assert first == at
        used, more = decoder.feed(memoryview(framed)[at:], memoryview(out)[filled:])
        decoder.finish()
        assert (used, filled + more, bytes(out)) == (len(framed) - at, len(data), data)


@given(
    sizes=st.lists(st.integers(8192, 9000), max_size=3),
    last=st.integers(0, 9000),
    piece=st.integers(1, 20000),
    room=st.integers(1, 20000),
    signed=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_chunks_in_any_pieces(
    sizes: list[int], last: int, piece: int, room: int, signed: bool
) -> None:
    chunks = [bytes([at + 1]) * size for at, size in enumerate([*sizes, last]) if size]
    data = b"".join(chunks)
    seed = SEED if signed else None
    framed = frame(chunks, seed=seed, trailers=[])
    found = decode(framed, len(data), seed=seed, announced=(), piece=piece, room=room)
    assert found == (data, {})


def test_data_received_by_the_caller_itself() -> None:
    data = b"x" * 10000
    framed = frame([data], seed=SEED)
    line = framed.index(b"\r\n") + 2
    decoder = AwsChunkedDecoder(len(data), signer(), None)
    decoder.feed(memoryview(framed)[:line], memoryview(b""))
    assert decoder.pending == 10000
    for start in (0, 4000):
        decoder.accept(memoryview(data)[start : start + (4000 if start == 0 else 6000)])
    decoder.feed(memoryview(framed)[line + 10000 :], memoryview(b""))
    decoder.finish()


# -- grammar (CHK-1) ------------------------------------------------------------------------------
def test_chk_1_hex_in_either_case_and_leading_zeros() -> None:
    data = b"x" * 0xABC
    for size in (b"abc", b"ABC", b"00000ABC", b"0" * 900 + b"abc"):
        framed = size + b"\r\n" + data + b"\r\n" + b"0\r\n\r\n"
        assert decode(framed, len(data), announced=()) == (data, {})
    assert decode(b"0000\r\n\r\n", 0, announced=()) == (b"", {})


@pytest.mark.parametrize(
    "framed",
    [
        b"",
        b"0",
        b"0\r",
        b"0\r\n",
        b"0\n\r\n",
        b"\r\n",
        b"x\r\n",
        b"-1\r\n\r\n",
        b"0x0\r\n\r\n",
        b" 0\r\n\r\n",
        b"0 \r\n\r\n",
        b"+0\r\n\r\n",
        b"0;a=b\r\n\r\n",
        b"0;chunk-signature=" + b"0" * 64 + b"\r\n\r\n",
        b"1" * 17 + b"\r\n",
        b"f" * 5000,
        b"0" * 1025 + b"\r\n",
        b"5\r\nhello",
        b"5\r\nhello\r\n",
        b"5\r\nhello\r\n0\r\n",
        b"5\r\nhello\r\n0\r\n\r",
        b"5\r\nhelloo\r\n0\r\n\r\n",
        b"5\r\nhell\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"6\r\nhello!\r\n0\r\n\r\n",
        b"4\r\nhell\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\nhello",
        b"0\r\n\r\nmore",
    ],
)
def test_chk_4_bad_framing_and_early_ends(framed: bytes) -> None:
    for announced in (None, ()):
        error = refused(framed, 5, announced=announced)
        assert (error.code, error.status) == ("IncompleteBody", 400)


def test_more_after_the_last_chunk_of_a_framing_without_trailers() -> None:
    assert refused(b"0\r\n\r\n\r\n", 0).code == "IncompleteBody"
    assert refused(b"0\r\n" + b"a" * 10000, 0).code == "IncompleteBody"


def test_chk_4_signed_chunks_need_signatures() -> None:
    framed = frame([b"x" * 9000], seed=SEED)
    for old, new in (
        (b";chunk-signature=", b";signature="),
        (b";chunk-signature=", b"; chunk-signature="),
        (b"\r\n0;", b"\r\n0\r\n\r\n;"),
    ):
        assert refused(framed.replace(old, new), 9000, seed=SEED).code == "IncompleteBody"


@pytest.mark.parametrize("at", [25, 100, 5000, -30])
def test_chk_4_wrong_chunk_signatures_and_changed_data(at: int) -> None:
    framed = bytearray(frame([b"x" * 9000], seed=SEED))
    framed[at] ^= 1
    error = refused(bytes(framed), 9000, seed=SEED)
    assert error.code in ("SignatureDoesNotMatch", "IncompleteBody")
    if at in (100, 5000):
        assert (error.code, error.status) == ("SignatureDoesNotMatch", 403)


def test_chk_2_chunks_cannot_change_places() -> None:
    one, two = b"1" * 8192, b"2" * 8192
    framed = frame([one, two], seed=SEED)
    size = (len(framed) - len(b"0;chunk-signature=") - 68) // 2
    first, second, rest = framed[:size], framed[size : 2 * size], framed[2 * size :]
    assert decode(first + second + rest, 16384, seed=SEED)[0] == one + two
    assert refused(second + first + rest, 16384, seed=SEED).code == "SignatureDoesNotMatch"


def test_chk_4_only_the_last_chunk_may_be_small() -> None:
    framed = frame([b"x" * 9000, b"x" * 8191, b"x" * 10])
    error = refused(framed, 17201)
    assert (error.code, error.status) == ("InvalidChunkSizeError", 400)
    assert error.elements == {"Chunk": "2", "BadChunkSize": "8191"}
    assert decode(frame([b"x" * 8192, b"x"]), 8193)[0] == b"x" * 8193


def test_chk_3_a_total_that_differs() -> None:
    for length in (0, 99, 101):
        error = refused(frame([b"x" * 100], trailers=[]), length, announced=())
        assert (error.code, error.status) == ("IncompleteBody", 400)


# -- trailers (CHK-5) -----------------------------------------------------------------------------
@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\n\r\n"])
@pytest.mark.parametrize("seed", [None, SEED])
def test_chk_1_trailer_line_ends(seed: bytes | None, end: bytes) -> None:
    framed = frame([], seed=seed, trailers=[(CRC32, b"AAAAAA==")], line_end=end)
    found = decode(framed, 0, seed=seed, announced=(CRC32,))
    assert found == (b"", {CRC32: b"AAAAAA=="})


def test_chk_1_trailer_names_and_values_are_trimmed() -> None:
    framed = b"0\r\nX-Amz-Checksum-CRC32 : AAAAAA== \r\n\r\n"
    assert decode(framed, 0, announced=(CRC32,)) == (b"", {CRC32: b"AAAAAA=="})


@pytest.mark.parametrize(
    ("trailers", "announced"),
    [
        ([], (CRC32,)),
        ([(CRC32C, b"AAAAAA==")], (CRC32,)),
        ([(CRC32, b"AAAAAA=="), (CRC32C, b"AAAAAA==")], (CRC32,)),
        ([(CRC32, b"AAAAAA=="), (CRC32, b"AAAAAA==")], (CRC32,)),
        ([(CRC32, b"AAAAAA==")], ()),
        ([(b"x-amz-meta-a", b"1")], ()),
        ([(b"x-amz-trailer-signature", b"0" * 64)], ()),
    ],
)
def test_chk_5_missing_misnamed_or_extra(
    trailers: list[tuple[bytes, bytes]], announced: tuple[bytes, ...]
) -> None:
    error = refused(frame([], trailers=trailers), 0, announced=announced)
    assert (error.code, error.status) == ("MalformedTrailerError", 400)


def test_chk_5_lines_that_are_none_and_blocks_without_end() -> None:
    for block in (b"crc\r\n\r\n", CRC32 + b"\r\n\r\n", b"a:" + b"b" * 10000):
        error = refused(b"0\r\n" + block, 0, announced=(CRC32,))
        assert error.code == "MalformedTrailerError"
    error = refused(b"0\r\n" + CRC32 + b":AAAAAA==", 0, announced=(CRC32,))
    assert error.code == "IncompleteBody"


def test_chk_2_signed_trailers() -> None:
    trailers = [(CRC32, b"AAAAAA==")]
    framed = frame([], seed=SEED, trailers=trailers)
    without = framed[: framed.index(b"x-amz-trailer-signature")] + b"\r\n"
    error = refused(without, 0, seed=SEED, announced=(CRC32,))
    assert error.code == "MalformedTrailerError"
    forged = framed.replace(b"AAAAAA==", b"AAAAAQ==")
    error = refused(forged, 0, seed=SEED, announced=(CRC32,))
    assert error.code == "SignatureDoesNotMatch"
    late = framed[:-2] + b"x-amz-meta-a:1\r\n\r\n"
    error = refused(late, 0, seed=SEED, announced=(CRC32,))
    assert error.code == "MalformedTrailerError"


def test_a_signed_trailer_framing_without_trailers() -> None:
    assert decode(frame([], seed=SEED, trailers=[]), 0, seed=SEED, announced=()) == (b"", {})
    plain = frame([], seed=SEED)
    assert decode(plain, 0, seed=SEED, announced=()) == (b"", {})


# -- bounds (CHK-10) ------------------------------------------------------------------------------
def test_chk_10_claimed_lengths_reserve_nothing() -> None:
    tracemalloc.start()
    try:
        decoder = AwsChunkedDecoder(5 << 30, signer(), None)
        line = b"140000000;chunk-signature=" + b"0" * 64 + b"\r\n"
        out = memoryview(bytearray(4096))
        assert decoder.feed(memoryview(line), out) == (len(line), 0)
        piece = memoryview(bytes(4096))
        for _ in range(1000):
            assert decoder.feed(piece, out) == (4096, 4096)
        assert decoder.pending == (5 << 30) - 4096_000
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_chk_10_more_than_was_declared_is_refused_before_it_comes() -> None:
    for line in (b"6\r\n", b"ffffffffffffffff\r\n"):
        decoder = AwsChunkedDecoder(5, None, None)
        with pytest.raises(S3Error) as error:
            decoder.feed(memoryview(line), memoryview(bytearray(10)))
        assert error.value.code == "IncompleteBody"


PIECES = st.sampled_from(
    [b"0", b"5", b"2000", b"\r\n", b"\n", b";chunk-signature=", b"0" * 64, b"hello", b":", b"\0"]
    + [b"x-amz-checksum-crc32", b"x-amz-trailer-signature", b"AAAAAA==", b"h" * 8192, b"ffffffff"]
)


@given(
    framed=st.lists(PIECES | st.binary(max_size=4), max_size=20).map(b"".join),
    length=st.sampled_from([0, 5, 8192, 8197]),
    signed=st.booleans(),
    announced=st.sampled_from([None, (), (CRC32,)]),
    piece=st.integers(1, 9000),
)
@settings(max_examples=500, deadline=None)
def test_any_bytes_decode_or_are_refused_with_an_s3_error(
    framed: bytes,
    length: int,
    signed: bool,
    announced: tuple[bytes, ...] | None,
    piece: int,
) -> None:
    try:
        data, _ = decode(
            framed, length, seed=SEED if signed else None, announced=announced, piece=piece
        )
    except S3Error as error:
        assert error.status in (400, 403)
    else:
        assert len(data) == length


@given(at=st.integers(0, 10**6), value=st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_no_changed_byte_of_a_signed_body_goes_unseen(at: int, value: int) -> None:
    data = hashlib.sha512(b"seed").digest() * 150
    framed = bytearray(frame([data], seed=SEED, trailers=[(CRC32, b"AAAAAA==")]))
    at %= len(framed)
    framed[at] = value
    try:
        found = decode(bytes(framed), len(data), seed=SEED, announced=(CRC32,))
    except S3Error as error:
        assert error.status in (400, 403)
    else:
        assert found == (data, {CRC32: b"AAAAAA=="})
