"""The body of one request, and everything its head and trailers promise about it.

``VerifiedBody`` stands between the body as HTTP delivers it and whoever stores it. Making one
checks all that the head can show: lengths, the shape of digests, which checksums there are. Reading
it peels aws-chunked. ``check`` compares what was stored with what was promised: by then the stages
below have computed every digest anyway, so nothing is hashed twice. An operation commits only after
``check`` has returned. Called by the operations of ``ingot.s3``. Waits on the body stream only.
"""

from __future__ import annotations

from base64 import b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from typing import Final

from ingot.errors import RequestError
from ingot.limits import FRAMING_BUFFER_BYTES, PUT_BYTES_MAX, RECV_BYTES
from ingot.messages import Body, Request
from ingot.s3.auth import Authenticated
from ingot.s3.aws_chunked import AwsChunkedDecoder, ChunkSigner
from ingot.s3.errors import S3Error
from ingot.s3.sigv4 import text

SIZES: Final = {"crc32": 4, "crc32c": 4, "crc64nvme": 8, "sha1": 20, "sha256": 32}
UNSUPPORTED: Final = frozenset(("sha512", "md5", "xxhash64", "xxhash3", "xxhash128"))
DEFAULT_ALGORITHMS: Final = ("crc64nvme",)

PREFIX: Final = b"x-amz-checksum-"
PAST_PREFIX: Final = b"x-amz-checksum."  # sorts right behind every name with the prefix
ALGORITHMS: Final = {PREFIX + name.encode(): name for name in SIZES}
SDK_ALGORITHM: Final = b"x-amz-sdk-checksum-algorithm"
NO_VALUES: Final = frozenset(PREFIX + word for word in (b"algorithm", b"mode", b"type"))
TRAILER_MODES: Final = ("signed-chunks-trailer", "unsigned-chunks-trailer")
FRAMED_MODES: Final = ("signed-chunks", *TRAILER_MODES)


