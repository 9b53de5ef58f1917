"""GetObjectAttributes: section 3.10, over the real store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ingot.body.checksums import one_shot, to_text
from ingot.limits import PART_BYTES_MIN
from tests.s3.driver import Answer
from tests.s3.store_driver import StoreDriver

ALL = "ETag,Checksum,ObjectParts,StorageClass,ObjectSize"


@pytest.fixture
def driver() -> Iterator[StoreDriver]:
    with StoreDriver() as made:
        made.bucket()
        yield made


def attributes(driver: StoreDriver, names: str, query: str = "", **headers: str) -> Answer:
    pairs = {name.replace("_", "-"): value for name, value in headers.items()}
    pairs["x-amz-object-attributes"] = names
    return driver.ask("GET", "/bucket/k", "attributes" + query, pairs)


def test_attr_1_of_a_single_put(driver: StoreDriver) -> None:
    etag = driver.put("k", b"hello").headers["etag"].strip('"')
    answer = attributes(driver, ALL)
    assert answer.text("ETag") == etag, "without quotes"
    assert answer.text("ObjectSize") == "5" and answer.text("StorageClass") == "STANDARD"
    assert answer.text("Checksum/ChecksumType") == "FULL_OBJECT"
    assert answer.text("Checksum/ChecksumCRC64NVME")
    assert answer.text("ObjectParts") is None
    assert answer.headers["last-modified"] and "x-amz-version-id" not in answer.headers
    only = attributes(driver, "ObjectSize, ETag")
    assert only.text("Checksum") is None and only.text("ObjectSize") == "5"
    assert attributes(driver, "Color").code == "InvalidArgument"
    assert attributes(driver, " ").code == "InvalidRequest"
    assert driver.ask("GET", "/bucket/k", "attributes").code == "InvalidRequest"
    assert driver.ask("GET", "/absent/k", "attributes", {"x-amz-object-attributes": "ETag"}).code


def test_attr_1_of_versions_and_markers(driver: StoreDriver) -> None:
    body = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    driver.ask("PUT", "/bucket", "versioning", body=body)
    old = driver.put("k", b"old!").headers["x-amz-version-id"]
    driver.put("k", b"newer")
    answer = attributes(driver, "ObjectSize", f"&versionId={old}")
    assert (answer.text("ObjectSize"), answer.headers["x-amz-version-id"]) == ("4", old)
    marker = driver.ask("DELETE", "/bucket/k").headers["x-amz-version-id"]
    assert attributes(driver, "ETag").code == "NoSuchKey"
    assert attributes(driver, "ETag", f"&versionId={marker}").code == "MethodNotAllowed"


def upload(client: Any, parts: list[bytes], **settings: str) -> None:
    made = client.create_multipart_upload(Bucket="bucket", Key="k", **settings)["UploadId"]
    listed = []
    for number, data in enumerate(parts, 1):
        answer = client.upload_part(
            Bucket="bucket", Key="k", UploadId=made, PartNumber=number, Body=data, **settings
        )
        names = {k: v for k, v in answer.items() if k.startswith("ChecksumCRC32")}
        listed.append({"PartNumber": number, "ETag": answer["ETag"], **names})
    client.complete_multipart_upload(
        Bucket="bucket", Key="k", UploadId=made, MultipartUpload={"Parts": listed}
    )


def test_attr_2_parts(driver: StoreDriver) -> None:
    client = driver.client()
    large = bytes(PART_BYTES_MIN)
    upload(client, [large, large, b"end"], ChecksumAlgorithm="CRC32")
    asked = {"Bucket": "bucket", "Key": "k", "ObjectAttributes": ALL.split(",")}
    found = client.get_object_attributes(**asked)
    assert found["ObjectSize"] == 2 * PART_BYTES_MIN + 3 and found["ETag"].endswith("-3")
    assert found["Checksum"]["ChecksumType"] == "COMPOSITE"
    parts = found["ObjectParts"]
    assert parts["TotalPartsCount"] == 3 and not parts["IsTruncated"]
    assert [each["Size"] for each in parts["Parts"]] == [PART_BYTES_MIN, PART_BYTES_MIN, 3]
    assert all(each["ChecksumCRC32"] for each in parts["Parts"])
    page = client.get_object_attributes(**asked, MaxParts=2)["ObjectParts"]
    assert page["IsTruncated"] and page["NextPartNumberMarker"] == 2 and page["MaxParts"] == 2
    rest = client.get_object_attributes(**asked, MaxParts=2, PartNumberMarker=2)["ObjectParts"]
    assert [each["PartNumber"] for each in rest["Parts"]] == [3] and not rest["IsTruncated"]
    beyond = client.get_object_attributes(**asked, PartNumberMarker=9)["ObjectParts"]
    assert "Parts" not in beyond and not beyond["IsTruncated"]
    none = client.get_object_attributes(**asked, MaxParts=0)["ObjectParts"]
    assert "Parts" not in none and not none["IsTruncated"], "a client would ask for ever"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "Provided {} not an integer or within integer range"),
        ("-1", "Argument {} must be an integer between 0 and 2147483647"),
    ],
)
def test_attr_2_bad_numbers(driver: StoreDriver, value: str, text: str) -> None:
    driver.put("k")
    for name in ("max-parts", "part-number-marker"):
        answer = attributes(driver, "ObjectParts", **{f"x-amz-{name}": value})
        assert answer.code == "InvalidArgument"
        assert answer.xml.findtext("Message") == text.format(name)


@pytest.mark.parametrize("names", [[], ["sha1"]])
def test_attr_2_parts_of_an_upload_that_declared_nothing(
    driver: StoreDriver, names: list[str]
) -> None:
    """Of these only the count is shown, whether they came with checksums or not."""
    made = driver.ask("POST", "/bucket/k", "uploads").text("UploadId")
    data = b"only"
    sent = {f"x-amz-checksum-{name}": to_text(one_shot(name, data)) for name in names}
    answer = driver.ask("PUT", "/bucket/k", f"partNumber=1&uploadId={made}", sent, data)
    etag = answer.headers["etag"]
    body = f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag>"
    body = (body + "</Part></CompleteMultipartUpload>").encode()
    assert driver.ask("POST", "/bucket/k", f"uploadId={made}", body=body).status == 200
    answer = attributes(driver, "ObjectParts")
    assert answer.text("ObjectParts/PartsCount") == "1"
    assert len(answer.xml[0]) == 1
