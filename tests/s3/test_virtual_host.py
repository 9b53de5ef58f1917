"""Buckets in the host's name: the same as in the path, and nothing else is taken for one."""

from __future__ import annotations

import pytest

from ingot.messages import Request
from ingot.s3.errors import S3Error
from ingot.s3.virtual_host import VirtualHosts
from tests.s3.driver import HOST, OTHER, OWNER, REGION, Driver
from tests.s3.fake_store import FakeBody
from tests.support import form

HOSTS = VirtualHosts("S3.test")


def target_of(host: str, target: bytes = b"/k?acl") -> bytes | None:
    index = {b"host": host.encode("latin-1")}
    return HOSTS.path_style(Request("GET", target, [], index, FakeBody(b""), "-", False))


@pytest.fixture
def driver():
    made = Driver(virtual_host_domain=HOST)
    made.bucket()
    return made


@pytest.mark.parametrize(
    "host",
    [
        *("bucket.s3.test", "bucket.s3.test:9000", "BUCKET.S3.Test", "bucket.s3.test.:80"),
        "bucket.s3.test:",
    ],
)
def test_hosts_that_name_a_bucket(host):
    assert target_of(host) == b"/bucket/k?acl"
    assert target_of(host, b"/") == b"/bucket/"
    assert target_of(host, b"//k") == b"/bucket//k"
    assert target_of(host, b"*") is None


@pytest.mark.parametrize(
    "host",
    [
        *("s3.test", "s3.test:9000", "127.0.0.1:9000", "[::1]:9000", "", ".s3.test", "s3.test.org"),
        *("bucket.s3.test.org", "buckets3.test", "bucket.s3.test:x", "elsewhere"),
    ],
)
def test_hosts_that_name_none(host):
    assert target_of(host) is None


@pytest.mark.parametrize("name", ["a", "a_b", "bucket/k", "%62ucket", "a..b", "b\xe9cket", "x?y"])
def test_names_that_no_bucket_may_have(name):
    with pytest.raises(S3Error) as caught:
        target_of(f"{name}.s3.test")
    assert caught.value.code == "InvalidBucketName"


def test_a_name_with_dots_is_one_bucket():
    assert target_of("my.bucket.s3.test") == b"/my.bucket/k?acl"


def test_heads_of_such_hosts_stay_out_of_the_express_lane():
    seen = []
    lane = HOSTS.beside(lambda head, exchange, now_ms: seen.append(head) or True)
    for host in (b"bucket.s3.test", b"bucket.S3.TEST:9000"):
        assert not lane(b"GET /bucket/k HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", None, 0)
    assert not seen
    assert lane(b"GET /bucket/k HTTP/1.1\r\nHost: s3.test\r\n\r\n", None, 0)


def test_both_styles_are_one(driver):
    there = {"host": f"bucket.{HOST}"}
    assert driver.ask("PUT", "/a/k", "", there, b"value").status == 200
    assert driver.keys() == [b"a/k"]
    assert driver.ask("GET", "/bucket/a/k").body == b"value"
    assert driver.ask("GET", "/a/k", "", there).body == b"value"
    assert driver.ask("GET", "/", "prefix=a", there).texts("Contents/Key") == ["a/k"]
    assert driver.ask("HEAD", "/", "", there).status == 200
    assert driver.ask("PUT", "/", "", {"host": f"second.{HOST}"}).status == 200
    assert driver.ask("GET", "/").texts("Buckets/Bucket/Name") == ["bucket", "second"]
    missing = driver.ask("GET", "/bucket/a/k", "", there)  # a key that begins with "bucket/"
    assert (missing.code, missing.xml.findtext("Resource")) == ("NoSuchKey", "/bucket/a/k")
    assert driver.entries[-1].bucket == "bucket" and driver.entries[-1].key == b"bucket/a/k"
    assert driver.ask("GET", "/", "", {"host": f"Bad_.{HOST}"}).code == "InvalidBucketName"


def test_whose_bucket_it_is(driver):
    there = {"host": f"bucket.{HOST}"}
    assert driver.ask("GET", "/k", "", there, account=OTHER).code == "AccessDenied"
    assert driver.ask("GET", "/k", "", there, account=None).code == "AccessDenied"


def test_without_the_setting_a_host_says_nothing():
    plain = Driver()
    plain.bucket()
    assert plain.ask("GET", "/bucket", "", {"host": f"other.{HOST}"}).text("Name") == "bucket"


def test_places_are_told_in_the_style_that_was_used(driver):
    there = {"host": f"bucket.{HOST}"}
    kind = {**there, "content-type": form.TYPE}
    fields = {"key": "a b", "success_action_status": "201"}
    signed = form.sign_v2(form.policy(fields), OWNER.access_key, OWNER.secret_key)
    answer = driver.ask("POST", "/", "", kind, form.encode({**fields, **signed}), None)
    assert answer.status == 201
    assert answer.headers["location"] == f"http://bucket.{HOST}/a%20b"


def test_boto3_in_virtual_host_style(driver):
    client = driver.client(style="virtual", signature_version="s3v4")
    client.create_bucket(Bucket="other", CreateBucketConfiguration={"LocationConstraint": REGION})
    client.put_object(Bucket="bucket", Key="a/ü +", Body=b"value", Metadata={"a": "b"})
    assert driver.keys() == ["a/ü +".encode()]
    assert client.get_object(Bucket="bucket", Key="a/ü +")["Body"].read() == b"value"
    assert client.list_objects_v2(Bucket="bucket")["KeyCount"] == 1
    client.copy_object(Bucket="other", Key="/b", CopySource={"Bucket": "bucket", "Key": "a/ü +"})
    assert driver.keys("other") == [b"/b"]
    url = client.generate_presigned_url("get_object", {"Bucket": "other", "Key": "/b"})
    assert url.startswith(f"http://other.{HOST}//b?")
    target, there = url.removeprefix(f"http://other.{HOST}"), {"host": f"other.{HOST}"}
    path, _, query = target.partition("?")
    assert driver.ask("GET", path, query, there, account=None).body == b"value"
