"""Tokens: the vectors byte for byte, round trips, limits, and bytes that are no token."""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.codec import cid, dag_cbor
from ingot.codec.dag_cbor import Cid
from ingot.errors import FormatError
from ingot.forge import token
from ingot.forge.errors import Malformed, Refused, UnknownError
from ingot.forge.token import Delegation, Invocation, Receipt
from ingot.limits import UCAN_BYTES_MAX, UCAN_ENTRIES_MAX, UCAN_NAME_BYTES_MAX
from tests.forge import builders
from tests.forge.builders import ask, grant, payload_of, rebuild
from tests.forge.support import NONCE, NOW, load, person, signers

FLOW = load("flow-tokens.json")
SIGNERS = signers()
TASK = cid.of_structure(b"task")


@pytest.mark.parametrize("row", FLOW["tokens"], ids=lambda row: row["name"])
def test_the_flow_is_reproduced(row: dict[str, Any]) -> None:
    data = bytes.fromhex(row["tokenHex"])
    made = rebuild(row["tag"], row["payload"], SIGNERS[row["payload"]["iss"]])
    assert made.data == data
    read = token.decode(data)
    assert read == made and type(read) is type(made)
    assert payload_of(read) == row["payload"]
    assert cid.to_text(read.cid) == row["cid"]
    assert sha256(read.envelope.signed).hexdigest() == row["signedBytesSha256"]
    assert read.envelope.signature.hex() == row["signatureHex"]
    if "taskCid" in row:
        assert isinstance(read, Invocation)
        assert cid.to_text(read.task) == row["taskCid"]
        assert read.task_block.hex() == row["taskHex"]


def test_the_flow_has_all_kinds() -> None:
    kinds = [type(token.decode(bytes.fromhex(row["tokenHex"]))) for row in FLOW["tokens"]]
    assert [kinds.count(kind) for kind in (Delegation, Invocation, Receipt)] == [6, 12, 7]


@pytest.mark.parametrize("name", ["ucantone-delegation.json", "ucan-wg-1.0.0-delegation.json"])
def test_delegation_fixtures(name: str) -> None:
    fixture = load(name)
    for case in fixture["valid"]:
        read = token.decode(base64.b64decode(case["token"] + "==="))
        assert isinstance(read, Delegation)
        expected = case["envelope"]["payload"]
        expected |= {"nonce": base64.b64decode(expected["nonce"] + "===")}
        assert payload_of(read) == expected
        assert read.envelope.tag == f"ucan/dlg@{fixture['version']}"
        assert cid.to_text(read.cid) == case["cid"]
        signature = base64.b64decode(case["envelope"]["signature"] + "===")
        assert read.envelope.signature == signature
        again = rebuild("ucan/dlg@", expected, SIGNERS[expected["iss"]])
        assert (again.data == read.data) is (fixture["version"] == "1.0.0-rc.1")


@pytest.mark.parametrize("name", ["ucantone-invocations.json", "ucan-wg-1.0.0-invocation.json"])
def test_invocation_fixtures_are_canonical(name: str) -> None:
    fixture = load(name)
    for case in [*fixture["valid"], *fixture["invalid"]]:
        for data in (case["invocation"], *case["proofs"]):
            read = token.decode(data)
            assert dag_cbor.encode(dag_cbor.decode(data)) == data == read.data


def test_a_secp256k1_token() -> None:
    row = FLOW["secp256k1Invocation"]
    read = token.decode(bytes.fromhex(row["tokenHex"]))
    assert payload_of(read) == row["payload"]
    assert cid.to_text(read.cid) == row["cid"]
    assert read.envelope.signature.hex() == row["signatureHex"]


