"""Multipart uploads on the wire: MPU-1 to MPU-14 and GET-5."""

from __future__ import annotations

import base64
import hashlib
import re
from binascii import b2a_base64
from urllib.parse import quote

import pytest

from ingot.body.checksums import SIZES, one_shot, to_text
from ingot.bucket.uploads import Uploads
from ingot.limits import PARTS_MAX, PUT_BYTES_MAX
from ingot.s3.dates import http_date, iso
from ingot.s3.errors import ERRORS
from tests.body.support import content
from tests.s3.driver import OTHER, OWNER, THIRD
from tests.s3.store_driver import StoreDriver
from tests.s3.test_policy import allow, set_policy

MIB = 1 << 20
PART = content(5 * MIB)  # the least that a part before the last one has
TAIL = b"the tail"
MODE = {"x-amz-checksum-mode": "ENABLED"}


@pytest.fixture
def driver():
    with StoreDriver() as made:
        made.bucket()
        yield made


def create(driver, key="key", bucket="bucket", **headers):
    pairs = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = driver.ask("POST", f"/{bucket}/{quote(key)}", "uploads", pairs)
    assert answer.status == 200, answer.body
    # Not by an XML parser: some keys hold what XML cannot carry.
    found = re.search(rb"<UploadId>(.+)</UploadId>", answer.body)
    return found[1].decode()


def part(driver, upload, number, data, key="key", **headers):
    pairs = {name.replace("_", "-"): value for name, value in headers.items()}
    query = f"partNumber={number}&uploadId={upload}"
    return driver.ask("PUT", f"/bucket/{quote(key)}", query, pairs, data)


def etag(data):
    return hashlib.md5(data).hexdigest()


def listed(*parts):
    """The document of a Complete; ``parts`` are (number, etag) or (number, etag, more elements)."""
    entries = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag>{''.join(more)}</Part>"
        for number, tag, *more in parts
    )
    return f"<CompleteMultipartUpload>{entries}</CompleteMultipartUpload>".encode()


def complete(driver, upload, *parts, key="key", body=None, **headers):
    pairs = {name.replace("_", "-"): value for name, value in headers.items()}
    body = listed(*parts) if body is None else body
    return driver.ask("POST", f"/bucket/{quote(key)}", f"uploadId={upload}", pairs, body)


def abort(driver, upload, key="key", **headers):
    pairs = {name.replace("_", "-"): value for name, value in headers.items()}
    return driver.ask("DELETE", f"/bucket/{quote(key)}", f"uploadId={upload}", pairs)


def parts_of(driver, upload, query="", key="key"):
    return driver.ask("GET", f"/bucket/{quote(key)}", f"uploadId={upload}{query}")


def whole_etag(*pieces):
    digests = b"".join(hashlib.md5(piece).digest() for piece in pieces)
    return f"{hashlib.md5(digests).hexdigest()}-{len(pieces)}"


# -- MPU-1, MPU-2: creation ---------------------------------------------------------------------


def test_mpu_1_create(driver):
    answer = driver.ask("POST", "/bucket/a%2Fb%26c", "uploads=")
    assert answer.xml.tag.endswith("}InitiateMultipartUploadResult")
    assert (answer.text("Bucket"), answer.text("Key")) == ("bucket", "a/b&c")
    upload = answer.text("UploadId")
    assert quote(upload, safe="") == upload
    assert "x-amz-checksum-algorithm" not in answer.headers
    assert len({create(driver) for _ in range(50)}) == 50


def test_mpu_1_where_the_object_redirects_to(driver):
    upload = create(driver, x_amz_website_redirect_location="/there")
    part(driver, upload, 1, TAIL)
    assert complete(driver, upload, (1, etag(TAIL))).status == 200
    found = driver.ask("HEAD", "/bucket/key").headers
    assert found["x-amz-website-redirect-location"] == "/there"


def test_mpu_1_what_is_said_at_creation_is_the_objects(driver):
    sent = {"content_type": "text/x", "cache_control": "no-store", "x_amz_meta_a": "1"}
    upload = create(driver, content_encoding="gzip,aws-chunked", **sent)
    part(driver, upload, 1, TAIL, content_type="ignored/x", x_amz_meta_b="2")
    assert complete(driver, upload, (1, etag(TAIL)), content_type="ignored/x").status == 200
    head = driver.ask("HEAD", "/bucket/key")
    assert head.headers["content-type"] == "text/x"
    assert head.headers["cache-control"] == "no-store"
    assert head.headers["content-encoding"] == "gzip"
    assert head.headers["x-amz-meta-a"] == "1" and "x-amz-meta-b" not in head.headers


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x-amz-tagging": "aws:a=b"}, "InvalidTag"),
        ({"x-amz-object-lock-legal-hold": "ON"}, "InvalidRequest"),
        ({"x-amz-storage-class": "GLACIER"}, "InvalidStorageClass"),
        ({"x-amz-server-side-encryption": "aws:kms"}, "NotImplemented"),
        ({"x-amz-meta-a": "x" * 2100}, "MetadataTooLarge"),
        ({"x-amz-acl": "public-read"}, "AccessControlListNotSupported"),
    ],
)
def test_mpu_1_what_cannot_be_kept_is_refused_at_creation(driver, headers, code):
    assert driver.ask("POST", "/bucket/key", "uploads", headers).code == code


MATRIX = {
    "CRC32": ("COMPOSITE", "FULL_OBJECT"),
    "CRC32C": ("COMPOSITE", "FULL_OBJECT"),
    "CRC64NVME": ("FULL_OBJECT",),
    "SHA1": ("COMPOSITE",),
    "SHA256": ("COMPOSITE",),
}


@pytest.mark.parametrize("algorithm", MATRIX)
@pytest.mark.parametrize("kind", ["", "COMPOSITE", "FULL_OBJECT"])
def test_mpu_2_the_checksum_matrix(driver, algorithm, kind):
    headers = {"x-amz-checksum-algorithm": algorithm}
    if kind:
        headers["x-amz-checksum-type"] = kind
    answer = driver.ask("POST", "/bucket/key", "uploads", headers)
    if kind and kind not in MATRIX[algorithm]:
        assert (answer.status, answer.code) == (400, "InvalidRequest")
        assert answer.xml.findtext("Message") == (
            f"The {kind} checksum type cannot be used with the {algorithm.lower()} checksum "
            "algorithm."
        )
        return
    assert answer.headers["x-amz-checksum-algorithm"] == algorithm
    assert answer.headers["x-amz-checksum-type"] == (kind or MATRIX[algorithm][0])


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"x-amz-checksum-type": "COMPOSITE"}, "can only be used with"),
        ({"x-amz-checksum-type": "HALF"}, "x-amz-checksum-type header is invalid"),
        ({"x-amz-checksum-algorithm": "ADLER"}, "algorithm provided is unsupported"),
    ],
)
def test_mpu_2_nonsense(driver, headers, text):
    answer = driver.ask("POST", "/bucket/key", "uploads", headers)
    assert (answer.status, answer.code) == (400, "InvalidRequest")
    assert text in answer.xml.findtext("Message")


