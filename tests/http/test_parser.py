"""Request heads: what is accepted, how it is framed, and what is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.http.errors import HeadError
from ingot.http.limits import HttpLimits
from ingot.http.parser import Framing, HeadParser
from ingot.limits import TARGET_BYTES_MAX
from ingot.messages import Request


def parse(head: bytes, **bounds: int) -> tuple[Request, Framing]:
    return HeadParser(HttpLimits(**bounds)).parse(head, "192.0.2.1", False)


def get(*lines: bytes, start: bytes = b"GET /b/k HTTP/1.1") -> bytes:
    return b"\r\n".join([start, b"Host: h", *lines, b"", b""])


def test_a_request_keeps_order_and_spelling_of_what_matters() -> None:
    request, framing = parse(
        get(
            b"X-Amz-Date: 1",
            b"x-amz-meta-A:  two  \t",
            b"Empty:",
            b"L: \xe9",
            start=b"PUT /%62/a//b?x=&y HTTP/1.1",
        )
    )
    assert (request.method, request.target) == ("PUT", b"/%62/a//b?x=&y")
    assert request.headers == [
        (b"host", b"h"),
        (b"x-amz-date", b"1"),
        (b"x-amz-meta-a", b"two"),
        (b"empty", b""),
        (b"l", b"\xe9"),
    ]
    assert request.index[b"x-amz-meta-a"] == b"two"
    assert (request.peer, request.secure, request.body.take()) == ("192.0.2.1", False, b"")
    assert framing == Framing(0, True, False, False)


def test_repeated_headers_are_joined_in_the_index_only() -> None:
    request, _ = parse(get(b"X-A: 1", b"x-b: 2", b"x-a: 3"))
    assert request.index[b"x-a"] == b"1,3"
    assert [value for name, value in request.headers if name == b"x-a"] == [b"1", b"3"]


@pytest.mark.parametrize(
    ("lines", "framing"),
    [
        ([b"Content-Length: 7"], Framing(7)),
        ([b"Content-Length: 0"], Framing(0)),
        ([b"Content-Length: 7 "], Framing(7)),
        ([b"Content-Length: 999999999999999999"], Framing(999999999999999999)),
        ([b"Transfer-Encoding: chunked"], Framing(None)),
        ([b"Transfer-Encoding: Chunked"], Framing(None)),
        ([b"Content-Length: 7", b"Expect: 100-continue"], Framing(7, expects=True)),
        ([b"Content-Length: 7", b"Expect: 100-Continue"], Framing(7, expects=True)),
        ([b"Content-Length: 7", b"Expect: 200"], Framing(7)),
        ([b"Expect:"], Framing(0)),
        ([b"Connection: close"], Framing(0, persistent=False)),
        ([b"Connection: TE, Close"], Framing(0, persistent=False)),
        ([b"Connection: keep-alive"], Framing(0)),
        ([b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"], Framing(0)),
        ([b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 3"], Framing(3)),
    ],
)  # fmt: skip
def test_framing(lines: list[bytes], framing: Framing) -> None:
    assert parse(get(*lines))[1] == framing


@pytest.mark.parametrize(
    ("lines", "framing"),
    [
        ([], Framing(0, persistent=False, v10=True)),
        ([b"Connection: Keep-Alive"], Framing(0, v10=True)),
        ([b"Content-Length: 3", b"Expect: 100-continue"], Framing(3, persistent=False, v10=True)),
    ],
)
def test_http_10(lines: list[bytes], framing: Framing) -> None:
    assert parse(get(*lines, start=b"GET / HTTP/1.0"))[1] == framing
    assert parse(b"GET / HTTP/1.0\r\n\r\n")[1].v10  # Host came later


@pytest.mark.parametrize(
    ("target", "host", "origin"),
    [
        (b"http://h/a?b", b"h", b"/a?b"),
        (b"HTTPS://H:9000/a", b"h:9000", b"/a"),
        (b"http://h", b"h", b"/"),
        (b"http://h?list-type=2", b"h", b"/?list-type=2"),
        (b"http://h//a/../b", b"h", b"//a/../b"),
    ],
)
def test_absolute_targets_become_paths(target: bytes, host: bytes, origin: bytes) -> None:
    """HTTP-5."""
    request, _ = parse(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, host))
    assert request.target == origin


def test_options_of_everything() -> None:
    assert parse(get(start=b"OPTIONS * HTTP/1.1"))[0].target == b"*"


def test_methods_this_layer_does_not_know_reach_the_handler() -> None:
    assert parse(get(start=b"PROPFIND / HTTP/1.1"))[0].method == "PROPFIND"


@pytest.mark.parametrize(
    "head",
    [
        # smuggling: two ways to see where the body ends
        get(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        get(b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        get(b"Content-Length: 5", b"Content-Length: 6"),
        get(b"Content-Length: 5", b"Content-Length: 5"),
        get(b"Content-Length: 5, 5"),
        get(b"Content-Length:"),
        get(b"Content-Length: -1"),
        get(b"Content-Length: +1"),
        get(b"Content-Length: 0x1"),
        get(b"Content-Length: 1 1"),
        get(b"Content-Length: 1_0"),
        get(b"Content-Length: \xb2"),
        get(b"Content-Length: 9999999999999999999"),
        get(b"Content-Length: 99999999999999999999999"),
        get(b"Content-Length : 5"),
        get(b"Transfer-Encoding : chunked"),
        get(b"Transfer-Encoding:"),
        get(b"Transfer-Encoding: chunked, gzip"),
        get(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        get(b"Transfer-Encoding: chunked", start=b"PUT / HTTP/1.0"),
        # lines
        b"GET / HTTP/1.1\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n\n\r\n\r\n",
        b"GET / HTTP/1.1\r\r\nHost: h\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b" GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: h\r\n\r\n",
        get(b"X: a\rb"),
        get(b"X: a", b" folded"),
        get(b"X: a", b"\tfolded"),
        get(b"X: a\0b"),
        get(b"X: a\x01b"),
        get(b"X: a\x7fb"),
        get(b"X"),
        get(b": x"),
        get(b"a(b: x"),
        # start lines
        get(start=b"GET /a b HTTP/1.1"),
        get(start=b"GET /\xff HTTP/1.1"),
        get(start=b"GET /\0 HTTP/1.1"),
        get(start=b"GET  HTTP/1.1"),
        get(start=b"GET x HTTP/1.1"),
        get(start=b"GET * HTTP/1.1"),
        get(start=b"GET /"),
        get(start=b"GET / HTTP/0.9"),
        get(start=b"GET / HTTP/1.2"),
        get(start=b"GET / HTTP/2.0"),
        get(start=b"GET / RTSP/1.0"),
        get(start=b"GET / ICE/1.0"),
        get(start=b"GET / http/1.1"),
        get(start=b"GET / HTTP/1.1 "),
        # hosts
        b"GET / HTTP/1.1\r\n\r\n",
        get(b"Host: h"),
        get(b"hOST: other"),
        get(start=b"GET http://other/ HTTP/1.1"),
        get(start=b"GET http://u@h/ HTTP/1.1"),
        get(start=b"GET ftp://h/ HTTP/1.1"),
    ],
)
def test_bad_requests(head: bytes) -> None:
    """HTTP-4: what two servers could read in two ways, among others."""
    with pytest.raises(HeadError) as caught:
        parse(head)
    assert caught.value.kind == "BadRequest"


@pytest.mark.parametrize(
    "coding", [b"gzip", b"gzip, chunked", b"identity", b"xchunked", b"chunked;q=1"]
)
def test_other_codings_are_not_implemented(coding: bytes) -> None:
    with pytest.raises(HeadError) as caught:
        parse(get(b"Transfer-Encoding: " + coding))
    assert caught.value.kind == "NotImplemented"


@pytest.mark.parametrize(
    "line",
    [
        b"FOO / HTTP/1.1",
        b"get / HTTP/1.1",
        b"CONNECT h:1 HTTP/1.1",
        b"CONNECT / HTTP/1.1",
        b"TRACE / HTTP/1.1",
    ],
)
def test_methods_that_nobody_serves(line: bytes) -> None:
    """HTTP-5."""
    with pytest.raises(HeadError) as caught:
        parse(get(start=line))
    assert caught.value.kind == "MethodNotAllowed"


def test_size_and_count_are_bounded() -> None:
    head = get(*[b"x-%d: y" % number for number in range(20)])
    parse(head, header_bytes_max=len(head), header_count_max=21)
    for bounds in ({"header_bytes_max": len(head) - 1}, {"header_count_max": 20}):
        with pytest.raises(HeadError) as caught:
            parse(head, **bounds)
        assert caught.value.kind == "RequestHeaderSectionTooLarge"


def test_one_parser_serves_many_heads() -> None:
    """Nothing of a head, refused ones included, is left for the next."""
    parser = HeadParser(HttpLimits())
    for number in range(600):  # more names than are remembered
        head = get(b"X-%d: %d" % (number, number))
        assert parser.parse(head, "", True)[0].headers[1:] == [(b"x-%d" % number, b"%d" % number)]
        with pytest.raises(HeadError):
            parser.parse(get(b"X: \0"), "", True)


TOKEN = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=20).map(str.encode)
VALUE = st.binary(max_size=30).map(
    lambda raw: bytes(byte for byte in raw if byte == 9 or (byte >= 32 and byte != 127))
)


@given(st.lists(st.tuples(TOKEN.map(lambda name: b"y-" + name), VALUE), max_size=12))
def test_every_header_comes_through(pairs: list[tuple[bytes, bytes]]) -> None:
    request, _ = parse(get(*[b"%b: %b" % pair for pair in pairs]))
    expected = [(name.lower(), value.strip(b" \t")) for name, value in pairs]
    assert request.headers[1:] == expected
    for name, _ in expected:
        joined = b",".join(value for other, value in expected if other == name)
        assert request.index[name] == joined


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_head_error(junk: bytes) -> None:
    for head in (junk + b"\r\n\r\n", get(junk), b"GET /" + junk + b" HTTP/1.1\r\nHost: h\r\n\r\n"):
        if b"\r\n\r\n" not in head[:-4]:
            try:
                request, framing = parse(head)
            except HeadError:
                continue
            assert request.target.startswith(b"/") or request.target == b"*"
            assert framing.length is None or framing.length >= 0


@pytest.mark.parametrize(
    "odd",
    [
        get(b"Proxy-Connection: close"),
        get(b"Connection: close"),
        get(b"Upgrade: h2c", b"Connection: upgrade"),
        get(b"Content-Length: 5"),
        get(b"Transfer-Encoding: chunked"),
        get(b"Transfer-Encoding: gzip"),
        get(start=b"CONNECT h:1 HTTP/1.1"),
        get(start=b"GET / HTTP/1.0"),
        get(start=b"GARBAGE"),
    ],
)
def test_no_head_spoils_the_next(odd: bytes) -> None:
    """One parser serves all clients: an anonymous one must not have others refused."""
    parser = HeadParser(HttpLimits())
    for _ in range(3):
        with contextlib.suppress(HeadError):
            parser.parse(odd, "192.0.2.1", False)
        request, framing = parser.parse(get(b"X-A: 1"), "192.0.2.2", False)
        assert request.target == b"/b/k" and framing == Framing(0)


def test_the_first_line_is_bounded_and_has_three_parts() -> None:
    long = b"/b?" + b"a" * (TARGET_BYTES_MAX - 100)
    assert parse(get(start=b"GET %b HTTP/1.1" % long))[0].target == long
    for start in (b"GET %b%b HTTP/1.1" % (long, long), b"GET  /b HTTP/1.1", b"GET /b  HTTP/1.1"):
        with pytest.raises(HeadError) as caught:
            parse(get(start=start))
        assert caught.value.kind == "BadRequest"
