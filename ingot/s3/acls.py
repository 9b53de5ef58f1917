"""Who owns an object, and what ACLs allow: by a bucket's ownership controls.

With BucketOwnerEnforced, which holds where nothing was ever set, ACLs do not count: every object is
its bucket's owner's. Else an object is its writer's (ObjectWriter), or the bucket's owner's if its
writer said so (BucketOwnerPreferred), and bucket and objects have ACLs that count. An owner needs
no grant for what is his own, so that nobody locks himself out; but the bucket's owner needs one to
read what others own in it, and his policy cannot give that away.

Called by ``ingot.s3.access``, which asks the bucket's policy first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from ingot.bucket.leaf import Acl, Grants, State
from ingot.bucket.model import Bucket, BucketConfig
from ingot.credentials import ANONYMOUS
from ingot.s3 import acl, ownership, public_access
from ingot.s3.configuration import ACL, OWNERSHIP, PUBLIC_ACCESS, Parsed
from ingot.s3.errors import S3Error
from ingot.s3.ownership import ENFORCED, PREFERRED

if TYPE_CHECKING:
    from ingot.credentials import Account
    from ingot.s3.call import Call

NO_FLAGS: Final = public_access.PublicAccess()


@runtime_checkable
class People(Protocol):
    """Accounts that know whom there is."""

    def by_id(self, id: str) -> Account | None: ...


class Acls:
    """Belongs to one server. ``people`` None: whom there is nobody can tell."""

    def __init__(self, people: People | None) -> None:
        self._people = people
        self._ownerships = Parsed(ownership.kept)
        self._lists = Parsed(acl.kept)
        self._blocks = Parsed(public_access.read)

    # -- what is there -----------------------------------------------------------------------------

    def ownership(self, config: BucketConfig) -> str:
        document = config.documents.get(OWNERSHIP)
        return ENFORCED if document is None else self._ownerships(document)

    def count(self, config: BucketConfig) -> bool:
        """Whether ACLs count in the bucket."""
        return self.ownership(config) != ENFORCED

    def of_bucket(self, config: BucketConfig) -> Acl:
        document = config.documents.get(ACL) if self.count(config) else None
        grants = acl.private(config.owner) if document is None else self._lists(document)
        return Acl(config.owner, config.owner_name, grants)

    def of_version(self, config: BucketConfig, state: State) -> Acl:
        if state.acl is not None and self.count(config):
            return state.acl
        return Acl(config.owner, config.owner_name, acl.private(config.owner))

    def state_acl(self, config: BucketConfig, made: Acl) -> Acl | None:
        """What a version's state says of an ACL: nothing of the bucket's owner's own."""
        return None if made == self.of_version(config, State()) else made

    def block(self, config: BucketConfig) -> public_access.PublicAccess:
        document = config.documents.get(PUBLIC_ACCESS)
        return NO_FLAGS if document is None else self._blocks(document)

    # -- people ------------------------------------------------------------------------------------

    def knows(self, *owners: str) -> acl.Knows:
        """Whether an id may be somebody's: an account's, or that of one of ``owners``, whose
        account may be gone."""
        people = self._people
        return lambda id: people is None or id in owners or people.by_id(id) is not None

    def in_headers(self, call: Call, owner: str, bucket_owner: str | None = None) -> Grants | None:
        """The list that headers put on something of ``owner``'s: a bucket, where ``bucket_owner``
        is None."""
        index, knows = call.request.index, self.knows(owner, bucket_owner or owner)
        return acl.in_headers(index, owner, bucket_owner, knows)

    def write(self, shown: Acl) -> bytes:
        """An ACL's document."""

        def name_of(id: str) -> str | None:
            account = None if self._people is None else self._people.by_id(id)
            if id == shown.owner:
                return shown.name
            return None if account is None else account.display_name

        return acl.write(shown, name_of)

    # -- judging -----------------------------------------------------------------------------------

    def allows(self, call: Call, bucket: Bucket, action: str, key: bytes, by_policy: bool) -> bool:
        """Whether the request may do ``action``, in a bucket whose ACLs count and whose policy does
        not deny it; ``by_policy``: allows it."""
        config, who = bucket.config, call.account.id
        permission = acl.OF_OBJECTS.get(action)
        if permission is None:
            if by_policy or who == config.owner:
                return True
            permission = acl.OF_BUCKETS.get(action)
            return permission is not None and self._permits(
                call, config, self.of_bucket(config).grants, permission
            )
        learned = call.learned
        assert learned is not None and learned[:2] == (bucket.id, key), "see Access.learn"
        found = learned.found
        if found is None or found.record.delete_marker:
            # That it is not there may hear whoever may list what is.
            if by_policy or who == config.owner:
                return True
            return call.access.allows(call, bucket, "ListBucket", b"", prefix=key)
        theirs = self.of_version(config, found.state)
        if who == theirs.owner or (by_policy and theirs.owner == config.owner):
            return True
        return self._permits(call, config, theirs.grants, permission)

    def _permits(self, call: Call, config: BucketConfig, grants: Grants, permission: str) -> bool:
        who = None if call.account is ANONYMOUS else call.account.id
        return acl.permits(grants, who, permission, not self.block(config).IgnorePublicAcls)

    def check_public(self, config: BucketConfig, grants: Grants) -> None:
        """AccessDenied for a public list where the public access block wants none."""
        if self.block(config).BlockPublicAcls and acl.is_public(grants):
            raise S3Error("AccessDenied")

    def owner_of_write(self, call: Call, config: BucketConfig) -> tuple[str, str]:
        """Id and name of whom a new version is. What nobody in particular writes is the bucket's
        owner's, as is what is given to him."""
        account = call.account
        given = (
            self.ownership(config) == PREFERRED
            and call.request.index.get(acl.CANNED) == acl.OWNER_FULL_CONTROL
        )
        of_owner = account is ANONYMOUS or account.id == config.owner or given
        if of_owner or not self.count(config):
            return config.owner, config.owner_name
        return account.id, account.display_name

    def marker(self, call: Call, config: BucketConfig) -> State | None:
        """The state of a delete marker that the request makes: whose it is."""
        owner, name = self.owner_of_write(call, config)
        return None if owner == config.owner else State(acl=Acl(owner, name))