# -- MPU-3: parts -------------------------------------------------------------------------------


def test_mpu_3_a_part(driver):
    upload = create(driver)
    answer = part(driver, upload, 1, TAIL)
    assert answer.status == 200
    assert answer.headers["etag"] == f'"{etag(TAIL)}"'
    assert answer.headers["x-amz-checksum-crc64nvme"] == to_text(one_shot("crc64nvme", TAIL))


@pytest.mark.parametrize("number", ["0", "10001", "-1", "x", "", "1.5", "99999999999"])
def test_mpu_3_part_numbers(driver, number):
    upload = create(driver)
    answer = part(driver, upload, number, TAIL)
    assert (answer.status, answer.code) == (400, "InvalidArgument")
    assert answer.xml.findtext("ArgumentName") == "partNumber"
    assert driver.body.reads == 0


def test_mpu_3_the_last_part_number(driver):
    upload = create(driver)
    assert part(driver, upload, PARTS_MAX, TAIL).status == 200
    assert complete(driver, upload, (PARTS_MAX, etag(TAIL))).status == 200


def test_mpu_3_unknown_uploads_and_those_of_others(driver):
    upload = create(driver)
    driver.bucket("second")
    for path, name in (
        ("/bucket/other", upload),
        ("/second/key", upload),
        ("/bucket/key", "nonsense"),
        ("/bucket/key", "%00%FF"),
        ("/bucket/key", ""),
        ("/bucket/key", upload + "0"),
        ("/bucket/key", "A" * 5000),
    ):
        for method, query in (
            ("PUT", f"partNumber=1&uploadId={name}"),
            ("GET", f"uploadId={name}"),
            ("DELETE", f"uploadId={name}"),
        ):
            answer = driver.ask(method, path, query, body=TAIL if method == "PUT" else b"")
            assert (answer.status, answer.code) == (404, "NoSuchUpload"), (method, path, name)
            assert driver.body.reads == 0
        document = listed((1, etag(TAIL)))
        answer = driver.ask("POST", path, f"uploadId={name}", body=document)
        assert (answer.status, answer.code) == (404, "NoSuchUpload")
    assert answer.xml.findtext("Message") == ERRORS["NoSuchUpload"][1]


def test_mpu_3_a_part_again_replaces_it(driver):
    upload = create(driver)
    for data in (b"one", b"two"):
        part(driver, upload, 1, data)
    assert complete(driver, upload, (1, etag(b"one"))).code == "InvalidPart"
    assert complete(driver, upload, (1, etag(b"two"))).status == 200
    assert driver.ask("GET", "/bucket/key").body == b"two"


@pytest.mark.parametrize("name", SIZES)
def test_mpu_3_checksums_of_parts(driver, name):
    upload = create(driver, x_amz_checksum_algorithm=name.upper())
    header = f"x-amz-checksum-{name}"
    value = to_text(one_shot(name, TAIL))
    answer = part(driver, upload, 1, TAIL, **{header: value})
    assert answer.headers[header] == value
    wrong = part(driver, upload, 1, TAIL + b"x", **{header: value})
    assert (wrong.status, wrong.code) == (400, "BadDigest")
    missing = part(driver, upload, 2, TAIL)
    if name == "crc64nvme":
        assert missing.headers[header] == value, "what the client leaves out is computed"
    else:
        assert (missing.status, missing.code) == (400, "InvalidRequest")
        assert missing.xml.findtext("Message") == (
            f"Checksum Type mismatch occurred, expected checksum Type: {name}, actual checksum "
            "Type: null"
        )
    other = "sha1" if name != "sha1" else "crc32"
    answer = part(driver, upload, 2, TAIL, **{f"x-amz-checksum-{other}": "x"})
    assert answer.code == "InvalidRequest"
    right = to_text(one_shot(other, TAIL))
    answer = part(driver, upload, 2, TAIL, **{f"x-amz-checksum-{other}": right})
    assert (answer.status, answer.code) == (400, "InvalidRequest")
    assert f"actual checksum Type: {other}" in answer.xml.findtext("Message")


def test_mpu_3_any_checksum_where_none_was_declared(driver):
    """Newer SDKs send one with every part and declare none."""
    upload = create(driver)
    value = to_text(one_shot("crc32", TAIL))
    answer = part(driver, upload, 1, TAIL, **{"x-amz-checksum-crc32": value})
    assert answer.headers["x-amz-checksum-crc32"] == value
    more = f"<ChecksumCRC32>{value}</ChecksumCRC32>"
    done = complete(driver, upload, (1, etag(TAIL), more))
    assert done.text("ChecksumCRC64NVME") == to_text(one_shot("crc64nvme", TAIL))
    assert done.text("ChecksumType") == "FULL_OBJECT"


def test_mpu_3_digests_of_a_part(driver):
    upload = create(driver)
    md5 = base64.b64encode(hashlib.md5(TAIL).digest()).decode()
    assert part(driver, upload, 1, TAIL, content_md5=md5).status == 200
    wrong = part(driver, upload, 1, b"else", content_md5=md5)
    assert (wrong.status, wrong.code) == (400, "BadDigest")
    wrong = part(driver, upload, 1, b"else", x_amz_content_sha256=hashlib.sha256(b"").hexdigest())
    assert wrong.code == "XAmzContentSHA256Mismatch"
    assert parts_of(driver, upload).texts("Part/ETag") == [f'"{etag(TAIL)}"']


def test_mpu_3_a_part_in_chunks_with_a_trailer(driver):
    """aws-chunked with a trailer: what SDKs send over TLS."""
    upload = create(driver, x_amz_checksum_algorithm="CRC32")
    value = to_text(one_shot("crc32", TAIL))
    framed = b"%x\r\n%b\r\n0\r\nx-amz-checksum-crc32:%b\r\n\r\n" % (
        len(TAIL),
        TAIL,
        value.encode(),
    )
    headers = {
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-decoded-content-length": str(len(TAIL)),
        "x-amz-trailer": "x-amz-checksum-crc32",
        "content-encoding": "aws-chunked",
    }
    answer = part(driver, upload, 1, framed, **headers)
    assert answer.headers["x-amz-checksum-crc32"] == value
    assert answer.headers["etag"] == f'"{etag(TAIL)}"'


def test_mpu_3_customer_keys_are_never_dropped(driver):
    upload = create(driver)
    name = "x-amz-server-side-encryption-customer-algorithm"
    assert part(driver, upload, 1, TAIL, **{name: "AES256"}).code == "NotImplemented"


def test_rights(driver):
    upload = create(driver)
    query = f"uploadId={upload}"
    for method, path, asked in (
        ("POST", "/bucket/key", "uploads"),
        ("PUT", "/bucket/key", "partNumber=1&" + query),
        ("POST", "/bucket/key", query),
        ("DELETE", "/bucket/key", query),
        ("GET", "/bucket/key", query),
        ("GET", "/bucket", "uploads"),
    ):
        for account in (OTHER, None):
            answer = driver.ask(method, path, asked, account=account)
            assert (answer.status, answer.code) == (403, "AccessDenied")
        wrong = driver.ask(method, path, asked, {"x-amz-expected-bucket-owner": OTHER.id})
        assert wrong.code == "AccessDenied"
        missing = driver.ask(method, path.replace("bucket", "absent"), asked)
        assert missing.code == "NoSuchBucket"
    assert parts_of(driver, upload).status == 200


