"""base58btc: the text of did:key keys and of multihashes, without the multibase letter ``z``.

One to one: every byte string has one text, and every text of the alphabet is one byte string. The
work grows with the square of the length, which is bounded. Pure; used by ``codec.multihash`` and
``ingot.forge``.
"""

from __future__ import annotations

from typing import Final

from ingot.errors import FormatError
from ingot.limits import BASE58_CHARS_MAX

ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUES: Final = {letter: value for value, letter in enumerate(ALPHABET)}


def encode(data: bytes) -> str:
    """The text of ``data``: a ``1`` for each leading zero byte, then the rest as one number."""
    number, letters = int.from_bytes(data, "big"), []
    while number:
        number, value = divmod(number, 58)
        letters.append(ALPHABET[value])
    letters.append("1" * (len(data) - len(data.lstrip(b"\0"))))
    return "".join(reversed(letters))


def decode(text: str) -> bytes:
    """The bytes of ``text``; FormatError for a letter outside the alphabet or too many of them."""
    if len(text) > BASE58_CHARS_MAX:
        raise FormatError(0, f"at most {BASE58_CHARS_MAX} letters of base58", f"{len(text)}")
    number = 0
    for offset, letter in enumerate(text):
        value = _VALUES.get(letter)
        if value is None:
            raise FormatError(offset, "a letter of base58", repr(letter))
        number = number * 58 + value
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")
