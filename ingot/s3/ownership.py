"""A bucket's ownership controls: who owns what others put into it. Pure.

BucketOwnerEnforced is what holds without a document, and is kept as none: a bucket with a document
has ACLs that count (``ingot.s3.acls``). Where the controls were deleted, objects are their
writers', as they were before there were controls.
"""

from __future__ import annotations

from typing import Final

from ingot.s3.xml import document, malformed, parse

ENFORCED: Final = "BucketOwnerEnforced"
PREFERRED: Final = "BucketOwnerPreferred"
WRITER: Final = "ObjectWriter"
OWNERSHIPS: Final = (ENFORCED, PREFERRED, WRITER)
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


def canonical(body: bytes) -> bytes | None:
    """The document to keep."""
    ownership = read(body)
    return None if ownership == ENFORCED else write(ownership)


def kept(document: bytes) -> str:
    """The ownership that a document of ours stands for."""
    return WRITER if document == DELETED else read(document)
