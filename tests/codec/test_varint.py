"""Varints: every number has one form, and no other form is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiformats import varint as oracle

from ingot.codec import varint
from ingot.errors import FormatError

NUMBERS = st.integers(0, varint.VARINT_MAX)


@given(NUMBERS, st.binary(max_size=4), st.binary(max_size=4))
def test_round_trip_within_other_bytes(number: int, before: bytes, after: bytes) -> None:
    encoded = varint.encode(number)
    assert encoded == oracle.encode(number)
    data = before + encoded + after
    assert varint.decode(data, len(before)) == (number, len(before) + len(encoded))


@given(st.binary(max_size=12))
def test_what_decodes_is_what_encode_writes(data: bytes) -> None:
    try:
        number, end = varint.decode(data)
    except FormatError:
        return
    assert varint.encode(number) == data[:end]


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"", 0),
        (b"\x80", 1),
        (b"\x80\x00", 0),  # 0 in two bytes
        (b"\xff\x80\x00", 0),
        (b"\xff" * 9 + b"\x01", 0),  # 64 bits
    ],
)
def test_malformed(data: bytes, offset: int) -> None:
    with pytest.raises(FormatError) as caught:
        varint.decode(data)
    assert caught.value.offset == offset


@pytest.mark.parametrize("number", [-1, 1 << 63])
def test_out_of_range(number: int) -> None:
    with pytest.raises(ValueError, match="varint"):
        varint.encode(number)
