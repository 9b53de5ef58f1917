"""PutBucketPolicy, GetBucketPolicy, DeleteBucketPolicy, GetBucketPolicyStatus.

A policy is kept and given back byte for byte. What it allows is decided by ``ingot.s3.access``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingot.bucket.model import Bucket, BucketConfig
from ingot.limits import KIB
from ingot.messages import Response
from ingot.s3 import public_access
from ingot.s3.access import Access
from ingot.s3.call import Call, Handler, open_again, open_bucket, xml_response
from ingot.s3.configuration import POLICY, PUBLIC_ACCESS
from ingot.s3.documents import holder_of
from ingot.s3.errors import S3Error
from ingot.s3.policy import read_in_steps
from ingot.s3.xml import boolean, document

if TYPE_CHECKING:
    from ingot.bucket.store import Store

BODY_BYTES_MAX = 64 * KIB  # of what is read at all; a policy may be less


class PolicyOperations:
    """Operations on a bucket's policy."""

    def __init__(self, store: Store, access: Access) -> None:
        self._store = store
        self._access = access

    def handlers(self) -> dict[str, Handler]:
        return {
            "GetBucketPolicy": self.get,
            "PutBucketPolicy": self.put,
            "DeleteBucketPolicy": self.delete,
            "GetBucketPolicyStatus": self.status,
        }

    async def get(self, call: Call) -> Response:
        _, policy = self._policy(call)
        return Response(200, [(b"Content-Type", b"application/json")], policy)

    async def status(self, call: Call) -> Response:
        bucket, policy = self._policy(call)
        public = self._access.is_public(bucket, policy)
        return xml_response(document("PolicyStatus", f"<IsPublic>{boolean(public)}</IsPublic>"))

    async def put(self, call: Call) -> Response:
        bucket = open_bucket(self._store, call)
        body = await call.documents.read(call, BODY_BYTES_MAX)
        bucket = await open_again(self._store, call, bucket)
        if not body:
            raise S3Error("MissingRequestBodyError")
        name = bucket.name
        steps = read_in_steps(body, name, self._access.who, strict=True)
        policy = await call.documents.one_at_a_time(holder_of(call), steps)
        bucket = await open_again(self._store, call, bucket)

        def check(config: BucketConfig) -> None:
            block = config.documents.get(PUBLIC_ACCESS)
            if policy.is_public and block and public_access.read(block).BlockPublicPolicy:
                raise S3Error("AccessDenied")

        await self._store.configure(bucket, POLICY, body, check)
        return Response(204)

    async def delete(self, call: Call) -> Response:
        bucket = open_bucket(self._store, call)
        await self._store.configure(bucket, POLICY, None)
        return Response(204)

    def _policy(self, call: Call) -> tuple[Bucket, bytes]:
        bucket = open_bucket(self._store, call)
        found = bucket.config.documents.get(POLICY)
        if found is None:
            raise S3Error("NoSuchBucketPolicy", BucketName=bucket.name)
        return bucket, found
