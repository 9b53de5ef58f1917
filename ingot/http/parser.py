"""Request heads: bytes in, a ``Request`` and its ``Framing`` out. Pure.

httptools (llhttp) judges the grammar and is fed exactly the bytes of one head: it has no limits,
cannot be paused and would run into the next request otherwise. It is given no callbacks: what they
would report stands in the head, and ``_speedups.head`` takes it from there for a third of the cost.
The framing of the body is decided here and carried out by ``ingot.http.body``, so pipelining is
exact and large bodies never pass through the parser, which after such a head waits for a body and
is given up.

What llhttp already refuses: bare LF and CR, folded lines, control bytes, blanks before a colon, raw
non-ASCII targets, repeated, empty or odd Content-Length, Content-Length beside Transfer-Encoding.
What is refused here: versions other than HTTP/1.1 and 1.0, a missing or repeated Host, codings
other than chunked, chunked on 1.0, foreign absolute targets, CONNECT and TRACE, and too much of
anything. ``Upgrade`` is ignored, as RFC 9110 allows: the request is answered as HTTP/1.1.
"""

from __future__ import annotations

import contextlib
import re
from typing import Final, NamedTuple

import httptools

from ingot._speedups import head
from ingot.http.body import NO_BODY
from ingot.http.errors import HeadError
from ingot.http.limits import HttpLimits
from ingot.limits import TARGET_BYTES_MAX
from ingot.messages import Header, Request

END_OF_HEAD: Final = b"\r\n\r\n"
BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_BLANKS: Final = b" \t"
_REFUSED: Final = frozenset({"CONNECT", "TRACE", "PRI"})
_FRAMING_NAMES: Final = frozenset(
    {b"connection", b"content-length", b"expect", b"transfer-encoding"}
)
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE | re.DOTALL)
_LENGTH_DIGITS_MAX: Final = 18  # below 2**63


class Framing(NamedTuple):
    """How a request's body ends, and what the connection does after it."""

    length: int | None  # of the body; 0 when there is none, None when it comes chunked
    persistent: bool = True  # the client wants to use the connection again
    expects: bool = False  # Expect: 100-continue
    v10: bool = False  # HTTP/1.0


_PLAIN_HEAD: Final = head.PLAIN
_COUNTED_HEAD: Final = head.COUNTED
_PLAIN: Final = Framing(0)  # nearly every request without a body


class HeadParser:
    """Parses heads one after another; one serves all connections of a server."""

    __slots__ = ("_bytes_max", "_count_max", "_grammar", "_scan")

    def __init__(self, limits: HttpLimits) -> None:
        self._bytes_max = limits.header_bytes_max
        self._count_max = limits.header_count_max
        self._scan = head.Scanner().scan

    def parse(self, data: bytes, peer: str, secure: bool) -> tuple[Request, Framing]:
        """``data`` ends with its empty line; nothing stands in front of it or follows. HeadError.

        The request has no body yet, whatever the framing says.
        """
        if len(data) > self._bytes_max:
            raise HeadError(
                "RequestHeaderSectionTooLarge", f"the head exceeds {self._bytes_max} bytes"
            )
        if data[0] <= 32:  # llhttp would skip it
            raise HeadError("BadRequest", "the request does not begin with a method")
        line = data.find(b"\r\n")
        if line > TARGET_BYTES_MAX:
            raise HeadError("BadRequest", f"the request target exceeds {TARGET_BYTES_MAX} bytes")
        if data.count(b" ", 0, line) != 2:  # llhttp takes more of them
            raise HeadError("BadRequest", "the first line has no three parts")
        try:
            # A new one for each: what it remembers of one head is none of the next one's business.
            httptools.HttpRequestParser(None).feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # Upgrade or CONNECT; the head is complete
        except httptools.HttpParserInvalidMethodError as error:
            raise HeadError("MethodNotAllowed", "the method is not known") from error
        except httptools.HttpParserError as error:
            raise _malformed(data, error) from error
        try:
            method, target, headers, index, flags = self._scan(data)
        except ValueError as error:  # llhttp knows HTTP/0.9, which has no version and no headers
            raise HeadError("BadRequest", f"malformed request head: {error}") from error
        if len(headers) > self._count_max:
            raise HeadError(
                "RequestHeaderSectionTooLarge", f"more than {self._count_max} header lines"
            )
        framing = _PLAIN
        if flags == _COUNTED_HEAD:
            framing = Framing(_counted(index[b"content-length"]))
        elif flags != _PLAIN_HEAD:
            if len(index) != len(headers):
                index = _joined(headers)
            if method in _REFUSED:
                raise HeadError("MethodNotAllowed", f"{method} is not served")
            if not target.startswith(b"/"):
                target = _other_form(target, method, index)
            framing = _framing(data, index)
        return Request(method, target, headers, index, NO_BODY, peer, secure), framing


