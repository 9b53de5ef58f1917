"""References to control characters in a request document: ``<Key>&#x1;</Key>``.

XML 1.0 has no such characters, so its parsers refuse them in any form; but keys may hold them, and
clients can name them in no other way. Before a document is parsed each of these references is
replaced by a character that stands for it: one of a row of private-use characters of which the
document has none. ``Standing.text`` puts the right one back into a text. A document without such
references is left as it is; so is one with CDATA or comments, where they would mean something
else, or with more references than are looked at. A reference to NUL stays one, and is refused.
Pure; called by DeleteObjects.
"""

from __future__ import annotations

import re
from typing import Final

from ingot.limits import CONTROL_REFERENCES_MAX

_REFERENCE: Final = re.compile(rb"&#(?:x([0-9a-fA-F]{1,8})|([0-9]{1,8}));")
_CONTROLS: Final = frozenset(
    (*range(0x01, 0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0xFFFE, 0xFFFF)  # but tab, LF and CR
)
_ROW: Final = 0x40  # characters: they share all bytes of their UTF-8 but the last
_ROWS: Final = range(0xF0000, 0xF0200, _ROW)  # each is looked for in the whole document
_VERBATIM: Final = (b"<![CDATA[", b"<!--")

assert len({code % _ROW for code in _CONTROLS}) == len(_CONTROLS)


class Standing:
    """A document ``body`` that can be parsed, and what stands for what in it."""

    __slots__ = ("_meant", "body")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self._meant: dict[int, int] = {}
        if not 0 < body.count(b"&#") <= CONTROL_REFERENCES_MAX:
            return
        named = {_code(match) for match in _REFERENCE.finditer(body)}
        if named.isdisjoint(_CONTROLS) or any(mark in body for mark in _VERBATIM):
            return
        taken = {code - code % _ROW for code in named}
        row = next((row for row in _ROWS if row not in taken and _start(row) not in body), None)
        if row is None:
            return  # nobody writes so; the parser refuses the references
        self._meant = {row + code % _ROW: code for code in _CONTROLS}

        def replaced(match: re.Match[bytes]) -> bytes:
            code = _code(match)
            return chr(row + code % _ROW).encode() if code in _CONTROLS else match[0]

        self.body = _REFERENCE.sub(replaced, body)

    def text(self, text: str) -> str:
        """What a text of the parsed document says."""
        return text.translate(self._meant) if self._meant else text


def _code(match: re.Match[bytes]) -> int:
    return int(match[2]) if match[1] is None else int(match[1], 16)


def _start(row: int) -> bytes:
    """The bytes with which every character of a row begins, and no other."""
    return chr(row).encode()[:3]
