"""Compiled heads against their twin, and both against what llhttp itself reports."""

from __future__ import annotations

import inspect
from typing import Any

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot._speedups import head_c, head_py
from ingot.limits import KEY_BYTES_MAX

MODULES = (head_c, head_py)
NAMES = [
    *(b"Host", b"host", b"Content-Length", b"CONNECTION", b"Expect", b"Transfer-Encoding"),
    *(b"Upgrade", b"X-Amz-Date", b"x-amz-meta-a", b"Authorization", b"X", b"n" * 65),
]
names = st.sampled_from(NAMES) | st.text("aZ0-_!", min_size=1, max_size=70).map(str.encode)
values = st.sampled_from([b"h", b"5", b"close", b"", b"a\tb  c", b"\xe9"]) | st.binary(max_size=20)
blanks = st.sampled_from([b"", b" ", b"\t", b" \t "])
starts = st.sampled_from(
    [
        *(b"GET / HTTP/1.1", b"PUT /b/k?q=1 HTTP/1.1", b"GET  /two  HTTP/1.1", b"GET / HTTP/1.0"),
        *(b"PROPFIND /a HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET http://h/a HTTP/1.1", b"GET /"),
        *(b"GET HTTP/1.1", b"GET", b"", b"POST / HTTP/1.1 ", b"CONNECT h:1 HTTP/1.1"),
    ]
)
lines = st.lists(
    st.builds(lambda n, a, v, b: n + b":" + a + v + b, names, blanks, values, blanks), max_size=10
)
heads = st.builds(
    lambda start, given: b"\r\n".join([start, *given, b"", b""]), starts, lines
) | st.binary(max_size=80).map(lambda junk: junk + b"\r\n\r\n")


def outcome(call: Any, *args: Any) -> Any:
    try:
        return call(*args)
    except ValueError:
        return ValueError


class Reported:
    """What llhttp calls back with, for a head that it accepts."""

    def __init__(self, head: bytes) -> None:
        self.target, self.headers = b"", []
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass
        self.method = parser.get_method().decode()

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip()))


def test_the_twins_have_the_same_names_signatures_and_docstrings() -> None:
    for name in ("Scanner", "compose", "split_plain"):
        compiled, twin = getattr(head_c, name), getattr(head_py, name)
        assert inspect.getdoc(compiled) == inspect.getdoc(twin)
        if inspect.isclass(twin):
            assert inspect.getdoc(compiled.scan) == inspect.getdoc(twin.scan)
        else:
            assert inspect.signature(compiled, eval_str=True) == inspect.signature(
                twin, eval_str=True
            )
    for name in ("PLAIN", "COUNTED", "METHODS", "FRAMING", "OWN"):
        assert getattr(head_c, name) == getattr(head_py, name)


@pytest.mark.slow
@settings(max_examples=400)
@given(st.lists(heads, min_size=1, max_size=4))
def test_scans_agree_whatever_came_before(given: list[bytes]) -> None:
    scanners = [module.Scanner() for module in MODULES]
    for head in given:
        one, two = (outcome(scanner.scan, head) for scanner in scanners)
        assert one == two


@pytest.mark.slow
@settings(max_examples=400)
@given(heads)
def test_a_scan_finds_what_llhttp_reports(head: bytes) -> None:
    if head[0] <= 32 or b"\r\n\r\n" in head[:-4]:
        return
    try:
        reported = Reported(head)
    except httptools.HttpParserError:
        return
    for module in MODULES:
        found = outcome(module.Scanner().scan, head)
        if found is ValueError:
            assert not head.split(b"\r\n", 1)[0].endswith((b"HTTP/1.1", b"HTTP/1.0"))
            continue
        method, target, headers, index, flags = found
        assert (method, headers) == (reported.method, reported.headers)
        assert index == dict(headers)
        if flags:
            assert target == reported.target
            assert flags == (module.COUNTED if b"content-length" in index else module.PLAIN)
            assert b"host" in index and len(index) == len(headers)


def test_names_that_collide_and_names_without_end() -> None:
    scanner, twin = head_c.Scanner(), head_py.Scanner()
    for number in range(3000):
        head = b"GET / HTTP/1.1\r\nHost: h\r\nX-%d: %d\r\n\r\n" % (number, number)
        assert scanner.scan(head) == twin.scan(head)
        framed = b"GET / HTTP/1.1\r\nHost: h\r\nExpect: %d\r\n\r\n" % number
        assert scanner.scan(framed)[4] == 0 == twin.scan(framed)[4]


header_lists = st.lists(
    st.tuples(names | st.binary(max_size=6), values) | st.tuples(st.just(b"Date"), values),
    max_size=6,
)


@pytest.mark.slow
@settings(max_examples=300)
@given(header_lists, st.integers(-1, 1 << 62), st.binary(max_size=40))
def test_compositions_agree(headers: list[tuple[bytes, bytes]], length: int, body: bytes) -> None:
    parts = (b"HTTP/1.1 200 OK\r\n", headers, length, b"Connection: close\r\n", b"\r\n", body)
    one, two = (outcome(module.compose, *parts) for module in MODULES)
    assert one == two


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("name", [*sorted(head_py.OWN), b"DATE", b"", b"a b", b"a:", b"a\r\nb"])
def test_names_that_are_not_composed(module: Any, name: bytes) -> None:
    with pytest.raises(ValueError, match="header|connection"):
        module.compose(b"", [(name, b"v")], 0, b"", b"", b"")


def test_only_bytes_are_composed() -> None:
    for header in ((b"a", None), (None, b"b"), (b"a", "b"), (bytearray(b"a"), b"b")):
        with pytest.raises(TypeError):
            head_c.compose(b"", [header], 0, b"", b"", b"")  # type: ignore[list-item]


targets = st.binary(max_size=40) | st.text("/ab?%.\0\xe9", max_size=12).map(
    lambda text: b"/" + text.encode("latin-1")
)


@settings(max_examples=400)
@given(targets)
def test_targets_split_alike(target: bytes) -> None:
    assert head_c.split_plain(target) == head_py.split_plain(target)


def test_the_longest_key_of_a_plain_target() -> None:
    for module in MODULES:
        longest = b"/b/" + b"k" * KEY_BYTES_MAX
        assert module.split_plain(longest + b"?q") == (b"b", b"k" * KEY_BYTES_MAX, b"q")
        assert module.split_plain(longest + b"k") is None
