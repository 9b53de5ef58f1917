"""GetBucketAcl, PutBucketAcl, GetObjectAcl, PutObjectAcl, and the ACL that a write begins with.

A bucket's ACL is a document of its configuration; an object's is state of its version, together
with whose it is: changing it touches neither bytes nor times. Where ACLs do not count, what a tool
may put is what it reads, and changes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ingot.bucket.leaf import Acl, Grants, State
from ingot.bucket.model import Bucket, BucketConfig, Outcome, StateChanged
from ingot.bucket.versions import NewState
from ingot.errors import Unavailable
from ingot.limits import JUDGED_TRIES, KIB
from ingot.messages import Response
from ingot.s3 import acl
from ingot.s3.call import (
    Call,
    Handler,
    asked_version,
    find_object,
    open_again,
    open_bucket,
    seen,
    xml_response,
)
from ingot.s3.configuration import ACL
from ingot.s3.errors import S3Error
from ingot.s3.versioning import outcome_headers, version_headers

if TYPE_CHECKING:
    from ingot.bucket.store import Store
    from ingot.s3.headers import Index, WriteHeaders

BYTES_MAX: Final = 64 * KIB  # a hundred grants with all that may be said of each


class AclOperations:
    """Operations on the ACLs of a bucket and of a version."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def handlers(self) -> dict[str, Handler]:
        return {
            "GetBucketAcl": self.get_of_bucket,
            "PutBucketAcl": self.put_of_bucket,
            "GetObjectAcl": self.get_of_object,
            "PutObjectAcl": self.put_of_object,
        }

    async def get_of_bucket(self, call: Call) -> Response:
        config = open_bucket(self._store, call).config
        acls = call.access.acls
        return xml_response(acls.write(acls.of_bucket(config)))

    async def get_of_object(self, call: Call) -> Response:
        bucket = open_bucket(self._store, call)
        found = await find_object(self._store, bucket, call)
        acls = call.access.acls
        response = xml_response(acls.write(acls.of_version(bucket.config, found.state)))
        response.headers += version_headers(bucket, found.version)
        return response

    async def put_of_bucket(self, call: Call) -> Response:
        acl.check_headers(call.request.index)
        bucket = open_bucket(self._store, call)
        body = await _document(call)
        bucket = await open_again(self._store, call, bucket)
        config = bucket.config
        acls = call.access.acls
        if not acls.count(config):
            check_enforced(call, config, body)
            return Response(200)
        standing = acls.of_bucket(config)
        grants = _asked(call, body, standing, None)
        document = acls.write(replace(standing, grants=grants))

        def check(config: BucketConfig) -> None:
            if not acls.count(config):
                raise S3Error("AccessControlListNotSupported")
            acls.check_public(config, grants)

        await self._store.configure(bucket, ACL, document, check)
        return Response(200)

    async def put_of_object(self, call: Call) -> Response:
        """The right to it is that of the ACL which stands. Where another comes in between it is
        asked for anew. Only from then on that the public is kept out is no list public: as with
        writes, the commit sees to that."""
        acl.check_headers(call.request.index)
        bucket = open_bucket(self._store, call)
        version = asked_version(call)
        await find_object(self._store, bucket, call)
        body = await _document(call)
        for _ in range(JUDGED_TRIES):
            bucket = await open_again(self._store, call, bucket)
            if not call.access.acls.count(bucket.config):
                check_enforced(call, bucket.config, body)
                return Response(200)
            try:
                outcome = await self._change(call, bucket, version, body)
            except StateChanged:
                continue
            return Response(200, outcome_headers(outcome))
        raise Unavailable("the ACL of the object is being changed again and again")

    async def _change(
        self, call: Call, bucket: Bucket, version: str | None, body: bytes
    ) -> Outcome | None:
        acls, config = call.access.acls, bucket.config
        found = await find_object(self._store, bucket, call)
        theirs = acls.of_version(config, found.state)
        grants = _asked(call, body, theirs, config.owner)
        made = acls.state_acl(config, replace(theirs, grants=grants))

        def check(config: BucketConfig) -> None:
            if not acls.count(config):
                raise S3Error("AccessControlListNotSupported")
            acls.check_public(config, grants)

        check(config)
        judged_by = seen(call, bucket, call.key)
        new = NewState(acl=made)
        return await self._store.set_state(
            bucket, call.key, version, new, call.now_ms, judged_by, check
        )


async def _document(call: Call) -> bytes:
    """The body, which stands in the place of headers."""
    body = await call.documents.read(call, BYTES_MAX)
    if body and acl.is_in(call.request.index):
        raise S3Error("UnexpectedContent")
    await call.documents.turn(call, body)
    return body


def _asked(call: Call, body: bytes, standing: Acl, bucket_owner: str | None) -> Grants:
    """The list that the request puts in the place of the one that stands, as ``Acls.in_headers``.
    What was read may be put back, even where an account that it names is gone."""
    acls, owner = call.access.acls, standing.owner
    grants = acls.in_headers(call, owner, bucket_owner)
    if grants is not None:
        return grants
    if not body:
        raise S3Error("MissingSecurityHeader", MissingHeaderName=acl.CANNED.decode())
    named = [grantee for grantee, _ in standing.grants]
    return acl.read(body, owner, acls.knows(owner, bucket_owner or owner, *named))


def check_enforced(call: Call, config: BucketConfig, body: bytes) -> None:
    """Refuse an ACL that says more than that the bucket's owner owns it."""
    index = call.request.index
    if acl.is_in(index):
        own = acl.says_owner(index)
    else:  # tools copy an ACL as they read it
        own = bool(body) and _is_own(body, config.owner)
    if not own:
        raise S3Error("AccessControlListNotSupported")


def _is_own(body: bytes, owner: str) -> bool:
    try:
        return acl.read(body, owner, lambda _: True) == acl.private(owner)
    except S3Error:
        return False  # whatever it says


# -- writes ----------------------------------------------------------------------------------------


def check_own(written: WriteHeaders, index: Index) -> None:
    """Refuse an ACL of what has none, or cannot have one: of a part, or of a version where ACLs do
    not count."""
    if written.acl and not acl.says_owner(index):
        raise S3Error("AccessControlListNotSupported")


def with_acl(
    call: Call, bucket: Bucket, written: WriteHeaders, state: State | None
) -> State | None:
    """The state of a new version with the ACL that it begins with. Whoever writes it need not be
    one who may say an ACL: only if it is his own, or the policy allows it."""
    acls, config, index = call.access.acls, bucket.config, call.request.index
    if not acls.count(config):
        check_own(written, index)
        return state
    owner, name = acls.owner_of_write(call, config)
    grants = None
    if written.acl:
        grants = acls.in_headers(call, owner, config.owner)
    if grants is None:
        grants = acl.private(owner)
    elif grants != acl.private(owner):
        if not call.access.may_give(call, bucket, owner):
            raise S3Error("AccessDenied")
        acls.check_public(config, grants)
    made = acls.state_acl(config, Acl(owner, name, grants))
    return state if made is None else replace(state or State(), acl=made)
