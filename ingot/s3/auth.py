"""Who sent a request, and what it says of its body: SigV4 in headers or query, or nobody.

``Authenticator.authenticate`` is called by ``ingot.s3.app`` once a request, after routing and
before anything of the body is read. It returns what held, or raises the S3Error of the first check
that failed, in S3's order; NotHeld comes before anything has changed, and it may be called again
then. A request without credentials is anonymous, which is no error here.
Secrets and derived keys never leave this module, ``ingot.s3.form_auth`` and
``ingot._speedups.sigv4``. Pure; the time is an argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ingot._speedups import express, sigv4
from ingot.limits import AUTHORIZATION_BYTES_MAX, AUTHORIZATIONS_MAX, SIGNING_KEYS_MAX
from ingot.messages import Request
from ingot.s3 import form_auth
from ingot.s3.content_hash import NO_PAYLOAD, Payload, parse_payload
from ingot.s3.errors import S3Error
from ingot.s3.sigv4 import (
    DATE_REQUIRED,
    MECHANISM_REFUSED,
    REQUIRED,
    SIGV2,
    SKEW_MS,
    Credential,
    Malformed,
    Query,
    authorization_error,
    check_window,
    content_value,
    dated,
    day_error,
    header_malformed,
    hoist,
    mismatch_error,
    not_signed_error,
    parse_credential,
    parse_expires,
    parse_names,
    query_error,
    query_malformed,
    refuse_two_mechanisms,
    region_error,
    required_values,
    skew_error,
    unknown_key,
)

if TYPE_CHECKING:
    from ingot._speedups import express_py
    from ingot._speedups.sigv4_py import SigningKey
    from ingot.accounts import Accounts
    from ingot.credentials import Account

DEFAULT_REGION: Final = b"us-east-1"


class Authenticated:
    """A request that passed. Without an ``account`` it is anonymous and carries no signature."""

    __slots__ = (
        *("account", "form", "key", "payload", "presigned", "query", "scope", "signature"),
        *("stamp", "streaming"),
    )

    def __init__(
        self,
        account: Account | None,
        payload: Payload,
        query: Query,
        streaming: bool = False,
        stamp: bytes = b"",
        scope: bytes = b"",
        signature: bytes = b"",
        key: SigningKey | None = None,
        presigned: bool = False,
        form: bool = False,
    ) -> None:
        self.account = account
        self.payload = payload
        self.query = query  # decoded names and values, in order
        self.streaming = streaming  # the body is an object's
        self.stamp = stamp  # yyyymmddThhmmssZ
        self.scope = scope  # date/region/s3/aws4_request
        self.signature = signature  # 64 hex digits; the seed of the chunks' signatures
        self.key = key
        self.presigned = presigned
        self.form = form  # signed by a field of a form; without a stamp: by HMAC-SHA1


def parse_query(target: bytes) -> Query:
    """The decoded query of a request target; InvalidURI on an escape that is none."""
    if b"?" not in target:
        return []
    try:
        return sigv4.parse_query(target)
    except ValueError:
        raise S3Error("InvalidURI") from None


def anonymous(request: Request, streaming: bool, query: Query) -> Authenticated:
    """Nobody in particular, who cannot have signed chunks."""
    content = request.index.get(b"x-amz-content-sha256")
    payload = NO_PAYLOAD if content is None else parse_payload(content, streaming)
    if payload.mode in ("signed-chunks", "signed-chunks-trailer"):
        raise S3Error("InvalidRequest", "The value of x-amz-content-sha256 header is invalid.")
    return Authenticated(None, payload, query, streaming)


class Form(NamedTuple):
    """What an Authorization says before its signature."""

    credential: Credential
    listed: bytes  # SignedHeaders as sent
    names: tuple[bytes, ...]  # and split


class Authenticator:
    """Verifies signatures against ``accounts`` for one ``region``. Belongs to one server."""

    def __init__(self, accounts: Accounts, region: str, form_signature_v2: bool = True) -> None:
        """``form_signature_v2``: forms may be signed by HMAC-SHA1, as nothing else may."""
        self.accounts = accounts
        self._form_signature_v2 = form_signature_v2
        self._region_name = region
        self._region = region.encode()
        self._keys = sigv4.SigningKeys(SIGNING_KEYS_MAX)
        # Authorization values up to their signatures, of requests that verified: nobody without a
        # key can fill these. A client repeats itself all day.
        self._parsed: dict[bytes, Form] = {}
        self.forms: dict[bytes, express_py.Form] = {}  # the same, for the express lane

    def authenticate(
        self,
        request: Request,
        now_ms: int,
        *,
        streaming: bool = False,
        default_region: bool = False,
        query: Query | None = None,
    ) -> Authenticated:
        """Check everything about ``request`` that its head can show.

        ``streaming``: the operation takes a framed body (PutObject, UploadPart).
        ``default_region``: us-east-1 is accepted beside the server's region (ListBuckets,
        CreateBucket, HeadBucket, GetBucketLocation). ``query``: ``parse_query`` of the target,
        where the caller has it already. ``x-amz-`` parameters of a presigned URL have become
        headers of ``request`` afterwards.
        """
        if query is None:
            query = parse_query(request.target)
        value = request.index.get(b"authorization")
        if value:
            if query:
                refuse_two_mechanisms(query)
            return self._header(request, value, now_ms, streaming, default_region, query)
        names = {name for name, _ in query}
        if not names.isdisjoint(REQUIRED):
            return self._presigned(request, now_ms, streaming, default_region, query)
        if not names.isdisjoint(SIGV2):
            raise S3Error("InvalidRequest", MECHANISM_REFUSED)
        return anonymous(request, streaming, query)

    def _header(
        self,
        request: Request,
        value: bytes,
        now_ms: int,
        streaming: bool,
        default_region: bool,
        query: Query,
    ) -> Authenticated:
        index = request.index
        signature = value[-64:]
        known = form = self._parsed.get(value[:-64])
        if form is None:
            form, signature = self._parse_header(value)
        credential, listed, names = form
        stamp = index.get(b"x-amz-date")
        if stamp is None:
            stamp, sent_ms = dated(index)
        else:
            sent_ms = sigv4.parse_stamp(stamp)
        if sent_ms >= 0 and stamp[:8] != credential.date:
            raise day_error(credential.date, stamp, header_malformed)
        if credential.region != self._region:
            self._check_region(credential.region, default_region, header_malformed)
        account = self.accounts.get(credential.access_key)
        if account is None:
            raise unknown_key(credential.access_key)
        if sent_ms < 0:
            raise S3Error("AccessDenied", DATE_REQUIRED)
        if not -SKEW_MS <= now_ms - sent_ms <= SKEW_MS:
            raise skew_error(stamp, now_ms)
        content = index.get(b"x-amz-content-sha256")
        if content is None:
            raise S3Error(
                "InvalidRequest", "Missing required header for this request: x-amz-content-sha256"
            )
        payload = parse_payload(content, streaming)
        missing = sigv4.unsigned_headers(index, names)
        if missing:
            raise not_signed_error(missing)
        key = self._keys.get(
            credential.access_key, account.secret_key, credential.date, credential.region
        )
        scope = credential.scope
        ours = sigv4.sign_request(
            key, stamp, scope, request.method, request.target, index, listed, names, content
        )
        if not sigv4.equal(ours, signature):
            self._verify_strict(request, key, form, stamp, content, signature, False)
        if index.get(b"x-amz-security-token"):
            raise S3Error("InvalidToken")
        if known is None:
            self._remember(value[:-64], form, account, key)
        return Authenticated(account, payload, query, streaming, stamp, scope, signature, key)

    def _presigned(
        self, request: Request, now_ms: int, streaming: bool, default_region: bool, query: Query
    ) -> Authenticated:
        index = request.index
        values = required_values(query)
        whole, listed = values[b"X-Amz-Credential"], values[b"X-Amz-SignedHeaders"]
        if values[b"X-Amz-Algorithm"] != sigv4.ALGORITHM:
            raise query_error('X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"')
        credential = parse_credential(whole, query_malformed)
        stamp = values[b"X-Amz-Date"]
        sent_ms = sigv4.parse_stamp(stamp)
        if sent_ms < 0:
            raise query_error(
                "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\""
            )
        if stamp[:8] != credential.date:
            raise day_error(credential.date, stamp, query_error)
        self._check_region(credential.region, default_region, query_malformed)
        expires_s = parse_expires(values[b"X-Amz-Expires"])
        names = parse_names(listed, query_error)
        account = self.accounts.get(credential.access_key)
        if account is None:
            raise unknown_key(credential.access_key)
        check_window(now_ms, sent_ms, expires_s)
        content = content_value(query, index)
        payload = parse_payload(content, streaming)
        missing = sigv4.unsigned_headers(index, names)
        if missing:
            raise not_signed_error(missing)
        signature = values[b"X-Amz-Signature"]
        key = self._keys.get(
            credential.access_key, account.secret_key, credential.date, credential.region
        )
        scope = credential.scope
        ours = sigv4.sign_request(
            key, stamp, scope, request.method, request.target, index, listed, names, content, True
        )
        if not sigv4.equal(ours, signature):
            form = Form(credential, listed, names)
            self._verify_strict(request, key, form, stamp, content, signature, True)
        if index.get(b"x-amz-security-token") or any(
            name == b"X-Amz-Security-Token" and value for name, value in query
        ):
            raise S3Error("InvalidToken")
        hoist(request, query)
        return Authenticated(account, payload, query, streaming, stamp, scope, signature, key, True)

    def authenticate_form(self, fields: form_auth.Fields, now_ms: int) -> Authenticated:
        """Whose the policy of a form is, by the fields of a form upload."""
        claim = form_auth.read_claim(fields)
        if claim is None:
            return Authenticated(None, NO_PAYLOAD, [], form=True)
        credential, key = claim.credential, None
        if credential is None and not self._form_signature_v2:
            raise S3Error("InvalidRequest", MECHANISM_REFUSED)
        if credential is not None and credential.region != self._region:
            raise form_auth.region_refused(claim, self._region_name, fields)
        account = self.accounts.get(claim.access_key)
        if account is None:
            raise unknown_key(claim.access_key)
        if credential is not None:
            key = self._keys.get(
                claim.access_key, account.secret_key, credential.date, credential.region
            )
        form_auth.verify(claim, account.secret_key, key, now_ms)
        if fields.get(form_auth.TOKEN):
            raise S3Error("InvalidToken")
        return Authenticated(account, NO_PAYLOAD, [], stamp=claim.stamp, form=True)

    def _check_region(self, found: bytes, default_region: bool, malformed: Malformed) -> None:
        if found != self._region and not (default_region and found == DEFAULT_REGION):
            raise region_error(found, self._region_name, malformed)

    def _verify_strict(
        self,
        request: Request,
        key: SigningKey,
        form: Form,
        stamp: bytes,
        content: bytes,
        signature: bytes,
        presigned: bool,
    ) -> None:
        """The second and last try: a client may encode its path in one way and sign it strictly.

        ``content`` is the line that stands for the payload. SignatureDoesNotMatch shows the request
        as it was sent.
        """
        (access_key, _, _, scope), listed, names = form
        method, target, index = request.method, request.target, request.index
        try:
            strict = sigv4.reencode_path(target)
        except ValueError:
            raise S3Error("InvalidURI") from None
        if strict != target:
            ours = sigv4.sign_request(
                key, stamp, scope, method, strict, index, listed, names, content, presigned
            )
            if sigv4.equal(ours, signature):
                return
        canonical = sigv4.canonical_request(
            method, target, index, listed, names, content, presigned
        )
        string = sigv4.string_to_sign(stamp, scope, canonical)
        raise mismatch_error(access_key, signature, string, canonical)

    def _parse_header(self, value: bytes) -> tuple[Form, bytes]:
        parts = sigv4.split_authorization(value)
        if parts is None:
            raise authorization_error(value)
        whole, listed, signature = parts
        names = parse_names(listed, header_malformed)
        return Form(parse_credential(whole, header_malformed), listed, names), signature

    def _remember(self, start: bytes, form: Form, account: Account, key: SigningKey) -> None:
        if not start.endswith(b"Signature=") or len(start) > AUTHORIZATION_BYTES_MAX:
            return
        if len(self._parsed) >= AUTHORIZATIONS_MAX:
            self._parsed.clear()
            self.forms.clear()
        credential, listed, names = form
        self._parsed[start] = form
        if credential.region == self._region:
            day_ms = sigv4.parse_stamp(credential.date + b"T000000Z")
            self.forms[start] = express.Form(
                credential.access_key,
                account.secret_key,
                key,
                credential.scope,
                day_ms,
                listed,
                names,
            )
