"""Arguments that several commands share, and how a command fails as it declares.

What has the wrong shape is Malformed, which becomes the MalformedArguments of a receipt. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ingot.codec import multihash
from ingot.codec.dag_cbor import Cid
from ingot.errors import FormatError
from ingot.forge import did, values
from ingot.forge.errors import Malformed, UcanError
from ingot.limits import FORGE_LIST_MAX

UINT64_MAX: Final = (1 << 64) - 1


class Failure(UcanError):
    """What a command declares that it cannot do; ``name`` is the protocol's."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self._name = name

    @property
    def name(self) -> str:
        return self._name


@dataclass(frozen=True, slots=True)
class Blob:
    """``{size, digest}``, or ``{size, digestCode: 18}`` where the digest is known only once the
    bytes are there (``digest`` is empty then)."""

    size: int
    digest: bytes

    @classmethod
    def read(cls, arguments: Mapping[str, object], name: str = "blob") -> Blob:
        size = values.take(arguments, int, name, "size")
        if not 0 < size <= UINT64_MAX:
            raise Malformed((name, "size"), "a positive number of 64 bits", str(size))
        if values.get(arguments, object, name, "digest") is not None:
            return cls(size, digest_of(arguments, name, "digest"))
        code = values.take(arguments, int, name, "digestCode")
        if code != multihash.SHA2_256:
            raise Failure("UnsupportedDigestCode", f"the hash function {code:#x}")
        return cls(size, b"")

    def value(self) -> dict[str, object]:
        if self.digest:
            return {"size": self.size, "digest": self.digest}
        return {"size": self.size, "digestCode": multihash.SHA2_256}


def digest_of(arguments: Mapping[str, object], *path: str) -> bytes:
    """The sha2-256 multihash at ``path``; a Failure when it is of another function."""
    name = values.take(arguments, bytes, *path)
    try:
        function, digest = multihash.split(name)
    except FormatError as error:
        raise Malformed(path, "a multihash", str(error)) from None
    if function != multihash.SHA2_256 or len(digest) != 32:
        found = f"the hash function {function:#x}, {len(digest)} bytes"
        raise Failure("UnsupportedDigestCode", found)
    return name


def did_of(arguments: Mapping[str, object], *path: str) -> str:
    text = values.take(arguments, str, *path)
    with values.under(*path):
        return did.check(text)


def link_of(arguments: Mapping[str, object], *path: str) -> bytes:
    return bytes(values.take(arguments, Cid, *path))


def links_of(arguments: Mapping[str, object], *path: str) -> list[bytes]:
    count = len(values.take(arguments, list, *path))
    return [bytes(values.take(arguments, Cid, *path, at)) for at in range(count)]


def page_of(arguments: Mapping[str, object]) -> tuple[int, str]:
    """(how many results, the cursor to go on from or "")."""
    size = values.get(arguments, int, "size")
    if size is not None and size < 1:
        raise Malformed(("size",), "a positive number", str(size))
    return min(size or FORGE_LIST_MAX, FORGE_LIST_MAX), values.get(arguments, str, "cursor") or ""
