"""Whether an invocation is allowed: its signature, its time and its chain of proofs.

``validate`` is what an executor runs before it does anything, in the order in which Forge's
services look, so that the same fault has the same name everywhere:

    1  the invocation's signature, then its expiry
    2  every proof it names is at hand                              UnavailableProof
    3  each proof, root first: signature, expiry, start of validity; the root is about a subject
       (InvalidClaim), the invocation's own (InvalidSubject); it was given by whom the one before
       gave it to, the first by the subject (InvalidAudience); of its command and those before one
       covers the other (ImpossibleAttenuation)
    4  the last one was given to the invocation's issuer            InvalidAudience, InvalidClaim
    5  the narrowest command covers the invocation's, every policy holds

``validate_receipt`` is what a client runs on an answer. Revocations are not looked at: Forge's
validator has none. Pure; ``now`` is in Unix seconds, ``documents`` as in ``signature``.
"""

from __future__ import annotations

from collections.abc import Mapping

from ingot.codec import cid
from ingot.forge import command, signature
from ingot.forge.document import Document
from ingot.forge.errors import (
    Expired,
    ImpossibleAttenuation,
    InvalidAudience,
    InvalidClaim,
    InvalidSubject,
    TooEarly,
    UnavailableProof,
    UnknownError,
)
from ingot.forge.policy import Matcher
from ingot.forge.token import Delegation, Invocation, Receipt, Token


def validate(
    invocation: Invocation,
    delegations: Mapping[bytes, Delegation],
    now: int,
    documents: Mapping[str, Document],
) -> None:
    """Raise the UcanError that Forge's services would answer with, or return.

    ``delegations`` are those that came along, by CID (``Container.delegations``).
    """
    signature.check(invocation, now, documents)
    _check_expiry(invocation, now)
    proofs = [_proof(name, delegations) for name in invocation.proofs]
    principal, allowed = invocation.subject, command.TOP
    for at, proof in enumerate(proofs):
        _check_link(proof, now, documents, root=at == 0, subject=invocation.subject)
        if proof.issuer != principal:
            raise InvalidAudience(f"the {proof} is from {proof.issuer}, not from {principal}")
        allowed = _narrower(allowed, proof)
        principal = proof.audience
    if principal != invocation.issuer:
        if not proofs:
            raise InvalidClaim(f"{invocation.issuer} shows no proof about {principal}")
        raise InvalidAudience(f"the last proof is for {principal}, not for {invocation.issuer}")
    if not command.covers(allowed, invocation.command):
        raise UnknownError(f"the proofs allow {allowed}, not {invocation.command}")
    matcher = Matcher()
    for proof in proofs:
        proof.policy.check(invocation.arguments, matcher)


def _check_link(
    proof: Delegation,
    now: int,
    documents: Mapping[str, Document],
    *,
    root: bool,
    subject: str,
) -> None:
    signature.check(proof, now, documents)
    _check_expiry(proof, now)
    if proof.not_before and now <= proof.not_before:
        raise TooEarly(f"the {proof} is not valid until {proof.not_before}")
    if root and proof.subject is None:
        raise InvalidClaim(f"the {proof} comes first and is about no subject")
    if proof.subject is not None and proof.subject != subject:
        raise InvalidSubject(f"the {proof} is about {proof.subject}, not about {subject}")


def _narrower(allowed: str, proof: Delegation) -> str:
    if command.covers(allowed, proof.command):
        return proof.command
    if command.covers(proof.command, allowed):
        return allowed
    raise ImpossibleAttenuation(f"the {proof} allows {proof.command}, those before {allowed}")


def _proof(name: bytes, delegations: Mapping[bytes, Delegation]) -> Delegation:
    proof = delegations.get(name)
    if proof is None:
        raise UnavailableProof(f"the proof {cid.to_text(name)} was not sent along")
    return proof


def _check_expiry(tok: Token, now: int) -> None:
    if tok.expires is not None and now >= tok.expires:
        raise Expired(f"the {tok} expired at {tok.expires}")


def validate_receipt(
    receipt: Receipt,
    *,
    task: bytes,
    executor: str,
    now: int,
    documents: Mapping[str, Document],
) -> None:
    """Raise a UcanError unless this is the answer of ``executor`` to ``task``.

    An expired receipt is a good one (a failed handler's lasts 30 s): it is only not to be kept.
    """
    if receipt.ran != task:
        raise InvalidClaim(f"a receipt for {cid.to_text(receipt.ran)}, not for {cid.to_text(task)}")
    if receipt.issuer != executor:
        raise InvalidAudience(f"a receipt by {receipt.issuer}, not by {executor}")
    signature.check(receipt, now, documents)
