"""Versions on the wire: sections 3.4, 3.6, 3.7, over the real store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.s3.driver import OTHER, Answer
from tests.s3.store_driver import StoreDriver

ABSENT = "f" * 40


@pytest.fixture
def driver() -> Iterator[StoreDriver]:
    with StoreDriver() as made:
        made.bucket()
        yield made


def status_of(driver: StoreDriver, status: str | None) -> Answer:
    inner = "" if status is None else f"<Status>{status}</Status>"
    body = f"<VersioningConfiguration>{inner}</VersioningConfiguration>".encode()
    return driver.ask("PUT", "/bucket", "versioning", body=body)


def enable(driver: StoreDriver) -> None:
    assert status_of(driver, "Enabled").status == 200


def put(driver: StoreDriver, key: str, body: bytes, **headers: str) -> str:
    return driver.put(key, body, **headers).headers["x-amz-version-id"]


def elements(answer: Answer) -> list[tuple[str, ...]]:
    """(kind, key, version, latest) in the order of the document."""
    found = []
    for child in answer.xml:
        kind = child.tag.rpartition("}")[2]
        if kind in ("Version", "DeleteMarker"):
            texts = {each.tag.rpartition("}")[2]: each.text or "" for each in child}
            assert ("ETag" in texts, "Size" in texts) == (kind == "Version",) * 2
            assert "Owner" in texts and "LastModified" in texts
            found.append((kind, texts["Key"], texts["VersionId"], texts["IsLatest"]))
        elif kind == "CommonPrefixes":
            found.append((kind, child[0].text or ""))
    return found


def versions(driver: StoreDriver, query: str = "") -> list[tuple[str, ...]]:
    return elements(driver.ask("GET", "/bucket", "versions" + query))


def test_vst_1_the_status_of_a_bucket(driver: StoreDriver) -> None:
    answer = driver.ask("GET", "/bucket", "versioning")
    assert answer.status == 200 and answer.text("Status") is None
    for word in ("Enabled", "Suspended", "Enabled"):
        assert status_of(driver, word).status == 200
        assert driver.ask("GET", "/bucket", "versioning").text("Status") == word
    assert status_of(driver, "Off").code == "MalformedXML"
    assert status_of(driver, None).code == "IllegalVersioningConfigurationException"
    for content, code in (
        (b"<MfaDelete>Enabled</MfaDelete>", "NotImplemented"),
        (b"<MfaDelete>Maybe</MfaDelete>", "MalformedXML"),
        (b"<Other>1</Other>", "MalformedXML"),
    ):
        body = b"<VersioningConfiguration><Status>Enabled</Status>%b</VersioningConfiguration>"
        assert driver.ask("PUT", "/bucket", "versioning", body=body % content).code == code
    assert driver.ask("PUT", "/bucket", "versioning").code == "MissingRequestBodyError"
    assert driver.ask("GET", "/bucket", "versioning", account=OTHER).code == "AccessDenied"
    assert driver.ask("GET", "/absent", "versioning").code == "NoSuchBucket"


def test_vst_2_each_write_has_its_id(driver: StoreDriver) -> None:
    enable(driver)
    ids = [put(driver, "k", b"%d" % n) for n in range(3)]
    copied = driver.ask("PUT", "/bucket/k", headers={"x-amz-copy-source": "bucket/k"})
    assert copied.status == 200, "COPY-3: onto itself makes a version where there are versions"
    ids.append(copied.headers["x-amz-version-id"])
    assert copied.headers["x-amz-copy-source-version-id"] == ids[2]
    assert len(set(ids)) == 4 and all(each.isalnum() and each != "null" for each in ids)
    for n, id in enumerate(ids[:3]):
        got = driver.ask("GET", "/bucket/k", f"versionId={id}")
        assert (got.status, got.body, got.headers["x-amz-version-id"]) == (200, b"%d" % n, id)
    got = driver.ask("HEAD", "/bucket/k")
    assert got.headers["x-amz-version-id"] == ids[3]
    cached = driver.ask("GET", "/bucket/k", headers={"if-none-match": "*"})
    assert (cached.status, cached.headers["x-amz-version-id"]) == (304, ids[3])
    assert versions(driver) == [
        ("Version", "k", id, "true" if id == ids[3] else "false") for id in reversed(ids)
    ]


def test_vst_3_null_versions(driver: StoreDriver) -> None:
    assert "x-amz-version-id" not in driver.put("k", b"before").headers
    assert driver.ask("GET", "/bucket/k", "versionId=null").body == b"before"
    enable(driver)
    assert driver.ask("GET", "/bucket/k").headers["x-amz-version-id"] == "null"
    one = put(driver, "k", b"one")
    assert driver.ask("GET", "/bucket/k", "versionId=null").body == b"before"
    status_of(driver, "Suspended")
    assert put(driver, "k", b"null") == "null", "PUT-1"
    copied = driver.ask("PUT", "/bucket/copy", headers={"x-amz-copy-source": "bucket/k"})
    assert copied.headers["x-amz-version-id"] == "null"
    assert driver.ask("DELETE", "/bucket/copy", "versionId=null").status == 204
    assert driver.ask("HEAD", "/bucket/k").headers["x-amz-version-id"] == "null"
    assert versions(driver) == [
        ("Version", "k", "null", "true"),
        ("Version", "k", one, "false"),
    ]
    answer = driver.ask("DELETE", "/bucket/k")
    assert answer.headers["x-amz-version-id"] == "null"
    assert answer.headers["x-amz-delete-marker"] == "true"
    assert driver.ask("GET", "/bucket/k", f"versionId={one}").body == b"one"
    answer = driver.ask("DELETE", "/bucket/k", "versionId=null")
    assert answer.headers["x-amz-delete-marker"] == "true"
    assert driver.ask("GET", "/bucket/k").body == b"one"


def test_vst_4_copies_of_versions(driver: StoreDriver) -> None:
    enable(driver)
    old, new = put(driver, "k", b"old"), put(driver, "k", b"new")
    source = {"x-amz-copy-source": f"bucket/k?versionId={old}"}
    copied = driver.ask("PUT", "/bucket/to", headers=source)
    assert copied.headers["x-amz-copy-source-version-id"] == old
    assert driver.ask("GET", "/bucket/to").body == b"old"
    restored = driver.ask("PUT", "/bucket/k", headers=source)
    assert restored.headers["x-amz-version-id"] not in (old, new)
    marker = driver.ask("DELETE", "/bucket/k").headers["x-amz-version-id"]
    for version, code in (("", "NoSuchKey"), (marker, "InvalidRequest"), (ABSENT, "NoSuchVersion")):
        tail = f"?versionId={version}" if version else ""
        source = {"x-amz-copy-source": f"bucket/k{tail}"}
        assert driver.ask("PUT", "/bucket/to", headers=source).code == code


def test_get_8_markers_and_absent_versions(driver: StoreDriver) -> None:
    enable(driver)
    first = put(driver, "k", b"x")
    deleted = driver.ask("DELETE", "/bucket/k")
    marker = deleted.headers["x-amz-version-id"]
    assert (deleted.status, deleted.headers["x-amz-delete-marker"]) == (204, "true")
    for method in ("GET", "HEAD"):
        gone = driver.ask(method, "/bucket/k")
        assert gone.status == 404 and gone.headers["x-amz-delete-marker"] == "true"
        assert gone.headers["x-amz-version-id"] == marker
        refused = driver.ask(method, "/bucket/k", f"versionId={marker}")
        assert refused.status == 405 and refused.headers["allow"] == "DELETE"
        assert refused.headers["x-amz-delete-marker"] == "true" and refused.headers["last-modified"]
        assert driver.ask(method, "/bucket/k", f"versionId={first}").status == 200
    assert driver.ask("GET", "/bucket/k").code == "NoSuchKey"
    assert driver.ask("GET", "/bucket/k", f"versionId={ABSENT}").code == "NoSuchVersion"
    assert driver.ask("GET", "/bucket/k", "versionId=bad_id").code == "InvalidArgument"
    empty = driver.ask("GET", "/bucket/k", "versionId=")
    assert empty.xml.findtext("Message") == "Version id cannot be the empty string"
    never = driver.ask("GET", "/bucket/never")
    assert never.headers["x-amz-delete-marker"] == "false"


def test_del_1_of_versions(driver: StoreDriver) -> None:
    enable(driver)
    ids = [put(driver, "k", b"%d" % n) for n in range(3)]
    answer = driver.ask("DELETE", "/bucket/k", f"versionId={ids[2]}")
    assert (answer.status, answer.headers["x-amz-version-id"]) == (204, ids[2])
    assert "x-amz-delete-marker" not in answer.headers
    assert driver.ask("GET", "/bucket/k").body == b"1", "the next one is the latest"
    assert driver.ask("DELETE", "/bucket/k", f"versionId={ids[2]}").status == 204, "idempotent"
    assert driver.ask("DELETE", "/bucket/k", f"versionId={ABSENT}").status == 204
    assert driver.ask("DELETE", "/bucket/k", "versionId=bad_id").code == "InvalidArgument"
    never = driver.ask("DELETE", "/bucket/never")
    assert never.headers["x-amz-delete-marker"] == "true"
    assert driver.ask("DELETE", "/bucket").code == "BucketNotEmpty", "NAME-7"
    marker = never.headers["x-amz-version-id"]
    answer = driver.ask("DELETE", "/bucket/never", f"versionId={marker}")
    assert answer.headers["x-amz-delete-marker"] == "true"
    for id in ids:
        driver.ask("DELETE", "/bucket/k", f"versionId={id}")
    assert driver.ask("DELETE", "/bucket").status == 204


def test_del_2_only_the_current_version_is_considered(driver: StoreDriver) -> None:
    enable(driver)
    etag = driver.put("k", b"x").headers["etag"]
    answer = driver.ask("DELETE", "/bucket/k", headers={"if-match": '"other"'})
    assert answer.code == "PreconditionFailed"
    assert driver.ask("DELETE", "/bucket/k", headers={"if-match": etag}).status == 204
    assert driver.ask("DELETE", "/bucket/k", headers={"if-match": "*"}).status == 412, "DEL-2"
    created = driver.ask("PUT", "/bucket/k", headers={"if-none-match": "*"}, body=b"new")
    assert created.status == 200, "PUT-8: a marker counts as absent"


@pytest.mark.parametrize("spelling", ["header", "entry"])
def test_del_2_a_condition_is_about_the_version_that_is_named(
    driver: StoreDriver, spelling: str
) -> None:
    """Of a version that is named it decides, whatever is current."""
    enable(driver)
    old, new = put(driver, "k", b"old"), put(driver, "k", b"newer")
    etags = [driver.ask("GET", "/bucket/k", f"versionId={id}").headers["etag"] for id in (old, new)]
    marker = driver.ask("DELETE", "/bucket/k").headers["x-amz-version-id"]

    def delete(id: str, etag: str | None = None, size: int | None = None) -> str:
        """The code of the refusal, "" for success."""
        if spelling == "header":
            headers = {} if etag is None else {"if-match": etag}
            headers |= {} if size is None else {"x-amz-if-match-size": str(size)}
            answer = driver.ask("DELETE", "/bucket/k", f"versionId={id}", headers)
            return "" if answer.status == 204 else answer.code
        entry: dict[str, Any] = {"Key": "k", "VersionId": id}
        entry |= {} if etag is None else {"ETag": etag}
        entry |= {} if size is None else {"Size": size}
        answer = driver.client().delete_objects(Bucket="bucket", Delete={"Objects": [entry]})
        return str(answer["Errors"][0]["Code"]) if "Errors" in answer else ""

    refused = [
        *(delete(old, etags[1]), delete(old, size=5), delete(old, etags[0], size=5)),
        *(delete(marker, "*"), delete(marker, size=0)),
    ]
    assert refused == ["PreconditionFailed"] * 5
    assert delete(ABSENT, etags[0]) == "NoSuchVersion" and delete(ABSENT, size=3) == ""
    assert [each[2] for each in versions(driver)] == [marker, new, old]
    assert (delete(old, etags[0], size=3), delete(new, "*")) == ("", "")
    assert [each[2] for each in versions(driver)] == [marker]


def test_del_2_of_the_null_version_is_decided_at_the_commit(driver: StoreDriver) -> None:
    etag = driver.put("k", b"old").headers["etag"]
    condition = {"if-match": etag}
    _, refused = driver.together(
        lambda: driver.ask("PUT", "/bucket/k", body=b"new"),
        lambda: driver.ask("DELETE", "/bucket/k", "versionId=null", condition),
    )
    assert refused.code == "PreconditionFailed"
    assert driver.ask("GET", "/bucket/k").body == b"new"


def test_del_3_entries_with_versions(driver: StoreDriver) -> None:
    client = driver.client()
    enable(driver)
    one, two = put(driver, "k", b"1"), put(driver, "k", b"2")
    objects = [{"Key": "k"}, {"Key": "k", "VersionId": one}, {"Key": "new"}]
    found = client.delete_objects(Bucket="bucket", Delete={"Objects": objects})["Deleted"]
    assert [each["Key"] for each in found] == ["k", "k", "new"]
    assert found[0]["DeleteMarker"] and "VersionId" not in found[0]
    assert found[1]["VersionId"] == one and "DeleteMarker" not in found[1]
    marker = found[0]["DeleteMarkerVersionId"]
    objects = [{"Key": "k", "VersionId": marker}, {"Key": "k", "VersionId": ABSENT}]
    found = client.delete_objects(Bucket="bucket", Delete={"Objects": objects})["Deleted"]
    assert found[0]["DeleteMarker"] and found[0]["DeleteMarkerVersionId"] == marker
    assert found[0]["VersionId"] == marker and found[1] == {"Key": "k", "VersionId": ABSENT}
    assert driver.ask("GET", "/bucket/k").headers["x-amz-version-id"] == two


def test_ver_1_and_2_interleaved_newest_first(driver: StoreDriver) -> None:
    driver.put("b", b"0")
    enable(driver)
    b1 = put(driver, "b", b"1")
    a1 = put(driver, "a", b"1")
    marker = driver.ask("DELETE", "/bucket/b").headers["x-amz-version-id"]
    b2 = put(driver, "b", b"2")
    expected = [
        ("Version", "a", a1, "true"),
        ("Version", "b", b2, "true"),
        ("DeleteMarker", "b", marker, "false"),
        ("Version", "b", b1, "false"),
        ("Version", "b", "null", "false"),
    ]
    assert versions(driver) == expected
    assert versions(driver, "&prefix=b&max-keys=2") == expected[1:3]


def test_ver_3_markers_of_pages(driver: StoreDriver) -> None:
    enable(driver)
    ids = [put(driver, key, b"x") for key in ("a", "b", "b", "b", "c")]
    expected = [(key, id) for key, id in zip("abbbc", [ids[0], *ids[3:0:-1], ids[4]], strict=True)]
    for size in (1, 2, 3, 5):
        got: list[tuple[str, str]] = []
        query = f"versions&max-keys={size}"
        while True:
            answer = driver.ask("GET", "/bucket", query)
            got += [(each[1], each[2]) for each in elements(answer)]
            if answer.text("IsTruncated") == "false":
                break
            key, id = answer.text("NextKeyMarker"), answer.text("NextVersionIdMarker")
            query = f"versions&max-keys={size}&key-marker={key}&version-id-marker={id}"
        assert got == expected
        assert answer.text("NextKeyMarker") is None
    assert [each[1:3] for each in versions(driver, "&key-marker=a")] == expected[1:]
    alone = driver.ask("GET", "/bucket", "versions&version-id-marker=null")
    assert alone.code == "InvalidArgument"
    bad = driver.ask("GET", "/bucket", "versions&key-marker=a&version-id-marker=bad_id")
    assert bad.code == "InvalidArgument", "VER-5"
    assert len(versions(driver, "&key-marker=a&version-id-marker=")) == 4


def test_ver_4_groups_of_markers(driver: StoreDriver) -> None:
    enable(driver)
    for key in ("dead/a", "live/a", "live/b", "plain"):
        put(driver, key, b"x")
    for key in ("dead/a", "live/a"):
        driver.ask("DELETE", f"/bucket/{key}")
    assert versions(driver, "&delimiter=%2F") == [
        ("Version", "plain", versions(driver, "&prefix=plain")[0][2], "true"),
        ("CommonPrefixes", "dead/"),
        ("CommonPrefixes", "live/"),
    ]
    listed = driver.ask("GET", "/bucket", "list-type=2&delimiter=%2F")
    assert listed.texts("Contents/Key") == ["plain"]
    assert listed.texts("CommonPrefixes/Prefix") == ["live/"]
    listed = driver.ask("GET", "/bucket", "list-type=2&max-keys=1")
    assert listed.texts("Contents/Key") == ["live/b"] and listed.text("IsTruncated") == "true"
    assert [each[1] for each in versions(driver, "&key-marker=live%2Fa&prefix=live")] == ["live/b"]
    page = driver.ask("GET", "/bucket", "versions&delimiter=%2F&max-keys=1")
    assert page.text("NextKeyMarker") == "dead/" and page.text("NextVersionIdMarker") is None
    rest = versions(driver, "&delimiter=%2F&key-marker=dead%2F")
    assert [each[1] for each in rest] == ["plain", "live/"]


def test_vst_6_concurrent_writers_all_survive(driver: StoreDriver) -> None:
    enable(driver)
    asks = [lambda n=n: driver.ask("PUT", "/bucket/k", body=b"%d" % n) for n in range(20)]
    answers = driver.together(*asks)
    ids = {answer.headers["x-amz-version-id"] for answer in answers}
    listed = versions(driver)
    assert {each[2] for each in listed} == ids and len(ids) == 20
    assert [each[3] for each in listed] == ["true", *["false"] * 19]


def test_mpu_6_a_completed_upload_is_a_version(driver: StoreDriver) -> None:
    enable(driver)
    client = driver.client()
    upload = client.create_multipart_upload(Bucket="bucket", Key="k", Tagging="a=b")["UploadId"]
    part = client.upload_part(Bucket="bucket", Key="k", UploadId=upload, PartNumber=1, Body=b"x")
    done = client.complete_multipart_upload(
        Bucket="bucket",
        Key="k",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    head = client.head_object(Bucket="bucket", Key="k")
    assert head["VersionId"] == done["VersionId"] and head["TagCount"] == 1
    upload = client.create_multipart_upload(Bucket="bucket", Key="to")["UploadId"]
    copied = client.upload_part_copy(
        Bucket="bucket",
        Key="to",
        UploadId=upload,
        PartNumber=1,
        CopySource={"Bucket": "bucket", "Key": "k", "VersionId": done["VersionId"]},
    )
    assert copied["CopySourceVersionId"] == done["VersionId"]


def test_boto3_tears_a_bucket_down(driver: StoreDriver) -> None:
    """Pages of versions, deleted as they are listed."""
    client: Any = driver.client()
    driver.put("a", b"null")
    enable(driver)
    for _ in range(3):
        for key in ("a", "b", "c"):
            put(driver, key, b"x")
            client.delete_object(Bucket="bucket", Key=key)
    pages = client.get_paginator("list_object_versions").paginate(
        Bucket="bucket", PaginationConfig={"PageSize": 4}
    )
    for page in pages:
        doomed = [
            {"Key": each["Key"], "VersionId": each["VersionId"]}
            for kind in ("Versions", "DeleteMarkers")
            for each in page.get(kind, [])
        ]
        answer = client.delete_objects(Bucket="bucket", Delete={"Objects": doomed})
        assert len(answer["Deleted"]) == len(doomed)
    client.delete_bucket(Bucket="bucket")


# -- tags -------------------------------------------------------------------------------------


def test_tag_2_tags_of_objects(driver: StoreDriver) -> None:
    client: Any = driver.client()
    before = driver.put("k", b"x").headers["etag"]
    assert client.get_object_tagging(Bucket="bucket", Key="k")["TagSet"] == []
    tags = [{"Key": "b", "Value": ""}, {"Key": "a", "Value": "x y"}]
    client.put_object_tagging(Bucket="bucket", Key="k", Tagging={"TagSet": tags})
    assert client.get_object_tagging(Bucket="bucket", Key="k")["TagSet"] == tags[::-1]
    got = driver.ask("GET", "/bucket/k")
    assert got.headers["x-amz-tagging-count"] == "2" and got.headers["etag"] == before
    assert driver.ask("GET", "/bucket", "list-type=2").texts("Contents/ETag") == [before]
    client.delete_object_tagging(Bucket="bucket", Key="k")
    assert "x-amz-tagging-count" not in driver.ask("HEAD", "/bucket/k").headers
    for query in ("tagging", f"tagging&versionId={ABSENT}"):
        code = "NoSuchKey" if query == "tagging" else "NoSuchVersion"
        body = b"<Tagging><TagSet></TagSet></Tagging>"
        assert driver.ask("GET", "/bucket/none", query).code == code
        assert driver.ask("PUT", "/bucket/none", query, body=body).code in (code, "NoSuchKey")
    assert driver.ask("PUT", "/bucket/k", "tagging", body=b"<Tagging/>").code == "MalformedXML"


def test_tag_2_each_version_has_its_tags(driver: StoreDriver) -> None:
    client: Any = driver.client()
    enable(driver)
    one = put(driver, "k", b"1", x_amz_tagging="n=1")
    two = put(driver, "k", b"2")
    named = {"Bucket": "bucket", "Key": "k", "VersionId": one}
    found = client.get_object_tagging(**named)
    assert found["TagSet"] == [{"Key": "n", "Value": "1"}] and found["VersionId"] == one
    assert client.get_object_tagging(Bucket="bucket", Key="k")["TagSet"] == []
    set_ = {"TagSet": [{"Key": "n", "Value": "2"}]}
    assert client.put_object_tagging(Tagging=set_, Bucket="bucket", Key="k")["VersionId"] == two
    assert client.delete_object_tagging(**named)["VersionId"] == one
    assert client.get_object_tagging(**named)["TagSet"] == []
    marker = client.delete_object(Bucket="bucket", Key="k")["VersionId"]
    with pytest.raises(ClientError) as refused:
        client.put_object_tagging(Tagging=set_, Bucket="bucket", Key="k", VersionId=marker)
    assert refused.value.response["Error"]["Code"] == "MethodNotAllowed"
    for query in ("tagging", f"tagging&versionId={marker}"):
        answer = driver.ask("DELETE", "/bucket/k", query)
        assert (answer.status, answer.headers["allow"]) == (405, "DELETE")
        assert answer.xml.findtext("Method") == "DELETE"
    assert len(versions(driver)) == 3


def test_tag_1_and_3_tags_in_headers(driver: StoreDriver) -> None:
    """PUT-4: form encoding, blanks as plus signs, ten tags. Nothing between two "&" is no tag."""
    driver.put("k", b"x", x_amz_tagging="&&")
    assert driver.ask("GET", "/bucket/k", "tagging").texts("TagSet/Tag/Key") == []
    driver.put("k", b"x", x_amz_tagging="a+b=c%2Bd&e=&")
    answer = driver.ask("GET", "/bucket/k", "tagging")
    assert answer.texts("TagSet/Tag/Key") == ["a b", "e"]
    assert answer.texts("TagSet/Tag/Value") == ["c+d", ""]
    many = "&".join(f"k{n}=v" for n in range(11))
    for value, code in (
        (many, "BadRequest"),
        ("a=1&a=2", "InvalidArgument"),
        ("=", "InvalidArgument"),
        ("k" * 129 + "=v", "InvalidTag"),
        ("k=" + "v" * 257, "InvalidTag"),
        ("aws:k=v", "InvalidTag"),
        ("a=%e9", "InvalidArgument"),
    ):
        headers = {"x-amz-tagging": value}
        assert driver.ask("PUT", "/bucket/k", headers=headers, body=b"y").code == code
    assert driver.ask("GET", "/bucket/k").body == b"x"


def test_a_bucket_with_versions_alone_says_what_keeps_it(driver: StoreDriver) -> None:
    enable(driver)
    driver.put("k", b"x")
    assert driver.ask("DELETE", "/bucket/k").status == 204
    answer = driver.ask("DELETE", "/bucket")
    assert (answer.status, answer.code) == (409, "BucketNotEmpty")
    assert "You must delete all versions in the bucket." in (answer.xml.findtext("Message") or "")
