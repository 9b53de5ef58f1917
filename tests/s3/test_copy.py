"""CopyObject: COPY-1 to COPY-9."""

from __future__ import annotations

import hashlib

import pytest

from ingot.body.checksums import one_shot, to_text
from ingot.limits import PUT_BYTES_MAX
from ingot.s3.dates import http_date, iso
from tests.s3.driver import OTHER, Driver


@pytest.fixture
def driver():
    made = Driver()
    made.bucket()
    made.bucket("second")
    made.put("a", b"hello", content_type="text/x", **{"x-amz-meta-m": "1"})
    return made


def copy(driver, source="bucket/a", target="/second/b", **headers):
    pairs = {name.replace("_", "-"): value for name, value in headers.items()}
    return driver.ask("PUT", target, headers={"x-amz-copy-source": source, **pairs})


def test_copy_9_is_by_reference_with_a_new_time(driver):
    driver.clock.ms += 5000
    source = driver.record("a")
    answer = copy(driver)
    made = driver.record("b", "second")
    assert answer.status == 200
    assert made.body is source.body, "the body was not taken as it is"
    assert driver.store.pinned == [source.body], "nothing keeps the source's chunks meanwhile"
    assert made.key == b"b" and made.created_ms == driver.clock.ms
    assert answer.text("ETag") == f'"{source.etag}"' == f'"{made.etag}"'
    assert answer.text("LastModified") == iso(driver.clock.ms)
    assert answer.text("ChecksumType") == "FULL_OBJECT" and answer.text("ChecksumCRC64NVME")
    assert made.checksums == source.checksums


def test_copy_2_directives(driver):
    sent = {"x_amz_meta_n": "2", "content_type": "text/y"}
    copy(driver, **sent)
    made = driver.record("b", "second")
    assert (made.headers["content-type"], made.metadata) == ("text/x", {"m": "1"})
    copy(driver, x_amz_metadata_directive="REPLACE", **sent)
    made = driver.record("b", "second")
    assert (made.headers["content-type"], made.metadata) == ("text/y", {"n": "2"})
    copy(driver, x_amz_metadata_directive="REPLACE")
    made = driver.record("b", "second")
    assert (made.headers["content-type"], made.metadata) == ("binary/octet-stream", {})
    for name in ("x_amz_metadata_directive", "x_amz_tagging_directive"):
        assert copy(driver, **{name: "replace"}).code == "InvalidArgument"


def test_copy_3_onto_itself(driver):
    answer = copy(driver, target="/bucket/a")
    assert (answer.status, answer.code) == (400, "InvalidRequest")
    changes = [
        {"x_amz_metadata_directive": "REPLACE"},
        {"x_amz_tagging_directive": "REPLACE"},
        {"x_amz_server_side_encryption": "AES256"},
        {"x_amz_checksum_algorithm": "CRC64NVME"},
        {"x_amz_website_redirect_location": "/elsewhere"},
        {"x_amz_storage_class": "STANDARD"},  # the one that it has: how "aws s3 cp" renews objects
    ]
    for headers in changes:
        assert copy(driver, target="/bucket/a", **headers).status == 200
    assert copy(driver, "bucket/a?versionId=null", "/bucket/a").status == 200


def test_copy_4_tags_and_locks(driver):
    """Tags are copied unless the request brings its own; a lock is not."""

    def tags(key):
        answer = driver.ask("GET", f"/bucket/{key}", "tagging")
        values = answer.texts("TagSet/Tag/Value")
        return list(zip(answer.texts("TagSet/Tag/Key"), values, strict=True))

    driver.put("tagged", b"x", x_amz_tagging="b=2&a=1")
    assert copy(driver, "bucket/tagged", "/bucket/kept", x_amz_tagging="c=3").status == 200
    assert tags("kept") == [("a", "1"), ("b", "2")]
    replaced = {"x_amz_tagging": "c=3", "x_amz_tagging_directive": "REPLACE"}
    assert copy(driver, "bucket/tagged", "/bucket/other", **replaced).status == 200
    assert tags("other") == [("c", "3")]
    assert copy(driver, x_amz_object_lock_legal_hold="ON").code == "InvalidRequest"


def in_parts(driver, name, **kept):
    """The object as an upload of two parts leaves it, which declared a composite checksum."""
    source = driver.record("a")
    source.parts, source.etag, source.composite = [2, 3], "abc-2", True
    sums = one_shot(name, b"he") + one_shot(name, b"llo")
    source.checksums = {name: one_shot(name, sums)}
    source.part_checksums = kept.get("part_checksums", {name: sums})
    return source


@pytest.mark.parametrize("sent", [{}, {"x_amz_checksum_algorithm": "CRC32C"}])
def test_copy_5_a_composite_crc_is_made_whole_from_those_of_the_parts(driver, sent):
    source = in_parts(driver, "crc32c")
    answer = copy(driver, **sent)
    made = driver.record("b", "second")
    assert (made.etag, made.parts, made.composite) == ("abc-2", [2, 3], False)
    assert made.body is source.body, "nothing was read"
    assert made.part_checksums == source.part_checksums
    assert made.checksums == {"crc32c": one_shot("crc32c", b"hello")}
    assert answer.text("ChecksumCRC32C") == to_text(one_shot("crc32c", b"hello"))
    assert answer.text("ChecksumType") == "FULL_OBJECT"
    assert source.composite, "the source is what it was"