def test_who_began_an_upload_may_look_at_it_and_end_it(driver):
    """Else the failed transfers of whoever may only write would leave parts for ever."""
    set_policy(driver, allow("PutObject", principal={"AWS": OTHER.id}))
    begun = [
        driver.ask("POST", "/bucket/key", "uploads", account=OTHER).text("UploadId")
        for _ in range(2)
    ]
    theirs, later = [f"uploadId={upload}" for upload in begun]
    mine = f"uploadId={create(driver)}"
    query = "partNumber=1&" + theirs
    assert driver.ask("PUT", "/bucket/key", query, body=TAIL, account=OTHER).status == 200
    for asked in (mine, "uploadId=nonsense", theirs):
        for method in ("GET", "DELETE"):
            for account in (OTHER, THIRD, None):
                if (asked, account) != (theirs, OTHER):
                    answer = driver.ask(method, "/bucket/key", asked, account=account)
                    assert answer.code == "AccessDenied", (method, asked)
    listing = driver.ask("GET", "/bucket/key", theirs, account=OTHER)
    assert listing.texts("Part/PartNumber") == ["1"]
    assert driver.ask("DELETE", "/bucket/key", theirs, account=OTHER).status == 204
    assert driver.ask("GET", "/bucket/key", theirs).code == "NoSuchUpload"
    set_policy(driver, allow("AbortMultipartUpload", "ListMultipartUploadParts", effect="Deny"))
    for method in ("GET", "DELETE"):
        for account in (OTHER, OWNER):
            answer = driver.ask(method, "/bucket/key", later, account=account)
            assert answer.code == "AccessDenied"


def test_routing_1_5(driver):
    upload = create(driver)
    answer = driver.ask("PUT", "/bucket/key", f"uploadId={upload}")
    assert (answer.status, answer.code) == (405, "MethodNotAllowed")
    assert answer.xml.findtext("ResourceType") == "UPLOAD"
    assert answer.headers["allow"] == "GET, POST, DELETE"
    assert driver.ask("PUT", "/bucket/key", "partNumber=1").code == "InvalidArgument"
    assert driver.ask("GET", "/bucket/key", "uploads").code == "InvalidRequest"
    assert driver.keys() == [], "it fell through to PutObject"


# -- MPU-4: copied parts ------------------------------------------------------------------------


def copy_part(driver, upload, number=1, source="bucket/source", **headers):
    pairs = {name.replace("_", "-"): value for name, value in headers.items()}
    query = f"partNumber={number}&uploadId={upload}"
    return driver.ask("PUT", "/bucket/key", query, {"x-amz-copy-source": source, **pairs})


@pytest.fixture
def source(driver):
    data = content(2 * MIB + 70_000, 3)
    driver.put("source", data)
    return data


@pytest.mark.parametrize(
    ("start", "stop"),
    [(None, None), (0, MIB), (MIB, 2 * MIB + 70_000), (5, 10), (MIB - 1, MIB + 1), (0, 1)],
)
def test_mpu_4_copied_parts(driver, source, start, stop):
    upload = create(driver)
    headers = {} if start is None else {"x-amz-copy-source-range": f"bytes={start}-{stop - 1}"}
    wanted = source[start:stop]
    before = len(driver.world.log.bodies)
    answer = copy_part(driver, upload, **headers)
    assert answer.xml.tag.endswith("}CopyPartResult")
    assert answer.text("ETag") == f'"{etag(wanted)}"'
    assert answer.text("LastModified") == iso(driver.clock.ms)
    if start is None or start % MIB == 0 and stop in (MIB, len(source)):
        assert len(driver.world.log.bodies) == before, "whole chunks are copied by reference"
    assert complete(driver, upload, (1, etag(wanted))).status == 200
    assert driver.ask("GET", "/bucket/key").body == wanted
    assert driver.ask("GET", "/bucket/source").body == source


@pytest.mark.parametrize("name", SIZES)
def test_mpu_4_checksums_of_copied_parts(driver, source, name):
    upload = create(driver, x_amz_checksum_algorithm=name.upper())
    answer = copy_part(driver, upload, **{"x-amz-copy-source-range": "bytes=0-9"})
    value = to_text(one_shot(name, source[:10]))
    assert answer.text(f"Checksum{name.upper()}") == value
    assert parts_of(driver, upload).text(f"Part/Checksum{name.upper()}") == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("bytes=0-", "must be of the form"),
        ("bytes=-5", "must be of the form"),
        ("bytes=5-2", "must be of the form"),
        ("bytes=0-1,3-4", "must be of the form"),
        ("0-5", "must be of the form"),
        ("bytes=0-9999999", "not valid for source object of size: 2167152"),
        ("bytes=2167152-2167152", "not valid for source object of size: 2167152"),
    ],
)
def test_mpu_4_ranges_that_are_none(driver, source, value, text):
    upload = create(driver)
    answer = copy_part(driver, upload, **{"x-amz-copy-source-range": value})
    assert (answer.status, answer.code) == (400, "InvalidArgument")
    assert text in answer.xml.findtext("Message")


def test_mpu_4_errors(driver, source):
    upload = create(driver)
    assert copy_part(driver, upload, source="absent/x").code == "NoSuchBucket"
    assert copy_part(driver, upload, source="bucket/none").code == "NoSuchKey"
    assert copy_part(driver, upload, source="nonsense").code == "InvalidArgument"
    assert copy_part(driver, upload, number=0).code == "InvalidArgument"
    assert copy_part(driver, "nonsense").code == "NoSuchUpload"
    driver.bucket("theirs", OTHER)
    assert copy_part(driver, upload, source="theirs/x").code == "AccessDenied"
    failing = copy_part(driver, upload, **{"x-amz-copy-source-if-none-match": "*"})
    assert (failing.status, failing.code) == (412, "PreconditionFailed")
    holds = copy_part(driver, upload, **{"x-amz-copy-source-if-match": etag(source)})
    assert holds.status == 200


def test_mpu_4_a_source_made_of_parts_and_a_copy_to_itself(driver):
    upload = create(driver, "source")
    part(driver, upload, 1, PART, key="source")
    part(driver, upload, 2, TAIL, key="source")
    complete(driver, upload, (1, etag(PART)), (2, etag(TAIL)), key="source")
    again = create(driver, "source")
    query = f"partNumber=1&uploadId={again}"
    before = len(driver.world.log.bodies)
    copied = driver.ask(
        "PUT", "/bucket/source", query, {"x-amz-copy-source": "bucket/source"}
    ).text("ETag")
    assert len(driver.world.log.bodies) == before
    assert copied == f'"{etag(PART + TAIL)}"', "the ETag of a part is of its own bytes"
    assert complete(driver, again, (1, copied), key="source").status == 200
    assert driver.ask("GET", "/bucket/source").body == PART + TAIL


