"""Keys: the texts of private ones, did:keys, and signatures that other implementations make."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from ingot.codec import varint
from ingot.forge.errors import Malformed, UnsupportedKey
from ingot.forge.keys import PublicKey, Signer
from ingot.forge.varsig import Algorithm
from tests.forge.support import load, person

KEYS = load("keys.json")
SECP256K1 = KEYS["derivedSecp256k1"]
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@pytest.mark.parametrize("row", KEYS["ed25519"], ids=lambda row: f"{row['source']}-{row['name']}")
def test_private_texts(row: dict[str, Any]) -> None:
    text = "M" + row["private"].removeprefix("M")
    signer = Signer.from_text(text)
    assert signer.did == row["did"]
    assert signer.to_text() == text and text.startswith("MgC")
    assert signer.to_tagged().hex() == row["taggedPrivateHex"]
    assert signer.public.tagged.hex() == "ed01" + row["publicHex"]
    same = (
        Signer.from_seed(bytes.fromhex(row["seedHex"])),
        Signer.from_tagged(bytes.fromhex(row["taggedPrivateHex"])),
        Signer.from_pem(signer.to_pem()),
    )
    for other in same:
        assert other.did == signer.did and other.sign(b"message") == signer.sign(b"message")


@pytest.mark.parametrize("row", KEYS["publicKeys"], ids=lambda row: row["did"][:20])
def test_public_keys(row: dict[str, Any]) -> None:
    key = PublicKey.from_did(row["did"])
    assert key.tagged.hex() == row["taggedHex"]
    assert key.did == row["did"]
    expected = {"ed25519": Algorithm.ED25519, "secp256k1": Algorithm.ES256K}[row["algorithm"]]
    assert key.algorithm is expected


def test_secp256k1_is_verified_and_only_with_a_low_s() -> None:
    key = PublicKey.from_did(SECP256K1["did"])
    message = bytes.fromhex(SECP256K1["messageHex"])
    signature = bytes.fromhex(SECP256K1["signatureHex"])
    assert key.tagged.hex() == "e701" + SECP256K1["publicHex"]
    assert key.verify(signature, message)
    assert not key.verify(signature, message + b"!")
    r, s = signature[:32], int.from_bytes(signature[32:], "big")
    assert not key.verify(r + (ORDER - s).to_bytes(32, "big"), message)
    for bad in (b"", signature[:63], bytes(64), b"\xff" * 64, signature + b"\0"):
        assert not key.verify(bad, message)


def test_secp256k1_of_another_signer() -> None:
    private = ec.derive_private_key(int(SECP256K1["privateHex"], 16), ec.SECP256K1())
    r, s = decode_dss_signature(private.sign(b"m", ec.ECDSA(hashes.SHA256())))
    low = min(s, ORDER - s)
    signature = r.to_bytes(32, "big") + low.to_bytes(32, "big")
    assert PublicKey.from_did(SECP256K1["did"]).verify(signature, b"m")


def test_what_cannot_sign_says_so() -> None:
    with pytest.raises(UnsupportedKey, match=r"sign with a key of kind 0x1301 \(secp256k1 priv"):
        Signer.from_text(SECP256K1["private"])
    other = ec.generate_private_key(ec.SECP256R1())
    pem = other.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with pytest.raises(UnsupportedKey, match="ed25519"):
        Signer.from_pem(pem)


@pytest.mark.parametrize("kind", [0x1200, 0x1205, 0x1300, 0x7777])
def test_what_cannot_verify_says_so(kind: int) -> None:
    with pytest.raises(UnsupportedKey, match=f"verify with a key of kind {kind:#x}"):
        PublicKey.from_tagged(varint.encode(kind) + bytes(33))


@pytest.mark.parametrize(
    "text", ["", "gCa", "M", "M!!!!", "MgC", "MgCa", "MgCa9UfZv+yI5", "z6MkmT9j6fVZqzXV8u2wVV"]
)
def test_malformed_private_texts(text: str) -> None:
    with pytest.raises((Malformed, UnsupportedKey)) as caught:
        Signer.from_text(text)
    assert text == "" or text not in str(caught.value)  # a private key is never quoted


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN PRIVATE KEY-----\n", b"\xff\x00"])
def test_malformed_pem(pem: bytes) -> None:
    with pytest.raises(Malformed, match="PKCS#8"):
        Signer.from_pem(pem)


def test_an_encrypted_pem_is_refused() -> None:
    encrypted = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    with pytest.raises(Malformed, match="unencrypted"):
        Signer.from_pem(encrypted)


@given(st.binary(max_size=70))
def test_any_bytes_are_a_key_or_an_error_of_ours(tagged: bytes) -> None:
    for prefix in (b"", b"\xed\x01", b"\xe7\x01", b"\xe7\x01\x02"):
        try:
            key = PublicKey.from_tagged(prefix + tagged)
        except (Malformed, UnsupportedKey):
            continue
        assert not key.verify(bytes(64), b"message")


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200), st.integers(0, 511))
def test_signatures_are_those_of_another_implementation(
    seed: bytes, message: bytes, bit: int
) -> None:
    ours, theirs = Signer.from_seed(seed), SigningKey(seed)
    signature = ours.sign(message)
    assert signature == theirs.sign(message).signature
    assert ours.public.verify(signature, message)
    damaged = bytearray(signature)
    damaged[bit // 8] ^= 1 << bit % 8
    assert not ours.public.verify(bytes(damaged), message)
    with pytest.raises(BadSignatureError):
        VerifyKey(ours.public.tagged[2:]).verify(message, bytes(damaged))


def test_a_key_signs_for_a_service() -> None:
    service = person(1).issuing_as("did:web:up.forge.example")
    assert service.did == "did:web:up.forge.example"
    assert service.public == person(1).public
    assert service.sign(b"m") == person(1).sign(b"m")
    with pytest.raises(Malformed):
        person(1).issuing_as("up.forge.example")


def test_a_private_key_is_never_printed() -> None:
    signer = person(7)
    for shown in (repr(signer), str(signer), repr([signer])):
        assert signer.to_text() not in shown and bytes([7] * 32).hex() not in shown
        assert signer.did in shown
