"""The parts of a signed request: credential, times, signed names; and what is wrong with them.

Called by ``ingot.s3.auth``, which holds the order of the checks. The arithmetic of signatures is in
``ingot._speedups.sigv4``. Each error says what AWS would say, in AWS's words where they are known:
clients parse some of them, conformance suites compare most. Pure; the time is an argument.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from ingot._speedups import sigv4
from ingot.limits import CLOCK_SKEW_MS_MAX, HEADER_COUNT_MAX
from ingot.messages import Header, Request
from ingot.s3.errors import S3Error

SKEW_MS: Final = CLOCK_SKEW_MS_MAX
EXPIRES_S_MAX: Final = 7 * 24 * 3600
EXPLAINED_BYTES_MAX: Final = 16 * 1024  # a longer canonical request is not sent back

SPACE_REQUIRED = "Authorization header is invalid -- one and only one ' ' (space) required"
MECHANISM_REFUSED = (
    "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
)
CREDENTIAL_FORM = (
    'the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".'
)
DATE_REQUIRED = "AWS authentication requires a valid Date or x-amz-date header"
NAMES_FORM = "the SignedHeaders are mal-formed; expecting lower-case names, each once."
TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
HTTP_DATE = re.compile(
    rb"(?:[A-Z][a-z]{2}, )?(\d{1,2}) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) "
    rb"(?:GMT|UTC|[+-]0000)"
)

CONTROLS = bytes(code for code in (*range(32), 127) if code != 9)
NO_XML = {code: 0xFFFD for code in (*range(32), 0xFFFE, 0xFFFF) if code not in (9, 10, 13)}
REQUIRED = (
    b"X-Amz-Algorithm",
    b"X-Amz-Credential",
    b"X-Amz-Signature",
    b"X-Amz-Date",
    b"X-Amz-SignedHeaders",
    b"X-Amz-Expires",
)
SIGV2 = (b"AWSAccessKeyId", b"Signature")
TWO_MECHANISMS = frozenset((b"X-Amz-Algorithm", b"X-Amz-Credential", b"X-Amz-Signature", *SIGV2))
NOT_HOISTED = frozenset(name.lower() for name in REQUIRED) | {
    b"x-amz-security-token",
    b"x-amz-content-sha256",
}

Query = list[tuple[bytes, bytes]]
Malformed = Callable[[str], S3Error]


class Credential(NamedTuple):
    """A credential whose form is right; ``scope`` is all of it but the access key."""

    access_key: str
    date: bytes
    region: bytes
    scope: bytes


def header_malformed(detail: str) -> S3Error:
    return S3Error(
        "AuthorizationHeaderMalformed", f"The authorization header is malformed; {detail}"
    )


def query_malformed(detail: str) -> S3Error:
    return S3Error(
        "AuthorizationQueryParametersError",
        f"Error parsing the X-Amz-Credential parameter; {detail}",
    )


def text(data: bytes) -> str:
    """Bytes of a client for an error document, without what no XML document may hold."""
    return data.decode("utf-8", "replace").translate(NO_XML)


def iso_time(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def authorization_error(value: bytes) -> S3Error:
    """Why ``split_authorization`` refused ``value``."""
    scheme, space, rest = value.partition(b" ")
    if space and scheme == b"AWS":
        return S3Error("InvalidRequest", MECHANISM_REFUSED)
    if not space or not rest or rest.startswith(b" "):
        return S3Error("InvalidArgument", SPACE_REQUIRED, ArgumentName="Authorization")
    if scheme != sigv4.ALGORITHM:
        return S3Error(
            "InvalidArgument", "Unsupported Authorization Type", ArgumentName="Authorization"
        )
    parts = [part.strip(b" \t").partition(b"=") for part in rest.split(b",")]
    if len(parts) != 3:
        return header_malformed(
            "the authorization header requires three components: Credential, SignedHeaders, and "
            "Signature."
        )
    values = {name: value for name, _, value in parts}
    for name in (b"Credential", b"SignedHeaders", b"Signature"):
        if name not in values:
            return header_malformed(f"missing {name.decode()}.")
    if not values[b"Credential"]:
        return header_malformed(CREDENTIAL_FORM)
    empty = "SignedHeaders" if not values[b"SignedHeaders"] else "Signature"
    return header_malformed(f"a non-empty {empty} must be provided.")


def parse_credential(credential: bytes, malformed: Malformed) -> Credential:
    """Split from the right, since an access key may hold a slash elsewhere than on AWS."""
    parts = credential.rsplit(b"/", 4)
    if len(parts) != 5:
        raise malformed(CREDENTIAL_FORM)
    access_key, date, region, service, terminator = parts
    if not access_key:
        raise malformed("a non-empty Access Key (AKID) must be provided in the credential.")
    if service != b"s3":
        raise malformed(f'incorrect service "{text(service)}". This endpoint belongs to "s3".')
    if terminator != b"aws4_request":
        raise malformed(
            f'incorrect terminal "{text(terminator)}". This endpoint uses "aws4_request".'
        )
    if sigv4.parse_stamp(date + b"T000000Z") < 0:
        raise malformed(
            f'incorrect date format "{text(date)}". This date in the credential must be in the '
            'format "yyyyMMdd".'
        )
    scope = b"/".join(parts[1:])
    return Credential(text(access_key), date, region, scope)


def region_error(found: bytes, region: str, malformed: Malformed) -> S3Error:
    """Carries the right region, which clients read and retry with: of the answer to a HEAD, which
    has no document, from the header."""
    error = malformed(f"the region '{text(found)}' is wrong; expecting '{region}'")
    error.elements["Region"] = region
    error.headers = (region_header(region),)
    return error


def region_header(region: str) -> Header:
    return (b"x-amz-bucket-region", region.encode())


def day_error(date: bytes, stamp: bytes, malformed: Malformed) -> S3Error:
    return malformed(
        f'Invalid credential date "{text(date)}". This date is not the same as X-Amz-Date: '
        f'"{text(stamp[:8])}".'
    )


def parse_names(listed: bytes, malformed: Malformed) -> tuple[bytes, ...]:
    """The signed header names in the order sent.

    Each may stand there once, so that a canonical request is never much longer than its request.
    """
    names = tuple(listed.split(b";"))
    if (
        len(names) > HEADER_COUNT_MAX
        or b"" in names
        or len(set(names)) != len(names)
        or listed.translate(None, TOKEN + b";")
    ):
        raise malformed(NAMES_FORM)
    return names


def dated(index: dict[bytes, bytes]) -> tuple[bytes, int]:
    """The time of a request without ``X-Amz-Date``: ``Date`` as a stamp and in unix milliseconds.

    It may be written either way; -1 where it is not there or not a date.
    """
    date = index.get(b"date", b"")
    match = HTTP_DATE.fullmatch(date)
    if match is None:
        return date, sigv4.parse_stamp(date)
    day, month, year, hour, minute, second = match.groups()
    if month not in MONTHS:
        return date, -1
    number = MONTHS.index(month) + 1
    stamp = b"%b%02d%02dT%b%b%bZ" % (year, number, int(day), hour, minute, second)
    return stamp, sigv4.parse_stamp(stamp)


def unknown_key(access_key: str) -> S3Error:
    return S3Error("InvalidAccessKeyId", AWSAccessKeyId=access_key)


def skew_error(stamp: bytes, now_ms: int) -> S3Error:
    return S3Error(
        "RequestTimeTooSkewed",
        RequestTime=text(stamp),
        ServerTime=iso_time(now_ms),
        MaxAllowedSkewMilliseconds=str(SKEW_MS),
    )


def not_signed_error(missing: list[bytes]) -> S3Error:
    return S3Error(
        "AccessDenied",
        "There were headers present in the request which were not signed",
        HeadersNotSigned=", ".join(text(name) for name in missing),
    )


def mismatch_error(access_key: str, signature: bytes, string: bytes, canonical: bytes) -> S3Error:
    """What the server signed, so that the author of a client can see where the two part."""
    elements = {
        "AWSAccessKeyId": access_key,
        "StringToSign": text(string),
        "SignatureProvided": text(signature),
        "StringToSignBytes": string.hex(" "),
    }
    if len(canonical) <= EXPLAINED_BYTES_MAX:
        elements["CanonicalRequest"] = text(canonical)
        elements["CanonicalRequestBytes"] = canonical.hex(" ")
    return S3Error("SignatureDoesNotMatch", headers=(), **elements)


# -- presigned URLs -----------------------------------------------------------------------------
def query_error(message: str) -> S3Error:
    return S3Error("AuthorizationQueryParametersError", message)


def required_values(query: Query) -> dict[bytes, bytes]:
    """The six parameters every presigned URL has, each once and not empty."""
    values = {name: value for name, value in query if name in REQUIRED and value}
    if len(values) != len(REQUIRED) or sum(name in REQUIRED for name, _ in query) != len(REQUIRED):
        raise query_error(
            "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, "
            "X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
        )
    return values


def refuse_two_mechanisms(query: Query) -> None:
    """An Authorization header is there; the query must not hold another signature."""
    for name, _ in query:
        if name in TWO_MECHANISMS:
            raise S3Error(
                "InvalidArgument",
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, "
                "Signature query string parameter or the Authorization header should be specified",
                ArgumentName="Authorization",
            )


def parse_expires(value: bytes) -> int:
    digits = value[1:] if value.startswith(b"-") else value
    if not digits.isdigit() or len(digits) > 18:
        raise query_error("X-Amz-Expires should be a number")
    seconds = int(value)
    if seconds < 0:
        raise query_error("X-Amz-Expires must be non-negative")
    if seconds > EXPIRES_S_MAX:
        raise query_error(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires "
            f"must be less than {EXPIRES_S_MAX} seconds"
        )
    return seconds


def check_window(now_ms: int, sent_ms: int, expires_s: int) -> None:
    """A presigned URL counts from 15 minutes before its date until it expires."""
    if sent_ms - now_ms > SKEW_MS:
        raise S3Error("AccessDenied", "Request is not valid yet", ServerTime=iso_time(now_ms))
    if now_ms >= sent_ms + expires_s * 1000:
        elements = {
            "X-Amz-Expires": str(expires_s),
            "Expires": iso_time(sent_ms + expires_s * 1000),
            "ServerTime": iso_time(now_ms),
        }
        raise S3Error("AccessDenied", "Request has expired", headers=(), **elements)


def content_value(query: Query, index: dict[bytes, bytes]) -> bytes:
    """What a presigned URL says of the body, and signs in place of its hash."""
    for name, value in query:
        if name.lower() == b"x-amz-content-sha256":
            return value
    return index.get(b"x-amz-content-sha256", b"UNSIGNED-PAYLOAD")


def hoist(request: Request, query: Query) -> None:
    """Make headers of the ``x-amz-`` parameters of a presigned URL, which its signature covers.

    A header that was sent, and so was signed too, stays as it is. Escapes can carry any byte, hence
    the checks that the HTTP parser made for the others.
    """
    hoisted: dict[bytes, list[bytes]] = {}
    for given, value in query:
        name = given.lower()
        if not name.startswith(b"x-amz-") or name in NOT_HOISTED or name in request.index:
            continue
        if name.translate(None, TOKEN) or value.translate(None, CONTROLS) != value:
            raise S3Error("InvalidArgument", ArgumentName=text(given), ArgumentValue=text(value))
        hoisted.setdefault(name, []).append(value.strip(b" \t"))
    for name, values in hoisted.items():
        request.headers += [(name, value) for value in values]
        request.index[name] = b",".join(values)
