"""A bucket's configuration block, ``ingot/bucket@1``: what ``Head.config`` names.

Written when a bucket is created or its configuration changes, read when a gateway loads its
buckets. A document is what the S3 layer keeps under a name (``tagging``, ``cors``, ...); nothing
here knows what is in it. Absent means left out. Pure.

    ingot/bucket@1 = { owner: text, region: text, created: uint (unix ms), owner_name: text,
                       salt: bytes (of the key layers), documents: { name: bytes } }
"""

from __future__ import annotations

from ingot.bucket.model import BucketConfig
from ingot.codec import dag_cbor
from ingot.codec.fields import open_envelope

BUCKET = "ingot/bucket@1"


def encode_config(config: BucketConfig) -> bytes:
    fields: dict[str, object] = {"owner": config.owner, "region": config.region}
    if config.salt:
        fields["salt"] = config.salt
    fields |= {"created": config.created_ms, "owner_name": config.owner_name}
    if config.documents:
        fields["documents"] = config.documents
    return dag_cbor.wrap(BUCKET, fields)


def decode_config(block: bytes) -> BucketConfig:
    """FormatError for anything that ``encode_config`` would not write."""
    fields = open_envelope(block, BUCKET)
    salt = fields.get("salt", bytes)
    documents: dict[str, object] | None = fields.get("documents", dict)
    if salt == b"":
        fields.refuse("salt", "bytes, or no field", "an empty string")
    if documents == {}:
        fields.refuse("documents", "entries, or no field", "an empty map")
    found: dict[str, bytes] = {}
    for name, document in (documents or {}).items():
        if not isinstance(document, bytes) or type(document) is not bytes:
            fields.refuse("documents", "a byte string", repr(document), name)
        found[name] = document
    config = BucketConfig(
        owner=fields.need("owner", str),
        owner_name=fields.need("owner_name", str),
        created_ms=fields.need_uint("created"),
        region=fields.need("region", str),
        salt=salt or b"",
        documents=found,
    )
    fields.done()
    return config