class VerifiedBody:
    """A ``BodyStream`` of the object's own bytes, with what they are expected to be.

    Read it to its end, by ``take`` or ``read`` or until ``readinto`` gives 0; then ``check``.
    """

    __slots__ = (
        *("_body", "_buffer", "_decoder", "_ended", "_start", "_stop"),
        *("algorithms", "expectations", "length", "md5", "sha256"),
    )

    def __init__(self, request: Request, authenticated: Authenticated) -> None:
        index = request.index
        payload = authenticated.payload
        self._body = request.body
        self._decoder: AwsChunkedDecoder | None = None
        self._ended = True
        framed = payload.mode in FRAMED_MODES
        self.length: int | None
        if framed:
            self.length = framed_length(index)
        elif authenticated.streaming:
            self.length = plain_length(index, request.body.length)
        else:
            self.length = request.body.length
        md5 = index.get(b"content-md5")
        self.md5 = None if md5 is None else parse_md5(md5)
        self.sha256 = payload.sha256
        self.expectations: dict[str, bytes] = {}  # by algorithm; a trailer's once it has come
        self.algorithms = DEFAULT_ALGORITHMS  # what has to be computed of the body
        announced: tuple[bytes, ...] = ()
        if b"x-amz-trailer" in index:
            trailers = payload.mode in TRAILER_MODES
            announced = announced_trailers(index[b"x-amz-trailer"], trailers)
        names = [name for name in index if PREFIX <= name < PAST_PREFIX and name not in NO_VALUES]
        if names or announced:
            self._expect(index, names, announced)
        if SDK_ALGORITHM in index:
            tolerated = md5 is not None and not authenticated.streaming
            self._check_sdk_algorithm(index[SDK_ALGORITHM], bool(names or announced), tolerated)
        if framed:
            self._unframe(payload.mode in TRAILER_MODES, announced, authenticated)

    async def readinto(self, view: memoryview) -> int:
        """Fill ``view`` from its start with what is there; wait for one byte at least; 0: the end.

        With the last byte of a framed body the framing behind it has been read and verified.
        """
        if self._decoder is None:
            return await self._body.readinto(view)
        return await self._read_framed(view, self._decoder)

    def take(self) -> bytes | None:
        """The whole body if every byte of it has arrived already, else None. Never waits."""
        whole = self._body.take()
        decoder = self._decoder
        if whole is None or decoder is None:
            return whole
        if decoder.left > len(whole):
            raise S3Error("IncompleteBody")
        decoded = bytearray(decoder.left)
        with memoryview(whole) as data, memoryview(decoded) as out:
            decoder.feed(data, out)
        self._finish(decoder)
        return bytes(decoded)

    async def read(self, limit: int) -> bytes:
        """The whole body; MaxMessageLengthExceeded when it is longer than ``limit`` bytes."""
        if self.length is not None and self.length > limit:
            raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=str(limit))
        if self._decoder is None:
            return await self._read_plain(limit)
        whole = self.take()
        if whole is not None:
            return whole
        assert self.length is not None
        collected = bytearray(self.length)
        filled = 0
        with memoryview(collected) as view:
            while not self._ended:
                filled += await self._read_framed(view[filled:], self._decoder)
        return bytes(collected)

    async def _read_plain(self, limit: int) -> bytes:
        try:
            return await self._body.read(limit)
        except RequestError as error:
            # Of the stage above, whose errors must not be imported here: ``ingot.s3.errors``.
            if getattr(error, "kind", None) != "EntityTooLarge":
                raise
        raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=str(limit))

    def check(self, body: Body) -> None:
        """Raise unless ``body``, read from this stream, is all that the client said it would be."""
        if not self._ended or (self.length is not None and body.size != self.length):
            raise S3Error("IncompleteBody")
        if self.sha256 is not None and body.sha256 != self.sha256:
            assert body.sha256 is not None
            raise S3Error(
                "XAmzContentSHA256Mismatch",
                ClientComputedContentSHA256=self.sha256.hex(),
                S3ComputedContentSHA256=body.sha256.hex(),
            )
        if self.md5 is not None and body.md5 != self.md5:
            assert body.md5 is not None
            raise S3Error(
                "BadDigest",
                ExpectedDigest=b64encode(self.md5).decode(),
                CalculatedDigest=b64encode(body.md5).decode(),
            )
        for algorithm, expected in self.expectations.items():
            if body.checksums[algorithm] != expected:
                raise S3Error(
                    "BadDigest",
                    f"The {algorithm.upper()} you specified did not match the calculated checksum.",
                )

    # -- the head -------------------------------------------------------------------------------
    def _expect(
        self, index: dict[bytes, bytes], names: list[bytes], announced: tuple[bytes, ...]
    ) -> None:
        """Take note of the one checksum of the request, in a header or announced for a trailer."""
        if len(names) + len(announced) > 1:
            raise S3Error(
                "InvalidRequest",
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not "
                "allowed.",
            )
        name = names[0] if names else announced[0]
        algorithm = algorithm_of(name)
        self.algorithms = (algorithm,)
        if names:
            self.expectations[algorithm] = parse_checksum(name, algorithm, index[name], "header")

    def _check_sdk_algorithm(self, value: bytes, given: bool, tolerated: bool) -> None:
        algorithm = ALGORITHMS.get(PREFIX + value.lower())
        if algorithm is None or (given and self.algorithms[0] != algorithm):
            raise S3Error(
                "InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid."
            )
        if not given and not tolerated:
            raise S3Error(
                "InvalidRequest",
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* "
                "or x-amz-trailer headers were found.",
            )

    def _unframe(
        self, trailers: bool, announced: tuple[bytes, ...], authenticated: Authenticated
    ) -> None:
        assert self.length is not None
        signer = None
        if authenticated.payload.mode != "unsigned-chunks-trailer":
            key = authenticated.key
            assert key is not None, "signed chunks have a signed head"
            signer = ChunkSigner(
                key, authenticated.stamp, authenticated.scope, authenticated.signature
            )
        self._decoder = AwsChunkedDecoder(self.length, signer, announced if trailers else None)
        self._ended = False
        self._buffer = memoryview(b"")  # bytes that came and are not decoded: [start, stop)
        self._start = self._stop = 0

    # -- the framed body ------------------------------------------------------------------------
    async def _read_framed(self, view: memoryview, decoder: AwsChunkedDecoder) -> int:
        """Data goes from the stream straight into ``view``, but for what came with a line."""
        filled = 0
        while not self._ended:
            if self._start < self._stop:
                used, count = decoder.feed(self._buffer[self._start : self._stop], view[filled:])
                self._start += used
                filled += count
            if filled and decoder.left:
                break
            if decoder.pending:
                room = view[: min(decoder.pending, RECV_BYTES)]
                filled = await self._body.readinto(room)
                decoder.accept(room[:filled])
                if filled == 0:
                    self._finish(decoder)
            else:
                if not self._buffer:
                    self._buffer = memoryview(bytearray(FRAMING_BUFFER_BYTES))
                self._start, self._stop = 0, await self._body.readinto(self._buffer)
                if self._stop == 0:
                    self._finish(decoder)
        return filled

    def _finish(self, decoder: AwsChunkedDecoder) -> None:
        decoder.finish()
        for name, value in decoder.trailers.items():
            algorithm = algorithm_of(name)
            digest = parse_checksum(name, algorithm, value, "trailing header")
            self.expectations[algorithm] = digest
        self._ended = True
        self._buffer = memoryview(b"")