def test_mpu_4_a_source_that_is_too_large_for_one_part(driver, source, monkeypatch):
    import ingot.s3.multipart

    monkeypatch.setattr(ingot.s3.multipart, "PUT_BYTES_MAX", 2 * MIB)
    upload = create(driver)
    large = copy_part(driver, upload)
    assert large.code == "InvalidRequest" and str(PUT_BYTES_MAX) in large.xml.findtext("Message")
    fits = copy_part(driver, upload, **{"x-amz-copy-source-range": "bytes=0-2097151"})
    assert fits.status == 200


# -- MPU-5, MPU-6: completion -------------------------------------------------------------------


def test_mpu_6_complete(driver):
    upload = create(driver, "a/ü")
    for number, data in ((1, PART), (3, PART[::-1]), (10, TAIL)):
        part(driver, upload, number, data, key="a/ü")
    driver.clock.ms += 5000
    answer = complete(
        driver,
        upload,
        (1, f'"{etag(PART)}"'),
        (3, etag(PART[::-1])),
        (10, f"&quot;{etag(TAIL)}&quot;"),
        key="a/ü",
    )
    assert answer.xml.tag.endswith("}CompleteMultipartUploadResult")
    tag = whole_etag(PART, PART[::-1], TAIL)
    assert answer.text("ETag") == f'"{tag}"'
    assert answer.text("Location") == "http://s3.test/bucket/a/%C3%BC"
    assert (answer.text("Bucket"), answer.text("Key")) == ("bucket", "a/ü")
    data = PART + PART[::-1] + TAIL
    assert answer.text("ChecksumCRC64NVME") == to_text(one_shot("crc64nvme", data))
    got = driver.ask("GET", "/bucket/a/%C3%BC", headers={"x-amz-checksum-mode": "ENABLED"})
    assert got.body == data and got.headers["etag"] == f'"{tag}"'
    assert got.headers["last-modified"] == http_date(driver.clock.ms)
    assert got.headers["x-amz-checksum-crc64nvme"] == answer.text("ChecksumCRC64NVME")
    listing = driver.ask("GET", "/bucket", "list-type=2")
    assert listing.text("Contents/ETag") == f'"{tag}"'
    assert listing.text("Contents/Size") == str(len(data))


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (b"", "MalformedXML"),
        (b"<CompleteMultipartUpload/>", "MalformedXML"),
        (b"<CompleteMultipartUpload><Part/></CompleteMultipartUpload>", "MalformedXML"),
        (b"<Else/>", "MalformedXML"),
        (b"<CompleteMultipartUpload>", "MalformedXML"),
        (b"<!DOCTYPE x><CompleteMultipartUpload/>", "MalformedXML"),
        (listed(("x", "e")), "MalformedXML"),
        (listed(("", "e")), "MalformedXML"),
        (
            b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber></Part>"
            b"</CompleteMultipartUpload>",
            "MalformedXML",
        ),
        (listed((0, "e")), "InvalidArgument"),
        (listed((-1, "e")), "InvalidArgument"),
        (listed((2, "e"), (1, "e")), "InvalidPartOrder"),
        (listed((1, "e"), (1, "e")), "InvalidPartOrder"),
        (listed((1, "e")), "InvalidPart"),
        (listed((2, etag(TAIL))), "InvalidPart"),
        (listed((99999, etag(TAIL))), "InvalidPart"),
    ],
)
def test_mpu_5_lists_that_are_refused(driver, document, code):
    upload = create(driver)
    part(driver, upload, 1, TAIL)
    answer = complete(driver, upload, body=document)
    assert (answer.status, answer.code) == (400, code)
    if code == "InvalidPart":
        found = {name: answer.xml.findtext(name) for name in ("UploadId", "PartNumber", "ETag")}
        assert found["UploadId"] == upload and found["PartNumber"] and found["ETag"]
    assert driver.keys() == [] and parts_of(driver, upload).status == 200


def test_mpu_5_small_parts(driver):
    upload = create(driver)
    for number in (1, 2):
        part(driver, upload, number, PART[: 5 * MIB - 1])
    tag = etag(PART[: 5 * MIB - 1])
    answer = complete(driver, upload, (1, tag), (2, tag))
    assert (answer.status, answer.code) == (400, "EntityTooSmall")
    told = {"ProposedSize": "5242879", "MinSizeAllowed": "5242880", "PartNumber": "1", "ETag": tag}
    assert {name: answer.xml.findtext(name) for name in told} == told
    assert complete(driver, upload, (2, tag)).status == 200, "the last may be small"


def test_mpu_5_a_listed_subset(driver):
    upload = create(driver)
    part(driver, upload, 1, b"left out")
    part(driver, upload, 2, TAIL)
    assert complete(driver, upload, (2, etag(TAIL))).status == 200
    assert driver.ask("GET", "/bucket/key").body == TAIL


def test_mpu_5_an_empty_part(driver):
    upload = create(driver)
    assert part(driver, upload, 1, b"").status == 200
    assert complete(driver, upload, (1, etag(b""))).status == 200
    assert driver.ask("GET", "/bucket/key").body == b""


def test_mpu_5_ten_thousand_entries_are_parsed(driver):
    """With every element that an SDK sends. Here the parts do not exist; the list is read whole."""
    upload = create(driver)
    checksums = "".join(f"<Checksum{name.upper()}>AAAA</Checksum{name.upper()}>" for name in SIZES)
    entries = [(number, "0" * 32, checksums) for number in range(1, PARTS_MAX + 1)]
    assert complete(driver, upload, *entries).code == "InvalidPart"
    entries.append((PARTS_MAX + 1, "0" * 32, ""))
    assert complete(driver, upload, *entries).code == "MalformedXML"


@pytest.mark.parametrize("name", ["crc32", "sha256"])
def test_mpu_6_composite_checksums(driver, name):
    upload = create(driver, x_amz_checksum_algorithm=name.upper())
    header, tag = f"x-amz-checksum-{name}", f"Checksum{name.upper()}"
    sums = [one_shot(name, data) for data in (PART, TAIL)]
    for number, data in enumerate((PART, TAIL), 1):
        part(driver, upload, number, data, **{header: to_text(one_shot(name, data))})
    composite = to_text(one_shot(name, b"".join(sums)))
    entries = [
        (number, etag(data), f"<{tag}>{to_text(digest)}</{tag}>")
        for number, data, digest in zip((1, 2), (PART, TAIL), sums, strict=True)
    ]
    without = complete(driver, upload, entries[0], (2, etag(TAIL)))
    assert (without.status, without.code) == (400, "InvalidRequest")
    assert without.xml.findtext("Message") == (
        f"The upload was created using a {name} checksum. The complete request must include the "
        "checksum for each part. It was missing for part 2 in the request."
    )
    wrong = [entries[0], (2, etag(TAIL), f"<{tag}>{to_text(sums[0])}</{tag}>")]
    assert complete(driver, upload, *wrong).code == "InvalidPart"
    other = "<ChecksumCRC32C>AAAAAA==</ChecksumCRC32C>"
    refused = complete(driver, upload, entries[0], (2, etag(TAIL), other))
    assert refused.code == "BadDigest"
    text = "The crc32c you specified for part 2 did not match what we received."
    assert refused.xml.findtext("Message") == text
    for none, shown in ((f"<{tag}>none</{tag}>", "none"), (other + other, "CRC32C:AAAAAA==;" * 2)):
        refused = complete(driver, upload, entries[0], (2, etag(TAIL), none))
        assert refused.code == "InvalidArgument"
        assert refused.xml.findtext("ArgumentValue") == shown
    bad = complete(driver, upload, *entries, **{header: to_text(sums[0]) + "-2"})
    assert (bad.status, bad.code) == (400, "BadDigest")
    done = complete(driver, upload, *entries, **{header: composite + "-2"})
    assert done.text(tag) == composite + "-2" and done.text("ChecksumType") == "COMPOSITE"
    got = driver.ask("HEAD", "/bucket/key", headers={"x-amz-checksum-mode": "ENABLED"})
    assert got.headers[header] == composite + "-2"
    assert got.headers["x-amz-checksum-type"] == "COMPOSITE"


