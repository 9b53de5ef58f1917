"""Response heads: a ``Response`` in, bytes out. Pure.

Nothing that a header value or name carries can end its line: CR, LF and NUL are refused (a NUL
makes some clients drop the connection), and so are the headers that this layer writes itself.
"""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from ingot.messages import Header

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE: Final = b"Connection: close\r\n"
KEEP_ALIVE: Final = b"Connection: keep-alive\r\n"  # HTTP/1.0 has to be told

_TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_OWN: Final = frozenset(
    {b"content-length", b"transfer-encoding", b"connection", b"date", b"server"}
)
_NAMES_KEPT: Final = 256  # metadata of objects makes names without end
_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
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
    """Encodes heads; remembers the Date line of the second and names that have been checked."""

    __slots__ = ("_names", "_second", "_tail")

    def __init__(self) -> None:
        self._names: set[bytes] = set()
        self._second = -1
        self._tail = b""

    def encode(
        self,
        status: int,
        headers: list[Header],
        length: int | None,
        connection: bytes,
        now_ms: int,
    ) -> bytes:
        """One head, with Content-Length unless ``length`` is None, and with Date and Server.

        ``connection`` is one of the lines above or empty. ValueError for what may not be sent.
        """
        second = now_ms // 1000
        if second != self._second:
            self._second = second
            self._tail = f"Date: {http_date(second)}\r\nServer: ingot\r\n\r\n".encode()
        if status < 200 or status > 599:
            raise ValueError(f"{status} is not the status of a final response")
        if not self._names.issuperset([name for name, _ in headers]):
            self._check_names(headers)
        line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        fields = b"".join([b"%b: %b\r\n" % header for header in headers])
        # Every line brings one CR and one LF of ours: one more came from a value.
        count = len(headers)
        if fields.count(b"\n") != count or fields.count(b"\r") != count or b"\0" in fields:
            raise ValueError("a response header contains CR, LF or NUL")
        if length is not None:
            return b"%b%bContent-Length: %d\r\n%b%b" % (
                line,
                fields,
                length,
                connection,
                self._tail,
            )
        return b"%b%b%b%b" % (line, fields, connection, self._tail)

    def _check_names(self, headers: list[Header]) -> None:
        for name, _ in headers:
            if not name or name.translate(None, _TOKEN):
                raise ValueError("the name of a response header is no token")
            if name.lower() in _OWN:
                raise ValueError(f"{name.decode()} is written by the connection")
            if len(self._names) < _NAMES_KEPT:
                self._names.add(name)
