"""Request heads: bytes in, a ``Head`` out. Pure.

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
from typing import Final

import httptools

from ingot.http.errors import HeadError
from ingot.http.limits import HttpLimits
from ingot.messages import Header

END_OF_HEAD: Final = b"\r\n\r\n"
BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_BLANKS: Final = b" \t"
_METHODS: Final = {
    name.encode(): name for name in ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH")
}
_REFUSED: Final = frozenset({b"CONNECT", b"TRACE", b"PRI"})
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE | re.DOTALL)
_LENGTH_DIGITS_MAX: Final = 18  # below 2**63


class Head:
    """One request's head, and how its body is framed."""

    __slots__ = ("expects", "headers", "index", "length", "method", "persistent", "target", "v10")

    def __init__(
        self,
        method: str,
        target: bytes,
        headers: list[Header],
        index: dict[bytes, bytes],
        length: int | None,
        persistent: bool,
        expects: bool,
        v10: bool,
    ) -> None:
        self.method = method
        self.target = target  # origin form or "*", as received otherwise
        self.headers = headers
        self.index = index
        self.length = length  # 0 when there is no body; None when it comes chunked
        self.persistent = persistent  # the client wants to use the connection again
        self.expects = expects  # Expect: 100-continue
        self.v10 = v10


class HeadParser:
    """Parses heads one after another; one serves all connections of a server."""

    __slots__ = ("_bytes_max", "_count_max", "_headers", "_target")

    def __init__(self, limits: HttpLimits) -> None:
        self._bytes_max = limits.header_bytes_max
        self._count_max = limits.header_count_max
        self._headers: list[Header] = []
        self._target = b""

    # The two callbacks httptools looks for. Whole values arrive, since heads are fed in one piece,
    # except that a target may come in parts.
    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value.strip(_BLANKS)))

    def parse(self, head: bytes) -> Head:
        """``head`` ends with its empty line and has no empty line in front. HeadError."""
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
        v10 = _is_http_10(head)
        index = dict(headers)
        if len(index) != len(headers):
            index = _joined(headers)
        if not v10 and b"host" not in index:
            raise HeadError("BadRequest", "the Host header is missing")
        name = parser.get_method()
        method = _METHODS.get(name) or _rare_method(name)
        target = self._target
        if not target.startswith(b"/"):
            target = _other_form(target, method, index)
        expect = index.get(b"expect")
        return Head(
            method,
            target,
            headers,
            index,
            _body_length(index, v10),
            _persistent(index.get(b"connection"), v10),
            expect is not None and not v10 and expect.lower() == b"100-continue",
            v10,
        )

    def _malformed(self, error: Exception) -> HeadError:
        for name, value in self._headers:
            if name == b"transfer-encoding" and value.lower() != b"chunked":
                return HeadError("NotImplemented", "the only transfer coding served is chunked")
        return HeadError("BadRequest", f"malformed request head: {error}")


def _is_http_10(head: bytes) -> bool:
    # Read from the line itself: llhttp takes other protocols' names (RTSP, ICE) and no name at all.
    end = head.find(b"\r\n")
    if head.endswith(b" HTTP/1.1", 0, end):
        return False
    if head.endswith(b" HTTP/1.0", 0, end):
        return True
    raise HeadError("BadRequest", "the version must be HTTP/1.1 or HTTP/1.0")


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