@pytest.mark.parametrize("name", ["crc32", "crc32c", "crc64nvme"])
def test_mpu_13_full_object_checksums_are_combined(driver, name):
    upload = create(
        driver, x_amz_checksum_algorithm=name.upper(), x_amz_checksum_type="FULL_OBJECT"
    )
    header = f"x-amz-checksum-{name}"
    for number, data in enumerate((PART, TAIL), 1):
        part(driver, upload, number, data)  # the client may leave the parts' to us
    entries = [(1, etag(PART)), (2, etag(TAIL))]
    value = to_text(one_shot(name, PART + TAIL))
    wrong = complete(driver, upload, *entries, **{header: to_text(one_shot(name, PART))})
    assert (wrong.status, wrong.code) == (400, "BadDigest")
    assert complete(driver, upload, *entries, **{header: "x"}).code == "InvalidRequest"
    assert complete(driver, upload, *entries, x_amz_checksum_sha1="x").code == "InvalidRequest"
    done = complete(driver, upload, *entries, **{header: value})
    assert done.text(f"Checksum{name.upper()}") == value
    assert done.text("ChecksumType") == "FULL_OBJECT"


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"x-amz-mp-object-size": "5"}, "value 5 does not match what was computed: 8"),
        ({"x-amz-mp-object-size": "x"}, "x-amz-mp-object-size header is invalid: 'x'"),
        ({"x-amz-mp-object-size": "-1"}, "x-amz-mp-object-size header is less than zero: '-1'"),
        ({"x-amz-checksum-crc64nvme": "AAAAAAAAAAA=-x"}, "x-amz-checksum-crc64nvme header is inv"),
        ({"x-amz-checksum-type": "COMPOSITE"}, "using the FULL_OBJECT checksum mode"),
        ({"x-amz-checksum-type": "x"}, "x-amz-checksum-type header is invalid"),
        (
            {"x-amz-checksum-crc32": "AAAAAA=="},
            "expected checksum Type: null, actual checksum Type: crc32",
        ),
        ({"x-amz-checksum-md5": "AAAA"}, "unsupported"),
    ],
)
def test_mpu_6_promises_that_are_broken(driver, headers, text):
    upload = create(driver)
    part(driver, upload, 1, TAIL)
    answer = complete(driver, upload, (1, etag(TAIL)), **headers)
    assert (answer.status, answer.code) == (400, "InvalidRequest")
    assert text in answer.xml.findtext("Message")
    kept = complete(driver, upload, (1, etag(TAIL)), **{"x-amz-mp-object-size": "8"})
    assert kept.status == 200


def test_mpu_6_digests_of_the_document_itself(driver):
    upload = create(driver)
    part(driver, upload, 1, TAIL)
    document = listed((1, etag(TAIL)))
    md5 = base64.b64encode(hashlib.md5(document).digest()).decode()
    wrong = complete(driver, upload, body=document + b" ", content_md5=md5)
    assert wrong.code == "BadDigest"
    assert complete(driver, upload, body=document, content_md5=md5).status == 200


def test_mpu_6_preconditions(driver):
    driver.put("key", b"old")
    upload = create(driver)
    part(driver, upload, 1, TAIL)
    listing = (1, etag(TAIL))
    refused = complete(driver, upload, listing, if_none_match="*")
    assert (refused.status, refused.code) == (412, "PreconditionFailed")
    assert complete(driver, upload, listing, if_match='"x"').code == "PreconditionFailed"
    both = complete(driver, upload, listing, if_match="x", if_none_match="*")
    assert both.status == 501
    assert driver.ask("GET", "/bucket/key").body == b"old"
    assert complete(driver, upload, listing, if_match=f'"{etag(b"old")}"').status == 200
    fresh = create(driver, "fresh")
    part(driver, fresh, 1, TAIL, key="fresh")
    missing = complete(driver, fresh, listing, key="fresh", if_match="x")
    assert (missing.status, missing.code) == (404, "NoSuchKey")
    created = complete(driver, fresh, listing, key="fresh", if_none_match="*")
    assert created.status == 200
    again = complete(driver, fresh, listing, key="fresh", if_none_match="*")
    assert again.status == 200, "a repeated request hears the first one's answer"


# -- MPU-7: idempotence and races ---------------------------------------------------------------


def test_mpu_7_a_repeated_complete_hears_the_same(driver):
    upload = create(driver, x_amz_checksum_algorithm="CRC32")
    value = to_text(one_shot("crc32", TAIL))
    part(driver, upload, 1, TAIL, x_amz_checksum_crc32=value)
    sent = f"<ChecksumCRC32>{value}</ChecksumCRC32>"
    first = complete(driver, upload, (1, etag(TAIL), sent))
    driver.ask("DELETE", "/bucket/key")
    again = complete(driver, upload, (1, f'"{etag(TAIL)}"', sent))
    assert (again.status, again.body) == (200, first.body)
    assert driver.keys() == [], "it was not done again"
    assert complete(driver, upload, (2, etag(TAIL))).code == "NoSuchUpload"
    assert abort(driver, upload).code == "NoSuchUpload"
    assert part(driver, upload, 2, TAIL).code == "NoSuchUpload"
    assert parts_of(driver, upload).code == "NoSuchUpload"


def test_mpu_7_concurrent_completes_all_hear_the_winner(driver):
    upload = create(driver)
    part(driver, upload, 1, TAIL)
    answers = driver.together(*[lambda: complete(driver, upload, (1, etag(TAIL)))] * 6)
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1


@pytest.mark.parametrize("order", ["CA", "AC", "CCA", "ACC", "CAA", "ACACAC"])
def test_mpu_7_complete_against_abort(driver, order):
    upload = create(driver)
    part(driver, upload, 1, TAIL)
    asks = {
        "C": lambda: complete(driver, upload, (1, etag(TAIL))),
        "A": lambda: abort(driver, upload),
    }
    answers = driver.together(*[asks[each] for each in order])
    statuses = [answer.status for answer in answers]
    completed, aborted = statuses.count(200), statuses.count(204)
    assert (aborted == 1 and completed == 0) or (
        aborted == 0 and completed == order.count("C")  # all of them hear the one that won
    )
    assert set(statuses) <= {200, 204, 404}
    assert (driver.keys() == [b"key"]) == bool(completed)


