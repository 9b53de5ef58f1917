"""What a request promises of its body and whether it is kept: lengths, digests, checksums, framing
(section 2.2's last rows, CHK-3, CHK-5, SUM-1 to SUM-4)."""

from __future__ import annotations

import base64
import hashlib
import io
import tracemalloc
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import boto3
import pytest
from botocore.config import Config
from botocore.response import StreamingBody

from ingot._speedups import sigv4
from ingot.messages import BodyStream, Request
from ingot.s3.auth import Authenticated
from ingot.s3.errors import S3Error
from ingot.s3.payload import VerifiedBody
from tests.s3.auth_signing import (
    ACCOUNT,
    CHECKSUMS,
    NOW_MS,
    STAMP,
    MemoryBody,
    as_request,
    authenticator,
    checksum,
    frame,
    presign,
    request,
    run,
    sign_by_hand,
    stored,
)

DATA = b"Welcome to Amazon S3." * 500
Headers = dict[bytes, bytes]


def verified(
    data: bytes,
    headers: Headers | None = None,
    *,
    streaming: bool = True,
    length: bool = True,
    pieces: list[bytes] | None = None,
    arrived: bool = False,
) -> VerifiedBody:
    """An anonymous upload of ``data``."""
    lines = {b"host": b"h"} | (headers or {})
    if length:
        lines[b"content-length"] = b"%d" % len(data)
    known = b"transfer-encoding" not in lines
    body = MemoryBody([data] if pieces is None else pieces, len(data) if known else None, arrived)
    given = request("PUT", b"/b/k", lines.items(), body)
    found = authenticator().authenticate(given, NOW_MS, streaming=streaming)
    return VerifiedBody(given, found)


def refused(data: bytes, headers: Headers | None = None, **options: Any) -> S3Error:
    with pytest.raises(S3Error) as error:
        upload(verified(data, headers, **options))
    return error.value


def received(body: BodyStream, room: int = 1 << 20) -> bytes:
    """Read to the end the way the ingest does."""
    taken = body.take()
    if taken is not None:
        return taken
    data = b""
    view = memoryview(bytearray(room))
    while count := run(body.readinto(view)):
        data += view[:count]
    return data


def upload(body: VerifiedBody, room: int = 1 << 20) -> bytes:
    data = received(body, room)
    body.check(stored(data, body.algorithms))
    return data


# -- plain bodies ---------------------------------------------------------------------------------
def test_a_plain_body_passes_through() -> None:
    for arrived in (False, True):
        body = verified(DATA, arrived=arrived)
        assert body.length == len(DATA)
        assert body.algorithms == ("crc64nvme",)  # SUM-4
        assert upload(body, 100) == DATA


def test_the_content_sha256() -> None:
    name = b"x-amz-content-sha256"
    assert upload(verified(DATA, {name: hashlib.sha256(DATA).hexdigest().encode()})) == DATA
    error = refused(DATA, {name: b"0" * 64})
    assert (error.code, error.status) == ("XAmzContentSHA256Mismatch", 400)
    assert error.elements == {
        "ClientComputedContentSHA256": "0" * 64,
        "S3ComputedContentSHA256": hashlib.sha256(DATA).hexdigest(),
    }


def test_auth_5_content_md5() -> None:
    right = base64.b64encode(hashlib.md5(DATA).digest())
    body = verified(DATA, {b"content-md5": right})
    assert body.md5 == hashlib.md5(DATA).digest()
    assert upload(body) == DATA
    other = base64.b64encode(hashlib.md5(b"other").digest())
    error = refused(DATA, {b"content-md5": other})
    assert (error.code, error.status) == ("BadDigest", 400)
    assert error.elements == {"ExpectedDigest": other.decode(), "CalculatedDigest": right.decode()}
    for bad in (b"", b"YWJyYWNhZGFicmE=", right[:-1], b"-" + right[1:], b"A" * 32, right + right):
        error = refused(DATA, {b"content-md5": bad})
        assert (error.code, error.status) == ("InvalidDigest", 400)
        assert "Content-MD5" in error.elements


