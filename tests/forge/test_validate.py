"""Validation: the fixtures' forty outcomes, which fault is named first, and receipts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.codec import cid, dag_cbor
from ingot.forge import document, errors, token
from ingot.forge.errors import InvalidAudience, InvalidClaim, InvalidSignature, UcanError
from ingot.forge.token import Delegation, Invocation, Token
from ingot.forge.validate import validate, validate_receipt
from tests.forge.builders import ask, grant
from tests.forge.support import NONCE, NOW, load, person

FIXTURES = [
    (kind, case)
    for name in ("ucantone-invocations.json", "ucan-wg-1.0.0-invocation.json")
    for kind in ("valid", "invalid")
    for case in load(name)[kind]
]


def outcome(invocation: Invocation, proofs: dict[bytes, Delegation], now: int = NOW) -> str:
    """The name of the error, or nothing."""
    try:
        validate(invocation, proofs, now, {})
    except UcanError as error:
        return error.name
    return ""


def test_there_are_forty() -> None:
    assert len(FIXTURES) == 40


@pytest.mark.parametrize(
    ("kind", "case"), FIXTURES, ids=lambda one: one if type(one) is str else one["name"]
)
def test_fixture(kind: str, case: dict[str, Any]) -> None:
    invocation = token.decode(case["invocation"])
    assert isinstance(invocation, Invocation)
    proofs = {}
    for data in case["proofs"]:
        proof = token.decode(data)
        assert isinstance(proof, Delegation)
        proofs[proof.cid] = proof
    expected = case["error"]["name"] if kind == "invalid" else ""
    assert outcome(invocation, proofs, case["time"]) == expected


def test_the_flow_of_the_vectors() -> None:
    tokens = [
        token.decode(bytes.fromhex(row["tokenHex"])) for row in load("flow-tokens.json")["tokens"]
    ]
    proofs = {tok.cid: tok for tok in tokens if isinstance(tok, Delegation)}
    for tok in tokens:
        if isinstance(tok, Invocation):
            assert outcome(tok, proofs) == ""


# -- which fault is named -----------------------------------------------------------------------

# In the order in which Forge's services look, with the name each has to be given.
FAULTS = {
    "signature": "InvalidSignature",
    "expired": "Expired",
    "missing proof": "UnavailableProof",
    "root signature": "InvalidSignature",
    "root expired": "Expired",
    "root early": "TooEarly",
    "root without subject": "InvalidClaim",
    "root of another subject": "InvalidSubject",
    "root by another": "InvalidAudience",
    "leaf signature": "InvalidSignature",
    "leaf expired": "Expired",
    "leaf early": "TooEarly",
    "leaf of another subject": "InvalidSubject",
    "leaf by another": "InvalidAudience",
    "leaf command aside": "ImpossibleAttenuation",
    "for another": "InvalidAudience",
    "command": "UnknownError",
    "root policy": "MatchError",
    "leaf policy": "ResolutionError",
}
ORDER = list(FAULTS)
SPACE, AGENT, SERVICE, STRANGER = (person(number) for number in range(1, 5))


def resigned(tok: Token, signature: bytes) -> Any:
    value: Any = dag_cbor.decode(tok.data)
    return token.decode(dag_cbor.encode([signature, value[1]]))


def scenario(faults: set[str]) -> tuple[Invocation, dict[bytes, Delegation]]:
    """space → agent → service, who asks for /blob/add; with faults."""
    root = grant(
        STRANGER if "root by another" in faults else SPACE,
        AGENT.did,
        None
        if "root without subject" in faults
        else STRANGER.did
        if "root of another subject" in faults
        else SPACE.did,
        "/blob",
        NOW if "root expired" in faults else None,
        not_before=NOW if "root early" in faults else NOW - 1,
        policy=[["==", ".size", 2 if "root policy" in faults else 1]],
    )
    if "root signature" in faults:
        root = resigned(root, bytes(64))
    leaf = grant(
        STRANGER if "leaf by another" in faults else AGENT,
        STRANGER.did if "for another" in faults else SERVICE.did,
        STRANGER.did if "leaf of another subject" in faults else None,
        "/index" if "leaf command aside" in faults else "/",
        NOW if "leaf expired" in faults else NOW + 1,
        not_before=NOW if "leaf early" in faults else 0,
        policy=[["==", ".missing", 1]] if "leaf policy" in faults else [],
    )
    if "leaf signature" in faults:
        leaf = resigned(leaf, b"sig")
    asked = ask(
        SERVICE,
        SPACE.did,
        "/index/add" if "command" in faults else "/blob/add",
        root,
        leaf,
        arguments={"size": 1},
        expires=NOW if "expired" in faults else NOW + 1,
    )
    if "signature" in faults:
        asked = resigned(asked, asked.envelope.signature[::-1])
    proofs = {proof.cid: proof for proof in (root, leaf)}
    if "missing proof" in faults:
        del proofs[leaf.cid]
    return asked, proofs


def test_without_a_fault_it_is_valid() -> None:
    assert outcome(*scenario(set())) == ""


@pytest.mark.parametrize("fault", ORDER)
def test_each_fault_by_itself(fault: str) -> None:
    assert outcome(*scenario({fault})) == FAULTS[fault]


@given(st.sets(st.sampled_from(ORDER), min_size=2, max_size=5))
def test_of_several_faults_the_first_is_named(faults: set[str]) -> None:
    if {"root without subject", "root of another subject"} <= faults:
        faults.remove("root of another subject")
    first = min(faults, key=ORDER.index)
    assert outcome(*scenario(faults)) == FAULTS[first]


def test_every_error_has_its_protocols_name() -> None:
    names = set(FAULTS.values()) | {"UnverifiableSignature", "DIDKeyResolutionError"}
    names |= {"HandlerNotFound", "MalformedArguments", "HandlerExecutionError"}
    for name in names:
        error = getattr(errors, name)("why")
        assert error.value() == {"name": name, "message": "why"}
        assert isinstance(error, UcanError)


# -- chains -------------------------------------------------------------------------------------


@dataclass
class Chain:
    """Delegations from the space, each to the next person."""

    people: list[Any] = field(default_factory=lambda: [SPACE])
    proofs: list[Delegation] = field(default_factory=list)

    def to(self, who: Any, command: str = "/", **more: Any) -> Chain:
        subject = SPACE.did if not self.proofs else None
        made = grant(self.people[-1], who.did, subject, command, **more)
        return Chain([*self.people, who], [*self.proofs, made])

    def outcome(self, command: str, **more: Any) -> str:
        asked = ask(self.people[-1], SPACE.did, command, *self.proofs, **more)
        return outcome(asked, {proof.cid: proof for proof in self.proofs})


@pytest.mark.parametrize(
    ("commands", "wanted", "expected"),
    [
        ([], "/anything", ""),
        (["/"], "/anything", ""),
        (["/blob"], "/blob", ""),
        (["/blob"], "/blob/add", ""),
        (["/blob"], "/blobs", "UnknownError"),
        (["/blob/add"], "/blob", "UnknownError"),
        (["/blob", "/blob/add"], "/blob/add", ""),
        (["/blob", "/blob/add"], "/blob/remove", "UnknownError"),
        (["/blob/add", "/blob"], "/blob/add", ""),
        (["/blob/add", "/blob"], "/blob/remove", "UnknownError"),
        (["/blob/add", "/"], "/index", "UnknownError"),
        (["/blob/add", "/", "/blob/remove"], "/blob/add", "ImpossibleAttenuation"),
        (["/blob", "/blob/add", "/index"], "/blob/add", "ImpossibleAttenuation"),
    ],
)
def test_commands_only_ever_narrow(commands: list[str], wanted: str, expected: str) -> None:
    chain = Chain()
    for number, command in enumerate(commands, 10):
        chain = chain.to(person(number), command)
    assert chain.outcome(wanted) == expected


def test_policies_add_up() -> None:
    chain = Chain().to(AGENT, policy=[[">", ".n", 1]]).to(SERVICE, policy=[["<", ".n", 5]])
    assert chain.outcome("/x", arguments={"n": 3}) == ""
    assert chain.outcome("/x", arguments={"n": 1}) == "MatchError"
    assert chain.outcome("/x", arguments={"n": 5}) == "MatchError"
    assert chain.outcome("/x", arguments={}) == "ResolutionError"


def test_policies_of_a_chain_share_their_work() -> None:
    every = [["all", ".n", ["==", ".", 0]]] * 8
    arguments = {"n": [0] * 8000}  # 64,000 values for one of the policies
    chain = Chain().to(AGENT, policy=every)
    assert chain.outcome("/x", arguments=arguments) == ""
    assert chain.to(SERVICE, policy=every).outcome("/x", arguments=arguments) == "MatchError"


def test_the_order_of_proofs_counts() -> None:
    chain = Chain().to(AGENT).to(SERVICE)
    turned = Chain(chain.people, chain.proofs[::-1])
    assert turned.outcome("/x") == "InvalidClaim"
    assert Chain(chain.people, chain.proofs[:1]).outcome("/x") == "InvalidAudience"
    assert Chain(chain.people, chain.proofs * 2).outcome("/x") == "InvalidAudience"


def test_the_subject_needs_no_proof_and_nobody_else_does_without() -> None:
    assert outcome(ask(SPACE, SPACE.did), {}) == ""
    assert outcome(ask(AGENT, SPACE.did), {}) == "InvalidClaim"


def test_a_proof_is_the_one_with_that_cid() -> None:
    """A stranger's delegation under the CID of another is not looked up by what it says."""
    chain = Chain().to(AGENT)
    asked = ask(AGENT, SPACE.did, "/x", *chain.proofs)
    assert outcome(asked, {}) == "UnavailableProof"
    with pytest.raises(errors.UnavailableProof, match=cid.to_text(chain.proofs[0].cid)):
        validate(asked, {}, NOW, {})


