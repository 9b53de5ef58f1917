"""aws-chunked, the framing that S3 clients put around a body to sign it piece by piece.

    chunk   := hex-length [";chunk-signature=" 64 hex digits] CRLF data CRLF
    body    := chunk* last-chunk trailer-line* CRLF          (a last chunk has length 0 and no data)
    trailer := name ":" value (CRLF | LF | LF CRLF)

Signatures form a chain that starts at the signature of the request's head; each chunk signs its
data, and the trailers sign themselves as ``x-amz-trailer-signature``. Data is handed out before its
signature has been seen, so nothing may be committed until ``finish`` has returned. The decoder
holds one line or the trailer block, never data, whatever lengths the client claims. Called by
``ingot.s3.payload``. Pure: bytes in, bytes out.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from ingot._speedups import sigv4
from ingot.limits import CHUNK_LINE_BYTES_MAX, FRAMED_CHUNK_BYTES_MIN, TRAILER_BYTES_MAX
from ingot.s3.errors import S3Error

if TYPE_CHECKING:
    from ingot._speedups.sigv4_py import SigningKey

EMPTY_SHA256: Final = sha256(b"").hexdigest().encode()
TRAILER_SIGNATURE: Final = b"x-amz-trailer-signature"
CHUNK_LINE = re.compile(rb"0*([0-9a-fA-F]{1,16})(?:;chunk-signature=([0-9a-fA-F]{64}))?\r\n")

# What is awaited. Data ends in a line of its own; the last chunk is followed by the trailers.
LINE, DATA, DATA_END, TRAILERS = range(4)


class ChunkSigner:
    """The chain of signatures: each is made from the one before it."""

    __slots__ = ("_key", "_place", "_previous")

    def __init__(self, key: SigningKey, stamp: bytes, scope: bytes, seed: bytes) -> None:
        self._key = key
        self._place = stamp + b"\n" + scope
        self._previous = seed

    def verify_chunk(self, digest: bytes, signature: bytes) -> None:
        """``digest``: SHA-256 of the chunk's data, in hex."""
        self._verify(b"PAYLOAD", EMPTY_SHA256 + b"\n" + digest, signature)

    def verify_trailers(self, digest: bytes, signature: bytes) -> None:
        self._verify(b"TRAILER", digest, signature)

    def _verify(self, kind: bytes, rest: bytes, signature: bytes) -> None:
        string = b"AWS4-HMAC-SHA256-%b\n%b\n%b\n%b" % (kind, self._place, self._previous, rest)
        self._previous = self._key.sign(string)
        if not sigv4.equal(self._previous, signature):
            raise S3Error("SignatureDoesNotMatch")