# -- lengths --------------------------------------------------------------------------------------
def test_a_length_is_required() -> None:
    for headers in ({}, {b"transfer-encoding": b"chunked"}):
        error = refused(DATA, headers, length=False)
        assert (error.code, error.status) == ("MissingContentLength", 411)
    body = verified(b"<xml/>", {b"transfer-encoding": b"chunked"}, length=False, streaming=False)
    assert body.length is None
    assert run(body.read(100)) == b"<xml/>"


def test_five_gibibytes_at_most() -> None:
    limit = 5 * 1024**3
    for name in (b"content-length", b"x-amz-decoded-content-length"):
        for size in (limit, limit + 1, 10**17):
            headers = {b"host": b"h", b"content-length": b"10", name: b"%d" % size}
            if name != b"content-length":
                headers[b"x-amz-content-sha256"] = b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"
            stream = MemoryBody([], int(headers[b"content-length"]))
            given = request("PUT", b"/b/k", headers.items(), stream)
            found = authenticator().authenticate(given, NOW_MS, streaming=True)
            if size == limit:
                assert VerifiedBody(given, found).length == limit
                continue
            with pytest.raises(S3Error) as error:
                VerifiedBody(given, found)
            assert (error.value.code, error.value.status) == ("EntityTooLarge", 400)
            assert error.value.elements == {
                "ProposedSize": str(size),
                "MaxSizeAllowed": str(limit),
            }


def test_fewer_bytes_than_declared() -> None:
    for headers in ({}, {b"x-amz-content-sha256": b"UNSIGNED-PAYLOAD"}):
        body = verified(DATA, headers, pieces=[DATA[:-1]])
        data = received(body)
        with pytest.raises(S3Error) as error:
            body.check(stored(data, body.algorithms))
        assert (error.value.code, error.value.status) == ("IncompleteBody", 400)


def test_documents_are_bounded() -> None:
    body = verified(DATA, streaming=False)
    with pytest.raises(S3Error) as error:
        run(body.read(100))
    assert error.value.code == "MaxMessageLengthExceeded"
    assert error.value.elements == {"MaxMessageLengthBytes": "100"}
    assert run(body.read(len(DATA))) == DATA


# -- checksums in headers (SUM) -------------------------------------------------------------------
@pytest.mark.parametrize("algorithm", sorted(CHECKSUMS))
def test_sum_1_each_algorithm(algorithm: str) -> None:
    name = f"x-amz-checksum-{algorithm}".encode()
    value = checksum(algorithm, DATA)
    body = verified(DATA, {name: value.encode()})
    assert body.algorithms == (algorithm,)
    assert body.expectations == {algorithm: CHECKSUMS[algorithm](DATA)}
    assert upload(body) == DATA
    error = refused(DATA, {name: checksum(algorithm, b"other").encode()})
    assert (error.code, error.status) == ("BadDigest", 400)
    text = f"The {algorithm.upper()} you specified did not match the calculated checksum."
    assert error.message == text
    for bad in (b"", b"A", b"????", value[:-1].encode(), value.encode() + b"AAAA", b"AA=="):
        error = refused(DATA, {name: bad})
        assert (error.code, error.status) == ("InvalidRequest", 400)
        assert error.message == f"Value for {name.decode()} header is invalid."


def test_sum_2_check_values() -> None:
    values = {
        "crc32": "y/Q5Jg==",
        "crc32c": "4waSgw==",
        "crc64nvme": "rosUhgp5mIg=",
        "sha1": "98O8HYCOBHMq32eZZczDTKeuNEE=",
        "sha256": "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=",
    }
    for algorithm, value in values.items():
        name = f"x-amz-checksum-{algorithm}".encode()
        assert upload(verified(b"123456789", {name: value.encode()})) == b"123456789"


@pytest.mark.parametrize("name", ["sha512", "md5", "xxhash64", "xxhash3", "xxhash128", "crc31", ""])
def test_sum_1_other_algorithms(name: str) -> None:
    error = refused(DATA, {f"x-amz-checksum-{name}".encode(): b"AAAA"})
    assert (error.code, error.status) == ("InvalidRequest", 400)


