"""Keys: an ed25519 key that signs, and public keys that verify.

Signing is ed25519. Verifying is ed25519 and secp256k1 (low-S only, as Forge's own verifier); keys
of other kinds are known by name and refused as UnsupportedKey. A private key has two texts: PKCS#8
PEM, and Forge's own, ``M`` and the padded base64 of ``80 26`` and the 32-byte seed. The signatures
and curves are those of the ``cryptography`` package. Pure: no randomness either, a new key is made
from 32 random bytes.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ingot.codec import varint
from ingot.errors import FormatError
from ingot.forge import did, varsig
from ingot.forge.errors import Malformed, UnsupportedKey
from ingot.forge.varsig import Algorithm

ED25519_PUBLIC: Final = 0xED
SECP256K1_PUBLIC: Final = 0xE7
ED25519_PRIVATE: Final = 0x1300
_NAMES: Final = {
    ED25519_PUBLIC: "ed25519",
    SECP256K1_PUBLIC: "secp256k1",
    0x1200: "P-256",
    0x1205: "RSA",
    ED25519_PRIVATE: "ed25519 private",
    0x1301: "secp256k1 private",
}
_SECP256K1_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


class Signs(Protocol):
    """Whatever can sign tokens as ``did``: a Signer, or one who attests for it (``signature``)."""

    @property
    def did(self) -> str: ...

    @property
    def header(self) -> bytes:
        """The varsig header of its signatures."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The signature element of a token whose signed bytes are ``message``."""
        ...


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that verifies; ``tagged`` is the varint of its kind and its bytes, as in a did:key."""

    algorithm: Algorithm
    tagged: bytes
    _key: Ed25519PublicKey | ec.EllipticCurvePublicKey = field(repr=False, compare=False)

    @classmethod
    def from_tagged(cls, tagged: bytes) -> PublicKey:
        """UnsupportedKey for a key of another kind, Malformed for what is no key."""
        kind, key = _split(tagged)
        try:
            if kind == ED25519_PUBLIC:
                return cls(Algorithm.ED25519, tagged, Ed25519PublicKey.from_public_bytes(key))
            if kind == SECP256K1_PUBLIC and len(key) == 33:
                point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), key)
                return cls(Algorithm.ES256K, tagged, point)
        except ValueError as error:
            raise Malformed((), f"a key of kind {_NAMES[kind]}", str(error)) from None
        except UnsupportedAlgorithm as error:
            raise UnsupportedKey(f"this build of cryptography: {error}") from None
        raise _unsupported(kind, "verify with")

    @classmethod
    def from_did(cls, key_did: str) -> PublicKey:
        """The key that a did:key is; errors as ``from_tagged``."""
        return cls.from_tagged(did.tagged_key(key_did))

    @property
    def did(self) -> str:
        return did.of_key(self.tagged)

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether this key made the signature: 64 bytes, of secp256k1 r and a low s."""
        if len(signature) != 64:
            return False
        try:
            if isinstance(self._key, Ed25519PublicKey):
                self._key.verify(signature, message)
            else:
                r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
                if s > _SECP256K1_ORDER // 2:
                    return False
                der = encode_dss_signature(r, s)
                self._key.verify(der, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signer:
    """An ed25519 key, and the DID it signs as: its did:key, or a service whose key it is."""

    did: str
    _key: Ed25519PrivateKey = field(repr=False, compare=False)

    @classmethod
    def from_seed(cls, seed: bytes) -> Signer:
        """From the 32 bytes that an ed25519 private key is."""
        if len(seed) != 32:
            raise Malformed((), "a seed of 32 bytes", f"{len(seed)}")
        return cls._of(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def from_tagged(cls, tagged: bytes) -> Signer:
        """From ``80 26`` and the seed, as the meta of an invocation carries a key."""
        kind, seed = _split(tagged)
        if kind != ED25519_PRIVATE:
            raise _unsupported(kind, "sign with")
        return cls.from_seed(seed)

    @classmethod
    def from_text(cls, text: str) -> Signer:
        """From ``MgC...``; Malformed when it is no key's text, UnsupportedKey for other kinds."""
        if not text.startswith("M"):
            raise Malformed((), "a private key's text, which starts with M", "another letter")
        try:
            tagged = b64decode(text[1:], validate=True)
        except binascii.Error:
            raise Malformed(
                (), "a private key in padded base64 behind the M", "no base64"
            ) from None
        return cls.from_tagged(tagged)

    @classmethod
    def from_pem(cls, pem: bytes) -> Signer:
        """From an unencrypted PKCS#8 PEM."""
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise Malformed((), "an unencrypted PKCS#8 PEM", str(error)) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise UnsupportedKey(f"the PEM holds a {type(key).__name__}; identities are ed25519")
        return cls._of(key)

    @classmethod
    def _of(cls, key: Ed25519PrivateKey) -> Signer:
        tagged = varint.encode(ED25519_PUBLIC) + key.public_key().public_bytes_raw()
        return cls(did.of_key(tagged), key)

    @property
    def header(self) -> bytes:
        return varsig.encode(Algorithm.ED25519)

    @property
    def public(self) -> PublicKey:
        public = self._key.public_key()
        tagged = varint.encode(ED25519_PUBLIC) + public.public_bytes_raw()
        return PublicKey(Algorithm.ED25519, tagged, public)

    def issuing_as(self, service: str) -> Signer:
        """The same key, signing for another DID whose document lists it."""
        return replace(self, did=did.check(service))

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)

    def to_tagged(self) -> bytes:
        return varint.encode(ED25519_PRIVATE) + self._key.private_bytes_raw()

    def to_text(self) -> str:
        return "M" + b64encode(self.to_tagged()).decode()

    def to_pem(self) -> bytes:
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def _split(tagged: bytes) -> tuple[int, bytes]:
    try:
        kind, at = varint.decode(tagged)
    except FormatError as error:
        raise Malformed((), f"a key behind {error.expected}", error.found) from None
    return kind, tagged[at:]


def _unsupported(kind: int, use: str) -> UnsupportedKey:
    name = _NAMES.get(kind, "unknown")
    return UnsupportedKey(f"cannot {use} a key of kind {kind:#x} ({name})")
