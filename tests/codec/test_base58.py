"""base58btc beside another implementation, and multihashes in both their forms."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiformats import multibase

from ingot.codec import base58, cid, multihash
from ingot.errors import FormatError
from ingot.limits import BASE58_CHARS_MAX


@given(st.binary(max_size=80), st.integers(0, 3))
def test_same_text_as_the_oracle(data: bytes, zeros: int) -> None:
    data = b"\0" * zeros + data
    text = base58.encode(data)
    assert "z" + text == multibase.encode(data, "base58btc")
    assert base58.decode(text) == data


@given(st.text(base58.ALPHABET, max_size=60))
def test_every_text_is_one_byte_string(text: str) -> None:
    assert base58.encode(base58.decode(text)) == text


@given(st.text(max_size=20))
def test_other_letters_are_refused_where_they_stand(text: str) -> None:
    others = [at for at, letter in enumerate(text) if letter not in base58.ALPHABET]
    if not others:
        base58.decode(text)
        return
    with pytest.raises(FormatError) as caught:
        base58.decode(text)
    assert caught.value.offset == others[0]


def test_length_is_bounded() -> None:
    longest = "2" * BASE58_CHARS_MAX
    assert base58.encode(base58.decode(longest)) == longest
    with pytest.raises(FormatError, match="2049"):
        base58.decode("2" * (BASE58_CHARS_MAX + 1))


@given(st.binary(max_size=40))
def test_multihash_of_content(data: bytes) -> None:
    digest = sha256(data).digest()
    made = multihash.of(data)
    assert made == multihash.of_digest(digest) == bytes.fromhex("1220") + digest
    assert multihash.split(made) == (0x12, digest)
    assert multihash.from_text(multihash.to_text(made)) == made
    for name in (cid.of_chunk(data), cid.of_structure(data), cid.of_archive(digest)):
        assert multihash.of_cid(name) == made


def test_known_text() -> None:
    text = "zQmQQMy1sACvEb6aZcCNgy3VRd154GowkBvHx4ymxPNan8s"
    digest = "1eaac40a1308a056a440dc73d4c06208cce04f8baba8e0f9fed41ac48e1a9614"
    assert multihash.to_text(multihash.of_digest(bytes.fromhex(digest))) == text


@given(st.binary(max_size=12))
def test_split_takes_only_whole_multihashes(data: bytes) -> None:
    try:
        function, digest = multihash.split(data)
    except FormatError:
        return
    assert data.endswith(digest) and len(digest) <= len(data) - 2 and function >= 0


@pytest.mark.parametrize("text", ["", "Qm", "mQm", "z", "z0", "zQm", "zQmQQMy1sACvEb6aZcCNgy3"])
def test_malformed_text(text: str) -> None:
    with pytest.raises(FormatError):
        multihash.from_text(text)
