"""The keys of one bucket whose versions or state a batch changes: sans-IO, as the batch is.

A put into a bucket without versions does not look at what it replaces. In a bucket with versions,
and wherever a change concerns a version or its state, the old value is needed: its leaf, the tree
of older versions, and the state of what is to go. What is not in memory is Missing. Changes of one
key within a batch follow one another in memory; its older versions' tree is written once, at the
end (``close``). Called by ``bucket/fold.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING

from ingot import mst
from ingot.bucket.leaf import (
    TOKEN_BYTES,
    Leaf,
    State,
    encode_leaf,
    encode_state,
    order_key,
    version_id,
)
from ingot.bucket.model import (
    ENABLED,
    NULL_VERSION,
    IsDeleteMarker,
    NoSuchVersion,
    Outcome,
    PreconditionFailed,
    StateChanged,
)
from ingot.bucket.nodes import Nodes
from ingot.bucket.record import Record, cid_of, encode_record
from ingot.bucket.values import Fact, Value
from ingot.bucket.versions import History, Keep, NewState, Version, judge_removal
from ingot.errors import Corruption, Missing, NotFound, Unavailable
from ingot.messages import Body, Cid

if TYPE_CHECKING:
    from ingot.bucket.model import Bucket, Condition
    from ingot.bucket.mutation import Change, Seen

SCAN_VERSIONS = 8  # of a tree at a time, in search of one that this batch has not removed

ValueOf = Callable[[Cid], Value]
TokenOf = Callable[[int], bytes]
"""So many bytes of chance."""


class Written:
    """Blocks that a batch makes, and what is known of those that no segment has yet."""

    def __init__(self, values: ValueOf) -> None:
        self.blocks: list[tuple[Cid, bytes]] = []
        self.removed: list[Cid] = []  # nodes that no new root reaches
        self._values = values
        self._known: dict[Cid, Value] = {}

    def know(self, cid: Cid, value: Value) -> None:
        self._known[cid] = value

    def add(self, block: bytes, value: Value) -> Cid:
        cid = cid_of(block)
        if cid not in self._known:
            self.blocks.append((cid, block))
            self._known[cid] = value
        return cid

    def leaf(self, leaf: Leaf) -> Cid:
        return self.add(encode_leaf(leaf), leaf)

    def state(self, state: State) -> Cid | None:
        return self.add(encode_state(state), state) if state else None

    def value(self, cid: Cid) -> Value:
        known = self._known.get(cid)
        return known if known is not None else self._values(cid)

    def fact(self, record: Cid) -> Fact:
        value = self.value(record)
        if not isinstance(value, Fact):
            raise Corruption("current version of a key", "a record", type(value).__name__)
        return value

    def state_of(self, cid: Cid | None) -> State:
        if cid is None:
            return State()
        value = self.value(cid)
        if not isinstance(value, State):
            raise Corruption("state of a version", "a state", type(value).__name__)
        return value

    def version(self, cid: Cid) -> Version:
        """The older version that a tree names, as a record or as a leaf."""
        value = self.value(cid)
        if isinstance(value, Fact):
            return Version(cid)
        if not isinstance(value, Leaf) or value.older is not None:
            raise Corruption("older version of a key", "a record or a leaf of its own", value)
        return Version(value.current, value.version, value.state)

    def named(self, version: Version) -> Cid:
        """What a tree names for an older version: as short as it can be said."""
        if version.id is None and version.state is None:
            return version.record
        return self.leaf(Leaf(version.record, version.id, version.state))


class OlderVersions:
    """The older versions of one key: their tree as it stands, and the changes to it."""

    def __init__(self, root: Cid | None, nodes: Nodes, written: Written) -> None:
        self._root = root
        self._nodes = nodes
        self._written = written
        self._changed: dict[str, Version | None] = {}
        self._from = ""  # below it, nothing of the tree is left

    def newest(self) -> tuple[str, Version] | None:
        found = self._newest_standing()
        put = [order for order, version in self._changed.items() if version is not None]
        if put and (found is None or min(put) < found[0]):
            order = min(put)
            version = self._changed[order]
            assert version is not None
            return order, version
        return None if found is None else (found[0], self._written.version(found[1]))

    def _newest_standing(self) -> tuple[str, Cid] | None:
        """Of the tree, what this batch has not changed."""
        cache, root = self._nodes.cache, self._root
        while root is not None:
            scan = partial(mst.scan, cache, root, self._from.encode(), None, SCAN_VERSIONS)
            entries = self._nodes.run_now(scan)
            for key, value in entries:
                self._from = key.decode()
                if self._from not in self._changed:
                    return self._from, value
            if len(entries) < SCAN_VERSIONS:
                break
        return None

    def get(self, order: str) -> Version | None:
        if order in self._changed:
            return self._changed[order]
        cache, root = self._nodes.cache, self._root
        if root is None:
            return None
        value = self._nodes.run_now(lambda: mst.get(cache, root, order.encode()))
        return None if value is None else self._written.version(value)

    def put(self, order: str, version: Version) -> None:
        self._changed[order] = version

    def remove(self, order: str) -> None:
        self._changed[order] = None

    def in_front(self, order: str, most: int) -> int:
        """How many versions are newer than this place, as far as up to ``most``."""
        standing = {put for put, version in self._changed.items() if version and put < order}
        cache, root = self._nodes.cache, self._root
        if root is not None:
            limit = most + len(self._changed)
            scan = partial(mst.scan, cache, root, b"", order.encode(), limit)
            entries = self._nodes.run_now(scan)
            standing.update({key.decode() for key, _ in entries} - self._changed.keys())
        return min(len(standing), most)

    def close(self, salt: bytes) -> Cid | None:
        """The root of the tree after the changes; None where no version is left."""
        if not self._changed:
            return self._root
        changes = [
            (order.encode(), None if version is None else self._written.named(version))
            for order, version in sorted(self._changed.items())
        ]
        cache, root = self._nodes.cache, self._root
        applied = self._nodes.run_now(lambda: mst.apply(cache, root, changes, salt))
        if applied.refused:
            # One chance in 10**15; at the next sequence the order key is another one.
            raise Unavailable("the place of the version would unbalance its tree")
        self._written.blocks += applied.blocks
        self._written.removed += applied.removed
        return None if applied.root == mst.EMPTY_ROOT else applied.root


class Histories:
    """The keys whose versions are looked at, as they stand here. ``written`` is what they made."""

    def __init__(self, bucket: Bucket, nodes: Nodes, values: ValueOf, token: TokenOf) -> None:
        self.written = Written(values)
        self._bucket = bucket
        self._nodes = nodes
        self._token = token
        self._sequence = bucket.head.sequence + 1
        self._position = 0
        self._keys: dict[bytes, History] = {}

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def forget(self, key: bytes) -> None:
        """The key has a new value that its versions do not matter to."""
        self._keys.pop(key, None)

    def open(self, key: bytes, value: Cid | None) -> None:
        """Take up a key whose value is ``value``."""
        self._keys[key] = self._history(value)

    def _history(self, value: Cid | None) -> History:
        written = self.written
        if value is None:
            return History(None, OlderVersions(None, self._nodes, written))
        said = written.value(value)
        if isinstance(said, Fact):
            return History(Version(value), OlderVersions(None, self._nodes, written))
        if not isinstance(said, Leaf):
            raise Corruption("value of a key", "a record or a leaf", type(said).__name__)
        current = Version(said.current, said.version, said.state)
        return History(current, OlderVersions(said.older, self._nodes, written), said.null)

    def etag(self, key: bytes) -> str | None:
        """Of the current version of a key that was taken up; None for a delete marker."""
        return self._etag_of(self._keys[key].current)

    def _etag_of(self, version: Version | None) -> str | None:
        if version is None:
            return None
        fact = self.written.fact(version.record)
        return None if fact.marker else fact.etag

    def close(self) -> list[tuple[bytes, Cid | None]]:
        """The values of the keys after all changes; their blocks are ``written``. Missing names
        what any of them lacks."""
        values: list[tuple[bytes, Cid | None]] = []
        missing: list[Cid] = []
        for key, history in self._keys.items():
            try:
                values.append((key, self._value(history)))
            except Missing as lacks:
                missing += lacks.cids
        if missing:
            raise Missing(missing)
        return values

    def _value(self, history: History) -> Cid | None:
        current = history.current
        assert isinstance(history.older, OlderVersions)
        older = history.older.close(self._bucket.config.salt)
        if current is None:
            if older is not None:
                raise Corruption("versions of a key", "a current one", "only older ones")
            return None
        if current.id is None and current.state is None and older is None:
            return current.record
        leaf = Leaf(current.record, current.id, current.state, older, history.null)
        return self.written.leaf(leaf)

    # -- changes -------------------------------------------------------------------------------

    def put(self, change: Change, state: State, versioning: bytes | None) -> Outcome | None:
        """A new current version; None for an answer where the bucket has no versions."""
        assert change.value is not None and change.etag is not None
        self.written.know(change.value, Fact(change.etag, False))
        return self._place(change.key, change.value, state, versioning, False)

    def delete(
        self, key: bytes, now_ms: int, versioning: bytes | None, state: State
    ) -> Outcome | None:
        """What a DELETE without a version does: a marker in front, where there are versions."""
        if versioning is None:
            self._keys[key] = self._history(None)
            return None
        record = Record(key, Body(0, None, None), "", now_ms, delete_marker=True)
        marker = self.written.add(encode_record(record), Fact("", True))
        return self._place(key, marker, state, versioning, True, now_ms)

    def _place(
        self,
        key: bytes,
        record: Cid,
        state: State,
        versioning: bytes | None,
        marker: bool,
        now_ms: int = 0,
    ) -> Outcome | None:
        stated = self.written.state(state)
        if versioning is None:
            history = self._history(None)
            history.current = Version(record, None, stated)
            self._keys[key] = history
            return None
        history = self._keys[key]
        # Two places a change: of what it puts in front, and of the null version behind that.
        behind = order_key(self._sequence, 2 * self._position)
        order = order_key(self._sequence, 2 * self._position + 1)
        self._position += 1
        if versioning == ENABLED:
            id = version_id(order, self._token(TOKEN_BYTES))
            history.add(Version(record, id, stated), behind)
            return Outcome(id, marker)
        history.add_null(Version(record, None, stated), self._judge(now_ms, False), behind)
        return Outcome(NULL_VERSION, marker)

    def expect(
        self,
        key: bytes,
        version: str,
        record: Cid,
        latest: bool,
        alone: bool,
        tags: Collection[tuple[str, str]],
        newer: int,
    ) -> None:
        """PreconditionFailed unless this version is this record, has these tags, and is the current
        one, or not, as ``latest`` says; ``alone``: and there are no others; ``newer``: and so many
        stand between the current one and it."""
        history = self._keys[key]
        id = None if version == NULL_VERSION else version
        found = history.find(id)
        if found is None or found.record != record or (found is history.current) is not latest:
            raise PreconditionFailed("that it is as it was judged")
        if tags and not self.written.state_of(found.state).tags.items() >= set(tags):
            raise PreconditionFailed("that it has the tags that it was judged by")
        if alone and history.older.newest() is not None:
            raise PreconditionFailed("that it is the only version")
        if newer and not history.has_newer(id, newer):
            raise PreconditionFailed("that so many newer versions stay")

    def check_seen(self, key: bytes, seen: Seen) -> None:
        """StateChanged unless the version that was ``seen`` is as it was."""
        found = self._named(key, seen.version)
        standing = State()
        if found is not None and not self.written.fact(found.record).marker:
            standing = self.written.state_of(found.state)
        if seen.tags is not None and standing.tags != seen.tags:
            raise StateChanged("the object's tags were changed meanwhile")
        if not isinstance(seen.acl, Keep) and standing.acl != seen.acl:
            raise StateChanged("the object's ACL was changed meanwhile")

    def _named(self, key: bytes, version: str | None) -> Version | None:
        """A version of a key, None: the current one."""
        history = self._keys[key]
        if version is None:
            return history.current
        return history.find(None if version == NULL_VERSION else version)

    def remove(
        self, key: bytes, version: str, now_ms: int, bypass: bool, condition: Condition | None
    ) -> Outcome:
        """Remove one version for good; that it is not there is success, unless the condition wants
        it. PreconditionFailed, NotFound, Locked."""
        history, id = self._keys[key], None if version == NULL_VERSION else version
        if condition is not None:
            condition.check(self._etag_of(history.find(id)))
        removed = history.remove(id, self._judge(now_ms, bypass))
        marker = removed is not None and self.written.fact(removed.record).marker
        return Outcome(version, marker)

    def restate(
        self, key: bytes, version: str | None, new: NewState, now_ms: int, versioning: bytes | None
    ) -> Outcome | None:
        """Change the state of a version, or of the current one. NotFound, NoSuchVersion,
        IsDeleteMarker, Locked. The answer names the version."""
        found = self._named(key, version)
        if found is None:
            raise NotFound("no such key") if version is None else NoSuchVersion(version)
        if self.written.fact(found.record).marker:
            raise IsDeleteMarker(found.id or NULL_VERSION)
        old = self.written.state_of(found.state)
        changed = new.on(old, now_ms)
        if changed != old:
            self._keys[key].set_state(found.id, self.written.state(changed))
        if versioning is None:
            return None
        return Outcome(found.id or NULL_VERSION, False)

    def _judge(self, now_ms: int, bypass: bool) -> Callable[[Version], None]:
        def judge(version: Version) -> None:
            if version.state is not None:
                judge_removal(self.written.state_of(version.state), now_ms, bypass)

        return judge