def test_sum_3_one_checksum_at_most() -> None:
    values = {f"x-amz-checksum-{a}".encode(): checksum(a, DATA).encode() for a in CHECKSUMS}
    two = {name: values[name] for name in (b"x-amz-checksum-crc32", b"x-amz-checksum-sha1")}
    for headers in (two, values):
        error = refused(DATA, headers)
        assert (error.code, error.status) == ("InvalidRequest", 400)
        assert error.message.startswith("Expecting a single x-amz-checksum- header.")


def test_headers_that_are_no_checksums() -> None:
    headers = {b"x-amz-checksum-algorithm": b"CRC32", b"x-amz-checksum-type": b"FULL_OBJECT"}
    assert verified(DATA, headers | {b"x-amz-checksum-mode": b"ENABLED"}).algorithms == (
        "crc64nvme",
    )


SDK = b"x-amz-sdk-checksum-algorithm"


def test_sum_3_the_sdk_algorithm() -> None:
    right = {b"x-amz-checksum-crc32": checksum("crc32", DATA).encode()}
    for value in (b"CRC32", b"crc32"):
        assert upload(verified(DATA, right | {SDK: value})) == DATA
    for headers in (right | {SDK: b"SHA1"}, right | {SDK: b"CRC31"}, {SDK: b"x"}):
        error = refused(DATA, headers)
        assert (error.code, error.status) == ("InvalidRequest", 400)
        assert error.message == "Value for x-amz-sdk-checksum-algorithm header is invalid."
    md5 = {b"content-md5": base64.b64encode(hashlib.md5(DATA).digest())}
    for headers in ({SDK: b"CRC32"}, md5 | {SDK: b"CRC32"}):
        error = refused(DATA, headers)
        assert error.code == "InvalidRequest"
        assert "no corresponding x-amz-checksum-* or x-amz-trailer" in error.message
    assert upload(verified(DATA, md5 | {SDK: b"CRC32"}, streaming=False)) == DATA
    assert refused(DATA, {SDK: b"CRC32"}, streaming=False).code == "InvalidRequest"


# -- framed bodies --------------------------------------------------------------------------------
UNSIGNED = b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"
SIGNED = b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
CRC32 = b"x-amz-checksum-crc32"


def framed_headers(data: bytes, framed: bytes, keyword: bytes = UNSIGNED, **more: bytes) -> Headers:
    headers = {
        b"host": b"h",
        b"content-encoding": b"aws-chunked",
        b"content-length": b"%d" % len(framed),
        b"x-amz-content-sha256": keyword,
        b"x-amz-date": STAMP,
        b"x-amz-decoded-content-length": b"%d" % len(data),
    }
    return headers | {name.replace("_", "-").encode(): value for name, value in more.items()}


def chunks_of(data: bytes, size: int = 8192) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def signed_head(headers: Headers, body: BodyStream) -> tuple[Request, Authenticated]:
    names = b";".join(sorted(headers))
    given = sign_by_hand(
        "PUT",
        b"/b/k",
        list(headers.items()),
        names,
        content=headers[b"x-amz-content-sha256"],
        body=body,
    )
    return given, authenticator().authenticate(given, NOW_MS, streaming=True)


def signed_upload(
    data: bytes, trailers: list[tuple[bytes, bytes]] | None, damage: bytes = b"", piece: int = 5000
) -> bytes:
    keyword = SIGNED if trailers is None else SIGNED + b"-TRAILER"
    headers = framed_headers(data, b"", keyword)
    if trailers is not None:
        headers[b"x-amz-trailer"] = b",".join(name for name, _ in trailers)
    # The framing signs on from the head, and the head signs its length: find that first.
    headers[b"content-length"] = b"%d" % len(
        frame(chunks_of(data), seed=b"0" * 64, trailers=trailers)
    )
    _, probe = signed_head(headers, MemoryBody([], 0))
    framed = frame(chunks_of(data), seed=probe.signature, trailers=trailers)
    if damage:
        framed = framed.replace(damage, damage.swapcase(), 1)
    given, found = signed_head(headers, MemoryBody(chunks_of(framed, piece), len(framed)))
    body = VerifiedBody(given, found)
    assert body.length == len(data)
    return upload(body, 7000)


