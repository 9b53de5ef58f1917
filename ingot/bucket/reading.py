"""Finding objects and their versions in a published head: one, a page of current ones, a page of
all.

A page costs what it shows: a key's older versions are read from where the page begins, and no
further than it goes. Where versions were deleted, listings pass over keys whose current version is
a delete marker, so that what they cost is also the number of those. Used by the bucket store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final, Protocol

from ingot import mst
from ingot.bucket.leaf import (
    LEAF_PREFIX,
    Acl,
    Leaf,
    State,
    decode_leaf,
    decode_state,
    is_version_id,
    order_of,
)
from ingot.bucket.model import NULL_VERSION, Bucket, Page
from ingot.bucket.newest import at_newest
from ingot.bucket.nodes import Nodes, Published, lost
from ingot.bucket.record import Record, decode_record, standing_of
from ingot.messages import Cid


class Held(Protocol):
    """The segments, asked whether they still have a block."""

    def __contains__(self, cid: Cid) -> bool: ...


@dataclass(slots=True)
class Found:
    """One version of an object, which may be a delete marker."""

    record: Record
    version: str  # an id, or NULL_VERSION
    state: State = field(default_factory=State)


@dataclass(frozen=True, slots=True)
class Listed:
    """One version on a page of versions: a record's CID, to be read with ``Store.records``."""

    key: bytes
    version: str
    latest: bool
    record: Cid
    state: Cid | None = None


@dataclass(frozen=True, slots=True)
class VersionPage:
    """``items`` in key order, a key's newest version first; a text is a common prefix. Where it was
    truncated, the next page begins behind ``key`` and, within that key, ``version``."""

    items: list[Listed | bytes]
    truncated: bool
    key: bytes = b""
    version: str = ""


