"""Containers: tokens on their way, in a request's or an answer's body or in a header.

    container = { ctn-v1: [token, ...] }       tokens as byte strings, sorted, each once

HTTP bodies are the container as it stands, with the content type ``CONTENT_TYPE``: ``encode`` and
``decode``. Everywhere else a first byte says how it is packed: ``pack`` and ``unpack``. The header
``X-UCAN-Container`` is a packed one that is text: ``to_header`` and ``from_header``.

Sizes, and the size after decompression, are bounded. A container that is none is a FormatError. A
token in it that is none does not spoil the others: Forge's services drop such a token without a
word, so they are kept apart in ``undecoded`` for a caller to speak about. Order says nothing: find
tokens by CID, receipts and invocations by task. Pure.
"""

from __future__ import annotations

import binascii
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from ingot.codec import dag_cbor
from ingot.codec.fields import kind_of, offset_of
from ingot.errors import FormatError
from ingot.forge import token
from ingot.forge.errors import TooLarge
from ingot.forge.token import Delegation, Invocation, Receipt, Token
from ingot.limits import (
    CONTAINER_ANSWER_BYTES_MAX,
    CONTAINER_ANSWER_TOKENS_MAX,
    CONTAINER_BYTES_MAX,
    CONTAINER_HEADER_READ_MAX,
    CONTAINER_HEADER_WRITE_MAX,
    UCAN_ENTRIES_MAX,
)

CONTENT_TYPE: Final = "application/vnd.ipld.dag-cbor"
HEADER: Final = "X-UCAN-Container"
_NAME: Final = "ctn-v1"


class Form(IntEnum):
    """The first byte of a packed container. (Other letters than the public specification's.)"""

    RAW = 0x40
    BASE64 = 0x42  # padded
    BASE64URL = 0x43  # unpadded
    GZIP = 0x44
    GZIP_BASE64 = 0x45  # padded
    GZIP_BASE64URL = 0x46  # unpadded


_GZIP_WBITS: Final = 31  # zlib's way of saying: with gzip's head and checksum
_GZIPPED: Final = (Form.GZIP, Form.GZIP_BASE64, Form.GZIP_BASE64URL)
_PADDED: Final = (Form.BASE64, Form.GZIP_BASE64)
_URL: Final = (Form.BASE64URL, Form.GZIP_BASE64URL)
_TEXT: Final = (*_PADDED, *_URL)


@dataclass(frozen=True, slots=True)
class Container:
    """What came, each token under its own CID."""

    delegations: dict[bytes, Delegation] = field(default_factory=dict)
    invocations: dict[bytes, Invocation] = field(default_factory=dict)
    receipts: dict[bytes, Receipt] = field(default_factory=dict)
    undecoded: list[tuple[bytes, FormatError]] = field(default_factory=list)

    def invocation_of(self, task: bytes) -> Invocation | None:
        """The invocation of a task, such as a promise names."""
        return next((one for one in self.invocations.values() if one.task == task), None)

    def receipts_of(self, task: bytes) -> list[Receipt]:
        """All that claim to answer a task: whose word counts is for ``validate_receipt``."""
        return [one for one in self.receipts.values() if one.ran == task]

    def tokens(self) -> list[Token]:
        return [*self.delegations.values(), *self.invocations.values(), *self.receipts.values()]


def encode(tokens: Iterable[Token]) -> bytes:
    """The container of some tokens, as an HTTP body; TooLarge when it holds too much."""
    sorted_tokens = sorted({tok.data for tok in tokens})
    if len(sorted_tokens) > UCAN_ENTRIES_MAX:
        raise TooLarge(f"{len(sorted_tokens)} tokens; a container holds {UCAN_ENTRIES_MAX}")
    size = sum(map(len, sorted_tokens))
    if size + 5 * len(sorted_tokens) + 16 > CONTAINER_BYTES_MAX:
        raise TooLarge(f"{size} bytes of tokens; a container holds {CONTAINER_BYTES_MAX}")
    return dag_cbor.encode({_NAME: sorted_tokens})


def decode(data: bytes, tokens_max: int = UCAN_ENTRIES_MAX) -> Container:
    """The tokens of an HTTP body; FormatError when it is no container, or one of more tokens."""
    if len(data) > CONTAINER_BYTES_MAX:
        raise FormatError(CONTAINER_BYTES_MAX, "the end of the container", f"{len(data)} bytes")
    value = dag_cbor.decode(data, dag_cbor.SORTED_KEYS)
    blocks = value.get(_NAME) if isinstance(value, dict) and len(value) == 1 else None
    if not isinstance(blocks, list):
        raise FormatError(0, f"a map of {_NAME} and an array of tokens", repr(value)[:99])
    if len(blocks) > tokens_max:
        raise FormatError(0, f"at most {tokens_max} tokens", str(len(blocks)))
    found = Container()
    for at, block in enumerate(blocks):
        if type(block) is not bytes:
            raise FormatError(offset_of(data, (_NAME, at)), "a token's bytes", kind_of(block))
        _add(found, block)
    return found