@pytest.mark.parametrize("piece", [1, 1000, 16384, 1 << 20])
@pytest.mark.parametrize("size", [0, 1, 8192, 20000])
def test_signed_chunks(size: int, piece: int) -> None:
    data = (DATA * 2)[:size]
    if piece == 1 and size > 1:
        size = 300
        data = data[:300]
    assert signed_upload(data, None, piece=piece) == data
    value = checksum("crc32", data).encode()
    assert signed_upload(data, [(CRC32, value)], piece=piece) == data


def test_signed_chunks_that_are_not_what_was_signed() -> None:
    for trailers in (None, [(CRC32, checksum("crc32", DATA).encode())]):
        with pytest.raises(S3Error) as error:
            signed_upload(DATA, trailers, b"Welcome")
        assert (error.value.code, error.value.status) == ("SignatureDoesNotMatch", 403)


@pytest.mark.parametrize("encoding", ["length", "chunked"])
@pytest.mark.parametrize("piece", [1000, 1 << 20])
@pytest.mark.parametrize("algorithm", sorted(CHECKSUMS))
def test_chk_7_unsigned_trailers_with_and_without_transfer_encoding(
    algorithm: str, piece: int, encoding: str
) -> None:
    name = f"x-amz-checksum-{algorithm}".encode()
    framed = frame(chunks_of(DATA), trailers=[(name, checksum(algorithm, DATA).encode())])
    headers = framed_headers(DATA, framed, x_amz_trailer=name)
    headers[SDK] = algorithm.upper().encode()
    if encoding == "chunked":
        del headers[b"content-length"]
        headers[b"transfer-encoding"] = b"chunked"
    body = verified(framed, headers, length=False, pieces=chunks_of(framed, piece))
    assert body.algorithms == (algorithm,) and not body.expectations
    assert upload(body, 3000) == DATA
    assert body.expectations == {algorithm: CHECKSUMS[algorithm](DATA)}


def test_a_framed_body_that_has_arrived_is_taken_at_once() -> None:
    framed = frame([DATA], trailers=[(CRC32, checksum("crc32", DATA).encode())])
    headers = framed_headers(DATA, framed, x_amz_trailer=CRC32)
    body = verified(framed, headers, arrived=True)
    assert body.take() == DATA
    body.check(stored(DATA, body.algorithms))
    huge = verified(
        framed, headers | {b"x-amz-decoded-content-length": b"5000000000"}, arrived=True
    )
    tracemalloc.start()
    try:
        with pytest.raises(S3Error) as error:
            huge.take()
        assert error.value.code == "IncompleteBody"
        assert tracemalloc.get_traced_memory()[1] < 1_000_000  # nothing was reserved for a claim
    finally:
        tracemalloc.stop()


def test_nothing_is_lost_when_the_body_has_not_arrived() -> None:
    framed = frame([DATA], trailers=[])
    body = verified(framed, framed_headers(DATA, framed), pieces=chunks_of(framed, 100))
    assert body.take() is None
    assert run(body.read(100_000)) == DATA
    body.check(stored(DATA, body.algorithms))


def test_the_framing_is_verified_with_the_last_byte() -> None:
    framed = frame([DATA], trailers=[(CRC32, checksum("crc32", DATA).encode())])
    headers = framed_headers(DATA, framed, x_amz_trailer=CRC32)
    body = verified(framed, headers, pieces=chunks_of(framed, 10))
    view = memoryview(bytearray(len(DATA)))
    filled = 0
    while filled < len(DATA):
        filled += run(body.readinto(view[filled:]))
    body.check(stored(DATA, body.algorithms))


def test_nothing_passes_before_the_end_was_read() -> None:
    framed = frame(chunks_of(DATA), trailers=[])
    body = verified(framed, framed_headers(DATA, framed), pieces=chunks_of(framed, 5000))
    run(body.readinto(memoryview(bytearray(100))))
    with pytest.raises(S3Error) as error:
        body.check(stored(DATA, body.algorithms))
    assert error.value.code == "IncompleteBody"


