"""Patterns with ``*`` and ``?``, as policies have them. Pure.

Matched from left to right, piece by piece between the stars, so that no pattern takes more than
the product of its length and the text's: a policy comes from a client, and so do keys. (The same
written as a regular expression takes the power of the number of stars.)
"""

from __future__ import annotations

import re


class Pattern:
    """One pattern; ``fixed`` where it has neither star nor question mark."""

    __slots__ = ("_head", "_middle", "_tail", "fixed", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.fixed = "*" not in text and "?" not in text
        self._head, *rest = text.split("*")
        self._tail = rest.pop() if rest else None
        self._middle = [re.compile(_literal(piece), re.DOTALL) for piece in rest if piece]

    def fits(self, text: str) -> bool:
        if self.fixed:
            return text == self.text
        head, tail = self._head, self._tail
        if tail is None:
            return len(text) == len(head) and _same(head, text)
        end = len(text) - len(tail)
        at = len(head)
        if at > end or not _same(head, text[:at]) or not _same(tail, text[end:]):
            return False
        for piece in self._middle:
            found = piece.search(text, at, end)
            if found is None:
                return False
            at = found.end()
        return True


def _same(piece: str, text: str) -> bool:
    """Of equal lengths; the piece may have question marks."""
    if "?" not in piece:
        return piece == text
    return all(one in ("?", other) for one, other in zip(piece, text, strict=True))


def _literal(piece: str) -> str:
    return "".join("." if char == "?" else re.escape(char) for char in piece)
