"""Requests that are under way for long: what was judged is what is changed, by the right as it is
then. Every operation that changes a bucket is held back here where it waits, at its body or at a
look at a copy's source, and its bucket is given to others or closed meanwhile."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from ingot.bucket.model import Bucket
from ingot.messages import Response
from ingot.s3.operations import BUILT, OPERATIONS
from tests.s3.driver import OTHER, OWNER, REGION, Answer
from tests.s3.fake_store import FakeBody
from tests.s3.store_driver import StoreDriver, with_a_source
from tests.support import form

BODY, SOURCE = "body", "source"

# They take what says that there is nothing to set, and keep nothing.
KEPT_NOWHERE = {
    "PutBucketAccelerateConfiguration",
    "PutBucketLogging",
    "PutBucketNotificationConfiguration",
    "PutBucketRequestPayment",
}
OF_NO_BUCKET = {"CreateBucket"}  # there is none yet
AT_ONCE = {  # these have no body to wait for, and answer in one go
    *("DeleteBucket", "DeleteBucketTagging", "DeleteBucketPolicy", "DeleteBucketCors"),
    *("DeleteBucketLifecycle", "DeleteBucketOwnershipControls", "DeletePublicAccessBlock"),
    *("DeleteBucketEncryption", "DeleteBucketWebsite", "DeleteObject", "DeleteObjectTagging"),
    *("CreateMultipartUpload", "AbortMultipartUpload"),
}
MUTATING = {
    row.name for row in OPERATIONS if row.kind == BUILT and row.method in ("PUT", "POST", "DELETE")
}


class Asked(NamedTuple):
    """A request that changes something, if it may."""

    query: str = ""
    body: bytes = b""
    headers: dict[str, str] = {}
    method: str = "PUT"
    path: str = "/bucket"
    waits: str = BODY


def of_object(query: str = "", body: bytes = b"", **more: Any) -> Asked:
    return Asked(query, body, path="/bucket/k", **more)


def cors() -> bytes:
    rule = "<AllowedMethod>GET</AllowedMethod><AllowedOrigin>*</AllowedOrigin>"
    return f"<CORSConfiguration><CORSRule>{rule}</CORSRule></CORSConfiguration>".encode()


def policy(bucket: str = "bucket", who: str = "*") -> bytes:
    statement = {
        "Effect": "Allow",
        "Principal": "*" if who == "*" else {"AWS": who},
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
    }
    return json.dumps({"Statement": statement}).encode()


TAGGING = b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"
LOCKED = {
    "x_amz_object_lock_mode": "GOVERNANCE",
    "x_amz_object_lock_retain_until_date": "2100-01-01T00:00:00Z",
    "x_amz_object_lock_legal_hold": "ON",
}
COPY = {"x-amz-copy-source": "/source/k"}
PUBLIC = {"x-amz-acl": "public-read"}
REQUESTS = {
    "PutBucketTagging": Asked("tagging", TAGGING),
    "PutBucketPolicy": Asked("policy", policy()),
    "PutBucketCors": Asked("cors", cors()),
    "PutBucketVersioning": Asked(
        "versioning",
        b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
    ),
    "PutBucketAcl": Asked(
        "acl",
        b"<AccessControlPolicy><Owner><ID>%s</ID></Owner><AccessControlList/>"
        b"</AccessControlPolicy>" % OTHER.id.encode(),
    ),
    "PutBucketLifecycleConfiguration": Asked(
        "lifecycle",
        b"<LifecycleConfiguration><Rule><Status>Enabled</Status><Filter/>"
        b"<Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>",
    ),
    "PutObjectLockConfiguration": Asked(
        "object-lock",
        b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>"
        b"<DefaultRetention><Mode>COMPLIANCE</Mode><Days>9</Days></DefaultRetention></Rule>"
        b"</ObjectLockConfiguration>",
    ),
    "PutBucketOwnershipControls": Asked(
        "ownershipControls",
        b"<OwnershipControls><Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule>"
        b"</OwnershipControls>",
    ),
    "PutPublicAccessBlock": Asked(
        "publicAccessBlock",
        b"<PublicAccessBlockConfiguration><BlockPublicAcls>false</BlockPublicAcls>"
        b"</PublicAccessBlockConfiguration>",
    ),
    "PutBucketEncryption": Asked(
        "encryption",
        b"<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault>"
        b"<SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule>"
        b"</ServerSideEncryptionConfiguration>",
    ),
    "PutBucketWebsite": Asked(
        "website",
        b"<WebsiteConfiguration><IndexDocument><Suffix>i</Suffix></IndexDocument>"
        b"</WebsiteConfiguration>",
    ),
    "DeleteObjects": Asked(
        "delete", b"<Delete><Object><Key>k</Key></Object></Delete>", method="POST"
    ),
    "PostObject": Asked(method="POST"),  # its body is made where it is sent
    "PutObject": of_object(body=b"x" * 100),
    "CopyObject": of_object(headers=COPY, waits=SOURCE),
    "UploadPart": of_object("partNumber=1&uploadId=UPLOAD", b"x" * 100),
    "UploadPartCopy": of_object("partNumber=1&uploadId=UPLOAD", headers=COPY, waits=SOURCE),
    "CompleteMultipartUpload": of_object(
        "uploadId=UPLOAD",
        b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>%s</ETag></Part>"
        b"</CompleteMultipartUpload>" % hashlib.md5(b"part").hexdigest().encode(),
        method="POST",
    ),
    "PutObjectTagging": of_object("tagging", TAGGING),
    "PutObjectAcl": of_object(
        "acl",
        b"<AccessControlPolicy><Owner><ID>%s</ID></Owner><AccessControlList/>"
        b"</AccessControlPolicy>" % OTHER.id.encode(),
    ),
    "PutObjectRetention": of_object(
        "retention", b"<Retention/>", headers={"x-amz-bypass-governance-retention": "true"}
    ),
    "PutObjectLegalHold": of_object("legal-hold", b"<LegalHold><Status>OFF</Status></LegalHold>"),
}


def test_every_operation_that_changes_a_bucket_is_here() -> None:
    """Whoever adds one says where it waits, or that it does not."""
    assert MUTATING == {*REQUESTS, *AT_ONCE, *KEPT_NOWHERE, *OF_NO_BUCKET}


class HeldBody(FakeBody):
    """Ends when ``gate`` is opened; ``begun`` is set when its last eighth is asked for."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data, taken=False)
        self.begun, self.gate = asyncio.Event(), asyncio.Event()

    async def readinto(self, view: memoryview) -> int:
        most = len(self.data) - len(self.data) // 8
        if self._offset < most:
            return await super().readinto(view[: most - self._offset])
        await self._rest()
        return await super().readinto(view)

    async def read(self, limit: int) -> bytes:
        await self._rest()
        return await super().read(limit)

    async def _rest(self) -> None:
        self.begun.set()
        await self.gate.wait()


