"""Request heads: bytes in, a ``Request`` and its ``Framing`` out. Pure.

httptools (llhttp) does the grammar, one parser for each request, and is fed exactly the bytes of
one head: it has no limits, cannot be paused and would run into the next request otherwise. The
framing of the body is decided here and carried out by ``ingot.http.body``, so pipelining is exact
and large bodies never pass through the parser.

What llhttp already refuses: bare LF and CR, folded lines, control bytes, blanks before a colon, raw
non-ASCII targets, repeated, empty or odd Content-Length, Content-Length beside Transfer-Encoding.
What is refused here: versions other than HTTP/1.1 and 1.0, a missing or repeated Host, codings
other than chunked, chunked on 1.0, foreign absolute targets, CONNECT and TRACE, and too much of
anything. ``Upgrade`` is ignored, as RFC 9110 allows: the request is answered as HTTP/1.1.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import httptools

from ingot.http.body import NO_BODY
from ingot.http.errors import HeadError
from ingot.http.limits import HttpLimits
from ingot.messages import Header, Request

END_OF_HEAD: Final = b"\r\n\r\n"
BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_NAMES_KEPT: Final = 512
_BLANKS: Final = b" \t"
_METHODS: Final = {
    name.encode(): name for name in ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH")
}
_REFUSED: Final = frozenset({b"CONNECT", b"TRACE", b"PRI"})
_FRAMING_NAMES: Final = frozenset(
    {b"connection", b"content-length", b"expect", b"transfer-encoding"}
)
_SLASH: Final = 0x2F
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE | re.DOTALL)
_LENGTH_DIGITS_MAX: Final = 18  # below 2**63


class Framing(NamedTuple):
    """How a request's body ends, and what the connection does after it."""

    length: int | None  # of the body; 0 when there is none, None when it comes chunked
    persistent: bool = True  # the client wants to use the connection again
    expects: bool = False  # Expect: 100-continue
    v10: bool = False  # HTTP/1.0


_PLAIN: Final = Framing(0)  # nearly every request without a body


class HeadParser:
    """Parses heads one after another; one serves all connections of a server."""

    __slots__ = ("_bytes_max", "_count_max", "_headers", "_lowered", "_target")

    def __init__(self, limits: HttpLimits) -> None:
        self._bytes_max = limits.header_bytes_max
        self._count_max = limits.header_count_max
        self._headers: list[Header] = []
        self._lowered: dict[bytes, bytes] = {}
        """Names seen, as received and lower-case. Clients send the same few, and bytes keep their
        hash, so this saves more than the conversion."""
        self._target = b""

    # The two callbacks httptools looks for. Whole values arrive, since heads are fed in one piece,
    # except that a target may come in parts.
    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        # llhttp removes leading blanks only, and lets no other white space through.
        self._headers.append((self._lowered.get(name) or self._lower(name), value.rstrip()))

    def _lower(self, name: bytes) -> bytes:
        lowered = name.lower()
        if len(self._lowered) < _NAMES_KEPT:
            self._lowered[name] = lowered
        return lowered

    def parse(self, head: bytes, peer: str, secure: bool) -> tuple[Request, Framing]:
        """``head`` ends with its empty line; nothing stands in front of it or follows. HeadError.

        The request has no body yet, whatever the framing says.
        """
        if len(head) > self._bytes_max:
            raise HeadError(
                "RequestHeaderSectionTooLarge", f"the head exceeds {self._bytes_max} bytes"
            )
        if head[0] <= 32:  # llhttp would skip it
            raise HeadError("BadRequest", "the request does not begin with a method")
        headers: list[Header] = []
        self._headers = headers
        self._target = b""
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # Upgrade or CONNECT; the head is complete
        except httptools.HttpParserInvalidMethodError as error:
            raise HeadError("MethodNotAllowed", "the method is not known") from error
        except httptools.HttpParserError as error:
            raise self._malformed(error) from error
        if len(headers) > self._count_max:
            raise HeadError(
                "RequestHeaderSectionTooLarge", f"more than {self._count_max} header lines"
            )
        index = dict(headers)
        if len(index) != len(headers):
            index = _joined(headers)
        name = parser.get_method()
        method = _METHODS.get(name) or _rare_method(name)
        target = self._target
        if target[0] != _SLASH:
            target = _other_form(target, method, index)
        return Request(method, target, headers, index, NO_BODY, peer, secure), _framing(head, index)

    def _malformed(self, error: Exception) -> HeadError:
        for name, value in self._headers:
            if name == b"transfer-encoding" and value.lower() != b"chunked":
                return HeadError("NotImplemented", "the only transfer coding served is chunked")
        return HeadError("BadRequest", f"malformed request head: {error}")


def _framing(head: bytes, index: dict[bytes, bytes]) -> Framing:
    # Read from the line itself: llhttp takes other protocols' names (RTSP, ICE) and no name at all.
    end = head.find(b"\r\n")
    v10 = False
    if not head.endswith(b" HTTP/1.1", 0, end):
        v10 = True
        if not head.endswith(b" HTTP/1.0", 0, end):
            raise HeadError("BadRequest", "the version must be HTTP/1.1 or HTTP/1.0")
    elif b"host" not in index:
        raise HeadError("BadRequest", "the Host header is missing")
    if not v10 and _FRAMING_NAMES.isdisjoint(index):
        return _PLAIN
    expects = not v10 and index.get(b"expect", b"").lower() == b"100-continue"
    return Framing(
        _body_length(index, v10), _persistent(index.get(b"connection"), v10), expects, v10
    )


def _rare_method(name: bytes) -> str:
    if name in _REFUSED:
        raise HeadError("MethodNotAllowed", f"{name.decode()} is not served")
    return name.decode()


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
        if not length.isdigit() or len(length) > _LENGTH_DIGITS_MAX:
            raise HeadError("BadRequest", "Content-Length is not a number of bytes")
        return int(length)
    if coding.lower() != b"chunked":
        raise HeadError("NotImplemented", "the only transfer coding served is chunked")
    if v10 or length is not None:
        raise HeadError("BadRequest", "two ways to find the end of the body, or one too new")
    return None


def _persistent(connection: bytes | None, v10: bool) -> bool:
    if connection is None:
        return not v10
    options = [option.strip(_BLANKS) for option in connection.lower().split(b",")]
    return b"close" not in options and (not v10 or b"keep-alive" in options)
