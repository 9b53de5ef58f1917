"""What ingot does not configure: fixed documents, exact "none" errors, and writes of the default.

Tools that refresh a bucket's whole state read every sub-resource and accept exactly one answer as
"nothing is set". They also write back what they read, so a write that asks for the state a bucket
is in anyway succeeds, and any other is refused as not implemented.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ingot.limits import KIB, XML_TAGS_ELEMENTS_MAX
from ingot.messages import Response
from ingot.s3.call import Call, Handler, find_object, open_bucket, xml_response
from ingot.s3.errors import S3Error
from ingot.s3.operations import ERROR, FIXED, OBJECT, OPERATIONS, Operation
from ingot.s3.xml import Element, document, parse

if TYPE_CHECKING:
    from ingot.bucket.store import Store

CONFIGURATION_BYTES_MAX: Final = 64 * KIB  # of one that is refused, if it is more than little
_CONTENTS: Final = {
    "RequestPaymentConfiguration": "<Payer>BucketOwner</Payer>",
}


class FixedOperations:
    """Every row of the table whose answer is fixed, and the writes that belong to them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def handlers(self) -> dict[str, Handler]:
        found: dict[str, Handler] = {
            row.name: self.answer for row in OPERATIONS if row.kind in (ERROR, FIXED)
        }
        return found | {
            "PutBucketAccelerateConfiguration": self.put_default,
            "PutBucketLogging": self.put_default,
            "PutBucketNotificationConfiguration": self.put_default,
            "PutBucketRequestPayment": self.put_default,
        }

    async def answer(self, call: Call) -> Response:
        """The answer in the table, once bucket and object were found."""
        bucket = open_bucket(self._store, call)
        row = call.operation
        if row.level == OBJECT:
            await find_object(self._store, bucket, call)
        if row.kind == ERROR:
            raise _error(row, call)
        if not row.answer:
            return Response(204)
        return xml_response(document(row.answer, _content(row.answer)))

    async def put_default(self, call: Call) -> Response:
        open_bucket(self._store, call)
        body = await call.documents.read(call, CONFIGURATION_BYTES_MAX)
        if not body:
            raise S3Error("MissingRequestBodyError")
        root, is_default = _DEFAULTS[call.operation.resource]
        if not is_default(parse(body, root, XML_TAGS_ELEMENTS_MAX)):
            raise S3Error("NotImplemented", f"Changing the {root} is not implemented")
        return Response(200)


_DEFAULTS: Final[dict[bytes, tuple[str, Callable[[Element], bool]]]] = {
    b"accelerate": (
        "AccelerateConfiguration",
        lambda root: root.value("Status") == "Suspended",
    ),
    b"logging": ("BucketLoggingStatus", lambda root: not root.children),
    b"notification": ("NotificationConfiguration", lambda root: not root.children),
    b"requestPayment": (
        "RequestPaymentConfiguration",
        lambda root: root.value("Payer") == "BucketOwner",
    ),
}


def _error(row: Operation, call: Call) -> S3Error:
    if row.level == OBJECT:
        return S3Error(row.answer)
    return S3Error(row.answer, BucketName=call.bucket)


def _content(root: str) -> str:
    if root.startswith("List"):
        return "<IsTruncated>false</IsTruncated>"
    return _CONTENTS.get(root, "")
