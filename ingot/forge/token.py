"""Tokens: delegations, invocations and their receipts, built, encoded and decoded.

    delegate(signer, audience=..., ...) -> Delegation    issuer gives audience a right over subject
    invoke(signer, command=..., ...) -> Invocation       issuer uses such a right
    answer(signer, ran=task, out=...) -> Receipt         the executor's answer to a task
    decode(data) -> Delegation | Invocation | Receipt    nothing verified: see ``validate``

A token keeps the bytes it was signed in, and two tokens are equal when their bytes are. What is
built is decoded before it is returned, so the limits are the same both ways: FormatError. Fields
that the protocol does not know are ignored. Randomness and time are the caller's: ``nonce``
(UCAN_NONCE_BYTES random ones, or none where repeating the task shall be the same task) and
``expires`` (Unix seconds, Forge's own default is UCAN_TTL_S from now; None for never) have no
default.

The *task* of an invocation is its subject, command, arguments and nonce; receipts and promises
name the CID of the task, proofs and ``/ucan/conclude`` that of the token. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from ingot.codec import cid, dag_cbor
from ingot.codec.dag_cbor import Cid
from ingot.forge import command as commands
from ingot.forge import did, envelope, values
from ingot.forge.envelope import Envelope
from ingot.forge.errors import Malformed, Refused
from ingot.forge.keys import Signs
from ingot.forge.policy import Policy
from ingot.limits import UCAN_INTEGER_MAX

RECEIPT: Final = "/ucan/assert/receipt"


@dataclass(frozen=True, eq=False, repr=False)
class Token:
    """What all tokens have. Shown as its kind, command and CID: what is in it may be secret."""

    envelope: Envelope
    issuer: str
    command: str
    nonce: bytes
    expires: int | None
    meta: Mapping[str, object] | None

    @property
    def data(self) -> bytes:
        """The token's own bytes."""
        return self.envelope.data

    @cached_property
    def cid(self) -> bytes:
        return cid.of_structure(self.data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and self.data == other.data

    def __hash__(self) -> int:
        return hash(self.data)

    def __repr__(self) -> str:
        return f"{type(self).__name__.lower()} {self.command} {cid.to_text(self.cid)}"


@dataclass(frozen=True, eq=False, repr=False)
class Delegation(Token):
    """``issuer`` lets ``audience`` use ``command`` on ``subject``; None is what issuer may."""

    audience: str
    subject: str | None
    policy: Policy
    not_before: int | None


@dataclass(frozen=True, eq=False, repr=False)
class Invocation(Token):
    """``issuer`` asks for ``command`` on ``subject``; ``proofs`` are CIDs of delegations."""

    subject: str
    audience: str | None
    arguments: Mapping[str, object]
    proofs: tuple[bytes, ...]
    issued_at: int | None
    cause: bytes | None

    @property
    def executor(self) -> str:
        """Who is to run it and to issue the receipt."""
        return self.audience or self.subject

    @cached_property
    def task_block(self) -> bytes:
        """The task, with the arguments in the bytes they were signed in."""
        head = dag_cbor.encode({"cmd": self.command, "sub": self.subject})
        arguments = self.envelope.payload_bytes("args")
        nonce = dag_cbor.encode("nonce") + dag_cbor.encode(self.nonce)
        return b"\xa4" + head[1:] + dag_cbor.encode("args") + arguments + nonce

    @cached_property
    def task(self) -> bytes:
        """The task's CID."""
        return cid.of_structure(self.task_block)


@dataclass(frozen=True, eq=False, repr=False)
class Receipt(Invocation):
    """The executor's answer to the task ``ran``: ``out`` is a map of ``ok`` or of ``error``."""

    @property
    def ran(self) -> bytes:
        return bytes(values.take(self.arguments, Cid, "ran"))

    @property
    def out(self) -> Mapping[str, object]:
        return values.take(self.arguments, dict, "out")

    def result(self) -> object:
        """The ``ok`` value; raises the executor's error as Refused."""
        if "ok" in self.out:
            return self.out["ok"]
        error = self.out["error"]
        try:
            name = values.take(error, str, "name")
            message = values.get(error, str, "message") or ""
        except Malformed:
            name, message = "UnknownError", repr(error)[:200]
        raise Refused(name, message, self.issuer)


def delegate(
    signer: Signs,
    *,
    audience: str,
    subject: str | None,
    command: str,
    expires: int | None,
    nonce: bytes,
    policy: Sequence[object] = (),
    not_before: int | None = None,
    meta: Mapping[str, object] | None = None,
) -> Delegation:
    """A delegation signed by ``signer``; ``policy`` is a list of statements (``policy``)."""
    payload = {
        "aud": audience,
        "cmd": command,
        "exp": expires,
        "iss": signer.did,
        "nbf": not_before,
        "pol": list(policy),
        "sub": subject,
        "meta": meta and dict(meta),
        "nonce": nonce,
    }
    made = decode(envelope.seal(envelope.DELEGATION, _without_absent(payload), signer))
    assert isinstance(made, Delegation)
    return made


def invoke(
    signer: Signs,
    *,
    subject: str,
    command: str,
    arguments: Mapping[str, object],
    expires: int | None,
    nonce: bytes,
    audience: str | None = None,
    proofs: Sequence[bytes] = (),
    issued_at: int | None = None,
    cause: bytes | None = None,
    meta: Mapping[str, object] | None = None,
) -> Invocation:
    """An invocation signed by ``signer``; ``audience`` is the executor where it is not the
    subject, ``proofs`` are the CIDs of a chain, root first."""
    payload = {
        "aud": audience,
        "cmd": command,
        "exp": expires,
        "iat": issued_at,
        "iss": signer.did,
        "prf": [Cid(proof) for proof in proofs],
        "sub": subject,
        "args": dict(arguments),
        "meta": meta and dict(meta),
        "cause": Cid(cause) if cause is not None else None,
        "nonce": nonce,
    }
    made = decode(envelope.seal(envelope.INVOCATION, _without_absent(payload), signer))
    assert isinstance(made, Invocation)
    return made


def answer(
    signer: Signs,
    *,
    ran: bytes,
    out: Mapping[str, object],
    expires: int | None,
    nonce: bytes,
    issued_at: int | None = None,
) -> Receipt:
    """The receipt for the task ``ran``; ``out`` is ``{"ok": value}`` (``{}`` when there is nothing
    to say) or ``{"error": error.value()}``; Malformed for another. It has no audience: Forge's
    services insist on that."""
    made = invoke(
        signer,
        subject=signer.did,
        command=RECEIPT,
        arguments={"out": dict(out), "ran": Cid(ran)},
        expires=expires,
        nonce=nonce,
        issued_at=issued_at,
    )
    if not isinstance(made, Receipt):
        raise Malformed(("out",), "a map of ok or of error", ", ".join(out))
    return made


def _without_absent(payload: Mapping[str, object]) -> dict[str, object]:
    nullable = ("exp", "sub")
    return {key: value for key, value in payload.items() if value is not None or key in nullable}


def decode(data: bytes) -> Delegation | Invocation | Receipt:
    """A token from its bytes; FormatError, with the offset, when it is none."""
    opened = envelope.open_token(bytes(data))
    with opened.located():
        return _delegation(opened) if opened.kind == envelope.DELEGATION else _invocation(opened)


def _delegation(opened: Envelope) -> Delegation:
    payload = opened.payload
    return Delegation(
        envelope=opened,
        issuer=_checked(did.check, payload, "iss"),
        command=_checked(commands.check, payload, "cmd"),
        nonce=values.take(payload, bytes, "nonce"),
        expires=_expires(payload),
        meta=values.get(payload, dict, "meta"),
        audience=_checked(did.check, payload, "aud"),
        subject=_checked(did.check, payload, "sub") if _present(payload, "sub") else None,
        policy=_policy(payload),
        not_before=_time(payload, "nbf"),
    )


def _invocation(opened: Envelope) -> Invocation:
    payload = opened.payload
    make = Receipt if _answers(payload) else Invocation
    cause = values.get(payload, Cid, "cause")
    proofs = values.take(payload, list, "prf")
    return make(
        envelope=opened,
        issuer=_checked(did.check, payload, "iss"),
        command=_checked(commands.check, payload, "cmd"),
        nonce=values.take(payload, bytes, "nonce"),
        expires=_expires(payload),
        meta=values.get(payload, dict, "meta"),
        subject=_checked(did.check, payload, "sub"),
        audience=_checked(did.check, payload, "aud") if payload.get("aud") is not None else None,
        arguments=values.take(payload, dict, "args"),
        proofs=tuple(bytes(values.take(payload, Cid, "prf", at)) for at in range(len(proofs))),
        issued_at=_time(payload, "iat"),
        cause=bytes(cause) if cause is not None else None,
    )


def _answers(payload: Mapping[str, object]) -> bool:
    """Whether an invocation has the shape of a receipt."""
    arguments = payload.get("args")
    if payload.get("cmd") != RECEIPT or payload.get("iss") != payload.get("sub"):
        return False
    if not isinstance(arguments, dict) or type(arguments.get("ran")) is not Cid:
        return False
    out = arguments.get("out")
    return isinstance(out, dict) and len(out) == 1 and bool(out.keys() & {"ok", "error"})


def _checked(check: Callable[[str], str], payload: Mapping[str, object], name: str) -> str:
    text = values.take(payload, str, name)
    with values.under(name):
        return check(text)


def _policy(payload: Mapping[str, object]) -> Policy:
    statements = values.take(payload, list, "pol")
    with values.under("pol"):
        return Policy.parse(statements)


def _present(payload: Mapping[str, object], name: str) -> bool:
    """Whether a field that may be null, but is always there, is not null."""
    if name not in payload:
        raise Malformed((), f"a field {name!r}", "none")
    return payload[name] is not None


def _expires(payload: Mapping[str, object]) -> int | None:
    return _time(payload, "exp") if _present(payload, "exp") else None


def _time(payload: Mapping[str, object], name: str) -> int | None:
    seconds = values.get(payload, int, name)
    if seconds is not None and abs(seconds) > UCAN_INTEGER_MAX:
        raise Malformed((name,), "a time of 64 bits", str(seconds))
    return seconds
