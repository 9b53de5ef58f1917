"""GetObject and HeadObject: GET-1 to GET-10, SUM-5, HTTP-3."""

from __future__ import annotations

import pytest

from ingot.s3.dates import http_date
from tests.s3.driver import OTHER, Driver
from tests.s3.fake_store import FakeBody

LARGE = bytes(range(256)) * 40  # does not fit into a record
SMALL = b"0123456789"


@pytest.fixture
def driver():
    made = Driver()
    made.bucket()
    made.put("small", SMALL, content_type="text/x", **{"x-amz-meta-a": "1"})
    made.put("large", LARGE)
    made.put("empty", b"")
    return made


def both(driver, path, query="", headers=None):
    """GET and HEAD, which must agree in everything but the body."""
    got, head = driver.ask("GET", path, query, headers), driver.ask("HEAD", path, query, headers)
    per_request = ("x-amz-request-id",)
    assert got.status == head.status
    assert head.body == b""
    if got.status < 300:
        assert got.length == head.length == len(got.body)
        assert {k: v for k, v in got.headers.items() if k not in per_request} == {
            k: v for k, v in head.headers.items() if k not in per_request
        }
    return got


def test_get_1_headers(driver):
    answer = both(driver, "/bucket/small")
    assert (answer.status, answer.body) == (200, SMALL)
    headers = {
        k: v for k, v in answer.headers.items() if k not in ("x-amz-request-id", "x-amz-id-2")
    }
    assert headers == {
        "etag": '"781e5e245d69b566979b86e28d23f2c7"',
        "last-modified": http_date(driver.record("small").created_ms),
        "accept-ranges": "bytes",
        "content-type": "text/x",
        "x-amz-meta-a": "1",
    }


def test_large_bodies_are_streamed(driver):
    answer = both(driver, "/bucket/large")
    assert answer.body == LARGE and not isinstance(answer.response.body, bytes)


@pytest.mark.parametrize(("key", "data"), [("small", SMALL), ("large", LARGE)])
@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=2-5", 2, 6),
        ("bytes=5-", 5, None),
        ("bytes=-3", -3, None),
        ("bytes=0-52428799", 0, None),
        ("bytes=-99999", 0, None),
    ],
)
def test_get_3_ranges(driver, key, data, header, start, stop):
    """GET-4: a HEAD is answered as the GET is, and the ETag is that of the whole."""
    answer = both(driver, f"/bucket/{key}", headers={"range": header})
    assert (answer.status, answer.body) == (206, data[start:stop])
    first = start if start >= 0 else len(data) + start
    last = first + len(answer.body) - 1
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(data)}"
    assert answer.headers["etag"] == f'"{driver.record(key).etag}"'


@pytest.mark.parametrize("header", ["bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=0-1,3-4"])
def test_get_3_nonsense_is_ignored(driver, header):
    answer = both(driver, "/bucket/small", headers={"range": header})
    assert (answer.status, answer.body) == (200, SMALL)
    assert "content-range" not in answer.headers


def test_a_download_goes_on_with_the_same_object_only(driver):
    answer = both(driver, "/bucket/small")
    etag, date = answer.headers["etag"], answer.headers["last-modified"]
    for same in (etag, etag.strip('"'), date):
        headers = {"range": "bytes=1-2", "if-range": same}
        answer = both(driver, "/bucket/small", headers=headers)
        assert (answer.status, answer.body) == (206, SMALL[1:3]), same
    driver.clock.ms += 2000
    driver.put("small", SMALL[::-1])
    for old in (etag, etag.strip('"'), date, "W/" + etag, '"x"', "*", "Sat, 99 Xyz 00:00:00"):
        headers = {"range": "bytes=1-2", "if-range": old}
        answer = both(driver, "/bucket/small", headers=headers)
        assert (answer.status, answer.body) == (200, SMALL[::-1]), old


@pytest.mark.parametrize(
    ("key", "header"), [("small", "bytes=10-"), ("small", "bytes=-0"), ("empty", "bytes=0-")]
)
def test_get_3_unsatisfiable(driver, key, header):
    answer = both(driver, f"/bucket/{key}", headers={"range": header})
    assert (answer.status, answer.code) == (416, "InvalidRange")
    size = len(driver.record(key).body.inline)
    assert answer.headers["content-range"] == f"bytes */{size}"


