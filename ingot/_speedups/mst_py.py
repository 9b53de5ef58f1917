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

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple, NoReturn

from ingot.errors import Corruption, FormatError, Missing
from ingot.limits import (
    KEY_LAYER_READ_MAX,
    KEY_LAYER_WRITE_MAX,
    NODE_BYTES_READ_MAX,
    NODE_BYTES_WRITE_MAX,
    NODE_ENTRIES_MAX,
    TREE_KEY_BYTES_MAX,
)

EMPTY_BLOCK = bytes.fromhex("a2616580616cf6")
EMPTY_ROOT = bytes.fromhex("01711220") + sha256(EMPTY_BLOCK).digest()

_CID_HEAD = bytes.fromhex("01711220")
_LINK_HEAD = bytes.fromhex("d82a582500") + _CID_HEAD
_NODE_CHARGE = 128  # bytes a cached node takes beside its block: header, allocator, table slots
_CREDIT_LOW, _CREDIT_HIGH = 1, 7  # sweeps that a node outlives untouched; high: layer 2 and above
_NAMES_MAX = 256  # missing nodes that a walk names at once


def key_layer(key: bytes, salt: bytes = b"") -> int:
    """The layer of ``key``: half the leading zero bits of sha256(salt + key), 0 to 128."""
    return (256 - int.from_bytes(sha256(salt + key).digest(), "big").bit_length()) // 2


# -- nodes as blocks ----------------------------------------------------------------------------


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
    if block[at : at + 9] != _LINK_HEAD or at + 41 > len(block):
        _fail(block, at, "a node link or null")
    return block[at + 5 : at + 41], at + 41


def _decode_value(block: bytes, at: int) -> tuple[bytes, int]:
    expected = "a link to a value"
    body = _literal(block, at, b"\xd8\x2a", expected)
    length, start = _head(block, body, 2, expected)
    cid = block[start + 1 : start + length]
    if block[start : start + 1] != b"\x00" or len(cid) != length - 1 or not _is_cid(cid):
        _fail(block, at, expected)
    return cid, start + length


def _is_cid(cid: bytes) -> bool:
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
        parts.append(_encode_entry(before, key, value, right))
        before = key
    return b"".join(parts) + b"\x61\x6c" + _encode_link(left)


def _encode_entry(before: bytes, key: bytes, value: bytes, right: bytes | None) -> bytes:
    if not _is_cid(value):
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
    return b"\xf6" if cid is None else _LINK_HEAD + _digest(cid)


def _encode_head(major: int, value: int) -> bytes:
    if value < 24:
        return bytes((major << 5 | value,))
    if value < 256:
        return bytes((major << 5 | 24, value))
    return bytes((major << 5 | 25, value >> 8, value & 255))


def _digest(cid: bytes) -> bytes:
    if len(cid) != 36 or not cid.startswith(_CID_HEAD):
        raise ValueError("a node CID has 36 bytes: version 1, dag-cbor, sha2-256")
    return cid[4:]


# -- the cache ----------------------------------------------------------------------------------


class _Node:
    """A decoded node. ``links[i]`` is the child left of key i; the last one is right of all keys.

    ``height`` is layer + 1 as far as known (a lower bound), 0 while nothing is known: a node
    without links counts as layer 0, and a visit teaches parent and child about each other. It
    needs no layer function, so readers need no salt.
    """

    __slots__ = ("block", "credit", "epoch", "height", "keys", "links", "values")

    def __init__(self, block: bytes) -> None:
        left, entries = decode_node(block)
        self.block = block
        self.keys = [key for key, _, _ in entries]
        self.values = [value for _, value, _ in entries]
        self.links = [left, *(right for _, _, right in entries)]
        self.height = 0 if any(self.links) else 1
        self.credit = self.epoch = 0


