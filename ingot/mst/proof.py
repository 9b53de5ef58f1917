"""Proofs that a key has a value in a tree, or is not in it, for someone who holds only the root.

A proof is the blocks of the key's path, root first. For an absent key it ends at the node of the
key's own layer, or before a null link: a node of a higher layer cannot hide the key.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from ingot._speedups import mst
from ingot.errors import Missing
from ingot.mst.verify import KeyRule, check_node, node_cid, valid_key


def prove(cache: mst.NodeCache, root: bytes | None, key: bytes, salt: bytes = b"") -> list[bytes]:
    """The blocks that show what ``root`` says about ``key``; raises Missing.

    The empty tree needs no block: its root says it all.
    """
    blocks: list[bytes] = []
    link = None if root == mst.EMPTY_ROOT else root
    wanted = mst.key_layer(key, salt)
    layer = None
    while link is not None:
        block = cache.block(link)
        if block is None:
            raise Missing([link])
        blocks.append(block)
        left, entries = mst.decode_node(block)
        if layer is None:
            layer = mst.key_layer(entries[0][0], salt) if entries else 0
        link = None if layer <= wanted else left
        for name, _, right in entries:
            if name > key:
                break
            if name == key:
                return blocks
            link = None if layer <= wanted else right
        layer -= 1
    return blocks


def check_proof(
    root: bytes | None,
    key: bytes,
    blocks: Iterable[bytes],
    salt: bytes = b"",
    rule: KeyRule = valid_key,
) -> bytes | None:
    """The value of ``key`` under ``root``, None when the proof shows it absent.

    Nothing in ``blocks`` is trusted: each is hashed, decoded strictly, and must stand at the layer
    and in the key range that its parent gives it. Blocks beyond the path are ignored. Raises
    Missing when a block of the path is not there, FormatError or Corruption when one is wrong.
    """
    if root is None or root == mst.EMPTY_ROOT:
        return None
    known = {node_cid(sha256(block).digest()): block for block in blocks}
    wanted = mst.key_layer(key, salt)
    link: bytes | None = root
    layer: int | None = None
    lower: bytes | None = None
    upper: bytes | None = None
    while link is not None:
        block = known.get(link)
        if block is None:
            raise Missing([link])
        layer, left, entries = check_node(block, layer, lower, upper, salt, rule)
        link = left
        for name, value, right in entries:
            if name == key:
                return value
            if name > key:
                upper = name
                break
            lower, link = name, right
        if layer <= wanted:
            return None
        layer -= 1
    return None