def test_get_3_suffix_of_an_empty_object(driver):
    assert both(driver, "/bucket/empty", headers={"range": "bytes=-5"}).status == 200


def test_sum_5_checksums_only_when_asked_and_never_on_a_range(driver):
    plain = both(driver, "/bucket/small")
    assert not any(name.startswith("x-amz-checksum") for name in plain.headers)
    for mode in ("ENABLED", "enabled"):
        asked = both(driver, "/bucket/small", headers={"x-amz-checksum-mode": mode})
        assert asked.headers["x-amz-checksum-crc64nvme"]
        assert asked.headers["x-amz-checksum-type"] == "FULL_OBJECT"
    headers = {"x-amz-checksum-mode": "ENABLED"}
    for header in ("bytes=0-1", "bytes=0-9"):
        ranged = both(driver, "/bucket/small", headers={"range": header, **headers})
        assert ranged.status == 206
        assert not any(name.startswith("x-amz-checksum") for name in ranged.headers)


def test_get_5_part_numbers_of_a_plain_object(driver):
    answer = both(driver, "/bucket/small", "partNumber=1")
    assert (answer.status, answer.body) == (206, SMALL)
    assert answer.headers["content-range"] == "bytes 0-9/10"
    assert "x-amz-mp-parts-count" not in answer.headers
    empty = both(driver, "/bucket/empty", "partNumber=1")
    assert empty.status == 200 and "content-range" not in empty.headers
    assert driver.ask("GET", "/bucket/small", "partNumber=2").code == "InvalidPartNumber"
    assert driver.ask("GET", "/bucket/small", "partNumber=0").code == "InvalidArgument"
    absent = both(driver, "/bucket/none", "partNumber=0")
    assert (absent.status, absent.code) == (400, "InvalidArgument"), "whatever there is"
    ranged = driver.ask("GET", "/bucket/small", "partNumber=1", {"range": "bytes=0-1"})
    assert (ranged.status, ranged.code) == (400, "InvalidRequest")


def test_get_5_part_numbers_of_an_object_made_of_parts(driver):
    driver.record("large").parts = [4000, 6240]
    answer = both(driver, "/bucket/large", "partNumber=2")
    assert (answer.status, answer.body) == (206, LARGE[4000:])
    assert answer.headers["x-amz-mp-parts-count"] == "2"


def test_get_6_not_modified(driver):
    record = driver.record("small")
    record.headers["cache-control"] = "max-age=5"
    answer = both(driver, "/bucket/small", headers={"if-none-match": f'"{record.etag}"'})
    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["etag"] == f'"{record.etag}"'
    assert answer.headers["last-modified"] == http_date(record.created_ms)
    assert answer.headers["cache-control"] == "max-age=5"
    assert "content-type" not in answer.headers


def test_get_6_precondition_failed(driver):
    answer = driver.ask("GET", "/bucket/small", headers={"if-match": '"x"'})
    assert (answer.status, answer.code) == (412, "PreconditionFailed")
    assert answer.xml.findtext("Condition") == "If-Match"
    assert driver.ask("HEAD", "/bucket/small", headers={"if-match": '"x"'}).status == 412


def test_get_7_overrides(driver):
    query = "response-content-type=a%2Fb&response-cache-control=no-store&response-expires=x%20y"
    for headers in (None, {"range": "bytes=0-1"}):
        answer = both(driver, "/bucket/small", query, headers)
        assert answer.headers["content-type"] == "a/b"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["expires"] == "x y"
    injected = driver.ask("GET", "/bucket/small", "response-content-type=a%0D%0ASet-Cookie%3A%20x")
    assert (injected.status, injected.code) == (400, "InvalidArgument")