class NodeCache:
    """Nodes of any number of trees, bounded to ``budget`` bytes; nodes never change once added.

    Eviction is CLOCK; nodes of layer 2 and above go last. What the last unfinished call touched,
    and the blocks it named as missing once they are added, stay until some call has finished, over
    the budget if need be: so a retry always gets further than the call before it.
    """

    def __init__(self, budget: int) -> None:
        if budget <= 0:
            raise ValueError("a cache needs a budget above 0 bytes")
        self._budget = budget
        self._bytes_used = 0
        self._nodes: OrderedDict[bytes, _Node] = OrderedDict()
        self._epoch = 1
        self._owed = 0

    @property
    def budget(self) -> int:
        """How many bytes the nodes may take."""
        return self._budget

    @property
    def bytes_used(self) -> int:
        """How many bytes the nodes take, table and allocator counted in."""
        return self._bytes_used

    def add(self, cid: bytes, block: bytes) -> None:
        """Hold ``block``, whose hash the caller has checked against ``cid``; FormatError."""
        digest = _digest(cid)
        if digest not in self._nodes:
            self._insert(digest, _Node(block), self._owed > 0)
            self._owed = max(0, self._owed - 1)
            self._shrink()

    def discard(self, cids: Iterable[bytes]) -> None:
        """Drop those of ``cids`` that are held, such as the removed nodes of a published batch."""
        for cid in cids:
            node = self._nodes.pop(_digest(cid), None)
            if node is not None:
                self._bytes_used -= len(node.block) + _NODE_CHARGE

    def block(self, cid: bytes) -> bytes | None:
        """The block of a node that is held, else None."""
        node = self._nodes.get(_digest(cid))
        return None if node is None else node.block

    def __contains__(self, cid: bytes) -> bool:
        return _digest(cid) in self._nodes

    def __len__(self) -> int:
        return len(self._nodes)

    def _insert(self, digest: bytes, node: _Node, protect: bool) -> None:
        node.epoch = self._epoch - (not protect)
        node.credit = _CREDIT_HIGH if node.height > 2 else _CREDIT_LOW
        self._nodes[digest] = node
        self._bytes_used += len(node.block) + _NODE_CHARGE

    def _visit(self, digest: bytes) -> _Node | None:
        node = self._nodes.get(digest)
        if node is not None:
            node.epoch = self._epoch
            node.credit = _CREDIT_HIGH if node.height > 2 else _CREDIT_LOW
        return node

    def _descend(self, digest: bytes, parent: _Node | None) -> _Node | None:
        node = self._visit(digest)
        if node is not None and parent is not None:
            if parent.height:
                node.height = max(node.height, parent.height - 1)
            if node.height:
                parent.height = max(parent.height, node.height + 1)
        return node

    def _miss(self, digests: list[bytes]) -> Missing:
        self._owed += len(digests)
        return Missing([_CID_HEAD + digest for digest in digests])

    def _finish(self) -> None:
        self._epoch += 1
        self._owed = 0
        self._shrink()

    def _shrink(self) -> None:
        spared = 0
        while self._bytes_used > self._budget and spared < len(self._nodes):
            digest, node = next(iter(self._nodes.items()))
            self._nodes.move_to_end(digest)
            if node.epoch == self._epoch:
                spared += 1
            elif node.credit > 0:
                node.credit -= 1
                spared = 0
            else:
                del self._nodes[digest]
                self._bytes_used -= len(node.block) + _NODE_CHARGE


def _root_digest(root: bytes | None) -> bytes | None:
    return None if root is None or root == EMPTY_ROOT else _digest(root)


def _too_deep() -> Corruption:
    return Corruption("a tree", f"at most {KEY_LAYER_READ_MAX + 1} layers", "a longer path")


def get(cache: NodeCache, root: bytes | None, key: bytes) -> bytes | None:
    """The value CID of ``key``, or None; raises Missing."""
    digest = _root_digest(root)
    parent = None
    depth = 0
    while digest is not None:
        node = cache._descend(digest, parent)
        if node is None:
            raise cache._miss([digest])
        depth += 1
        if depth > KEY_LAYER_READ_MAX + 1:
            raise _too_deep()
        at = bisect_left(node.keys, key)
        if at < len(node.keys) and node.keys[at] == key:
            cache._finish()
            return node.values[at]
        link = node.links[at]
        parent, digest = node, None if link is None else link[4:]
    cache._finish()
    return None


# -- one batch of mutations ---------------------------------------------------------------------


