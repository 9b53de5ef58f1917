"""An object's tags: read, put and deleted by themselves, and given with a write.

Tags are state of a version: changing them touches neither its bytes nor its times, and a new
version begins without, unless its write brings some.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ingot.bucket.model import Bucket
from ingot.bucket.versions import NewState
from ingot.limits import KIB
from ingot.messages import Response
from ingot.s3.call import (
    Call,
    Handler,
    asked_version,
    check_right,
    find_object,
    named_bucket,
    open_bucket,
    restate,
    xml_response,
)
from ingot.s3.errors import S3Error
from ingot.s3.tags import OBJECT_TAGS_MAX, TOO_MANY_OF_OBJECT, read_tagging, write_tagging
from ingot.s3.versioning import outcome_headers, version_headers

if TYPE_CHECKING:
    from ingot.bucket.store import Store

BYTES_MAX: Final = 64 * KIB
ACTIONS: Final = ("PutObjectTagging", "PutObjectVersionTagging")


def _tags(body: bytes) -> dict[str, str]:
    return read_tagging(body, OBJECT_TAGS_MAX, TOO_MANY_OF_OBJECT)


class ObjectTaggingOperations:
    """GetObjectTagging, PutObjectTagging, DeleteObjectTagging."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def handlers(self) -> dict[str, Handler]:
        return {
            "GetObjectTagging": self.get,
            "PutObjectTagging": self.put,
            "DeleteObjectTagging": self.delete,
        }

    async def get(self, call: Call) -> Response:
        bucket = open_bucket(self._store, call)
        found = await find_object(self._store, bucket, call)
        response = xml_response(write_tagging(found.state.tags))
        response.headers += version_headers(bucket, found.version)
        return response

    async def put(self, call: Call) -> Response:
        """A policy may ask for the tags, which are in the body."""
        bucket = named_bucket(self._store, call)
        if not call.access.may_allow(call, bucket, ACTIONS):
            raise S3Error("AccessDenied")
        version = asked_version(call)
        body = await call.documents.read(call, BYTES_MAX)
        if not body:
            raise S3Error("MissingRequestBodyError")
        tags = await call.documents.whole(call, body, _tags)
        call.request_tags = tags

        def new(bucket: Bucket) -> NewState:
            check_right(call, bucket)  # it may not have been judged yet
            return NewState(tags=tags)

        outcome = await restate(self._store, call, bucket, version, new)
        return Response(200, outcome_headers(outcome))

    async def delete(self, call: Call) -> Response:
        bucket = open_bucket(self._store, call)
        version = asked_version(call)
        outcome = await restate(self._store, call, bucket, version, lambda _: NewState(tags={}))
        return Response(204, outcome_headers(outcome))