def test_mpu_7_a_part_that_is_replaced_during_a_complete(driver):
    """Whichever is first, the object is one of the two, and the list decides whether it may be."""
    for _ in range(5):
        upload = create(driver)
        part(driver, upload, 1, b"old")
        answers = driver.together(
            lambda upload=upload: part(driver, upload, 1, b"new"),
            lambda upload=upload: complete(driver, upload, (1, etag(b"old"))),
        )
        replaced, done = answers
        assert {(200, 400), (404, 200)} >= {(replaced.status, done.status)}
        if done.status == 400:
            assert done.code == "InvalidPart"
            assert complete(driver, upload, (1, etag(b"new"))).status == 200
        else:
            assert driver.ask("GET", "/bucket/key").body == b"old"


def test_mpu_7_a_part_that_is_replaced_by_the_same_bytes(driver):
    upload = create(driver)
    part(driver, upload, 1, TAIL)
    answers = driver.together(
        lambda: part(driver, upload, 1, TAIL), lambda: complete(driver, upload, (1, etag(TAIL)))
    )
    assert answers[1].status == 200


# -- MPU-9, MPU-12: abort, invisibility ---------------------------------------------------------


def test_mpu_9_abort(driver):
    upload = create(driver)
    part(driver, upload, 1, TAIL)
    answer = abort(driver, upload)
    assert (answer.status, answer.body) == (204, b"")
    assert (abort(driver, upload).status, abort(driver, upload).code) == (404, "NoSuchUpload")
    assert part(driver, upload, 1, TAIL).code == "NoSuchUpload"
    assert driver.ask("GET", "/bucket", "uploads").texts("Upload") == []


def test_mpu_9_in_flight_parts_of_an_aborted_upload_fail(driver):
    upload = create(driver)
    large = content(MIB)
    asks = [lambda: part(driver, upload, 1, large), lambda: abort(driver, upload)]
    answers = driver.together(*asks)
    assert answers[1].status == 204
    assert answers[0].status == 404 and answers[0].code == "NoSuchUpload"


def test_mpu_9_the_time_of_initiation(driver):
    upload = create(driver)
    name = "x-amz-if-match-initiated-time"
    wrong = abort(driver, upload, **{name: http_date(driver.clock.ms - 5000)})
    assert (wrong.status, wrong.code) == (412, "PreconditionFailed")
    assert wrong.xml.findtext("Condition") == name
    assert abort(driver, upload, **{name: "yesterday"}).code == "InvalidArgument"
    assert abort(driver, upload, **{name: http_date(driver.clock.ms)}).status == 204
    future = {name: http_date(driver.clock.ms + 5000)}
    assert abort(driver, create(driver), **future).status == 204, "as if it were absent"


def test_mpu_12_a_pending_upload_is_invisible(driver):
    driver.put("key", b"old")
    upload = create(driver)
    part(driver, upload, 1, TAIL)
    other = create(driver, "pending")
    part(driver, other, 1, TAIL, key="pending")
    assert driver.keys() == [b"key"]
    assert driver.ask("GET", "/bucket/key").body == b"old"
    assert driver.ask("HEAD", "/bucket/pending").status == 404
    assert driver.ask("GET", "/bucket", "versions").texts("Version/Key") == ["key"]


def test_name_5_pending_uploads_do_not_keep_a_bucket(driver):
    upload = create(driver)
    part(driver, upload, 1, TAIL)
    assert driver.ask("DELETE", "/bucket").status == 204
    driver.bucket()
    assert part(driver, upload, 2, TAIL).code == "NoSuchUpload"
    assert driver.ask("GET", "/bucket", "uploads").texts("Upload") == []


# -- MPU-10, MPU-11: listings -------------------------------------------------------------------


def test_mpu_10_list_parts(driver):
    upload = create(driver, x_amz_checksum_algorithm="SHA256")
    digests = []
    for number in (3, 1, 200):
        data = b"%d" % number
        value = b2a_base64(hashlib.sha256(data).digest(), newline=False).decode()
        part(driver, upload, number, data, x_amz_checksum_sha256=value)
        digests.append((number, value))
    answer = parts_of(driver, upload)
    assert answer.xml.tag.endswith("}ListPartsResult")
    assert answer.texts("Part/PartNumber") == ["1", "3", "200"]
    assert answer.texts("Part/ETag") == [f'"{etag(b"%d" % n)}"' for n in (1, 3, 200)]
    assert answer.texts("Part/Size") == ["1", "1", "3"]
    assert answer.texts("Part/LastModified") == [iso(driver.clock.ms)] * 3
    assert answer.texts("Part/ChecksumSHA256") == [value for _, value in sorted(digests)]
    shown = {
        "Bucket": "bucket",
        "Key": "key",
        "UploadId": upload,
        "StorageClass": "STANDARD",
        "ChecksumAlgorithm": "SHA256",
        "ChecksumType": "COMPOSITE",
        "PartNumberMarker": "0",
        "NextPartNumberMarker": "200",
        "MaxParts": "1000",
        "IsTruncated": "false",
        "Initiator/ID": OWNER.id,
        "Initiator/DisplayName": OWNER.display_name,
        "Owner/ID": OWNER.id,
    }
    assert {name: answer.text(name) for name in shown} == shown


def test_mpu_10_pages_of_parts(driver):
    upload = create(driver)
    for number in range(1, 6):
        part(driver, upload, number, b"x")
    found, marker = [], "0"
    while True:
        page = parts_of(driver, upload, f"&max-parts=2&part-number-marker={marker}")
        assert page.text("PartNumberMarker") == marker and page.text("MaxParts") == "2"
        found += page.texts("Part/PartNumber")
        marker = page.text("NextPartNumberMarker")
        if page.text("IsTruncated") == "false":
            break
    assert found == ["1", "2", "3", "4", "5"]
    exact = parts_of(driver, upload, "&max-parts=5")
    assert exact.text("IsTruncated") == "false"
    none = parts_of(driver, upload, "&max-parts=0")
    assert none.texts("Part") == [] and none.text("IsTruncated") == "false"
    beyond = parts_of(driver, upload, "&part-number-marker=2147483647")
    assert beyond.texts("Part") == [] and beyond.status == 200
    assert parts_of(driver, upload, "&max-parts=5000").text("MaxParts") == "1000"


@pytest.mark.parametrize("name", ["max-parts", "part-number-marker"])
@pytest.mark.parametrize("value", ["-1", "x", "99999999999"])
def test_mpu_10_bad_numbers(driver, name, value):
    answer = parts_of(driver, create(driver), f"&{name}={value}")
    assert (answer.status, answer.code) == (400, "InvalidArgument")
    assert answer.xml.findtext("ArgumentName") == name


def listing(driver, query=""):
    return driver.ask("GET", "/bucket", "uploads" + query)