@pytest.mark.parametrize(("name", "kept"), [("sha256", {}), ("crc32", {"part_checksums": {}})])
def test_copy_5_others_are_computed(driver, name, kept):
    in_parts(driver, name, **kept)
    answer = copy(driver)
    made = driver.record("b", "second")
    assert (made.parts, made.composite, made.part_checksums) == ([], False, {})
    assert made.checksums == {name: one_shot(name, b"hello")}
    assert answer.text("ETag") == f'"{hashlib.md5(b"hello").hexdigest()}"', "COPY-4"
    assert answer.text("ChecksumType") == "FULL_OBJECT"


def test_copy_4_where_an_object_redirects_to_is_its_own(driver):
    name = "x-amz-website-redirect-location"
    driver.put("a", b"hello", **{name: "/there"})
    assert driver.ask("HEAD", "/bucket/a").headers[name] == "/there"
    for directive in ("COPY", "REPLACE"):
        copy(driver, x_amz_metadata_directive=directive)
        assert name not in driver.ask("HEAD", "/second/b").headers
        copy(driver, x_amz_metadata_directive=directive, **{name: "https://a/b"})
        assert driver.ask("GET", "/second/b").headers[name] == "https://a/b"
    itself = copy(driver, target="/bucket/a", **{name: "/else"})
    assert itself.status == 200, "COPY-3: it changes something"
    assert driver.ask("GET", "/bucket/a").headers[name] == "/else"


@pytest.mark.parametrize("size", [0, 5, 4096, 10_000])
def test_copy_5_a_named_algorithm_is_computed(driver, size):
    data = b"x" * size
    driver.put("a", data)
    answer = copy(driver, x_amz_checksum_algorithm="SHA256")
    made = driver.record("b", "second")
    assert made.checksums == {"sha256": hashlib.sha256(data).digest()}
    assert answer.text("ChecksumSHA256") and answer.text("ChecksumType") == "FULL_OBJECT"
    assert answer.text("ETag") == f'"{hashlib.md5(data).hexdigest()}"'
    assert driver.ask("GET", "/second/b").body == data


def test_copy_5_a_named_algorithm_makes_a_composite_checksum_whole(driver):
    source = driver.record("a")
    source.composite, source.parts, source.etag = True, [2, 3], "abc-2"
    source.part_checksums = {"crc32": b"11112222"}
    copy(driver, x_amz_checksum_algorithm="CRC64NVME")
    made = driver.record("b", "second")
    assert (made.composite, made.parts, made.part_checksums) == (False, [], {})
    assert made.checksums == {"crc64nvme": one_shot("crc64nvme", b"hello")}


def test_copy_5_unknown_algorithms(driver):
    assert copy(driver, x_amz_checksum_algorithm="ADLER").code == "InvalidRequest"


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("if-match", "ETAG", 200),
        ("if-match", "x", 412),
        ("if-none-match", "x", 200),
        ("if-none-match", "ETAG", 412),
        ("if-modified-since", http_date(0), 200),
        ("if-modified-since", "SAME", 412),
        ("if-unmodified-since", "SAME", 200),
        ("if-unmodified-since", http_date(0), 412),
    ],
)
def test_copy_6_every_failure_is_412(driver, name, value, status):
    source = driver.record("a")
    value = value.replace("ETAG", source.etag).replace("SAME", http_date(source.created_ms))
    answer = copy(driver, **{"x-amz-copy-source-" + name: value})
    assert answer.status == status
    assert (driver.keys("second") == [b"b"]) == (status == 200)
    if status == 412:
        assert answer.xml.findtext("Condition").lower() == "x-amz-copy-source-" + name


def test_copy_7_errors(driver):
    assert copy(driver, "absent/a").xml.findtext("BucketName") == "absent"
    missing = copy(driver, "bucket/none")
    assert (missing.code, missing.xml.findtext("Key")) == ("NoSuchKey", "none")
    assert copy(driver, target="/absent/b").code == "NoSuchBucket"
    assert copy(driver, "bucket/a?versionId=bad_id").code == "InvalidArgument"
    assert copy(driver, "bucket/a?versionId=01G65Z755AFWAKHE12NY0CQ9FH").code == "NoSuchVersion"
    driver.record("a").body.size = PUT_BYTES_MAX + 1
    large = copy(driver)
    assert large.code == "InvalidRequest" and "5368709120" in large.xml.findtext("Message")


def test_copy_7_rights_on_both_sides(driver):
    driver.bucket("theirs", OTHER)
    assert copy(driver, "theirs/a").code == "AccessDenied"
    assert copy(driver, target="/theirs/b").code == "AccessDenied"
    name = "x-amz-source-expected-bucket-owner"
    assert copy(driver, **{name: OTHER.id}).code == "AccessDenied"
    assert driver.keys("second") == driver.keys("theirs") == []


def test_copy_7_conditions_of_the_target(driver):
    assert copy(driver, if_none_match="*").status == 200
    assert copy(driver, if_none_match="*").code == "PreconditionFailed"
    assert copy(driver, if_match="x").code == "PreconditionFailed"
    assert copy(driver, target="/second/new", if_match="x").code == "NoSuchKey"
    driver.store.before_commit.append(
        lambda: driver.store.objects["second"].update({b"race": driver.record("a")})
    )
    assert copy(driver, target="/second/race", if_none_match="*").code == "PreconditionFailed"


def test_with_boto3(driver):
    client = driver.client()
    made = client.copy_object(
        Bucket="second", Key="c", CopySource={"Bucket": "bucket", "Key": "a"}
    )["CopyObjectResult"]
    assert made["ETag"] == f'"{driver.record("a").etag}"' and made["LastModified"]
