"""The envelope of every token: a signature, and the bytes that it signs exactly as they stand.

    token  = [signature, signed]              signed = { h: varsig header, TAG: payload }
    TAG    = ucan/dlg@VERSION (delegation) or ucan/inv@VERSION (invocation, receipt)

What is signed is never encoded again to be verified. Encoding is canonical; decoding also takes
maps in plain bytewise key order, as Go writes some of them. Called by ``token``. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from ingot.codec import dag_cbor
from ingot.codec.fields import Step, end_of, offset_of
from ingot.errors import FormatError
from ingot.forge import values, varsig
from ingot.forge.keys import Signs
from ingot.forge.varsig import Algorithm
from ingot.limits import UCAN_BYTES_MAX

DELEGATION: Final = "dlg"
INVOCATION: Final = "inv"
# The public specification has since dropped the suffix; Forge's services know only the first.
VERSION_WRITTEN: Final = "1.0.0-rc.1"
VERSIONS_READ: Final = (VERSION_WRITTEN, "1.0.0")

_KINDS: Final = {
    f"ucan/{kind}@{version}": kind for kind in (DELEGATION, INVOCATION) for version in VERSIONS_READ
}


@dataclass(frozen=True, slots=True, repr=False)
class Envelope:
    """A token's bytes, taken apart. (Not shown: what is in it may be secret.)"""

    data: bytes  # the whole token
    signature: bytes
    signed: bytes
    algorithm: Algorithm
    tag: str
    payload: Mapping[str, object]

    @property
    def kind(self) -> str:
        return _KINDS[self.tag]

    def payload_bytes(self, *path: Step) -> bytes:
        """A value of the payload in the bytes it was signed in."""
        start = offset_of(self.data, (1, self.tag, *path))
        return self.data[start : end_of(self.data, start)]

    def located(self) -> AbstractContextManager[None]:
        """A Malformed raised inside, about the payload, becomes a FormatError of the token."""
        return values.located(self.data, 1, self.tag)


def seal(kind: str, payload: Mapping[str, object], signer: Signs) -> bytes:
    """The token of a payload; TypeError or ValueError for what DAG-CBOR cannot hold."""
    tag = f"ucan/{kind}@{VERSION_WRITTEN}"
    signed = dag_cbor.encode({"h": signer.header, tag: dict(payload)})
    return b"\x82" + dag_cbor.encode(signer.sign(signed)) + signed


def open_token(data: bytes) -> Envelope:
    """A token taken apart, nothing verified; FormatError when it is none."""
    if len(data) > UCAN_BYTES_MAX:
        raise FormatError(UCAN_BYTES_MAX, "the end of the token", f"{len(data)} bytes in all")
    value = dag_cbor.decode(data, dag_cbor.SORTED_KEYS)
    if not isinstance(value, list) or len(value) != 2:
        raise FormatError(0, "an array of a signature and what it signs", repr(value)[:99])
    signature, signed = value
    if type(signature) is not bytes:
        raise FormatError(1, "a signature's byte string", type(signature).__name__)
    start = offset_of(data, (1,))
    header = signed.get("h") if isinstance(signed, dict) else None
    if type(header) is not bytes or len(signed) != 2:
        raise FormatError(start, "a map of h and one tag", repr(signed)[:99])
    (tag,) = signed.keys() - {"h"}
    if tag not in _KINDS or not isinstance(signed[tag], dict):
        raise FormatError(start, f"a payload under one of {', '.join(_KINDS)}", repr(tag)[:99])
    try:
        algorithm = varsig.decode(header)
    except FormatError as error:
        raise FormatError(offset_of(data, (1, "h")), error.expected, error.found) from None
    envelope = Envelope(data, signature, data[start:], algorithm, tag, signed[tag])
    with envelope.located():
        values.check(envelope.payload)
    return envelope