@given(builders.TOKENS)
def test_round_trip(made: Delegation | Invocation | Receipt) -> None:
    read = token.decode(made.data)
    assert type(read) is type(made)
    assert read == made and hash(read) == hash(made) and read.cid == made.cid
    assert payload_of(read) == payload_of(made)
    signer = next(one for one in map(person, range(1, 6)) if one.did == made.issuer)
    again = rebuild(made.envelope.tag, payload_of(read), signer)
    assert again.data == made.data
    assert dag_cbor.encode(dag_cbor.decode(made.data)) == made.data


@given(st.data())
def test_damaged_tokens_are_refused_or_others(data: st.DataObject) -> None:
    made = data.draw(builders.TOKENS)
    changed = data.draw(st.composite(builders.damaged)(made.data))
    try:
        read = token.decode(changed)
    except FormatError as error:
        assert 0 <= error.offset <= len(changed)
        return
    assert read.data == changed and (read == made) is (changed == made.data)
    if isinstance(read, Invocation):
        assert cid.of_structure(read.task_block) == read.task


@given(st.binary(max_size=80))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(FormatError):
        token.decode(data)


def test_the_task_is_what_the_specification_says() -> None:
    """Of subject, command, arguments and nonce; nothing else changes it."""
    agent, other = person(1), person(2)
    made = ask(agent, other.did, arguments={"b": 1, "aa": [TASK]})
    task = {"sub": other.did, "cmd": "/blob/add", "args": {"b": 1, "aa": [TASK]}, "nonce": NONCE}
    assert made.task == cid.of_structure(dag_cbor.encode(task))
    same = ask(other, other.did, arguments=made.arguments, expires=NOW, issued_at=NOW, meta={})
    assert same.task == made.task and same != made
    for change in ({"nonce": b""}, {"arguments": {}}):
        assert ask(agent, other.did, **change).task != made.task
    assert ask(agent, agent.did, arguments=made.arguments).task != made.task


def test_arguments_in_the_order_of_a_go_map() -> None:
    """They are read, verified and hashed in the bytes in which they came."""
    made = ask(person(1), person(1).did, arguments={"headers": {"b": "", "aa": ""}})
    canonical, sorted_by_bytes = b"\xa2\x61b\x60\x62aa\x60", b"\xa2\x62aa\x60\x61b\x60"
    assert made.data.count(canonical) == 1
    data = made.data.replace(canonical, sorted_by_bytes)
    read = token.decode(data)
    assert isinstance(read, Invocation) and read.data == data != made.data
    assert read.arguments == made.arguments
    assert read.envelope.signed == made.envelope.signed.replace(canonical, sorted_by_bytes)
    assert read.task_block == made.task_block.replace(canonical, sorted_by_bytes)
    assert read.task != made.task
    unsorted = canonical.replace(b"\x61b", b"\x62ab")
    with pytest.raises(FormatError, match="sorts"):
        token.decode(made.data.replace(canonical, unsorted))


def test_fields_that_nobody_knows_are_ignored() -> None:
    value: Any = dag_cbor.decode(ask(person(1), person(1).did).data)
    value[1]["ucan/inv@1.0.0-rc.1"]["zzz"] = {"later": 1}
    data = dag_cbor.encode(value)
    read = token.decode(data)
    assert isinstance(read, Invocation) and read.data == data


@pytest.mark.parametrize("version", ["1.0.0-rc.1", "1.0.0"])
def test_both_versions_are_read(version: str) -> None:
    value: Any = dag_cbor.decode(grant(person(1), person(2).did, None).data)
    value[1] = {"h": value[1]["h"], f"ucan/dlg@{version}": value[1]["ucan/dlg@1.0.0-rc.1"]}
    assert token.decode(dag_cbor.encode(value)).envelope.tag == f"ucan/dlg@{version}"


