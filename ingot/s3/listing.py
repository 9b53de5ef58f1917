"""ListObjects, ListObjectsV2, ListObjectVersions: pages of a bucket's keys.

A page of a thousand keys is hot: its entries are written in compiled code, from summaries of the
records that stay in memory. Which keys a page holds is the store's affair; what is
settled here is where a page starts: a token, or a marker or start that is a group itself, stands
behind that group, and one that lies inside a group does not.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

from ingot._speedups import entries
from ingot.bucket.model import NULL_VERSION, Bucket, Page
from ingot.bucket.newest import LOOKS_MAX
from ingot.bucket.nodes import Lost
from ingot.bucket.reading import Listed
from ingot.bucket.record import SUMMARY
from ingot.messages import Response
from ingot.s3.acl import person
from ingot.s3.call import (
    Call,
    Handler,
    open_bucket,
    version_is_well_formed,
    xml_response,
)
from ingot.s3.errors import S3Error
from ingot.s3.versions_listing import write_versions
from ingot.s3.xml import boolean, document, element, escape_bytes, is_xml, key_texts, url_encode

if TYPE_CHECKING:
    from ingot.bucket.store import Store

KEYS_MAX: Final = 1000
INTEGER_MAX: Final = 2**31 - 1  # what clients' page sizes are read into
TOKEN_VERSION: Final = b"\x01"
AFTER_KEY: Final = b"k"  # the page ended with a key
AFTER_GROUP: Final = b"g"  # the page ended with a common prefix


class Question(NamedTuple):
    """What every listing is asked for."""

    prefix: bytes
    delimiter: bytes
    limit: int
    encoded: bool  # encoding-type=url


class Owners(NamedTuple):
    """Elements that name the owners of a page's keys: nearly always the same one."""

    usual: str
    others: dict[bytes, str] = {}

    def runs(self, keys: Sequence[bytes]) -> Iterator[tuple[str, int, int]]:
        """Keys of one owner in a row: (element, start, stop)."""
        if not self.others:
            yield self.usual, 0, len(keys)
            return
        at = 0
        for owner, run in groupby(keys, lambda key: self.others.get(key, self.usual)):
            stop = at + len(list(run))
            yield owner, at, stop
            at = stop


NOBODY: Final = Owners("")


