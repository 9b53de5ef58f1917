"""Object lock: section 3.12, over the real store."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable, Iterator

import pytest

from ingot.bucket.model import Locked, Outcome
from ingot.bucket.mutation import Removal
from ingot.bucket.versions import NewState
from ingot.messages import Response
from ingot.s3.dates import iso
from tests.s3.driver import Answer
from tests.s3.fake_store import FakeBody
from tests.s3.store_driver import StoreDriver

DAY_MS = 24 * 3600 * 1000
YES = {"x-amz-bypass-governance-retention": "true"}


@pytest.fixture
def driver() -> Iterator[StoreDriver]:
    with StoreDriver() as made:
        made.bucket("plain")
        answer = made.ask("PUT", "/bucket", headers={"x-amz-bucket-object-lock-enabled": "true"})
        assert answer.status == 200
        yield made


def send(
    driver: StoreDriver, path: str, query: str, body: str, headers: dict[str, str] | None = None
) -> Answer:
    data = body.encode()
    md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
    return driver.ask("PUT", path, query, {"content-md5": md5, **(headers or {})}, data)


def configure(
    driver: StoreDriver, rule: str, path: str = "/bucket", enabled: str = "Enabled"
) -> Answer:
    body = (
        f"<ObjectLockConfiguration><ObjectLockEnabled>{enabled}</ObjectLockEnabled>{rule}"
        "</ObjectLockConfiguration>"
    )
    return send(driver, path, "object-lock", body)


def rule(inner: str) -> str:
    return f"<Rule><DefaultRetention>{inner}</DefaultRetention></Rule>"


def retain(
    driver: StoreDriver,
    mode: str,
    until_ms: int,
    query: str = "",
    headers: dict[str, str] | None = None,
) -> Answer:
    until = f"<RetainUntilDate>{iso(until_ms)}</RetainUntilDate>"
    body = f"<Retention><Mode>{mode}</Mode>{until}</Retention>"
    return send(driver, "/bucket/k", "retention" + query, body, headers)


def hold(driver: StoreDriver, status: str, query: str = "") -> Answer:
    body = f"<LegalHold><Status>{status}</Status></LegalHold>"
    return send(driver, "/bucket/k", "legal-hold" + query, body)


def test_lock_1_the_configuration(driver: StoreDriver) -> None:
    found = driver.ask("GET", "/bucket", "object-lock")
    assert found.text("ObjectLockEnabled") == "Enabled" and found.text("Rule") is None
    assert driver.ask("GET", "/bucket", "versioning").text("Status") == "Enabled"
    absent = driver.ask("GET", "/plain", "object-lock")
    assert (absent.status, absent.code) == (404, "ObjectLockConfigurationNotFoundError")
    assert configure(driver, rule("<Mode>GOVERNANCE</Mode><Days>3</Days>")).status == 200
    found = driver.ask("GET", "/bucket", "object-lock")
    assert found.text("Rule/DefaultRetention/Mode") == "GOVERNANCE"
    assert found.text("Rule/DefaultRetention/Days") == "3"
    assert configure(driver, rule("<Mode>COMPLIANCE</Mode><Years>1</Years>")).status == 200
    assert driver.ask("GET", "/bucket", "object-lock").text("Rule/DefaultRetention/Years") == "1"
    for inner, code in (
        ("<Mode>GOVERNANCE</Mode>", "MalformedXML"),
        ("<Days>1</Days>", "MalformedXML"),
        ("<Mode>GOVERNANCE</Mode><Days>1</Days><Years>1</Years>", "MalformedXML"),
        ("<Mode>LATER</Mode><Days>1</Days>", "MalformedXML"),
        ("<Mode>GOVERNANCE</Mode><Days>one</Days>", "MalformedXML"),
        ("<Mode>GOVERNANCE</Mode><Days>0</Days>", "InvalidArgument"),
        ("<Mode>GOVERNANCE</Mode><Days>-1</Days>", "InvalidArgument"),
        ("<Mode>GOVERNANCE</Mode><Days>36501</Days>", "InvalidArgument"),
        ("<Mode>GOVERNANCE</Mode><Years>101</Years>", "InvalidArgument"),
    ):
        assert configure(driver, rule(inner)).code == code
    assert configure(driver, "", enabled="Disabled").code == "MalformedXML"
    assert driver.ask("PUT", "/bucket", "object-lock", body=b"<x/>").code == "InvalidRequest"


def test_lock_1_only_with_versions(driver: StoreDriver) -> None:
    refused = configure(driver, "", "/plain")
    assert (refused.status, refused.code) == (409, "InvalidBucketState")
    status = b"<VersioningConfiguration><Status>%b</Status></VersioningConfiguration>"
    driver.ask("PUT", "/plain", "versioning", body=status % b"Enabled")
    assert configure(driver, "", "/plain").status == 200
    for name in ("/plain", "/bucket"):
        suspended = driver.ask("PUT", name, "versioning", body=status % b"Suspended")
        assert (suspended.status, suspended.code) == (409, "InvalidBucketState"), "VST-1"


def test_lock_2_retention_and_hold(driver: StoreDriver) -> None:
    version = driver.put("k", b"x").headers["x-amz-version-id"]
    absent = driver.ask("GET", "/bucket/k", "retention")
    assert (absent.status, absent.code) == (404, "NoSuchObjectLockConfiguration")
    absent = driver.ask("GET", "/bucket/k", "legal-hold")
    assert (absent.status, absent.code) == (404, "NoSuchObjectLockConfiguration")
    until = driver.clock.ms // 1000 * 1000 + DAY_MS
    assert retain(driver, "GOVERNANCE", until).headers["x-amz-version-id"] == version
    found = driver.ask("GET", "/bucket/k", f"retention&versionId={version}")
    assert found.text("Mode") == "GOVERNANCE" and found.text("RetainUntilDate") == iso(until)
    head = driver.ask("HEAD", "/bucket/k")
    assert head.headers["x-amz-object-lock-mode"] == "GOVERNANCE"
    assert head.headers["x-amz-object-lock-retain-until-date"] == iso(until)
    assert "x-amz-object-lock-legal-hold" not in head.headers
    for status in ("ON", "OFF", "ON"):
        assert hold(driver, status).status == 200
        assert driver.ask("GET", "/bucket/k", "legal-hold").text("Status") == status
        assert driver.ask("HEAD", "/bucket/k").headers["x-amz-object-lock-legal-hold"] == status
    assert hold(driver, "MAYBE").code == "MalformedXML"
    assert retain(driver, "LATER", until).code == "MalformedXML"
    assert retain(driver, "GOVERNANCE", driver.clock.ms - DAY_MS).code == "InvalidArgument"
    half = "<Retention><Mode>GOVERNANCE</Mode></Retention>"
    assert send(driver, "/bucket/k", "retention", half).code == "MalformedXML"
    assert driver.ask("GET", "/bucket/none", "retention").code == "NoSuchKey"


def test_lock_2_a_bucket_without_locks(driver: StoreDriver) -> None:
    """What a body says is judged first, then whether there is an object."""
    driver.put("k", b"x", bucket="plain")
    until = iso(driver.clock.ms + DAY_MS)
    good = (
        f"<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>"
    )
    for query, body, bad in (
        ("retention", good, "<Retention><Mode>GOVERNANCE</Mode></Retention>"),
        ("legal-hold", "<LegalHold><Status>ON</Status></LegalHold>", "<LegalHold/>"),
    ):
        assert send(driver, "/plain/k", query, bad).code == "MalformedXML"
        for path, code in (("/plain/k", "InvalidRequest"), ("/plain/none", "NoSuchKey")):
            assert driver.ask("GET", path, query).code == code
            refused = send(driver, path, query, body)
            assert refused.code == code
            if code == "InvalidRequest":
                text = refused.xml.findtext("Message")
                assert text == "Bucket is missing Object Lock Configuration"
    held = {"x-amz-object-lock-legal-hold": "ON"}
    text = driver.ask("PUT", "/plain/k", headers=held, body=b"x").xml.findtext("Message")
    assert text == "Bucket is missing ObjectLockConfiguration", "S3 has two spellings"


def test_lock_3_retention_is_not_ended_early(driver: StoreDriver) -> None:
    driver.put("k", b"x")
    until = driver.clock.ms + 10 * DAY_MS
    none = "<Retention/>"
    assert retain(driver, "GOVERNANCE", until).status == 200
    assert retain(driver, "GOVERNANCE", until + DAY_MS).status == 200
    assert retain(driver, "GOVERNANCE", until).code == "AccessDenied"
    assert send(driver, "/bucket/k", "retention", none).code == "AccessDenied"
    assert retain(driver, "GOVERNANCE", until, headers=YES).status == 200
    assert send(driver, "/bucket/k", "retention", none, YES).status == 200
    assert driver.ask("GET", "/bucket/k", "retention").code == "NoSuchObjectLockConfiguration"
    assert retain(driver, "GOVERNANCE", until).status == 200
    assert retain(driver, "COMPLIANCE", until).code == "AccessDenied", "an end that some may bring"
    assert retain(driver, "COMPLIANCE", until, headers=YES).status == 200
    for headers in ({}, YES):
        assert retain(driver, "COMPLIANCE", until - DAY_MS, headers=headers).code == "AccessDenied"
        assert retain(driver, "GOVERNANCE", until, headers=headers).code == "AccessDenied"
    assert retain(driver, "COMPLIANCE", until + DAY_MS).status == 200


def test_lock_4_what_is_locked_is_not_deleted(driver: StoreDriver) -> None:
    until = iso(driver.clock.ms + DAY_MS)
    lock = {"x-amz-object-lock-mode": "GOVERNANCE", "x-amz-object-lock-retain-until-date": until}
    put = driver.ask("PUT", "/bucket/k", headers=lock, body=b"x")
    version = put.headers["x-amz-version-id"]
    named = f"versionId={version}"
    refused = driver.ask("DELETE", "/bucket/k", named)
    assert (refused.status, refused.code) == (403, "AccessDenied")
    marker = driver.ask("DELETE", "/bucket/k")
    assert marker.status == 204 and marker.headers["x-amz-delete-marker"] == "true"
    assert driver.ask("PUT", "/bucket/k", body=b"y").status == 200, "a newer version is allowed"
    client = driver.client()
    objects = [
        {"Key": "k", "VersionId": version},
        {"Key": "k", "VersionId": marker.headers["x-amz-version-id"]},
    ]
    answer = client.delete_objects(Bucket="bucket", Delete={"Objects": objects})
    assert [each["Code"] for each in answer["Errors"]] == ["AccessDenied"], "DEL-4"
    assert [each["VersionId"] for each in answer["Deleted"]] == [objects[1]["VersionId"]]
    assert hold(driver, "ON", f"&{named}").status == 200
    assert driver.ask("DELETE", "/bucket/k", named, YES).code == "AccessDenied", "a hold stays"
    assert hold(driver, "OFF", f"&{named}").status == 200
    assert driver.ask("DELETE", "/bucket/k", named, YES).status == 204
    assert driver.ask("GET", "/bucket/k", named).code == "NoSuchVersion"


class Waiting(FakeBody):
    """A body that ends when ``gate`` is opened; ``begun`` is set when it is asked for."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data, taken=False)
        self.begun, self.gate = asyncio.Event(), asyncio.Event()

    async def readinto(self, view: memoryview) -> int:
        self.begun.set()
        await self.gate.wait()
        return await super().readinto(view)


