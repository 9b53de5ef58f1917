"""Selectors: what they find, in the vectors' cases and in ones of our own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.codec import cid
from ingot.codec.dag_cbor import Cid
from ingot.forge.errors import Malformed, ResolutionError
from ingot.forge.selector import Selector
from ingot.forge.values import same
from tests.forge.support import load

CASES = load("ucantone-selectors.json")
TEXTS = load("selector-parse.json")


def case_id(case: dict[str, Any]) -> str:
    return f"{case['name']}-{case['selector']}"


@pytest.mark.parametrize("case", CASES["pass"], ids=case_id)
def test_found(case: dict[str, Any]) -> None:
    assert same(Selector.parse(case["selector"]).select(case["input"]), case["output"])


@pytest.mark.parametrize("case", CASES["null"], ids=case_id)
def test_null(case: dict[str, Any]) -> None:
    assert Selector.parse(case["selector"]).select(case["input"]) is None


@pytest.mark.parametrize("case", CASES["fail"], ids=case_id)
def test_failing(case: dict[str, Any]) -> None:
    with pytest.raises(ResolutionError) as caught:
        Selector.parse(case["selector"]).select(case["input"])
    assert case["selector"] in str(caught.value)


@pytest.mark.parametrize("text", TEXTS["valid"])
def test_valid(text: str) -> None:
    assert Selector.parse(text).text == text


@pytest.mark.parametrize("text", TEXTS["invalid"])
def test_invalid(text: str) -> None:
    with pytest.raises(Malformed):
        Selector.parse(text)


@pytest.mark.parametrize(
    "text",
    ["", "[0]", "..foo", ".foo.", ".foo..bar", ".?", ".[:]", ".[", ".[]]", ".[1", '.["a]', ".a b"]
    + [".[1:2:3]", ".[--1]", ".[+1]", ".[٣]", '.["a\\"b"]', ".[9999999999999999999]", ".é", "a.b"],
)
def test_also_invalid(text: str) -> None:
    with pytest.raises(Malformed):
        Selector.parse(text)


LINK = Cid(cid.of_chunk(b""))


@pytest.mark.parametrize(
    ("text", "value", "found"),
    [
        (".a.b", {"a": {"b": 1}}, 1),
        ('.["a b"].c', {"a b": {"c": 1}}, 1),
        ('.[""]', {"": 1}, 1),
        (".a[0][1]", {"a": [[1, 2]]}, 2),
        (".a?.b?", {}, None),
        (".[].a", [{"a": 1}, {"a": 2}], [1, 2]),
        (".[].a?", [{"a": 1}, {}, 3], [1]),
        (".[]", [1, None, 2], [1, 2]),
        (".[]", [[1], [2]], [[1], [2]]),
        (".[][]", [[1], [[2]]], [1, [2]]),
        (".[]", {"a": 1, "b": [2]}, [1, [2]]),
        (".[][]?", {"a": 1, "b": [2]}, [2]),
        (".[]", [], []),
        (".[-1:]", [1, 2, 3], [3]),
        (".[1:9]", [1, 2], [2]),
        (".[2:1]", [1, 2], []),
        (".[1:]", "hé", "é"),
        (".[1:3]", "hé", "é"),
        (".[-1]", b"\x01\x02", 2),
        (".[0:1]?", None, None),
        (".a", {"a": None}, None),
    ],
)
def test_more_that_is_found(text: str, value: object, found: object) -> None:
    assert same(Selector.parse(text).select(value), found)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (".[].a", [{"a": 1}, {}]),
        (".[]", "text"),
        (".[0]", {"0": 1}),
        (".[0]", LINK),
        (".[0:2]", LINK),
        (".[0:1]", 7),
        (".[-3]", [1, 2]),
        (".[0]", ""),
        (".[0]", []),
        (".a.b?.c", {"a": {}}),
    ],
)
def test_more_that_is_not(text: str, value: object) -> None:
    with pytest.raises(ResolutionError):
        Selector.parse(text).select(value)


def test_a_letter_cut_in_two_is_no_text() -> None:
    piece = Selector.parse(".[1]").select("hé")
    assert isinstance(piece, str) and piece not in ("h", "é", "Ã", "")
    assert Selector.parse(".[1:][0:1][0]").select("hé") == piece


VALUES = st.recursive(
    st.none() | st.integers(-3, 3) | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=10,
)
STEPS = st.sampled_from([".a", ".b", '.["a"]', ".[0]", ".[-1]", ".[1:]", ".[:1]", ".[]"])


@given(st.lists(st.tuples(STEPS, st.sampled_from(["", "?"])), min_size=1, max_size=5), VALUES)
def test_a_selector_finds_or_says_that_it_does_not(
    steps: list[tuple[str, str]], value: object
) -> None:
    try:
        Selector.parse("".join(step + mark for step, mark in steps)).select(value)
    except ResolutionError:
        assert any(mark == "" for _, mark in steps)


@given(st.text(".[]?:\"'ab0-_ $", max_size=10))
def test_any_text_is_a_selector_or_an_error_of_ours(text: str) -> None:
    try:
        Selector.parse("." + text)
    except Malformed:
        return


@given(st.lists(st.integers(), max_size=4), st.integers(-6, 6), st.integers(-6, 6))
def test_indexes_and_slices(entries: list[int], start: int, stop: int) -> None:
    assert Selector.parse(f".[{start}:{stop}]").select(entries) == entries[start:stop]
    assert Selector.parse(f".[:{stop}]").select(bytes(len(entries))) == bytes(len(entries))[:stop]
    found = Selector.parse(f".[{start}]?").select(entries)
    assert found == (entries[start] if -len(entries) <= start < len(entries) else None)
