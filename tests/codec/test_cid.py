"""CIDs: binary and text forms agree with multiformats, and nothing but a CIDv1 is taken."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiformats import CID

from ingot.codec import cid
from ingot.errors import FormatError

EMPTY_TREE = bytes.fromhex("a2616580616cf6")


@given(st.binary(max_size=64))
def test_binary_and_text_match_multiformats(block: bytes) -> None:
    for codec, made in (("dag-cbor", cid.of_structure(block)), ("raw", cid.of_chunk(block))):
        expected = CID("base32", 1, codec, ("sha2-256", sha256(block).digest()))
        assert made == bytes(expected)
        assert len(made) == cid.CID_BYTES
        assert cid.to_text(made) == str(expected)
        assert cid.from_text(str(expected)) == made
        assert cid.parse(made) == made
        assert cid.digest_of(made) == sha256(block).digest()


def test_known_texts() -> None:
    empty = "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm"
    assert cid.to_text(cid.of_structure(EMPTY_TREE)) == empty
    archive = cid.of_archive(sha256(b"").digest())
    assert cid.to_text(archive) == str(CID("base32", 1, "car", ("sha2-256", sha256(b"").digest())))
    assert cid.from_text("z" + str(cid_base58(archive))[1:]) == archive


def cid_base58(binary: bytes) -> str:
    return str(CID.decode(binary).set(base="base58btc"))


@pytest.mark.parametrize(
    "text", ["", "bafy", "bafk!", "?abc", "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPBdG", "zzz"]
)
def test_malformed_text(text: str) -> None:
    with pytest.raises(FormatError):
        cid.from_text(text)


@given(st.binary(max_size=40))
def test_parse_takes_only_cids(data: bytes) -> None:
    try:
        parsed = cid.parse(data)
    except FormatError as error:
        assert 0 <= error.offset <= len(data)
        return
    again, end = cid.read(data + b"rest", 0)
    assert (again, end) == (parsed, len(data))
    assert bytes(CID.decode(data)) == data


@given(st.integers(0, 36), st.integers(1, 255))
def test_damaged_prefix_is_refused_or_another_cid(at: int, flip: int) -> None:
    good = cid.of_chunk(b"x")
    data = bytearray(good + b"y")
    data[at] ^= flip
    try:
        parsed, end = cid.read(bytes(data), 0)
    except FormatError:
        return
    assert parsed == data[:end] and bytes(cid.parse(parsed)) == parsed


@pytest.mark.parametrize("length", range(36))
def test_cut_off(length: int) -> None:
    data = cid.of_chunk(b"x")[:length]
    with pytest.raises(FormatError):
        cid.parse(data)
    with pytest.raises(FormatError):
        cid.read(data, 0)


def test_digest_of_another_hash() -> None:
    with pytest.raises(FormatError):
        cid.digest_of(bytes.fromhex("0155134000"))


def test_a_link_is_bytes_but_not_only() -> None:
    link = cid.Cid(cid.of_chunk(b""))
    assert link == cid.of_chunk(b"") and hash(link) == hash(bytes(link))
    assert type(bytes(link)) is bytes
