"""One request on its way through an operation, and the gates every operation passes.

The order of the gates is the order in which S3 judges a request, and most error tests are about
it: what the request says by itself first, then the bucket's existence, then whose bucket it is, and
only then the body. A body may take its time, so whoever has waited for one passes the last gate
again (``open_again``) and changes the bucket that this gives him, never one by its name. Where the
right rests on the object it says by what it was judged (``seen``), and the commit compares. Called
by the operations.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from ingot.accounts import judged
from ingot.bucket.leaf import State
from ingot.bucket.model import NULL_VERSION, Bucket, Outcome, StateChanged
from ingot.bucket.mutation import Seen
from ingot.bucket.record import Record
from ingot.bucket.versions import KEEP, NewState
from ingot.credentials import ANONYMOUS
from ingot.errors import Unavailable
from ingot.limits import JUDGED_TRIES
from ingot.messages import Header, Request, Response
from ingot.s3.actions import action_of, is_of_version
from ingot.s3.dates import http_date
from ingot.s3.errors import S3Error
from ingot.s3.operations import Operation
from ingot.s3.sigv4 import unknown_key

if TYPE_CHECKING:
    from ingot.bucket.model import BucketConfig
    from ingot.bucket.reading import Found
    from ingot.bucket.store import Store
    from ingot.credentials import Account
    from ingot.s3.access import Access, Known
    from ingot.s3.auth import Authenticated
    from ingot.s3.documents import Documents
    from ingot.s3.names import Query

XML: Final[Header] = (b"Content-Type", b"application/xml")
NO_MARKER: Final[tuple[Header, ...]] = ((b"x-amz-delete-marker", b"false"),)
NO_TAGS: Final[Mapping[str, str]] = MappingProxyType({})
OWNER_LOST: Final = (
    "The configuration of this bucket is damaged, so that whose it is cannot be told. Its objects "
    "are kept; its configuration has to be restored by whoever runs this service."
)


class Learned(NamedTuple):
    """A version that was looked at to know who may do what with it, or that it is not there."""

    bucket: bytes  # its id
    key: bytes
    version: str | None
    found: Found | None


class Call:
    """An authenticated request. ``account`` is set before an operation sees it, and ``access`` and
    ``documents``, which are the server's."""

    __slots__ = (
        *("access", "account", "authenticated", "bucket", "document_bytes", "documents", "in_host"),
        *("key", "known", "learned"),
        *("now_ms", "object_tags", "operation", "query", "request", "request_id", "request_tags"),
        "version",
    )

    access: Access
    account: Account
    authenticated: Authenticated
    documents: Documents
    operation: Operation

    def __init__(self, request: Request, request_id: bytes, now_ms: int) -> None:
        self.request = request
        self.request_id = request_id
        self.now_ms = now_ms
        self.bucket = ""
        self.document_bytes = 0  # of memory that are held for its document
        self.in_host = False  # the host's name says the bucket
        self.key = b""
        self.query: Query = []
        self.learned: Learned | None = None
        # For policies that ask: the version that is acted on, None for the current one, ...
        self.version: str | None = None
        # ... and of the object that is asked about, and that the body would give it.
        self.object_tags: Mapping[str, str] = NO_TAGS
        self.request_tags: Mapping[str, str] | None = None
        self.known: Known | None = None  # what was found out of the request for a policy

    def parameter(self, name: bytes) -> bytes | None:
        """The value of a query parameter, None where it is absent. None that means something is
        there twice (``ingot.s3.route``)."""
        for found, value in self.query:
            if found == name:
                return value
        return None


Handler = Callable[[Call], Coroutine[Any, Any, Response]]


class Operations(Protocol):
    """A group of operations: handlers by the name in the table."""

    def handlers(self) -> dict[str, Handler]: ...


def open_bucket(store: Store, call: Call) -> Bucket:
    """The request's bucket: NoSuchBucket, then the expected owner, then the right to use it."""
    bucket = named_bucket(store, call)
    check_right(call, bucket)
    return bucket


