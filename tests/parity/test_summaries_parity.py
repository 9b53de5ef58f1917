"""The compiled table of summaries beside its twin: the same words, nothing that was not added."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot._speedups import summaries_c, summaries_py

MODULES: tuple[Any, ...] = (summaries_c, summaries_py)
ROOM = 1024 * summaries_py.SLOT_BYTES
# Digests that fall into the same set of slots, and differ where a slot names them.
DIGESTS = st.integers(0, 9).map(lambda at: b"1234" + bytes((at,)) * 28)
CIDS = st.builds(
    lambda digest: b"\x01\x71\x12\x20" + digest, DIGESTS | st.binary(min_size=32, max_size=32)
)
VALUES = st.binary(min_size=35, max_size=35).map(lambda rest: b"\x01" + rest)


@pytest.mark.parametrize("name", ["Summaries", "Summaries.find_many", "Summaries.add_many"])
def test_names_signatures_and_docstrings(name: str) -> None:
    one, other = summaries_c, summaries_py
    for part in name.split("."):
        one, other = getattr(one, part), getattr(other, part)
    assert inspect.getdoc(one) == inspect.getdoc(other)
    if "." in name:
        assert inspect.signature(one, eval_str=True) == inspect.signature(other, eval_str=True)
    assert summaries_c.SLOT_BYTES == summaries_py.SLOT_BYTES


@given(st.lists(st.lists(st.tuples(CIDS, VALUES), max_size=6), max_size=20))
def test_what_is_found_was_added_last(rounds: list[list[tuple[bytes, bytes]]]) -> None:
    for module in MODULES:
        held, right = module.Summaries(ROOM), dict[bytes, bytes]()
        for added in rounds:
            held.add_many([cid for cid, _ in added], [value for _, value in added])
            right.update(added)
            cids = list(right)
            for cid, found in zip(cids, held.find_many(cids), strict=True):
                assert found in (None, right[cid])
            last = list(dict(added).items())[-1:]
            assert held.find_many([cid for cid, _ in last]) == [right[cid] for cid, _ in last]