def test_mpu_11_list_uploads(driver):
    rows = []
    for key in ("b", "a", "b"):
        driver.clock.ms += 1000
        rows.append((key, create(driver, key), iso(driver.clock.ms)))
    driver.clock.ms += 1000
    declared = create(driver, "c", x_amz_checksum_algorithm="CRC32C")
    answer = listing(driver)
    expected = [rows[1], rows[0], rows[2]]
    assert answer.xml.tag.endswith("}ListMultipartUploadsResult")
    assert answer.texts("Upload/Key") == [row[0] for row in expected] + ["c"]
    assert answer.texts("Upload/UploadId") == [row[1] for row in expected] + [declared]
    assert answer.texts("Upload/Initiated")[:3] == [row[2] for row in expected]
    assert answer.texts("Upload/ChecksumAlgorithm") == ["CRC32C"]
    assert answer.texts("Upload/ChecksumType") == ["COMPOSITE"]
    assert set(answer.texts("Upload/Initiator/ID")) == {OWNER.id}
    assert set(answer.texts("Upload/Owner/DisplayName")) == {OWNER.display_name}
    assert set(answer.texts("Upload/StorageClass")) == {"STANDARD"}
    shown = {
        "Bucket": "bucket",
        "KeyMarker": "",
        "UploadIdMarker": "",
        "Prefix": "",
        "MaxUploads": "1000",
        "IsTruncated": "false",
        "Delimiter": None,
        "EncodingType": None,
        "NextKeyMarker": None,
    }
    assert {name: answer.text(name) for name in shown} == shown


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("delimiter", ["", "/"])
def test_mpu_11_pages_of_uploads(driver, limit, delimiter):
    for key in ("a", "a/x", "a/y", "a/y", "b", "b", "b", "c/z"):
        upload = create(driver, key)
        part(driver, upload, 1, b"x", key=key)
    found, after = [], ""
    while True:
        page = listing(driver, f"&max-uploads={limit}&delimiter={quote(delimiter, '')}{after}")
        assert page.status == 200
        found += page.texts("Upload/Key") + page.texts("CommonPrefixes/Prefix")
        assert len(page.texts("Upload")) + len(page.texts("CommonPrefixes")) <= limit
        if page.text("IsTruncated") == "false":
            assert page.text("NextKeyMarker") is None
            break
        after = (
            f"&key-marker={quote(page.text('NextKeyMarker'), '')}"
            f"&upload-id-marker={page.text('NextUploadIdMarker')}"
        )
    if delimiter:
        assert sorted(found) == ["a", "a/", "b", "b", "b", "c/"]
    else:
        assert found == ["a", "a/x", "a/y", "a/y", "b", "b", "b", "c/z"]


def test_mpu_11_prefix_and_encoding(driver):
    for key in ("a+b c", "a/é", "x"):
        create(driver, key)
    page = listing(driver, "&prefix=a&encoding-type=url&delimiter=%2F")
    assert page.texts("Upload/Key") == ["a%2Bb%20c"]
    assert page.texts("CommonPrefixes/Prefix") == ["a/"]
    assert (page.text("EncodingType"), page.text("Delimiter")) == ("url", "/")
    plain = listing(driver, "&prefix=a")
    assert plain.texts("Upload/Key") == ["a+b c", "a/é"]
    assert listing(driver, "&encoding-type=x").code == "InvalidArgument"


def test_mpu_11_markers(driver):
    first, second = create(driver, "a"), create(driver, "a")
    third = create(driver, "b")
    first, second = sorted((first, second))
    assert listing(driver, "&key-marker=a").texts("Upload/UploadId") == [third]
    after = listing(driver, f"&key-marker=a&upload-id-marker={first}")
    assert after.texts("Upload/UploadId") == [second, third]
    ignored = listing(driver, f"&upload-id-marker={first}")
    assert ignored.texts("Upload/UploadId") == [first, second, third]
    for wrong in (third, "nonsense", first[:-1]):
        answer = listing(driver, f"&key-marker=a&upload-id-marker={wrong}")
        assert (answer.status, answer.code) == (400, "InvalidArgument")
        assert answer.xml.findtext("Message") == "Invalid uploadId marker"
    abort(driver, first, "a")
    gone = listing(driver, f"&key-marker=a&upload-id-marker={first}")
    assert gone.texts("Upload/UploadId") == [second, third], "an ended upload is still a place"


@pytest.mark.parametrize("value", ["-1", "x", "99999999999"])
def test_mpu_11_bad_numbers(driver, value):
    answer = listing(driver, f"&max-uploads={value}")
    assert (answer.status, answer.code) == (400, "InvalidArgument")
    assert listing(driver, "&max-uploads=0").text("IsTruncated") == "false"


def test_keys_of_all_kinds(driver):
    """Their uploads stay apart in the tree, and come back as they were."""
    keys = ["k" * 1024, "a", "a\x01", "a/", "\x01", "é" * 512, "a b+c%", "\U0001f600"]
    uploads = {key: create(driver, key) for key in keys}
    for key, upload in uploads.items():
        assert part(driver, upload, 1, key.encode(), key=key).status == 200
    for key, upload in uploads.items():
        assert complete(driver, upload, (1, etag(key.encode())), key=key).status == 200
    for key in keys:
        assert driver.ask("GET", f"/bucket/{quote(key)}").body == key.encode()
    assert driver.keys() == sorted(key.encode() for key in keys)


# -- GET-5, MPU-14: reading parts ---------------------------------------------------------------


def test_get_5_reads_of_parts(driver):
    upload = create(driver)
    for number, data in ((2, PART), (7, TAIL)):
        part(driver, upload, number, data)
    complete(driver, upload, (2, etag(PART)), (7, etag(TAIL)))
    for method in ("GET", "HEAD"):
        first = driver.ask(method, "/bucket/key", "partNumber=1")
        assert (first.status, first.length) == (206, len(PART))
        assert first.headers["content-range"] == f"bytes 0-{len(PART) - 1}/{len(PART + TAIL)}"
        assert first.headers["x-amz-mp-parts-count"] == "2"
    assert driver.ask("GET", "/bucket/key", "partNumber=2").body == TAIL
    past = driver.ask("GET", "/bucket/key", "partNumber=3")
    assert (past.status, past.code) == (416, "InvalidPartNumber")
    assert past.xml.findtext("ActualPartCount") == "2"
    assert "x-amz-mp-parts-count" not in driver.ask("GET", "/bucket/key").headers


def test_get_5_an_empty_part_has_no_range(driver):
    upload = create(driver)
    for number, data in ((1, PART), (2, b"")):
        part(driver, upload, number, data)
    complete(driver, upload, (1, etag(PART)), (2, etag(b"")))
    for method in ("GET", "HEAD"):
        answer = driver.ask(method, "/bucket/key", "partNumber=2")
        assert (answer.status, answer.length) == (200, 0)
        assert "content-range" not in answer.headers
        assert answer.headers["x-amz-mp-parts-count"] == "2"


def test_get_3_ranges_over_parts(driver):
    upload = create(driver)
    part(driver, upload, 1, PART)
    part(driver, upload, 2, TAIL)
    complete(driver, upload, (1, etag(PART)), (2, etag(TAIL)))
    start = len(PART) - 3
    answer = driver.ask("GET", "/bucket/key", headers={"range": f"bytes={start}-{start + 5}"})
    assert answer.body == PART[-3:] + TAIL[:3]


