"""Rights that rest on the object are judged again when the body is there, and at the commit: what a
request was allowed to do with one object it does not do to another in its place.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ingot.s3 import documents
from tests.s3.driver import OTHER, OWNER, Answer
from tests.s3.store_driver import StoreDriver, with_a_source
from tests.s3.test_held_back import (
    PUBLIC,
    PUBLIC_WRITES,
    REQUESTS,
    block_public_acls,
    digest_of,
    held,
    make_bucket,
    start_upload,
)

OF_OBJECT = sorted(
    {name for name, asked in REQUESTS.items() if asked.path == "/bucket/k"}
    | {"DeleteObjects", "PostObject"}
)
OPEN = b"<Tagging><TagSet><Tag><Key>m</Key><Value>yes</Value></Tag></TagSet></Tagging>"
CLOSED = OPEN.replace(b"yes", b"no")
DOCUMENT = b"<Delete><Object><Key>k</Key></Object></Delete>"


driver = pytest.fixture(with_a_source)


def allow(driver: StoreDriver, **condition: dict[str, str]) -> None:
    """OTHER everything with an object, on a condition."""
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": OTHER.id},
        "Action": "s3:*",
        "Resource": "arn:aws:s3:::bucket/*",
        "Condition": condition or {"StringEquals": {"s3:ExistingObjectTag/m": "yes"}},
    }
    document = json.dumps({"Statement": statement}).encode()
    assert driver.ask("PUT", "/bucket", "policy", body=document).status == 204


def put(driver: StoreDriver, body: bytes, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = driver.ask("PUT", "/bucket/k", headers=named, body=body)
    assert answer.status == 200, answer.body
    return answer


def overwrite(driver: StoreDriver) -> None:
    put(driver, b"secret")


def tag_anew(driver: StoreDriver) -> None:
    assert driver.ask("PUT", "/bucket/k", "tagging", body=CLOSED).status == 200


def open_bucket(driver: StoreDriver) -> str:
    """One with versions, locks, ACLs and an object by which OTHER may do everything with it; the
    id of an upload of his."""
    make_bucket(driver, OWNER)
    allow(driver)
    put(driver, b"old", x_amz_tagging="m=yes")
    return start_upload(driver)


def refusal(answer: Answer) -> str:
    """The code, of DeleteObjects that of its key."""
    return (answer.text("Error/Code") or "") if answer.status == 200 else answer.code


@pytest.mark.parametrize("ends", [overwrite, tag_anew])
@pytest.mark.parametrize("name", OF_OBJECT)
def test_a_right_that_ended_with_the_object_is_gone(
    driver: StoreDriver, name: str, ends: Callable[[StoreDriver], None]
) -> None:
    upload = open_bucket(driver)
    heads = []

    def meanwhile() -> None:
        ends(driver)
        heads.append(driver.world.store.bucket("bucket").head)

    answer = held(driver, REQUESTS[name], upload, meanwhile)
    assert refusal(answer) == "AccessDenied"
    assert driver.world.store.bucket("bucket").head == heads[0]


@pytest.mark.parametrize("name", OF_OBJECT)
def test_a_right_that_still_stands_is_used(driver: StoreDriver, name: str) -> None:
    upload = open_bucket(driver)
    body = b"<LegalHold><Status>OFF</Status></LegalHold>"
    put_hold = {"query": "legal-hold", "headers": digest_of(body), "body": body}

    def meanwhile() -> None:
        assert driver.ask("PUT", "/bucket/k", **put_hold).status == 200

    asked = PUBLIC_WRITES[name] if name == "PutObjectAcl" else REQUESTS[name]
    answer = held(driver, asked, upload, meanwhile)
    assert answer.status in (200, 204) and b"<Error>" not in answer.body, answer.body


@pytest.mark.parametrize("name", ["PutObject", "CopyObject"])
def test_the_right_to_give_tags_may_rest_on_those_that_are_there(
    driver: StoreDriver, name: str
) -> None:
    """The right to write rests on nothing."""
    driver.bucket()
    of_bucket = {"Effect": "Allow", "Principal": {"AWS": OTHER.id}}
    of_bucket |= {"Resource": "arn:aws:s3:::bucket/*"}
    condition = {"StringEquals": {"s3:ExistingObjectTag/m": "yes"}}
    statements = [
        of_bucket | {"Action": "s3:PutObject"},
        of_bucket | {"Action": "s3:PutObjectTagging", "Condition": condition},
    ]
    document = json.dumps({"Statement": statements}).encode()
    assert driver.ask("PUT", "/bucket", "policy", body=document).status == 204
    put(driver, b"old", x_amz_tagging="m=yes")
    headers = {"x-amz-tagging": "a=b", "x-amz-tagging-directive": "REPLACE"}
    asked = REQUESTS[name]
    asked = asked._replace(headers=asked.headers | headers)
    assert held(driver, asked, "", lambda: tag_anew(driver)).code == "AccessDenied"
    assert driver.ask("GET", "/bucket/k").body == b"old"
    assert driver.ask("PUT", "/bucket/k", "tagging", body=OPEN).status == 200
    assert held(driver, asked, "", lambda: None).status == 200


def test_an_object_that_is_gone_opens_nothing(driver: StoreDriver) -> None:
    driver.bucket()
    allow(driver)
    put(driver, b"old", x_amz_tagging="m=yes")

    def meanwhile() -> None:
        assert driver.ask("DELETE", "/bucket/k").status == 204

    assert held(driver, REQUESTS["PutObject"], "", meanwhile).code == "AccessDenied"
    assert driver.keys() == []


WRITES: dict[str, Callable[[StoreDriver], Answer]] = {
    "PutObject": lambda driver: driver.ask("PUT", "/bucket/k", body=b"x", account=OTHER),
    "CopyObject": lambda driver: driver.ask(
        "PUT", "/bucket/k", headers={"x-amz-copy-source": "/source/k"}, account=OTHER
    ),
    "DeleteObject": lambda driver: driver.ask("DELETE", "/bucket/k", account=OTHER),
    "DeleteObjects": lambda driver: driver.ask(
        "POST", "/bucket", "delete", digest_of(DOCUMENT), DOCUMENT, OTHER
    ),
}
CHANGES: dict[str, Callable[[StoreDriver], Answer]] = {
    "PutObjectTagging": lambda driver: driver.ask(
        "PUT", "/bucket/k", "tagging", body=OPEN, account=OTHER
    ),
    "DeleteObjectTagging": lambda driver: driver.ask(
        "DELETE", "/bucket/k", "tagging", account=OTHER
    ),
    "PutObjectLegalHold": lambda driver: driver.ask(
        "PUT",
        "/bucket/k",
        "legal-hold",
        digest_of(REQUESTS["PutObjectLegalHold"].body),
        REQUESTS["PutObjectLegalHold"].body,
        OTHER,
    ),
    "PutObjectRetention": lambda driver: driver.ask(
        "PUT", "/bucket/k", "retention", digest_of(b"<Retention/>"), b"<Retention/>", OTHER
    ),
    "PutObjectAcl": lambda driver: driver.ask("PUT", "/bucket/k", "acl", PUBLIC, account=OTHER),
}


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("name", sorted({**WRITES, **CHANGES}))
def test_the_commit_compares(driver: StoreDriver, name: str, versioned: bool) -> None:
    """What ends the right is in the same commit, so that it was there still when it was judged: a
    change of state is judged again, what brings a body may come again."""
    if versioned or name in ("PutObjectLegalHold", "PutObjectRetention", "PutObjectAcl"):
        make_bucket(driver, OWNER)
    else:
        driver.bucket()
    allow(driver)
    put(driver, b"old", x_amz_tagging="m=yes")
    ask = {**WRITES, **CHANGES}[name]
    commits = driver.world.pipeline.commits
    secret, refused, unasked = driver.together(
        lambda: put_later(driver),
        lambda: ask(driver),
        lambda: driver.ask("PUT", "/bucket/l", body=b"x"),
    )
    assert (secret.status, unasked.status) == (200, 200)
    assert driver.world.pipeline.commits == commits + 1
    assert refusal(refused) == ("SlowDown" if name in WRITES else "AccessDenied")
    assert driver.ask("GET", "/bucket/k").body == b"secret"
    assert driver.ask("GET", "/bucket/k", "tagging").texts("TagSet/Tag/Key") == []
    assert refusal(ask(driver)) == "AccessDenied"


def put_later(driver: StoreDriver) -> None:
    driver.ask("PUT", "/bucket/k", body=b"secret")


def test_a_completed_upload_is_judged_at_the_commit(driver: StoreDriver) -> None:
    upload = open_bucket(driver)
    asked = REQUESTS["CompleteMultipartUpload"]
    secret, refused = driver.together(
        lambda: put_later(driver),
        lambda: driver.ask(
            "POST", "/bucket/k", f"uploadId={upload}", body=asked.body, account=OTHER
        ),
    )
    assert (secret.status, refused.code) == (200, "AccessDenied")
    assert driver.ask("GET", "/bucket/k").body == b"secret"


def test_the_same_rights_with_another_object_are_enough(driver: StoreDriver) -> None:
    """Many who write one key that they may all write do not hinder one another."""
    open_bucket(driver)
    tagged = {"x-amz-tagging": "m=yes"}
    answers = driver.together(
        *[
            lambda: driver.ask("PUT", "/bucket/k", headers=tagged, body=b"x", account=OTHER)
            for _ in range(5)
        ]
    )
    assert [answer.status for answer in answers] == [200] * 5


def test_what_is_read_stays_from_the_look_on(
    driver: StoreDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules are read in turns between the look that the right rests on and the first byte."""
    open_bucket(driver)
    rules = (
        b"<LifecycleConfiguration><Rule><Status>Enabled</Status><Filter/>"
        b"<Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>"
    )
    put(driver, bytes(100_000), x_amz_tagging="m=yes")
    assert driver.ask("PUT", "/bucket", "lifecycle", digest_of(rules), rules).status == 200
    pins = driver.world.pins.counts
    seen: list[dict[bytes, int]] = []
    original = documents.in_turns

    async def in_turns(steps: Any) -> Any:
        seen.append(dict(pins))
        return await original(steps)

    monkeypatch.setattr(documents, "in_turns", in_turns)
    answer = driver.ask("GET", "/bucket/k", account=OTHER)
    assert answer.body == bytes(100_000)
    assert [len(pinned) for pinned in seen[-1:]] == [1]  # policies come before


