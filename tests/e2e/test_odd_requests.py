"""Requests no library makes, sent raw to a whole gateway: each has a well-formed answer."""

from __future__ import annotations

import base64
import os
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import pytest

from ingot.testing import Gateway
from tests.support.client import Client

ODD = ["", "%00", "%FF", "%ED%A0%80", "%2F", "%2F%2F", "%01", "a" * 3000, quote("é"), "%25", "%2A"]


@pytest.fixture
def raw(gateway: Gateway) -> Iterator[Client]:
    client = Client(gateway.url, gateway.access_key, gateway.secret_key, gateway.region)
    yield client
    client.close()


def checked(answer: Any) -> Any:
    """The answer, if it is no server error and its document, if any, is one."""
    assert answer.status < 500 or answer.status == 501, answer
    assert answer.headers["x-amz-request-id"]
    if answer.headers.get("content-type") == "application/xml" and answer.body:
        ElementTree.fromstring(answer.body)
    return answer


@pytest.mark.parametrize("name", ["prefix", "delimiter", "marker", "start-after", "key-marker"])
@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_listings(raw, client, bucket, name, value):
    for key in ("a", "a/b", "é", "~"):
        client.put_object(Bucket=bucket, Key=key, Body=b"x")
    for kind in ("", "list-type=2&", "versions&"):
        query = f"{kind}encoding-type=url&{name}={value}"
        answer = checked(raw.get(f"/{bucket}", query))
        assert answer.status == 200, answer
        more = "max-keys=1" if name == "delimiter" else "delimiter=%2F&max-keys=1"
        assert checked(raw.get(f"/{bucket}", f"{query}&{more}")).status == 200


def test_continuation_tokens_that_we_never_issued(raw, bucket, client):
    client.put_object(Bucket=bucket, Key="k", Body=b"x")
    for kind in (b"k", b"g"):
        for key in (b"\0", b"\xff\xff", b"k" * 2000, b"/", b"j\xff"):
            token = base64.urlsafe_b64encode(b"\x01" + kind + key).decode().rstrip("=")
            for more in ("", "&delimiter=%2F", "&prefix=k"):
                query = f"list-type=2&continuation-token={token}{more}"
                assert checked(raw.get(f"/{bucket}", query)).status == 200


def test_bodies_where_none_belongs(raw, bucket):
    """HTTP-8: they are read away, and the connection goes on."""
    body = os.urandom(20_000)
    length = {"content-length": str(len(body))}
    for method, path, status in (
        ("GET", f"/{bucket}", 200),
        ("DELETE", f"/{bucket}/k", 204),
        ("GET", f"/{bucket}/none", 404),
        ("GET", "/", 200),
    ):
        assert checked(raw.request(method, path, body, length)).status == status


@pytest.mark.parametrize("length", ["", "-1", "x", "1x"])
def test_lengths_that_are_none(raw, bucket, length):
    answer = raw.request("PUT", f"/{bucket}/k", b"", {"content-length": length})
    assert answer.status == 400
    assert ElementTree.fromstring(answer.body).tag == "Error"


def test_absolute_and_encoded_targets(raw, bucket, client):
    client.put_object(Bucket=bucket, Key="k", Body=b"x")
    encoded = "%" + f"{ord(bucket[0]):02X}" + bucket[1:]
    assert checked(raw.get(f"/{encoded}/k")).body == b"x"
    assert checked(raw.get(f"/{bucket}/%6B")).body == b"x"
    assert checked(raw.get(f"/{bucket}/%6b")).body == b"x"


def test_expect_and_content_type_oddities(raw, bucket):
    """AUTH-5: an Expect that is none, an empty or odd Content-Type are no errors."""
    for headers in ({"expect": "200"}, {"expect": ""}, {"content-type": ""}, {"content-type": "?"}):
        headers = {**headers, "content-length": "1"}
        assert checked(raw.request("PUT", f"/{bucket}/k", b"x", headers)).status == 200


def test_head_of_everything_has_no_body(raw, bucket):
    for path in ("/", f"/{bucket}", f"/{bucket}/none", "/Bad_Name", "/absent-bucket"):
        assert checked(raw.request("HEAD", path)).body == b""


def test_a_document_in_http_chunks(raw, bucket, client):
    """DeleteObjects whose length is not known before it ends."""
    client.put_object(Bucket=bucket, Key="k", Body=b"x")
    body = b"<Delete><Object><Key>k</Key></Object></Delete>"
    crc = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
    headers = raw.sign("POST", f"/{bucket}", "delete", {"x-amz-checksum-crc32": crc})
    raw.connection.request(
        "POST", f"/{bucket}?delete", iter([body[:9], body[9:]]), headers, encode_chunked=True
    )
    response = raw.connection.getresponse()
    assert response.status == 200 and b"<Key>k</Key>" in response.read()
    assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
