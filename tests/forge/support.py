"""The vectors of tests/vectors/forge, and the people who appear in them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from ingot.codec import cid
from ingot.forge.keys import Signer

VECTORS = Path(__file__).parents[1] / "vectors" / "forge"
NOW = 1767225600  # when the flow of the vectors happens
NONCE = bytes(range(16))


def load(name: str) -> Any:
    """A vector file, its DAG-JSON turned into the values that tokens hold."""
    return plain(json.loads((VECTORS / name).read_text()))


def plain(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"/"}:
        inner = value["/"]
        if isinstance(inner, str):
            return cid.from_text(inner)
        return base64.b64decode(inner["bytes"] + "==")
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def signers() -> dict[str, Signer]:
    """Everybody whose private key is in the vectors, by DID."""
    keys = load("keys.json")["ed25519"]
    flow = load("flow-tokens.json")
    found = [Signer.from_text("M" + key["private"].removeprefix("M")) for key in keys]
    found.append(Signer.from_text(flow["principals"]["spacePrivate"]))
    put = next(row for row in flow["tokens"] if "putKeySeedHex" in row)
    found.append(Signer.from_seed(bytes.fromhex(put["putKeySeedHex"])))
    return {signer.did: signer for signer in found}


def person(number: int) -> Signer:
    """Somebody of whom nothing is known but a key."""
    return Signer.from_seed(bytes([number]) * 32)
