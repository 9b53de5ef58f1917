"""A bucket's configuration: documents that a client puts, gets back and deletes.

A document is validated when it is put and kept in a canonical form, which is what a reader gets: an
equivalent of what was put, rules in its order. So the modules of the subjects (``bucket_tagging``,
``cors``, ...) are pure, and read what they once wrote. Each change is one mutation of the bucket
(``Store.configure``), as durable and as much in order as objects are.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from ingot.bucket.model import Bucket, BucketConfig
from ingot.limits import (
    DOCUMENT_BYTES_MAX,
    KIB,
    PARSED_BYTES_MAX,
    PARSED_DOCUMENTS_MAX,
    TAGS_BYTES_MAX,
)
from ingot.messages import Header, Response
from ingot.s3 import (
    acl,
    bucket_tagging,
    cors,
    encryption,
    lifecycle,
    ownership,
    public_access,
    website,
)
from ingot.s3.call import Call, Handler, open_again, open_bucket, xml_response
from ingot.s3.documents import require_checksum
from ingot.s3.errors import S3Error

if TYPE_CHECKING:
    from ingot.bucket.store import Store

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

TAGGING: Final = "tagging"
CORS: Final = "cors"
OWNERSHIP: Final = "ownership"
PUBLIC_ACCESS: Final = "public-access"
POLICY: Final = "policy"
ACL: Final = "acl"
LIFECYCLE: Final = "lifecycle"


class Subject(NamedTuple):
    """One document of the configuration and its three operations."""

    document: str  # its name among the bucket's documents
    get: str
    put: str
    delete: str
    canonical: Callable[[bytes], bytes | None]  # of a request's body; None means none
    absent: str  # error code where there is none
    bytes_max: int = DOCUMENT_BYTES_MAX  # of the body
    in_steps: Callable[[bytes], Generator[None, None, bytes]] | None = None  # of one that is long
    checksum_required: bool = False
    put_status: int = 200
    default: bytes | None = None  # what is shown where nothing was ever set
    deleted: bytes | None = None  # what is kept of one that was deleted, where that is not default
    headers: tuple[Header, ...] = ()  # of the answers to get and put
    check: Callable[[bytes | None, BucketConfig], None] | None = None  # of a put, at its commit


def _check_ownership(document: bytes | None, config: BucketConfig) -> None:
    """A bucket whose ACL grants something to others keeps its ACLs."""
    granted = config.documents.get(ACL)
    if document is None and granted is not None:
        if any(grantee != config.owner for grantee, _ in acl.kept(granted)):
            raise S3Error("InvalidBucketAclWithObjectOwnership")


SUBJECTS: Final = {
    b"tagging": Subject(
        TAGGING,
        "GetBucketTagging",
        "PutBucketTagging",
        "DeleteBucketTagging",
        bucket_tagging.canonical,
        "NoSuchTagSet",
        bytes_max=TAGS_BYTES_MAX,
        put_status=204,
    ),
    b"cors": Subject(
        CORS,
        "GetBucketCors",
        "PutBucketCors",
        "DeleteBucketCors",
        cors.canonical,
        "NoSuchCORSConfiguration",
        bytes_max=64 * KIB,
        in_steps=cors.canonical_in_steps,
        checksum_required=True,
    ),
    b"ownershipControls": Subject(
        OWNERSHIP,
        "GetBucketOwnershipControls",
        "PutBucketOwnershipControls",
        "DeleteBucketOwnershipControls",
        ownership.canonical,
        "OwnershipControlsNotFoundError",
        default=ownership.write(ownership.ENFORCED),
        deleted=ownership.DELETED,
        check=_check_ownership,
    ),
    b"publicAccessBlock": Subject(
        PUBLIC_ACCESS,
        "GetPublicAccessBlock",
        "PutPublicAccessBlock",
        "DeletePublicAccessBlock",
        public_access.canonical,
        "NoSuchPublicAccessBlockConfiguration",
    ),
    b"lifecycle": Subject(
        LIFECYCLE,
        "GetBucketLifecycleConfiguration",
        "PutBucketLifecycleConfiguration",
        "DeleteBucketLifecycle",
        lifecycle.canonical,
        "NoSuchLifecycleConfiguration",
        bytes_max=256 * KIB,
        in_steps=lifecycle.canonical_in_steps,
        checksum_required=True,
        headers=((b"x-amz-transition-default-minimum-object-size", b"all_storage_classes_128K"),),
    ),
    b"encryption": Subject(
        "encryption",
        "GetBucketEncryption",
        "PutBucketEncryption",
        "DeleteBucketEncryption",
        encryption.canonical,
        "ServerSideEncryptionConfigurationNotFoundError",
    ),
    b"website": Subject(
        "website",
        "GetBucketWebsite",
        "PutBucketWebsite",
        "DeleteBucketWebsite",
        website.canonical,
        "NoSuchWebsiteConfiguration",
        bytes_max=128 * KIB,
    ),
}


class ConfigurationOperations:
    """Get, put and delete of every subject. Called by way of the table of operations."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def handlers(self) -> dict[str, Handler]:
        found: dict[str, Handler] = {}
        for subject in SUBJECTS.values():
            found |= {
                subject.get: self.get,
                subject.put: self.put,
                subject.delete: self.delete,
            }
        return found

    async def get(self, call: Call) -> Response:
        subject = SUBJECTS[call.operation.resource]
        document = document_of(open_bucket(self._store, call), subject)
        response = xml_response(document)
        response.headers += subject.headers
        return response

    async def put(self, call: Call) -> Response:
        subject = SUBJECTS[call.operation.resource]
        if subject.checksum_required:
            require_checksum(call)
        bucket = open_bucket(self._store, call)
        body = await call.documents.read(call, subject.bytes_max)
        bucket = await open_again(self._store, call, bucket)
        if not body:
            raise S3Error("MissingRequestBodyError")
        document = await self._canonical(call, subject, body)
        bucket = await open_again(self._store, call, bucket)
        check = None if subject.check is None else partial(subject.check, document)
        await self._store.configure(bucket, subject.document, document, check)
        return Response(subject.put_status, [*subject.headers])

    async def _canonical(self, call: Call, subject: Subject, body: bytes) -> bytes | None:
        if subject.in_steps is None:
            return await call.documents.whole(call, body, subject.canonical)
        return await call.documents.parse(call, body, subject.in_steps(body))

    async def delete(self, call: Call) -> Response:
        """Succeeds where there is none, too."""
        subject = SUBJECTS[call.operation.resource]
        bucket = open_bucket(self._store, call)
        await self._store.configure(bucket, subject.document, subject.deleted)
        return Response(204)


