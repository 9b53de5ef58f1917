"""A bucket's tags: ``?tagging`` of a bucket, and ``<Tags>`` of CreateBucket. Pure."""

from __future__ import annotations

from ingot.s3.tags import (
    BUCKET_TAGS_MAX,
    TOO_MANY_OF_BUCKET,
    check_tags,
    read_tagging,
    tag_pairs,
    write_tagging,
)
from ingot.s3.xml import Element


def canonical(body: bytes) -> bytes | None:
    """The document to keep; None for an empty set, which is none."""
    tags = read_tagging(body, BUCKET_TAGS_MAX, TOO_MANY_OF_BUCKET)
    return write_tagging(tags) if tags else None


def of_creation(listed: Element) -> bytes | None:
    """The document to keep of the tags that a bucket is created with."""
    tags = check_tags(tag_pairs(listed), BUCKET_TAGS_MAX, TOO_MANY_OF_BUCKET)
    return write_tagging(tags) if tags else None
