"""Response heads: a ``Response`` in, bytes out. Pure.

Nothing that a header value or name carries can end its line: CR, LF and NUL are refused (a NUL
makes some clients drop the connection), and so are the headers that this layer writes itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from ingot._speedups import head
from ingot.limits import SEND_JOIN_BYTES
from ingot.messages import Response

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE: Final = b"Connection: close\r\n"
KEEP_ALIVE: Final = b"Connection: keep-alive\r\n"  # HTTP/1.0 has to be told

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    for status in HTTPStatus
    if status >= 200
}
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()

BODILESS: Final = frozenset({204, 304})


def http_date(seconds: int) -> str:
    """IMF-fixdate (RFC 9110 section 5.6.7) of a unix time; English whatever the locale."""
    at = datetime.fromtimestamp(seconds, UTC)
    return (
        f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at.year:04} "
        f"{at.hour:02}:{at.minute:02}:{at.second:02} GMT"
    )


class HeadWriter:
    """Encodes heads; remembers the lines of the second."""

    __slots__ = ("_second", "_tail")

    def __init__(self) -> None:
        self._second = -1
        self._tail = b""

    def encode(
        self, response: Response, head_only: bool, connection: bytes, now_ms: int
    ) -> tuple[bytes, bytes | AsyncIterator[memoryview | bytes] | None]:
        """What to send first, and what is to follow it if anything.

        First comes the head, with Content-Length, Date and Server, and a small body behind it.
        ``connection`` is one of the lines above or empty. ValueError for what may not be sent.
        """
        status, body, length = response.status, response.body, response.length
        start = _STATUS_LINES.get(status) or _unusual_status(status)
        if isinstance(body, bytes):
            if length is None:
                length = len(body)
            elif length != len(body) and not head_only and status not in BODILESS:
                raise ValueError(f"a body of {len(body)} bytes was announced as {length}")
        elif length is None:
            raise ValueError("a streamed body needs a length")
        tail = self._tail if now_ms // 1000 == self._second else self._new_tail(now_ms)
        joined = b""
        rest: bytes | AsyncIterator[memoryview | bytes] | None = None
        if status in BODILESS:
            length = -1
        elif not head_only:
            if isinstance(body, bytes) and len(body) <= SEND_JOIN_BYTES:
                joined = body
            else:
                rest = body
        return head.compose(start, response.headers, length, connection, tail, joined), rest

    def _new_tail(self, now_ms: int) -> bytes:
        self._second = now_ms // 1000
        self._tail = f"Date: {http_date(self._second)}\r\nServer: ingot\r\n\r\n".encode()
        return self._tail


def _unusual_status(status: int) -> bytes:
    if not 200 <= status <= 599:
        raise ValueError(f"{status} is not the status of a final response")
    return b"HTTP/1.1 %d \r\n" % status