class Applied(NamedTuple):
    """What a batch made of a tree. When ``refused`` is not empty, nothing else is valid."""

    root: bytes
    """EMPTY_ROOT when no key is left."""
    blocks: list[tuple[bytes, bytes]]
    """(CID, block) of every node of the new tree that the old one has not; children first."""
    removed: list[bytes]
    """The nodes of the old tree that the new one has not."""
    previous: list[bytes | None]
    """For each mutation the value its key had."""
    refused: list[int]
    """Mutations that the writer's limits do not admit: leave them out and call again."""


class _Segment(NamedTuple):
    """An old subtree with the old separators around it; None is an open end."""

    digest: bytes
    lower: bytes | None
    upper: bytes | None


class _Fresh:
    """A node being built; ``links`` as in ``_Node``, before hashing.

    ``[first, last)`` are the mutations in its key range, ``inserted[i]`` the one that brought
    key i, or -1.
    """

    __slots__ = ("base", "first", "inserted", "keys", "last", "layer", "links", "values")

    def __init__(self, layer: int, first: int, last: int) -> None:
        self.layer, self.first, self.last = layer, first, last
        self.base: _Node | None = None  # the old node that has the same keys
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
        if value is not None and not (value[2:4] == b"\x12\x20" and _is_cid(value)):
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
        self.loaded: dict[bytes, _Node] = {}
        self.kept: set[bytes] = set()  # of the loaded nodes, those the new tree still has
        self.missing: list[bytes] = []
        self.emitted: list[tuple[bytes, _Node]] = []
        self.refused: set[int] = set()

    def run(self, root: bytes | None) -> Applied:
        old = _root_digest(root)
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
        blocks = [(_CID_HEAD + digest, node.block) for digest, node in self.emitted]
        removed = [_CID_HEAD + digest for digest in self.loaded if digest not in self.kept]
        if new is None and old is not None:
            blocks.append((EMPTY_ROOT, EMPTY_BLOCK))
        if root == EMPTY_ROOT and new is not None:
            removed.append(EMPTY_ROOT)
        self.cache._finish()
        for digest, node in self.emitted:
            if digest not in self.cache._nodes:
                self.cache._insert(digest, node, False)
        self.cache._shrink()
        cid = EMPTY_ROOT if new is None else _CID_HEAD + new
        return Applied(cid, blocks, removed, self.previous, [])

    def load(self, digest: bytes, layer: int) -> _Node | None:
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
        links = [None if link is None else _CID_HEAD + self.encode(link) for link in ref.links]
        if len(ref.keys) > NODE_ENTRIES_MAX:
            self.refuse(ref, 0, [])
            return bytes(32)
        sizes, before = [], b""
        for key, value, right in zip(ref.keys, ref.values, links[1:], strict=True):
            sizes.append(len(_encode_entry(before, key, value, right)))
            before = key
        block = encode_node(links[0], list(zip(ref.keys, ref.values, links[1:], strict=True)))
        grown = ref.base is None or len(block) > len(ref.base.block)
        if len(block) > NODE_BYTES_WRITE_MAX and grown and self.refuse(ref, len(block), sizes):
            return bytes(32)
        digest = sha256(block).digest()
        if digest in self.loaded:
            self.kept.add(digest)
        else:
            node = _Node(block)
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

    def add(self, node: _Node, at: int, segment: _Segment) -> None:
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


# -- walks --------------------------------------------------------------------------------------


