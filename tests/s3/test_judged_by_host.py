"""Keys that a host revokes, and what its authorizer denies, while a request's body is on its way:
both end the request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from ingot import accounts
from ingot.accounts import HeldAccounts
from ingot.credentials import Account
from ingot.limits import DOCUMENT_ARRIVAL_S
from ingot.ports import AccessQuestion, Decision
from ingot.s3.app import App
from tests.s3.driver import OTHER, OWNER, REGION, Answer
from tests.s3.store_driver import StoreDriver
from tests.s3.test_held_back import (
    REQUESTS,
    SOURCE,
    Asked,
    held,
    make_bucket,
    of_object,
    put,
    start_upload,
)

LIFETIME_S = DOCUMENT_ARRIVAL_S / 2  # of accounts here: documents have to be there before long
CREATE = Asked(
    body=b"<CreateBucketConfiguration><LocationConstraint>%s</LocationConstraint>"
    b"</CreateBucketConfiguration>" % REGION.encode(),
    path="/new",
)
TAGS = {"x-amz-tagging": "a=b"}
COPY_TAGS = {"x-amz-copy-source": "/source/k", "x-amz-tagging-directive": "REPLACE", **TAGS}
ALL = REQUESTS | {"CreateBucket": CREATE}


class Host:
    """Keeps accounts and decides."""

    def __init__(self) -> None:
        self.known = {account.access_key: account for account in (OWNER, OTHER)}
        self.denied = ""  # an action

    async def get(self, access_key: str) -> Account | None:
        return self.known.get(access_key)

    def decide(self, question: AccessQuestion) -> Decision:
        return Decision.DENY if question.action == self.denied else Decision.USUAL


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def driver(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreDriver]:
    monkeypatch.setattr(accounts, "ACCOUNT_LIFETIME_S", LIFETIME_S)
    monkeypatch.setattr(accounts, "ACCOUNT_REFRESH_S", LIFETIME_S / 4)
    with StoreDriver(authorizer=host) as made:
        kept = HeldAccounts(host, made.clock)
        made.app = App(made.world.store, kept, REGION, made.clock, authorizer=host)
        made.bucket("source", account=OTHER)
        assert made.ask("PUT", "/source/k", body=b"copied", account=OTHER).status == 200
        yield made
        kept.close()


def ask(driver: StoreDriver, name: str, meanwhile: Callable[[], None]) -> Answer:
    """OTHER's request about his own, which changes nothing."""
    make_bucket(driver, OTHER)
    put(driver, OTHER)
    upload = start_upload(driver)
    head = driver.world.store.bucket("bucket").head
    answer = held(driver, ALL[name], upload, meanwhile)
    assert driver.world.store.bucket("bucket").head == head
    assert [bucket.name for bucket in driver.world.store.buckets()] == ["bucket", "source"]
    return answer


def is_over(driver: StoreDriver) -> None:
    driver.clock.ms += int(LIFETIME_S * 1000) + 1


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_revoked_key_ends_what_is_under_way(driver: StoreDriver, host: Host, name: str) -> None:
    def revoke() -> None:
        del host.known[OTHER.access_key]
        is_over(driver)

    assert ask(driver, name, revoke).code == "InvalidAccessKeyId"


@pytest.mark.parametrize("changed", [{"secret_key": "another secret"}, {"id": "b" * 64}])
def test_a_key_that_is_anothers_by_now(
    driver: StoreDriver, host: Host, changed: dict[str, str]
) -> None:
    def change() -> None:
        host.known[OTHER.access_key] = replace(OTHER, **changed)
        is_over(driver)

    assert ask(driver, "PutObject", change).code == "AccessDenied"


def test_a_key_that_is_still_known_goes_on(driver: StoreDriver, host: Host) -> None:
    make_bucket(driver, OTHER)
    put(driver, OTHER)

    def rename() -> None:
        host.known[OTHER.access_key] = replace(OTHER, display_name="another")
        is_over(driver)

    assert held(driver, REQUESTS["PutObject"], "", rename).status == 200


@pytest.mark.parametrize(
    "asked",
    [of_object(body=b"x" * 100, headers=TAGS), of_object(headers=COPY_TAGS, waits=SOURCE)],
    ids=["PutObject", "CopyObject"],
)
def test_what_a_host_denies_of_a_writes_state(
    driver: StoreDriver, host: Host, asked: Asked
) -> None:
    """The write itself may still be made."""
    driver.bucket(account=OTHER)

    def deny() -> None:
        host.denied = "s3:PutObjectTagging"

    assert held(driver, asked, "", deny).code == "AccessDenied"
    assert driver.keys() == []


# What each is asked about, where that is not its name.
ACTIONS = {
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
    "DeleteObjects": "DeleteObject",
    "PostObject": "PutObject",
    "PutBucketCors": "PutBucketCORS",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "PutObjectLockConfiguration": "PutBucketObjectLockConfiguration",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
}


@pytest.mark.parametrize("name", sorted(ALL))
def test_what_a_host_denies_by_now_is_not_done(driver: StoreDriver, host: Host, name: str) -> None:
    def deny() -> None:
        host.denied = f"s3:{ACTIONS.get(name, name)}"

    answer = ask(driver, name, deny)
    code = answer.text("Error/Code") if name == "DeleteObjects" else answer.code
    assert code == "AccessDenied"
