"""One batch of mutations: load the paths, rebuild key intervals, trim the top, encode.

Nothing is split or merged. A segment is an old subtree with the old separators around it; an
interval of the new tree takes what lies inside it from the segments that meet it, layer by layer
downwards. A segment that lies in its gap whole and meets no mutation is not even loaded.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from hashlib import sha256
from typing import NamedTuple

from ingot._speedups.mst_node_py import (
    CID_HEAD,
    EMPTY_BLOCK,
    EMPTY_ROOT,
    encode_entry,
    encode_node,
    is_cid,
    key_layer,
)
from ingot._speedups.mst_store_py import Node, NodeCache, root_digest
from ingot.errors import Corruption
from ingot.limits import (
    KEY_LAYER_WRITE_MAX,
    NODE_BYTES_READ_MAX,
    NODE_BYTES_WRITE_MAX,
    NODE_ENTRIES_MAX,
    TREE_KEY_BYTES_MAX,
)


class Applied(NamedTuple):
    """What a batch made of a tree. When ``refused`` is not empty, nothing else is valid.

    ``root`` is EMPTY_ROOT when no key is left; ``blocks`` (CID, block) of every node of the new
    tree that the old one has not, children before parents; ``removed`` the nodes of the old tree
    that the new one has not; ``previous`` for each mutation the value its key had; ``refused`` the
    mutations that the writer's limits do not admit: leave them out and call again.
    """

    root: bytes
    blocks: list[tuple[bytes, bytes]]
    removed: list[bytes]
    previous: list[bytes | None]
    refused: list[int]


class _Segment(NamedTuple):
    """An old subtree with the old separators around it; None is an open end."""

    digest: bytes
    lower: bytes | None
    upper: bytes | None


class _Fresh:
    """A node being built; ``links`` as in ``Node``, before hashing.

    ``[first, last)`` are the mutations in its key range, ``inserted[i]`` the one that brought
    key i, or -1.
    """

    __slots__ = ("base", "first", "inserted", "keys", "last", "layer", "links", "values")

    def __init__(self, layer: int, first: int, last: int) -> None:
        self.layer, self.first, self.last = layer, first, last
        self.base: Node | None = None  # the old node that has the same keys
        self.keys: list[bytes] = []
        self.values: list[bytes] = []
        self.inserted: list[int] = []
        self.links: list[_Ref] = []


_Ref = bytes | _Fresh | None  # an old node by digest, a node being built, no node


def apply(
    cache: NodeCache,
    root: bytes | None,
    mutations: list[tuple[bytes, bytes | None]],
    salt: bytes = b"",
) -> Applied:
    """Apply ``mutations``, (key, value CID or None to delete), sorted by key, each key once.

    One pass: every old node on a path is read once, every new node encoded and hashed once. The
    content of key intervals is rebuilt layer by layer from segments of old nodes. New nodes enter
    the cache; the removed ones stay until they are discarded, for readers of the old root. Raises
    Missing with all nodes that the paths of the whole batch are known to need. Deletes are
    refused only where they would join nodes to one that no reader accepts.
    """
    for at, (key, value) in enumerate(mutations):
        if not 1 <= len(key) <= TREE_KEY_BYTES_MAX:
            raise ValueError(f"a key has 1 to {TREE_KEY_BYTES_MAX} bytes")
        if at and not mutations[at - 1][0] < key:
            raise ValueError("mutations must be sorted and their keys unique")
        if value is not None and not (value[2:4] == b"\x12\x20" and is_cid(value)):
            raise ValueError("a value is a sha2-256 CID of 36 bytes")
    batch = _Batch(cache, mutations, salt)
    refused = [
        at
        for at, (_, value) in enumerate(mutations)
        if value is not None and batch.layers[at] > KEY_LAYER_WRITE_MAX
    ]
    if refused:
        return Applied(b"", [], [], [], refused)
    return batch.run(root)


class _Batch:
    """One call of ``apply``."""

    def __init__(
        self, cache: NodeCache, mutations: list[tuple[bytes, bytes | None]], salt: bytes
    ) -> None:
        self.cache = cache
        self.salt = salt
        self.keys = [key for key, _ in mutations]
        self.values = [value for _, value in mutations]
        self.layers = [key_layer(key, salt) for key in self.keys]
        self.previous: list[bytes | None] = [None] * len(mutations)
        self.top = -1  # layer of the old root
        self.loaded: dict[bytes, Node] = {}
        self.kept: set[bytes] = set()  # of the loaded nodes, those the new tree still has
        self.missing: list[bytes] = []
        self.emitted: list[tuple[bytes, Node]] = []
        self.refused: set[int] = set()

    def run(self, root: bytes | None) -> Applied:
        old = root_digest(root)
        segments: list[_Segment] = []
        if old is not None:
            node = self.cache._visit(old)
            if node is None:
                raise self.cache._miss([old])
            if not node.keys:
                raise Corruption("a root", "a node with keys", "a node without")
            self.top = key_layer(node.keys[0], self.salt)
            self.load_paths(old)
            segments = [_Segment(old, None, None)]
        puts = [self.layers[m] for m, value in enumerate(self.values) if value is not None]
        ref = self.rebuild(max([self.top, *puts, 0]), None, None, segments, 0, len(self.keys))
        if self.missing:
            raise self.cache._miss(self.missing)
        ref = self.trim(ref)
        new = None if ref is None else self.encode(ref)
        if self.refused:
            return Applied(b"", [], [], [], sorted(self.refused))
        return self.result(root, old, new)

    def result(self, root: bytes | None, old: bytes | None, new: bytes | None) -> Applied:
        blocks = [(CID_HEAD + digest, node.block) for digest, node in self.emitted]
        removed = [CID_HEAD + digest for digest in self.loaded if digest not in self.kept]
        if new is None and old is not None:
            blocks.append((EMPTY_ROOT, EMPTY_BLOCK))
        if root == EMPTY_ROOT and new is not None:
            removed.append(EMPTY_ROOT)
        self.cache._finish()
        for digest, node in self.emitted:
            if digest not in self.cache._nodes:
                self.cache._insert(digest, node, False)
        self.cache._shrink()
        cid = EMPTY_ROOT if new is None else CID_HEAD + new
        return Applied(cid, blocks, removed, self.previous, [])

    def load(self, digest: bytes, layer: int) -> Node | None:
        """The old node, checked for what its layer demands; None and noted when it is missing."""
        node = self.loaded.get(digest)
        if node is None:
            node = self.cache._visit(digest)
            if node is None:
                if digest not in self.missing:
                    self.missing.append(digest)
                return None
            if not node.keys and node.links[0] is None:
                raise Corruption("a node below the root", "a key or a link", "an empty node")
            if layer == 0 and any(node.links):
                raise Corruption("a node at layer 0", "no links", "a link")
            node.height = layer + 1
            self.loaded[digest] = node
        return node

    def load_paths(self, root: bytes) -> None:
        """Touch the paths of all mutations, one layer at a time, and report all that is missing.

        A path ends where its key is found, or is missed by a delete at the key's own layer. A new
        key goes on to the bottom, since it cuts the nodes below it in two.
        """
        ended = [False] * len(self.keys)
        items = [(root, 0, len(self.keys))]
        layer = self.top
        while items:
            below: list[tuple[bytes, int, int]] = []
            for digest, first, last in items:
                node = self.load(digest, layer)
                if node is None:
                    continue
                at, gap = 0, -1
                for m in range(first, last):
                    if ended[m]:
                        continue
                    at = bisect_left(node.keys, self.keys[m], at)
                    found = at < len(node.keys) and node.keys[at] == self.keys[m]
                    if found:
                        self.check_layer(m, layer)
                    if found or (self.layers[m] >= layer and self.values[m] is None):
                        ended[m] = True
                        continue
                    link = node.links[at]
                    if link is not None and at == gap:
                        below[-1] = (link[4:], below[-1][1], m + 1)
                    elif link is not None:
                        below.append((link[4:], m, m + 1))
                        gap = at
            items, layer = below, layer - 1
        if self.missing:
            raise self.cache._miss(self.missing)

    def check_layer(self, m: int, layer: int) -> None:
        if self.layers[m] != layer:
            raise Corruption("a key's layer", self.layers[m], layer)

    def rebuild(
        self,
        layer: int,
        lower: bytes | None,
        upper: bytes | None,
        segments: list[_Segment],
        first: int,
        last: int,
    ) -> _Ref:
        """The content of the open interval (lower, upper) at ``layer``.

        ``segments`` are the old subtrees of this layer that meet the interval, in order;
        ``[first, last)`` the mutations inside it, of which those of higher layers are done.
        """
        gap = _Gap(self, layer, lower, first, last)
        same = len(segments) == 1 and layer <= self.top
        if layer > self.top:
            gap.segments.extend(segments)
        m = first
        for segment in segments if layer <= self.top else ():
            node = self.load(segment.digest, layer)
            if node is None:
                same = False
                continue
            begin, end = 0, len(node.keys)
            if lower is not None and (segment.lower is None or segment.lower < lower):
                begin, same = bisect_right(node.keys, lower), False
            if upper is not None and (segment.upper is None or upper < segment.upper):
                end, same = bisect_left(node.keys, upper), False
            for at in range(begin, end + 1):
                gap.add(node, at, segment)
                if at == end:
                    break
                m = gap.pass_mutations(m, node.keys[at])
                m = gap.old_key(m, node.keys[at], node.values[at])
        gap.pass_mutations(m, None)
        gap.close(upper, last)
        fresh = gap.fresh
        if same:
            digest, node = segments[0].digest, self.loaded[segments[0].digest]
            links = [None if link is None else link[4:] for link in node.links]
            if (fresh.keys, fresh.values, fresh.links) == (node.keys, node.values, links):
                self.kept.add(digest)
                return digest
            if fresh.keys == node.keys:
                fresh.base = node
        if not fresh.keys and fresh.links[0] is None:
            return None
        return fresh

    def child(
        self,
        layer: int,
        lower: bytes | None,
        upper: bytes | None,
        segments: list[_Segment],
        first: int,
        last: int,
    ) -> _Ref:
        """What becomes of a closed gap, as the child at ``layer``."""
        pending = [m for m in range(first, last) if self.layers[m] <= layer]
        if not segments and all(self.values[m] is None for m in pending):
            return None
        if len(segments) == 1 and not pending:
            segment = segments[0]
            cut_below = lower is not None and (segment.lower is None or segment.lower < lower)
            cut_above = upper is not None and (segment.upper is None or upper < segment.upper)
            if not cut_below and not cut_above:
                return segment.digest
        return self.rebuild(layer, lower, upper, segments, first, last)

    def trim(self, ref: _Ref) -> _Ref:
        """Drop nodes without keys off the top; an old node is loaded only to look for its keys."""
        while ref is not None:
            if isinstance(ref, _Fresh):
                if ref.keys:
                    return ref
                ref = ref.links[0]
                continue
            node = self.loaded.get(ref) or self.cache._visit(ref)
            if node is None:
                raise self.cache._miss([ref])
            self.loaded[ref] = node
            if node.keys:
                self.kept.add(ref)
                return ref
            self.kept.discard(ref)
            link = node.links[0]
            if link is None:
                raise Corruption("a node below the root", "a key or a link", "an empty node")
            ref = link[4:]
        return None

    def encode(self, ref: bytes | _Fresh) -> bytes:
        """The digest of ``ref``; nodes being built are encoded, children before parents."""
        if not isinstance(ref, _Fresh):
            return ref
        links = [None if link is None else CID_HEAD + self.encode(link) for link in ref.links]
        if len(ref.keys) > NODE_ENTRIES_MAX:
            self.refuse(ref, 0, [])
            return bytes(32)
        sizes, before = [], b""
        for key, value, right in zip(ref.keys, ref.values, links[1:], strict=True):
            if before >= key:
                raise Corruption("neighbouring nodes", "ascending keys", "keys out of range")
            sizes.append(len(encode_entry(before, key, value, right)))
            before = key
        block = encode_node(links[0], list(zip(ref.keys, ref.values, links[1:], strict=True)))
        grown = ref.base is None or len(block) > len(ref.base.block)
        if len(block) > NODE_BYTES_WRITE_MAX and grown and self.refuse(ref, len(block), sizes):
            return bytes(32)
        digest = sha256(block).digest()
        if digest in self.loaded:
            self.kept.add(digest)
        else:
            node = Node(block)
            node.height = ref.layer + 1
            self.emitted.append((digest, node))
        return digest

    def refuse(self, fresh: _Fresh, size: int, sizes: list[int]) -> bool:
        """Refuse the last keys that made a node too large; False where the node may pass.

        Without new keys in it, a node grows by links to new children or by deleted separators.
        The latter may take it over the writer's limits, not over the reader's.
        """
        count = len(fresh.keys)
        refused = []
        for at in range(count - 1, -1, -1):
            if count <= NODE_ENTRIES_MAX and size <= NODE_BYTES_WRITE_MAX:
                break
            if fresh.inserted[at] >= 0:
                refused.append(fresh.inserted[at])
                count -= 1
                size -= sizes[at] if sizes else 0
        readable = count <= NODE_ENTRIES_MAX and size <= NODE_BYTES_READ_MAX
        if count > NODE_ENTRIES_MAX or size > NODE_BYTES_WRITE_MAX:
            for m in range(fresh.first, fresh.last):
                if self.values[m] is not None:
                    grows = self.layers[m] < fresh.layer and self.previous[m] is None
                else:
                    grows = self.layers[m] > fresh.layer and not readable
                if grows:
                    refused.append(m)
        assert refused or readable
        self.refused.update(refused)
        return bool(refused)


class _Gap:
    """Builds one node from left to right: the gap that is open, and the node so far."""

    def __init__(self, batch: _Batch, layer: int, lower: bytes | None, first: int, last: int):
        self.batch = batch
        self.fresh = _Fresh(layer, first, last)
        self.lower = lower
        self.segments: list[_Segment] = []
        self.start = first  # first mutation in the gap

    def add(self, node: Node, at: int, segment: _Segment) -> None:
        """Child ``at`` of an old node lies in the gap."""
        link = node.links[at]
        if link is not None:
            lower = node.keys[at - 1] if at else segment.lower
            upper = node.keys[at] if at < len(node.keys) else segment.upper
            self.segments.append(_Segment(link[4:], lower, upper))

    def close(self, upper: bytes | None, m: int) -> None:
        """The gap ends at ``upper``; mutations from ``m`` on are beyond it."""
        child = self.batch.child(
            self.fresh.layer - 1, self.lower, upper, self.segments, self.start, m
        )
        self.fresh.links.append(child)

    def key(self, key: bytes, value: bytes, m: int, inserted: int) -> None:
        """A key of the new node follows the gap; the next gap begins, at mutation ``m``."""
        self.fresh.keys.append(key)
        self.fresh.values.append(value)
        self.fresh.inserted.append(inserted)
        self.lower, self.start = key, m

    def pass_mutations(self, m: int, upper: bytes | None) -> int:
        """Take in the mutations below ``upper``; a new key of this layer divides the gap."""
        batch = self.batch
        while m < self.fresh.last and (upper is None or batch.keys[m] < upper):
            key, value = batch.keys[m], batch.values[m]
            if value is not None and batch.layers[m] == self.fresh.layer:
                beyond = [s for s in self.segments if s.upper is None or s.upper > key]
                self.segments = [s for s in self.segments if s.lower is None or s.lower < key]
                self.close(key, m)
                self.segments = beyond
                self.key(key, value, m + 1, m)
            m += 1
        return m

    def old_key(self, m: int, key: bytes, value: bytes) -> int:
        """An old key ends the gap, unless a mutation deletes it."""
        batch = self.batch
        here = m < self.fresh.last and batch.keys[m] == key
        if here:
            batch.check_layer(m, self.fresh.layer)
            batch.previous[m] = value
            new = batch.values[m]
            if new is None:
                return m + 1
            value = new
        self.close(key, m)
        self.segments = []
        self.key(key, value, m + here, -1)
        return m + here
