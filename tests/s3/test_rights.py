"""Rights that a request needs beside its own, and those that end while it is under way."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.s3.driver import OTHER, OWNER, Answer
from tests.s3.store_driver import StoreDriver, with_a_source
from tests.s3.test_held_back import (
    LOCKED,
    REQUESTS,
    SOURCE,
    TAGGING,
    digest_of,
    held,
    make_bucket,
    of_object,
    put,
    start_upload,
)

TAGS = {"x-amz-tagging": "a=b"}
COPY = {"x-amz-copy-source": "/source/k"}


driver = pytest.fixture(with_a_source)


def allow(driver: StoreDriver, *actions: str, bucket: str = "bucket") -> None:
    """OTHER these actions and no others."""
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": OTHER.id},
        "Action": [f"s3:{action}" for action in actions],
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
    }
    document = json.dumps({"Statement": statement}).encode()
    assert driver.ask("PUT", f"/{bucket}", "policy", body=document).status == 204


# -- beside its own --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_locks_are_shown_to_those_who_may_ask_for_them(driver: StoreDriver, method: str) -> None:
    make_bucket(driver, OWNER)
    put(driver, OWNER, **LOCKED)
    retention = {"x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"}
    hold = {"x-amz-object-lock-legal-hold"}

    def shown(account: Any = OTHER) -> set[str]:
        answer = driver.ask(method, "/bucket/k", account=account)
        assert answer.status == 200
        return {name for name in answer.headers if name.startswith("x-amz-object-lock")}

    def codes() -> list[str]:
        answers = [
            driver.ask("GET", "/bucket/k", query, account=OTHER)
            for query in ("retention", "legal-hold")
        ]
        return ["" if answer.status == 200 else answer.code for answer in answers]

    assert shown(OWNER) == retention | hold
    acl = {"x-amz-grant-read": f"id={OTHER.id}"}
    assert driver.ask("PUT", "/bucket/k", "acl", acl).status == 200
    assert (shown(), codes()) == (set(), ["AccessDenied"] * 2), "a grant to read is none to these"
    allow(driver, "GetObject")
    assert (shown(), codes()) == (set(), ["AccessDenied"] * 2)
    allow(driver, "GetObject", "GetObjectRetention")
    assert (shown(), codes()) == (retention, ["", "AccessDenied"])
    allow(driver, "GetObject", "GetObjectLegalHold")
    assert (shown(), codes()) == (hold, ["AccessDenied", ""])


@pytest.mark.parametrize("versioned", [False, True])
def test_tags_are_copied_by_those_who_may_read_them(driver: StoreDriver, versioned: bool) -> None:
    """Of a version that is named the right is to a version's."""
    make_bucket(driver, OWNER)
    version = put(driver, OWNER, x_amz_tagging="a=b")
    source, of_version = "/bucket/k", ""
    if versioned:
        source, of_version = f"/bucket/k?versionId={version}", "Version"

    def copy(**headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["x-amz-copy-source"] = source
        return driver.ask("PUT", "/source/copy", headers=named, account=OTHER)

    reads = f"GetObject{of_version}"
    for others in ((), (f"GetObject{'' if versioned else 'Version'}Tagging",)):
        allow(driver, reads, *others)
        assert copy().code == "AccessDenied"
        assert copy(x_amz_tagging_directive="REPLACE").status == 200, "it takes none along"
    allow(driver, reads, f"GetObject{of_version}Tagging")
    assert copy().status == 200
    tags = driver.ask("GET", "/source/copy", "tagging", account=OTHER)
    assert tags.texts("TagSet/Tag/Key") == ["a"]


# -- that end meanwhile ----------------------------------------------------------------------------


def of_tagged_source(driver: StoreDriver) -> None:
    assert driver.ask("PUT", "/source/k", "tagging", body=TAGGING, account=OTHER).status == 200


def nothing_more(driver: StoreDriver) -> None:
    pass


WITH_STATE = {
    "PutObject": (of_object(body=b"x" * 100, headers=TAGS), nothing_more),
    "CopyObject": (
        of_object(headers=COPY | TAGS | {"x-amz-tagging-directive": "REPLACE"}, waits=SOURCE),
        nothing_more,
    ),
    "tags of a copy": (of_object(headers=COPY, waits=SOURCE), of_tagged_source),
}


@pytest.mark.parametrize("name", sorted(WITH_STATE))
@pytest.mark.parametrize("stays", [True, False])
def test_the_right_to_the_state_of_a_write_is_judged_again(
    driver: StoreDriver, name: str, stays: bool
) -> None:
    """The right to write stays, the one to give tags is taken back."""
    asked, prepare = WITH_STATE[name]
    prepare(driver)
    driver.bucket()
    allow(driver, "PutObject", "PutObjectTagging")

    def meanwhile() -> None:
        allow(driver, "PutObject", *(["PutObjectTagging"] if stays else []), "GetObject")

    answer = held(driver, asked, "", meanwhile)
    if stays:
        assert answer.status == 200
        shown = driver.ask("GET", "/bucket/k", "tagging").texts("TagSet/Tag/Key")
        assert (shown, driver.keys()) == (["a"], [b"k"])
    else:
        assert (answer.code, driver.keys()) == ("AccessDenied", [])


ACLS = (
    b"<OwnershipControls><Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule>"
    b"</OwnershipControls>"
)


@pytest.mark.parametrize("name", ["PutObject", "CopyObject"])
def test_a_write_is_its_writers_where_acls_count_by_now(driver: StoreDriver, name: str) -> None:
    driver.bucket()
    allow(driver, "*")

    def count() -> None:
        answer = driver.ask("PUT", "/bucket", "ownershipControls", digest_of(ACLS), ACLS)
        assert answer.status == 200

    assert held(driver, REQUESTS[name], "", count).status == 200
    shown = driver.ask("GET", "/bucket/k", "acl", account=OTHER)
    assert shown.text("Owner/ID") == OTHER.id


@pytest.mark.parametrize("name", ["UploadPart", "UploadPartCopy"])
def test_an_upload_becomes_its_initiators_where_acls_count(driver: StoreDriver, name: str) -> None:
    """By whom its parts are is judged again with the right to write."""
    driver.bucket()
    allow(driver, "*")
    made = driver.ask("POST", "/bucket/k", "uploads")
    upload = made.text("UploadId")
    assert upload is not None
    heads = []

    def count() -> None:
        answer = driver.ask("PUT", "/bucket", "ownershipControls", digest_of(ACLS), ACLS)
        assert answer.status == 200
        heads.append(driver.world.store.bucket("bucket").head)

    assert held(driver, REQUESTS[name], upload, count).code == "AccessDenied"
    assert driver.world.store.bucket("bucket").head == heads[0]


def while_called(driver: StoreDriver, of: Any, name: str, change: Callable[[], None]) -> None:
    """Have ``change`` made by another request while a method of the store is waited for, once."""
    original = getattr(of, name)
    requests = []
    driver.hold_back()
    change()
    requests += driver.held_back()

    async def changed(*arguments: Any) -> Any:
        found = await original(*arguments)
        while requests:
            response = await driver.app.handle(requests.pop())
            assert response.status in (200, 204)
        return found

    setattr(of, name, changed)


def no_policy(driver: StoreDriver) -> Callable[[], None]:
    def ask() -> None:
        driver.ask("DELETE", "/bucket", "policy")

    return ask


def test_a_complete_is_judged_again_when_its_parts_were_read(driver: StoreDriver) -> None:
    driver.bucket()
    allow(driver, "*")
    upload = start_upload(driver)
    asked = REQUESTS["CompleteMultipartUpload"]
    while_called(driver, driver.world.store.uploads, "parts", no_policy(driver))
    answer = driver.ask("POST", "/bucket/k", f"uploadId={upload}", body=asked.body, account=OTHER)
    assert (answer.code, driver.keys()) == ("AccessDenied", [])


def test_all_of_a_delete_is_judged_by_one_configuration(driver: StoreDriver) -> None:
    """The right is taken back when the first of the keys was judged."""
    driver.bucket()
    allow(driver, "*")
    keys = [f"k{n}" for n in range(5)]
    for key in keys:
        assert driver.ask("PUT", f"/bucket/{key}", body=b"x").status == 200
    body = "".join(f"<Object><Key>{key}</Key><Size>1</Size></Object>" for key in keys)
    document = f"<Delete>{body}</Delete>".encode()
    while_called(driver, driver.world.store, "find", no_policy(driver))
    answer = driver.ask("POST", "/bucket", "delete", digest_of(document), document, OTHER)
    refused = answer.texts("Error/Code") if answer.status == 200 else [answer.code]
    assert set(refused) == {"AccessDenied"}
    assert driver.keys() == [key.encode() for key in keys]


def test_a_public_policy_behind_the_block_in_one_commit(driver: StoreDriver) -> None:
    """Both were judged before either was committed."""
    driver.bucket()
    block = (
        b"<PublicAccessBlockConfiguration><BlockPublicPolicy>true</BlockPublicPolicy>"
        b"</PublicAccessBlockConfiguration>"
    )
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::bucket/*",
    }
    public = json.dumps({"Statement": statement}).encode()
    commits = driver.world.pipeline.commits
    blocked, refused = driver.together(
        lambda: driver.ask("PUT", "/bucket", "publicAccessBlock", digest_of(block), block),
        lambda: driver.ask("PUT", "/bucket", "policy", body=public),
    )
    assert (blocked.status, refused.code) == (200, "AccessDenied")
    assert driver.world.pipeline.commits == commits + 1
    assert driver.ask("GET", "/bucket", "policy").code == "NoSuchBucketPolicy"
