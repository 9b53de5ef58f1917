"""Whose signature a token carries, and the signature of an authority in place of an issuer's.

A token is signed rightly when one of the methods that may sign for its issuer, at the time of
asking, made the signature: ``capabilityDelegation`` methods that of a delegation,
``capabilityInvocation`` methods that of an invocation. The key decides how it is verified, and the
token's header has to agree.

An issuer without keys (did:mailto) is attested: in place of the signature stands a whole
invocation ``/ucan/attest/proof`` by the authority that the issuer's document names, whose argument
``proof`` is the CID (raw, sha2-256) of the signed bytes.

``documents`` are the DID documents that the caller resolved; ``unresolved`` says which ones a set
of tokens needs. A did:key needs none. Pure; ``now`` is in Unix seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ingot.codec import cid
from ingot.codec.dag_cbor import Cid
from ingot.errors import FormatError
from ingot.forge import did, token, varsig
from ingot.forge import document as docs
from ingot.forge.document import Document, Method
from ingot.forge.errors import (
    DIDKeyResolutionError,
    InvalidSignature,
    Malformed,
    UnsupportedKey,
    UnverifiableSignature,
)
from ingot.forge.keys import Signs
from ingot.forge.token import Delegation, Invocation, Token
from ingot.forge.varsig import Algorithm

ATTEST = "/ucan/attest/proof"


def check(tok: Token, now: int, documents: Mapping[str, Document]) -> None:
    """DIDKeyResolutionError, UnverifiableSignature or InvalidSignature unless rightly signed."""
    _check(tok, now, documents, attested=True)


def _check(tok: Token, now: int, documents: Mapping[str, Document], attested: bool) -> None:
    delegates = isinstance(tok, Delegation)
    document = docs.resolve(tok.issuer, documents)
    methods = document.may_sign(docs.DELEGATION if delegates else docs.INVOCATION, now)
    usable = 0
    for method in methods:
        if method.attests:
            usable += attested
            if attested and _attested(tok, method, now, documents):
                return
            continue
        try:
            key = method.key()
        except (UnsupportedKey, Malformed) as error:
            if did.is_key(tok.issuer):
                raise DIDKeyResolutionError(f"{tok.issuer}: {error}") from None
            continue
        usable += 1
        opened = tok.envelope
        if key.algorithm is opened.algorithm and key.verify(opened.signature, opened.signed):
            return
    if not usable:
        raise UnverifiableSignature(f"none of {len(methods)} methods of {tok.issuer} can be used")
    raise InvalidSignature(f"no method of {tok.issuer} made the signature of the {tok}")


def _attested(tok: Token, method: Method, now: int, documents: Mapping[str, Document]) -> bool:
    """Whether the authority that ``method`` names vouches for the token's signed bytes."""
    opened = tok.envelope
    if opened.algorithm is not Algorithm.ATTESTED:
        return False
    try:
        inner = token.decode(opened.signature)
    except FormatError:
        return False
    if not isinstance(inner, Invocation) or inner.command != ATTEST:
        return False
    if inner.subject != method.authority or inner.issuer != method.authority:
        return False
    proof = inner.arguments.get("proof")
    if type(proof) is not Cid or proof != cid.of_chunk(opened.signed):
        return False
    # An authority signs with a key of its own: attestations are not nested.
    _check(inner, now, documents, attested=False)
    return True


def unresolved(tokens: Iterable[Token], documents: Mapping[str, Document]) -> set[str]:
    """The DIDs whose documents are needed to check these tokens and are not in ``documents``.

    A document that arrives may name an authority: ask again until the answer is empty.
    """
    needed = {tok.issuer for tok in tokens}
    for name in list(needed):
        if name in documents:
            needed |= {method.authority for method in documents[name].methods if method.attests}
    return {name for name in needed if not did.is_key(name) and name not in documents}


@dataclass(frozen=True, slots=True)
class Attestor:
    """Signs as an account without a key, by the word of an authority."""

    did: str
    authority: Signs

    @property
    def header(self) -> bytes:
        return varsig.encode(Algorithm.ATTESTED)

    def sign(self, message: bytes) -> bytes:
        inner = token.invoke(
            self.authority,
            subject=self.authority.did,
            command=ATTEST,
            arguments={"proof": Cid(cid.of_chunk(message))},
            expires=None,
            nonce=b"",
        )
        return inner.data
