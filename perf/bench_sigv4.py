"""Signature verification: what one signed request costs before anything else is done with it.

``INGOT_PURE=1`` measures the twins. Beside the whole of ``authenticate`` stand its largest part,
the signature itself, and the floor of that: SHA-256 over as many bytes as a canonical request has.

    python -m pytest perf/bench_sigv4.py --benchmark-columns=min,median,ops
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest

from ingot._speedups import sigv4
from ingot.credentials import Account
from ingot.limits import MIB
from ingot.messages import Request
from ingot.s3.auth import Authenticator
from ingot.s3.aws_chunked import AwsChunkedDecoder, ChunkSigner

NOW_MS = 1369353600000
STAMP = b"20130524T000000Z"
SCOPE = b"20130524/us-east-1/s3/aws4_request"
CONTENT = hashlib.sha256(b"x" * 1024).hexdigest().encode()
ACCOUNT = Account("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/EXAMPLEKEY", "0" * 64, "bench")
PLAIN = b"/bucket-name/some/prefix/key-000001"
LISTING = b"/bucket-name?list-type=2&prefix=some%2Fprefix%2F&delimiter=%2F&encoding-type=url"


def signed(method: str, target: bytes) -> Request:
    """Nine headers, as boto3 sends them with a small PUT."""
    index = {
        b"host": b"127.0.0.1:9000",
        b"accept-encoding": b"identity",
        b"content-length": b"1024",
        b"user-agent": b"Boto3/1.44.5 md/Botocore#1.44.5 ua/2.1 os/linux#6.8 lang/python#3.11",
        b"x-amz-checksum-crc32": b"sK4Y7A==",
        b"x-amz-content-sha256": CONTENT,
        b"x-amz-date": STAMP,
        b"x-amz-sdk-checksum-algorithm": b"CRC32",
    }
    names = tuple(name for name in index if name == b"host" or name.startswith(b"x-amz-"))
    listed = b";".join(names)
    key = sigv4.SigningKey(ACCOUNT.secret_key, STAMP[:8], b"us-east-1")
    signature = sigv4.sign_request(key, STAMP, SCOPE, method, target, index, listed, names, CONTENT)
    credential = ACCOUNT.access_key.encode() + b"/" + SCOPE
    parts = (credential, listed, signature)
    index[b"authorization"] = (
        b"AWS4-HMAC-SHA256 Credential=%b, SignedHeaders=%b, Signature=%b" % parts
    )
    body: Any = None
    return Request(method, target, list(index.items()), index, body, "127.0.0.1", False)


@pytest.mark.parametrize(("method", "target"), [("PUT", PLAIN), ("GET", LISTING)])
def test_authenticate(benchmark: Any, method: str, target: bytes) -> None:
    server = Authenticator({ACCOUNT.access_key: ACCOUNT}, "us-east-1")
    request = signed(method, target)
    found = benchmark(server.authenticate, request, NOW_MS, streaming=True)
    assert found.account is ACCOUNT


def test_signature(benchmark: Any) -> None:
    request = signed("PUT", PLAIN)
    parts = sigv4.split_authorization(request.index[b"authorization"])
    assert parts is not None
    _, listed, signature = parts
    names = tuple(listed.split(b";"))
    key = sigv4.SigningKey(ACCOUNT.secret_key, STAMP[:8], b"us-east-1")
    arguments = (key, STAMP, SCOPE, "PUT", PLAIN, request.index, listed, names, CONTENT)
    assert benchmark(sigv4.sign_request, *arguments) == signature


def test_floor_of_the_signature(benchmark: Any) -> None:
    """The digest of a canonical request and one HMAC, from the standard library."""
    canonical, string = b"c" * 340, b"s" * 133

    def floor() -> bytes:
        hashlib.sha256(canonical).digest()
        return hmac.digest(b"k" * 32, string, "sha256")

    benchmark(floor)


@pytest.mark.parametrize("chunk", [64 * 1024, MIB])
def test_signed_chunks_per_mebibyte(benchmark: Any, chunk: int) -> None:
    key = sigv4.SigningKey(ACCOUNT.secret_key, STAMP[:8], b"us-east-1")
    data = b"x" * chunk
    digest = hashlib.sha256(data).hexdigest().encode()
    empty = hashlib.sha256(b"").hexdigest().encode()
    framed, previous = b"", b"0" * 64
    for piece, hashed in [(data, digest)] * (MIB // chunk) + [(b"", empty)]:
        string = (b"AWS4-HMAC-SHA256-PAYLOAD", STAMP, SCOPE, previous, empty, hashed)
        previous = key.sign(b"\n".join(string))
        framed += b"%x;chunk-signature=%b\r\n%b" % (len(piece), previous, piece)
        framed += b"\r\n" if piece else b""
    framed += b"\r\n"
    out = memoryview(bytearray(MIB))

    def decode() -> int:
        decoder = AwsChunkedDecoder(MIB, ChunkSigner(key, STAMP, SCOPE, b"0" * 64), None)
        _, filled = decoder.feed(memoryview(framed), out)
        decoder.finish()
        return filled

    assert benchmark(decode) == MIB


def test_floor_of_signed_chunks_per_mebibyte(benchmark: Any) -> None:
    """One SHA-256 and one copy of the same bytes."""
    data, out = memoryview(b"x" * MIB), memoryview(bytearray(MIB))

    def floor() -> bytes:
        out[:] = data
        return hashlib.sha256(out).digest()

    benchmark(floor)
