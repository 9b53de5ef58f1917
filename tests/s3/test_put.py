"""PutObject: PUT-1 to PUT-12, SUM-3 to SUM-5."""

from __future__ import annotations

import base64
import hashlib

import pytest

from ingot.body.checksums import SIZES, one_shot
from tests.s3.driver import Driver
from tests.s3.fake_store import FakeBody, body_of


@pytest.fixture
def driver():
    made = Driver()
    made.bucket()
    return made


def b64(data):
    return base64.b64encode(data).decode()


def test_put_1_the_answer(driver):
    answer = driver.put("key", b"hello")
    assert answer.headers["etag"] == f'"{hashlib.md5(b"hello").hexdigest()}"'
    assert answer.body == b"" and "x-amz-version-id" not in answer.headers
    assert driver.record("key").created_ms == driver.clock.ms


def test_sum_4_crc64nvme_is_the_default(driver):
    answer = driver.put("key", b"123456789")
    assert answer.headers["x-amz-checksum-crc64nvme"] == "rosUhgp5mIg="
    assert answer.headers["x-amz-checksum-type"] == "FULL_OBJECT"
    assert list(driver.record("key").checksums) == ["crc64nvme"]


@pytest.mark.parametrize("name", SIZES)
def test_sum_5_the_client_s_checksum_is_verified_stored_and_echoed(driver, name):
    good, header = b64(one_shot(name, b"hello")), f"x-amz-checksum-{name}"
    answer = driver.put("key", b"hello", **{header: good})
    assert answer.headers[header] == good
    assert driver.record("key").checksums == {name: one_shot(name, b"hello")}
    bad = driver.ask("PUT", "/bucket/key", headers={header: good}, body=b"other")
    assert (bad.status, bad.code) == (400, "BadDigest")
    assert driver.record("key").body.inline == b"hello"


def test_sum_3_content_md5(driver):
    good = b64(hashlib.md5(b"hello").digest())
    driver.put("key", b"hello", content_md5=good)
    wrong = driver.ask("PUT", "/bucket/key", headers={"content-md5": good}, body=b"x")
    assert (wrong.code, wrong.xml.findtext("ExpectedDigest")) == ("BadDigest", good)
    for value in ("", "short", "!!!"):
        answer = driver.ask("PUT", "/bucket/key", headers={"content-md5": value}, body=b"x")
        assert (answer.status, answer.code) == (400, "InvalidDigest")


def test_the_signed_payload_hash_is_verified_before_the_commit(driver):
    digest = hashlib.sha256(b"other").hexdigest()
    answer = driver.ask(
        "PUT", "/bucket/key", headers={"x-amz-content-sha256": digest}, body=b"hello"
    )
    assert (answer.status, answer.code) == (400, "XAmzContentSHA256Mismatch")
    assert driver.keys() == []


def test_put_11_empty_and_missing_lengths(driver):
    assert driver.put("empty", b"").headers["etag"] == '"d41d8cd98f00b204e9800998ecf8427e"'
    answer = driver.ask(
        "PUT", "/bucket/key", body=b"x", stream=FakeBody(b"x", chunked=True), sign_body=False
    )
    assert (answer.status, answer.code) == (411, "MissingContentLength")


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 70_000])
def test_bodies_that_trickle_in(driver, size):
    data = bytes(range(256)) * 300
    stream = FakeBody(data[:size], piece=999, taken=False)
    answer = driver.ask("PUT", "/bucket/key", body=data[:size], stream=stream)
    assert answer.status == 200
    assert driver.ask("GET", "/bucket/key").body == data[:size]


def test_put_12_name_7_directory_like_keys_coexist(driver):
    """NAME-8: those that would lead out of a directory are keys like any other."""
    for key in ("a", "a/", "a/b", "a//b", "./a", "../a", "..", "/a", "a b+c%é", "e\u0301"):
        driver.put(key, key.encode())
    for key in ("a", "a/", "a/b"):
        assert driver.ask("GET", f"/bucket/{key}").body == key.encode()
    assert driver.ask("GET", "/bucket//a").body == b"/a"
    assert len(driver.keys()) == 10


