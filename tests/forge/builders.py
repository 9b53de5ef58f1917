"""Tokens for tests: those of the vectors built again from their payloads, and random ones."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ingot.codec import cid
from ingot.codec.dag_cbor import Cid
from ingot.forge import token
from ingot.forge.keys import Signs
from ingot.forge.token import Delegation, Invocation, Receipt
from tests.forge.support import NONCE, NOW, person

DAMAGES = ("flip", "cut", "insert", "repeat")


def rebuild(tag: str, payload: dict[str, Any], signer: Signs) -> Delegation | Invocation | Receipt:
    """A token out of the payload that a vector lists, through the functions that clients use."""
    if tag.startswith("ucan/dlg@"):
        return token.delegate(
            signer,
            audience=payload["aud"],
            subject=payload["sub"],
            command=payload["cmd"],
            policy=payload["pol"],
            expires=payload["exp"],
            not_before=payload.get("nbf"),
            nonce=payload["nonce"],
            meta=payload.get("meta"),
        )
    if payload["cmd"] == token.RECEIPT:
        return token.answer(
            signer,
            ran=payload["args"]["ran"],
            out=payload["args"]["out"],
            expires=payload["exp"],
            issued_at=payload.get("iat"),
            nonce=payload["nonce"],
        )
    return token.invoke(
        signer,
        audience=payload.get("aud"),
        subject=payload["sub"],
        command=payload["cmd"],
        arguments=payload["args"],
        proofs=payload.get("prf", []),
        expires=payload["exp"],
        issued_at=payload.get("iat"),
        cause=payload.get("cause"),
        nonce=payload["nonce"],
        meta=payload.get("meta"),
    )


def payload_of(tok: Delegation | Invocation) -> dict[str, Any]:
    """What a vector would list of a token."""
    shown: dict[str, Any] = {
        "iss": tok.issuer,
        "aud": tok.audience,
        "sub": tok.subject,
        "cmd": tok.command,
        "exp": tok.expires,
        "nonce": tok.nonce,
        "meta": tok.meta,
    }
    if isinstance(tok, Delegation):
        shown |= {"pol": tok.policy.statements, "nbf": tok.not_before}
    else:
        shown |= {"args": tok.arguments, "prf": list(tok.proofs), "iat": tok.issued_at}
        shown |= {"cause": tok.cause}
    return {
        key: value for key, value in shown.items() if value is not None or key in FIXED[type(tok)]
    }


FIXED = {Delegation: ("exp", "sub"), Invocation: ("exp",), Receipt: ("exp",)}


def grant(
    giver: Signs,
    audience: str,
    subject: str | None,
    command: str = "/",
    expires: int | None = None,
    **more: Any,
) -> Delegation:
    """A delegation of which a test says only what it is about."""
    fields = {"nonce": NONCE, **more}
    return token.delegate(
        giver, audience=audience, subject=subject, command=command, expires=expires, **fields
    )


def ask(
    who: Signs, subject: str, command: str = "/blob/add", *proofs: Delegation, **more: Any
) -> Invocation:
    """An invocation of which a test says only what it is about."""
    fields = {"arguments": {}, "expires": None, "nonce": NONCE, **more}
    names = [proof.cid for proof in proofs]
    return token.invoke(who, subject=subject, command=command, proofs=names, **fields)


PEOPLE = st.integers(1, 5).map(person)
LINKS = st.binary(max_size=4).map(lambda block: Cid(cid.of_structure(block)))
COMMANDS = st.sampled_from(["/", "/blob", "/blob/add", "/content/retrieve", "/ucan/conclude"])
TIMES = st.none() | st.integers(NOW - 9, NOW + 9) | st.sampled_from([0, -1, (1 << 63) - 1])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 64), (1 << 64) - 1) | TEXT | st.binary() | LINKS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
MAPS = st.dictionaries(TEXT, VALUES, max_size=4)
POLICIES = st.lists(
    st.sampled_from(
        [
            ["==", ".blob.digest", b"\x12\x20"],
            ["not", ["like", ".a", "b*"]],
            ["any", ".to", ["or", []]],
        ]
    ),
    max_size=3,
)


@st.composite
def delegations(draw: st.DrawFn) -> Delegation:
    return token.delegate(
        draw(PEOPLE),
        audience=draw(PEOPLE).did,
        subject=draw(st.none() | PEOPLE.map(lambda one: one.did)),
        command=draw(COMMANDS),
        expires=draw(TIMES),
        nonce=draw(st.binary(max_size=16)),
        policy=draw(POLICIES),
        not_before=draw(TIMES),
        meta=draw(st.none() | MAPS),
    )


@st.composite
def invocations(draw: st.DrawFn) -> Invocation:
    return token.invoke(
        draw(PEOPLE),
        subject=draw(PEOPLE).did,
        command=draw(COMMANDS),
        arguments=draw(MAPS),
        expires=draw(TIMES),
        nonce=draw(st.binary(max_size=16)),
        audience=draw(st.none() | PEOPLE.map(lambda one: one.did)),
        proofs=draw(st.lists(LINKS, max_size=3)),
        issued_at=draw(TIMES),
        cause=draw(st.none() | LINKS),
        meta=draw(st.none() | MAPS),
    )


@st.composite
def receipts(draw: st.DrawFn) -> Receipt:
    return token.answer(
        draw(PEOPLE),
        ran=draw(LINKS),
        out={draw(st.sampled_from(["ok", "error"])): draw(VALUES)},
        expires=draw(TIMES),
        nonce=draw(st.binary(max_size=16)),
        issued_at=draw(TIMES),
    )


TOKENS = delegations() | invocations() | receipts()


def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """``data`` with one to three faults in it."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(changed) - 1, 0)))
        how = draw(st.sampled_from(DAMAGES))
        if how == "flip" and changed:
            changed[at] ^= draw(st.integers(1, 255))
        elif how == "cut":
            del changed[at:]
        elif how == "insert":
            changed[at:at] = draw(st.binary(min_size=1, max_size=3))
        else:
            changed[at:at] = changed[at : at + draw(st.integers(1, 40))]
    return bytes(changed)
