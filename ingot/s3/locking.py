"""Object lock: the bucket's configuration, retention and legal hold of versions, and with what
state a write begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ingot.bucket.leaf import State
from ingot.bucket.model import ENABLED, OBJECT_LOCK, Bucket, BucketConfig
from ingot.bucket.mutation import Judge
from ingot.bucket.versions import NewState
from ingot.limits import DOCUMENT_BYTES_MAX
from ingot.messages import Response
from ingot.s3 import acl
from ingot.s3.call import (
    Call,
    Handler,
    asked_version,
    find_object,
    open_again,
    open_bucket,
    require,
    restate,
    xml_response,
)
from ingot.s3.documents import require_checksum
from ingot.s3.errors import S3Error
from ingot.s3.headers import NO_LOCK, NO_LOCK_TO_WRITE, WriteHeaders
from ingot.s3.object_lock import (
    read_configuration,
    read_hold,
    read_retention,
    write_configuration,
    write_hold,
    write_retention,
)
from ingot.s3.versioning import outcome_headers, version_headers

if TYPE_CHECKING:
    from ingot.bucket.store import Store

BYPASS: Final = b"x-amz-bypass-governance-retention"
NOT_VERSIONED: Final = (
    "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration"
)


class LockOperations:
    """The operations on object lock of a bucket and of a version."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def handlers(self) -> dict[str, Handler]:
        return {
            "GetObjectLockConfiguration": self.get_configuration,
            "PutObjectLockConfiguration": self.put_configuration,
            "GetObjectRetention": self.get_retention,
            "PutObjectRetention": self.put_retention,
            "GetObjectLegalHold": self.get_hold,
            "PutObjectLegalHold": self.put_hold,
        }

    async def get_configuration(self, call: Call) -> Response:
        kept = open_bucket(self._store, call).config.documents.get(OBJECT_LOCK)
        if kept is None:
            raise S3Error("ObjectLockConfigurationNotFoundError", BucketName=call.bucket)
        return xml_response(kept)

    async def put_configuration(self, call: Call) -> Response:
        require_checksum(call)
        bucket = open_bucket(self._store, call)
        default = read_configuration(await _document(call))
        made = write_configuration(default)
        bucket = await open_again(self._store, call, bucket)
        await self._store.configure(bucket, OBJECT_LOCK, made, _may_lock)
        return Response(200)

    async def get_retention(self, call: Call) -> Response:
        bucket = open_bucket(self._store, call)
        found = await find_object(self._store, bucket, call)
        _check_lock(bucket)
        if found.state.retention is None:
            raise S3Error("NoSuchObjectLockConfiguration", Key=call.key.decode())
        response = xml_response(write_retention(found.state.retention))
        response.headers += version_headers(bucket, found.version)
        return response

    async def put_retention(self, call: Call) -> Response:
        require_checksum(call)
        bucket = open_bucket(self._store, call)
        version = asked_version(call)
        retention = read_retention(await _document(call), call.now_ms)

        def new(bucket: Bucket) -> NewState:
            return NewState(retention=retention, bypass=bypasses(call, bucket, call.key))

        return await self._set(call, bucket, version, new)

    async def get_hold(self, call: Call) -> Response:
        bucket = open_bucket(self._store, call)
        found = await find_object(self._store, bucket, call)
        _check_lock(bucket)
        if found.state.hold is None:
            raise S3Error("NoSuchObjectLockConfiguration", Key=call.key.decode())
        response = xml_response(write_hold(found.state.hold))
        response.headers += version_headers(bucket, found.version)
        return response

    async def put_hold(self, call: Call) -> Response:
        require_checksum(call)
        bucket = open_bucket(self._store, call)
        version = asked_version(call)
        hold = read_hold(await _document(call))
        return await self._set(call, bucket, version, lambda _: NewState(hold=hold))

    async def _set(
        self,
        call: Call,
        bucket: Bucket,
        version: str | None,
        new: Callable[[Bucket], NewState],
    ) -> Response:
        if OBJECT_LOCK not in bucket.config.documents:
            bucket = await open_again(self._store, call, bucket)
            await find_object(self._store, bucket, call)  # that there is none is told first
            _check_lock(bucket)
        outcome = await restate(self._store, call, bucket, version, new)
        return Response(200, outcome_headers(outcome))


async def _document(call: Call) -> bytes:
    body = await call.documents.read(call, DOCUMENT_BYTES_MAX)
    if not body:
        raise S3Error("MissingRequestBodyError")
    return body


def _may_lock(config: BucketConfig) -> None:
    if config.versioning != ENABLED:
        raise S3Error("InvalidBucketState", NOT_VERSIONED)


def _check_lock(bucket: Bucket) -> None:
    """InvalidRequest where versions cannot be locked."""
    if OBJECT_LOCK not in bucket.config.documents:
        raise S3Error("InvalidRequest", NO_LOCK)


def state_of_write(call: Call, bucket: Bucket, written: WriteHeaders) -> State | None:
    """The state that a new version begins with: what its headers say. Whoever may write an object
    need not be one who may tag or lock it."""
    state = written.state
    if state is None:
        return None
    if written.lock and OBJECT_LOCK not in bucket.config.documents:
        raise S3Error("InvalidRequest", NO_LOCK_TO_WRITE)
    if state.tags:
        require(call, bucket, "PutObjectTagging", call.key)
    if state.retention is not None:
        require(call, bucket, "PutObjectRetention", call.key)
    if state.hold:
        require(call, bucket, "PutObjectLegalHold", call.key)
    return state


def judge_of_write(
    call: Call, bucket: Bucket, state: State | None, created_ms: int
) -> Judge | None:
    """What gives ``state`` the default retention that the bucket has at the commit, where it has no
    other, and refuses a public ACL that the bucket wants none of by then. None where it could do
    neither: a bucket without versions has no retention."""
    grants = None if state is None or state.acl is None else state.acl.grants
    if grants is not None and not acl.is_public(grants):
        grants = None
    if grants is None and bucket.config.versioning is None:
        return None
    given = state or State()

    def judge(config: BucketConfig) -> State:
        if grants is not None:
            call.access.acls.check_public(config, grants)
        document = config.documents.get(OBJECT_LOCK)
        if document is None or given.retention is not None:
            return given
        default = read_configuration(document)
        return given if default is None else replace(given, retention=default.at(created_ms))

    return judge


def visible(call: Call, bucket: Bucket, state: State) -> State:
    """What of a version's state a reader of the object is shown: locks to those only who may ask
    for them."""
    retention, hold = state.retention, state.hold
    allows = call.access.allows
    if retention is not None and not allows(call, bucket, "GetObjectRetention", call.key):
        retention = None
    if hold is not None and not allows(call, bucket, "GetObjectLegalHold", call.key):
        hold = None
    return State(state.tags, retention, hold)


def bypasses(call: Call, bucket: Bucket, key: bytes) -> bool:
    """Whether the client wants to end a retention that governance allows to end early, and may."""
    wanted = call.request.index.get(BYPASS, b"").lower() == b"true"
    return wanted and call.access.allows(call, bucket, "BypassGovernanceRetention", key)
