"""What a canonical tree is, as a check of every block: for trees from the network, tests, repair.

A tree is canonical iff every block is encoded exactly, hashes to its CID, holds valid keys of one
layer in ascending order, stands at the layer and in the key range that its parent gives it, and is
not empty; and the root has a key, or is the empty tree. One map has exactly one canonical tree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from ingot._speedups import mst
from ingot.errors import Corruption, Missing
from ingot.limits import KEY_BYTES_MAX, KEY_LAYER_READ_MAX

KeyRule = Callable[[bytes], bool]
Entry = tuple[bytes, bytes, bytes | None]  # key, value, right link


def valid_key(key: bytes) -> bool:
    """Whether ``key`` is an S3 key: 1 to 1024 bytes of well-formed UTF-8 without NUL."""
    if not 1 <= len(key) <= KEY_BYTES_MAX or b"\x00" in key:
        return False
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


def any_key(key: bytes) -> bool:
    """The rule of trees other than a bucket's objects: what the node format admits."""
    return True


def node_cid(digest: bytes) -> bytes:
    """The CID of a node from the sha2-256 digest of its block."""
    return b"\x01\x71\x12\x20" + digest


def check_node(
    block: bytes,
    layer: int | None = None,
    lower: bytes | None = None,
    upper: bytes | None = None,
    salt: bytes = b"",
    rule: KeyRule = valid_key,
) -> tuple[int, bytes | None, list[Entry]]:
    """(layer, left link, entries) of a node that may stand at ``layer`` between the two keys.

    ``layer`` None: a root, whose layer its first key gives. FormatError for the encoding,
    Corruption for content that is out of place.
    """
    left, entries = mst.decode_node(block)
    if layer is None:
        if not entries:
            raise Corruption("a root", "a key", "a node without keys")
        layer = mst.key_layer(entries[0][0], salt)
    if not entries and left is None:
        raise Corruption("a node below the root", "a key or a link", "an empty node")
    if layer > KEY_LAYER_READ_MAX:
        raise Corruption("a node's layer", f"at most {KEY_LAYER_READ_MAX}", layer)
    if layer == 0 and not (left is None and all(right is None for _, _, right in entries)):
        raise Corruption("a node at layer 0", "no links", "a link")
    for key, _, _ in entries:
        if not rule(key):
            raise Corruption("a key", "a valid key", key)
        if mst.key_layer(key, salt) != layer:
            raise Corruption(f"key {key!r}", f"layer {layer}", mst.key_layer(key, salt))
    if entries and lower is not None and entries[0][0] <= lower:
        raise Corruption("a key's range", f"above {lower!r}", entries[0][0])
    if entries and upper is not None and entries[-1][0] >= upper:
        raise Corruption("a key's range", f"below {upper!r}", entries[-1][0])
    return layer, left, entries


@dataclass(slots=True)
class TreeStats:
    """What a checked tree is made of."""

    nodes: int = 0
    keys: int = 0
    bytes: int = 0
    passthrough: int = 0  # nodes without keys
    max_entries: int = 0
    max_node_bytes: int = 0
    height: int = 0  # layer of the root


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a wanted node must stand."""

    layer: int | None
    lower: bytes | None
    upper: bytes | None


class TreeCheck:
    """Checks a tree of any size block by block: feed every node of ``wanted`` until none is left.

    Memory is the frontier: the CIDs that were named and not yet fed. A node that is wanted in two
    places is refused, since its keys cannot lie in both ranges; so a hostile tree cannot make the
    walk longer than the blocks it really consists of.
    """

    def __init__(self, root: bytes | None, salt: bytes = b"", rule: KeyRule = valid_key) -> None:
        self.stats = TreeStats()
        self._salt, self._rule = salt, rule
        self._wanted: dict[bytes, _Place] = {}
        if root == mst.EMPTY_ROOT:
            size = len(mst.EMPTY_BLOCK)
            self.stats = TreeStats(nodes=1, bytes=size, passthrough=1, max_node_bytes=size)
        elif root is not None:
            self._wanted[root] = _Place(None, None, None)

    @property
    def wanted(self) -> list[bytes]:
        """CIDs of nodes still to be fed, in an order that keeps the frontier small."""
        return list(reversed(self._wanted))

    @property
    def next_wanted(self) -> bytes | None:
        """The first of ``wanted``; None when the tree is done."""
        return next(reversed(self._wanted), None)

    def skip(self, cid: bytes) -> None:
        """Go on without a wanted node that cannot be had, and without what is below it."""
        del self._wanted[cid]

    def feed(self, cid: bytes, block: bytes) -> list[Entry]:
        """Check a wanted node; returns its entries, for those who collect values."""
        place = self._wanted[cid]
        digest = sha256(block).digest()
        if node_cid(digest) != cid:
            raise Corruption("a block", cid.hex(), node_cid(digest).hex())
        layer, left, entries = check_node(
            block, place.layer, place.lower, place.upper, self._salt, self._rule
        )
        del self._wanted[cid]
        self._count(block, entries)
        if place.layer is None:
            self.stats.height = layer
        names = [place.lower, *(key for key, _, _ in entries), place.upper]
        links = [left, *(right for _, _, right in entries)]
        for at, link in reversed(list(enumerate(links))):
            if link is None:
                continue
            if link in self._wanted:
                raise Corruption("a node", "one place in the tree", "a second link to it")
            self._wanted[link] = _Place(layer - 1, names[at], names[at + 1])
        return entries

    def _count(self, block: bytes, entries: list[Entry]) -> None:
        stats = self.stats
        stats.nodes += 1
        stats.keys += len(entries)
        stats.bytes += len(block)
        stats.passthrough += not entries
        stats.max_entries = max(stats.max_entries, len(entries))
        stats.max_node_bytes = max(stats.max_node_bytes, len(block))


def check_tree(
    cache: mst.NodeCache,
    root: bytes | None,
    salt: bytes = b"",
    rule: KeyRule = valid_key,
) -> TreeStats:
    """Check the whole tree under ``root`` in one go, out of a cache that can hold all of it.

    Raises Missing with every node found absent; FormatError or Corruption for what is wrong. For
    trees larger than memory feed a ``TreeCheck``.
    """
    check = TreeCheck(root, salt, rule)
    missing: dict[bytes, None] = {}
    while len(wanted := check.wanted) > len(missing):
        for cid in wanted:
            block = None if cid in missing else cache.block(cid)
            if block is None:
                missing[cid] = None
            else:
                check.feed(cid, block)
    if missing:
        raise Missing(list(missing))
    return check.stats
