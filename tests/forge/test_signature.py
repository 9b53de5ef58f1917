"""Whose signature counts: keys of documents, accounts that somebody attests, and everybody else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from ingot.codec import cid, dag_cbor
from ingot.codec.dag_cbor import Cid
from ingot.forge import document, keys, signature, token, varsig
from ingot.forge.document import Document, Method
from ingot.forge.errors import DIDKeyResolutionError, InvalidSignature, UnverifiableSignature
from ingot.forge.signature import Attestor
from ingot.forge.varsig import Algorithm
from tests.forge.builders import ask, grant, rebuild
from tests.forge.support import NONCE, NOW, load, person, signers

ATTESTED = load("attested-delegation.json")
FLOW = load("flow-tokens.json")
ACCOUNT = ATTESTED["payload"]["iss"]
AUTHORITY = signers()[ATTESTED["authority"]]
KNOWN = {ACCOUNT: document.of_account(ACCOUNT, AUTHORITY.did)}
SERVICE = "did:web:up.forge.example"


def documents(**relationships: Any) -> dict[str, Document]:
    """The service's document: methods of persons 1 and 2, and relationships by name."""
    methods = [
        Method(f"{SERVICE}#key-{number}", "Multikey", person(number).did.removeprefix("did:key:"))
        for number in (1, 2)
    ]
    listed = {
        name: tuple(f"{SERVICE}#key-{number}" for number in numbers)
        for name, numbers in relationships.items()
    }
    return {SERVICE: Document(SERVICE, tuple(methods), listed)}


def test_every_token_of_the_flow() -> None:
    for row in [*FLOW["tokens"], FLOW["secp256k1Invocation"]]:
        signature.check(token.decode(bytes.fromhex(row["tokenHex"])), NOW, {})


def test_an_attested_delegation() -> None:
    data = bytes.fromhex(ATTESTED["tokenHex"])
    read = token.decode(data)
    assert cid.to_text(read.cid) == ATTESTED["cid"]
    assert read.envelope.signed.hex() == ATTESTED["signedHex"]
    assert read.envelope.signature.hex() == ATTESTED["innerInvocationHex"]
    inner = token.decode(read.envelope.signature)
    assert isinstance(inner, token.Invocation)
    assert cid.to_text(inner.arguments["proof"]) == ATTESTED["innerProofCid"]
    signature.check(read, NOW, KNOWN)
    made = rebuild("ucan/dlg@", ATTESTED["payload"], Attestor(ACCOUNT, AUTHORITY))
    assert made.data == data


@dataclass
class Forged:
    """Somebody who puts any token in place of an attestation."""

    did: str
    inner: Any

    @property
    def header(self) -> bytes:
        return varsig.encode(Algorithm.ATTESTED)

    def sign(self, message: bytes) -> bytes:
        data: bytes = self.inner(message)
        return data


def attesting(**changes: Any) -> Forged:
    def inner(message: bytes) -> bytes:
        fields: dict[str, Any] = {
            "subject": AUTHORITY.did,
            "command": signature.ATTEST,
            "arguments": {"proof": Cid(cid.of_chunk(message))},
            "expires": None,
            "nonce": b"",
        }
        signer = changes.get("signer", AUTHORITY)
        fields |= {name: value for name, value in changes.items() if name != "signer"}
        return token.invoke(signer, **fields).data

    return Forged(ACCOUNT, inner)


def test_the_forger_of_these_tests_can_attest() -> None:
    signature.check(grant(attesting(), person(1).did, ACCOUNT), NOW, KNOWN)


@pytest.mark.parametrize(
    "forged",
    [
        attesting(command="/ucan/attest/other"),
        attesting(subject=person(9).did),
        attesting(signer=person(9)),
        attesting(signer=person(9), subject=person(9).did),
        attesting(arguments={}),
        attesting(arguments={"proof": Cid(cid.of_chunk(b"another"))}),
        attesting(arguments={"proof": cid.of_chunk(b"bytes")}),
        Forged(ACCOUNT, lambda message: b"no token"),
        Forged(ACCOUNT, lambda message: b""),
        Forged(ACCOUNT, lambda message: grant(AUTHORITY, person(1).did, None).data),
        Forged(ACCOUNT, lambda message: bytes.fromhex(ATTESTED["innerInvocationHex"])),
    ],
)
def test_attestations_that_are_none(forged: Any) -> None:
    with pytest.raises(InvalidSignature):
        signature.check(grant(forged, person(1).did, ACCOUNT), NOW, KNOWN)


def test_an_attestation_is_not_a_signature_of_a_key() -> None:
    """Neither a key's signature under an attesting header, nor an account's by a key."""
    forged: Any = Forged(person(1).did, person(1).sign)
    with pytest.raises(InvalidSignature):
        signature.check(ask(forged, person(1).did), NOW, {})
    with pytest.raises(InvalidSignature):
        signature.check(ask(AUTHORITY.issuing_as(ACCOUNT), ACCOUNT), NOW, KNOWN)


