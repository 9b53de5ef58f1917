"""Structured blocks: strict canonical DAG-CBOR, and the envelope that names a format.

``encode`` and ``decode`` are one to one: a value has one block, and a block that ``encode`` would
not write is a FormatError with the offset. Only blocks of other writers are read with less
strictness about map keys, and by name: ``decode(block, SORTED_KEYS)``. Every structured block of
ours but the tree nodes is a map with one entry whose key names the format and its version, such as
``ingot/object@1``: the envelope. Called by the format modules (records, commits, configuration)
and by tools. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from ingot._speedups import cbor
from ingot._speedups.cbor_py import BINARY_KEYS, CANONICAL_KEYS, SORTED_KEYS, Cid
from ingot.errors import FormatError

__all__ = [
    "BINARY_KEYS",
    "CANONICAL_KEYS",
    "SORTED_KEYS",
    "Cid",
    "decode",
    "encode",
    "envelope_prefix",
    "format_in",
    "links",
    "wrap",
]

encode = cbor.encode
decode = cbor.decode
links = cbor.links


def wrap(format_name: str, fields: Mapping[str, object]) -> bytes:
    """The block of one value of a named format."""
    return encode({format_name: dict(fields)})


def envelope_prefix(format_name: str) -> bytes:
    """What every block of this format starts with, for telling blocks apart without decoding."""
    return b"\xa1" + encode(format_name)


def format_in(value: object) -> str:
    """The format that a decoded block names; FormatError when it is not an envelope."""
    if isinstance(value, dict) and len(value) == 1:
        for name in value:
            return str(name)
    found = f"{len(value)} entries" if isinstance(value, dict) else f"a {type(value).__name__}"
    raise FormatError(0, "a map with one entry that names the format", found)
