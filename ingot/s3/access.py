"""Who may do what with a bucket: its owner everything, others what its policy or an ACL allows.

A Deny of the policy comes first and holds for the owner too, but for operations on the policy
itself, so that nobody is locked out for good. What is not denied is allowed by the policy or, where
ACLs count, by ``ingot.s3.acls``. Without either nobody but the owner gets in. Where the public
access block restricts a bucket, a policy that is public allows others nothing. The policy itself is
the owner's, whatever it says: no grant gives it away. A policy that cannot
be read any more refuses all that it would have been asked about. Called by way of ``ingot.s3.call``
for every request but an owner's on a plain bucket; a policy is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from ingot._speedups import sigv4
from ingot.bucket.leaf import is_version_id
from ingot.bucket.model import NULL_VERSION, Bucket
from ingot.credentials import ANONYMOUS
from ingot.limits import CONDITION_CHARS_MAX
from ingot.s3 import acl
from ingot.s3.acls import Acls, People
from ingot.s3.actions import is_of_version
from ingot.s3.call import NO_TAGS, Learned
from ingot.s3.configuration import POLICY, Parsed
from ingot.s3.copy_source import parse_copy_source
from ingot.s3.dates import iso
from ingot.s3.documents import Documents
from ingot.s3.errors import S3Error
from ingot.s3.policy import Asked, Policy, read, read_in_steps
from ingot.s3.policy_conditions import OBJECT_TAG, REQUEST_TAG, REQUEST_TAG_KEYS, Condition
from ingot.s3.tags import OBJECT_TAGS_MAX, TOO_MANY_OF_OBJECT

if TYPE_CHECKING:
    from ingot.accounts import Accounts, HeldAccounts
    from ingot.bucket.part import Upload
    from ingot.bucket.store import Store
    from ingot.s3.call import Call

OWN_POLICY: Final = ("GetBucketPolicy", "PutBucketPolicy", "DeleteBucketPolicy")
_ID_CHARS: Final = 64


class Access:
    """Belongs to one server. ``accounts`` are those whose access keys policies may name."""

    decides = False
    """Whether an owner's everyday requests have to be asked about too."""

    def __init__(self, accounts: Accounts, held: HeldAccounts | None = None) -> None:
        """``held``: where a host keeps the accounts, who may be gone again at any time."""
        self.held = held
        self.acls = Acls(accounts if isinstance(accounts, People) else None)
        self._accounts = accounts
        self._policies: Parsed[tuple[bytes, str], Policy] = Parsed(
            lambda of: read(of[0], of[1], self.who), factor=72
        )

    async def read_policy(self, documents: Documents, bucket: Bucket) -> bool:
        """Have the bucket's policy at hand. To read one takes up to 15 ms, in which others
        have their turn, and wait for theirs. Whether it was waited for."""
        document = bucket.config.documents.get(POLICY)
        if document is None or self._policies.has((document, bucket.name)):
            return False
        try:
            owner = bucket.config.owner or ""
            await documents.one_at_a_time(owner, self._read_in_steps((document, bucket.name)))
        except S3Error:
            pass  # one that cannot be read any more: whoever asks it hears that
        return True

    def _read_in_steps(self, of: tuple[bytes, str]) -> Generator[None, None, None]:
        if not self._policies.has(of):  # by who was before us, while we waited
            self._policies.hold(of, (yield from read_in_steps(*of, self.who)))

    def allows(
        self, call: Call, bucket: Bucket, action: str, key: bytes, *, prefix: bytes | None = None
    ) -> bool:
        """Whether the request may do ``action`` to the bucket, or to ``key`` in it. ``prefix``: of
        the listing, where it would be one that the client did not ask for. MethodNotAllowed where
        a policy grants others what only the owner may do."""
        verdict = self._verdict(call, bucket, action, key, prefix)
        if verdict is False:
            return False
        if action in OWN_POLICY and call.account.id != bucket.config.owner:
            if verdict is None:
                return False
            method = call.request.method
            raise S3Error("MethodNotAllowed", Method=method, ResourceType="BUCKETPOLICY")
        if self.acls.count(bucket.config):
            return self.acls.allows(call, bucket, action, key, verdict is True)
        return verdict is True or call.account.id == bucket.config.owner

    def _verdict(
        self, call: Call, bucket: Bucket, action: str, key: bytes, prefix: bytes | None = None
    ) -> bool | None:
        """What the bucket's policy says; None where it says nothing that counts."""
        account, config = call.account, bucket.config
        is_owner = account.id == config.owner
        document = config.documents.get(POLICY)
        if document is None or (is_owner and action in OWN_POLICY):
            return None
        policy = self._policies((document, bucket.name))
        resource = bucket.name + (f"/{key.decode('utf-8', 'replace')}" if key else "")
        who = None if account is ANONYMOUS else account.id
        facts = Facts(call, action, prefix)
        verdict = policy.verdict(Asked(who, action, resource, facts, facts.known.verdicts))
        if verdict and policy.is_public and not is_owner:
            return None if self.acls.block(config).RestrictPublicBuckets else True
        return verdict

    def may_give(self, call: Call, bucket: Bucket, owner: str) -> bool:
        """Whether the request may write its object with an ACL, as one of ``owner``."""
        verdict = self._verdict(call, bucket, "PutObjectAcl", call.key)
        return verdict is True or (verdict is None and call.account.id == owner)

    def may_continue(self, call: Call, bucket: Bucket, action: str, upload: Upload) -> bool:
        """Whether the request may look at an upload or end it, which its initiator may wherever no
        policy denies it: else parts would stay that he cannot remove. In a bucket whose ACLs count
        also whether it may go on with it: the initiator alone, for what comes of it will be his."""
        verdict = self._verdict(call, bucket, action, call.key)
        if verdict is False:
            return False
        if call.account.id == upload.initiator:
            return True
        if action not in ("AbortMultipartUpload", "ListMultipartUploadParts"):
            return False
        return verdict is True or call.account.id == bucket.config.owner

    def asks_object_tags(self, bucket: Bucket) -> bool:
        """Whether what the bucket's policy says may depend on the tags of the object."""
        document = bucket.config.documents.get(POLICY)
        if document is None:
            return False
        return self._policies((document, bucket.name)).asks_object_tags

    def asks_object(self, bucket: Bucket, action: str) -> bool:
        """Whether what may be done may depend on the object to which it is done."""
        return self.asks_object_acl(bucket, action) or self.asks_object_tags(bucket)

    def asks_object_acl(self, bucket: Bucket, action: str) -> bool:
        """Whether it may depend on the object's ACL."""
        return action in acl.OF_OBJECTS and self.acls.count(bucket.config)

    async def learn(
        self,
        store: Store,
        call: Call,
        bucket: Bucket,
        key: bytes,
        version: str | None,
        action: str,
    ) -> None:
        """Have an object at hand for what is asked about it next, if that depends on it."""
        call.object_tags, call.learned, call.version = {}, None, version
        if self.asks_object(bucket, action):
            found = None
            if version is None or version == NULL_VERSION or is_version_id(version):
                found = await store.look(bucket, key, version)
            call.object_tags = {} if found is None else found.state.tags
            call.learned = Learned(bucket.id, key, version, found)

    def check_account(self, call: Call) -> None:
        """AccessDenied where an operation that is about no bucket there is may not be done."""

    def is_open(self, bucket: Bucket) -> bool:
        """Whether somebody else than the owner may be allowed to do anything at all."""
        return POLICY in bucket.config.documents or self.acls.count(bucket.config)

    def may_allow(self, call: Call, bucket: Bucket, actions: Iterable[str]) -> bool:
        """Whether the request may be allowed to do one of ``actions`` to anything at all, as far as
        can be told before it is known what to. Who has no account hears no, where nobody who has
        none may; anybody else is answered for each thing that he names."""
        if call.account is not ANONYMOUS:
            return call.account.id == bucket.config.owner or self.is_open(bucket)
        document = bucket.config.documents.get(POLICY)
        if document is not None:
            policy = self._policies((document, bucket.name))
            if any(policy.may_allow(None, action) for action in actions):
                return True
        if not self.acls.count(bucket.config):
            return False
        return any(
            acl.OF_BUCKETS.get(action) is not None
            and self.acls.allows(call, bucket, action, b"", False)
            for action in actions
            if action not in acl.OF_OBJECTS
        )

    def who(self, name: str) -> str | None:
        """The canonical id that a name in a policy stands for."""
        if len(name) == _ID_CHARS and set(name) <= set("0123456789abcdef"):
            return name
        account = self._accounts.get(name)
        return None if account is None else account.id

    def is_public(self, bucket: Bucket, document: bytes) -> bool:
        """Whether a policy of the bucket grants something to whoever comes."""
        return self._policies((document, bucket.name)).is_public