def around(driver: StoreDriver, path: str, *changes: Callable[[], Answer]) -> Answer:
    """The answer to a PUT that began before ``changes`` and ends after them."""
    body = Waiting(b"x" * 100)
    driver.hold_back()
    driver.ask("PUT", path, body=body.data, stream=body)
    [request] = driver.held_back()

    async def begin() -> asyncio.Task[Response]:
        task = asyncio.ensure_future(driver.app.handle(request))
        await body.begun.wait()
        return task

    task = driver.run(begin())
    for change in changes:
        assert change().status == 200

    async def end() -> Response:
        body.gate.set()
        return await task

    return Answer(driver.run(end()))


def test_lock_4_the_default_is_the_buckets_at_the_commit(driver: StoreDriver) -> None:
    longer = rule("<Mode>COMPLIANCE</Mode><Days>9</Days>")
    answer = around(driver, "/bucket/k", lambda: configure(driver, longer))
    assert answer.status == 200
    found = driver.ask("GET", "/bucket/k", "retention")
    assert found.text("Mode") == "COMPLIANCE"
    until = driver.clock.ms // 1000 * 1000 + 9 * DAY_MS
    assert found.text("RetainUntilDate") == iso(until)
    assert around(driver, "/bucket/k", lambda: configure(driver, "")).status == 200
    absent = driver.ask("GET", "/bucket/k", "retention")
    assert absent.code == "NoSuchObjectLockConfiguration"