class _Walker:
    """A cursor over the keys of a tree: ``stack`` holds (node, index of its next key), root first.

    A missing subtree is noted and passed as if it were empty, so that one walk names much of what
    the next needs: until ``guess``, the keys expected in what was passed, fills the answer, or the
    walk is ``blind``, not knowing how large the subtree is.
    """

    def __init__(self, cache: NodeCache, root: bytes | None, start: bytes) -> None:
        self.cache = cache
        self.stack: list[tuple[_Node, int]] = []
        self.missing: list[bytes] = []
        self.guess = 0
        self.blind = False
        root_digest = _root_digest(root)
        self.descend(None if root_digest is None else _CID_HEAD + root_digest, None, start)

    def current(self) -> tuple[bytes, bytes] | None:
        if not self.stack or self.blind:
            return None
        node, at = self.stack[-1]
        return node.keys[at], node.values[at]

    def descend(self, link: bytes | None, parent: _Node | None, key: bytes) -> None:
        """Go down to the first key at or above ``key`` below ``link``."""
        depth = len(self.stack)
        while link is not None:
            node = self.cache._descend(link[4:], parent)
            if node is None:
                self.pass_missing(link[4:], parent)
                return
            depth += 1
            if depth > KEY_LAYER_READ_MAX + 1:
                raise _too_deep()
            at = bisect_left(node.keys, key)
            if at < len(node.keys):
                self.stack.append((node, at))
                if node.keys[at] == key:
                    return
            link, parent = node.links[at], node

    def pass_missing(self, digest: bytes, parent: _Node | None) -> None:
        self.missing.append(digest)
        if parent is None or parent.height == 0 or len(self.missing) >= _NAMES_MAX:
            self.blind = True
        else:
            self.guess += 4 ** min(max(parent.height - 1, 1), 12)

    def step(self) -> None:
        """Move to the next key."""
        node, at = self.stack.pop()
        if at + 1 < len(node.keys):
            self.stack.append((node, at + 1))
        self.descend(node.links[at + 1], node, b"")

    def seek(self, key: bytes) -> None:
        """Move forward to the first key at or above ``key``, from where the cursor stands."""
        while len(self.stack) > 1:
            node, at = self.stack[-2]
            if node.keys[at] > key:
                break
            self.stack.pop()
        if not self.stack or self.stack[-1][0].keys[self.stack[-1][1]] >= key:
            return
        node, at = self.stack.pop()
        at = bisect_left(node.keys, key, at)
        if at < len(node.keys):
            self.stack.append((node, at))
            if node.keys[at] == key:
                return
        self.descend(node.links[at], node, key)

    def finish(self) -> None:
        if self.missing:
            raise self.cache._miss(self.missing)
        self.cache._finish()


def page(
    cache: NodeCache,
    root: bytes | None,
    prefix: bytes,
    delimiter: bytes,
    after: bytes | None,
    limit: int,
) -> tuple[list[tuple[bytes, bytes | None]], bool]:
    """One page of a listing, in key order, and whether more would follow; raises Missing.

    Items are (key, value CID), or (common prefix, None) for all keys that share the bytes up to and
    including the first ``delimiter`` behind ``prefix``; such a group is passed with one seek.
    ``after`` is exclusive. When it is itself the name of a group, that group was answered and is
    skipped whole. An empty ``delimiter`` groups nothing; ``limit`` 0 answers nothing, untruncated.
    """
    items: list[tuple[bytes, bytes | None]] = []
    if limit <= 0:
        return items, False
    start: bytes | None = prefix
    if after is not None and after >= prefix:
        grouped = after.startswith(prefix) and _group(after, prefix, delimiter) == after
        start = _above(after) if grouped else after + b"\x00"
    if start is None:
        return items, False
    truncated = False
    walker = _Walker(cache, root, start)
    while (entry := walker.current()) is not None and entry[0].startswith(prefix):
        if len(items) + walker.guess >= limit:
            truncated = True
            break
        group = _group(entry[0], prefix, delimiter)
        if group is None:
            items.append(entry)
            walker.step()
            continue
        items.append((group, None))
        beyond = _above(group)
        if beyond is None:
            break
        walker.seek(beyond)
    walker.finish()
    return items, truncated


