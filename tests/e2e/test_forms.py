"""Form uploads over sockets: forms as boto3 makes them, and as a raw socket can break them."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import io
import json
import os
import socket
from urllib.parse import urlsplit

import aiohttp
import boto3
import pytest
import urllib3
from botocore.config import Config as BotoConfig
from botocore.exceptions import ClientError

from tests.support import form
from tests.support.client import Answer


def send(gateway, bucket, body, *, cut=False, length=None, pieces=1, expect=False):
    """POST ``body`` over a socket of its own: in pieces, or cut off without an end."""
    parts = urlsplit(gateway.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = (
            f"POST /{bucket} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {form.TYPE}\r\n"
            f"Content-Length: {len(body) if length is None else length}\r\n"
            + ("Expect: 100-continue\r\n" if expect else "")
            + "\r\n"
        )
        raw.sendall(head.encode())
        if expect:
            assert raw.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        step = -(-len(body) // pieces)
        try:
            for at in range(0, len(body), step):
                raw.sendall(body[at : at + step])
            if cut:
                raw.shutdown(socket.SHUT_WR)
        except ConnectionError:
            assert not cut
        response = http.client.HTTPResponse(raw, method="POST")
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())


def keys(client, bucket):
    return [e["Key"] for e in client.list_objects_v2(Bucket=bucket).get("Contents", [])]


@pytest.fixture
def anybody(client, bucket):
    """A bucket in which anybody may put objects."""
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Statement": [statement]}))
    return bucket


@pytest.mark.parametrize("version", [None, "s3v4"])
def test_a_form_of_boto3(gateway, client, bucket, version):
    """Without a word about signatures boto3 signs forms for us-east-1 by HMAC-SHA1."""
    config = BotoConfig(s3={"addressing_style": "path"}, signature_version=version)
    signer = boto3.client("s3", endpoint_url=gateway.url, config=config, **gateway.boto())
    made = signer.generate_presigned_post(
        bucket,
        "in/${filename}",
        Fields={"Content-Type": "image/png", "success_action_status": "201"},
        Conditions=[
            ["starts-with", "$Content-Type", "image/"],
            {"success_action_status": "201"},
            ["content-length-range", 1, 1000],
        ],
    )
    signer.close()
    assert made["url"].rstrip("/") == f"{gateway.url}/{bucket}"
    assert ("x-amz-signature" in made["fields"]) == (version == "s3v4")
    answer = send(gateway, bucket, form.encode(made["fields"], b"\x89PNG", "a.png"))
    assert answer.status == 201 and b"<Key>in/a.png</Key>" in answer.body
    found = client.get_object(Bucket=bucket, Key="in/a.png")
    assert (found["Body"].read(), found["ContentType"]) == (b"\x89PNG", "image/png")
    assert answer.headers["etag"] == found["ETag"]
    assert send(gateway, bucket, form.encode(made["fields"], bytes(1001))).code == "EntityTooLarge"
    assert send(gateway, bucket, form.encode(made["fields"], b"")).code == "EntityTooSmall"
    assert keys(client, bucket) == ["in/a.png"]


def test_forms_as_libraries_write_them(gateway, client, anybody):
    """Each in its own way: lengths and types of parts, file names in every field, escapes."""
    fields = {"key": "${filename}", "x-amz-meta-word": "ä b"}
    body, kind = urllib3.encode_multipart_formdata({**fields, "file": ("ä 1.txt", b"one")})
    connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=20)
    connection.request("POST", f"/{anybody}", body, {"Content-Type": kind})
    assert connection.getresponse().status == 204
    connection.close()

    async def send() -> int:
        made = aiohttp.FormData(fields, quote_fields=False)
        made.add_field("file", io.BytesIO(b"two"), filename="ä 2.txt")
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{gateway.url}/{anybody}", data=made) as answer:
                return answer.status

    assert asyncio.run(send()) == 204
    assert keys(client, anybody) == ["ä 1.txt", "ä 2.txt"]
    for key in keys(client, anybody):
        found = client.head_object(Bucket=anybody, Key=key)
        assert found["Metadata"]["word"].encode("latin-1").decode() == "ä b"


def test_a_large_file_is_streamed(gateway, client, anybody):
    data = os.urandom(1 << 20) * 9 + b"end"
    answer = send(gateway, anybody, form.encode({"key": "k"}, data), pieces=700)
    assert answer.status == 204
    assert answer.headers["etag"] == f'"{hashlib.md5(data).hexdigest()}"'
    assert client.get_object(Bucket=anybody, Key="k")["Body"].read() == data


def test_a_boundary_in_many_packets(gateway, client, anybody):
    data = b"\r\n--" + form.BOUNDARY.encode()[:-1] + b"\r\n----"
    answer = send(gateway, anybody, form.encode({"key": "k"}, data), pieces=120, expect=True)
    assert answer.status == 204
    assert client.get_object(Bucket=anybody, Key="k")["Body"].read() == data


@pytest.mark.parametrize("kept", [40, 150, 300, 40_000])
def test_a_connection_that_is_cut(gateway, client, anybody, kept):
    body = form.encode({"key": "k"}, bytes(50_000))
    answer = send(gateway, anybody, body[:kept], length=len(body), cut=True)
    assert (answer.status, answer.code) == (400, "IncompleteBody")
    assert keys(client, anybody) == []


@pytest.mark.parametrize("lost", [4, 20, 60])
def test_a_form_without_its_end(gateway, client, anybody, lost):
    answer = send(gateway, anybody, form.encode({"key": "k"}, bytes(50_000))[:-lost])
    assert (answer.status, answer.code) == (400, "MalformedPOSTRequest")
    assert keys(client, anybody) == []


def test_a_field_without_end_is_not_held(gateway, client, anybody):
    body = form.encode({"key": "k", "x-amz-meta-a": "v" * 8_000_000})
    answer = send(gateway, anybody, body)
    assert (answer.status, answer.code) == (400, "MaxPostPreDataLengthExceededError")
    assert keys(client, anybody) == []


def test_a_file_over_its_range_is_refused_early_and_leaves_nothing(gateway, client, bucket):
    encoded = form.policy(
        {"bucket": bucket}, ["starts-with", "$key", ""], ["content-length-range", 0, 1 << 20]
    )
    fields = form.sign_v2(encoded, gateway.access_key, gateway.secret_key)
    body = form.encode({"key": "k", **fields}, bytes(12 << 20))
    answer = send(gateway, bucket, body)
    assert (answer.status, answer.code) == (400, "EntityTooLarge")
    assert keys(client, bucket) == []
    with pytest.raises(ClientError, match="404"):
        client.head_object(Bucket=bucket, Key="k")


def test_a_form_in_a_bucket_with_versions(gateway, client, anybody):
    client.put_bucket_versioning(Bucket=anybody, VersioningConfiguration={"Status": "Enabled"})
    made = [send(gateway, anybody, form.encode({"key": "k"}, data)) for data in (b"1", b"2")]
    listed = client.list_object_versions(Bucket=anybody)["Versions"]
    assert [v["VersionId"] for v in listed] == [a.headers["x-amz-version-id"] for a in made[::-1]]


def test_a_page_of_another_site_sees_the_answer(gateway, client, anybody):
    rule = {"AllowedOrigins": ["https://a.example"], "AllowedMethods": ["POST"]}
    client.put_bucket_cors(Bucket=anybody, CORSConfiguration={"CORSRules": [rule]})
    connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=20)
    for fields, status in (({"key": "k"}, 204), ({}, 400)):
        headers = {"Content-Type": form.TYPE, "Origin": "https://a.example"}
        connection.request("POST", f"/{anybody}", form.encode(fields), headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
        assert answer.getheader("Access-Control-Allow-Origin") == "https://a.example"
    connection.close()