def plain_length(index: dict[bytes, bytes], length: int | None) -> int:
    """Content-Length of an object's body, which S3 requires even where HTTP does not."""
    if length is None or b"content-length" not in index:
        raise S3Error("MissingContentLength")
    return checked_length(length)


def framed_length(index: dict[bytes, bytes]) -> int:
    """The object's length as x-amz-decoded-content-length declares it."""
    value = index.get(b"x-amz-decoded-content-length")
    if value is None or (b"content-length" not in index and b"transfer-encoding" not in index):
        raise S3Error("MissingContentLength")
    if not value.isdigit() or len(value) > 18:
        raise S3Error(
            "InvalidArgument",
            ArgumentName="x-amz-decoded-content-length",
            ArgumentValue=text(value),
        )
    return checked_length(int(value))


def checked_length(length: int) -> int:
    if length > PUT_BYTES_MAX:
        raise S3Error("EntityTooLarge", ProposedSize=str(length), MaxSizeAllowed=str(PUT_BYTES_MAX))
    return length


def parse_base64(value: bytes, size: int) -> bytes | None:
    """The bytes, if ``value`` is base64 of exactly ``size`` of them."""
    try:
        data = a2b_base64(value, strict_mode=True)
    except Base64Error:
        return None
    return data if len(data) == size else None


def parse_md5(value: bytes) -> bytes:
    digest = parse_base64(value, 16)
    if digest is None:
        raise S3Error("InvalidDigest", headers=(), **{"Content-MD5": text(value)})
    return digest


def algorithm_of(name: bytes) -> str:
    """The algorithm that a header or trailer ``x-amz-checksum-*`` names."""
    algorithm = ALGORITHMS.get(name)
    if algorithm is not None:
        return algorithm
    word = text(name[len(PREFIX) :])
    if word in UNSUPPORTED:
        raise S3Error("InvalidRequest", f"The checksum algorithm {word} is unsupported.")
    raise S3Error(
        "InvalidRequest", "The algorithm type you specified in x-amz-checksum- header is invalid."
    )


def parse_checksum(name: bytes, algorithm: str, value: bytes, where: str) -> bytes:
    digest = parse_base64(value, SIZES[algorithm])
    if digest is None:
        raise S3Error("InvalidRequest", f"Value for {text(name)} {where} is invalid.")
    return digest


def announced_trailers(value: bytes, expected: bool) -> tuple[bytes, ...]:
    """The trailers that x-amz-trailer names: checksums, and only where the framing has trailers."""
    if not value:
        return ()
    names = tuple(name.strip(b" \t").lower() for name in value.split(b","))
    if not expected or any(name[:15] != PREFIX or name in NO_VALUES for name in names):
        raise S3Error(
            "InvalidRequest", "The value specified in the x-amz-trailer header is not supported"
        )
    return names
