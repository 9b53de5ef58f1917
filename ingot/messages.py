"""What the stages hand one another: requests, responses, heads, bodies. Pure values."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

Header = tuple[bytes, bytes]
Cid = bytes  # 36 bytes: 01, codec (71 dag-cbor, 55 raw), 12 20, sha2-256 digest
Multihash = bytes  # 34 bytes: 12 20, sha2-256 digest


class BodyStream(Protocol):
    """The body of one request, read once, in order.

    The first read answers ``Expect: 100-continue``, so an operation reads nothing before it has
    authenticated and authorised the request. Reads raise ``ingot.http.errors.BodyError`` kinds when
    the client cuts, stalls or lies about the length.
    """

    length: int | None
    """Content-Length; None when the body came with ``Transfer-Encoding: chunked``."""

    async def readinto(self, view: memoryview) -> int:
        """Fill ``view`` from its start with what is there, one byte at least; 0 is the end."""
        ...

    def take(self) -> bytes | None:
        """The whole body if every byte of it has arrived already, else None. Never waits."""
        ...

    async def read(self, limit: int) -> bytes:
        """The whole body; RequestError when it is longer than ``limit`` bytes."""
        ...


class Request:
    """One HTTP request. Header names are lower-case; values and order are as received."""

    __slots__ = ("body", "headers", "index", "method", "peer", "received_ms", "secure", "target")

    def __init__(
        self,
        method: str,
        target: bytes,
        headers: list[Header],
        index: dict[bytes, bytes],
        body: BodyStream,
        peer: str,
        secure: bool,
    ) -> None:
        self.method = method
        self.target = target  # raw request-target bytes, never normalised
        self.headers = headers
        self.index = index  # name -> value; repeated lines joined with ",", blanks trimmed
        self.body = body
        self.peer = peer  # its address, without the port
        self.secure = secure
        self.received_ms = 0  # wall clock when the head was complete; set by the connection


class Response:
    """One HTTP response. ``head`` is complete header lines but Date, Server and Connection.

    ``body`` is bytes, or an async iterator of buffers that are valid until the next step, whose
    lengths sum to ``length``. ``length`` None means ``len(body)``. A HEAD answer sets ``length``
    to what a GET would send and leaves ``body`` empty. 204 and 304 carry no length.
    """

    __slots__ = ("body", "close", "headers", "length", "status")

    def __init__(
        self,
        status: int,
        headers: list[Header] | None = None,
        body: bytes | AsyncIterator[memoryview | bytes] = b"",
        length: int | None = None,
        close: bool = False,
    ) -> None:
        self.status = status
        self.headers = headers if headers is not None else []
        self.body = body
        self.length = length
        self.close = close  # end the connection after this answer


class Exchange(Protocol):
    """One request on its connection, as the express lane sees it (``ingot.s3.express``)."""

    peer: str
    """Its address, without the port."""

    def peek(self, length: int) -> bytes | None:
        """The first ``length`` bytes of the body if they have arrived; they stay unread."""
        ...

    def consume(self, length: int) -> None:
        """Take what ``peek`` gave."""
        ...

    def answer(self, response: Response) -> None:
        """Send the answer, whose body is bytes; now or in a later turn of the loop, once."""
        ...

    def close(self) -> None:
        """There will be no answer: end the connection."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """Where a bucket stands: design section 3. Roots are CIDs, None where nothing was ever put."""

    sequence: int  # 0 at creation, one more with every commit that touches the bucket
    objects: Cid | None = None
    uploads: Cid | None = None
    config: Cid | None = None


@dataclass(frozen=True, slots=True)
class HeadMove:
    """One bucket's step in a commit. ``old`` None: created here. ``new`` None: deleted here."""

    bucket: bytes  # 16 random bytes, never used again
    name: str
    old: Head | None
    new: Head | None


@dataclass(frozen=True, slots=True)
class CommitRef:
    """A commit by its sequence and by its record, which through its chain of hashes also names all
    commits before it. ``record`` is None in registry rows from before it was kept there."""

    sequence: int
    record: Cid | None


@dataclass(frozen=True, slots=True)
class BucketRow:
    """A live bucket as the registry holds it; ``commit`` is the one that made its head."""

    bucket: bytes
    name: str
    head: Head
    commit: CommitRef


@dataclass(frozen=True, slots=True)
class BodyPosition:
    """How far a body segment must be durable for a commit that refers into it."""

    segment: int
    end: int  # byte offset after the last frame needed


@dataclass(frozen=True, slots=True)
class SealedSegment:
    """A file that is written no more and may be shipped. ``first_commit`` and ``last_commit`` are
    0 for a body segment; numbers of commits that the log skipped before its first one count as
    its own."""

    stream: str  # "unit" or "body"
    number: int
    bytes: int  # its logical length: what ships
    first_commit: int
    last_commit: int
    needs: BodyPosition | None  # the furthest body position that its commits name
    lacking: bool = False  # blocks are known to be missing that should be in it


@dataclass(frozen=True, slots=True)
class Shipment:
    """A file on its way to Forge, as the registry holds it. States: ``ingot.shipper.lifecycle``."""

    stream: str  # "unit" or "body"
    number: int
    state: str
    digest: bytes  # the sha2-256 multihash of the whole file, 34 bytes
    locations: tuple[bytes, ...]  # location commitments, the tokens as they were received
    bytes: int
    first_commit: int
    last_commit: int
    needs: BodyPosition | None = None
    attempts: int = 0  # that failed, in its present state
    indexes: tuple[Multihash, ...] = ()  # its index archives, once they are stored


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that ships although not all of it is good. ``spans`` of it, [start, stop) in bytes and
    in order, hold nothing good; without any, blocks are missing that should be in it."""

    stream: str  # "unit" or "body"
    number: int
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class ForgeRoot:
    """The newest head of a bucket that Forge has with all that it reaches, and the commit that made
    it. ``head`` None: that commit deleted the bucket."""

    bucket: bytes
    head: Head | None
    commit: int


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """``ingot/commit@1``, the last frame of a group commit (design section 4)."""

    store: bytes  # 16 bytes
    incarnation: int
    lease: bytes  # the lease token under which it was written, 16 bytes
    segment: int  # the log segment it stands in
    sequence: int  # of commits, gapless, starts at 1
    time_ms: int
    previous: Cid | None  # the commit record before it
    frames: int  # frames since that record, this one not counted
    frames_digest: bytes  # sha256 over the CIDs of those frames in order
    checkpoint: Cid | None  # newest checkpoint root known when written
    bodies: tuple[BodyPosition, ...]
    moves: tuple[HeadMove, ...]
    pins: tuple[Cid, ...] = ()


@dataclass(slots=True)
class Body:
    """An object's bytes as they were stored: what ``ingot.body`` returns for one upload."""

    size: int
    md5: bytes | None
    sha256: bytes | None
    inline: bytes | None = None  # a body of at most INLINE_BYTES_MAX
    chunks: list[tuple[Cid, int]] = field(default_factory=list)  # or the entries of the top node
    depth: int = 0  # 0: ``chunks`` are chunks; n: links to ``ingot/body@1`` nodes n levels high
    blocks: list[tuple[Cid, bytes]] = field(default_factory=list)  # go to the log with the commit
    positions: list[BodyPosition] = field(default_factory=list)  # synced already
    checksums: dict[str, bytes] = field(default_factory=dict)  # algorithm name -> raw digest
    pin: object = field(default=None, compare=False, repr=False)  # keeps its chunks; bucket/pins.py
