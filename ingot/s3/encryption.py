"""A bucket's default encryption: kept, and given back. Pure.

ingot takes AES256, the provider's own keys, as the name for "as stored here", and nothing else: a
client that asked for keys of a key service must not believe that it got them. Nor are there keys of
customers (SSE-C), so a document may block them or not.
"""

from __future__ import annotations

from typing import Final

from ingot.s3.errors import S3Error
from ingot.s3.xml import Element, boolean, document, malformed, parse

_ROOT: Final = "ServerSideEncryptionConfiguration"
_DEFAULT: Final = "ApplyServerSideEncryptionByDefault"
_BLOCKED: Final = "BlockedEncryptionTypes"
_SERVICE: Final = ("aws:kms", "aws:kms:dsse")
_NO_KEY: Final = (
    "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse"
)


def canonical(body: bytes) -> bytes:
    """The document to keep; MalformedXML, InvalidArgument, NotImplemented for a key service."""
    root = parse(body, _ROOT)
    root.only(("Rule",))
    rule = root.child("Rule")
    if rule is None:
        raise malformed()
    rule.only((_DEFAULT, "BucketKeyEnabled", _BLOCKED))
    default, blocked = rule.child(_DEFAULT), rule.child(_BLOCKED)
    if default is not None:
        _check_default(default)
    elif blocked is None:
        raise malformed()
    keyed = (rule.value("BucketKeyEnabled") or "false").strip().lower()
    if keyed not in ("true", "false"):
        raise malformed()
    return document(
        _ROOT,
        f"<Rule><{_DEFAULT}><SSEAlgorithm>AES256</SSEAlgorithm></{_DEFAULT}>"
        f"<BucketKeyEnabled>{boolean(keyed == 'true')}</BucketKeyEnabled>{_kept(blocked)}</Rule>",
    )


def _check_default(default: Element) -> None:
    default.only(("SSEAlgorithm", "KMSMasterKeyID"))
    algorithm = (default.value("SSEAlgorithm") or "").strip()
    if algorithm in _SERVICE:
        raise S3Error("NotImplemented", f"Encryption by {algorithm} is not implemented")
    if algorithm != "AES256":
        raise malformed()
    if default.child("KMSMasterKeyID") is not None:
        raise S3Error("InvalidArgument", _NO_KEY, ArgumentName=_DEFAULT)


def _kept(blocked: Element | None) -> str:
    """``BlockedEncryptionTypes`` as it is given back."""
    if blocked is None:
        return ""
    blocked.only(("EncryptionType",))
    if [child.text.strip() for child in blocked.children] not in (["NONE"], ["SSE-C"]):
        raise malformed()
    kind = blocked.children[0].text.strip()
    return f"<{_BLOCKED}><EncryptionType>{kind}</EncryptionType></{_BLOCKED}>"
