"""What a key's value is once it has versions or mutable state: ``ingot/leaf@1``, ``ingot/state@1``.

A key's value is the CID of its record as long as it has one version, the null version, without
state. Else it is a leaf: a small block beside the record, so that neither a newer version nor a
change of tags or locks rewrites a record. Each value has one block: a leaf that says no more than
its record's CID is refused, as is any other block that ``encode_leaf`` and ``encode_state`` would
not write. Pure.

    ingot/leaf@1  = { current: link of a record, version: text (absent: the null version),
                      state: link of ingot/state@1, older: link (root of an MST of older versions),
                      null: text (order key of the null version, if it is among the older) }
    ingot/state@1 = { tags: {text: text}, retention: {mode: text, until: uint (unix ms)},
                      hold: bool, acl: { owner: text, name: text (the owner's),
                                         grants: [[grantee: text, permission: text]] } }

The older versions of a key are a tree of their own: order key -> CID of a record, or of a leaf
without ``older`` and ``null``. What a version or a state does not have is left out.

An order key is 24 hexadecimal digits, of sequence (16) and position (8), both counted down from the
highest: so order keys ascend from the newest version to the oldest, whatever clocks say. A version
id is the order key of its version and 16 digits of chance: it leads to its place in one step, and a
store that was restored and uses a sequence again does not take an old id for a new one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from ingot._speedups import layout
from ingot.codec import dag_cbor
from ingot.codec.fields import Fields, offset_of, open_envelope
from ingot.errors import FormatError
from ingot.messages import Cid

LEAF: Final = "ingot/leaf@1"
STATE: Final = "ingot/state@1"
LEAF_PREFIX: Final = dag_cbor.envelope_prefix(LEAF)
STATE_PREFIX: Final = dag_cbor.envelope_prefix(STATE)

GOVERNANCE: Final = "GOVERNANCE"  # ends early for whoever may bypass it
COMPLIANCE: Final = "COMPLIANCE"  # ends early for nobody
MODES: Final = (COMPLIANCE, GOVERNANCE)

ORDER_CHARS: Final = 24
TOKEN_BYTES: Final = 8  # of chance in a version id
SEQUENCE_MAX: Final = (1 << 64) - 1
POSITION_MAX: Final = (1 << 32) - 1
_ORDER: Final = re.compile(r"[0-9a-f]{24}")
_ID: Final = re.compile(r"[0-9a-f]{40}")

_LAYOUT: Final = layout.Layout(
    LEAF,
    (
        ("null", "text?"),
        ("older", "link?"),
        ("state", "link?"),
        ("current", "link"),
        ("version", "text?"),
    ),
)


@dataclass(frozen=True, slots=True)
class Leaf:
    """The versions of a key, the current one first, or one older version of it."""

    current: Cid  # a record
    version: str | None = None  # None: the null version
    state: Cid | None = None
    older: Cid | None = None
    null: str | None = None


@dataclass(frozen=True, slots=True)
class Retention:
    """Until when a version must not be deleted."""

    mode: str  # one of MODES
    until_ms: int


Grants = tuple[tuple[str, str], ...]
"""(grantee, permission), in the order they were given: words of the S3 layer's."""


@dataclass(frozen=True, slots=True)
class Acl:
    """Whose a version is, by canonical id and name, and whom that lets do what with it."""

    owner: str
    name: str
    grants: Grants = ()


@dataclass(frozen=True, slots=True)
class State:
    """What may be changed of a version without a new one."""

    tags: dict[str, str] = field(default_factory=dict)
    retention: Retention | None = None
    hold: bool | None = None  # None: it never had one
    acl: Acl | None = None  # None: it is the bucket's owner's, and nobody else's affair

    def __bool__(self) -> bool:
        """Whether it says anything; one that does not is no block."""
        others = (self.retention, self.hold, self.acl)
        return bool(self.tags) or any(other is not None for other in others)


def encode_leaf(leaf: Leaf) -> bytes:
    """The leaf's block; ValueError for one that ``decode_leaf`` would not give back."""
    fault = _fault(leaf)
    if fault is not None:
        raise ValueError(f"{fault[0]}: expected {fault[1]}, found {fault[2]}")
    return _LAYOUT.encode((leaf.null, leaf.older, leaf.state, leaf.current, leaf.version))


def decode_leaf(block: bytes) -> Leaf:
    """FormatError for anything that ``encode_leaf`` would not write."""
    null, older, state, current, version = _LAYOUT.decode(block)
    leaf = Leaf(current, version, state, older, null)
    fault = _fault(leaf)
    if fault is not None:
        raise FormatError(offset_of(block, (LEAF, fault[0])), fault[1], fault[2])
    return leaf


