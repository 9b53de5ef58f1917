"""Reading a tree: one key, or a cursor over many."""

from __future__ import annotations

from bisect import bisect_left

from ingot._speedups.mst_store_py import Node, NodeCache, root_digest, too_deep
from ingot.limits import KEY_LAYER_READ_MAX

_NAMES_MAX = 256  # missing nodes that a walk names at once


def get(cache: NodeCache, root: bytes | None, key: bytes) -> bytes | None:
    """The value CID of ``key``, or None; raises Missing."""
    digest = root_digest(root)
    parent = None
    depth = 0
    while digest is not None:
        node = cache._descend(digest, parent)
        if node is None:
            raise cache._miss([digest])
        depth += 1
        if depth > KEY_LAYER_READ_MAX + 1:
            raise too_deep()
        at = bisect_left(node.keys, key)
        if at < len(node.keys) and node.keys[at] == key:
            cache._finish()
            return node.values[at]
        link = node.links[at]
        parent, digest = node, None if link is None else link[4:]
    cache._finish()
    return None


class _Walker:
    """A cursor over the keys of a tree: ``stack`` holds (node, index of its next key), root first.

    A missing subtree is noted and passed as if it were empty, so that one walk names much of what
    the next needs: until ``guess``, the keys expected in what was passed, fills the answer, or the
    walk is ``blind``, not knowing how large the subtree is.
    """

    def __init__(self, cache: NodeCache, root: bytes | None, start: bytes) -> None:
        self.cache = cache
        self.stack: list[tuple[Node, int]] = []
        self.missing: list[bytes] = []
        self.guess = 0
        self.blind = False
        self.descend(None if root_digest(root) is None else root, None, start)

    def current(self) -> tuple[bytes, bytes] | None:
        if not self.stack or self.blind:
            return None
        node, at = self.stack[-1]
        return node.keys[at], node.values[at]

    def descend(self, link: bytes | None, parent: Node | None, key: bytes) -> None:
        """Go down to the first key at or above ``key`` below ``link``."""
        depth = len(self.stack)
        while link is not None:
            node = self.cache._descend(link[4:], parent)
            if node is None:
                self.pass_missing(link[4:], parent)
                return
            depth += 1
            if depth > KEY_LAYER_READ_MAX + 1:
                raise too_deep()
            at = bisect_left(node.keys, key)
            if at < len(node.keys):
                self.stack.append((node, at))
                if node.keys[at] == key:
                    return
            link, parent = node.links[at], node

    def pass_missing(self, digest: bytes, parent: Node | None) -> None:
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