driver = pytest.fixture(with_a_source)


def digest_of(body: bytes) -> dict[str, str]:
    return {"content-md5": base64.b64encode(hashlib.md5(body).digest()).decode()}


def make_bucket(driver: StoreDriver, account: Any) -> None:
    """One in which everything can be asked for: with versions, locks and ACLs."""
    headers = {
        "x-amz-bucket-object-lock-enabled": "true",
        "x-amz-object-ownership": "BucketOwnerPreferred",
    }
    assert driver.ask("PUT", "/bucket", headers=headers, account=account).status == 200


def put(driver: StoreDriver, account: Any, **headers: str) -> str:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = driver.ask("PUT", "/bucket/k", headers=named, body=b"old", account=account)
    assert answer.status == 200, answer.body
    return answer.headers["x-amz-version-id"]


def start_upload(driver: StoreDriver, **headers: str) -> str:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    made = driver.ask("POST", "/bucket/k", "uploads", headers=named, account=OTHER)
    upload = made.text("UploadId")
    assert upload is not None
    query = f"partNumber=1&uploadId={upload}"
    assert driver.ask("PUT", "/bucket/k", query, body=b"part", account=OTHER).status == 200
    return upload


def held(driver: StoreDriver, asked: Asked, upload: str, meanwhile: Callable[[], None]) -> Answer:
    """OTHER's request, during which something happens."""
    headers, data, account = dict(asked.headers), asked.body, OTHER
    if asked.method == "POST" and not data:
        ours = form.v4_fields(OTHER.access_key, REGION)
        conditions = [{"bucket": "bucket"}, {"key": "k"}, *[{k: v} for k, v in ours.items()]]
        fields = form.sign_v4(form.policy(*conditions), OTHER.secret_key, ours)
        data = form.encode({"key": "k", **fields}, b"x" * 4000)
        headers["content-type"], account = form.TYPE, None
    elif asked.path == "/bucket" or asked.query in ("retention", "legal-hold"):
        headers |= digest_of(data)
    body = HeldBody(data)
    driver.hold_back()
    query = asked.query.replace("UPLOAD", upload)
    driver.ask(asked.method, asked.path, query, headers, data, account, body)
    [request] = driver.held_back()
    store = driver.world.store
    check_body = store.check_body

    async def wait(of: Any) -> None:
        body.begun.set()
        await body.gate.wait()
        await check_body(of)

    if asked.waits == SOURCE:
        store.check_body = wait  # type: ignore[method-assign]

    async def begin() -> asyncio.Task[Response]:
        task = asyncio.ensure_future(driver.app.handle(request))
        begun = asyncio.ensure_future(body.begun.wait())
        await asyncio.wait((task, begun), return_when=asyncio.FIRST_COMPLETED)
        assert not task.done(), (task.result(), task.result().body)
        return task

    task = driver.run(begin())
    store.check_body = check_body  # type: ignore[method-assign]
    meanwhile()

    async def end() -> Response:
        body.gate.set()
        return await task

    return Answer(driver.run(end()))


