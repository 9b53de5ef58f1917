"""The index of a bucket: a Merkle Search Tree, keys (bytes) to value CIDs, canonical and sans-IO.

Every function is synchronous and reads nodes from a ``NodeCache`` only. What the cache lacks comes
back as ``ingot.errors.Missing`` with the CIDs: load those blocks, ``cache.add`` them, call again;
such a retry always gets further. ``None`` and ``EMPTY_ROOT`` both name the empty tree, and reading
it never needs a block.

    get, page, scan    look up a key, list with prefix and delimiter, read a range
    apply              one batch of puts and deletes: the new root and exactly the new nodes
    diff, iter_diff    what changed between two roots, without reading what they share
    prove, check_proof show to someone who has only the root that a key is there, or is not
    TreeCheck          every invariant of a tree, block by block; ``check_tree`` over a cache
    valid_key          what S3 keys the objects tree admits

Called by ``ingot.bucket``. The work is done in ``ingot._speedups.mst``, compiled or in Python.
"""

from __future__ import annotations

from ingot._speedups import mst as _mst
from ingot.mst.diff import iter_diff
from ingot.mst.proof import check_proof, prove
from ingot.mst.verify import TreeCheck, TreeStats, check_node, check_tree, valid_key

Applied = _mst.Applied
EMPTY_BLOCK = _mst.EMPTY_BLOCK
EMPTY_ROOT = _mst.EMPTY_ROOT
NodeCache = _mst.NodeCache
apply = _mst.apply
decode_node = _mst.decode_node
diff = _mst.diff
encode_node = _mst.encode_node
get = _mst.get
key_layer = _mst.key_layer
page = _mst.page
scan = _mst.scan

__all__ = [
    "EMPTY_BLOCK",
    "EMPTY_ROOT",
    "Applied",
    "NodeCache",
    "TreeCheck",
    "TreeStats",
    "apply",
    "check_node",
    "check_proof",
    "check_tree",
    "decode_node",
    "diff",
    "encode_node",
    "get",
    "iter_diff",
    "key_layer",
    "page",
    "prove",
    "scan",
    "valid_key",
]