BAD_DELEGATIONS: list[dict[str, Any]] = [
    {"iss": 1},
    {"iss": None},
    {"iss": "x"},
    {"iss": "did:web:" + "x" * UCAN_NAME_BYTES_MAX},
    {"aud": None},
    {"sub": 1},
    {"sub": ...},
    {"cmd": ...},
    {"cmd": "blob"},
    {"cmd": "/Blob"},
    {"cmd": "/" + "x" * UCAN_NAME_BYTES_MAX},
    {"exp": ...},
    {"exp": "soon"},
    {"exp": 1.5},
    {"exp": 1 << 63},
    {"nbf": b""},
    {"pol": ...},
    {"pol": None},
    {"pol": {}},
    {"pol": [["==", "x", 1]]},
    {"nonce": ...},
    {"nonce": "text"},
    {"nonce": Cid(TASK)},
    {"meta": []},
    {"meta": {"deep": [{"f": 0.5}]}},
    {"meta": {"long": [0] * (UCAN_ENTRIES_MAX + 1)}},
]
BAD_INVOCATIONS: list[dict[str, Any]] = [
    {"sub": None},
    {"sub": ...},
    {"aud": 1},
    {"aud": "nobody"},
    {"args": ...},
    {"args": []},
    {"args": {"a": 1.0}},
    {"prf": ...},
    {"prf": None},
    {"prf": [b"x"]},
    {"prf": [Cid(TASK)] * (UCAN_ENTRIES_MAX + 1)},
    {"iat": "x"},
    {"cause": bytes(TASK)},
]


def changed(tok: token.Token, fields: dict[str, Any]) -> bytes:
    """The bytes of a token with other fields; ``...`` leaves one out."""
    value: Any = dag_cbor.decode(tok.data)
    payload = value[1][tok.envelope.tag]
    for name, field in fields.items():
        payload[name] = field
        if field is ...:
            del payload[name]
    return dag_cbor.encode(value)


@pytest.mark.parametrize("fields", BAD_DELEGATIONS, ids=lambda fields: repr(fields)[:40])
def test_malformed_delegations(fields: dict[str, Any]) -> None:
    with pytest.raises(FormatError) as caught:
        token.decode(changed(grant(person(1), person(2).did, None), fields))
    (name,) = fields
    assert name in str(caught.value)


@pytest.mark.parametrize("fields", BAD_INVOCATIONS, ids=lambda fields: repr(fields)[:40])
def test_malformed_invocations(fields: dict[str, Any]) -> None:
    data = changed(ask(person(1), person(2).did), fields)
    with pytest.raises(FormatError) as caught:
        token.decode(data)
    (name,) = fields
    assert name in str(caught.value)
    if fields[name] is not ...:  # the offset leads to the field's value, or into it
        at = data.index(dag_cbor.encode(name)) + 1 + len(name)
        assert at <= caught.value.offset <= at + len(dag_cbor.encode(fields[name]))


GOOD = grant(person(1), person(2).did, None)
HEADER, TAG = GOOD.envelope.payload, GOOD.envelope.tag


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [b"s"],
        [b"s", {}, 1],
        {"a": 1},
        ["s", {"h": b"", TAG: {}}],
        [Cid(TASK), {"h": b"", TAG: {}}],
        [b"s", []],
        [b"s", {"h": b""}],
        [b"s", {TAG: {}}],
        [b"s", {"h": "text", TAG: {}}],
        [b"s", {"h": b"\x34\x01\xed\x01\xed\x01\x13\x71", TAG: []}],
        [b"s", {"h": b"\x34\x01\xed\x01\xed\x01\x13\x71", "ucan/dlg@2.0.0": {}}],
        [b"s", {"h": b"\x34\x01\xed\x01\xed\x01\x13\x71", "ucan/inv": {}}],
        [b"s", {"h": b"\x34\x01\xed\x01\xed\x01\x13\x71", TAG: {}}],
        [b"s", {"h": b"\x34\x02", TAG: dict(HEADER)}],
        [b"s", {"h": b"", TAG: dict(HEADER)}],
    ],
    ids=repr,
)
def test_malformed_envelopes(value: object) -> None:
    with pytest.raises(FormatError):
        token.decode(dag_cbor.encode(value))