def test_expiry_is_exact() -> None:
    made = ask(SPACE, SPACE.did, expires=NOW)
    assert outcome(made, {}, NOW - 1) == ""
    assert outcome(made, {}, NOW) == "Expired"
    chain = Chain().to(AGENT, not_before=NOW)
    asked = ask(AGENT, SPACE.did, "/x", *chain.proofs)
    proofs = {proof.cid: proof for proof in chain.proofs}
    assert outcome(asked, proofs, NOW) == "TooEarly"
    assert outcome(asked, proofs, NOW + 1) == ""


def test_services_are_known_by_their_documents() -> None:
    name = "did:web:up.forge.example"
    known = {name: document.of_service(name, SERVICE.did)}
    proof = grant(SPACE, name, SPACE.did)
    asked = ask(SERVICE.issuing_as(name), SPACE.did, "/x", proof)
    validate(asked, {proof.cid: proof}, NOW, known)
    assert outcome(asked, {proof.cid: proof}) == "DIDKeyResolutionError"
    by_key = ask(SERVICE, SPACE.did, "/x", proof)  # the same key under its own name
    with pytest.raises(InvalidAudience, match=re.escape(f"is for {name}, not for {SERVICE.did}")):
        validate(by_key, {proof.cid: proof}, NOW, known)


# -- receipts -----------------------------------------------------------------------------------

TASK = cid.of_structure(b"task")


def receipt(signer: Any = SERVICE, ran: bytes = TASK, expires: int | None = None) -> token.Receipt:
    return token.answer(signer, ran=ran, out={"ok": {}}, expires=expires, nonce=NONCE)


def judge(made: token.Receipt) -> None:
    validate_receipt(made, task=TASK, executor=SERVICE.did, now=NOW, documents={})


def test_a_receipt_is_the_executors_answer_to_the_task() -> None:
    judge(receipt())
    judge(receipt(expires=NOW - 1))  # good, only not to be kept
    with pytest.raises(InvalidClaim):
        judge(receipt(ran=cid.of_structure(b"another")))
    with pytest.raises(InvalidAudience):
        judge(receipt(STRANGER))
    with pytest.raises(InvalidSignature):
        judge(receipt(STRANGER.issuing_as(SERVICE.did)))
    with pytest.raises(InvalidSignature):
        judge(resigned(receipt(), bytes(64)))
