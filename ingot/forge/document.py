"""DID documents: which keys may sign for a DID, and for what, at a given time.

A document comes from its JSON (``parse``), from a did:key (``of_key``), from a key that one holds
oneself (``of_service``), or from knowing who attests for an account (``of_account``). Faults of a
document are Malformed; a method that this code cannot use is kept, and skipped when verifying.
Who may sign:

    the relationship is absent or null    every method
    it is a list                          exactly the methods it names: none, when it is empty
    a method's expires or revoked time    from that second on, not any more

Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ingot.codec import base58
from ingot.errors import FormatError
from ingot.forge import did, values
from ingot.forge.errors import DIDKeyResolutionError, Malformed, UnsupportedKey
from ingot.forge.keys import PublicKey
from ingot.limits import DID_DOCUMENT_BYTES_MAX, DID_DOCUMENT_METHODS_MAX

DELEGATION: Final = "capabilityDelegation"
INVOCATION: Final = "capabilityInvocation"
RELATIONSHIPS: Final = ("authentication", "assertionMethod", DELEGATION, INVOCATION)
_KEY_TYPES: Final = ("Multikey", "Ed25519VerificationKey2020")
_ATTESTATION: Final = "AuthorityAttestation"


@dataclass(frozen=True, slots=True)
class Method:
    """One way of signing for a DID."""

    id: str
    type: str
    multibase: str = ""  # of a key, its did:key without the front
    authority: str = ""  # of an attestation, who attests
    ends: int | None = None  # Unix seconds

    def key(self) -> PublicKey:
        """UnsupportedKey where this code has no verifier, Malformed where it is no key."""
        if self.type not in _KEY_TYPES:
            raise UnsupportedKey(f"cannot verify with a method of type {self.type!r}")
        if not self.multibase.startswith("z"):
            raise Malformed((self.id,), "a key in base58btc", repr(self.multibase[:9]))
        try:
            return PublicKey.from_tagged(base58.decode(self.multibase[1:]))
        except FormatError as error:
            raise Malformed((self.id,), error.expected, error.found) from None

    @property
    def attests(self) -> bool:
        return self.type == _ATTESTATION


@dataclass(frozen=True, slots=True)
class Document:
    """``relationships`` has only those that the document declares."""

    id: str
    methods: tuple[Method, ...]
    relationships: Mapping[str, tuple[str, ...]]

    def may_sign(self, relationship: str, now: int) -> list[Method]:
        """The methods that count for ``relationship`` at ``now``."""
        named = self.relationships.get(relationship)
        return [
            method
            for method in self.methods
            if (named is None or method.id in named) and (method.ends is None or method.ends > now)
        ]

    def to_json(self) -> dict[str, object]:
        """What a service publishes at its did.json. Times at which methods end are left out."""
        methods = []
        for method in self.methods:
            shown = {"id": method.id, "type": method.type, "controller": self.id}
            shown |= {"publicKeyMultibase": method.multibase} if method.multibase else {}
            methods.append(shown | ({"authority": method.authority} if method.authority else {}))
        document = {"@context": "https://www.w3.org/ns/did/v1.1", "id": self.id}
        listed = {name: list(ids) for name, ids in self.relationships.items()}
        return {**document, "verificationMethod": methods, **listed}


def of_key(key_did: str) -> Document:
    """The document that a did:key is."""
    return _with_one_key(key_did, key_did.removeprefix("did:key:"), key_did)


def of_service(service: str, key_did: str) -> Document:
    """What a service with this key publishes about itself."""
    return _with_one_key(service, "key-0", key_did)


def of_account(account: str, authority: str) -> Document:
    """Of an account without keys (did:mailto) whose tokens ``authority`` attests."""
    return Document(account, (Method("", _ATTESTATION, authority=authority),), {})


def _with_one_key(owner: str, fragment: str, key_did: str) -> Document:
    method = Method(f"{owner}#{fragment}", "Multikey", key_did.removeprefix("did:key:"))
    return Document(owner, (method,), dict.fromkeys(RELATIONSHIPS, (method.id,)))


def parse(data: bytes) -> Document:
    """A document from its JSON."""
    if len(data) > DID_DOCUMENT_BYTES_MAX:
        raise Malformed((), f"at most {DID_DOCUMENT_BYTES_MAX} bytes", str(len(data)))
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed((), "a DID document in JSON", str(error)) from None
    owner = did.check(values.take(value, str, "id"))
    methods = []
    for at in range(len(values.take(value, list, "verificationMethod"))):
        methods.append(_method(owner, value, "verificationMethod", at))
    relationships = {}
    for name in RELATIONSHIPS:
        listed = values.get(value, list, name)
        if listed is None:
            continue
        ids = []
        for at, entry in enumerate(listed):
            if isinstance(entry, dict):  # a method that stands here and nowhere else
                methods.append(_method(owner, value, name, at))
                ids.append(methods[-1].id)
            else:
                ids.append(_absolute(owner, values.take(value, str, name, at)))
        relationships[name] = tuple(ids)
    if len(methods) > DID_DOCUMENT_METHODS_MAX:
        found = f"{len(methods)} in that of {owner}"
        raise Malformed((), f"at most {DID_DOCUMENT_METHODS_MAX} methods in a document", found)
    return Document(owner, tuple(methods), relationships)


def _method(owner: str, document: object, *path: str | int) -> Method:
    ends = [_seconds(document, *path, name) for name in ("expires", "revoked")]
    return Method(
        _absolute(owner, values.get(document, str, *path, "id") or ""),
        values.take(document, str, *path, "type"),
        values.get(document, str, *path, "publicKeyMultibase") or "",
        values.get(document, str, *path, "authority") or "",
        min((end for end in ends if end is not None), default=None),
    )


def _absolute(owner: str, reference: str) -> str:
    return owner + reference if reference.startswith("#") else reference


def _seconds(document: object, *path: str | int) -> int | None:
    text = values.get(document, str, *path)
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise Malformed(path, "a time such as 2026-01-01T00:00:00Z", repr(text[:40])) from None
    if when.tzinfo is None:
        raise Malformed(path, "a time with its zone", repr(text[:40]))
    return int(when.timestamp())


def resolve(name: str, documents: Mapping[str, Document]) -> Document:
    """The document of a DID: a did:key's own, else out of ``documents``."""
    if did.is_key(name):
        return of_key(name)
    document = documents.get(name)
    if document is None:
        raise DIDKeyResolutionError(f"no document of {name} is known")
    if document.id != name:
        raise DIDKeyResolutionError(f"the document found for {name} is that of {document.id}")
    return document
