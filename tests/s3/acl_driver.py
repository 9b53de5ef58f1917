"""Drivers with a bucket whose ACLs count, and short words for what tests of ACLs ask."""

from __future__ import annotations

import base64
import hashlib

from ingot.s3 import acl
from tests.s3.driver import OWNER, Driver
from tests.s3.test_configuration import put
from tests.s3.test_policy import policy

TAGS = b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"
WRITES = [
    ("PUT", "/bucket/new", "", {}),
    ("PUT", "/bucket/new", "", {"x-amz-copy-source": "bucket/key"}),
    ("POST", "/bucket/new", "uploads", {}),
]

ANYBODY = f'uri="{acl.ALL_USERS}"'
ACCOUNTS = f'uri="{acl.AUTHENTICATED_USERS}"'


def make(ownership="ObjectWriter", **headers):
    """A driver with a bucket that has an object, of an owner whose ACLs count."""
    made = Driver(default_ownership=ownership)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    assert made.ask("PUT", "/bucket", headers=named).status == 200
    made.put("key", b"bytes")
    return made


def set_acl(driver, path, account=OWNER, **headers):
    named = {f"x-amz-{name.replace('_', '-')}": value for name, value in headers.items()}
    answer = driver.ask("PUT", path, "acl", named, account=account)
    assert answer.status == 200, answer.body


def shown(driver, path="/bucket/key", query="acl", account=OWNER):
    """The owner and the grants of a document, groups by the end of their URI."""
    answer = driver.ask("GET", path, query, account=account)
    assert answer.status == 200, answer.body
    grants = [
        (grantee[-1].text.rpartition("/")[2] if len(grantee) == 1 else grantee[0].text, given.text)
        for grantee, given in answer.xml[1]
    ]
    return answer.text("Owner/ID"), grants


def private(account=OWNER):
    return account.id, [(account.id, "FULL_CONTROL")]


def status(driver, method, path, account, query="", **sent):
    return driver.ask(method, path, query, account=account, **sent).status


def sha256_of(body):
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


def set_policy(driver, effect, *actions, principal="*", **fields):
    statement = {
        "Effect": effect,
        "Principal": principal,
        "Action": [f"s3:{action}" for action in actions],
        "Resource": ["arn:aws:s3:::bucket", "arn:aws:s3:::bucket/*"],
        **fields,
    }
    assert put(driver, "policy", policy(statement)).status == 204


def grants_document(*grants, owner=OWNER.id):
    rows = "".join(
        f'<Grant><Grantee xmlns:xsi="{acl.XSI}" xsi:type="{kind}">{content}</Grantee>'
        f"<Permission>{permission}</Permission></Grant>"
        for kind, content, permission in grants
    )
    return (
        f"<AccessControlPolicy><Owner><ID>{owner}</ID></Owner>"
        f"<AccessControlList>{rows}</AccessControlList></AccessControlPolicy>"
    ).encode()
