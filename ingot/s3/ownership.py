"""A bucket's ownership controls: who owns what others put into it. Pure.

Kept and given back. Every object belongs to its bucket's owner here and ACLs grant nothing, as with
BucketOwnerEnforced; where another setting would have it otherwise, requests are refused: those that
carry an ACL which is not the owner's own.
"""

from __future__ import annotations

from typing import Final

from ingot.s3.xml import document, malformed, parse

ENFORCED: Final = "BucketOwnerEnforced"
OWNERSHIPS: Final = (ENFORCED, "BucketOwnerPreferred", "ObjectWriter")
DELETED: Final = b""  # stands where the controls were deleted, which is not the default
_ROOT: Final = "OwnershipControls"


def read(body: bytes) -> str:
    """The one rule's ownership; MalformedXML."""
    root = parse(body, _ROOT)
    root.only(("Rule",))
    rule = root.child("Rule")
    if rule is None:
        raise malformed()
    rule.only(("ObjectOwnership",))
    ownership = (rule.value("ObjectOwnership") or "").strip()
    if ownership not in OWNERSHIPS:
        raise malformed()
    return ownership


def write(ownership: str) -> bytes:
    return document(_ROOT, f"<Rule><ObjectOwnership>{ownership}</ObjectOwnership></Rule>")


def canonical(body: bytes) -> bytes:
    """The document to keep."""
    return write(read(body))
