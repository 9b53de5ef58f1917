"""Access where a host decides: its ``Authorizer`` is asked first, about every right.

It hears the same questions as a bucket's policy would: one or several a request, each about one
action on one bucket or key, and also where the bucket is the account's own. ALLOW and DENY are
final, USUAL leaves the question to the bucket's owner, policy and ACLs. One that raises, or answers
anything else, decides nothing: the request ends as InternalError, and the log says why.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ingot.bucket.model import Bucket
from ingot.credentials import ANONYMOUS
from ingot.errors import IngotError
from ingot.ports import AccessQuestion, Authorizer, Decision
from ingot.s3.access import Access
from ingot.s3.actions import action_of
from ingot.s3.errors import S3Error

if TYPE_CHECKING:
    from ingot.accounts import Accounts, HeldAccounts
    from ingot.bucket.part import Upload
    from ingot.s3.call import Call


class AuthorizerFailed(IngotError):
    """The host's authorizer raised, or gave no decision. Nothing that S3 has a code for."""


def _place(error: Exception) -> str:
    """Where in the host's code it was raised: more of the traceback is our own."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}"


class AuthorizedAccess(Access):
    """As ``Access``, after the host. Belongs to one server."""

    decides = True

    def __init__(
        self, accounts: Accounts, authorizer: Authorizer, held: HeldAccounts | None = None
    ) -> None:
        super().__init__(accounts, held)
        self._authorizer = authorizer

    def allows(
        self, call: Call, bucket: Bucket, action: str, key: bytes, *, prefix: bytes | None = None
    ) -> bool:
        decision = self._decide(call, action, bucket.name, key)
        if decision is Decision.USUAL:
            return super().allows(call, bucket, action, key, prefix=prefix)
        return decision is Decision.ALLOW

    def may_give(self, call: Call, bucket: Bucket, owner: str) -> bool:
        decision = self._decide(call, "PutObjectAcl", bucket.name, call.key)
        if decision is Decision.USUAL:
            return super().may_give(call, bucket, owner)
        return decision is Decision.ALLOW

    def may_continue(self, call: Call, bucket: Bucket, action: str, upload: Upload) -> bool:
        decision = self._decide(call, action, bucket.name, call.key)
        if decision is Decision.USUAL:
            return super().may_continue(call, bucket, action, upload)
        return decision is Decision.ALLOW

    def may_allow(self, call: Call, bucket: Bucket, actions: Iterable[str]) -> bool:
        return True  # the host is asked when it is known what about

    def is_open(self, bucket: Bucket) -> bool:
        return True

    def check_account(self, call: Call) -> None:
        """AccessDenied where the host denies an operation that is about no bucket there is."""
        if self._decide(call, action_of(call.operation), call.bucket, b"") is Decision.DENY:
            raise S3Error("AccessDenied")

    def _decide(self, call: Call, action: str, bucket: str, key: bytes) -> Decision:
        account = call.account
        who = None if account is ANONYMOUS else account.id
        question = AccessQuestion(
            who, call.operation.name, f"s3:{action}", bucket, key.decode("utf-8", "replace")
        )
        try:
            decision = self._authorizer.decide(question)
        except Exception as error:
            why = f"{type(error).__name__}: {error}, at {_place(error)}"
            raise AuthorizerFailed(f"the authorizer raised {why}, over {question}") from error
        if not isinstance(decision, Decision):
            raise AuthorizerFailed(f"the authorizer answered {decision!r} to {question}")
        return decision
