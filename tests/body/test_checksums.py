"""The five checksums: published values, running, combined, on the wire."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.body import checksums
from ingot.body.checksums import CRCS, SIZES, Checksum, combine, from_text, one_shot, to_text

PUBLISHED = {
    b"123456789": {
        "crc32": "y/Q5Jg==",
        "crc32c": "4waSgw==",
        "crc64nvme": "rosUhgp5mIg=",
        "sha1": "98O8HYCOBHMq32eZZczDTKeuNEE=",
        "sha256": "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=",
    },
    b"": {"crc32": "AAAAAA==", "crc32c": "AAAAAA==", "crc64nvme": "AAAAAAAAAAA="},
    b"a" * 66560: {"crc32": "sK4Y7A==", "crc32c": "sOO8/Q==", "crc64nvme": "pRf+emrnL+A="},
}
ROWS = [(data, name, text) for data, sums in PUBLISHED.items() for name, text in sums.items()]


@pytest.mark.parametrize(("data", "name", "text"), ROWS, ids=lambda value: repr(value)[:12])
def test_published_values(data: bytes, name: str, text: str) -> None:
    digest = one_shot(name, data)
    assert len(digest) == SIZES[name]
    assert to_text(digest) == text and from_text(name, text) == digest


@given(st.sampled_from(sorted(SIZES)), st.lists(st.binary(max_size=100)))
def test_running_is_the_same_as_at_once(name: str, pieces: list[bytes]) -> None:
    running = Checksum(name)
    for at, piece in enumerate(pieces):
        running.update(memoryview(piece))
        assert running.digest() == one_shot(name, b"".join(pieces[: at + 1]))


@given(st.sampled_from(sorted(CRCS)), st.binary(max_size=300), st.binary(max_size=300))
def test_neighbours_combine(name: str, first: bytes, second: bytes) -> None:
    combined = combine(name, one_shot(name, first), one_shot(name, second), len(second))
    assert combined == one_shot(name, first + second)


@pytest.mark.parametrize("name", sorted(CRCS))
def test_combining_goes_over_any_length(name: str) -> None:
    mib = b"\0" * (1 << 20)
    one = one_shot(name, mib)
    grown, length = one, 1 << 20
    for _ in range(22):  # 4 TiB
        grown, length = combine(name, grown, grown, length), 2 * length
    back = combine(name, one_shot(name, b""), grown, length)
    assert back == grown
    assert combine(name, one, one_shot(name, b"tail"), 4) == one_shot(name, mib + b"tail")


def test_crc32_is_zlibs() -> None:
    data = bytes(range(256))
    assert one_shot("crc32", data) == zlib.crc32(data).to_bytes(4, "big")


@pytest.mark.parametrize(
    "text",
    ["", "AAAAAA", "AAAAAA=", "AAAAAAAA", "AAAAAAAAAAA=", "AAA AAA==", "AAAAAA==\n", "ÄAAAAA=="],
)
def test_a_value_that_is_not_one_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        from_text("crc32", text)


def test_an_unknown_algorithm_is_refused() -> None:
    for attempt in (lambda: one_shot("md4", b""), lambda: Checksum("md5")):
        with pytest.raises(ValueError, match="no checksum is called"):
            attempt()


def test_every_algorithm_has_a_size() -> None:
    assert set(checksums.CRCS) < set(SIZES) == {"crc32", "crc32c", "crc64nvme", "sha1", "sha256"}
