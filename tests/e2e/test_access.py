"""Browsers and strangers: preflights, answers to other sites' pages, requests without a signature;
over sockets, where nothing of the express lane may know better."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest
from botocore.exceptions import ClientError


def ask(url, method="GET", data=None, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data, named, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def policy(bucket, effect, *actions, **fields):
    statement = {
        "Effect": effect,
        "Principal": "*",
        "Action": [f"s3:{action}" for action in actions],
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        **fields,
    }
    return json.dumps({"Statement": statement})


def test_a_page_of_another_site(gateway, client, bucket):
    rule = {
        "AllowedOrigins": ["https://*.example"],
        "AllowedMethods": ["PUT", "GET"],
        "AllowedHeaders": ["*"],
        "ExposeHeaders": ["ETag"],
    }
    client.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
    url = f"{gateway.url}/{bucket}/k"
    asked = {"Access_Control_Request_Method": "PUT", "Access_Control_Request_Headers": "x-amz-date"}
    status, headers, body = ask(url, "OPTIONS", Origin="https://a.example", **asked)
    assert (status, body) == (200, b"")
    assert headers["Access-Control-Allow-Origin"] == "https://a.example"
    assert headers["Access-Control-Allow-Headers"] == "x-amz-date"
    status, headers, _ = ask(url, "OPTIONS", Origin="https://b.org", **asked)
    assert status == 403 and "Access-Control-Allow-Origin" not in headers
    client.put_object(Bucket=bucket, Key="k", Body=b"bytes")
    url = client.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "k"})
    status, headers, body = ask(url, Origin="https://a.example")
    assert (status, body) == (200, b"bytes")
    assert headers["Access-Control-Allow-Origin"] == "https://a.example"
    assert headers["Access-Control-Expose-Headers"] == "ETag"
    status, headers, _ = ask(url + "0", Origin="https://a.example")
    assert status == 403 and headers["Access-Control-Allow-Origin"] == "https://a.example"


def test_a_public_bucket(gateway, client, bucket):
    url = f"{gateway.url}/{bucket}"
    client.put_object(Bucket=bucket, Key="k", Body=b"bytes")
    assert ask(f"{url}/k")[0] == 403
    client.put_bucket_policy(Bucket=bucket, Policy=policy(bucket, "Allow", "GetObject"))
    assert ask(f"{url}/k")[::2] == (200, b"bytes")
    assert ask(f"{url}/k", "PUT", b"other")[0] == ask(url)[0] == 403
    status = client.get_bucket_policy_status(Bucket=bucket)
    assert status["PolicyStatus"] == {"IsPublic": True}
    source = {"IpAddress": {"aws:SourceIp": "127.0.0.1"}}
    allowed = policy(bucket, "Allow", "PutObject", Condition=source)
    client.put_bucket_policy(Bucket=bucket, Policy=allowed)
    assert ask(f"{url}/new", "PUT", b"new")[0] == 200
    assert client.get_object(Bucket=bucket, Key="new")["Body"].read() == b"new"
    elsewhere = {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}
    denied = policy(bucket, "Allow", "PutObject", Condition=elsewhere)
    client.put_bucket_policy(Bucket=bucket, Policy=denied)
    assert ask(f"{url}/new", "PUT", b"newer")[0] == 403
    client.delete_bucket_policy(Bucket=bucket)
    assert ask(f"{url}/k")[0] == 403


def test_a_denial_holds_for_everyday_requests(client, bucket):
    """Which the owner's are, and which had been answered in the express lane."""
    for _ in range(3):
        client.put_object(Bucket=bucket, Key="k", Body=b"bytes")
        client.get_object(Bucket=bucket, Key="k")
    denied = policy(bucket, "Deny", "GetObject", "PutObject")
    client.put_bucket_policy(Bucket=bucket, Policy=denied)
    for _ in range(3):
        with pytest.raises(ClientError, match="AccessDenied"):
            client.put_object(Bucket=bucket, Key="k", Body=b"other")
        with pytest.raises(ClientError, match="AccessDenied"):
            client.get_object(Bucket=bucket, Key="k")
    client.delete_bucket_policy(Bucket=bucket)
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"bytes"
