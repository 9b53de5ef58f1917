"""A host with accounts and decisions of its own, over sockets and with boto3."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
from botocore.exceptions import ClientError

from ingot import AccessQuestion, Account, Decision, accounts
from ingot.testing import ACCESS_KEY, SECRET_KEY, Gateway
from tests.e2e.conftest import make_client
from tests.e2e.test_forms import send
from tests.support import form
from tests.support.client import Client

MINE = Account(ACCESS_KEY, SECRET_KEY, "a" * 64, "mine")


class People:
    def __init__(self) -> None:
        self.known = {MINE.access_key: MINE}
        self.fails = False
        self.asked = 0

    async def get(self, access_key: str) -> Account | None:
        self.asked += 1
        if self.fails:
            raise ConnectionError("the host's database is away")
        return self.known.get(access_key)


class Judge:
    def __init__(self) -> None:
        self.denied: set[str] = set()

    def decide(self, asked: AccessQuestion) -> Decision:
        return Decision.DENY if asked.action in self.denied else Decision.USUAL


@pytest.fixture
def people() -> People:
    return People()


@pytest.fixture
def gateway(people: People) -> Iterator[Gateway]:
    with Gateway(accounts=people) as running:
        yield running


def test_accounts_of_the_host(gateway, people, monkeypatch):
    lifetimes = {"ACCOUNT_LIFETIME_S": 3600.0, "UNKNOWN_KEY_LIFETIME_S": 0.2}
    for name, seconds in lifetimes.items():
        monkeypatch.setattr(accounts, name, seconds)
    client = make_client(gateway)
    client.create_bucket(Bucket="mine")
    owner = client.list_buckets()["Owner"]
    assert (owner["ID"], owner["DisplayName"]) == (MINE.id, MINE.display_name)
    for _ in range(4):
        client.put_object(Bucket="mine", Key="k", Body=b"bytes")
        assert client.get_object(Bucket="mine", Key="k")["Body"].read() == b"bytes"
    assert people.asked == 1
    assert gateway.server.http is not None
    assert gateway.server.http.counters.express >= 3, "a held account goes by the express lane"
    raw = Client(gateway.url, ACCESS_KEY, SECRET_KEY)
    stranger = Client(gateway.url, "NOBODY", SECRET_KEY)
    assert stranger.get("/mine/k").code == "InvalidAccessKeyId"
    people.known["NOBODY"] = Account("NOBODY", SECRET_KEY, "b" * 64, "new")
    while (code := stranger.get("/mine/k").code) == "InvalidAccessKeyId":
        pass  # for a fifth of a second
    assert code == "AccessDenied"
    allowed = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::mine/*"}
    for principal, code in (("NOBODY", "MalformedPolicy"), ("b" * 64, "")):
        policy = json.dumps({"Statement": {**allowed, "Principal": {"AWS": principal}}})
        answer = raw.request("PUT", "/mine", policy.encode(), query="policy=")
        assert answer.code == code, "policies name ids here, which are known without a look-up"
    assert stranger.get("/mine/k").body == b"bytes"
    people.known["CAROL"] = Account("CAROL", SECRET_KEY, MINE.id, "another key of the same")
    signed = form.sign_v2(form.policy({"bucket": "mine"}, {"key": "f"}), "CAROL", SECRET_KEY)
    assert send(gateway, "mine", form.encode({"key": "f", **signed})).status == 204


def test_a_revoked_key_and_a_store_that_is_away(gateway, people, monkeypatch):
    monkeypatch.setattr(accounts, "ACCOUNT_REFRESH_S", 0.0)  # nor asked about before its end
    monkeypatch.setattr(accounts, "ACCOUNT_LIFETIME_S", 0.0)  # over as soon as it was asked about
    raw = Client(gateway.url, ACCESS_KEY, SECRET_KEY)
    assert raw.get("/").status == 503, "what has run out is never believed"
    monkeypatch.setattr(accounts, "ACCOUNT_LIFETIME_S", 0.25)
    assert raw.request("PUT", "/mine").status == raw.put("/mine/k", b"bytes").status == 200
    assert gateway.server.http is not None
    counters = gateway.server.http.counters
    client = make_client(gateway)

    def read():
        client.get_object(Bucket="mine", Key="k")["Body"].read()

    def refusal():
        """What a client hears that goes on asking for a quarter of a second."""
        before = counters.express
        with pytest.raises(ClientError) as caught:
            while True:
                read()
        assert counters.express > before, "it was served by the express lane until then"
        return caught.value.response["Error"]["Code"]

    read()
    people.fails = True
    assert refusal() == "ServiceUnavailable"
    answer = raw.get("/mine/k")
    assert (answer.status, answer.code) == (503, "ServiceUnavailable")
    assert int(answer.headers["retry-after"]) >= 1
    people.fails = False
    read()
    del people.known[ACCESS_KEY]
    assert refusal() == "InvalidAccessKeyId"
    client.close()


def test_another_secret_of_a_key_ends_the_old_one(gateway, people, monkeypatch):
    """In the express lane too, which remembers what was signed with the old one."""
    monkeypatch.setattr(accounts, "ACCOUNT_REFRESH_S", 0.0)
    monkeypatch.setattr(accounts, "ACCOUNT_LIFETIME_S", 0.25)
    old, new = (Client(gateway.url, ACCESS_KEY, secret) for secret in (SECRET_KEY, "another one"))
    assert old.request("PUT", "/mine").status == 200
    assert gateway.server.http is not None
    counters = gateway.server.http.counters
    while not counters.express:
        assert old.put("/mine/k", b"bytes").status == 200
    monkeypatch.setattr(accounts, "ACCOUNT_LIFETIME_S", 3600.0)  # of what is looked up from here on
    people.known[ACCESS_KEY] = replace(MINE, secret_key="another one")
    while (answer := old.get("/mine/k")).status == 200:
        pass  # for a quarter of a second
    assert answer.code == "SignatureDoesNotMatch"
    for _ in range(3):
        assert old.put("/mine/k", b"old").code == "SignatureDoesNotMatch"
        assert old.get("/mine/k").code == "SignatureDoesNotMatch"
    for _ in range(3):
        assert new.get("/mine/k").body == b"bytes"


def test_a_host_that_decides():
    judge = Judge()
    with Gateway(authorizer=judge) as gateway:
        client = make_client(gateway)
        client.create_bucket(Bucket="bucket")
        for _ in range(3):
            client.put_object(Bucket="bucket", Key="k", Body=os.urandom(10))
        judge.denied.add("s3:PutObject")
        with pytest.raises(ClientError, match="AccessDenied"):
            client.put_object(Bucket="bucket", Key="k", Body=b"x")
        client.get_object(Bucket="bucket", Key="k")["Body"].read()
        assert gateway.server.http is not None
        assert gateway.server.http.counters.express == 0