class _Collector:
    """The headers that llhttp has seen the end of, in a head that it refuses."""

    def __init__(self, data: bytes) -> None:
        self.headers: list[Header] = []
        with contextlib.suppress(httptools.HttpParserError):
            httptools.HttpRequestParser(self).feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip()))


def _malformed(data: bytes, error: Exception) -> HeadError:
    for name, value in _Collector(data).headers:
        if name == b"transfer-encoding" and value.lower() != b"chunked":
            return HeadError("NotImplemented", "the only transfer coding served is chunked")
    return HeadError("BadRequest", f"malformed request head: {error}")


def _framing(data: bytes, index: dict[bytes, bytes]) -> Framing:
    # Read from the line itself: llhttp takes other protocols' names (RTSP, ICE) and no name at all.
    end = data.find(b"\r\n")
    v10 = False
    if not data.endswith(b" HTTP/1.1", 0, end):
        v10 = True
        if not data.endswith(b" HTTP/1.0", 0, end):
            raise HeadError("BadRequest", "the version must be HTTP/1.1 or HTTP/1.0")
    elif b"host" not in index:
        raise HeadError("BadRequest", "the Host header is missing")
    if not v10 and _FRAMING_NAMES.isdisjoint(index):
        return _PLAIN
    expects = not v10 and index.get(b"expect", b"").lower() == b"100-continue"
    return Framing(
        _body_length(index, v10), _persistent(index.get(b"connection"), v10), expects, v10
    )


def _joined(headers: list[Header]) -> dict[bytes, bytes]:
    index: dict[bytes, bytes] = {}
    for name, value in headers:
        if name not in index:
            index[name] = value
        elif name == b"host":  # which one would a proxy before us have gone by?
            raise HeadError("BadRequest", "more than one Host header")
        else:
            index[name] += b"," + value
    return index


def _other_form(target: bytes, method: str, index: dict[bytes, bytes]) -> bytes:
    """The origin form of an absolute target, or ``*`` where it means something."""
    if target == b"*" and method == "OPTIONS":
        return target
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise HeadError("BadRequest", "the request target must be a path")
    authority, rest = match.groups()
    if authority.lower() != index.get(b"host", authority).lower():
        raise HeadError("BadRequest", "the target names another host than the Host header")
    return rest if rest.startswith(b"/") else b"/" + rest


def _body_length(index: dict[bytes, bytes], v10: bool) -> int | None:
    coding = index.get(b"transfer-encoding")
    length = index.get(b"content-length")
    if coding is None:
        if length is None:
            return 0
        return _counted(length)
    if coding.lower() != b"chunked":
        raise HeadError("NotImplemented", "the only transfer coding served is chunked")
    if v10 or length is not None:
        raise HeadError("BadRequest", "two ways to find the end of the body, or one too new")
    return None


def _counted(length: bytes) -> int:
    if not length.isdigit() or len(length) > _LENGTH_DIGITS_MAX:
        raise HeadError("BadRequest", "Content-Length is not a number of bytes")
    return int(length)


def _persistent(connection: bytes | None, v10: bool) -> bool:
    if connection is None:
        return not v10
    options = [option.strip(_BLANKS) for option in connection.lower().split(b",")]
    return b"close" not in options and (not v10 or b"keep-alive" in options)
