"""sha2-256, MD5 and SHA-1: running hashers, one-shots and the CIDs made of them.

The twin of ``digest_c`` and its specification. Called by body (digests of objects and chunks),
segments (frames) and codec.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

Buffer = Any  # whatever has the buffer protocol, contiguous; typing has no word for it before 3.12


class _Hash(Protocol):
    def update(self, data: Buffer, /) -> None: ...
    def digest(self) -> bytes: ...
    def copy(self) -> _Hash: ...


_NEW: dict[str, Callable[[], _Hash]] = {
    "sha256": hashlib.sha256,
    "md5": lambda: hashlib.md5(usedforsecurity=False),
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
}
_SIZES = {"sha256": 32, "md5": 16, "sha1": 20}


class Hasher:
    """A running digest: "sha256", "md5" or "sha1".

    While a lane's job feeds it, it belongs to that job: using it then is a RuntimeError.
    """

    def __init__(self, name: str) -> None:
        if name not in _NEW:
            raise ValueError(f"no hasher is called {name!r}")
        self.name = name
        self.digest_size = _SIZES[name]
        self.held = 0  # jobs in flight that feed it; nobody else may touch it meanwhile
        self._hash = _NEW[name]()

    def update(self, buffer: Buffer) -> None:
        """Hash ``buffer`` after what came before."""
        self._check()
        self._hash.update(buffer)

    def digest(self) -> bytes:
        """The digest of everything so far; the hasher can go on."""
        self._check()
        return self._hash.digest()

    def copy(self) -> Hasher:
        """A second hasher in the same state."""
        self._check()
        other = Hasher(self.name)
        other._hash = self._hash.copy()
        return other

    def _check(self) -> None:
        if self.held:
            raise RuntimeError("the hasher belongs to a job in flight")

    def feed(self, buffer: Buffer) -> None:
        """As ``update``, for the job that holds it."""
        self._hash.update(buffer)


def sha256(data: Buffer) -> bytes:
    """The sha2-256 of ``data``."""
    return hashlib.sha256(data).digest()


def sha256_md5(data: Buffer) -> tuple[bytes, bytes]:
    """The sha2-256 and the MD5 of ``data``."""
    return hashlib.sha256(data).digest(), hashlib.md5(data, usedforsecurity=False).digest()


def cid_raw(data: Buffer) -> bytes:
    """The CID of ``data`` as a chunk: 36 bytes, codec raw."""
    return b"\x01\x55\x12\x20" + sha256(data)


def cid_dag_cbor(data: Buffer) -> bytes:
    """The CID of ``data`` as a structured block: 36 bytes, codec dag-cbor."""
    return b"\x01\x71\x12\x20" + sha256(data)


def cid_matches(cid: Buffer, data: Buffer) -> bool:
    """Whether ``data`` hashes to ``cid``, a CIDv1 of any codec with a sha2-256 multihash."""
    name = bytes(cid)
    if len(name) < 36 or name[0] != 0x01 or name[-34:-32] != b"\x12\x20":
        return False
    return name[-32:] == sha256(data)
