"""A bucket's public access block: four flags that keep it from the public. Pure.

What they do: BlockPublicPolicy refuses a policy that grants to everybody, RestrictPublicBuckets
lets such a policy grant to the owner only (``ingot.s3.access``). BlockPublicAcls refuses to set an
ACL that grants to everybody, IgnorePublicAcls takes what one grants for not granted
(``ingot.s3.acls``).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ingot.s3.errors import S3Error
from ingot.s3.xml import boolean, document, malformed, parse

_ROOT: Final = "PublicAccessBlockConfiguration"


class PublicAccess(NamedTuple):
    """The flags, under the names that the document has for them."""

    BlockPublicAcls: bool = False
    IgnorePublicAcls: bool = False
    BlockPublicPolicy: bool = False
    RestrictPublicBuckets: bool = False


def read(body: bytes) -> PublicAccess:
    root = parse(body, _ROOT)
    root.only(PublicAccess._fields)
    if not root.children:
        raise S3Error("InvalidRequest", "Must specify at least one configuration.")
    flags = {}
    for name in PublicAccess._fields:
        value = (root.value(name) or "false").strip().lower()
        if value not in ("true", "false"):
            raise malformed()
        flags[name] = value == "true"
    return PublicAccess(**flags)


def canonical(body: bytes) -> bytes:
    """The document to keep: all four flags."""
    flags = read(body)._asdict()
    return document(_ROOT, "".join(f"<{n}>{boolean(v)}</{n}>" for n, v in flags.items()))
