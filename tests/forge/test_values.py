"""The token data model: what is in it, its sizes, and reading values by their path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.codec import cid, dag_cbor
from ingot.codec.dag_cbor import Cid
from ingot.errors import FormatError
from ingot.forge import values
from ingot.forge.errors import Malformed
from ingot.limits import UCAN_BYTES_MAX, UCAN_ENTRIES_MAX, UCAN_TEXT_BYTES_MAX

TASK = cid.of_structure(b"task")


@pytest.mark.parametrize(
    "fits",
    [
        "x" * UCAN_TEXT_BYTES_MAX,
        "é" * (UCAN_TEXT_BYTES_MAX // 2),
        b"x" * UCAN_BYTES_MAX,
        [0] * UCAN_ENTRIES_MAX,
        {str(at): None for at in range(UCAN_ENTRIES_MAX)},
        {"k" * UCAN_TEXT_BYTES_MAX: True},
        Cid(TASK),
        [{"a": [None, True, -1, 1 << 63]}],
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_fits(fits: object) -> None:
    values.check(fits)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (1.5, ()),
        ([0, {"a": 0.0}], (1, "a")),
        ("x" * (UCAN_TEXT_BYTES_MAX + 1), ()),
        (["é" * (UCAN_TEXT_BYTES_MAX // 2 + 1)], (0,)),
        ({"a": b"x" * (UCAN_BYTES_MAX + 1)}, ("a",)),
        ({"a": [[0] * (UCAN_ENTRIES_MAX + 1)]}, ("a", 0)),
        ({"m": {str(at): 0 for at in range(UCAN_ENTRIES_MAX + 1)}}, ("m",)),
        ({"m": {"k" * (UCAN_TEXT_BYTES_MAX + 1): 0}}, ("m",)),
        ([set()], (0,)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_does_not(value: object, path: tuple[object, ...]) -> None:
    with pytest.raises(Malformed) as caught:
        values.check(value)
    assert caught.value.path == path


def test_reading_by_path() -> None:
    value = {"a": [{"b": b"x"}], "n": None, "t": True}
    assert values.take(value, bytes, "a", 0, "b") == b"x"
    assert values.take(value, list, "a") == value["a"]
    assert values.take(value, object, "t") is True
    for absent in (("c",), ("n",), ("a", 1), ("a", -1), ("a", 0, "c")):
        assert values.get(value, int, *absent) is None
        with pytest.raises(Malformed, match="found nothing"):
            values.take(value, int, *absent)
    for kind, path in (
        (int, ("t",)),
        (str, ("a", 0, "b")),
        (Cid, ("a", 0, "b")),
        (int, ("a", "b")),
        (int, ("c", "d")),
        (int, ("t", 0)),
    ):
        with pytest.raises(Malformed):
            values.get(value, kind, *path)
    with pytest.raises(Malformed):
        values.take({"a": Cid(TASK)}, bytes, "a")  # a link is no byte string


def test_promises() -> None:
    promise = values.promise(TASK)
    assert promise == {"await/ok": Cid(TASK)}
    assert dag_cbor.decode(dag_cbor.encode(promise)) == promise
    assert values.promised({"site": promise}, "site") == TASK
    for none in ({}, {"await/ok": TASK}, {"await/error": Cid(TASK)}, None, []):
        with pytest.raises(Malformed):
            values.promised(none)


def test_faults_are_placed() -> None:
    value = {"aa": [0, {"b": "x"}], "c": 1}
    block = dag_cbor.encode([value, "rest"])
    with pytest.raises(FormatError) as caught, values.located(block, 0), values.under("aa"):
        values.take(value["aa"], int, 1, "b")
    assert block[caught.value.offset :].startswith(b"\x61x")
    assert "aa: 1: b: an integer" in str(caught.value)


SMALL = st.recursive(
    st.integers(0, 1) | st.booleans() | st.sampled_from(["", b"", Cid(TASK), bytes(TASK), None]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=4,
)


@given(SMALL, SMALL)
def test_same_is_equality_of_encodings(one: object, other: object) -> None:
    assert values.same(one, one)
    assert values.same(one, other) is (dag_cbor.encode(one) == dag_cbor.encode(other))