class Reading:
    """``tips`` are the newest heads, by name."""

    def __init__(
        self, nodes: Nodes, blocks: Published, held: Held, tips: dict[str, Bucket]
    ) -> None:
        self.tips = tips
        self._nodes = nodes
        self._blocks = blocks
        self._held = held

    # -- one version -----------------------------------------------------------------------------

    @at_newest
    async def look(self, bucket: Bucket, key: bytes, version: str | None) -> Found | None:
        """The version of ``key`` with this id, or the current one; None where there is none."""
        root, cache = bucket.head.objects, self._nodes.cache
        value = await self._nodes.run(lambda: mst.get(cache, root, key))
        if value is None:
            return None
        block = await self._block(value)
        leaf = decode_leaf(block) if block.startswith(LEAF_PREFIX) else None
        if version is not None and version != _name(leaf):
            leaf = None if leaf is None else await self._older(leaf, version)
            if leaf is None:
                return None
        state = State()
        if leaf is not None:
            block = await self._block(leaf.current)
            if leaf.state is not None:
                state = decode_state(await self._block(leaf.state))
        record = decode_record(block)
        if self.tips.get(bucket.name) is not bucket and record.body.inline is None:
            # While this was on its way back from the disk a unit may have dropped the rest. What
            # is there now stays: our caller pins it before anybody else has a turn.
            for cid, _ in record.body.chunks:
                if cid not in self._held:
                    raise lost(cid)
        return Found(record, _name(leaf), state)

    async def _older(self, leaf: Leaf, version: str) -> Leaf | None:
        """The older version with this id, as a leaf, whatever the tree names for it."""
        order = leaf.null if version == NULL_VERSION else order_of(version)
        root, cache = leaf.older, self._nodes.cache
        if order is None or root is None:
            return None
        value = await self._nodes.run(lambda: mst.get(cache, root, order.encode()))
        if value is None:
            return None
        found = _leaf_of(value, await self._block(value))
        return found if _name(found) == version else None

    # -- a page of current versions ----------------------------------------------------------------

    @at_newest
    async def current_page(
        self, bucket: Bucket, prefix: bytes, delimiter: bytes, after: bytes | None, limit: int
    ) -> Page:
        """As ``Store.page``, of a bucket with versions: a key whose current version is a delete
        marker is not there, nor is a group of such keys. Values are CIDs of records."""
        root = bucket.head.objects
        items: list[tuple[bytes, Cid | None]] = []
        states: dict[bytes, Cid] = {}
        more, ahead = limit > 0, 0
        while more and len(items) <= limit:
            wanted = max(limit + 1 - len(items), ahead)
            ahead = min(2 * wanted, KEYS_AHEAD_MAX)  # there may be many markers in a row
            found, more = await self._keys(root, prefix, delimiter, after, wanted)
            if not found:
                break
            after = found[-1][0]
            stated: dict[Cid, Cid] = {}
            values = [value for _, value in found if value is not None]
            records = await self._current(values, stated)
            for turn, (key, value) in enumerate(found, 1):
                if len(items) > limit:
                    break
                if value is None:
                    if turn % GROUPS_PER_TURN == 0:
                        await asyncio.sleep(0)
                    if await self._holds_any(root, key):
                        items.append((key, None))
                elif (record := records[value]) is not None:
                    items.append((key, record))
                    if value in stated:
                        states[key] = stated[value]
        return Page(items[:limit], len(items) > limit, states)

    async def _holds_any(self, root: Cid | None, group: bytes) -> bool:
        """Whether any key of a group has a current version that is no delete marker."""
        after, more, wanted = None, True, 1
        while more:
            found, more = await self._keys(root, group, b"", after, wanted)
            records = await self._current([value for _, value in found if value is not None], {})
            if any(record is not None for record in records.values()):
                return True
            after, wanted = (found[-1][0] if found else None), KEYS_AHEAD_MAX
        return False

    async def _keys(
        self, root: Cid | None, prefix: bytes, delimiter: bytes, after: bytes | None, limit: int
    ) -> tuple[list[tuple[bytes, Cid | None]], bool]:
        cache = self._nodes.cache
        return await self._nodes.run(lambda: mst.page(cache, root, prefix, delimiter, after, limit))

    async def _current(
        self, values: Sequence[Cid], states: dict[Cid, Cid]
    ) -> dict[Cid, Cid | None]:
        """The record of each value's current version; None for a delete marker. ``states`` gets the
        state of those that have one."""
        records = dict[Cid, Cid | None]()
        behind: dict[Cid, list[Cid]] = {}  # record -> the leaves that name it
        async with aclosing(self._slices(values)) as slices:
            async for some in slices:
                for value, block in some:
                    if block.startswith(LEAF_PREFIX):
                        leaf = decode_leaf(block)
                        behind.setdefault(leaf.current, []).append(value)
                        if leaf.state is not None:
                            states[value] = leaf.state
                    else:
                        records[value] = None if standing_of(block)[1] else value
        async with aclosing(self._slices(list(behind))) as slices:
            async for some in slices:
                for record, block in some:
                    seen = None if standing_of(block)[1] else record
                    records.update(dict.fromkeys(behind[record], seen))
        return records

    # -- a page of all versions --------------------------------------------------------------------

    @at_newest
    async def versions(
        self,
        bucket: Bucket,
        prefix: bytes,
        delimiter: bytes,
        after: tuple[bytes, str] | None,
        limit: int,
    ) -> VersionPage:
        """At most ``limit`` versions and groups behind ``after``: a key, and a version of it ("":
        all of them). A group is skipped whole when the key lies in it."""
        root = bucket.head.objects
        items: list[Listed | bytes] = []
        key = None
        if after is not None:
            key, version = after
            if version:
                items += await self._rest(root, key, version, limit + 1)
        more = True
        while more and len(items) <= limit:
            found, more = await self._keys(root, prefix, delimiter, key, limit + 1 - len(items))
            if not found:
                break
            key = found[-1][0]
            leaves: dict[Cid, Leaf] = {}
            async with aclosing(self._slices([v for _, v in found if v is not None])) as slices:
                async for some in slices:
                    for value, block in some:
                        leaves[value] = _leaf_of(value, block)
            for name, of_key in found:
                if len(items) > limit:
                    break
                if of_key is None:
                    items.append(name)
                    continue
                leaf = leaves[of_key]
                items.append(_listed(name, leaf, True))
                if leaf.older is not None and len(items) <= limit:
                    wanted = limit + 1 - len(items)
                    items += await self._behind(name, leaf.older, "", wanted)
        if len(items) <= limit:
            return VersionPage(items, False)
        last, beyond = items[limit - 1], items[limit]
        if isinstance(last, bytes):
            return VersionPage(items[:limit], True, last)
        marker = last.version
        if isinstance(beyond, Listed) and beyond.key == last.key:
            marker = await self._marker(root, last)
        return VersionPage(items[:limit], True, last.key, marker)

    async def _leaf(self, root: Cid | None, key: bytes) -> Leaf | None:
        cache = self._nodes.cache
        value = await self._nodes.run(lambda: mst.get(cache, root, key))
        return None if value is None else _leaf_of(value, await self._block(value))

    async def _marker(self, root: Cid | None, last: Listed) -> str:
        """How the next page finds its place among the versions of a key. An id tells that even when
        its version is gone by then. The null version has none, so its order key stands for it: a
        client that deletes as it lists must not lose its place."""
        if last.version != NULL_VERSION:
            return last.version
        leaf = await self._leaf(root, last.key)
        return FRONT if leaf is None or leaf.null is None or last.latest else leaf.null

    async def _rest(self, root: Cid | None, key: bytes, version: str, limit: int) -> list[Listed]:
        """The versions of a key behind one of them, which may be gone."""
        leaf = await self._leaf(root, key)
        if leaf is None:
            return []
        order = order_of(version)
        if version == NULL_VERSION:
            if leaf.version is not None and leaf.null is None:
                return []  # there is none: where it stood nobody knows
            order = leaf.null or FRONT
        if leaf.version is not None:
            shown = order_of(leaf.version) <= order
        elif is_version_id(version):
            # A null version in front has no place of its own. It was in front before, too, if the
            # other is still there; else it may have come up since then, and is rather shown twice.
            shown = await self._older(leaf, version) is not None
        else:
            shown = True
        rest = [] if shown else [_listed(key, leaf, True)]
        if leaf.older is not None and len(rest) < limit:
            rest += await self._behind(key, leaf.older, order, limit - len(rest))
        return rest

    async def _behind(self, key: bytes, older: Cid, order: str, limit: int) -> list[Listed]:
        """At most ``limit`` older versions of a key behind the order key ``order``."""
        cache, start = self._nodes.cache, order.encode() + b"\0" if order else b""
        entries = await self._nodes.run(lambda: mst.scan(cache, older, start, None, limit))
        found: list[Listed] = []
        async with aclosing(self._slices([value for _, value in entries])) as slices:
            async for some in slices:
                for value, block in some:
                    found.append(_listed(key, _leaf_of(value, block), False))
        return found

    # -- states ------------------------------------------------------------------------------------

    async def states(self, page: Page) -> dict[bytes, Cid]:
        """The state of each key's version on a page of a bucket without versions."""
        found: dict[Cid, Cid] = {}
        async with aclosing(self._slices([v for _, v in page.items if v is not None])) as slices:
            async for some in slices:
                for value, block in some:
                    state = _leaf_of(value, block).state
                    if state is not None:
                        found[value] = state
        return {key: found[value] for key, value in page.items if value in found}

    async def acls(self, states: Iterable[Cid]) -> dict[Cid, Acl]:
        """The ACLs that states say. Objects of one owner have few states between them."""
        found: dict[Cid, Acl] = {}
        async with aclosing(self._slices(list(dict.fromkeys(states)))) as slices:
            async for some in slices:
                for cid, block in some:
                    acl = decode_state(block).acl
                    if acl is not None:
                        found[cid] = acl
        return found

    # -- blocks ------------------------------------------------------------------------------------

    async def records(self, cids: Sequence[Cid]) -> AsyncGenerator[list[bytes], None]:
        """The blocks of records, in order and some at a time, so that a long page neither holds
        the loop nor is held in memory. For a leaf comes the record of its current version."""
        async with aclosing(self._in_slices(cids)) as slices:
            async for blocks in slices:
                if LEAF_PREFIX[1] in map(_SECOND, blocks):  # the length of the format's name
                    for at, block in enumerate(blocks):
                        if block.startswith(LEAF_PREFIX):
                            blocks[at] = await self._blocks.read(decode_leaf(block).current)
                yield blocks

    async def _block(self, cid: Cid) -> bytes:
        """Does not suspend where the block is at hand."""
        block = self._blocks.read_now(cid)
        return await self._blocks.read(cid) if block is None else block

    async def _slices(self, cids: Sequence[Cid]) -> AsyncGenerator[list[tuple[Cid, bytes]], None]:
        """CIDs and their blocks, as ``records`` gives them, leaves as they are."""
        at = 0
        async with aclosing(self._in_slices(cids)) as slices:
            async for blocks in slices:
                yield list(zip(cids[at : at + len(blocks)], blocks, strict=True))
                at += len(blocks)

    async def _in_slices(self, cids: Sequence[Cid]) -> AsyncGenerator[list[bytes], None]:
        """Blocks in order, some at a time; others have their turn in between."""
        coming = False
        while cids:
            found = self._blocks.read_many_now(cids)
            if None in found and not coming:
                self._blocks.prefetch(cids)
                coming = True
            pairs = zip(cids, found, strict=False)
            yield [block or await self._blocks.read(cid) for cid, block in pairs]
            cids = cids[len(found) :]
            if cids:
                await asyncio.sleep(0)


GROUPS_PER_TURN: Final = 32  # that are looked into before others' turn: 1.5 ms
KEYS_AHEAD_MAX: Final = 1000  # that are looked at together, in search of one without a marker
FRONT: Final = "0" * 24  # an order key in front of all others
_SECOND: Final = itemgetter(1)  # byte of a block; a look at more takes a fiftieth of a listing


def _leaf_of(value: Cid, block: bytes) -> Leaf:
    """What a key's or an older version's value says, as a leaf. One that a bare record stands for
    is not the leaf of any block."""
    if block.startswith(LEAF_PREFIX):
        return decode_leaf(block)
    return Leaf(value)


def _listed(key: bytes, leaf: Leaf, latest: bool) -> Listed:
    return Listed(key, _name(leaf), latest, leaf.current, leaf.state)


def _name(leaf: Leaf | None) -> str:
    """The version id of a leaf's current version; None stands for a bare record."""
    return NULL_VERSION if leaf is None or leaf.version is None else leaf.version
