"""A tree node as a block of bytes: check, read, write. The layout is drawn in ``mst_py``."""

from __future__ import annotations

from hashlib import sha256
from typing import NoReturn

from ingot.errors import FormatError
from ingot.limits import NODE_BYTES_READ_MAX, NODE_ENTRIES_MAX, TREE_KEY_BYTES_MAX

CID_HEAD = bytes.fromhex("01711220")
LINK_HEAD = bytes.fromhex("d82a582500") + CID_HEAD
EMPTY_BLOCK = bytes.fromhex("a2616580616cf6")
EMPTY_ROOT = CID_HEAD + sha256(EMPTY_BLOCK).digest()


def key_layer(key: bytes, salt: bytes = b"") -> int:
    """The layer of ``key``: half the leading zero bits of sha256(salt + key), 0 to 128."""
    return (256 - int.from_bytes(sha256(salt + key).digest(), "big").bit_length()) // 2


def decode_node(block: bytes) -> tuple[bytes | None, list[tuple[bytes, bytes, bytes | None]]]:
    """``block`` as (left link, [(key, value, right link), ...]); FormatError unless canonical.

    Checks all that one block can show without the layer function: exact encoding, ascending keys
    of 1 to TREE_KEY_BYTES_MAX bytes, longest prefixes, the reader's limits. Which keys a tree
    admits beyond that, and their layers, are ``ingot.mst.verify``'s.
    """
    if len(block) > NODE_BYTES_READ_MAX:
        raise FormatError(
            NODE_BYTES_READ_MAX, f"at most {NODE_BYTES_READ_MAX} bytes", f"{len(block)} bytes"
        )
    at = _literal(block, 0, b"\xa2", "a map of two fields")
    at = _literal(block, at, b"\x61\x65", 'field "e"')
    count, after = _head(block, at, 4, "a list of entries")
    if count > NODE_ENTRIES_MAX:
        _fail(block, at, f"at most {NODE_ENTRIES_MAX} entries")
    at = after
    entries: list[tuple[bytes, bytes, bytes | None]] = []
    key = b""
    for _ in range(count):
        key, value, right, at = _decode_entry(block, at, key)
        entries.append((key, value, right))
    at = _literal(block, at, b"\x61\x6c", 'field "l"')
    left, at = _decode_link(block, at)
    if at != len(block):
        _fail(block, at, "the end of the block")
    return left, entries


def _decode_entry(block: bytes, at: int, before: bytes) -> tuple[bytes, bytes, bytes | None, int]:
    at = _literal(block, at, b"\xa4", "an entry of four fields")
    k_at = _literal(block, at, b"\x61\x6b", 'field "k"')
    length, at = _head(block, k_at, 2, "a byte string")
    suffix = block[at : at + length]
    if len(suffix) != length:
        _fail(block, k_at, "a byte string")
    p_at = _literal(block, at + length, b"\x61\x70", 'field "p"')
    prefix, at = _head(block, p_at, 0, "an unsigned integer")
    if prefix > len(before):
        _fail(block, p_at, "a prefix of the key before")
    if not 1 <= length <= TREE_KEY_BYTES_MAX - prefix:
        _fail(block, k_at, f"a suffix that makes a key of 1 to {TREE_KEY_BYTES_MAX} bytes")
    if prefix < len(before):
        if suffix[0] == before[prefix]:
            _fail(block, p_at, "the longest prefix shared with the key before")
        if suffix[0] < before[prefix]:
            _fail(block, k_at, "a key above the one before")
    at = _literal(block, at, b"\x61\x74", 'field "t"')
    right, at = _decode_link(block, at)
    at = _literal(block, at, b"\x61\x76", 'field "v"')
    value, at = _decode_value(block, at)
    return before[:prefix] + suffix, value, right, at


def _decode_link(block: bytes, at: int) -> tuple[bytes | None, int]:
    if block[at : at + 1] == b"\xf6":
        return None, at + 1
    if block[at : at + 9] != LINK_HEAD or at + 41 > len(block):
        _fail(block, at, "a node link or null")
    return block[at + 5 : at + 41], at + 41