class ListOperations:
    """The three listings."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def handlers(self) -> dict[str, Handler]:
        return {
            "ListObjects": _of_one_head(self.list_v1),
            "ListObjectsV2": _of_one_head(self.list_v2),
            "ListObjectVersions": _of_one_head(self.list_versions),
        }

    async def list_v1(self, call: Call) -> Response:
        asked = _question(call)
        marker = call.parameter(b"marker") or b""
        bucket = open_bucket(self._store, call)
        page = await self._page(bucket, asked, marker, _is_group(asked, marker))
        text = _encoder(asked)
        after = ""
        if page.truncated and asked.delimiter:
            after = f"<NextMarker>{text(page.items[-1][0])}</NextMarker>"
        # Clients decode everything in this document but the prefix, so that one stays as it is
        # where it can.
        prefix = _plain(asked.prefix)
        if asked.encoded and not is_xml(prefix):
            prefix = url_encode(asked.prefix)
        content = (
            f"<Name>{call.bucket}</Name>{element('Prefix', prefix)}"
            f"<Marker>{text(marker)}</Marker>{after}{_echo(asked, text)}"
            f"<IsTruncated>{boolean(page.truncated)}</IsTruncated>"
        )
        owners = await self._owners(call, bucket, page)
        shown = await self._entries(page, asked, "Contents", "", owners)
        return xml_response(document("ListBucketResult", content, shown))

    async def list_v2(self, call: Call) -> Response:
        kind = call.parameter(b"list-type")
        if kind != b"2":
            raise _invalid("list-type", kind or b"", "Invalid List Type specified in Request")
        asked = _question(call)
        token = call.parameter(b"continuation-token")
        start = call.parameter(b"start-after")
        after = start or b""
        finished = _is_group(asked, after)
        if token:
            after, finished = decode_token(token)
        bucket = open_bucket(self._store, call)
        page = await self._page(bucket, asked, after, finished)
        text = _encoder(asked)
        owners = NOBODY
        if call.parameter(b"fetch-owner") == b"true":
            owners = await self._owners(call, bucket, page)
        cursor = ""
        if token is not None:
            cursor += element("ContinuationToken", token.decode("latin-1"))
        if page.truncated:
            key, record = page.items[-1]
            value = encode_token(key, group=record is None)
            cursor += f"<NextContinuationToken>{value}</NextContinuationToken>"
        if start:
            cursor += f"<StartAfter>{text(start)}</StartAfter>"
        content = (
            f"<Name>{call.bucket}</Name><Prefix>{text(asked.prefix)}</Prefix>"
            f"{cursor}<KeyCount>{len(page.items)}</KeyCount>{_echo(asked, text)}"
            f"<IsTruncated>{boolean(page.truncated)}</IsTruncated>"
        )
        shown = await self._entries(page, asked, "Contents", "", owners)
        return xml_response(document("ListBucketResult", content, shown))

    async def list_versions(self, call: Call) -> Response:
        asked = _question(call)
        marker = call.parameter(b"key-marker") or b""
        version = call.parameter(b"version-id-marker") or b""
        if version and not marker:
            raise _invalid(
                "version-id-marker",
                version,
                "A version-id marker cannot be specified without a key marker.",
            )
        if version and not version_is_well_formed(version.decode("latin-1")):
            raise _invalid("version-id-marker", version, "Invalid version id specified")
        bucket = open_bucket(self._store, call)
        if bucket.config.versioning is None:
            shown, following = await self._objects(call, bucket, asked, marker)
        else:
            shown, following = await self._versions(call, bucket, asked, marker, version)
        text = _encoder(asked)
        after = ""
        if following is not None:
            after = f"<NextKeyMarker>{text(following[0])}</NextKeyMarker>"
            if following[1]:
                after += f"<NextVersionIdMarker>{following[1]}</NextVersionIdMarker>"
        content = (
            f"<Name>{call.bucket}</Name><Prefix>{text(asked.prefix)}</Prefix>"
            f"<KeyMarker>{text(marker)}</KeyMarker>"
            f"{element('VersionIdMarker', version.decode('latin-1'))}{after}{_echo(asked, text)}"
            f"<IsTruncated>{boolean(following is not None)}</IsTruncated>"
        )
        return xml_response(document("ListVersionsResult", content, shown))

    async def _objects(
        self, call: Call, bucket: Bucket, asked: Question, marker: bytes
    ) -> tuple[list[bytes], tuple[bytes, str] | None]:
        """Of a bucket without versions: every object is its own latest version "null". What is
        shown, and behind which key and version the next page begins."""
        page = await self._page(bucket, asked, marker, _is_group(asked, marker))
        latest = "<VersionId>null</VersionId><IsLatest>true</IsLatest>"
        owners = await self._owners(call, bucket, page)
        shown = await self._entries(page, asked, "Version", latest, owners)
        if not page.truncated:
            return shown, None
        key, record = page.items[-1]
        return shown, (key, "" if record is None else NULL_VERSION)

    async def _versions(
        self, call: Call, bucket: Bucket, asked: Question, marker: bytes, version: bytes
    ) -> tuple[list[bytes], tuple[bytes, str] | None]:
        """As ``_objects``, of a bucket with versions."""
        if asked.limit == 0:
            return [], None
        behind = version.decode()
        if not marker.startswith(asked.prefix) or group_of(marker, asked.prefix, asked.delimiter):
            behind = ""  # the marker is no key that this listing shows versions of
        page = await self._store.versions(
            bucket, asked.prefix, asked.delimiter, (marker, behind) if marker else None, asked.limit
        )
        owner, others = _owner(bucket), {}
        if call.access.acls.count(bucket.config):
            states = [item.state for item in page.items if isinstance(item, Listed) and item.state]
            acls = await self._store.acls(states)
            others = {state: person("Owner", acl.owner, acl.name) for state, acl in acls.items()}
        shown = await write_versions(self._store, page.items, asked.encoded, owner, others)
        return shown, (page.key, page.version) if page.truncated else None

    async def _page(self, bucket: Bucket, asked: Question, after: bytes, finished: bool) -> Page:
        """``finished``: ``after`` is a group answered whole already, or a key outside any."""
        if asked.limit == 0:
            return Page([], False)
        prefix, delimiter = asked.prefix, asked.delimiter
        group = b"" if finished or not after else group_of(after, prefix, delimiter)
        if not group:
            return await self._store.page(bucket, prefix, delimiter, after or None, asked.limit)
        # The store skips the whole group in which ``after`` lies; here it counts if a key after
        # ``after`` is in it.
        rest = await self._store.page(bucket, group, b"", after, 1)
        left = asked.limit - len(rest.items[:1])
        page = await self._store.page(bucket, prefix, delimiter, group, max(left, 1))
        if not rest.items:
            return page
        if left == 0:
            return Page([(group, None)], bool(page.items))
        return replace(page, items=[(group, None), *page.items])

    async def _owners(self, call: Call, bucket: Bucket, page: Page) -> Owners:
        """Whose the keys of a page are. In nearly all buckets that needs no look at them."""
        if not call.access.acls.count(bucket.config):
            return Owners(_owner(bucket))
        states = await self._store.states(bucket, page)
        acls = await self._store.acls(states.values())
        named = {state: person("Owner", acl.owner, acl.name) for state, acl in acls.items()}
        others = {key: named[state] for key, state in states.items() if state in named}
        return Owners(_owner(bucket), others)

    async def _entries(
        self, page: Page, asked: Question, tag: str, version: str, owners: Owners
    ) -> list[bytes]:
        """What a page shows: its records, each a ``tag``, then its groups."""
        keys = [key for key, cid in page.items if cid is not None]
        cids = [cid for _, cid in page.items if cid is not None]
        names = key_texts(keys, asked.encoded)
        before, between = f"<{tag}><Key>".encode(), f"</Key>{version}<LastModified>".encode()
        after = "<StorageClass>STANDARD</StorageClass>{}</" + tag + ">"
        summaries = await self._store.summaries(cids)
        shown = []
        for owner, start, stop in owners.runs(keys):
            last = after.format(owner).encode()
            run = names[start:stop], summaries[start:stop]
            shown.append(entries.write(SUMMARY, *run, before, between, last))
        groups = [] if len(keys) == len(page.items) else [k for k, cid in page.items if cid is None]
        for name in key_texts(groups, asked.encoded):
            shown.append(b"<CommonPrefixes><Prefix>%b</Prefix></CommonPrefixes>" % name)
        return shown


def _of_one_head(page: Handler) -> Handler:
    """A page shows one head of its bucket, keys and records. Where compaction took something from
    under it, because the bucket has moved on, the page is made anew of the newest head."""

    async def made(call: Call) -> Response:
        for _ in range(LOOKS_MAX - 1):
            try:
                return await page(call)
            except Lost:
                continue
        return await page(call)

    return made


def group_of(key: bytes, prefix: bytes, delimiter: bytes) -> bytes:
    """The common prefix that ``key`` falls into, b"" where it stands for itself."""
    if not delimiter or not key.startswith(prefix):
        return b""
    found = key.find(delimiter, len(prefix))
    return key[: found + len(delimiter)] if found >= 0 else b""


def _is_group(asked: Question, marker: bytes) -> bool:
    """A marker that ends a group stands behind all of it: that is how one is issued."""
    return bool(marker) and group_of(marker, asked.prefix, asked.delimiter) == marker


def encode_token(key: bytes, group: bool) -> str:
    """Opaque to clients, and enough by itself: any gateway over the bucket can go on from it."""
    kind = AFTER_GROUP if group else AFTER_KEY
    return urlsafe_b64encode(TOKEN_VERSION + kind + key).decode().rstrip("=")


def decode_token(token: bytes) -> tuple[bytes, bool]:
    """The key or group a page goes on after, and whether it is a group."""
    try:
        raw = urlsafe_b64decode(token + b"=" * (-len(token) % 4))
    except ValueError:
        raw = b""
    kind, key = raw[1:2], raw[2:]
    valid = raw[:1] == TOKEN_VERSION and kind in (AFTER_KEY, AFTER_GROUP) and key
    if not valid or encode_token(key, kind == AFTER_GROUP) != token.decode("latin-1").rstrip("="):
        raise _invalid("continuation-token", token, "The continuation token provided is incorrect")
    return key, kind == AFTER_GROUP


def _question(call: Call) -> Question:
    limit = parse_limit(call.parameter(b"max-keys") or b"", "max-keys", KEYS_MAX)
    encoding = call.parameter(b"encoding-type") or b""
    if encoding.lower() not in (b"", b"url"):
        raise _invalid("encoding-type", encoding, "Invalid Encoding Method specified in Request")
    prefix = call.parameter(b"prefix") or b""
    return Question(prefix, call.parameter(b"delimiter") or b"", limit, bool(encoding))


def parse_limit(value: bytes, name: str, most: int) -> int:
    """A page size: nothing is the default, more than the most is the most."""
    if not value:
        return most
    number = int(value) if value.isdigit() and len(value) <= 10 else INTEGER_MAX + 1
    if number <= INTEGER_MAX:
        return min(number, most)
    if value[:1] == b"-" and value[1:].isdigit():
        message = f"Argument {name} must be an integer between 0 and {INTEGER_MAX}"
        raise _invalid(name, value, message)
    raise _invalid(name, value, f"Provided {name} not an integer or within integer range")


def _invalid(name: str, value: bytes, message: str) -> S3Error:
    return S3Error(
        "InvalidArgument",
        message,
        ArgumentName=name,
        ArgumentValue=value.decode("utf-8", "replace"),
    )


def _plain(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _encoder(asked: Question) -> Callable[[bytes], str]:
    return url_encode if asked.encoded else escape_bytes


def _echo(asked: Question, text: Callable[[bytes], str]) -> str:
    found = f"<MaxKeys>{asked.limit}</MaxKeys>"
    if asked.delimiter:
        found += f"<Delimiter>{text(asked.delimiter)}</Delimiter>"
    if asked.encoded:
        found += "<EncodingType>url</EncodingType>"
    return found


def _owner(bucket: Bucket) -> str:
    return person("Owner", bucket.config.owner, bucket.config.owner_name)
