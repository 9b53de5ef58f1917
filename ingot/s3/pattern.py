"""Patterns with ``*`` and ``?``, as policies have them. Pure.

Matched from left to right, piece by piece between the stars, each at its first place: a policy
comes from a client, and so do the texts. A piece without question marks is found by ``str.find``,
which is linear. One with question marks between its letters is looked for at all places at once:
a number has a bit for each place of the text, and each letter of the piece costs one shift and one
``and`` of such numbers. (A regular expression takes the product of both lengths for a piece, and
the power of the number of stars for all.) Callers bound the texts: a name of an action, a key, what
a request says under a condition key (``CONDITION_CHARS_MAX``).
"""

from __future__ import annotations

from functools import lru_cache


class Pattern:
    """One pattern; ``fixed`` where it has neither star nor question mark. ``steps``: of a match at
    worst, half a microsecond each for texts of ``CONDITION_CHARS_MAX``."""

    __slots__ = ("_head", "_middle", "_tail", "fixed", "steps", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        pieces = text.split("*")
        asks = "?" in text
        self.fixed = len(pieces) == 1 and not asks
        self._head = pieces[0]
        self._tail = pieces[-1] if len(pieces) > 1 else None
        self._middle = [piece for piece in pieces[1:-1] if piece]
        # What it may take to match: a search for each piece, and a look for each letter of one that
        # has question marks, since those are tried one by one.
        self.steps = 1 + 2 * len(self._middle)
        if asks:
            self.steps += sum([len(piece) for piece in pieces if "?" in piece.strip("?")])

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
            at = _find(piece, text, at, end)
            if at < 0:
                return False
            at += len(piece)
        return True


def _same(piece: str, text: str) -> bool:
    """Of equal lengths; the piece may have question marks."""
    if "?" not in piece:
        return piece == text
    return all(one in ("?", other) for one, other in zip(piece, text, strict=True))


def _find(piece: str, text: str, at: int, end: int) -> int:
    """The first place of the piece in ``text[at:end]``, -1 where there is none."""
    letters = piece.lstrip("?")
    ahead = len(piece) - len(letters)
    letters = letters.rstrip("?")
    last = end - len(piece)  # where the piece may begin at the latest
    if at > last:
        return -1
    if "?" not in letters:
        found = text.find(letters, at + ahead, last + ahead + len(letters))
        return found - ahead if found >= 0 else -1
    places = _places(text)
    left = ((1 << (last - at + 1)) - 1) << at
    for offset, letter in enumerate(letters, ahead):
        if letter != "?":
            left &= places.get(letter, 0) >> offset
            if not left:
                return -1
    return (left & -left).bit_length() - 1


@lru_cache(maxsize=4)  # all patterns of a policy are asked about the same text, one after another
def _places(text: str) -> dict[str, int]:
    """Where each letter of a text stands, as bits."""
    places: dict[str, int] = {}
    for at, letter in enumerate(text):
        places[letter] = places.get(letter, 0) | 1 << at
    return places
