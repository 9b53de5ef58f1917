"""Signed request heads for the express lane's tests: everyday ones, and ones a little off."""

from __future__ import annotations

import hashlib

from hypothesis import strategies as st

from ingot._speedups import sigv4_py

ACCESS_KEY, SECRET_KEY, REGION = "AKIAEXAMPLE00000001", "a secret of some length", "us-east-1"
STAMP, NOW_MS = b"20260102T030405Z", 1_767_323_045_000
SCOPE = b"20260102/us-east-1/s3/aws4_request"
KEY = sigv4_py.SigningKey(SECRET_KEY, b"20260102", b"us-east-1")
UNSIGNED = b"UNSIGNED-PAYLOAD"
EMPTY = hashlib.sha256().hexdigest().encode()


def start_of(listed: bytes) -> bytes:
    """An Authorization up to its signature."""
    return b"AWS4-HMAC-SHA256 Credential=%b/%b, SignedHeaders=%b, Signature=" % (
        ACCESS_KEY.encode(),
        SCOPE,
        listed,
    )


def signed(
    method: bytes,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    names: tuple[bytes, ...] | None = None,
) -> bytes:
    """A whole head whose signature is right, over ``names`` (all of ``headers`` but those that
    proxies change)."""
    index = {name.lower(): value.strip() for name, value in headers}
    if names is None:
        names = tuple(sorted(set(index) - {b"user-agent", b"connection", b"accept"}))
    content = index.get(b"x-amz-content-sha256", b"")
    listed = b";".join(names)
    signature = sigv4_py.sign_request(
        KEY, STAMP, SCOPE, method.decode(), target, index, listed, names, content
    )
    lines = [b"%b %b HTTP/1.1" % (method, target)]
    lines += [b"%b: %b" % header for header in headers]
    lines += [b"Authorization: " + start_of(listed) + signature]
    return b"\r\n".join([*lines, b"", b""])


def base(content: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b"Host", b"localhost:9000"),
        (b"User-Agent", b"aws sdk/1 (x; y)"),
        (b"X-Amz-Date", STAMP),
        (b"x-amz-content-sha256", content),
    ]


def get_head(*more: tuple[bytes, bytes], target: bytes = b"/photos/a/b.jpg") -> bytes:
    return signed(b"GET", target, [*base(EMPTY), *more])


def put_head(body: bytes, *more: tuple[bytes, bytes], target: bytes = b"/photos/a/b.jpg") -> bytes:
    content = hashlib.sha256(body).hexdigest().encode()
    length = (b"Content-Length", b"%d" % len(body))
    return signed(b"PUT", target, [*base(content), length, *more])


_EXTRA = st.sampled_from(
    [
        (b"Content-Type", b"image/jpeg"),
        (b"content-type", b""),
        (b"Content-Length", b"5"),
        (b"Content-Length", b"4096"),
        (b"Content-Length", b"4097"),
        (b"Content-Length", b"0005"),
        (b"Content-Length", b"+5"),
        (b"Content-MD5", b"XUFAKrxLKna5cZ2REBfFkg=="),
        (b"x-amz-checksum-crc32", b"AAAAAA=="),
        (b"x-amz-checksum-crc32c", b"AAAAAA=="),
        (b"x-amz-checksum-crc64nvme", b"AAAAAAAAAAA="),
        (b"x-amz-checksum-sha256", b"AAAA"),
        (b"x-amz-sdk-checksum-algorithm", b"CRC32"),
        (b"x-amz-sdk-checksum-algorithm", b"crc64nvme"),
        (b"x-amz-sdk-checksum-algorithm", b""),
        (b"x-amz-checksum-mode", b"enabled"),
        (b"x-amz-checksum-mode", b"maybe"),
        (b"x-amz-meta-a", b"1"),
        (b"x-amz-acl", b"private"),
        (b"Range", b"bytes=0-1"),
        (b"If-None-Match", b"*"),
        (b"Expect", b"100-continue"),
        (b"Connection", b"Keep-Alive"),
        (b"Connection", b"close"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Accept", b"a  b"),
        (b"Accept", b"*/*"),
        (b"Accept-Encoding", b"identity"),
        (b"amz-sdk-request", b"attempt=1; max=3"),
        (b"x-amz-user-agent", b"\xc3\xa9"),
        (b"Host", b"other"),
        (b"x-amz-security-token", b"t"),
    ]
)
_TARGET = st.sampled_from(
    [
        *(b"/photos/a/b.jpg", b"/photos/a//b/../c", b"/photos/", b"/photos", b"/", b"//a"),
        *(b"/photos/a%20b", b"/photos/a?versionId=1", b"/photos/a+b", b"/ph~otos/_.-~/"),
        *(b"/photos/" + b"k" * 1024, b"/photos/" + b"k" * 1025, b"/photos/\xc3\xa9"),
    ]
)
_CONTENT = st.sampled_from([EMPTY, UNSIGNED, b"0" * 64, b"0" * 63, b"A" * 64, b"", b"STREAMING"])


@st.composite
def heads(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A head and what its Authorization begins with: mostly everyday, or nearly so."""
    method = draw(st.sampled_from([b"GET", b"PUT", b"PUT", b"HEAD", b"POST"]))
    headers = base(draw(_CONTENT)) + draw(st.lists(_EXTRA, max_size=4))
    if method == b"PUT" and draw(st.integers(0, 3)):
        headers.append((b"Content-Length", b"5"))
    names = None
    if draw(st.integers(0, 5)) == 0:
        some = st.sampled_from([b"host", b"x-amz-date", b"x-amz-content-sha256", b"range", b"x"])
        names = tuple(draw(st.lists(some, max_size=5)))
    head = signed(method, draw(_TARGET), headers, names)
    start = head[head.index(b"AWS4-HMAC-SHA256") : head.index(b"Signature=") + 10]
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(head) - 1))
        piece = draw(st.sampled_from([b"", b" ", b"\t", b"\r", b"\n", b"\0", b":", b"z", b"\xff"]))
        head = head[:at] + piece + head[at + draw(st.integers(0, 1)) :]
    return head, start