def test_attestations_are_not_nested() -> None:
    other = "did:mailto:example.com:other"
    known = {**KNOWN, other: document.of_account(other, ACCOUNT)}
    attestor = Attestor(other, Attestor(ACCOUNT, AUTHORITY))
    nested = token.delegate(
        attestor, audience=other, subject=None, command="/", expires=None, nonce=NONCE
    )
    with pytest.raises(UnverifiableSignature):
        signature.check(nested, NOW, known)
    itself = {other: document.of_account(other, other)}
    with pytest.raises(UnverifiableSignature):
        signature.check(ask(attesting_as(other), other), NOW, itself)


def attesting_as(name: str) -> Any:
    def inner(message: bytes) -> bytes:
        return token.invoke(
            Forged(name, lambda _: b""),
            subject=name,
            command=signature.ATTEST,
            arguments={"proof": Cid(cid.of_chunk(message))},
            expires=None,
            nonce=b"",
        ).data

    return Forged(name, inner)


def test_a_service_signs_with_its_listed_keys() -> None:
    by_first, by_second = (person(number).issuing_as(SERVICE) for number in (1, 2))
    for signer in (by_first, by_second):
        signature.check(ask(signer, SERVICE), NOW, documents())
    stranger = person(3).issuing_as(SERVICE)
    with pytest.raises(InvalidSignature, match=SERVICE):
        signature.check(ask(stranger, SERVICE), NOW, documents())


def test_relationships_divide_invocations_from_delegations() -> None:
    known = documents(capabilityInvocation=[1], capabilityDelegation=[2])
    first, second = (person(number).issuing_as(SERVICE) for number in (1, 2))
    signature.check(ask(first, SERVICE), NOW, known)
    signature.check(grant(second, SERVICE, None), NOW, known)
    for wrong in (ask(second, SERVICE), grant(first, SERVICE, None)):
        with pytest.raises(InvalidSignature):
            signature.check(wrong, NOW, known)
    with pytest.raises(UnverifiableSignature, match="none of 0 methods"):
        signature.check(ask(first, SERVICE), NOW, documents(capabilityInvocation=[]))


def test_a_method_ends() -> None:
    ends = Method("", "Multikey", person(1).did.removeprefix("did:key:"), ends=NOW)
    known = {SERVICE: Document(SERVICE, (ends,), {})}
    made = ask(person(1).issuing_as(SERVICE), SERVICE)
    signature.check(made, NOW - 1, known)
    with pytest.raises(UnverifiableSignature):
        signature.check(made, NOW, known)


def test_who_is_not_known() -> None:
    made = ask(person(1).issuing_as(SERVICE), SERVICE)
    with pytest.raises(DIDKeyResolutionError):
        signature.check(made, NOW, {})
    for tagged in (b"\x80\x24" + bytes(33), b"\xed\x01short", b"\xff", b""):
        unusable = document.did.of_key(tagged)
        with pytest.raises(DIDKeyResolutionError):
            signature.check(ask(person(1).issuing_as(unusable), unusable), NOW, {})


def test_methods_that_cannot_be_used_are_passed_over() -> None:
    strange = (
        Method("", "JsonWebKey2020"),
        Method("", "Multikey", "zzzz"),
        Method(
            "", "Multikey", document.did.of_key(b"\x80\x24" + bytes(33)).removeprefix("did:key:")
        ),
    )
    made = ask(person(1).issuing_as(SERVICE), SERVICE)
    good = documents()[SERVICE].methods
    signature.check(made, NOW, {SERVICE: Document(SERVICE, strange + good, {})})
    with pytest.raises(UnverifiableSignature, match="none of 3"):
        signature.check(made, NOW, {SERVICE: Document(SERVICE, strange, {})})


@pytest.mark.parametrize("algorithm", [one for one in Algorithm if one is not Algorithm.ED25519])
def test_the_header_has_to_agree_with_the_key(algorithm: Algorithm) -> None:
    class Signer:
        did = person(1).did
        header = varsig.encode(algorithm)
        sign = staticmethod(person(1).sign)

    with pytest.raises(InvalidSignature):
        signature.check(ask(Signer(), Signer.did), NOW, {})


@pytest.mark.parametrize("length", [0, 3, 63, 65, 64])
def test_signatures_of_any_length_are_judged(length: int) -> None:
    value: Any = dag_cbor.decode(ask(person(1), person(1).did).data)
    read = token.decode(dag_cbor.encode([bytes(length), value[1]]))
    with pytest.raises(InvalidSignature):
        signature.check(read, NOW, {})


def test_which_documents_are_needed() -> None:
    service = ask(person(1).issuing_as(SERVICE), SERVICE)
    attested = token.decode(bytes.fromhex(ATTESTED["tokenHex"]))
    own = ask(person(2), SERVICE)
    assert signature.unresolved([service, attested, own], {}) == {SERVICE, ACCOUNT}
    assert signature.unresolved([service, attested, own], KNOWN) == {SERVICE}
    by_service = {ACCOUNT: document.of_account(ACCOUNT, SERVICE)}
    assert signature.unresolved([attested], by_service) == {SERVICE}
    assert signature.unresolved([attested], {**by_service, **documents()}) == set()
    made = grant(Attestor(ACCOUNT, person(1).issuing_as(SERVICE)), SERVICE, ACCOUNT)
    signature.check(made, NOW, {**by_service, **documents()})


def test_the_public_key_of_a_method_is_that_of_the_signer() -> None:
    assert keys.PublicKey.from_did(AUTHORITY.did) == AUTHORITY.public