def test_mpu_14_the_layout_survives_a_copy(driver):
    upload = create(driver)
    part(driver, upload, 1, PART)
    part(driver, upload, 2, TAIL)
    complete(driver, upload, (1, etag(PART)), (2, etag(TAIL)))
    driver.ask("PUT", "/bucket/copy", headers={"x-amz-copy-source": "bucket/key"})
    assert driver.ask("GET", "/bucket/copy", "partNumber=2").body == TAIL


def test_with_boto3(driver):
    client = driver.client()
    upload = client.create_multipart_upload(Bucket="bucket", Key="k")["UploadId"]
    made = client.upload_part(Bucket="bucket", Key="k", UploadId=upload, PartNumber=1, Body=TAIL)
    listed_parts = client.list_parts(Bucket="bucket", Key="k", UploadId=upload)["Parts"]
    assert [each["ETag"] for each in listed_parts] == [made["ETag"]]
    client.complete_multipart_upload(
        Bucket="bucket",
        Key="k",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": made["ETag"]}]},
    )
    got = client.get_object(Bucket="bucket", Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == TAIL and got["ChecksumType"] == "FULL_OBJECT"
    with pytest.raises(client.exceptions.NoSuchUpload):
        client.abort_multipart_upload(Bucket="bucket", Key="k", UploadId=upload)


def test_mpu_14_checksums_and_sizes_of_parts_are_kept(driver):
    pieces = [PART, TAIL]
    upload = create(driver, x_amz_checksum_algorithm="CRC32C")
    for number, piece in enumerate(pieces, 1):
        value = to_text(one_shot("crc32c", piece))
        assert part(driver, upload, number, piece, x_amz_checksum_crc32c=value).status == 200
    sums = [to_text(one_shot("crc32c", piece)) for piece in pieces]
    entries = [
        (number, etag(piece), f"<ChecksumCRC32C>{value}</ChecksumCRC32C>")
        for number, (piece, value) in enumerate(zip(pieces, sums, strict=True), 1)
    ]
    assert complete(driver, upload, *entries).status == 200
    for method in ("GET", "HEAD"):
        for number, value in enumerate(sums, 1):
            answer = driver.ask(method, "/bucket/key", f"partNumber={number}", MODE)
            assert answer.status == 206
            assert answer.headers["x-amz-checksum-crc32c"] == value, "SUM-5: of the part"
            assert answer.headers["x-amz-checksum-type"] == "COMPOSITE"
            plain = driver.ask(method, "/bucket/key", f"partNumber={number}")
            assert "x-amz-checksum-crc32c" not in plain.headers
    some = driver.ask("GET", "/bucket/key", headers=MODE | {"range": "bytes=0-9"})
    assert "x-amz-checksum-crc32c" not in some.headers
    store = driver.world.store
    record = driver._runner.run(store.find(store.bucket("bucket"), b"key"))
    assert record.parts == [len(PART), len(TAIL)]
    sums = [record.part_checksum("crc32c", index) for index in range(2)]
    assert sums == [one_shot("crc32c", piece) for piece in pieces]


# -- sources that are damaged ----------------------------------------------------------------------


def lose_a_chunk(driver, key):
    """Of the body of an object, as a segment that is gone takes it."""
    store = driver.world.store
    record = driver._runner.run(store.find(store.bucket("bucket"), key))
    del driver.world.log.blocks[record.body.chunks[1][0]]


@pytest.mark.parametrize("algorithm", ["", "SHA256"])
def test_a_copy_of_an_object_that_lost_a_chunk_is_refused(driver, algorithm):
    """COPY-8: by its status, for nothing is answered before the copy is made."""
    driver.put("whole", PART)
    driver.put("hurt", content(2 * MIB, 7))
    headers = {"x-amz-checksum-algorithm": algorithm} if algorithm else {}
    lose_a_chunk(driver, b"hurt")
    for source, status in (("whole", 200), ("hurt", 500)):
        pairs = {"x-amz-copy-source": f"bucket/{source}", **headers}
        answer = driver.ask("PUT", f"/bucket/copy-of-{source}", headers=pairs)
        assert answer.status == status
    assert answer.code == "InternalError"
    assert driver.keys() == [b"copy-of-whole", b"hurt", b"whole"]


@pytest.mark.parametrize("span", ["", f"bytes={MIB}-{2 * MIB - 1}", "bytes=5-2000000"])
def test_a_part_copied_from_an_object_that_lost_a_chunk_is_refused(driver, span):
    driver.put("hurt", content(2 * MIB, 7))
    lose_a_chunk(driver, b"hurt")
    upload = create(driver)
    pairs = {"x-amz-copy-source": "bucket/hurt"} | (
        {"x-amz-copy-source-range": span} if span else {}
    )
    query = f"partNumber=1&uploadId={upload}"
    answer = driver.ask("PUT", "/bucket/key", query, pairs)
    assert (answer.status, answer.code) == (500, "InternalError")
    assert parts_of(driver, upload).texts("Part") == []


def test_a_complete_of_a_part_that_lost_a_chunk_is_refused(driver):
    """MPU-8: by its status; putting parts together copies nothing, so no client has to be kept."""
    upload = create(driver)
    assert part(driver, upload, 1, PART).status == 200
    del driver.world.log.blocks[driver.world.log.bodies[2]]
    answer = complete(driver, upload, (1, etag(PART)))
    assert (answer.status, answer.code) == (500, "InternalError")
    assert driver.keys() == []


def test_mpu_5_the_listed_parts_are_read_and_no_others(driver, monkeypatch):
    """Whoever lists one of ten thousand, again and again, has one read."""
    upload = create(driver)
    for number in (*range(1, 6), *range(40, 60, 2)):
        part(driver, upload, number, b"x")
    before = Uploads.parts
    read = []

    async def counted(self, *args):
        found, more = await before(self, *args)
        read.append([number for number, _ in found])
        return found, more

    monkeypatch.setattr(Uploads, "parts", counted)
    assert complete(driver, upload, (58, etag(b"y"))).code == "InvalidPart"
    assert read == [[58]]
    read.clear()
    numbers = (2, 4, 42, 44, 58)
    answer = complete(driver, upload, *[(n, etag(b"x")) for n in numbers])
    assert answer.code == "EntityTooSmall"
    assert read == [[2, 3, 4], [42, 44, 46], [58]], "and a few between them"


def test_mpu_5_a_condition_is_looked_at_before_any_part(driver, monkeypatch):
    driver.put("key")
    upload = create(driver)
    part(driver, upload, 1, b"x")
    monkeypatch.setattr(Uploads, "parts", None)
    answer = complete(driver, upload, (1, etag(b"x")), **{"if-none-match": "*"})
    assert (answer.status, answer.code) == (412, "PreconditionFailed")
    answer = complete(driver, upload, (1, etag(b"x")), **{"if-match": '"other"'})
    assert (answer.status, answer.code) == (412, "PreconditionFailed")