@pytest.mark.parametrize(
    ("headers", "before", "status", "code"),
    [
        ({"if-none-match": "*"}, None, 200, None),
        ({"if-none-match": "*"}, b"old", 412, "PreconditionFailed"),
        ({"if-match": "OLD"}, b"old", 200, None),
        ({"if-match": '"OLD"'}, b"old", 200, None),
        ({"if-match": "*"}, b"old", 200, None),
        ({"if-match": '"nope"'}, b"old", 412, "PreconditionFailed"),
        ({"if-match": '"nope"'}, None, 404, "NoSuchKey"),
        ({"if-match": "*"}, None, 404, "NoSuchKey"),
        ({"if-none-match": '"nope"'}, None, 501, "NotImplemented"),
        ({"if-none-match": "*", "if-match": "OLD"}, b"old", 501, "NotImplemented"),
    ],
)
def test_put_8_conditions(driver, headers, before, status, code):
    if before is not None:
        driver.put("key", before)
    etag = hashlib.md5(b"old").hexdigest()
    headers = {name: value.replace("OLD", etag) for name, value in headers.items()}
    answer = driver.ask("PUT", "/bucket/key", headers=headers, body=b"new")
    assert answer.status == status
    if status == 200:
        assert driver.record("key").body.inline == b"new"
        return
    assert answer.code == code
    assert driver.body.reads == 0, "a refusal that needs no body"
    assert [r.body.inline for r in driver.store.objects["bucket"].values()] == (
        [before] if before else []
    )


@pytest.mark.parametrize(
    ("header", "code"),
    [("if-none-match", "PreconditionFailed"), ("if-match", "PreconditionFailed")],
)
def test_put_8_is_decided_at_the_commit(driver, header, code):
    """Somebody else writes the key while the body comes in."""
    value = "*"
    if header == "if-match":
        value = driver.put("key", b"old").headers["etag"]

    def meanwhile():
        record = driver.store.objects["bucket"].get(b"key")
        if record is None:
            other = Driver()
            other.bucket()
            other.put("key", b"theirs")
            record = other.record("key")
        record.etag = "changed"
        driver.store.objects["bucket"][b"key"] = record

    driver.store.before_commit.append(meanwhile)
    answer = driver.ask("PUT", "/bucket/key", headers={header: value}, body=b"mine")
    assert (answer.status, answer.code) == (412, code)
    assert driver.record("key").etag == "changed"


def test_put_9_a_failed_put_leaves_the_old_object(driver):
    driver.put("key", b"old")
    for error in (ConnectionError("commit"), OSError("disk")):
        driver.store.failures = [error]
        assert driver.ask("PUT", "/bucket/key", body=b"new").status == 500
        assert driver.ask("GET", "/bucket/key").body == b"old"


def test_put_5_lock_headers_without_a_locked_bucket(driver):
    headers = {"x-amz-object-lock-legal-hold": "ON"}
    answer = driver.ask("PUT", "/bucket/key", headers=headers, body=b"x")
    assert (answer.status, answer.code) == (400, "InvalidRequest")
    assert answer.xml.findtext("Message") == "Bucket is missing ObjectLockConfiguration"
    assert driver.ask("PUT", "/absent/key", headers=headers, body=b"x").code == "NoSuchBucket"


def test_put_6_the_storage_class_that_there_is_goes_unmentioned(driver):
    driver.put("key", x_amz_storage_class="STANDARD")
    assert "x-amz-storage-class" not in driver.ask("HEAD", "/bucket/key").headers
    assert driver.ask("GET", "/bucket").texts("Contents/StorageClass") == ["STANDARD"]


def test_put_7_the_claim_of_aes256_is_echoed(driver):
    answer = driver.put("key", b"x", **{"x-amz-server-side-encryption": "AES256"})
    assert answer.headers["x-amz-server-side-encryption"] == "AES256"


def test_http_11_request_payer_is_accepted(driver):
    driver.put("key", b"x", **{"x-amz-request-payer": "requester"})


def test_a_presigned_put_with_hoisted_headers(driver):
    client = driver.client()
    url = client.generate_presigned_url(
        "put_object",
        Params={"Bucket": "bucket", "Key": "k", "Metadata": {"a": "b"}, "ContentType": "text/x"},
    )
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    headers = {"content-type": "text/x", "x-amz-meta-a": "b"}
    answer = driver.ask(
        "PUT", parts.path, parts.query, headers=headers, body=b"hello", account=None
    )
    assert answer.status == 200, answer.body
    assert driver.record("k").metadata == {"a": "b"}
    assert driver.record("k").headers["content-type"] == "text/x"


def test_streaming_uploads_of_boto3(driver):
    """aws-chunked with an unsigned trailer is what botocore sends over TLS."""
    client = driver.client()
    client.put_object(Bucket="bucket", Key="k", Body=b"x" * 100_000, ContentEncoding="gzip")
    assert driver.record("k").headers["content-encoding"] == "gzip"
    assert driver.record("k").checksums == {"crc32": one_shot("crc32", b"x" * 100_000)}
    assert client.get_object(Bucket="bucket", Key="k")["Body"].read() == b"x" * 100_000


def test_the_body_stored_is_the_one_the_ingest_returned(driver):
    driver.put("key", b"hello")
    assert driver.record("key").body == body_of(b"hello", ("crc64nvme",))
