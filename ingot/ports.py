"""The edges that have two implementations each: registry, file system, lanes, clock, nodes; and
what only a host implements: a store of accounts, an authorizer.

``ingot.server`` chooses; tests and the simulation put their own in. Pure: protocols, and the values
of those that hosts implement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ingot.messages import (
    BodyPosition,
    BucketRow,
    Cid,
    CommitRef,
    Damage,
    ForgeRoot,
    HeadMove,
    Shipment,
)

if TYPE_CHECKING:
    from ingot.credentials import Account


class AccountStore(Protocol):
    """Accounts as a host keeps them, asked when a request is signed with a key that is not held
    (``ingot.accounts``). It runs on the server's loop. One that raises, or takes longer than
    ``ACCOUNT_LOOKUP_S``, makes requests with that key 503; they are never let in."""

    async def get(self, access_key: str) -> Account | None:
        """The account with this access key; None where there is none."""
        ...


class Decision(Enum):
    """What an authorizer says. USUAL: what bucket owner, policy and ACLs say holds."""

    ALLOW = "allow"
    DENY = "deny"
    USUAL = "usual"


class AccessQuestion(NamedTuple):
    """One right that a request needs. ``account`` is a canonical id, None for a request without a
    signature; ``operation`` is as S3 names it (``GetObject``); ``action`` as policies do
    (``s3:GetObject``): an operation may need several. ``bucket`` is "" for ListBuckets, ``key`` is
    "" where the action is about the bucket."""

    account: str | None
    operation: str
    action: str
    bucket: str
    key: str


class Authorizer(Protocol):
    """A host that decides who may do what. It is asked before anything else is, about every right,
    in the middle of requests and on the server's loop: so it answers from memory and never waits.
    One that raises makes the request 500."""

    def decide(self, question: AccessQuestion) -> Decision: ...


class Clock(Protocol):
    """The only time. ``now_ms`` may step; the others never go back."""

    def now_ms(self) -> int:
        """Wall clock, unix milliseconds."""
        ...

    def monotonic(self) -> float:
        """Seconds; stops while the machine is suspended."""
        ...

    def boottime(self) -> float:
        """Seconds; goes on while the machine is suspended (CLOCK_BOOTTIME), for the lease."""
        ...


class Job(Protocol):
    """Steps that a lane runs in order, on its own thread, until one fails.

    Buffers given to a job belong to it until its completion was delivered on the loop.
    """

    error: int  # errno of the failed step, 0 when all went well
    failed_step: int  # index of that step, -1
    token: Any  # the submitter's own

    def pwrite(self, fd: int, offset: int, buffer: Any) -> None: ...
    def pread(self, fd: int, offset: int, buffer: Any) -> None:
        """Fill the whole (writable) buffer; a short file is EIO."""
        ...

    def fdatasync(self, fd: int) -> None: ...
    def sync_file_range(self, fd: int, offset: int, length: int) -> None: ...
    def update(self, hasher: Any, buffer: Any) -> None:
        """Feed an ``ingot._speedups.digest.Hasher``."""
        ...


class Lane(Protocol):
    """One native thread with a FIFO of jobs; it never takes the GIL (hot-path.md 4c)."""

    def job(self) -> Job: ...
    def submit(self, job: Job, done: Callable[[Job], None]) -> None:
        """Run ``job`` after those before it; call ``done(job)`` on the loop afterwards."""
        ...

    def close(self) -> None:
        """Finish what was submitted, deliver completions, join the thread."""
        ...


class Lanes(Protocol):
    """The native threads of one server; ``ingot.offload`` has the real ones."""

    @property
    def log(self) -> Lane: ...
    @property
    def body(self) -> Lane: ...
    @property
    def read(self) -> Lane: ...
    @property
    def hash_a(self) -> Lane: ...
    @property
    def hash_b(self) -> Lane: ...

    async def run(self, lane: Lane, job: Job) -> None:
        """Submit ``job`` and wait for its completion, also when cancelled meanwhile; OSError when a
        step failed. Afterwards its buffers are the caller's again."""
        ...


class BodySink(Protocol):
    """Where large chunks go while a body is received: the segment store."""

    async def append_body(self, cid: Cid, data: memoryview) -> BodyPosition:
        """Write one chunk to the body stream. ``data`` is the caller's again when this ends."""
        ...

    async def sync_bodies(self, positions: Sequence[BodyPosition]) -> None:
        """Return when everything up to ``positions`` is durable; Unavailable when it is lost."""
        ...


