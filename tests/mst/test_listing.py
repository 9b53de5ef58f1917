"""Listings with prefix, delimiter and marker: the vectors, a plain filter as oracle, few loads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot import mst
from tests.mst.support import Shelf, cid, oracle, value, vectors

LISTING = vectors("listing")
Item = tuple[bytes, bytes | None]


def plain(
    content: dict[bytes, bytes],
    prefix: bytes,
    delimiter: bytes,
    after: bytes | None,
    limit: int,
) -> tuple[list[Item], bool]:
    """A listing by looking at every key."""
    items: dict[bytes, bytes | None] = {}
    for key in sorted(content):
        if not key.startswith(prefix) or (after is not None and key <= after):
            continue
        at = key.find(delimiter, len(prefix)) if delimiter else -1
        if at < 0:
            items[key] = content[key]
        elif key[: at + len(delimiter)] != after:
            items[key[: at + len(delimiter)]] = None
    listed = list(items.items())
    return listed[:limit], limit > 0 and len(listed) > limit


@pytest.fixture(scope="module")
def bucket() -> tuple[dict[bytes, bytes], bytes, dict[bytes, bytes]]:
    content = {key.encode(): cid(LISTING["value"]) for key in LISTING["keys"]}
    root, blocks = oracle(content)
    assert root == cid(LISTING["root"])
    return content, root, blocks


@pytest.mark.parametrize("case", LISTING["cases"], ids=lambda case: str(case)[:80])
def test_vectors(
    case: dict[str, Any], bucket: tuple[dict[bytes, bytes], bytes, dict[bytes, bytes]]
) -> None:
    content, root, blocks = bucket
    after = None if case["after"] is None else case["after"].encode()
    prefix, delimiter, limit = case["prefix"].encode(), case["delimiter"].encode(), case["limit"]
    shelf = Shelf(blocks=blocks)
    items, truncated = shelf.run(
        lambda cache: mst.page(cache, root, prefix, delimiter, after, limit)
    )
    found = [["prefix" if new is None else "key", name.decode()] for name, new in items]
    assert found == case["result"]
    # S3 answers max-keys=0 with IsTruncated false; the vector says what a filter would.
    assert truncated == (case["truncated"] and limit > 0)
    assert (items, truncated) == plain(content, prefix, delimiter, after, limit)


NAMES = st.lists(st.sampled_from([b"a", b"b", b"/", b"//", b"z", b"\xc3\xa9", b"\xff"]), max_size=5)
KEYS = NAMES.map(b"".join)


@given(
    content=st.dictionaries(KEYS.filter(bool), st.integers(0, 3).map(value), max_size=60),
    prefix=KEYS,
    delimiter=st.sampled_from([b"", b"/", b"//", b"a", b"\xff"]),
    after=st.none() | KEYS,
    limit=st.integers(0, 12),
)
def test_pages_equal_a_plain_filter(
    content: dict[bytes, bytes],
    prefix: bytes,
    delimiter: bytes,
    after: bytes | None,
    limit: int,
) -> None:
    root, blocks = oracle(content)
    shelf = Shelf(blocks=blocks)
    page = shelf.run(lambda cache: mst.page(cache, root, prefix, delimiter, after, limit))
    assert page == plain(content, prefix, delimiter, after, limit)
    assert len(set(shelf.loads)) == len(shelf.loads)


@given(
    content=st.dictionaries(KEYS.filter(bool), st.integers(0, 3).map(value), max_size=60),
    delimiter=st.sampled_from([b"", b"/", b"a"]),
    limit=st.integers(1, 5),
)
def test_pages_join_to_the_whole_listing(
    content: dict[bytes, bytes], delimiter: bytes, limit: int
) -> None:
    root, blocks = oracle(content)
    shelf = Shelf(blocks=blocks)
    whole: list[Item] = []
    after: bytes | None = None
    truncated = True
    while truncated:
        items, truncated = shelf.run(
            lambda cache, after=after: mst.page(cache, root, b"", delimiter, after, limit)
        )
        assert len(items) == limit or not truncated
        whole += items
        after = items[-1][0] if items else None
    assert whole == plain(content, b"", delimiter, None, 1000)[0]


@given(
    content=st.dictionaries(KEYS.filter(bool), st.integers(0, 3).map(value), max_size=60),
    start=KEYS,
    stop=st.none() | KEYS,
    limit=st.integers(0, 70),
)
def test_scan_is_a_slice_of_the_sorted_map(
    content: dict[bytes, bytes], start: bytes, stop: bytes | None, limit: int
) -> None:
    root, blocks = oracle(content)
    shelf = Shelf(blocks=blocks)
    expected = [
        (key, content[key])
        for key in sorted(content)
        if key >= start and (stop is None or key < stop)
    ]
    assert shelf.run(lambda cache: mst.scan(cache, root, start, stop, limit)) == expected[:limit]


def test_a_marker_that_is_a_group_skips_it_and_a_marker_inside_does_not() -> None:
    content = {key: value(0) for key in (b"a/1", b"a/2", b"b", b"c/1")}
    root, blocks = oracle(content)
    shelf = Shelf(blocks=blocks)

    def names(after: bytes) -> list[bytes]:
        page = shelf.run(lambda cache: mst.page(cache, root, b"", b"/", after, 10))
        return [name for name, _ in page[0]]

    assert names(b"a/") == [b"b", b"c/"]
    assert names(b"a/1") == [b"a/", b"b", b"c/"]
    assert names(b"a/2") == [b"b", b"c/"]
    assert names(b"c/") == []


def folders(count: int, each: int) -> tuple[bytes, dict[bytes, bytes], int]:
    content = {b"logs/%03d/%05d" % (n, m): value(m) for n in range(count) for m in range(each)}
    root, blocks = oracle(content)
    height = mst.key_layer(mst.decode_node(blocks[root])[1][0][0])
    return root, blocks, height


def test_a_group_costs_one_seek_however_many_keys_it_hides() -> None:
    """LIST-13."""
    groups = 7
    root, blocks, height = folders(groups, 3000)
    shelf = Shelf(blocks=blocks)
    items, truncated = shelf.run(lambda cache: mst.page(cache, root, b"logs/", b"/", None, 1000))
    assert items == [(b"logs/%03d/" % n, None) for n in range(groups)]
    assert not truncated
    assert len(shelf.loads) <= (groups + 1) * (height + 1)
    assert len(shelf.loads) < len(blocks) / 10


def test_a_cold_page_names_many_nodes_at_once_and_few_too_many() -> None:
    root, blocks, height = folders(1, 20000)
    shelf = Shelf(blocks=blocks)
    page = shelf.run(lambda cache: mst.page(cache, root, b"", b"", b"logs/000/05000", 1000))
    assert [name for name, _ in page[0]] == [b"logs/000/%05d" % n for n in range(5001, 6001)]
    assert page[1]
    assert len(shelf.loads) <= 2 * 1000 * 4 / 15 + 3 * height
    assert shelf.rounds <= 2 * height + 12


def test_a_warm_page_needs_no_load() -> None:
    root, blocks, _ = folders(3, 500)
    shelf = Shelf(blocks=blocks)
    first = shelf.run(lambda cache: mst.page(cache, root, b"logs/001/", b"", None, 200))
    assert shelf.loads
    assert shelf.run(lambda cache: mst.page(cache, root, b"logs/001/", b"", None, 200)) == first
    assert not shelf.loads


def test_empty_trees_need_no_block() -> None:
    cache = mst.NodeCache(1 << 20)
    for root in (None, mst.EMPTY_ROOT):
        assert mst.page(cache, root, b"", b"/", None, 10) == ([], False)
        assert mst.scan(cache, root, b"", None, 10) == []
        assert mst.get(cache, root, b"key") is None
        assert mst.diff(cache, root, None) == []
