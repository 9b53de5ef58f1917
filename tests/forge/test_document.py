"""DID documents: who may sign for what and until when, and documents that are none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.forge import document
from ingot.forge.document import DELEGATION, INVOCATION
from ingot.forge.errors import DIDKeyResolutionError, Malformed, UnsupportedKey
from ingot.forge.keys import PublicKey
from ingot.limits import DID_DOCUMENT_BYTES_MAX
from tests.forge.support import NOW, load, person

TABLES = load("did.json")
CASES = {case["name"].split(":")[0]: case for case in TABLES["relationshipCases"]}
KEYS = [person(number).did.removeprefix("did:key:") for number in (1, 2)]
OWNER = "did:example:123"


def made(members: str = "", **first: object) -> document.Document:
    """A document with the methods key-1 and key-2, and the JSON of further members."""
    methods: list[dict[str, object]] = [
        {"id": f"{OWNER}#key-{at}", "type": "Multikey", "publicKeyMultibase": key}
        for at, key in enumerate(KEYS, 1)
    ]
    methods[0] |= first
    text = json.dumps({"id": OWNER, "verificationMethod": methods})
    return document.parse(f"{text[:-1]}{',' if members else ''}{members}}}".encode())


def signing(found: document.Document, relationship: str, now: int = NOW) -> list[str]:
    return [method.id for method in found.may_sign(relationship, now)]


BOTH = [f"{OWNER}#key-1", f"{OWNER}#key-2"]


def test_no_relationship_members() -> None:
    case = CASES["no relationship members"]
    found = document.parse(json.dumps(case["document"]).encode())
    for relationship in (DELEGATION, INVOCATION):
        assert signing(found, relationship) == case[relationship]
    key = found.methods[0].key()
    assert key == PublicKey.from_did("did:key:" + found.methods[0].multibase)


def test_declared_empty() -> None:
    case = CASES["declared empty"]
    found = made(case["relationshipJson"])
    assert len(signing(found, DELEGATION)) == case["capabilityDelegationCount"] == 0
    assert signing(found, INVOCATION) == BOTH


def test_null_means_undeclared() -> None:
    found = made(CASES["null means undeclared"]["relationshipJson"])
    assert signing(found, DELEGATION) == BOTH


def test_declared_subset() -> None:
    members = CASES["declared subset"]["relationshipJson"].split(" with ")[0]
    assert signing(made(members), DELEGATION) == BOTH[1:]


def test_references_may_be_short_and_methods_may_stand_in_the_list() -> None:
    inside = {"id": "#key-3", "type": "Multikey", "publicKeyMultibase": KEYS[0]}
    found = made(f'"capabilityInvocation": ["#key-2", {json.dumps(inside)}]')
    assert signing(found, INVOCATION) == [BOTH[1], f"{OWNER}#key-3"]


@pytest.mark.parametrize("name", ["expires", "revoked"])
@pytest.mark.parametrize("text", ["2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00"])
def test_a_method_ends_with_its_second(name: str, text: str) -> None:
    found = made(**{name: text})
    assert signing(found, INVOCATION, NOW - 1) == BOTH
    assert signing(found, INVOCATION, NOW) == BOTH[1:]


def test_the_earlier_end_counts() -> None:
    found = made(expires="2030-01-01T00:00:00Z", revoked="2026-01-01T00:00:00Z")
    assert signing(found, INVOCATION, NOW) == BOTH[1:]


def test_the_document_of_a_key() -> None:
    expected = TABLES["didKeyDocument"]
    assert document.of_key(expected["id"]).to_json() == expected
    assert document.parse(json.dumps(expected).encode()) == document.of_key(expected["id"])


def test_the_document_of_a_service() -> None:
    found = document.of_service("did:web:up.forge.example", person(1).did)
    shown: Any = found.to_json()
    assert [method["id"] for method in shown["verificationMethod"]] == [
        "did:web:up.forge.example#key-0"
    ]
    for name in document.RELATIONSHIPS:
        assert shown[name] == ["did:web:up.forge.example#key-0"]
    assert document.parse(json.dumps(shown).encode()) == found
    assert found.methods[0].key() == person(1).public


def test_a_key_of_the_older_kind() -> None:
    found = made(type="Ed25519VerificationKey2020", id="#owner")
    assert found.methods[0].id == f"{OWNER}#owner" and found.methods[0].key() == person(1).public


def test_the_document_of_an_account() -> None:
    expected = load("attested-delegation.json")["didDocument"]
    found = document.parse(json.dumps(expected).encode())
    assert found == document.of_account(expected["id"], found.methods[0].authority)
    assert found.methods[0].attests and found.methods[0] in found.may_sign(DELEGATION, NOW)


def test_keys_that_are_none() -> None:
    with pytest.raises(UnsupportedKey, match="JsonWebKey2020"):
        made(type="JsonWebKey2020").methods[0].key()
    for key in ("", "zzzz", "z0", "mAbc", KEYS[0][:-1]):
        with pytest.raises((Malformed, UnsupportedKey)):
            made(publicKeyMultibase=key).methods[0].key()


def test_resolving() -> None:
    service = document.of_service("did:web:a.example", person(1).did)
    known = {service.id: service, "did:web:b.example": service}
    assert document.resolve(service.id, known) is service
    assert document.resolve(person(2).did, {}) == document.of_key(person(2).did)
    with pytest.raises(DIDKeyResolutionError, match="no document"):
        document.resolve("did:web:c.example", known)
    with pytest.raises(DIDKeyResolutionError, match=r"is that of did:web:a\.example"):
        document.resolve("did:web:b.example", known)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"id": "did:example:1"}',
        b'{"id": "example", "verificationMethod": []}',
        b'{"id": 1, "verificationMethod": []}',
        b'{"id": "did:e:1", "verificationMethod": {}}',
        b'{"id": "did:e:1", "verificationMethod": [1]}',
        b'{"id": "did:e:1", "verificationMethod": [{}]}',
        b'{"id": "did:e:1", "verificationMethod": [{"type": "M", "expires": 1}]}',
        b'{"id": "did:e:1", "verificationMethod": [{"type": "M", "expires": "soon"}]}',
        b'{"id": "did:e:1", "verificationMethod": [{"type": "M", "expires": "2026-01-01"}]}',
        b'{"id": "did:e:1", "verificationMethod": [], "authentication": "x"}',
        b'{"id": "did:e:1", "verificationMethod": [], "authentication": [1]}',
        b'{"id": "did:e:1", "verificationMethod": []}' + b" " * DID_DOCUMENT_BYTES_MAX,
    ],
)
def test_what_is_no_document(data: bytes) -> None:
    with pytest.raises(Malformed):
        document.parse(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
TIMES = st.datetimes().map(str) | st.sampled_from(["9999-12-31T23:59:59-23:59", "0001-01-01Z"])


@pytest.mark.slow
@given(st.data())
def test_any_json_is_a_document_or_an_error_of_ours(data: st.DataObject) -> None:
    members = ("id", "publicKeyMultibase", "authority", "expires", "revoked")
    fields = {name: JSON | TIMES for name in members}
    method = data.draw(
        st.fixed_dictionaries({"type": st.sampled_from(["Multikey", "x"])}, optional=fields) | JSON
    )
    value = {"id": OWNER, "verificationMethod": [method], data.draw(st.text()): data.draw(JSON)}
    for name in document.RELATIONSHIPS:
        if data.draw(st.booleans()):
            value[name] = data.draw(JSON | st.lists(st.just(method) | st.text(), max_size=2))
    try:
        found = document.parse(json.dumps(value).encode())
    except Malformed:
        return
    for each in found.may_sign(INVOCATION, NOW):
        try:
            each.key()
        except (Malformed, UnsupportedKey):
            continue
