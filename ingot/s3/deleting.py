"""DeleteObjects: up to a thousand keys in one commit, with an answer for each."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TYPE_CHECKING, Final, NamedTuple

from ingot.bucket.model import (
    Bucket,
    Condition,
    NoSuchBucket,
    NoSuchVersion,
    Outcome,
    PreconditionFailed,
)
from ingot.bucket.mutation import Removal, Seen
from ingot.errors import IngotError, NotFound, Unavailable
from ingot.limits import CHECKED_KEYS_PER_TURN, DELETE_ENTRIES_BYTES, JUDGED_TRIES
from ingot.messages import Response
from ingot.s3 import conditions
from ingot.s3.call import (
    Call,
    Handler,
    check_known,
    named_bucket,
    no_such_version,
    require,
    seen,
    version_is_well_formed,
    xml_response,
)
from ingot.s3.control_references import Standing
from ingot.s3.documents import holder_of, require_checksum
from ingot.s3.errors import S3Error, translate
from ingot.s3.locking import bypasses
from ingot.s3.names import check_key
from ingot.s3.xml import Element, document, element, malformed, parse_in_steps

if TYPE_CHECKING:
    from ingot.bucket.record import Record
    from ingot.bucket.store import Store

ENTRIES_MAX: Final = 1000
ELEMENTS_MAX: Final = 8 * ENTRIES_MAX  # an entry has six, and may have what is not known here
ACTIONS: Final = ("DeleteObject", "DeleteObjectVersion")


class Entry(NamedTuple):
    """One object of the request, as it was named."""

    key: str
    version: str | None
    etag: str | None
    modified: str | None
    size: str | None


class Allowed(NamedTuple):
    """A removal, and what the right to it was judged by."""

    removal: Removal
    seen: Seen | None


class DeleteOperations:
    """DeleteObjects."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def handlers(self) -> dict[str, Handler]:
        return {"DeleteObjects": self.delete_objects}

    async def delete_objects(self, call: Call) -> Response:
        """One failing entry fails alone: the others are committed, together."""
        require_checksum(call)
        bucket = named_bucket(self._store, call)
        if not call.access.may_allow(call, bucket, ACTIONS):  # else each key has its own answer
            raise S3Error("AccessDenied")
        body = await call.documents.read(call, entries_bytes=DELETE_ENTRIES_BYTES)
        if not body:
            raise S3Error("MissingRequestBodyError")
        entries, quiet = await call.documents.parse(call, body, _parse_in_steps(body))
        bucket, judged = await self._judge_all(call, bucket, entries)
        results: list[S3Error | Outcome | None] = [
            verdict if isinstance(verdict, S3Error) else None for verdict in judged
        ]
        places = [at for at, verdict in enumerate(judged) if not isinstance(verdict, S3Error)]
        allowed = [verdict for verdict in judged if not isinstance(verdict, S3Error)]
        if allowed:
            removals = [verdict.removal for verdict in allowed]
            judged_by = [verdict.seen for verdict in allowed]
            answers = await self._store.remove(bucket, removals, judged_by)
            for place, removal, answer in zip(places, removals, answers, strict=True):
                if isinstance(answer, IngotError):
                    answer = await why_refused(self._store, bucket, removal, answer)
                    results[place] = translate(answer, bucket.name, entries[place].key)
                else:
                    results[place] = answer
        shown = []
        for entry, result in zip(entries, results, strict=True):
            if isinstance(result, S3Error):
                shown.append(_failed(entry, result))
            elif not quiet:
                shown.append(_deleted(entry, result))
        content = "".join(shown)
        return xml_response(document("DeleteResult", content))

    async def _judge_all(
        self, call: Call, bucket: Bucket, entries: list[Entry]
    ) -> tuple[Bucket, list[Allowed | S3Error]]:
        """A removal or a refusal of each entry, by the bucket's configuration as it stands when the
        last one was judged."""
        await check_known(call)
        for _ in range(JUDGED_TRIES):
            bucket = self._store.newest(bucket)
            if not call.access.may_allow(call, bucket, ACTIONS):
                raise S3Error("AccessDenied")
            marker = call.access.acls.marker(call, bucket.config)
            judged: list[Allowed | S3Error] = []
            for place, entry in enumerate(entries):
                if place % CHECKED_KEYS_PER_TURN == 0:
                    await self._turn(call, bucket, place)
                try:
                    condition = await self._judge(call, bucket, entry)
                except S3Error as error:
                    judged.append(error)
                    continue
                key = entry.key.encode()
                bypass = bypasses(call, bucket, key)
                named = (key, condition, call.now_ms, entry.version)
                removal = Removal(*named, bypass, marker)
                judged.append(Allowed(removal, seen(call, bucket, key)))
            if self._store.newest(bucket).config is bucket.config:
                return bucket, judged
        raise Unavailable("the configuration of the bucket is being changed again and again")

    async def _turn(self, call: Call, bucket: Bucket, place: int) -> None:
        """Others' turn before keys are judged. What a policy or a host says of one may take a
        millisecond or two: so of all such requests together some are judged in a turn of the loop,
        and not of each."""
        if not bucket.config.plain or call.access.decides:
            await call.documents.in_turn(holder_of(call), lambda: None)
        elif place:
            await asyncio.sleep(0)

    async def _judge(self, call: Call, bucket: Bucket, entry: Entry) -> Condition | None:
        """The condition of the entry's delete; S3Error when it cannot be carried out."""
        key = entry.key.encode()
        check_key(key)
        if entry.version is not None and not version_is_well_formed(entry.version):
            raise no_such_version(key, entry.version)
        action = "DeleteObject" + ("Version" if entry.version else "")
        await call.access.learn(self._store, call, bucket, key, entry.version, action)
        require(call, bucket, action, key)
        asked = conditions.delete_conditions(entry.etag, entry.modified, entry.size)
        if asked is None:
            return None
        looks = asked.looks
        found = await found_by(self._store, bucket, key, entry.version) if looks else None
        return conditions.for_delete(asked, found)