class Parsed(Generic[K, T]):
    """What documents say, by their bytes: read once, and not with every request; what was not asked
    for the longest goes first. Belongs to one server. ``factor``: bytes of memory at worst for a
    byte of a document, as measured; what is held is bounded by these."""

    def __init__(self, read: Callable[[K], T], factor: int = 6) -> None:
        self._read = read
        self._factor = factor
        self._held: dict[K, T] = {}
        self._left = PARSED_BYTES_MAX

    def __call__(self, document: K) -> T:
        found = self.held(document)
        return self.hold(document, self._read(document)) if found is None else found

    def held(self, document: K) -> T | None:
        found = self._held.pop(document, None)
        if found is not None:
            self._held[document] = found  # behind all others
        return found

    def has(self, document: K) -> bool:
        return document in self._held

    def hold(self, document: K, found: T) -> T:
        """Keep what was read of a document."""
        if document not in self._held:
            self._left -= self._weight(document)
            while self._held and (self._left < 0 or len(self._held) >= PARSED_DOCUMENTS_MAX):
                oldest = next(iter(self._held))
                self._left += self._weight(oldest)
                del self._held[oldest]
            self._held[document] = found
        return found

    def _weight(self, document: K) -> int:
        own = document[0] if isinstance(document, tuple) else document
        assert isinstance(own, bytes)
        return self._factor * len(own)


def document_of(bucket: Bucket, subject: Subject) -> bytes:
    """The bucket's document; the subject's error where there is none."""
    document = bucket.config.documents.get(subject.document, subject.default)
    if not document:
        raise S3Error(subject.absent, BucketName=bucket.name)
    return document
