"""The chunked transfer coding (RFC 9112 section 7.1), one body at a time. Pure.

``decode`` takes coded bytes from the front of the caller's buffer and puts plain ones into the
caller's view; what it cannot use yet it leaves there, and what follows the body too. Extensions and
trailer fields are checked for form, bounded, and ignored. Lines end with CRLF and nothing else: a
proxy in front of us that went by another rule would see other requests than we do.
"""

from __future__ import annotations

import re
from typing import Final

from ingot.http.errors import BodyError
from ingot.limits import CHUNK_LINE_BYTES_MAX, TRAILER_BYTES_MAX

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER_LINE: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")

_SIZE, _DATA, _DATA_END, _TRAILER, _DONE, _BROKEN = range(6)


class ChunkedDecoder:
    """Decodes one body."""

    __slots__ = ("_phase", "_trailer_bytes", "remaining")

    def __init__(self) -> None:
        self._phase = _SIZE
        self._trailer_bytes = 0
        self.remaining = 0
        """Plain bytes still to come of the chunk under way."""

    @property
    def finished(self) -> bool:
        return self._phase == _DONE

    def decode(self, buffer: bytearray, out: memoryview) -> int:
        """Move plain bytes from the front of ``buffer`` to the start of ``out``: how many.

        Fewer than ``len(out)`` means that more input is needed, or that the body is finished.
        BodyError("BadRequest") when the coding is broken. That is final: what follows may look like
        chunks again, and to believe it is how requests are smuggled.
        """
        if self._phase == _BROKEN:
            raise self._broken("the chunked coding was malformed before")
        made = 0
        while self._phase != _DONE:
            if self._phase == _DATA:
                if made == len(out) or not buffer:
                    break
                count = min(self.remaining, len(out) - made, len(buffer))
                with memoryview(buffer) as source:
                    out[made : made + count] = source[:count]
                del buffer[:count]
                made += count
                self.advance(count)
            elif self._phase == _DATA_END:
                if len(buffer) < 2:
                    break
                if not buffer.startswith(b"\r\n"):
                    raise self._broken("a chunk is longer than its size says")
                del buffer[:2]
                self._phase = _SIZE
            elif not self._line(buffer):
                break
        return made

    def advance(self, count: int) -> None:
        """``count`` plain bytes of the chunk under way were taken, by ``decode`` or past it."""
        assert self._phase == _DATA and count <= self.remaining
        self.remaining -= count
        if self.remaining == 0:
            self._phase = _DATA_END

    def _line(self, buffer: bytearray) -> bool:
        """Take one size or trailer line; False when it has not arrived whole."""
        end = buffer.find(b"\r\n", 0, CHUNK_LINE_BYTES_MAX + 2)
        if end < 0:
            if len(buffer) >= CHUNK_LINE_BYTES_MAX + 2:
                raise self._broken("a line of the chunked coding is too long")
            return False
        line = bytes(buffer[:end])
        del buffer[: end + 2]
        if self._phase == _SIZE:
            self._take_size(line)
        else:
            self._take_trailer(line)
        return True

    def _take_size(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise self._broken("malformed chunk size")
        self.remaining = int(match[1], 16)
        self._phase = _DATA if self.remaining else _TRAILER

    def _take_trailer(self, line: bytes) -> None:
        if not line:
            self._phase = _DONE
            return
        self._trailer_bytes += len(line)
        if self._trailer_bytes > TRAILER_BYTES_MAX or _TRAILER_LINE.fullmatch(line) is None:
            raise self._broken("malformed or too many trailer fields")

    def _broken(self, detail: str) -> BodyError:
        self._phase = _BROKEN
        return BodyError("BadRequest", detail)
