"""Tokens made here are good elsewhere, and the other way round."""

from __future__ import annotations

from typing import Any

import dag_cbor
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiformats import CID

from ingot.codec import cid
from ingot.codec.dag_cbor import Cid
from ingot.forge import signature, token, validate
from ingot.forge.errors import InvalidSignature
from ingot.forge.keys import Signer
from ingot.forge.token import Delegation, Invocation, Receipt
from tests.forge import builders, oracle
from tests.forge.builders import payload_of
from tests.forge.support import NOW, person


def foreign(value: Any) -> Any:
    """A value of ours as dag-cbor has it."""
    if type(value) is Cid or (type(value) is bytes and value[:4] == b"\x01\x71\x12\x20"):
        return CID.decode(bytes(value))
    if isinstance(value, dict):
        return {key: foreign(item) for key, item in value.items()}
    return [foreign(item) for item in value] if isinstance(value, list) else value


@pytest.mark.slow
@given(builders.TOKENS)
def test_ours_are_good_there(made: Delegation | Invocation | Receipt) -> None:
    tag, payload = oracle.verify(made.data)
    assert tag == made.envelope.tag
    assert payload == foreign(payload_of(made))
    assert str(oracle.cid_of(made.data)) == cid.to_text(made.cid)
    if isinstance(made, Invocation):
        task = {key: payload[key] for key in ("sub", "cmd", "args", "nonce")}
        assert str(oracle.cid_of(dag_cbor.encode(task))) == cid.to_text(made.task)


@pytest.mark.slow
@given(builders.invocations(), st.integers(1, 5))
def test_theirs_are_good_here(like: Invocation, number: int) -> None:
    seed = bytes([number]) * 32
    payload = foreign(payload_of(like)) | {"iss": oracle.did_of(seed)}
    data = oracle.sign(seed, like.envelope.tag, payload)
    read = token.decode(data)
    signature.check(read, NOW, {})
    assert foreign(payload_of(read)) == payload
    assert read.cid == bytes(oracle.cid_of(data))


def test_their_chain_is_valid_here() -> None:
    space, agent, service = (bytes([number]) * 32 for number in (1, 2, 3))
    first = oracle.sign(
        space,
        "ucan/dlg@1.0.0-rc.1",
        {
            "iss": oracle.did_of(space),
            "aud": oracle.did_of(agent),
            "sub": oracle.did_of(space),
            "cmd": "/blob",
            "pol": [["<", ".blob.size", 1 << 20]],
            "exp": None,
            "nonce": b"",
        },
    )
    payload = {
        "iss": oracle.did_of(agent),
        "aud": oracle.did_of(service),
        "sub": oracle.did_of(space),
        "cmd": "/blob/add",
        "args": {"blob": {"size": 1410, "digest": b"\x12\x20" + bytes(32)}},
        "prf": [oracle.cid_of(first)],
        "exp": NOW + 30,
        "nonce": b"n",
    }
    asked = token.decode(oracle.sign(agent, "ucan/inv@1.0.0-rc.1", payload))
    given_ = token.decode(first)
    assert isinstance(asked, Invocation) and isinstance(given_, Delegation)
    validate.validate(asked, {given_.cid: given_}, NOW, {})

    answer = token.answer(
        Signer.from_seed(service), ran=asked.task, out={"ok": {}}, expires=None, nonce=b""
    )
    _, receipt = oracle.verify(answer.data)
    task = {key: payload[key] for key in ("sub", "cmd", "args", "nonce")}
    assert receipt["args"] == {"out": {"ok": {}}, "ran": oracle.cid_of(dag_cbor.encode(task))}


@given(st.data())
def test_both_refuse_the_same_damage(data: st.DataObject) -> None:
    made = builders.ask(person(1), person(1).did)
    at = data.draw(st.integers(3, 66))
    changed = bytearray(made.data)
    changed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InvalidSignature):
        signature.check(token.decode(bytes(changed)), NOW, {})
    with pytest.raises(AssertionError):
        oracle.verify(bytes(changed))
