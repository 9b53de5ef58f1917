"""The S3 application: one request in, one response out, never an exception.

The order of judgement is fixed, because error tests and clients depend on it: target and route,
names, authentication, what the headers say, the bucket, the right to use it, and the body last. So
nothing of a body is read, and no ``100 Continue`` sent, for a request that is refused. Called by
the HTTP server for every request.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

from ingot.bucket.model import NoSuchBucket
from ingot.errors import Corruption, IngotError
from ingot.messages import Header, Request, Response
from ingot.s3.auth import Accounts, Authenticator
from ingot.s3.buckets import BucketOperations
from ingot.s3.call import XML, Call, Handler
from ingot.s3.completing import CompleteOperations
from ingot.s3.copying import CopyOperations
from ingot.s3.deleting import DeleteOperations
from ingot.s3.errors import ERRORS, S3Error, translate
from ingot.s3.fixed import FixedOperations
from ingot.s3.listing import ListOperations
from ingot.s3.multipart import MultipartOperations
from ingot.s3.names import split_query, split_target
from ingot.s3.objects import ObjectOperations
from ingot.s3.operations import REFUSED, Operation
from ingot.s3.preflight import preflight_refusal
from ingot.s3.route import PLAIN_OBJECT, UNROUTED, not_implemented, resolve
from ingot.s3.upload_listing import UploadListOperations
from ingot.s3.xml import error_document

if TYPE_CHECKING:
    from ingot.bucket.store import Store
    from ingot.ports import Clock

SOURCE: Final = b"x-amz-copy-source"
SAY_EVERY_MS: Final = 1000


class AccessEntry(NamedTuple):
    """One line of an access log."""

    request_id: str
    time_ms: int
    peer: str
    account: str  # canonical id, "" for a request that was not authenticated
    operation: str
    bucket: str
    key: bytes
    status: int
    code: str  # the S3 error code, "" on success
    length: int  # of the response's body


AccessLog = Callable[[AccessEntry], None]


class App:
    """S3 over one store. ``accounts`` are looked up by access key; ``region`` is the gateway's.

    ``recreate_own_bucket``: whether creating one's own bucket again is a success; None is AWS's
    rule, which says so in us-east-1 alone. ``access_log`` is called once a request, when its head
    has been decided.
    """

    def __init__(
        self,
        store: Store,
        accounts: Accounts,
        region: str,
        clock: Clock,
        *,
        recreate_own_bucket: bool | None = None,
        access_log: AccessLog | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self._clock = clock
        self._authenticator = Authenticator(accounts, region)
        self._access_log = access_log
        self._log = logger or logging.getLogger("ingot.s3")
        if recreate_own_bucket is None:
            recreate_own_bucket = region == "us-east-1"
        self._handlers: dict[str, Handler] = {}
        for group in (
            ObjectOperations(store, clock),
            BucketOperations(store, clock, region, recreate_own_bucket),
            ListOperations(store),
            DeleteOperations(store),
            CopyOperations(store, clock),
            MultipartOperations(store, clock),
            CompleteOperations(store, clock),
            UploadListOperations(store),
            FixedOperations(store),
        ):
            self._handlers |= group.handlers()
        # A request id is this process's random prefix and a counter: unique, and cheap to make.
        self._id_prefix = secrets.token_hex(4).upper().encode()
        self._ids = count(secrets.randbelow(2**24))
        self._said_ms = self._unsaid = 0
        self._host_id = secrets.token_urlsafe(32)
        self._host_header: Header = (b"x-amz-id-2", self._host_id.encode())

    async def handle(self, request: Request) -> Response:
        """The answer to one request, errors included."""
        # Decided at the time that the answer will bear, where the connection has looked already.
        now_ms = request.received_ms or self._clock.now_ms()
        call = Call(request, b"%b%08X" % (self._id_prefix, next(self._ids)), now_ms)
        code = ""
        try:
            response = await self._admitted(call)(call)
        except Exception as error:
            refused = self._refusal(error, call)
            code = refused.code
            response = self._error_response(refused, call.request_id, request)
        headers = response.headers
        headers.append((b"x-amz-request-id", call.request_id))
        headers.append(self._host_header)
        if self._access_log is not None:
            try:
                self._access_log(_entry(call, response, code))
            except Exception:  # the host's mistake must not cost the client its answer
                self._log.exception("request %s: the access log failed", call.request_id.decode())
        return response

    def _admitted(self, call: Call) -> Handler:
        """The operation of a request that may be carried out."""
        request = call.request
        call.bucket, call.key, raw_query = split_target(request.target)
        operation = None
        refused: S3Error | None = None
        if call.key and not raw_query and SOURCE not in request.index:
            operation = PLAIN_OBJECT.get(request.method)
        if operation is None:
            call.query, bare = split_query(raw_query)
            if request.method == "OPTIONS":
                raise preflight_refusal(request)
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
            raise not_implemented(operation.name)
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
            if refused is not None and refused.status == ERRORS["MethodNotAllowed"][0]:
                raise refused
            raise S3Error("AccessDenied")
        call.account = account
        call.authenticated = passed

    def _refusal(self, error: Exception, call: Call) -> S3Error:
        """What the client hears of ``error``; what the operator must know goes to the log."""
        bucket = call.bucket
        if isinstance(error, NoSuchBucket) and error.args:
            bucket = str(error.args[0])  # a copy's source may be another one
        refused = translate(error, bucket, call.key.decode("utf-8", "replace"))
        if refused.status == 500:
            known = isinstance(error, IngotError)
            self._log.error(
                "request %s: %s %s: %s: %s",
                call.request_id.decode(),
                call.request.method,
                ascii(call.request.target.partition(b"?")[0].decode("latin-1")),
                "damaged data" if isinstance(error, Corruption) else type(error).__name__,
                error,
                exc_info=None if known else error,
            )
        elif refused.status == 503:
            self._say_unavailable(error, call)
        return refused

    def _say_unavailable(self, error: Exception, call: Call) -> None:
        """Once in a while: a gateway refuses most where it has least to spare."""
        self._unsaid += 1
        if call.now_ms - self._said_ms >= SAY_EVERY_MS:
            self._log.warning(
                "request %s: %s (%d such answers)", call.request_id.decode(), error, self._unsaid
            )
            self._said_ms, self._unsaid = call.now_ms, 0

    def _error_response(self, error: S3Error, request_id: bytes, request: Request) -> Response:
        headers = [XML, *error.headers]
        if error.status == 304:
            return Response(304, list(error.headers))
        if request.method == "HEAD":
            return Response(error.status, headers)
        path = request.target.partition(b"?")[0].decode("utf-8", "replace")
        return Response(
            error.status, headers, error_document(error, path, request_id.decode(), self._host_id)
        )

    def bad_request(self, kind: str, detail: str) -> Response:
        """The answer to what is no request: ``kind`` is an error code, ``detail`` says why."""
        request_id = b"%b%08X" % (self._id_prefix, next(self._ids))
        error = S3Error(kind if kind in ERRORS else "BadRequest", detail or None)
        body = error_document(error, "/", request_id.decode(), self._host_id)
        headers = [XML, (b"x-amz-request-id", request_id), self._host_header]
        return Response(error.status, headers, body, close=True)


def _entry(call: Call, response: Response, code: str) -> AccessEntry:
    account = getattr(call, "account", None)
    operation = getattr(call, "operation", UNROUTED)
    length = response.length
    if length is None:
        length = len(response.body) if isinstance(response.body, bytes) else 0
    return AccessEntry(
        call.request_id.decode(),
        call.now_ms,
        call.request.peer,
        "" if account is None else account.id,
        operation.name,
        call.bucket,
        call.key,
        response.status,
        code,
        length,
    )
