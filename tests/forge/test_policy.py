"""Policies: every row of the vectors, and what the rows leave open."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.codec import cid
from ingot.codec.dag_cbor import Cid
from ingot.forge.errors import Malformed, MatchError, ResolutionError
from ingot.forge.policy import Policy
from tests.forge.support import load

FIXTURE = load("ucantone-policy.json")
ROWS = load("policy-match.json")["cases"]
POLICIES = [
    (kind == "valid", case["args"], policy)
    for kind in ("valid", "invalid")
    for case in FIXTURE[kind]
    for policy in case["policies"]
]


def holds(policy: list[Any], value: object) -> bool:
    try:
        Policy.parse(policy).check(value)
    except (MatchError, ResolutionError):
        return False
    return True


def test_the_fixtures_are_whole() -> None:
    assert (len(POLICIES), len(ROWS)) == (25, 70)


@pytest.mark.parametrize(("valid", "arguments", "policy"), POLICIES)
def test_fixture(valid: bool, arguments: object, policy: list[Any]) -> None:
    assert holds(policy, arguments) is valid


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['statement']}-{row['value']!r}")
def test_statement(row: dict[str, Any]) -> None:
    assert holds([row["statement"]], row["value"]) is row["match"]


LINK = Cid(cid.of_chunk(b""))
MISSING = ["==", ".missing", 1]
YES, NO = ["==", ".", {}], ["!=", ".", {}]


@pytest.mark.parametrize(
    ("statement", "value", "expected"),
    [
        (["==", ".", b"a"], "a", False),
        (["==", ".", "a"], "a", True),
        (["==", ".", LINK], bytes(LINK), False),
        (["==", ".", bytes(LINK)], LINK, False),
        (["==", ".", LINK], LINK, True),
        (["==", ".", 1], True, False),
        (["==", ".", False], 0, False),
        (["==", ".", [1, True]], [1, 1], False),
        (["==", ".", {"a": 1, "b": 2}], {"b": 2, "a": 1}, True),
        (["==", ".", {"a": 1}], {"a": 1, "b": 2}, False),
        (["!=", ".", b"a"], "a", True),
        ([">", ".", 0], True, False),
        ([">", ".", 1 << 62], (1 << 62) + 1, True),
        (["<", ".", 0], -1, True),
        (["like", ".", "*"], "", True),
        (["like", ".", "*"], "anything", True),
        (["like", ".", ""], "", True),
        (["like", ".", ""], "a", False),
        (["like", ".", "a"], b"a", False),
        (["like", ".", "a*"], None, False),
        (["like", ".", "a**b"], "ab", True),
        (["like", ".", "a*b*c"], "a-b-b-c", True),
        (["like", ".", "ab*ba"], "aba", False),
        (["like", ".", "*a*a*"], "a", False),
        (["like", ".", "\\\\*"], "\\x", True),
        (["like", ".", "[ab]?{c}"], "[ab]?{c}", True),
        (["like", ".", "[ab]"], "a", False),
        (["like", ".", "a*z"], "a\n\nz", True),
        (["not", MISSING], {}, True),
        (["not", ["not", MISSING]], {}, False),
        (["or", []], {}, True),
        (["or", [MISSING, YES]], {}, True),
        (["or", [YES, MISSING]], {}, True),
        (["or", [MISSING]], {}, False),
        (["and", [YES, NO]], {}, False),
        (["all", ".", MISSING], [], True),
        (["any", ".", YES], [], False),
        (["any", ".", YES], {}, False),
        (["all", ".", YES], 7, False),
        (["any", ".", YES], "text", False),
        (["any", ".", ["==", ".", 2]], {"a": 1, "b": 2}, True),
        (["all", ".", ["==", ".", 2]], {"a": 1, "b": 2}, False),
        (["all", ".[]", [">", ".", 0]], [1, 2, None], True),
    ],
    ids=repr,
)
def test_what_the_vectors_leave_open(statement: list[Any], value: object, expected: bool) -> None:
    assert holds([statement], value) is expected


@pytest.mark.parametrize(
    "statement",
    [MISSING, ["and", [YES, MISSING]], ["any", ".a", MISSING], ["all", ".a", MISSING]],
    ids=repr,
)
def test_what_cannot_be_resolved_fails_with_that_name(statement: list[Any]) -> None:
    with pytest.raises(ResolutionError, match="missing"):
        Policy.parse([statement]).check({"a": [{}]} if statement[0] != "and" else {})


def test_the_first_statement_that_fails_is_named() -> None:
    policy = Policy.parse([["==", ".a", 1], ["==", ".a", 2], MISSING])
    with pytest.raises(MatchError, match=re.escape("['==', '.a', 2]")):
        policy.check({"a": 1})


@pytest.mark.parametrize(
    ("statement", "path"),
    [
        ("==", (0,)),
        ({}, (0,)),
        ([], (0,)),
        ([1, ".", 1], (0, 0)),
        (["=", ".", 1], (0, 0)),
        (["==", "."], (0,)),
        (["==", ".", 1, 2], (0,)),
        (["==", 1, 1], (0, 1)),
        (["==", "foo", 1], (0, 1)),
        ([">", ".", "1"], (0, 2)),
        ([">", ".", True], (0, 2)),
        ([">=", ".", None], (0, 2)),
        (["like", ".", 1], (0, 2)),
        (["like", ".", "a\\"], (0, 2)),
        (["not", 1], (0, 1)),
        (["not", ["and", [["==", "x", 1]]]], (0, 1, 1, 0, 1)),
        (["and", 1], (0, 1)),
        (["or", [YES, []]], (0, 1, 1)),
        (["and", YES, YES], (0,)),
        (["all", ".", 1], (0, 2)),
        (["any", ".", ["==", "..", 1]], (0, 2, 1)),
    ],
    ids=repr,
)
def test_malformed(statement: Any, path: tuple[int, ...]) -> None:
    with pytest.raises(Malformed) as caught:
        Policy.parse([statement])
    assert caught.value.path == path


@given(st.text("ab*\\", max_size=8), st.text("ab*\\", max_size=8))
def test_like_beside_regular_expressions(pattern: str, text: str) -> None:
    pieces = re.findall(r"\\.|\*|[^*\\]|\\$", pattern)
    if pieces and pieces[-1] == "\\":
        with pytest.raises(Malformed):
            Policy.parse([["like", ".", pattern]])
        return
    regex = "".join(".*" if piece == "*" else re.escape(piece[-1]) for piece in pieces)
    assert holds([["like", ".", pattern]], text) is bool(re.fullmatch(regex, text, re.S))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["a", "*", b"a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=6,
)
SELECTORS = st.sampled_from([".", ".a", ".a?", ".[0]?", ".[]?", ".a.b"])
STATEMENTS = st.recursive(
    st.tuples(st.sampled_from(["==", "!="]), SELECTORS, VALUES)
    | st.tuples(st.sampled_from([">", ">=", "<", "<="]), SELECTORS, st.integers(-2, 2))
    | st.tuples(st.just("like"), SELECTORS, st.sampled_from(["a", "*", "a*"])),
    lambda inner: (
        st.tuples(st.just("not"), inner)
        | st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, max_size=3))
        | st.tuples(st.sampled_from(["all", "any"]), SELECTORS, inner)
    ),
    max_leaves=6,
).map(lambda statement: as_lists(statement))


def as_lists(value: Any) -> Any:
    return [as_lists(item) for item in value] if isinstance(value, (tuple, list)) else value


@given(STATEMENTS, VALUES)
def test_logic(statement: list[Any], value: object) -> None:
    held = holds([statement], value)
    assert holds([["not", statement]], value) is not held
    assert holds([["or", [statement]]], value) is held
    assert holds([["and", [statement, statement]]], value) is held
    assert holds([statement, statement], value) is held


ANYTHING = st.recursive(
    st.none() | st.sampled_from([".", ".a", "like", "==", "<", "x*", "and", "or", "not", "all", 1]),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(ANYTHING, max_size=2), VALUES)
def test_any_value_is_a_policy_or_an_error_of_ours(statements: list[Any], value: object) -> None:
    try:
        policy = Policy.parse(statements)
    except Malformed:
        return
    try:
        policy.check(value)
    except (MatchError, ResolutionError):
        return


def test_the_work_is_bounded() -> None:
    arguments = {"a": [{"b": [0] * 1000}] * 1000}
    every = ["all", ".a", ["all", ".b", ["==", ".", 0]]]
    with pytest.raises(MatchError, match="more than"):
        Policy.parse([every]).check(arguments)
    with pytest.raises(MatchError, match="more than"):  # not even a "not" hides it
        Policy.parse([["not", ["or", [every, every]]]]).check(arguments)
    with pytest.raises(MatchError, match="more than"):
        Policy.parse([["==", ".a[].b[]", 0]]).check(arguments)
    slices = [["==", ".[0:]", b""]] * 100
    with pytest.raises(MatchError, match="more than"):
        Policy.parse([["not", ["or", slices]]]).check(bytes(1 << 20))