class AwsChunkedDecoder:
    """Takes the framed body in pieces of any size and writes the object's bytes out.

    ``length`` is what x-amz-decoded-content-length declared. ``signer`` is None where chunks are
    not signed. ``announced`` are the names of the trailers to come, None where the framing has no
    trailers at all.
    """

    def __init__(
        self, length: int, signer: ChunkSigner | None, announced: tuple[bytes, ...] | None
    ) -> None:
        self.left = length  # bytes of the object still to come
        self.pending = 0  # bytes of the current chunk still to come
        self.trailers: dict[bytes, bytes] = {}  # by ``finish``
        self._signer = signer
        self._announced = announced
        self._state = LINE
        self._line = b""  # what came of a line or of the trailer block
        self._number = 0  # of the current chunk, from 1
        self._size = FRAMED_CHUNK_BYTES_MIN  # of the current chunk
        self._signature = b""
        self._hash = sha256()

    def feed(self, data: memoryview, out: memoryview) -> tuple[int, int]:
        """Decode ``data`` into ``out``: how much of the one was used, of the other filled.

        Stops early only where ``out`` is full and the next byte belongs to the object.
        """
        at = filled = 0
        while at < len(data):
            if self._state == DATA:
                count = min(self.pending, len(data) - at, len(out) - filled)
                if count == 0:
                    break
                piece = data[at : at + count]
                out[filled : filled + count] = piece
                self.accept(piece)
                at += count
                filled += count
            elif self._state == TRAILERS:
                self._line += data[at:]
                if len(self._line) > TRAILER_BYTES_MAX:
                    plain = self._announced is None
                    raise S3Error("IncompleteBody" if plain else "MalformedTrailerError")
                at = len(data)
            else:
                at += self._take_line(data[at:])
        return at, filled

    def accept(self, data: memoryview) -> None:
        """Count at most ``pending`` bytes of the object that the caller received for itself."""
        assert self._state == DATA and len(data) <= self.pending
        if self._signer is not None:
            self._hash.update(data)
        self.pending -= len(data)
        self.left -= len(data)
        if self.pending == 0:
            self._verify_chunk()
            self._state = DATA_END

    def finish(self) -> None:
        """The framed body has ended: IncompleteBody unless it ended where it should, and the errors
        of its trailers."""
        if self._state != TRAILERS or self.left:
            raise S3Error("IncompleteBody")
        if self._announced is None:
            if self._line != b"\r\n":
                raise S3Error("IncompleteBody")
            return
        lines = self._line.replace(b"\r\n", b"\n").split(b"\n")
        if len(lines) < 2 or lines[-1] or lines[-2]:
            raise S3Error("IncompleteBody")
        self._parse_trailers([line for line in lines if line], self._announced)

    def _take_line(self, data: memoryview) -> int:
        """Use what belongs to the current line; returns how much that was."""
        window = bytes(data[: CHUNK_LINE_BYTES_MAX + 1 - len(self._line)])
        end = window.find(b"\n") + 1
        self._line += window[:end] if end else window
        if not end:
            if len(self._line) > CHUNK_LINE_BYTES_MAX:
                raise S3Error("IncompleteBody")
            return len(window)
        line, self._line = self._line, b""
        if self._state == LINE:
            self._begin_chunk(line)
        elif line == b"\r\n":
            self._state = LINE
        else:
            raise S3Error("IncompleteBody")
        return end

    def _begin_chunk(self, line: bytes) -> None:
        match = CHUNK_LINE.fullmatch(line)
        if match is None or (match[2] is None) != (self._signer is None):
            raise S3Error("IncompleteBody")
        size = int(match[1], 16)
        if size and self._size < FRAMED_CHUNK_BYTES_MIN:
            raise S3Error(
                "InvalidChunkSizeError", Chunk=str(self._number), BadChunkSize=str(self._size)
            )
        if size > self.left:
            raise S3Error("IncompleteBody")
        self._signature = match[2]
        self._number += 1
        self._size = self.pending = size
        self._hash = sha256()
        if size:
            self._state = DATA
        else:
            self._verify_chunk()
            self._state = TRAILERS

    def _verify_chunk(self) -> None:
        if self._signer is not None:
            self._signer.verify_chunk(self._hash.hexdigest().encode(), self._signature)

    def _parse_trailers(self, lines: list[bytes], announced: tuple[bytes, ...]) -> None:
        """Exactly the trailers that were announced, and their signature as the last line."""
        found: dict[bytes, bytes] = {}
        for line in lines:
            name, colon, value = line.partition(b":")
            name = name.strip(b" \t").lower()
            if not colon or name in found or TRAILER_SIGNATURE in found:
                raise S3Error("MalformedTrailerError")
            found[name] = value.strip(b" \t")
        signature = found.pop(TRAILER_SIGNATURE, None)
        if found.keys() != set(announced) or (signature is not None and self._signer is None):
            raise S3Error("MalformedTrailerError")
        if self._signer is not None and (signature is not None or found):
            block = b"".join(b"%b:%b\n" % pair for pair in sorted(found.items()))
            digest = sha256(block).hexdigest().encode()
            if signature is None:
                raise S3Error("MalformedTrailerError")
            self._signer.verify_trailers(digest, signature)
        self.trailers = found
