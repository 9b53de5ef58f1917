"""Commands, and which covers which."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.forge import command
from ingot.forge.errors import Malformed
from ingot.limits import UCAN_NAME_BYTES_MAX
from tests.forge.support import load

TABLES = load("commands.json")
SAYS = {
    "RequiresLeadingSlash": "starts with a slash",
    "DisallowsTrailingSlash": "not end with a slash",
    "RequiresLowercase": "lower case",
}
NAMES = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=3).map(lambda n: "/" + "/".join(n))


@pytest.mark.parametrize("row", TABLES["parse"], ids=lambda row: repr(row["input"]))
def test_parsing(row: dict[str, Any]) -> None:
    if row["error"] is None:
        assert command.check(row["input"]) == row["input"]
        return
    with pytest.raises(Malformed, match=SAYS[row["error"]]):
        command.check(row["input"])


@pytest.mark.parametrize(
    "row", TABLES["proves"], ids=lambda row: f"{row['held']}-{row['requested']}"
)
def test_covering(row: dict[str, Any]) -> None:
    assert command.covers(row["held"], row["requested"]) is row["proves"]


@given(NAMES, NAMES)
def test_covering_is_a_prefix_of_whole_names(held: str, wanted: str) -> None:
    parts, others = held.strip("/").split("/"), wanted.strip("/").split("/")
    expected = held == "/" or others[: len(parts)] == parts
    assert command.covers(held, wanted) is expected


def test_length_is_bounded() -> None:
    command.check("/" + "a" * (UCAN_NAME_BYTES_MAX - 1))
    with pytest.raises(Malformed):
        command.check("/" + "a" * UCAN_NAME_BYTES_MAX)