def test_what_is_built_is_within_the_limits() -> None:
    someone = person(1)
    for arguments in (
        {"a": 0.5},
        {"a": [0] * (UCAN_ENTRIES_MAX + 1)},
        {"a": "x" * 9000},
        {"a": b"x" * UCAN_BYTES_MAX},
    ):
        with pytest.raises(FormatError):
            ask(someone, someone.did, arguments=arguments)
    with pytest.raises(FormatError):
        ask(someone, someone.did, "/Blob/Add")
    with pytest.raises(FormatError):
        ask(someone, "somebody")
    with pytest.raises(FormatError):
        grant(someone, someone.did, None, policy=[["=", ".", 1]])
    with pytest.raises((TypeError, ValueError)):
        ask(someone, someone.did, arguments={"a": {1: 2}})


def test_receipts() -> None:
    executor = person(3)
    good = token.answer(executor, ran=TASK, out={"ok": {"n": 1}}, expires=None, nonce=NONCE)
    assert (good.issuer, good.subject, good.audience) == (executor.did, executor.did, None)
    assert good.ran == TASK and good.result() == {"n": 1}
    assert type(good.ran) is bytes
    unit = token.answer(executor, ran=TASK, out={"ok": {}}, expires=None, nonce=NONCE)
    assert unit.result() == {}
    bad = token.answer(
        executor, ran=TASK, out={"error": UnknownError("no").value()}, expires=NOW, nonce=NONCE
    )
    with pytest.raises(Refused, match="UnknownError: no") as caught:
        bad.result()
    assert (caught.value.name, caught.value.message) == ("UnknownError", "no")
    assert caught.value.value()["name"] == "UnknownError"
    for out in ({}, {"ok": 1, "error": {}}, {"fine": 1}):
        with pytest.raises(Malformed):
            token.answer(executor, ran=TASK, out=out, expires=None, nonce=NONCE)


@pytest.mark.parametrize("error", [None, "text", [], {}, {"name": 1}, {"message": "m"}], ids=repr)
def test_errors_of_any_shape_are_raised(error: object) -> None:
    made = ask(
        person(1),
        person(1).did,
        token.RECEIPT,
        arguments={"out": {"error": error}, "ran": TASK_LINK},
    )
    assert isinstance(made, Receipt)
    with pytest.raises(Refused) as caught:
        made.result()
    assert caught.value.name == "UnknownError"


TASK_LINK = Cid(TASK)


def test_what_only_looks_like_a_receipt_is_an_invocation() -> None:
    me, other = person(1), person(2)
    shape: dict[str, Any] = {"out": {"ok": 1}, "ran": TASK_LINK}
    whole = ask(me, me.did, token.RECEIPT, arguments=shape, audience=other.did)
    assert isinstance(whole, Receipt)  # one with an audience is taken, none is written
    for fields in ({}, {"out": {"ok": 1}}, shape | {"ran": TASK}, shape | {"out": []}):
        assert type(ask(me, me.did, token.RECEIPT, arguments=fields)) is Invocation
    assert type(ask(me, other.did, token.RECEIPT, arguments=shape)) is Invocation


def test_who_executes() -> None:
    me, service, space = person(1), person(2), person(3)
    assert ask(me, space.did, audience=service.did).executor == service.did
    assert ask(me, space.did).executor == space.did


def test_a_token_shows_nothing_of_what_is_in_it() -> None:
    """The meta of a /http/put holds a private key."""
    secret = {"keys": person(9).to_tagged(), "text": person(9).to_text()}
    made = ask(person(1), person(1).did, "/http/put", meta=secret)
    shown = f"{made!r} {made} {[made]}"
    assert person(9).to_text() not in shown and repr(secret["keys"]) not in shown
    assert repr(made) == f"invocation /http/put {cid.to_text(made.cid)}"
    assert repr(grant(person(1), person(2).did, None)).startswith("delegation / bafyrei")