class BlockSource(Protocol):
    """Where blocks are read from. NotFound when nobody has one, Corruption when it is damaged."""

    def read_now(self, cid: Cid) -> bytes | None:
        """The block, or None where the disk would have to be waited for."""
        ...

    async def read(self, cid: Cid) -> bytes: ...

    async def read_part(self, cid: Cid, start: int, into: memoryview) -> None:
        """Fill ``into`` with the block's bytes from ``start`` on; it is the caller's again when
        this ends, also by cancellation."""
        ...

    def prefetch(self, cids: Sequence[Cid]) -> None:
        """These will be read soon, in this order: whatever takes long to come may begin to."""
        ...


class RecordSource(BlockSource, Protocol):
    """A source that listings read from, a page's records together."""

    def read_many_now(self, cids: Sequence[Cid]) -> list[bytes | None]:
        """The first of these blocks, at least one and no more than a step of the loop should read
        (``READ_MANY_BLOCKS``, ``READ_MANY_BYTES``); None for one that ``read`` has to see about."""
        ...


class ColdReading(Protocol):
    """The bytes of one range, in pieces of any size, from one place or from several in turn."""

    @property
    def position(self) -> int:
        """In the segment's file, of the first byte that was not handed out yet."""
        ...

    async def __anext__(self) -> bytes:
        """NotFound when every place says that it has not got them, Unavailable when none is left
        that gives them for another reason."""
        ...

    def reject(self, since: int, why: str) -> None:
        """The bytes from position ``since`` on were wrong: go on there, from another place."""
        ...

    async def aclose(self) -> None: ...


class ColdSource(Protocol):
    """Where the files of segments are read that are not here: the network. Hashes nothing. A key is
    stream and number of a segment."""

    async def read(
        self, key: tuple[str, int], start: int, stop: int, provider: str | None = None
    ) -> ColdReading:
        """The bytes [start, stop) of the segment's file, at least one, from any provider that has
        it or only from this one. NotFound, Unavailable, here or while it is read."""
        ...

    async def providers(self, key: tuple[str, int]) -> Sequence[str]:
        """Who is known to have the segment's file."""
        ...