def standing(driver: StoreDriver) -> Bucket:
    return driver.world.store.bucket("bucket")


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_another_bucket_of_the_name_is_left_alone(driver: StoreDriver, name: str) -> None:
    make_bucket(driver, OTHER)
    version, upload = put(driver, OTHER), start_upload(driver)
    found: list[Bucket] = []

    def give_away() -> None:
        query = f"versionId={version}"
        assert driver.ask("DELETE", "/bucket/k", query, account=OTHER).status == 204
        assert driver.ask("DELETE", "/bucket", account=OTHER).status == 204
        make_bucket(driver, OWNER)
        put(driver, OWNER, **LOCKED)
        found.append(standing(driver))

    answer = held(driver, REQUESTS[name], upload, give_away)
    assert (answer.status, answer.code) == (404, "NoSuchBucket")
    assert standing(driver) is found[0]


@pytest.mark.parametrize("name", sorted({*REQUESTS} - {"PutBucketPolicy"}))  # nobody can grant that
def test_a_right_that_was_taken_back_meanwhile_is_gone(driver: StoreDriver, name: str) -> None:
    make_bucket(driver, OWNER)
    allowed = policy(who=OTHER.id)
    assert driver.ask("PUT", "/bucket", "policy", body=allowed).status == 204
    put(driver, OWNER)
    upload = start_upload(driver)
    found: list[Bucket] = []

    def close() -> None:
        assert driver.ask("DELETE", "/bucket", "policy").status == 204
        found.append(standing(driver))

    answer = held(driver, REQUESTS[name], upload, close)
    if name == "DeleteObjects":  # which answers for each key
        assert (answer.status, answer.text("Error/Code")) == (200, "AccessDenied")
    else:
        assert (answer.status, answer.code) == (403, "AccessDenied")
    assert standing(driver).head == found[0].head


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_a_change_that_takes_nothing_away_stops_nobody(driver: StoreDriver, name: str) -> None:
    """ACLs begin to count, so that what may be done is judged by other rules than at first."""
    driver.bucket(account=OTHER)
    enabled = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    lock = (
        b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>"
        b"</ObjectLockConfiguration>"
    )
    md5 = {"versioning": {}, "object-lock": digest_of(lock)}
    for query, body in (("versioning", enabled), ("object-lock", lock)):
        answer = driver.ask("PUT", "/bucket", query, md5[query], body, OTHER)
        assert answer.status == 200, answer.body
    put(driver, OTHER, **LOCKED)
    upload = start_upload(driver)
    acls = (
        b"<OwnershipControls><Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule>"
        b"</OwnershipControls>"
    )

    def set_ownership() -> None:
        answer = driver.ask(
            "PUT", "/bucket", "ownershipControls", headers=digest_of(acls), body=acls, account=OTHER
        )
        assert answer.status == 200, answer.body

    before = standing(driver)
    answer = held(driver, REQUESTS[name], upload, set_ownership)
    assert answer.status in (200, 204), answer.body
    changes = 1 if name == "PutBucketVersioning" else 2  # versions are enabled already
    assert standing(driver).head.sequence == before.head.sequence + changes