def test_get_8_missing_objects_buckets_and_versions(driver):
    missing = driver.ask("GET", "/bucket/none")
    assert (missing.status, missing.code, missing.xml.findtext("Key")) == (404, "NoSuchKey", "none")
    assert driver.ask("HEAD", "/bucket/none").headers["x-amz-delete-marker"] == "false"
    assert driver.ask("GET", "/absent/none").code == "NoSuchBucket"
    assert driver.ask("GET", "/bucket/small", "versionId=null").body == SMALL
    assert driver.ask("GET", "/bucket/none", "versionId=bad_id").code == "InvalidArgument"
    assert driver.ask("GET", "/bucket/small", "versionId=").code == "InvalidArgument"
    assert driver.ask("GET", "/absent/small", "versionId=bad_id").code == "NoSuchBucket"
    absent = driver.ask("GET", "/bucket/small", "versionId=01G65Z755AFWAKHE12NY0CQ9FH")
    assert (absent.status, absent.code) == (404, "NoSuchVersion")


def test_put_3_metadata_survives_byte_for_byte(driver):
    sent = {"x-amz-meta-a": "\u00e9\u2713", "x-amz-meta-b": "", "x-amz-meta-C": "=?UTF-8?B?4pyT?="}
    driver.put("meta", b"x", **sent)
    answer = both(driver, "/bucket/meta")
    assert answer.headers["x-amz-meta-a"].encode("latin-1") == "\u00e9\u2713".encode()
    assert answer.headers["x-amz-meta-b"] == ""
    assert answer.headers["x-amz-meta-c"] == "=?UTF-8?B?4pyT?="


def test_repeated_metadata_headers_are_joined_in_order(driver):
    from ingot.messages import Request
    from tests.s3.driver import OWNER, REGION, _sign

    signed = _sign(
        *("PUT", "/bucket/k"),
        {"host": "s3.test", "x-amz-meta-a": "1,2", "x-amz-content-sha256": "UNSIGNED-PAYLOAD"},
        *(OWNER, REGION),
    )
    pairs = [(k.lower().encode(), v.encode()) for k, v in signed.items() if k != "x-amz-meta-a"]
    pairs += [(b"x-amz-meta-a", b" 1 "), (b"x-amz-meta-a", b"2"), (b"content-length", b"1")]
    answer = driver.send(Request("PUT", b"/bucket/k", pairs, {}, FakeBody(b"x"), "-", False))
    assert answer.status == 200, answer.body
    assert driver.record("k").metadata == {"a": "1,2"}


def test_presigned_get(driver):
    from urllib.parse import urlsplit

    url = driver.client().generate_presigned_url(
        "get_object",
        Params={"Bucket": "bucket", "Key": "small", "ResponseContentType": "x/y"},
    )
    parts = urlsplit(url)
    answer = driver.ask("GET", parts.path, parts.query, account=None)
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, SMALL, "x/y")
    tampered = driver.ask("GET", parts.path, parts.query + "&versionId=null", account=None)
    assert tampered.code == "SignatureDoesNotMatch"


def test_a_get_by_another_account(driver):
    assert driver.ask("GET", "/bucket/small", account=OTHER).code == "AccessDenied"


def test_boto3_reads_what_it_wrote(driver):
    client = driver.client()
    client.put_object(Bucket="bucket", Key="k", Body=b"hello", Metadata={"Name": "v"})
    got = client.get_object(Bucket="bucket", Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == b"hello"
    assert got["Metadata"] == {"name": "v"} and got["ChecksumCRC32"]
    assert client.head_object(Bucket="bucket", Key="k")["ContentLength"] == 5
    with pytest.raises(client.exceptions.NoSuchKey):
        client.get_object(Bucket="bucket", Key="none")


def test_a_refusal_is_told_to_whoever_debugs(driver, caplog):
    caplog.set_level("DEBUG", "ingot.s3")
    answer = driver.ask("GET", '/bucket/ab"sent', "response-content-type=secret")
    told = answer.headers["x-amz-request-id"]
    assert f"request {told}: GET '/bucket/ab\"sent': 404 NoSuchKey" in caplog.text
    assert "secret" not in caplog.text
    assert driver.ask("GET", "/bucket/small").status == 200
    assert caplog.text.count("request ") == 1