class Facts:
    """What a request says under condition keys (``policy_conditions.KEYS``), asked whether it may
    do ``action``: only what its operation heeds, so that nothing is judged by what is not done."""

    __slots__ = ("_action", "_call", "_prefix", "known")

    def __init__(self, call: Call, action: str, prefix: bytes | None = None) -> None:
        self._call = call
        self._action = action
        self._prefix = prefix
        self.known = _known(call)

    def __call__(self, key: str) -> Sequence[str]:
        """S3Error (InvalidRequest) for what is longer than patterns are matched against."""
        values = self._values(key)
        if any(len(value) > CONDITION_CHARS_MAX for value in values):
            raise S3Error(
                "InvalidRequest",
                f"The policy of this bucket asks for {key}, of which the request has more than the "
                f"{CONDITION_CHARS_MAX} characters that are looked at",
            )
        return values

    def _values(self, key: str) -> Sequence[str]:
        call = self._call
        found = _FACTS.get(key)
        if found is not None:
            value = found(call)
        elif key.startswith(OBJECT_TAG):
            value = call.object_tags.get(key[len(OBJECT_TAG) :])
        elif key.startswith(REQUEST_TAG):
            value = self.known.given_tags(call).get(key[len(REQUEST_TAG) :])
        elif key == REQUEST_TAG_KEYS:
            return tuple(self.known.given_tags(call))
        elif key == "s3:versionid":
            value = call.version if is_of_version(self._action) else None
        elif key == "s3:prefix" and self._prefix is not None:
            value = _text(self._prefix)
        elif key in _OF_LISTINGS:
            name, operations = _OF_LISTINGS[key]
            value = _text(call.parameter(name)) if call.operation.name in operations else None
        else:
            value = _text(call.request.index.get(_HEADERS.get(key, key[3:].encode())))
        return () if value is None else (value,)