def encode_state(state: State) -> bytes:
    """The state's block; ValueError for one that ``decode_state`` would not give back."""
    fields = state_fields(state)
    if not fields:
        raise ValueError("a state that says nothing has no block")
    return dag_cbor.wrap(STATE, fields)


def state_fields(state: State) -> dict[str, object]:
    """What a block says of a state, none where that is nothing; ValueError."""
    fields: dict[str, object] = {}
    if state.tags:
        if "" in state.tags:
            raise ValueError("a tag without a name")
        fields["tags"] = state.tags
    if state.retention is not None:
        mode, until = state.retention.mode, state.retention.until_ms
        if mode not in MODES or until < 0:
            raise ValueError(f"no retention: {mode} until {until}")
        fields["retention"] = {"mode": mode, "until": until}
    if state.hold is not None:
        fields["hold"] = state.hold
    if state.acl is not None:
        fields["acl"] = _acl_fields(state.acl)
    return fields


def _acl_fields(acl: Acl) -> dict[str, object]:
    if not acl.owner or len(set(acl.grants)) < len(acl.grants):
        raise ValueError(f"no access control list: {acl}")
    fields: dict[str, object] = {"owner": acl.owner, "name": acl.name}
    if acl.grants:
        fields["grants"] = [list(grant) for grant in acl.grants]
    return fields


def decode_state(block: bytes) -> State:
    """FormatError for anything that ``encode_state`` would not write."""
    state = read_state(open_envelope(block, STATE))
    if not state:
        raise FormatError(offset_of(block, (STATE,)), "a field", "none")
    return state


def read_state(fields: Fields) -> State:
    """What ``state_fields`` said."""
    tags: dict[str, object] | None = fields.get("tags", dict)
    checked: dict[str, str] = {}
    for name, value in (tags or {}).items():
        if not name or not isinstance(value, str):
            fields.refuse("tags", "texts by name", repr(value), name)
        checked[name] = value
    if tags == {}:
        fields.refuse("tags", "entries, or no field", "an empty map")
    hold = fields.get("hold", bool)
    retention = None
    inner = fields.get_fields("retention")
    if inner is not None:
        mode = inner.need("mode", str)
        if mode not in MODES:
            inner.refuse("mode", " or ".join(MODES), repr(mode))
        retention = Retention(mode, inner.need_uint("until"))
        inner.done()
    acl = _read_acl(fields)
    fields.done()
    return State(checked, retention, hold, acl)


def _read_acl(fields: Fields) -> Acl | None:
    inner = fields.get_fields("acl")
    if inner is None:
        return None
    owner, name = inner.need("owner", str), inner.need("name", str)
    grants: dict[tuple[str, str], None] = {}
    for index, item in enumerate(inner.get_list("grants")):
        if not isinstance(item, list) or [type(each) for each in item] != [str, str]:
            inner.refuse("grants", "[grantee, permission]", repr(item), index)
        if tuple(item) in grants:
            inner.refuse("grants", "each grant once", repr(item), index)
        grants[item[0], item[1]] = None
    inner.done()
    if not owner:
        inner.refuse("owner", "a canonical id", "an empty text")
    return Acl(owner, name, tuple(grants))


def order_key(sequence: int, position: int) -> str:
    """Of the version that the commit with this sequence of its bucket made, at this position."""
    return f"{SEQUENCE_MAX - sequence:016x}{POSITION_MAX - position:08x}"


def version_id(order: str, token: bytes) -> str:
    """The id of the version at ``order``; ``token`` is TOKEN_BYTES of chance."""
    assert len(token) == TOKEN_BYTES
    return order + token.hex()


def is_version_id(text: str) -> bool:
    """Whether we may have issued it, for some version of some key."""
    return _ID.fullmatch(text) is not None


def order_of(version: str) -> str:
    """The order key that a version id (or an order key) begins with."""
    return version[:ORDER_CHARS]


def is_order_key(text: str) -> bool:
    return _ORDER.fullmatch(text) is not None


def _fault(leaf: Leaf) -> tuple[str, str, str] | None:
    """(field, expected, found) of a leaf that is none."""
    if leaf.version is not None and not is_version_id(leaf.version):
        return "version", "40 hexadecimal digits", repr(leaf.version)
    if leaf.null is not None:
        if not is_order_key(leaf.null):
            return "null", "24 hexadecimal digits", repr(leaf.null)
        if leaf.older is None or leaf.version is None:
            return "null", "no field: the null version is not among the older", repr(leaf.null)
    if leaf.version is None and leaf.state is None and leaf.older is None:
        return "current", "something beside the record", "nothing"
    return None