def _decode_value(block: bytes, at: int) -> tuple[bytes, int]:
    expected = "a link to a value"
    body = _literal(block, at, b"\xd8\x2a", expected)
    length, start = _head(block, body, 2, expected)
    cid = block[start + 1 : start + length]
    if block[start : start + 1] != b"\x00" or len(cid) != length - 1 or not is_cid(cid):
        _fail(block, at, expected)
    return cid, start + length


def is_cid(cid: bytes) -> bool:
    """A CIDv1: version, codec, hash function and digest length as shortest varints, then digest."""
    at, fields = 0, []
    for _ in range(4):
        field = shift = 0
        while True:
            if at == len(cid) or shift == 63:
                return False
            byte = cid[at]
            at += 1
            field |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if byte == 0 and shift > 7:
            return False
        fields.append(field)
    return fields[0] == 1 and fields[3] == len(cid) - at


def _literal(block: bytes, at: int, literal: bytes, expected: str) -> int:
    if not block.startswith(literal, at):
        _fail(block, at, expected)
    return at + len(literal)


def _head(block: bytes, at: int, major: int, expected: str) -> tuple[int, int]:
    """The argument of a CBOR head in its shortest form, below 65536, and the offset after it."""
    if at < len(block):
        value = block[at] - (major << 5)
        if 0 <= value < 24:
            return value, at + 1
        if value == 24 and at + 1 < len(block) and block[at + 1] >= 24:
            return block[at + 1], at + 2
        if value == 25 and at + 2 < len(block) and block[at + 1] > 0:
            return block[at + 1] << 8 | block[at + 2], at + 3
    _fail(block, at, expected)


def _fail(block: bytes, at: int, expected: str) -> NoReturn:
    raise FormatError(at, expected, block[at : at + 8].hex() or "the end")


def encode_node(left: bytes | None, entries: list[tuple[bytes, bytes, bytes | None]]) -> bytes:
    """The block of a node: the inverse of ``decode_node``. Links are node CIDs, keys ascend.

    ValueError for content that no node has; the limits on entries and bytes are the caller's.
    """
    parts = [b"\xa2\x61\x65", _encode_head(4, len(entries))]
    before = b""
    for key, value, right in entries:
        if not before < key or len(key) > TREE_KEY_BYTES_MAX:
            raise ValueError(f"keys must ascend and have 1 to {TREE_KEY_BYTES_MAX} bytes")
        parts.append(encode_entry(before, key, value, right))
        before = key
    return b"".join(parts) + b"\x61\x6c" + _encode_link(left)


def encode_entry(before: bytes, key: bytes, value: bytes, right: bytes | None) -> bytes:
    if not is_cid(value):
        raise ValueError("a value must be a CIDv1")
    prefix, end = 0, min(len(before), len(key))
    while prefix < end and before[prefix] == key[prefix]:
        prefix += 1
    return b"".join(
        (
            b"\xa4\x61\x6b",
            _encode_head(2, len(key) - prefix),
            key[prefix:],
            b"\x61\x70",
            _encode_head(0, prefix),
            b"\x61\x74",
            _encode_link(right),
            b"\x61\x76\xd8\x2a",
            _encode_head(2, len(value) + 1),
            b"\x00",
            value,
        )
    )


def _encode_link(cid: bytes | None) -> bytes:
    return b"\xf6" if cid is None else LINK_HEAD + digest_of(cid)


def _encode_head(major: int, value: int) -> bytes:
    if value < 24:
        return bytes((major << 5 | value,))
    if value < 256:
        return bytes((major << 5 | 24, value))
    return bytes((major << 5 | 25, value >> 8, value & 255))


def digest_of(cid: bytes) -> bytes:
    if len(cid) != 36 or not cid.startswith(CID_HEAD):
        raise ValueError("a node CID has 36 bytes: version 1, dag-cbor, sha2-256")
    return cid[4:]
