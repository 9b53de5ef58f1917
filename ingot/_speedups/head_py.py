"""Heads of messages: the lines of a request taken apart, those of an answer put together.

The twin of ``head_c`` and its specification. Called by ``ingot.http`` and ``ingot.s3``, once a
request each; the grammar of requests is httptools' business and was judged before. Pure.
"""

from __future__ import annotations

from typing import Final

from ingot.limits import KEY_BYTES_MAX

PLAIN: Final = 1
"""Of a head: HTTP/1.1, one of ``METHODS``, a path, a Host, no name twice, none of ``FRAMING`` and
no Content-Length."""
COUNTED: Final = 2
"""The same, but with a Content-Length."""

METHODS: Final = ("GET", "PUT", "HEAD", "POST", "DELETE", "OPTIONS", "PATCH")
FRAMING: Final = frozenset({b"connection", b"expect", b"transfer-encoding", b"upgrade"})
OWN: Final = frozenset({b"content-length", b"transfer-encoding", b"connection", b"date", b"server"})
_TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_BLANKS: Final = b" \t"


class Scanner:
    """Takes request heads apart; remembers header names, since clients send the same few."""

    def scan(
        self, head: bytes
    ) -> tuple[str, bytes, list[tuple[bytes, bytes]], dict[bytes, bytes], int]:
        """Method, target, headers, index and flags of a head that has been found grammatical.

        Names are lower-case, values trimmed. Of a name that comes twice the index holds the last
        value. ValueError where the lines are those of no head.
        """
        start, *lines = head[: head.find(b"\r\n\r\n")].split(b"\r\n")
        method, separator, rest = start.partition(b" ")
        target, another, version = rest.rpartition(b" ")
        if not separator or not another:
            raise ValueError("the first line has no three parts")
        headers = []
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon:
                raise ValueError("a line has no colon")
            headers.append((name.lower(), value.strip(_BLANKS)))
        index = dict(headers)
        verb = method.decode("latin-1")
        plain = (
            version == b"HTTP/1.1"
            and verb in METHODS
            and target.lstrip(b" ").startswith(b"/")
            and b"host" in index
            and len(index) == len(headers)
            and FRAMING.isdisjoint(index)
        )
        flags = COUNTED if b"content-length" in index else PLAIN
        return verb, target.strip(b" "), headers, index, flags if plain else 0


def split_plain(target: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Bucket, key and query of a target that is a path of ASCII without escapes; b"" for what is
    not there. None for any other, and for a NUL or a key of over ``KEY_BYTES_MAX``."""
    path, _, query = target.partition(b"?")
    if path[:1] != b"/" or b"%" in path or b"\0" in path or not path.isascii():
        return None
    bucket, _, key = path[1:].partition(b"/")
    return None if len(key) > KEY_BYTES_MAX else (bucket, key, query)


def compose(
    start: bytes,
    headers: list[tuple[bytes, bytes]],
    length: int,
    connection: bytes,
    tail: bytes,
    body: bytes,
) -> bytes:
    """An answer: its first line, headers, Content-Length (none below 0), the lines that the
    connection adds, and a body.

    ValueError for a header that may not be sent: its name is no token or one of ``OWN``, its value
    contains CR, LF or NUL.
    """
    for name, value in headers:
        if not name or name.translate(None, _TOKEN):
            raise ValueError("the name of a response header is no token")
        if name.lower() in OWN:
            raise ValueError(f"{name.decode()} is written by the connection")
        if b"\r" in value or b"\n" in value or b"\0" in value:
            raise ValueError("a response header contains CR, LF or NUL")
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    counted = b"Content-Length: %d\r\n" % length if length >= 0 else b""
    return start + lines + counted + connection + tail + body
