"""Documents as a whole: which root each answer has (XML-2, XML-10), what of a request's document
may be unknown (XML-4), that an error is never in a 200 (XML-9)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from tests.s3.driver import NAMESPACE, Answer
from tests.s3.store_driver import StoreDriver

AES = "<ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm>"
AES += "</ApplyServerSideEncryptionByDefault>"
DOCUMENTS = {
    "tagging": "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>",
    "cors": "<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET"
    "</AllowedMethod></CORSRule></CORSConfiguration>",
    "lifecycle": "<LifecycleConfiguration><Rule><ID>i</ID><Filter/><Status>Enabled</Status>"
    "<Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>",
    "encryption": "<ServerSideEncryptionConfiguration><Rule>" + AES + "</Rule>"
    "</ServerSideEncryptionConfiguration>",
    "publicAccessBlock": "<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls>"
    "</PublicAccessBlockConfiguration>",
    "ownershipControls": "<OwnershipControls><Rule><ObjectOwnership>ObjectWriter</ObjectOwnership>"
    "</Rule></OwnershipControls>",
    "website": "<WebsiteConfiguration><IndexDocument><Suffix>i</Suffix></IndexDocument>"
    "</WebsiteConfiguration>",
    "versioning": "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
    "object-lock": "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>"
    "</ObjectLockConfiguration>",
}
POLICY = (
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*",'
    '"Action":"s3:GetObject","Resource":"arn:aws:s3:::locked/*"}]}'
)


@pytest.fixture(scope="module")
def driver() -> Iterator[StoreDriver]:
    """A bucket of each kind, with a configuration, an object in it and an upload under way."""
    with StoreDriver() as made:
        for name in ("bucket", "locked"):
            lock = {"x-amz-bucket-object-lock-enabled": "true"} if name == "locked" else {}
            assert made.ask("PUT", f"/{name}", headers=lock).status == 200
            made.put("k", b"abc", name)
        for resource, document in DOCUMENTS.items():
            assert send(made, "PUT", f"/locked?{resource}", document).status in (200, 204)
        assert send(made, "PUT", "/locked?policy", POLICY).status == 204
        hold = "<LegalHold><Status>ON</Status></LegalHold>"
        assert send(made, "PUT", "/locked/k?legal-hold", hold).status == 200
        until = "<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2099-01-01T00:00:00Z"
        until += "</RetainUntilDate></Retention>"
        assert send(made, "PUT", "/locked/k?retention", until).status == 200
        yield made


def send(driver: StoreDriver, method: str, target: str, body: str = "", **named: str) -> Answer:
    path, _, query = target.partition("?")
    data = body.encode()
    headers = {name.replace("_", "-"): value for name, value in named.items()}
    if data:
        headers["content-md5"] = base64.b64encode(hashlib.md5(data).digest()).decode()
    return driver.ask(method, path, query, headers, data)


def begin(driver: StoreDriver) -> str:
    upload = send(driver, "POST", "/bucket/m?uploads").text("UploadId")
    assert upload is not None
    return upload


def complete(driver: StoreDriver, upload: str, etag: str) -> Answer:
    part = f"<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>"
    body = f"<CompleteMultipartUpload>{part}</CompleteMultipartUpload>"
    return send(driver, "POST", f"/bucket/m?uploadId={upload}", body)


ROOTS = {
    "/": "ListAllMyBucketsResult",
    "/bucket": "ListBucketResult",
    "/bucket?list-type=2": "ListBucketResult",
    "/bucket?versions": "ListVersionsResult",
    "/bucket?uploads": "ListMultipartUploadsResult",
    "/bucket?location": "LocationConstraint",
    "/bucket?acl": "AccessControlPolicy",
    "/bucket?logging": "BucketLoggingStatus",
    "/bucket?accelerate": "AccelerateConfiguration",
    "/bucket?notification": "NotificationConfiguration",
    "/bucket?requestPayment": "RequestPaymentConfiguration",
    "/bucket/k?acl": "AccessControlPolicy",
    "/bucket/k?tagging": "Tagging",
    "/bucket/k?attributes": "GetObjectAttributesResponse",
    "/locked?policyStatus": "PolicyStatus",
    "/locked/k?legal-hold": "LegalHold",
    "/locked/k?retention": "Retention",
    **{f"/locked?{name}": body[1 : body.index(">")] for name, body in DOCUMENTS.items()},
}


@pytest.mark.parametrize("target", ROOTS)
def test_xml_10_roots(driver: StoreDriver, target: str) -> None:
    answer = send(driver, "GET", target, x_amz_object_attributes="ETag")
    assert answer.status == 200
    assert answer.body.startswith(b'<?xml version="1.0" encoding="UTF-8"?>\n<')
    # Some tools strip the namespace by a pattern, which wants these very quotes.
    assert b' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"' in answer.body[:160]
    assert answer.xml.tag == NAMESPACE + ROOTS[target]


def test_xml_10_roots_of_writes(driver: StoreDriver) -> None:
    begun = send(driver, "POST", "/bucket/m?uploads")
    assert begun.xml.tag == NAMESPACE + "InitiateMultipartUploadResult"
    part = f"/bucket/m?partNumber=1&uploadId={begun.text('UploadId')}"
    copied = send(driver, "PUT", part, x_amz_copy_source="/bucket/k")
    assert copied.xml.tag == NAMESPACE + "CopyPartResult"
    parts = send(driver, "GET", f"/bucket/m?uploadId={begun.text('UploadId')}")
    assert parts.xml.tag == NAMESPACE + "ListPartsResult"
    etag = copied.text("ETag") or ""
    completed = complete(driver, begun.text("UploadId") or "", etag)
    assert completed.xml.tag == NAMESPACE + "CompleteMultipartUploadResult"
    copied = send(driver, "PUT", "/bucket/k2", x_amz_copy_source="/bucket/k")
    assert copied.xml.tag == NAMESPACE + "CopyObjectResult"
    body = "<Delete><Object><Key>k2</Key></Object></Delete>"
    assert send(driver, "POST", "/bucket?delete", body).xml.tag == NAMESPACE + "DeleteResult"


def test_xml_9_no_error_is_in_a_200(driver: StoreDriver) -> None:
    upload = begin(driver)
    part = f"/bucket/m?partNumber=1&uploadId={upload}"
    for answer, status, code in (
        (complete(driver, upload, "none"), 400, "InvalidPart"),
        (complete(driver, "none", "none"), 404, "NoSuchUpload"),
        (send(driver, "PUT", part, x_amz_copy_source="/bucket/none"), 404, "NoSuchKey"),
        (send(driver, "PUT", "/bucket/c", x_amz_copy_source="/bucket/none"), 404, "NoSuchKey"),
        (send(driver, "PUT", "/bucket/c", x_amz_copy_source="/none/k"), 404, "NoSuchBucket"),
    ):
        assert (answer.status, answer.code) == (status, code)


@pytest.mark.parametrize("resource", DOCUMENTS)
def test_xml_4_what_is_unknown_in_a_configuration_is_refused(
    driver: StoreDriver, resource: str
) -> None:
    """It may ask for what nobody would do."""
    document = DOCUMENTS[resource]
    before = send(driver, "GET", f"/locked?{resource}").body
    name = document[1 : document.index(">")]
    for unknown in (
        document.replace(f"</{name}>", f"<New/></{name}>"),
        document.replace(f"<{name}>", f"<{name}><New>1</New>"),
    ):
        answer = send(driver, "PUT", f"/locked?{resource}", unknown)
        assert (answer.status, answer.code) == (400, "MalformedXML")
    assert send(driver, "GET", f"/locked?{resource}").body == before


def test_xml_4_what_is_unknown_in_lists_of_keys_and_parts_is_passed_over(
    driver: StoreDriver,
) -> None:
    """SDKs write more about each than there was."""
    upload = begin(driver)
    sent = send(driver, "PUT", f"/bucket/m?partNumber=1&uploadId={upload}", "abc")
    part = f"<New/><Part><PartNumber>1</PartNumber><ETag>{sent.headers['etag']}</ETag><New/></Part>"
    body = f"<CompleteMultipartUpload>{part}</CompleteMultipartUpload>"
    assert send(driver, "POST", f"/bucket/m?uploadId={upload}", body).status == 200
    body = "<Delete><New/><Object><New>1</New><Key>m</Key></Object></Delete>"
    assert send(driver, "POST", "/bucket?delete", body).texts("Deleted/Key") == ["m"]


def test_xml_5_what_is_unset_is_absent_or_empty(driver: StoreDriver) -> None:
    root = ElementTree.fromstring(send(driver, "GET", "/bucket?list-type=2").body)
    names = [child.tag.removeprefix(NAMESPACE) for child in root]
    assert "Prefix" in names
    for name in ("Delimiter", "ContinuationToken", "NextContinuationToken", "StartAfter"):
        assert name not in names
    root = ElementTree.fromstring(send(driver, "GET", "/bucket").body)
    names = [child.tag.removeprefix(NAMESPACE) for child in root]
    assert "Delimiter" not in names and "NextMarker" not in names


def test_sum_6_composite_checksums_are_marked(driver: StoreDriver) -> None:
    """SDKs do not compare those with the body."""
    asked = {"x_amz_checksum_algorithm": "CRC32", "x_amz_checksum_type": "COMPOSITE"}
    upload = send(driver, "POST", "/bucket/sum?uploads", **asked).text("UploadId")
    part = f"/bucket/sum?partNumber=1&uploadId={upload}"
    sent = send(driver, "PUT", part, "abc", x_amz_checksum_crc32="NSRBwg==")
    named = f"<PartNumber>1</PartNumber><ETag>{sent.headers['etag']}</ETag>"
    named += "<ChecksumCRC32>NSRBwg==</ChecksumCRC32>"
    body = f"<CompleteMultipartUpload><Part>{named}</Part></CompleteMultipartUpload>"
    done = send(driver, "POST", f"/bucket/sum?uploadId={upload}", body)
    value = done.text("ChecksumCRC32") or ""
    assert value.endswith("-1") and done.text("ChecksumType") == "COMPOSITE"
    got = send(driver, "GET", "/bucket/sum", x_amz_checksum_mode="ENABLED")
    assert got.headers["x-amz-checksum-crc32"] == value
    for kind in ("", "list-type=2&", "versions&"):
        listed = send(driver, "GET", f"/bucket?{kind}prefix=sum")
        entry = "Version" if kind == "versions&" else "Contents"
        assert listed.texts(f"{entry}/ChecksumAlgorithm") == ["CRC32"]
        assert listed.texts(f"{entry}/ChecksumType") == ["COMPOSITE"]