def test_chk_3_the_decoded_length() -> None:
    framed = frame([DATA], trailers=[])
    headers = framed_headers(DATA, framed)
    for value in (b"", b"x", b"-1", b"1.0", b"9" * 19, b"+1"):
        error = refused(framed, headers | {b"x-amz-decoded-content-length": value})
        assert (error.code, error.status) == ("InvalidArgument", 400)
    for value in (b"0", b"%d" % (len(DATA) - 1), b"%d" % (len(DATA) + 1)):
        error = refused(framed, headers | {b"x-amz-decoded-content-length": value})
        assert (error.code, error.status) == ("IncompleteBody", 400)
    del headers[b"x-amz-decoded-content-length"]
    error = refused(framed, headers)
    assert (error.code, error.status) == ("MissingContentLength", 411)
    headers = framed_headers(DATA, framed)
    del headers[b"content-length"]
    assert refused(framed, headers, length=False).code == "MissingContentLength"


@pytest.mark.parametrize("cut", [1, 2, 3, 20, 60, 5000, 10_490])
def test_chk_4_a_framed_body_cut_short(cut: int) -> None:
    framed = frame([DATA], trailers=[(CRC32, checksum("crc32", DATA).encode())])
    headers = framed_headers(DATA, framed, x_amz_trailer=CRC32)
    for arrived in (False, True):
        error = refused(framed, headers, pieces=[framed[:-cut]], arrived=arrived)
        assert error.code in ("IncompleteBody", "MalformedTrailerError")
        assert error.status == 400


def test_chk_5_what_may_be_announced() -> None:
    framed = frame([DATA], trailers=[])
    for value in (
        b"x-amz-meta-a",
        b"x-amz-checksum-mode",
        b"content-md5",
        b"x-amz-checksum-crc32,",
    ):
        error = refused(framed, framed_headers(DATA, framed, x_amz_trailer=value))
        assert (error.code, error.status) == ("InvalidRequest", 400)
        assert error.message == ("The value specified in the x-amz-trailer header is not supported")
    value = b"x-amz-checksum-md5"
    assert refused(framed, framed_headers(DATA, framed, x_amz_trailer=value)).code == (
        "InvalidRequest"
    )
    assert refused(DATA, {b"x-amz-trailer": CRC32}).code == "InvalidRequest"
    two = CRC32 + b", x-amz-checksum-sha1"
    error = refused(framed, framed_headers(DATA, framed, x_amz_trailer=two))
    assert error.message.startswith("Expecting a single")
    both = framed_headers(DATA, framed, x_amz_trailer=CRC32) | {CRC32: b"AAAAAA=="}
    assert refused(framed, both).message.startswith("Expecting a single")


def test_chk_5_trailers_that_do_not_hold() -> None:
    def ask(value: bytes, sdk: bytes | None = None) -> S3Error:
        framed = frame([DATA], trailers=[(CRC32, value)])
        headers = framed_headers(DATA, framed, x_amz_trailer=CRC32)
        return refused(framed, headers if sdk is None else headers | {SDK: sdk})

    for value in (b"", b"x", b"AAAA", b"AAAAAAAAAAA="):
        error = ask(value)
        assert (error.code, error.status) == ("InvalidRequest", 400)
        assert error.message == "Value for x-amz-checksum-crc32 trailing header is invalid."
    error = ask(b"AAAAAA==")
    assert (error.code, error.status) == ("BadDigest", 400)
    assert error.message == "The CRC32 you specified did not match the calculated checksum."
    right = checksum("crc32", DATA).encode()
    assert ask(right, b"SHA256").code == "InvalidRequest"
    framed = frame([DATA], trailers=[])
    error = refused(framed, framed_headers(DATA, framed, x_amz_trailer=CRC32))
    assert (error.code, error.status) == ("MalformedTrailerError", 400)


def test_chk_5_no_trailer_announced_is_legal() -> None:
    framed = frame([DATA], trailers=[])
    body = verified(framed, framed_headers(DATA, framed))
    assert body.algorithms == ("crc64nvme",)
    assert upload(body) == DATA


@pytest.mark.parametrize("keyword", [UNSIGNED, SIGNED + b"-TRAILER"])
@pytest.mark.parametrize("algorithm", sorted(CHECKSUMS))
def test_chk_8_every_algorithm_comes_in_trailers(algorithm: str, keyword: bytes) -> None:
    """SDKs differ in which one they take, and whether they sign it."""
    name = f"x-amz-checksum-{algorithm}".encode()
    for data, code in ((DATA, ""), (b"other", "BadDigest")):
        trailers = [(name, checksum(algorithm, data).encode())]
        try:
            if keyword == UNSIGNED:
                framed = frame(chunks_of(DATA), trailers=trailers)
                headers = framed_headers(DATA, framed, x_amz_trailer=name)
                headers[SDK] = algorithm.upper().encode()
                assert upload(verified(framed, headers)) == DATA
            else:
                assert signed_upload(DATA, trailers) == DATA
        except S3Error as error:
            assert error.code == code
        else:
            assert not code