async def open_again(store: Store, call: Call, bucket: Bucket) -> Bucket:
    """A bucket that was opened, as it stands now that the request was waited for: NoSuchBucket if
    it was deleted, whatever has its name. The right to use it is judged anew where it may be
    another one by now: where the configuration is, and where it rests on the object or on a host.
    Who heard that it was taken back, or revoked a key, need not fear a slow body."""
    if call.access.held is not None:
        await check_known(call)
    rests = _rests_on_object(call, bucket)
    if not rests:
        call.learned = None  # it may be a copy's source
    settled = not rests and not call.access.decides
    for _ in range(JUDGED_TRIES):
        newest = store.newest(bucket)
        if settled and newest.config is bucket.config:
            return newest
        bucket, settled = newest, True
        await call.access.read_policy(call.documents, bucket)
        if call.key and not bucket.config.plain:
            await learn_object(store, call, bucket)
        check_right(call, bucket)
    raise Unavailable("the configuration of the bucket is being changed again and again")


async def check_known(call: Call) -> None:
    """InvalidAccessKeyId unless the account that signed the request is still one, of those that a
    host keeps; AccessDenied where the key is another's by now, or its secret is another."""
    held, account = call.access.held, call.account
    if held is None or account is ANONYMOUS:
        return
    key = account.access_key
    found = await judged(lambda: held.get(key), call.request.peer)
    if found is None:
        raise unknown_key(key)
    if (found.id, found.secret_key) != (account.id, account.secret_key):
        raise S3Error("AccessDenied")


def is_settled(call: Call, bucket: Bucket, by: BucketConfig) -> bool:
    """Whether what was judged by the configuration ``by`` holds for the bucket that ``open_again``
    gave: it is the same, and the rights rest on nothing else."""
    return bucket.config is by and call.learned is None and not call.access.decides


def seen(call: Call, bucket: Bucket, key: bytes) -> Seen | None:
    """What of an object the request was judged by; None where its right does not rest on that."""
    learned = call.learned
    if learned is None or learned.bucket != bucket.id or learned.key != key:
        return None
    found, access = learned.found, call.access
    state = State() if found is None or found.record.delete_marker else found.state
    tags = state.tags if access.asks_object_tags(bucket) else None
    of_acl = access.asks_object_acl(bucket, _action(call))
    return Seen(learned.version, tags, state.acl if of_acl else KEEP)


async def restate(
    store: Store,
    call: Call,
    bucket: Bucket,
    version: str | None,
    new: Callable[[Bucket], NewState],
) -> Outcome | None:
    """Change the state of the request's version to what ``new`` gives for the bucket as it stands
    now; it may refuse. The right to it is judged again first, and whenever what it rests on is
    changed before the commit."""
    for _ in range(JUDGED_TRIES):
        bucket = await open_again(store, call, bucket)
        found = seen(call, bucket, call.key)
        try:
            return await store.set_state(bucket, call.key, version, new(bucket), call.now_ms, found)
        except StateChanged:
            continue
    raise Unavailable("the tags or the ACL of the object are being changed again and again")


def check_right(call: Call, bucket: Bucket) -> None:
    """AccessDenied unless the request may do what it asks for."""
    config = bucket.config
    if not config.plain or config.owner != call.account.id or call.access.decides:
        require(call, bucket, _action(call), call.key)


def _rests_on_object(call: Call, bucket: Bucket) -> bool:
    if not call.key or bucket.config.plain:
        return False
    return call.access.asks_object(bucket, _action(call))


async def learn_object(store: Store, call: Call, bucket: Bucket) -> None:
    """Look at the request's object, if what it may do depends on that."""
    version = named_version(call)
    action = action_of(call.operation, version is not None)
    await call.access.learn(store, call, bucket, call.key, version, action)


def _action(call: Call) -> str:
    return action_of(call.operation, bool(call.query) and call.parameter(b"versionId") is not None)


def named_version(call: Call) -> str | None:
    """The version that ``versionId`` names, if the operation is one that heeds it."""
    if not call.query or not is_of_version(action_of(call.operation)):
        return None
    value = call.parameter(b"versionId")
    return None if value is None else value.decode("latin-1")