class Known:
    """What is the same for all that a request asks, and is found out once: the ``verdicts`` of
    conditions, and the tags it gives."""

    __slots__ = ("_tags", "account", "request_tags", "verdicts")

    def __init__(self, call: Call) -> None:
        self.account, self.request_tags = call.account, call.request_tags
        self.verdicts: dict[Condition, bool] = {}
        self._tags = call.request_tags

    def given_tags(self, call: Call) -> Mapping[str, str]:
        """In the request's body, once that was read, or in a header if its operation is one that
        stores those. BadRequest for more than an object may have."""
        if self._tags is None and call.operation.name not in _TAGGED_BY_HEADER:
            self._tags = NO_TAGS
        if self._tags is None:
            header = call.request.index.get(b"x-amz-tagging", b"").decode("utf-8", "replace")
            try:
                pairs = parse_qsl(header, keep_blank_values=True, max_num_fields=OBJECT_TAGS_MAX)
            except ValueError:
                raise S3Error("BadRequest", TOO_MANY_OF_OBJECT) from None
            self._tags = dict(pairs)
        return self._tags


def _known(call: Call) -> Known:
    """Found out anew once the body told the tags, or a form its account."""
    known = call.known
    if (
        known is None
        or known.account is not call.account
        or known.request_tags is not call.request_tags
    ):
        known = call.known = Known(call)
    return known


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _copy_source(call: Call) -> str | None:
    header = call.request.index.get(b"x-amz-copy-source")
    if header is None:
        return None
    source = parse_copy_source(header)
    return f"{source.bucket}/{source.key.decode('utf-8', 'replace')}"


def _auth_type(call: Call) -> str | None:
    if call.account is ANONYMOUS:
        return None
    if call.authenticated.form:
        return "POST"
    return "REST-QUERY-STRING" if call.authenticated.presigned else "REST-HEADER"


def _signature_version(call: Call) -> str | None:
    if call.account is ANONYMOUS:
        return None
    return sigv4.ALGORITHM.decode() if call.authenticated.stamp else "AWS"


def _signature_age(call: Call) -> str | None:
    if call.account is ANONYMOUS or not call.authenticated.stamp:
        return None
    return str(call.now_ms - sigv4.parse_stamp(call.authenticated.stamp))


_FACTS: Final[dict[str, Callable[[Call], str | None]]] = {
    "aws:sourceip": lambda call: call.request.peer or None,
    "aws:securetransport": lambda call: "true" if call.request.secure else "false",
    "aws:currenttime": lambda call: iso(call.now_ms),
    "aws:epochtime": lambda call: str(call.now_ms // 1000),
    "aws:userid": lambda call: None if call.account is ANONYMOUS else call.account.id,
    "aws:principaltype": lambda call: "Anonymous" if call.account is ANONYMOUS else "Account",
    "s3:x-amz-copy-source": _copy_source,
    "s3:authtype": _auth_type,
    "s3:signatureversion": _signature_version,
    "s3:signatureage": _signature_age,
}
_TAGGED_BY_HEADER: Final = ("PutObject", "PostObject", "CreateMultipartUpload", "CopyObject")
_LISTINGS: Final = ("ListObjects", "ListObjectsV2", "ListObjectVersions")
_OF_LISTINGS: Final = {
    "s3:prefix": (b"prefix", (*_LISTINGS, "ListMultipartUploads")),
    "s3:delimiter": (b"delimiter", (*_LISTINGS, "ListMultipartUploads")),
    "s3:max-keys": (b"max-keys", _LISTINGS),
}
_HEADERS: Final = {"aws:referer": b"referer", "aws:useragent": b"user-agent"}  # else as they stand
