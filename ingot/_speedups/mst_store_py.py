"""The nodes that a cache holds: the budget, and who goes first when it is spent."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from ingot._speedups.mst_node_py import CID_HEAD, EMPTY_ROOT, decode_node, digest_of
from ingot.errors import Corruption, Missing
from ingot.limits import KEY_LAYER_READ_MAX

_NODE_CHARGE = 128  # bytes a cached node takes beside its block: header, allocator, table slots
_CREDIT_LOW, _CREDIT_HIGH = 1, 7  # sweeps that a node outlives untouched; high: layer 2 and above


class Node:
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
        self._nodes: OrderedDict[bytes, Node] = OrderedDict()
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
        digest = digest_of(cid)
        if digest not in self._nodes:
            self._insert(digest, Node(block), self._owed > 0)
            self._owed = max(0, self._owed - 1)
            self._shrink()

    def discard(self, cids: Iterable[bytes]) -> None:
        """Drop those of ``cids`` that are held, such as the removed nodes of a published batch."""
        for cid in cids:
            node = self._nodes.pop(digest_of(cid), None)
            if node is not None:
                self._bytes_used -= len(node.block) + _NODE_CHARGE

    def block(self, cid: bytes) -> bytes | None:
        """The block of a node that is held, else None."""
        node = self._nodes.get(digest_of(cid))
        return None if node is None else node.block

    def __contains__(self, cid: bytes) -> bool:
        return digest_of(cid) in self._nodes

    def __len__(self) -> int:
        return len(self._nodes)

    def _insert(self, digest: bytes, node: Node, protect: bool) -> None:
        node.epoch = self._epoch - (not protect)
        node.credit = _CREDIT_HIGH if node.height > 2 else _CREDIT_LOW
        self._nodes[digest] = node
        self._bytes_used += len(node.block) + _NODE_CHARGE

    def _visit(self, digest: bytes) -> Node | None:
        node = self._nodes.get(digest)
        if node is not None:
            node.epoch = self._epoch
            node.credit = _CREDIT_HIGH if node.height > 2 else _CREDIT_LOW
        return node

    def _descend(self, digest: bytes, parent: Node | None) -> Node | None:
        node = self._visit(digest)
        if node is not None and parent is not None:
            if parent.height:
                node.height = max(node.height, parent.height - 1)
            if node.height:
                parent.height = max(parent.height, node.height + 1)
        return node

    def _miss(self, digests: list[bytes]) -> Missing:
        self._owed += len(digests)
        return Missing([CID_HEAD + digest for digest in digests])

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


def root_digest(root: bytes | None) -> bytes | None:
    return None if root is None or root == EMPTY_ROOT else digest_of(root)


def too_deep() -> Corruption:
    return Corruption("a tree", f"at most {KEY_LAYER_READ_MAX + 1} layers", "a longer path")