def named_bucket(store: Store, call: Call) -> Bucket:
    """The request's bucket, before it is known whether the request may do what it asks for."""
    bucket = store.bucket(call.bucket)
    check_expected(bucket, call, b"x-amz-expected-bucket-owner")
    return bucket


def check_expected(bucket: Bucket, call: Call, expected_by: bytes) -> None:
    """The header ``expected_by`` has to name the owner. Of a bucket whose configuration is lost
    nobody can be told that it is not his."""
    owner = bucket.config.owner
    if not owner:
        raise S3Error("InternalError", OWNER_LOST)
    expected = call.request.index.get(expected_by)
    if expected is not None and expected.decode("latin-1") != owner:
        raise S3Error("AccessDenied")


def require(call: Call, bucket: Bucket, action: str, key: bytes) -> None:
    """AccessDenied unless the request may do ``action`` to the bucket, or to ``key`` in it."""
    if not call.access.allows(call, bucket, action, key):
        raise S3Error("AccessDenied")


def no_such_key(
    call: Call, bucket: Bucket, key: bytes, headers: Sequence[Header] = NO_MARKER
) -> S3Error:
    """That there is no such object: told to those only who may list the bucket."""
    if not call.access.allows(call, bucket, "ListBucket", b"", prefix=key):
        return S3Error("AccessDenied")
    return S3Error("NoSuchKey", headers=headers, Key=key.decode())


def asked_version(call: Call) -> str | None:
    """The version that ``versionId`` names; None where the current one is meant."""
    if not call.query:
        return None
    value = call.parameter(b"versionId")
    if value is None:
        return None
    version = value.decode("latin-1")
    if not version_is_well_formed(version):
        raise no_such_version(call.key, version)
    return version


async def find_object(store: Store, bucket: Bucket, call: Call) -> Found:
    """The version of the request's object that is asked for, which is no delete marker."""
    version = asked_version(call)
    found = await look(store, bucket, call, call.key, version)
    if found is None or found.record.delete_marker:
        raise _not_there(call, bucket, version, found)
    return found


async def look(
    store: Store, bucket: Bucket, call: Call, key: bytes, version: str | None
) -> Found | None:
    """As ``Store.look``; where a version was judged, it is that one which is shown."""
    learned = call.learned
    if learned is not None and learned[:3] == (bucket.id, key, version):
        return learned.found
    return await store.look(bucket, key, version)


def _not_there(call: Call, bucket: Bucket, version: str | None, found: Found | None) -> S3Error:
    """A delete marker answers for the object, or stands in the place of the version."""
    if found is None:
        if version is not None:
            return no_such_version(call.key, version)
        return no_such_key(call, bucket, call.key)
    marker = ((b"x-amz-delete-marker", b"true"), (b"x-amz-version-id", found.version.encode()))
    if version is None:
        return no_such_key(call, bucket, call.key, marker)
    allowed = ((b"Allow", b"DELETE"), (b"Last-Modified", modified(found.record)))
    return S3Error(
        "MethodNotAllowed",
        headers=(*marker, *allowed),
        Method=call.request.method,
        ResourceType="DeleteMarker",
    )


def modified(record: Record) -> bytes:
    return http_date(record.created_ms).encode()


def version_is_well_formed(version: str) -> bool:
    """Version ids are opaque words of letters and digits."""
    return version == NULL_VERSION or (
        16 <= len(version) <= 64 and version.isascii() and version.isalnum()
    )


def no_such_version(key: bytes, version: str) -> S3Error:
    """The error for an id that names no version, or cannot name one."""
    if not version_is_well_formed(version):
        return S3Error(
            "InvalidArgument",
            "Invalid version id specified" if version else "Version id cannot be the empty string",
            ArgumentName="versionId",
            ArgumentValue=version,
        )
    return S3Error("NoSuchVersion", Key=key.decode(), VersionId=version)


def bucket_url(call: Call) -> str:
    """Where the client finds the bucket, without a slash at the end."""
    request = call.request
    host = request.index.get(b"host", b"").decode("latin-1")
    place = f"{'https' if request.secure else 'http'}://{host}"
    return place if call.in_host else f"{place}/{call.bucket}"


def xml_response(body: bytes, status: int = 200) -> Response:
    return Response(status, [XML], body)
