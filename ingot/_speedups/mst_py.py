"""The Merkle Search Tree of a bucket in plain Python: the specification of ``mst_c``.

A tree maps keys (bytes) to value CIDs. A key's layer comes from its hash, so the shape of the
tree, and with it the root CID, follows from the map alone: the order of operations leaves no trace.
Nothing here reads a disk. A node that the cache does not hold is reported by raising ``Missing``;
the caller loads those blocks, adds them to the cache and calls again.

A node holds its keys of ONE layer L in a key range and links to nodes of layer L-1 in the gaps:

    node  = A2  61 65 <array head n> entry*n   61 6C (link | F6)          field e, then field l
    entry = A4  61 6B <bytes head> suffix      61 70 <uint p>
                61 74 (link | F6)              61 76 vlink                fields k, p, t, v
    link  = D8 2A 58 25 00 01 71 12 20 <32 bytes>                         tag 42, the node's CID
    vlink = D8 2A <bytes head> 00 <CID>

``l`` is the child left of the first key, ``t`` the child right of key i; ``p`` bytes of key i are
shared with key i-1 of the same node, exactly as many as agree, and ``k`` is the rest.
"""

from __future__ import annotations

from ingot._speedups.mst_apply_py import Applied, apply
from ingot._speedups.mst_diff_py import diff
from ingot._speedups.mst_node_py import (
    EMPTY_BLOCK,
    EMPTY_ROOT,
    decode_node,
    encode_node,
    key_layer,
)
from ingot._speedups.mst_store_py import NodeCache
from ingot._speedups.mst_walk_py import get, page, scan

__all__ = [
    "EMPTY_BLOCK",
    "EMPTY_ROOT",
    "Applied",
    "NodeCache",
    "apply",
    "decode_node",
    "diff",
    "encode_node",
    "get",
    "key_layer",
    "page",
    "scan",
]