def _add(found: Container, block: bytes) -> None:
    try:
        tok = token.decode(block)
    except FormatError as error:
        found.undecoded.append((block, error))
        return
    if isinstance(tok, Delegation):
        found.delegations[tok.cid] = tok
    elif isinstance(tok, Receipt):
        found.receipts[tok.cid] = tok
    else:
        found.invocations[tok.cid] = tok


def pack(tokens: Iterable[Token], form: Form) -> bytes:
    """The container of some tokens behind the byte of a form."""
    data = encode(tokens)
    if form in _GZIPPED:
        packer = zlib.compressobj(wbits=_GZIP_WBITS)
        data = packer.compress(data) + packer.flush()
    if form in _TEXT:
        data = b64encode(data, b"-_" if form in _URL else None)
    if form in _URL:
        data = data.rstrip(b"=")
    return bytes([form]) + data


def unpack(
    data: bytes, tokens_max: int = UCAN_ENTRIES_MAX, bytes_max: int = CONTAINER_BYTES_MAX
) -> Container:
    """The tokens of a packed container, which are no more and have no more bytes; FormatError, of
    the byte inside its form where it is in the container itself."""
    if not data or data[0] not in tuple(Form):
        raise FormatError(0, "the byte of a container's form", data[:1].hex() or "nothing")
    form, rest = Form(data[0]), data[1:]
    if form in _TEXT:
        rest = _from_base64(rest.strip(), form)
    if form in _GZIPPED:
        rest = _from_gzip(rest, bytes_max)
    return decode(rest, tokens_max)


def _from_base64(text: bytes, form: Form) -> bytes:
    if form in _URL:
        for letter in b"+/=":
            if letter in text:
                raise FormatError(1, f"{form.name} text", f"the letter {chr(letter)!r}")
        text += b"=" * (-len(text) % 4)
    try:
        return b64decode(text, b"-_" if form in _URL else None, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError(1, f"{form.name} text", str(error)) from None


def _from_gzip(data: bytes, bytes_max: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=_GZIP_WBITS)
    try:
        unpacked = unpacker.decompress(data, bytes_max)
    except zlib.error as error:
        raise FormatError(1, "gzip", str(error)) from None
    if unpacker.unconsumed_tail:
        raise FormatError(1, f"at most {bytes_max} bytes in gzip", "more")
    if not unpacker.eof or unpacker.unused_data:
        raise FormatError(1, "one whole gzip member", f"another end after {len(unpacked)} bytes")
    return unpacked


def to_header(tokens: Iterable[Token], form: Form = Form.GZIP_BASE64) -> str:
    """The value of the header; TooLarge when servers would refuse the line."""
    assert form in _TEXT
    value = pack(tokens, form).decode()
    if len(value) > CONTAINER_HEADER_WRITE_MAX:
        raise TooLarge(
            f"tokens of {len(value)} letters; a header holds {CONTAINER_HEADER_WRITE_MAX}: "
            "use a shorter chain of delegations"
        )
    return value


def from_header(
    value: str, tokens_max: int = UCAN_ENTRIES_MAX, bytes_max: int = CONTAINER_BYTES_MAX
) -> Container:
    """The tokens of a header; FormatError when it is no packed container that is text."""
    if len(value) > CONTAINER_HEADER_READ_MAX:
        raise FormatError(0, f"at most {CONTAINER_HEADER_READ_MAX} letters", str(len(value)))
    try:
        data = value.strip().encode("ascii")
    except UnicodeEncodeError as error:
        raise FormatError(error.start, "letters of base64", repr(value[error.start])) from None
    if data[:1] and data[0] not in _TEXT:
        raise FormatError(0, "the letter of a form that is text", repr(value[:1]))
    return unpack(data, tokens_max, bytes_max)


def from_answer(value: str) -> Container:
    """The tokens of an answer's header: a receipt and what it needs, so a few, which cost whoever
    asked no more than a millisecond or two to read."""
    return from_header(value, CONTAINER_ANSWER_TOKENS_MAX, CONTAINER_ANSWER_BYTES_MAX)
