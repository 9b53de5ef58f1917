"""What differs between two trees: two stacks of things, from which equal subtrees vanish unread."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from ingot._speedups.mst_node_py import key_layer
from ingot._speedups.mst_store_py import NodeCache, root_digest


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
        digest = root_digest(root)
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