class FileSystem(Protocol):
    """Every file-system call of the segment store; where faults are injected. Paths are absolute.

    Calls block; those that can take long are given to a lane as job steps instead. All raise
    OSError. Descriptors are close-on-exec.
    """

    def open(self, path: str, write: bool = False) -> int:
        """A regular file; OSError at once for a name that is anything else."""
        ...

    def create(self, path: str) -> int:
        """O_CREAT | O_EXCL | O_RDWR, mode 0600."""
        ...

    def open_direct(self, path: str) -> int:
        """For writes of whole blocks past the page cache (O_DIRECT). EINVAL, here or at a write,
        where the file system has none."""
        ...

    def close(self, fd: int) -> None: ...
    def size(self, fd: int) -> int: ...
    def pread(self, fd: int, length: int, offset: int) -> bytes: ...
    def pread_now(self, fd: int, length: int, offset: int) -> bytes | None:
        """As ``pread``, or None where the disk would have to be waited for (RWF_NOWAIT)."""
        ...

    def pread_many_now(
        self, fds: Mapping[Any, int], places: Sequence[tuple[Any, int, int] | None], room: int
    ) -> list[bytes | None]:
        """As ``pread_now``, of each (file, offset, length), None for None; ``fds`` has the
        descriptors. Up to the one that has ``room`` bytes read in all."""
        ...

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int: ...
    def fdatasync(self, fd: int) -> None: ...
    def sync_directory(self, path: str) -> None: ...
    def truncate(self, fd: int, length: int) -> None: ...
    def rename(self, old: str, new: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def listdir(self, path: str) -> list[str]: ...
    def mkdir(self, path: str) -> None: ...
    def exists(self, path: str) -> bool: ...
    def map(self, fd: int, length: int) -> memoryview:
        """A read-only view of the file's first ``length`` bytes (mmap where real)."""
        ...

    def free_bytes(self, path: str) -> int: ...


class LeaseTerms(Protocol):
    token: bytes  # 16 random bytes, in every commit record and every swap
    ttl_s: float


class Registry(Protocol):
    """The fenced pointer: heads, the lease, segment states (design section 8).

    Methods raise Unavailable while Postgres cannot be reached, LeaseLost when the fence is closed,
    RootMoved when a head was not the expected one.
    """

    async def open(self) -> None:
        """Connect, migrate under the advisory lock, read what start-up must warn about."""
        ...

    async def close(self) -> None: ...

    async def store_id(self) -> bytes | None:
        """The store this database belongs to; None when it was never claimed."""
        ...

    async def claim(self, store: bytes) -> None:
        """Write the store id into an unclaimed database; ConfigError when another one is there."""
        ...

    async def acquire(self, owner: str, ttl_s: float, dead: bytes | None = None) -> bytes | None:
        """Take the lease if it is free, expired by the database's clock, or held under the token
        ``dead`` (of a holder known to have ended): the new token, else None."""
        ...

    async def renew(self, token: bytes, ttl_s: float) -> None: ...
    async def release(self, token: bytes) -> None: ...

    async def clock_ms(self) -> int:
        """The database's wall clock, unix milliseconds."""
        ...

    async def holder(self) -> tuple[str, float] | None:
        """Who holds the lease and for how many seconds still, for the standby's message."""
        ...

    async def buckets(self) -> list[BucketRow]:
        """Every live bucket with its newest head. Read after the lease was taken."""
        ...

    async def newest_commit(self) -> CommitRef:
        """The newest commit that any swap carried (deleted buckets included); sequence 0 at
        first."""
        ...

    async def swap(self, token: bytes, commit: CommitRef, moves: Sequence[HeadMove]) -> None:
        """Move every head of one commit, or none: one fenced statement, committed durably.
        LeaseLost also where the head is gone that was swapped last, or that ``newest_commit`` or
        ``swapped`` found: the database lost commits, and a start will put them back."""
        ...

    async def swap_forward(
        self, token: bytes, commits: Sequence[tuple[CommitRef, Sequence[HeadMove]]]
    ) -> None:
        """As ``swap`` for each commit in order, with fewer round trips and syncs. When it raises,
        those up to some commit stand and those after it do not."""
        ...

    async def swapped(self, moves: Sequence[HeadMove]) -> bool:
        """After a lost answer: True when every head stands exactly at ``new`` (or later history
        shows it did), False when every one still stands at ``old``; RootMoved otherwise."""
        ...

    async def import_heads(
        self, token: bytes, store: bytes, newest: CommitRef, rows: Sequence[BucketRow]
    ) -> None:
        """Make these the live buckets of a registry that holds no heads, claim it for ``store``,
        and have ``newest_commit`` give ``newest``, which is at least as new as the rows' commits:
        one fenced transaction, committed durably. RootMoved where there are heads, ConfigError
        where the store is another."""
        ...

    async def put_segment(self, row: SegmentRow) -> None:
        """Insert or update the state of one segment."""
        ...

    async def segments(self) -> list[SegmentRow]: ...

    async def put_shipment(self, token: bytes, row: Shipment) -> None:
        """Insert or update the state of one file on its way to Forge, under the fence."""
        ...

    async def shipments(self) -> list[Shipment]:
        """All of them, by stream and number."""
        ...

    async def advance_forge(
        self,
        token: bytes,
        commit: int,
        roots: Sequence[ForgeRoot],
        held: Sequence[ForgeRoot] = (),
    ) -> None:
        """Move the watermark up to ``commit`` and, with it, these buckets' roots. ``held`` are
        buckets that stay behind, with the heads that Forge has not got; a bucket stops to be held
        when it is among ``roots``. Each is named once. One fenced statement. RootMoved, and nothing
        has changed, where the watermark is not below ``commit``, or a root not at an earlier
        sequence."""
        ...

    async def claim_forge(self, token: bytes, service: str, space: str) -> tuple[str, str]:
        """Whom the shipments went to, by DIDs: these, unless there are some that went to others.
        Fenced."""
        ...

    async def forge_watermark(self) -> int:
        """The commit up to which Forge has everything; 0 at first."""
        ...

    async def forge_roots(self) -> list[ForgeRoot]:
        """By bucket; none for one that was deleted at or before the watermark."""
        ...

    async def forge_held(self) -> list[ForgeRoot]:
        """The heads at the watermark of the buckets that are held, by bucket."""
        ...

    async def put_damage(self, token: bytes, damage: Damage) -> None:
        """Keep what is not good of a file that ships, under the fence."""
        ...

    async def damage(self) -> list[Damage]:
        """Of all files, by stream and number."""
        ...

    async def prune(self, keep: int) -> int:
        """Drop head rows beyond the newest ``keep`` of each bucket; returns how many."""
        ...


class SegmentRow(Protocol):
    """State of one segment file in the registry; see ``ingot.registry`` for the dataclass."""

    @property
    def stream(self) -> str:
        """Of the three: log, body, unit."""
        ...

    @property
    def number(self) -> int: ...
    @property
    def state(self) -> str:
        """One of ``ingot.segments.model``, or one of a later version."""
        ...

    @property
    def root(self) -> Cid | None: ...
    @property
    def bytes(self) -> int: ...
    @property
    def first_commit(self) -> int: ...
    @property
    def last_commit(self) -> int: ...


class ProviderSelector(Protocol):
    """Which node of the Forge network a blob is to lie at. The upload service allocates; a blob is
    not sent to a node that was not chosen."""

    async def node_for(self, digest: bytes, size: int) -> str | None:
        """The node's DID, for a blob by its multihash and size; None leaves it to the service."""
        ...