@pytest.mark.parametrize("ownership", ["ObjectWriter", "BucketOwnerPreferred"])
def test_a_public_acl_behind_the_block_in_one_commit(driver: StoreDriver, ownership: str) -> None:
    headers = {"x-amz-object-ownership": ownership}
    assert driver.ask("PUT", "/bucket", headers=headers, account=OTHER).status == 200
    assert driver.ask("PUT", "/bucket/k", body=b"x", account=OTHER).status == 200
    commits = driver.world.pipeline.commits
    blocked, refused = driver.together(
        lambda: block_public_acls(driver),
        lambda: driver.ask("PUT", "/bucket/k", "acl", PUBLIC, account=OTHER),
    )
    assert (blocked.status, refused.code) == (200, "AccessDenied")
    assert driver.world.pipeline.commits == commits + 1
    assert driver.ask("GET", "/bucket/k", account=None).status == 403


def test_an_acl_behind_the_end_of_all_acls_in_one_commit(driver: StoreDriver) -> None:
    headers = {"x-amz-object-ownership": "ObjectWriter"}
    assert driver.ask("PUT", "/bucket", headers=headers, account=OTHER).status == 200
    assert driver.ask("PUT", "/bucket/k", body=b"x", account=OTHER).status == 200
    ended = REQUESTS["PutBucketOwnershipControls"].body
    done, refused = driver.together(
        lambda: driver.ask("PUT", "/bucket", "ownershipControls", digest_of(ended), ended, OTHER),
        lambda: driver.ask("PUT", "/bucket/k", "acl", PUBLIC, account=OTHER),
    )
    assert (done.status, refused.code) == (200, "AccessControlListNotSupported")
