"""The S3 application: one request in, one response out, never an exception.

The order of judgement is fixed, because error tests and clients depend on it: target and route,
names, authentication, what the headers say, the bucket, the right to use it, and the body last. So
nothing of a body is read, and no ``100 Continue`` sent, for a request that is refused. Called by
the HTTP server for every request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ingot.accounts import HeldAccounts, NotHeld, judged
from ingot.bucket.model import Bucket, NoSuchBucket
from ingot.credentials import ANONYMOUS
from ingot.messages import Exchange, Request, Response
from ingot.s3.access import Access
from ingot.s3.acl_operations import AclOperations
from ingot.s3.actions import action_of
from ingot.s3.answers import AccessLog, Answers, Asked
from ingot.s3.attributes import AttributeOperations
from ingot.s3.auth import Authenticator
from ingot.s3.authorizing import AuthorizedAccess
from ingot.s3.buckets import BucketOperations
from ingot.s3.call import Call, Handler, learn_object, named_version
from ingot.s3.completing import CompleteOperations
from ingot.s3.configuration import ConfigurationOperations
from ingot.s3.copying import CopyOperations
from ingot.s3.cross_origin import CrossOrigin
from ingot.s3.deleting import DeleteOperations
from ingot.s3.documents import Documents
from ingot.s3.errors import ERRORS, S3Error
from ingot.s3.expiration import Expirations
from ingot.s3.express import ExpressLane
from ingot.s3.fixed import FixedOperations
from ingot.s3.listing import ListOperations
from ingot.s3.locking import LockOperations
from ingot.s3.multipart import MultipartOperations
from ingot.s3.names import split_query, split_target
from ingot.s3.object_tagging import ObjectTaggingOperations
from ingot.s3.objects import ObjectOperations
from ingot.s3.operations import OPERATIONS, REFUSED, SERVICE, Operation
from ingot.s3.ownership import ENFORCED
from ingot.s3.policy_operations import PolicyOperations
from ingot.s3.posting import PostOperations
from ingot.s3.route import (
    PLAIN_OBJECT,
    PREFLIGHT,
    UNROUTED,
    method_not_allowed,
    not_implemented,
    resolve,
)
from ingot.s3.sigv4 import region_header
from ingot.s3.upload_listing import UploadListOperations
from ingot.s3.versioning import VersioningOperations
from ingot.s3.virtual_host import VirtualHosts

if TYPE_CHECKING:
    from ingot.accounts import Accounts
    from ingot.bucket.store import Store
    from ingot.ports import Authorizer, Clock

SOURCE: Final = b"x-amz-copy-source"
FORM: Final = "PostObject"
OF_ACCOUNTS: Final = ("ListBuckets", "CreateBucket")  # there is no bucket that could allow them
NO_COPY: Final = "Anonymous users cannot copy objects. Please authenticate"
NOT_ANONYMOUS: Final = {  # whatever a policy says
    "CopyObject": NO_COPY,
    "UploadPartCopy": NO_COPY,
    "CreateMultipartUpload": "Anonymous users cannot initiate multipart uploads. Please "
    "authenticate.",
    "PutBucketAcl": "Anonymous users cannot invoke this API. Please authenticate.",
    **{
        row.name: f"s3:{action_of(row)} does not support Anonymous requests!"
        for row in OPERATIONS
        if row.name.endswith(("BucketOwnershipControls", "PublicAccessBlock"))
    },
}


class App:
    """S3 over one store. ``accounts`` are looked up by access key; ``region`` is the gateway's.

    ``recreate_own_bucket``: "aws" or "idempotent" (``ingot.s3.buckets``). ``default_ownership``: of
    buckets whose creation does not say. ``form_signature_v2``: forms may be signed by HMAC-SHA1.
    ``virtual_host_domain``: hosts under it name buckets (``ingot.s3.virtual_host``).
    ``access_log`` is called once a request, when its head has been decided. ``authorizer`` is asked
    about every right first; then there is no express lane, which asks nobody.
    """

    def __init__(
        self,
        store: Store,
        accounts: Accounts,
        region: str,
        clock: Clock,
        *,
        recreate_own_bucket: str = "aws",
        default_ownership: str = ENFORCED,
        form_signature_v2: bool = True,
        virtual_host_domain: str | None = None,
        authorizer: Authorizer | None = None,
        access_log: AccessLog | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self._clock = clock
        self._store = store
        self._authenticator = Authenticator(accounts, region, form_signature_v2)
        self._region = region_header(region)
        self._answers = Answers(access_log, logger or logging.getLogger("ingot.s3"))
        self._hosts = VirtualHosts(virtual_host_domain) if virtual_host_domain else None
        self.express: Callable[[bytes, Exchange, int], bool] | None = None
        # Policies are read without waiting: they can name the keys only of accounts at hand.
        held = accounts if isinstance(accounts, HeldAccounts) else None
        named: Accounts = accounts if held is None else {}
        self._access: Access = Access(named, held)
        if authorizer is None:
            self.express = ExpressLane(store, self._authenticator, self._answers).take
            if self._hosts is not None:
                self.express = self._hosts.beside(self.express)
        else:
            self._access = AuthorizedAccess(named, authorizer, held)
        self._documents = Documents(clock)
        self._cross_origin = CrossOrigin(store, self._documents)
        self._handlers: dict[str, Handler] = {}
        expirations = Expirations(self._documents)
        objects = ObjectOperations(store, clock, expirations)
        for group in (
            objects,
            PostOperations(store, self._authenticator, objects.put),
            BucketOperations(store, clock, region, recreate_own_bucket, default_ownership),
            ConfigurationOperations(store),
            PolicyOperations(store, self._access),
            AclOperations(store),
            VersioningOperations(store),
            ObjectTaggingOperations(store),
            LockOperations(store),
            AttributeOperations(store),
            ListOperations(store),
            DeleteOperations(store),
            CopyOperations(store, clock, expirations),
            MultipartOperations(store, clock, expirations),
            CompleteOperations(store, clock, expirations),
            UploadListOperations(store, expirations),
            FixedOperations(store),
        ):
            self._handlers |= group.handlers()

    async def handle(self, request: Request) -> Response:
        """The answer to one request, errors included."""
        # Decided at the time that the answer will bear, where the connection has looked already.
        now_ms = request.received_ms or self._clock.now_ms()
        answers = self._answers
        call = Call(request, answers.next_id(), now_ms)
        code = ""
        try:
            try:
                handler = self._admitted(call)
            except NotHeld as wanted:
                await wanted.look_up(request.peer)
                handler = await judged(lambda: self._admitted(call), request.peer)
            bucket = self._asked_bucket(call)
            if bucket is not None and await self._access.read_policy(self._documents, bucket):
                bucket = self._asked_bucket(call)  # as it is behind the wait
            if bucket is not None and call.key:
                await learn_object(self._store, call, bucket)
            response = await handler(call)
        except Exception as error:
            asked = _asked(call)
            refused = answers.refusal(error, asked)
            code = refused.code
            response = answers.error(refused, asked)
        finally:
            if call.document_bytes:
                self._documents.release(call)
        if request.index.get(b"origin"):
            await self._cross_origin.add_headers(call, response)
        answers.complete(response, call.request_id)
        if answers.logs_access:
            account = getattr(call, "account", None)
            operation = getattr(call, "operation", UNROUTED)
            owner = "" if account is None or account is ANONYMOUS else account.id
            answers.note(_asked(call), request.peer, owner, operation.name, response, code)
        return response

    def _admitted(self, call: Call) -> Handler:
        """The operation of a request that may be carried out."""
        request = call.request
        target = None if self._hosts is None else self._hosts.path_style(request)
        call.in_host = target is not None
        call.bucket, call.key, raw_query = split_target(target or request.target)
        operation = None
        refused: S3Error | None = None
        if call.key and not raw_query and SOURCE not in request.index:
            operation = PLAIN_OBJECT.get(request.method)
        if operation is None:
            call.query, bare = split_query(raw_query)
            if request.method == "OPTIONS":
                call.operation = PREFLIGHT
                return self._cross_origin.preflight
            try:
                operation = resolve(
                    request.method, call.bucket, call.key, call.query, bare, request.index
                )
            except S3Error as error:
                operation, refused = UNROUTED, error
        call.operation = operation
        self._authenticate(call, operation, refused)
        if refused is not None:
            raise refused
        if operation.kind == REFUSED:
            raise not_implemented(" or ".join((operation.name, *operation.twins)))
        call.version = named_version(call)
        return self._handlers[operation.name]

    def _authenticate(self, call: Call, operation: Operation, refused: S3Error | None) -> None:
        passed = self._authenticator.authenticate(
            call.request,
            call.now_ms,
            streaming=operation.takes_object,
            default_region=operation.any_region,
            query=call.query,
        )
        account = passed.account
        if account is None:
            # A request for nothing that could be granted may hear so without a signature.
            if refused is not None and not call.bucket and call.request.method == "POST":
                raise method_not_allowed("POST", SERVICE)
            if refused is not None and refused.status == ERRORS["MethodNotAllowed"][0]:
                raise refused
            if refused is not None or operation.kind == REFUSED or operation.name in OF_ACCOUNTS:
                raise S3Error("AccessDenied")
            if operation.name in NOT_ANONYMOUS:
                raise S3Error("AccessDenied", NOT_ANONYMOUS[operation.name])
            # Who sent a form stands in its fields.
            if operation.name != FORM and not self._is_open(call.bucket):
                asks = operation.name == "HeadBucket"  # for the region, as some SDKs do
                raise S3Error("AccessDenied", headers=(self._region,) if asks else ())
            account = ANONYMOUS
        call.account = account
        call.authenticated = passed
        call.access = self._access
        call.documents = self._documents
        if operation.name in OF_ACCOUNTS:
            self._access.check_account(call)

    def _asked_bucket(self, call: Call) -> Bucket | None:
        """The bucket on whose configuration, or object, it may depend what the request may do."""
        if not call.bucket or call.operation is PREFLIGHT:
            return None
        try:
            bucket = self._store.bucket(call.bucket)
        except NoSuchBucket:
            return None  # the operation says so, in its turn
        return None if bucket.config.plain else bucket

    def _is_open(self, bucket: str) -> bool:
        """Whether the bucket may let somebody in who has no signature. Of one that is not there
        such a client hears no more than of one that is closed."""
        try:
            return self._access.is_open(self._store.bucket(bucket))
        except NoSuchBucket:
            return False

    def bad_request(self, kind: str, detail: str) -> Response:
        """The answer to what is no request: ``kind`` is an error code, ``detail`` says why."""
        return self._answers.bad_request(kind, detail)


def _asked(call: Call) -> Asked:
    request = call.request
    return Asked(
        call.request_id, call.now_ms, request.method, request.target, call.bucket, call.key
    )