async def found_by(store: Store, bucket: Bucket, key: bytes, version: str | None) -> Record | None:
    """What a delete would remove: the object, or the version, which may be a delete marker."""
    if version is None:
        return await store.find(bucket, key)
    found = await store.look(bucket, key, version)
    return None if found is None else found.record


async def why_refused(
    store: Store, bucket: Bucket, removal: Removal, refusal: IngotError
) -> IngotError:
    """What the client hears of a refused delete: a delete marker is no object that If-Match could
    mean, but it is not nothing either. It may be of the very commit that refused."""
    if type(refusal) is NotFound:
        try:
            found = await store.look(store.newest(bucket), removal.key, removal.version)
        except NoSuchBucket:
            return refusal
        if found is not None and found.record.delete_marker:
            return PreconditionFailed("If-Match")
        if removal.version is not None:
            return NoSuchVersion(removal.version)
    return refusal


def _parse_in_steps(body: bytes) -> Generator[None, None, tuple[list[Entry], bool]]:
    """The entries and whether successes go unmentioned."""
    standing = Standing(body)
    entries: list[Entry] = []
    quiet: list[str] = []

    def take(node: Element) -> None:
        if node.name == "Object":
            entries.append(_entry(node, standing))
        elif node.name == "Quiet":
            quiet.append(node.text.strip().lower())

    yield from parse_in_steps(standing.body, "Delete", ELEMENTS_MAX, take)
    if not 1 <= len(entries) <= ENTRIES_MAX or len(quiet) > 1:
        raise malformed()
    return entries, quiet == ["true"]


def _entry(node: Element, standing: Standing) -> Entry:
    key = node.value("Key")
    if not key:
        raise malformed()
    return Entry(
        standing.text(key),
        node.value("VersionId") or None,
        node.value("ETag"),
        node.value("LastModifiedTime"),
        node.value("Size"),
    )


def _deleted(entry: Entry, outcome: Outcome | None) -> str:
    """A marker that was made, or removed, is named beside the version that was asked for."""
    marker = ""
    if outcome is not None and outcome.marker:
        marker = "<DeleteMarker>true</DeleteMarker>"
        marker += element("DeleteMarkerVersionId", outcome.version)
    return f"<Deleted>{_name(entry)}{marker}</Deleted>"


def _failed(entry: Entry, error: S3Error) -> str:
    return (
        f"<Error>{_name(entry)}<Code>{error.code}</Code>{element('Message', error.message)}</Error>"
    )


def _name(entry: Entry) -> str:
    version = "" if entry.version is None else element("VersionId", entry.version)
    return element("Key", entry.key) + version
