"""Who signed a form upload: Signature Version 4 over its policy, or the HMAC-SHA1 of before. Pure.

The string that is signed is the policy in base64, as it was sent. So the signature says whose the
policy is, and ``ingot.s3.form_policy`` what it allows. A form with none of these fields is
anonymous; one with some of them is refused. Called by ``Authenticator.authenticate_form``.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from ingot._speedups import sigv4
from ingot.s3.errors import S3Error
from ingot.s3.sigv4 import (
    EXPIRES_S_MAX,
    Credential,
    check_window,
    day_error,
    parse_credential,
    text,
)

if TYPE_CHECKING:
    from ingot._speedups.sigv4_py import SigningKey

POLICY: Final = "policy"
TOKEN: Final = "x-amz-security-token"
V4: Final = (POLICY, "x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature")
V2: Final = ("awsaccesskeyid", POLICY, "signature")
TWO: Final = "Only one auth mechanism allowed; the form holds the fields of two"
_SHOWN: Final = {"awsaccesskeyid": "AWSAccessKeyId"}

Fields = Mapping[str, bytes]


class Claim(NamedTuple):
    """What a form says of its signer. ``credential`` is None for the signature by HMAC-SHA1."""

    access_key: str
    policy: bytes
    signature: bytes
    stamp: bytes = b""
    credential: Credential | None = None


def missing_field(name: str) -> S3Error:
    return S3Error(
        "InvalidArgument",
        f"Bucket POST must contain a field named '{_SHOWN.get(name, name)}'.  If it is specified, "
        "please check the order of the fields.",
        ArgumentName=_SHOWN.get(name, name),
        ArgumentValue="",
    )


def read_claim(fields: Fields) -> Claim | None:
    """The fields of a signature, their form checked; None where there are none of them."""
    older = any(name in fields for name in V2 if name != POLICY)
    if any(name in fields for name in V4 if name != POLICY) and older:
        raise S3Error("InvalidArgument", TWO, ArgumentName="x-amz-signature")
    if not older and POLICY not in fields and not any(name in fields for name in V4):
        return None
    for name in V2 if older else V4:
        if name not in fields:
            raise missing_field(name)
    if older:
        access_key = text(fields["awsaccesskeyid"])
        return Claim(access_key, fields[POLICY], fields["signature"])
    if fields["x-amz-algorithm"] != sigv4.ALGORITHM:
        raise _bad("x-amz-algorithm", 'only "AWS4-HMAC-SHA256" is supported', fields)
    stamp = fields["x-amz-date"]
    if sigv4.parse_stamp(stamp) < 0:
        raise _bad("x-amz-date", "it must be in the form \"yyyyMMdd'T'HHmmss'Z'\"", fields)

    def malformed(detail: str) -> S3Error:
        return _bad("x-amz-credential", detail, fields)

    credential = parse_credential(fields["x-amz-credential"], malformed)
    if credential.date != stamp[:8]:
        raise day_error(credential.date, stamp, malformed)
    signature = fields["x-amz-signature"]
    return Claim(credential.access_key, fields[POLICY], signature, stamp, credential)


def region_refused(claim: Claim, region: str, fields: Fields) -> S3Error:
    """The error of a credential for another region; it names the right one."""
    assert claim.credential is not None
    error = _bad(
        "x-amz-credential",
        f"the region '{text(claim.credential.region)}' is wrong; expecting '{region}'",
        fields,
    )
    error.elements["Region"] = region
    return error


def verify(claim: Claim, secret_key: str, key: SigningKey | None, now_ms: int) -> None:
    """AccessDenied for a signature of another week, SignatureDoesNotMatch. ``key`` is the one that
    the credential names, None for a signature by HMAC-SHA1."""
    if key is not None:
        check_window(now_ms, sigv4.parse_stamp(claim.stamp), EXPIRES_S_MAX)
        ours = key.sign(claim.policy)
    else:
        digest = hmac.digest(secret_key.encode(), claim.policy, "sha1")
        ours = base64.b64encode(digest)
    if not sigv4.equal(ours, claim.signature):
        elements = {
            "AWSAccessKeyId": claim.access_key,
            "StringToSign": text(claim.policy),
            "SignatureProvided": text(claim.signature),
            "StringToSignBytes": claim.policy.hex(" "),
        }
        raise S3Error("SignatureDoesNotMatch", headers=(), **elements)


def _bad(name: str, detail: str, fields: Fields) -> S3Error:
    return S3Error(
        "InvalidArgument",
        f"Error parsing the {name} field; {detail}",
        ArgumentName=name,
        ArgumentValue=text(fields[name]),
    )
