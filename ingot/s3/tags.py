"""Tags: what a tag may be, and the Tagging document of buckets and objects. Pure.

Tags come as XML or as a form in a header; what they may be is the same. A document is written with
its tags in the order of their keys. Characters are counted, not bytes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final

from ingot.limits import XML_TAGS_ELEMENTS_MAX
from ingot.s3.errors import S3Error
from ingot.s3.names import percent_decode
from ingot.s3.xml import Element, document, element, malformed, parse

TAG_KEY_CHARS_MAX: Final = 128
TAG_VALUE_CHARS_MAX: Final = 256
BUCKET_TAGS_MAX: Final = 50
OBJECT_TAGS_MAX: Final = 10
_MARKS: Final = frozenset("_.:/=+-@")
_SYSTEM: Final = "aws:"

TOO_MANY_OF_BUCKET: Final = f"Bucket tag count cannot be greater than {BUCKET_TAGS_MAX}"
TOO_MANY_OF_OBJECT: Final = "Object tags cannot be greater than 10"
TWICE: Final = "Cannot provide multiple Tags with the same key"
SYSTEM_TAG: Final = "System tags cannot be added/updated by requester"
BAD_KEY: Final = "The TagKey you have provided is invalid"
BAD_VALUE: Final = "The TagValue you have provided is invalid"


def check_tags(pairs: Iterable[tuple[str, str]], most: int, too_many: str) -> dict[str, str]:
    """The tags, sorted by key. InvalidTag for one that may not be, BadRequest with ``too_many`` for
    more than ``most``."""
    tags: dict[str, str] = {}
    for key, value in pairs:
        if key[: len(_SYSTEM)].lower() == _SYSTEM:
            raise S3Error("InvalidTag", SYSTEM_TAG, TagKey=key)
        if not 1 <= len(key) <= TAG_KEY_CHARS_MAX or not _is_plain(key):
            raise S3Error("InvalidTag", BAD_KEY, TagKey=key)
        if len(value) > TAG_VALUE_CHARS_MAX or not _is_plain(value):
            raise S3Error("InvalidTag", BAD_VALUE, TagKey=key, TagValue=value)
        if key in tags:
            raise S3Error("InvalidTag", TWICE, TagKey=key)
        tags[key] = value
    if len(tags) > most:
        raise S3Error("BadRequest", too_many)
    return dict(sorted(tags.items()))


def _is_plain(text: str) -> bool:
    """Letters, digits and blanks of any script, and a few marks."""
    return all(char in _MARKS or unicodedata.category(char)[0] in "LNZ" for char in text)


def read_tagging(body: bytes, most: int, too_many: str) -> dict[str, str]:
    """The tags of a Tagging document; MalformedXML, and what ``check_tags`` raises."""
    root = parse(body, "Tagging", XML_TAGS_ELEMENTS_MAX)
    root.only(("TagSet",))
    listed = root.child("TagSet")
    if listed is None:
        raise malformed()
    return check_tags(tag_pairs(listed), most, too_many)


def tag_pairs(listed: Element) -> list[tuple[str, str]]:
    """Keys and values of an element that holds nothing but ``Tag``s; MalformedXML."""
    listed.only(("Tag",))
    pairs = []
    for tag in listed.children:
        tag.only(("Key", "Value"))
        key, value = tag.value("Key"), tag.value("Value")
        if key is None or value is None:
            raise malformed()
        pairs.append((key, value))
    return pairs


def read_header(value: bytes) -> dict[str, str]:
    """The tags of an x-amz-tagging header, a form; InvalidArgument for bad escapes, a value without
    a key and a key twice, and what ``check_tags`` raises."""
    pairs = []
    for field in filter(None, value.split(b"&")):
        key, _, tag = field.partition(b"=")
        pairs.append((_from_form(key, value), _from_form(tag, value)))
    found = dict(pairs)
    if len(found) < len(pairs) or "" in found:
        raise _bad_header(value)
    return check_tags(pairs, OBJECT_TAGS_MAX, TOO_MANY_OF_OBJECT)


def _from_form(raw: bytes, header: bytes) -> str:
    try:
        return percent_decode(raw.replace(b"+", b" ")).decode()
    except (S3Error, UnicodeError):
        raise _bad_header(header) from None


def _bad_header(header: bytes) -> S3Error:
    return S3Error(
        "InvalidArgument",
        "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query "
        "parameters without tag name duplicates.",
        ArgumentName="x-amz-tagging",
        ArgumentValue=header.decode("latin-1"),
    )


def write_tagging(tags: Mapping[str, str]) -> bytes:
    """The document that lists ``tags`` by key."""
    listed = "".join(
        f"<Tag>{element('Key', key)}{element('Value', value)}</Tag>"
        for key, value in sorted(tags.items())
    )
    return document("Tagging", f"<TagSet>{listed}</TagSet>")