def _group(key: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    at = key.find(delimiter, len(prefix)) if delimiter else -1
    return None if at < 0 else key[: at + len(delimiter)]


def _above(prefix: bytes) -> bytes | None:
    """The least string above all that start with ``prefix``; None when there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None


def scan(
    cache: NodeCache, root: bytes | None, start: bytes, stop: bytes | None, limit: int
) -> list[tuple[bytes, bytes]]:
    """At most ``limit`` (key, value CID) with start <= key < stop, in order; raises Missing."""
    items: list[tuple[bytes, bytes]] = []
    if limit <= 0:
        return items
    walker = _Walker(cache, root, start)
    while (entry := walker.current()) is not None and len(items) + walker.guess < limit:
        if stop is not None and entry[0] >= stop:
            break
        items.append(entry)
        if len(items) < limit:
            walker.step()
    walker.finish()
    return items


class _Thing(NamedTuple):
    """A subtree (layer, digest) or a key with its value; a key has no layer."""

    layer: int | None
    name: bytes
    value: bytes


class _Side:
    """One side of ``diff``: what is left of its tree, the next thing on top of the stack."""

    def __init__(self, cache: NodeCache, root: bytes | None, after: bytes, salt: bytes) -> None:
        self.cache = cache
        self.after = after
        self.stack: list[_Thing] = []
        digest = _root_digest(root)
        if digest is not None:
            node = cache._visit(digest)
            layer = 0 if node is None or not node.keys else key_layer(node.keys[0], salt)
            self.stack.append(_Thing(layer, digest, b""))

    def expand(self, missing: list[bytes]) -> None:
        """Put the content of the subtree on top in its place."""
        layer, digest, _ = self.stack[-1]
        node = self.cache._visit(digest)
        if node is None:
            missing.append(digest)
            return
        self.stack.pop()
        assert layer is not None
        begin = bisect_right(node.keys, self.after)
        for at in range(len(node.keys), begin - 1, -1):
            if at < len(node.keys):
                self.stack.append(_Thing(None, node.keys[at], node.values[at]))
            link = node.links[at]
            if link is not None:
                self.stack.append(_Thing(layer - 1, link[4:], b""))

    def waits_for(self, other: _Thing) -> bool:
        """Whether a key is on top and right under it the very subtree that ``other`` is."""
        below = self.stack[-2] if len(self.stack) > 1 else None
        return below is not None and below.layer is not None and below.name == other.name


def diff(
    cache: NodeCache,
    a: bytes | None,
    b: bytes | None,
    limit: int | None = None,
    after: bytes = b"",
    salt: bytes = b"",
) -> list[tuple[bytes, bytes | None, bytes | None]]:
    """(key, value in ``a``, value in ``b``) of the keys whose values differ, in key order.

    Equal subtrees are not loaded. At most ``limit`` changes, of keys above ``after``: the last key
    of one call is the next call's ``after``. A wrong ``salt`` costs loads, the answer is the same.
    Raises Missing.
    """
    changes: list[tuple[bytes, bytes | None, bytes | None]] = []
    if a == b:
        return changes
    old, new = _Side(cache, a, after, salt), _Side(cache, b, after, salt)
    while (old.stack or new.stack) and (limit is None or len(changes) < limit):
        missing: list[bytes] = []
        _diff_step(old, new, missing, changes)
        if missing:
            raise cache._miss(missing)
    cache._finish()
    return changes


def _diff_step(
    old: _Side,
    new: _Side,
    missing: list[bytes],
    changes: list[tuple[bytes, bytes | None, bytes | None]],
) -> None:
    left = old.stack[-1] if old.stack else None
    right = new.stack[-1] if new.stack else None
    left_key = left if left is not None and left.layer is None else None
    right_key = right if right is not None and right.layer is None else None
    if left is not None and left_key is None and right is not None and right_key is None:
        assert left.layer is not None and right.layer is not None
        if left.name == right.name:
            old.stack.pop()
            new.stack.pop()
            return
        if left.layer >= right.layer:
            old.expand(missing)
        if right.layer >= left.layer:
            new.expand(missing)
    elif left is not None and left_key is None and not new.waits_for(left):
        old.expand(missing)
    elif right is not None and right_key is None and not old.waits_for(right):
        new.expand(missing)
    elif left_key is not None and right_key is not None and left_key.name == right_key.name:
        if left_key.value != right_key.value:
            changes.append((left_key.name, left_key.value, right_key.value))
        old.stack.pop()
        new.stack.pop()
    elif left_key is not None and (right_key is None or left_key.name < right_key.name):
        changes.append((left_key.name, left_key.value, None))
        old.stack.pop()
    elif right_key is not None:
        changes.append((right_key.name, None, right_key.value))
        new.stack.pop()
