"""PostObject: an object from an HTML form. What a PUT has in headers a form has in fields.

    fields ─ signer ─ policy ─ fields become headers ─ as a PUT, its body the file ─ 201, 204 or 303

The form is read up to its file before anything is known of who sent it: only so much as is bounded.
From there on it is a PUT: one way to check headers, to take a body in and to commit it. Headers of
the request itself that would say something of the object are refused, for a policy cannot speak of
them. A form without a signature is anybody's, and needs a bucket whose policy lets anybody write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote_from_bytes, urlencode, urlsplit

from ingot.accounts import judged
from ingot.bucket.model import NoSuchBucket
from ingot.credentials import ANONYMOUS
from ingot.limits import PUT_BYTES_MAX
from ingot.messages import Header, Request, Response
from ingot.s3 import form_auth, form_policy
from ingot.s3.call import XML, Call, Handler, bucket_url, named_bucket
from ingot.s3.errors import S3Error
from ingot.s3.form import Form, boundary_of, read_form
from ingot.s3.headers import Index
from ingot.s3.names import check_key
from ingot.s3.sigv4 import CONTROLS, TOKEN, text
from ingot.s3.tags import OBJECT_TAGS_MAX, TOO_MANY_OF_OBJECT, read_tagging
from ingot.s3.xml import DECLARATION, element

if TYPE_CHECKING:
    from ingot.bucket.store import Store
    from ingot.s3.auth import Authenticator

SIGNED: Final = (
    "A form upload is authorised by the policy in its fields: it takes no Authorization header and "
    "no signature in the URL"
)
NO_HEADER: Final = "A form upload says this in a field and not in a header"
EMPTY_KEY: Final = "User key must have a length greater than 0."
FILENAME: Final = b"${filename}"
_STATUSES: Final = {b"200": 200, b"201": 201}
_AS_HEADERS: Final = {
    **{
        name: name.encode()
        for name in (
            *("content-type", "cache-control", "content-disposition", "content-encoding"),
            *("content-language", "content-md5", "expires"),
        )
    },
    "acl": b"x-amz-acl",
}
_OF_FORM: Final = frozenset((*form_auth.V4, form_auth.TOKEN))
# Headers by which a PUT would say something of the object.
_OF_OBJECT: Final = (
    *(b"content-md5", b"x-amz-acl", b"x-amz-grant-", b"x-amz-meta-", b"x-amz-tagging"),
    *(b"x-amz-storage-class", b"x-amz-server-side-encryption", b"x-amz-object-lock-"),
    *(b"x-amz-website-redirect-location", b"x-amz-checksum-", b"x-amz-sdk-checksum-algorithm"),
    *(b"x-amz-trailer", b"x-amz-write-offset-bytes", b"x-amz-content-sha256"),
)
# Those that go on speaking of the request; browsers send some of the others with every form.
_KEPT: Final = (
    *(b"host", b"origin", b"referer", b"user-agent", b"if-match", b"if-none-match"),
    b"x-amz-expected-bucket-owner",
)


class PostOperations:
    """PostObject. ``put`` is PutObject's handler, which stores the file."""

    def __init__(self, store: Store, authenticator: Authenticator, put: Handler) -> None:
        self._store = store
        self._authenticator = authenticator
        self._put = put

    def handlers(self) -> dict[str, Handler]:
        return {"PostObject": self.post}

    async def post(self, call: Call) -> Response:
        request = call.request
        boundary = boundary_of(request.index.get(b"content-type", b""))
        if call.authenticated.account is not None:
            raise S3Error("InvalidRequest", SIGNED)
        kept = _headers_of_request(request.index)
        form = await read_form(request.body, boundary)
        call.authenticated = await judged(
            lambda: self._authenticator.authenticate_form(form.fields, call.now_ms), request.peer
        )
        call.account = call.authenticated.account or ANONYMOUS
        key = _key(form)
        least, most = 0, PUT_BYTES_MAX
        if call.authenticated.account is not None:
            policy = form_policy.read(form.fields[form_auth.POLICY])
            policy.check({**form.fields, "key": key}, call.bucket, call.now_ms)
            least, most = policy.least, policy.most
        check_key(key)
        call.key = key
        form.file.bound(least, most)
        call.request = _as_put(request, kept | _headers_of_form(form), form)
        await self._learn(call)
        return _answer(call, form, await self._put(call))

    async def _learn(self, call: Call) -> None:
        """What the bucket's policy asks of the object that is there. Of a bucket that does not
        exist nobody in particular hears no more than of one that is closed."""
        try:
            bucket = named_bucket(self._store, call)
        except NoSuchBucket:
            if call.account is ANONYMOUS:
                raise S3Error("AccessDenied") from None
            raise
        await call.access.learn(self._store, call, bucket, call.key, None, "PutObject")