def block_public_acls(driver: StoreDriver) -> Answer:
    body = (
        b"<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls>"
        b"</PublicAccessBlockConfiguration>"
    )
    return driver.ask("PUT", "/bucket", "publicAccessBlock", body=body, account=OTHER)


PUBLIC_WRITES = {
    "PutObject": of_object(body=b"x" * 100, headers=PUBLIC),
    "CopyObject": of_object(headers=COPY | PUBLIC, waits=SOURCE),
    "CompleteMultipartUpload": REQUESTS["CompleteMultipartUpload"],
    "PutObjectAcl": of_object("acl", headers=PUBLIC),
}


@pytest.mark.parametrize("name", sorted({*PUBLIC_WRITES} - {"PutObjectAcl"}))
def test_the_public_is_kept_out_from_the_block_on(driver: StoreDriver, name: str) -> None:
    make_bucket(driver, OTHER)
    put(driver, OTHER)
    upload = start_upload(driver, x_amz_acl="public-read")

    def block() -> None:
        assert block_public_acls(driver).status == 200

    answer = held(driver, PUBLIC_WRITES[name], upload, block)
    assert (answer.status, answer.code) == (403, "AccessDenied")
    assert driver.ask("GET", "/bucket/k", account=OTHER).body == b"old"


@pytest.mark.parametrize("ownership", ["ObjectWriter", "BucketOwnerPreferred"])
@pytest.mark.parametrize("locked", ["true", "false"])
def test_a_public_put_behind_the_block_in_one_commit(
    driver: StoreDriver, ownership: str, locked: str
) -> None:
    """Both were judged before either was committed."""
    headers = {
        "x-amz-object-ownership": ownership,
        "x-amz-bucket-object-lock-enabled": locked,
    }
    assert driver.ask("PUT", "/bucket", headers=headers, account=OTHER).status == 200
    commits = driver.world.pipeline.commits
    blocked, refused, private = driver.together(
        lambda: block_public_acls(driver),
        lambda: driver.ask("PUT", "/bucket/k", headers=PUBLIC, body=b"x", account=OTHER),
        lambda: driver.ask("PUT", "/bucket/l", body=b"x", account=OTHER),
    )
    assert (blocked.status, refused.code, private.status) == (200, "AccessDenied", 200)
    assert driver.world.pipeline.commits == commits + 1
    assert driver.keys() == [b"l"]


def test_what_may_be_done_is_settled_at_some_time(driver: StoreDriver) -> None:
    """Where the configuration changes again whenever it was judged, the client hears 503."""
    make_bucket(driver, OTHER)
    store = driver.world.store
    newest = store.newest

    def changing(bucket: Bucket) -> Bucket:
        found = newest(bucket)
        return replace(found, config=found.config.with_document("cors", b""))

    store.newest = changing  # type: ignore[method-assign]
    answer = driver.ask("PUT", "/bucket/k", body=b"x", account=OTHER)
    assert (answer.status, answer.code) == (503, "SlowDown")
