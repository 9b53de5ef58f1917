"""Tokens by a second stack: dag-cbor, multiformats and PyNaCl, straight from the specification.

Nothing here uses ingot, so that a mistake of ours cannot cancel out.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import dag_cbor
from multiformats import CID, multibase
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

HEADER = bytes.fromhex("3401ed01ed011371")


def did_of(seed: bytes) -> str:
    public = bytes(SigningKey(seed).verify_key)
    return "did:key:" + multibase.encode(b"\xed\x01" + public, "base58btc")


def cid_of(block: bytes) -> CID:
    return CID("base32", 1, "dag-cbor", ("sha2-256", sha256(block).digest()))


def sign(seed: bytes, tag: str, payload: dict[str, Any]) -> bytes:
    signed = dag_cbor.encode({"h": HEADER, tag: payload})
    signature = SigningKey(seed).sign(signed).signature
    return dag_cbor.encode([signature, {"h": HEADER, tag: payload}])


def verify(data: bytes) -> tuple[str, dict[str, Any]]:
    """(tag, payload) of a token whose signature is its issuer's; AssertionError otherwise."""
    signature, signed = dag_cbor.decode(data)  # type: ignore[misc]
    assert isinstance(signature, bytes) and isinstance(signed, dict)
    tag = next(name for name in signed if name != "h")
    payload: Any = signed[tag]
    assert signed["h"] == HEADER
    key = multibase.decode(payload["iss"].removeprefix("did:key:"))
    assert key[:2] == b"\xed\x01"
    block = dag_cbor.encode(signed)
    assert data.endswith(block)
    try:
        VerifyKey(key[2:]).verify(block, signature)
    except BadSignatureError:
        raise AssertionError("not its issuer's signature") from None
    return tag, payload