def _key(form: Form) -> bytes:
    """The key that the form asks for, with the file's name where it wants that."""
    key = form.fields.get("key")
    if key is None:
        raise form_auth.missing_field("key")
    key = key.replace(FILENAME, form.filename.encode("utf-8", "replace"))
    if not key:
        raise S3Error("InvalidArgument", EMPTY_KEY, ArgumentName="key", ArgumentValue="")
    return key


def _headers_of_request(index: Index) -> Index:
    """The request's headers that a form upload goes by. InvalidRequest for one that says something
    of the object."""
    for name, value in index.items():
        if name.startswith(_OF_OBJECT) and value != b"UNSIGNED-PAYLOAD":
            raise S3Error("InvalidRequest", NO_HEADER, Header=name.decode("latin-1"))
    return {name: index[name] for name in _KEPT if name in index}


def _headers_of_form(form: Form) -> Index:
    """The fields that a PUT would have as headers, under the headers' names."""
    index: Index = {}
    for field, value in form.fields.items():
        if field == "tagging":
            tags = read_tagging(value, OBJECT_TAGS_MAX, TOO_MANY_OF_OBJECT)
            index[b"x-amz-tagging"] = urlencode(tags).encode()
            continue
        name = _AS_HEADERS.get(field)
        if name is None:
            if not field.startswith("x-amz-") or field in _OF_FORM:
                continue
            name = field.encode("utf-8", "replace")
        # The HTTP parser has seen to this with headers: without it a field could write lines of
        # the answers that show the object.
        if name.translate(None, TOKEN) or value.translate(None, CONTROLS) != value:
            raise S3Error("InvalidArgument", ArgumentName=field, ArgumentValue=text(value))
        index[name] = value.strip(b" \t")
    return index


def _as_put(request: Request, index: Index, form: Form) -> Request:
    return Request(
        request.method,
        request.target,
        request.headers,
        index,
        form.file,
        request.peer,
        request.secure,
    )


def _answer(call: Call, form: Form, stored: Response) -> Response:
    """What a PUT answers, said as the form wants it said."""
    headers = stored.headers
    [etag] = [value for name, value in headers if name == b"ETag"]
    target = form.fields.get("success_action_redirect", form.fields.get("redirect"))
    if target is not None:
        location = _redirect(target, call, etag)
        if location is not None:
            return Response(303, [(b"Location", location), *headers])
    # Escaped in whole, slashes too, as S3 does here; it is the same place.
    key = quote_from_bytes(call.key, "")
    location = f"{bucket_url(call)}/{key}".encode("latin-1")
    shown: list[Header] = [(b"Location", location), *headers]
    status = _STATUSES.get(form.fields.get("success_action_status", b""), 204)
    if status != 201:
        return Response(status, shown)
    # Without a namespace, as S3 writes this document and no other but errors.
    document = (
        f"{DECLARATION}<PostResponse>{element('Location', location.decode('latin-1'))}"
        f"{element('Bucket', call.bucket)}{element('Key', call.key.decode())}"
        f"{element('ETag', etag.decode())}</PostResponse>"
    )
    return Response(status, [XML, *shown], document.encode())


def _redirect(target: bytes, call: Call, etag: bytes) -> bytes | None:
    """Where the browser goes next, told what was stored; None for what is no such place."""
    try:
        parts = urlsplit(target.decode("ascii"))
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    if not all(0x20 < byte < 0x7F for byte in target):
        return None
    told = urlencode({"bucket": call.bucket, "key": call.key, "etag": etag})
    query = f"{parts.query}&{told}" if parts.query else told
    return parts._replace(query=query).geturl().encode()