def test_lock_4_a_lock_that_comes_while_an_object_is_written(driver: StoreDriver) -> None:
    """The bucket had not even versions when the PUT began, and yet it is retained."""
    enabled = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    changes = (
        lambda: driver.ask("PUT", "/plain", "versioning", body=enabled),
        lambda: configure(driver, rule("<Mode>GOVERNANCE</Mode><Days>1</Days>"), "/plain"),
    )
    assert around(driver, "/plain/k", *changes).status == 200
    assert driver.ask("GET", "/plain/k", "retention").text("Mode") == "GOVERNANCE"


def test_lock_4_default_retention(driver: StoreDriver) -> None:
    assert configure(driver, rule("<Mode>COMPLIANCE</Mode><Days>2</Days>")).status == 200
    driver.put("k", b"x")
    expected = iso(driver.clock.ms + 2 * DAY_MS)

    def retained(key: str) -> tuple[str | None, str | None]:
        found = driver.ask("GET", f"/bucket/{key}", "retention")
        return found.text("Mode"), found.text("RetainUntilDate")

    assert retained("k") == ("COMPLIANCE", expected)
    copied = driver.ask("PUT", "/bucket/copy", headers={"x-amz-copy-source": "bucket/k"})
    assert copied.status == 200 and retained("copy") == ("COMPLIANCE", expected)
    client = driver.client()
    upload = client.create_multipart_upload(Bucket="bucket", Key="parts")["UploadId"]
    part = client.upload_part(
        Bucket="bucket", Key="parts", UploadId=upload, PartNumber=1, Body=b"x"
    )
    done = client.complete_multipart_upload(
        Bucket="bucket",
        Key="parts",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    assert retained("parts") == ("COMPLIANCE", expected)
    again = client.complete_multipart_upload(
        Bucket="bucket",
        Key="parts",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    assert again["VersionId"] == done["VersionId"], "MPU-7"
    until = iso(driver.clock.ms + 9 * DAY_MS)
    own = {"x_amz_object_lock_mode": "GOVERNANCE", "x_amz_object_lock_retain_until_date": until}
    driver.put("own", b"x", **own)
    assert retained("own") == ("GOVERNANCE", until)


def test_lock_5_dates_in_other_forms(driver: StoreDriver) -> None:
    for date in ("2090-01-01T02:00:00.5+02:00", "2090-01-01T00:00:00Z"):
        own = {"x_amz_object_lock_mode": "GOVERNANCE", "x_amz_object_lock_retain_until_date": date}
        driver.put("k", b"x", **own)
        found = driver.ask("GET", "/bucket/k", "retention")
        assert found.text("RetainUntilDate") == "2090-01-01T00:00:00.000Z"


def test_a_clock_that_is_moved_ends_no_retention(driver: StoreDriver) -> None:
    """Only time that has passed: the wall clock is whose the machine is, or who sets its time."""
    until = driver.clock.ms + 9 * DAY_MS
    headers = {"x_amz_object_lock_mode": "COMPLIANCE"}
    headers["x_amz_object_lock_retain_until_date"] = iso(until)
    version = driver.put("kept", **headers).headers["x-amz-version-id"]
    store = driver.world.store

    def removed() -> object:
        removal = Removal(b"kept", None, until + 1000, version)
        return driver.run(store.remove(store.bucket("bucket"), [removal]))[0]

    def unlocked() -> None:
        new = NewState(retention=None)
        driver.run(store.set_state(store.bucket("bucket"), b"kept", version, new, until + 1000))

    assert isinstance(removed(), Locked)
    with pytest.raises(Locked):
        unlocked()
    driver.clock.ms += 9 * DAY_MS + 1000
    unlocked()
    assert isinstance(removed(), Outcome)