# -- presigned URLs -------------------------------------------------------------------------------
def presigned_upload(query: str, headers: Headers, data: bytes = DATA) -> VerifiedBody:
    given = presign("PUT", f"http://h.test/b/k{query}")
    body = MemoryBody([data], len(data) if b"content-length" in headers else None)
    given = request("PUT", given.target, [*given.headers, *headers.items()], body)
    return VerifiedBody(given, authenticator().authenticate(given, NOW_MS, streaming=True))


LENGTH = {b"content-length": b"%d" % len(DATA)}


def test_pre_7_a_presigned_put_has_a_length() -> None:
    assert upload(presigned_upload("", LENGTH)) == DATA
    with pytest.raises(S3Error) as error:
        presigned_upload("", {})
    assert (error.value.code, error.value.status) == ("MissingContentLength", 411)


def test_pre_10_a_checksum_in_the_url_is_one_of_the_body() -> None:
    """aws-sdk-js signs that of an empty body into the URLs that it makes; S3 refuses it too."""
    query = "?x-amz-sdk-checksum-algorithm=CRC32&x-amz-checksum-crc32="
    right = quote(checksum("crc32", DATA), safe="")
    assert upload(presigned_upload(query + right, LENGTH)) == DATA
    with pytest.raises(S3Error) as error:
        upload(presigned_upload(query + "AAAAAA%3D%3D", LENGTH))
    assert error.value.code == "BadDigest"


# -- boto3 as the client --------------------------------------------------------------------------
@pytest.fixture(scope="module")
def clients() -> Iterator[dict[str, Any]]:
    made = {}
    for scheme in ("http", "https"):
        made[scheme] = boto3.client(
            "s3",
            endpoint_url=f"{scheme}://h.test:9000",
            region_name="us-east-1",
            aws_access_key_id=ACCOUNT.access_key,
            aws_secret_access_key=ACCOUNT.secret_key,
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}),
        )
    yield made
    for client in made.values():
        client.close()


def captured(client: Any, **parameters: Any) -> Request:
    """The PutObject that ``client`` would send."""
    caught: list[Request] = []

    def catch(request: Any, **_: Any) -> Any:
        body = request.body
        data = body if isinstance(body, bytes) else b"" if body is None else body.read()
        length = request.headers.get("Content-Length")
        stream = MemoryBody(chunks_of(data, 4000), None if length is None else int(length))
        caught.append(as_request(request, stream))
        return AnswerOk()

    client.meta.events.register_first("before-send.s3.PutObject", catch)
    try:
        client.put_object(Bucket="bucket", Key="a b/ü", **parameters)
    finally:
        client.meta.events.unregister("before-send.s3.PutObject", catch)
    return caught[0]


class AnswerOk:
    """As much of an HTTP response as botocore reads."""

    status_code = 200
    headers: dict[str, str] = {}
    content = b""
    text = ""
    raw = StreamingBody(io.BytesIO(), 0)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("algorithm", [None, "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_boto3_uploads(
    clients: dict[str, Any], scheme: str, algorithm: str | None, kind: str
) -> None:
    more = {} if algorithm is None else {"ChecksumAlgorithm": algorithm}
    data = DATA if kind == "bytes" else io.BytesIO(DATA)
    given = captured(clients[scheme], Body=data, Metadata={"a": "b"}, **more)
    now_ms = sigv4.parse_stamp(given.index[b"x-amz-date"])
    found = authenticator().authenticate(given, now_ms, streaming=True)
    assert found.account is ACCOUNT
    if scheme == "https":
        assert found.payload.mode == "unsigned-chunks-trailer"
        assert given.body.length is None
    body = VerifiedBody(given, found)
    assert body.algorithms == ((algorithm or "CRC32").lower(),)
    assert upload(body, 5000) == DATA
    assert body.expectations
