"""ListBuckets, CreateBucket, HeadBucket, DeleteBucket, GetBucketLocation."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from ingot.bucket.leaf import Acl, Grants
from ingot.bucket.model import (
    ENABLED,
    OBJECT_LOCK,
    VERSIONING,
    Bucket,
    BucketConfig,
    BucketExists,
    BucketNotEmpty,
    NoSuchBucket,
)
from ingot.limits import BUCKETS_OF_ACCOUNT_MAX, TAGS_BYTES_MAX, XML_TAGS_ELEMENTS_MAX
from ingot.messages import Response
from ingot.s3 import acl, bucket_tagging, ownership
from ingot.s3.call import Call, Handler, check_known, open_bucket, xml_response
from ingot.s3.configuration import ACL, OWNERSHIP, TAGGING
from ingot.s3.dates import iso
from ingot.s3.errors import S3Error
from ingot.s3.object_lock import write_configuration
from ingot.s3.sigv4 import region_header
from ingot.s3.xml import document, element, parse_in_steps

if TYPE_CHECKING:
    from ingot.bucket.store import Store
    from ingot.ports import Clock

BUCKETS_MAX: Final = 10_000
LOCKED: Final = b"x-amz-bucket-object-lock-enabled"
OWNED: Final = b"x-amz-object-ownership"
AWS: Final = "aws"
US_EAST_1: Final = "us-east-1"
ALL_VERSIONS: Final = (
    "The bucket you tried to delete is not empty. You must delete all versions in the bucket."
)


class BucketOperations:
    """Operations on whole buckets. ``recreate``: what creating one's own bucket again hears; "aws":
    success in us-east-1 and a conflict elsewhere; "idempotent": success where the request asks for
    nothing that the bucket is not. ``default_ownership``: of a bucket whose creation does not
    say. The region that is told is always ``region``, whichever a bucket was made in: it is what
    requests have to be signed for."""

    def __init__(
        self, store: Store, clock: Clock, region: str, recreate: str, default_ownership: str
    ) -> None:
        self._store = store
        self._clock = clock
        self._region = region
        self._recreate = recreate
        self._default_ownership = default_ownership

    def handlers(self) -> dict[str, Handler]:
        return {
            "ListBuckets": self.list,
            "CreateBucket": self.create,
            "HeadBucket": self.head,
            "DeleteBucket": self.delete,
            "GetBucketLocation": self.location,
        }

    async def list(self, call: Call) -> Response:
        prefix = (call.parameter(b"prefix") or b"").decode("utf-8", "replace")
        region = (call.parameter(b"bucket-region") or b"").decode("latin-1")
        limit = _max_buckets(call.parameter(b"max-buckets"))
        after = _decode_token(call.parameter(b"continuation-token") or b"")
        paged = any(name in (b"max-buckets", b"continuation-token") for name, _ in call.query)
        found = [
            bucket
            for bucket in self._store.buckets()
            if region in ("", self._region)
            and bucket.config.owner == call.account.id
            and bucket.name > after
            and bucket.name.startswith(prefix)
        ]
        page = found[:limit]
        shown = self._region if paged or region else ""
        entries = "".join(_entry(bucket, shown) for bucket in page)
        account = call.account
        owner = acl.person("Owner", account.id, account.display_name)
        content = f"{owner}<Buckets>{entries}</Buckets>"
        if len(found) > limit:
            content += element("ContinuationToken", _encode_token(page[-1].name))
        if call.parameter(b"prefix") is not None:
            content += element("Prefix", prefix)
        return xml_response(document("ListAllMyBucketsResult", content))

    async def create(self, call: Call) -> Response:
        owned, grants = _check_create_headers(call, self._default_ownership)
        body = await call.documents.read(call, TAGS_BYTES_MAX)
        documents = await self._check_configuration(call, body)
        await check_known(call)
        call.access.check_account(call)
        if owned != ownership.ENFORCED:
            documents[OWNERSHIP] = ownership.write(owned)
        if grants is not None:
            account = call.account
            document = call.access.acls.write(Acl(account.id, account.display_name, grants))
            documents[ACL] = document
        if call.request.index.get(LOCKED, b"").lower() == b"true":  # for good, and with versions
            documents[VERSIONING] = ENABLED
            documents[OBJECT_LOCK] = write_configuration(None)
        config = BucketConfig(
            owner=call.account.id,
            owner_name=call.account.display_name,
            created_ms=self._clock.now_ms(),
            region=self._region,
            documents=documents,
        )
        try:
            self._check_count(call)
            await self._store.create_bucket(call.bucket, config)
        except BucketExists as error:
            if error.owner != call.account.id:
                raise
            self._check_again(call, documents)
        location = b"/" + call.bucket.encode()
        arn = b"arn:aws:s3:::" + call.bucket.encode()
        return Response(200, [(b"Location", location), (b"x-amz-bucket-arn", arn)])

    def _check_count(self, call: Call) -> None:
        """TooManyBuckets; BucketExists comes first. Creations under way are not counted yet."""
        if self._store.count_of(call.account.id) < BUCKETS_OF_ACCOUNT_MAX:
            return
        try:
            standing = self._store.bucket(call.bucket)
        except NoSuchBucket:
            raise S3Error("TooManyBuckets") from None
        raise BucketExists(standing.config.owner)

    def _check_again(self, call: Call, documents: dict[str, bytes]) -> None:
        """Raise unless creating a bucket again, by its owner, is to succeed. ``documents`` are what
        a new one would begin with."""
        if self._recreate == AWS:
            if self._region == US_EAST_1:
                return
            raise S3Error("BucketAlreadyOwnedByYou", BucketName=call.bucket)
        config = self._store.bucket(call.bucket).config
        standing, acls = config.documents, call.access.acls
        asked = acls.of_bucket(config.with_document(ACL, documents.get(ACL)))
        granted = set(asked.grants) != set(acls.of_bucket(config).grants)
        owned = OWNED in call.request.index and _ownership(documents) != _ownership(standing)
        locked = OBJECT_LOCK in documents and OBJECT_LOCK not in standing
        tagged = TAGGING in documents and documents[TAGGING] != standing.get(TAGGING)
        if granted or owned or locked or tagged:
            raise S3Error("BucketAlreadyExists", BucketName=call.bucket)

    async def _check_configuration(self, call: Call, body: bytes) -> dict[str, bytes]:
        """The documents that the new bucket begins with."""
        if not body:
            return {}
        steps = parse_in_steps(body, "CreateBucketConfiguration", XML_TAGS_ELEMENTS_MAX)
        root = await call.documents.parse(call, body, steps)
        root.only(("LocationConstraint", "Location", "Bucket", "Tags"))
        listed = root.child("Tags")
        tagging = None if listed is None else bucket_tagging.of_creation(listed)
        documents = {} if tagging is None else {TAGGING: tagging}
        if root.child("Location") is not None or root.child("Bucket") is not None:
            raise S3Error("NotImplemented", "Directory buckets are not implemented")
        region = (root.value("LocationConstraint") or "").strip()
        if not region or (region == self._region and region != US_EAST_1):
            return documents
        if region == "EU" and self._region == "eu-west-1":
            return documents
        if region == US_EAST_1 or not _is_region(region):
            raise S3Error("InvalidLocationConstraint", LocationConstraint=region)
        raise S3Error(
            "IllegalLocationConstraintException",
            f"The {region} location constraint is incompatible for the region specific endpoint "
            "this request was sent to.",
            LocationConstraint=region,
        )

    async def head(self, call: Call) -> Response:
        """Clients learn the region here, from the refusal too."""
        try:
            open_bucket(self._store, call)
        except S3Error as error:
            if error.status == 403:
                error.headers = (*error.headers, region_header(self._region))
            raise
        return Response(200, [region_header(self._region), (b"x-amz-access-point-alias", b"false")])

    async def delete(self, call: Call) -> Response:
        bucket = open_bucket(self._store, call)
        try:
            await self._store.delete_bucket(bucket)
        except BucketNotEmpty:
            if bucket.config.versioning is None:
                raise
            raise S3Error("BucketNotEmpty", ALL_VERSIONS, BucketName=bucket.name) from None
        return Response(204)

    async def location(self, call: Call) -> Response:
        open_bucket(self._store, call)
        region = "" if self._region == US_EAST_1 else self._region
        return xml_response(document("LocationConstraint", region))


def _check_create_headers(call: Call, default_ownership: str) -> tuple[str, Grants | None]:
    """The ownership that the new bucket has, and its ACL, where headers say one."""
    index = call.request.index
    owned = index.get(OWNED, default_ownership.encode()).decode("latin-1")
    if owned not in ownership.OWNERSHIPS:
        raise S3Error(
            "InvalidArgument",
            f"Invalid x-amz-object-ownership header: {owned}",
            ArgumentName="x-amz-object-ownership",
            ArgumentValue=owned,
        )
    acl.check_headers(index)
    grants = None
    if owned != ownership.ENFORCED:
        grants = call.access.acls.in_headers(call, call.account.id)
    elif acl.is_in(index) and not acl.says_owner(index):
        raise S3Error("InvalidBucketAclWithObjectOwnership")
    locked = index.get(LOCKED, b"false").lower()
    if locked not in (b"true", b"false"):
        raise S3Error(
            "InvalidArgument",
            ArgumentName=LOCKED.decode(),
            ArgumentValue=locked.decode("latin-1"),
        )
    return owned, grants


def _ownership(documents: Mapping[str, bytes]) -> bytes:
    return documents.get(OWNERSHIP, ownership.write(ownership.ENFORCED))


def _is_region(text: str) -> bool:
    pieces = text.split("-")
    return len(pieces) >= 3 and pieces[-1].isdigit() and "".join(pieces).isalnum()


def _entry(bucket: Bucket, shown: str) -> str:
    """``shown``: the region, where it is to be told."""
    region = element("BucketRegion", shown) if shown else ""
    return (
        f"<Bucket><Name>{bucket.name}</Name>"
        f"<CreationDate>{iso(bucket.config.created_ms)}</CreationDate>{region}</Bucket>"
    )


def _max_buckets(value: bytes | None) -> int:
    if not value:
        return BUCKETS_MAX
    number = int(value) if value.isdigit() and len(value) <= 10 else 0
    if not 1 <= number <= BUCKETS_MAX:
        raise S3Error(
            "InvalidArgument",
            f"Argument max-buckets must be an integer between 1 and {BUCKETS_MAX}",
            ArgumentName="max-buckets",
            ArgumentValue=value.decode("latin-1"),
        )
    return number


def _encode_token(name: str) -> str:
    return urlsafe_b64encode(b"\x01" + name.encode()).decode().rstrip("=")


def _decode_token(token: bytes) -> str:
    if not token:
        return ""
    try:
        raw = urlsafe_b64decode(token + b"=" * (-len(token) % 4))
        name = raw[1:].decode()
    except ValueError:
        raw, name = b"", ""
    if raw[:1] != b"\x01" or _encode_token(name) != token.decode("latin-1").rstrip("="):
        raise S3Error(
            "InvalidArgument",
            "The continuation token provided is incorrect",
            ArgumentName="continuation-token",
            ArgumentValue=token.decode("latin-1"),
        )
    return name
