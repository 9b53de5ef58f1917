"""Readers who began by a head that its bucket has left, beside a compaction that goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from hashlib import md5
from typing import Any

import boto3
import pytest
from botocore.config import Config

from ingot.bucket.compaction import compact
from ingot.bucket.model import NoSuchBucket
from ingot.bucket.part import NoSuchUpload, Part, Upload
from ingot.errors import Corruption
from ingot.messages import Body
from tests.bucket.life import CONFIG, NOW, Life


async def pass_by(life: Life) -> None:
    """Everything that was written so far is replaced, and compacted."""
    for key in list(life.objects):
        await life.put(key, 20)
    await life.fill(len(life.segments.settled()) + 1)
    await life.compact()


async def content(life: Life, body: Body) -> bytes:
    return b"".join([bytes(piece) async for piece in life.store.read(body, 0, body.size)])


async def test_a_lookup_goes_on_at_the_newest_head(life: Life) -> None:
    for key in range(30):
        await life.put(f"k{key}", 3000)
    before = life.store.bucket("b")
    await pass_by(life)
    for key, data in life.objects.items():
        record = await life.store.find(before, key.encode())
        assert record is not None and await content(life, record.body) == data
    await life.store.delete(life.store.bucket("b"), [b"k1"])
    assert await life.store.find(before, b"k1") is None


async def test_a_lookup_in_a_bucket_that_is_gone(life: Life) -> None:
    await life.store.create_bucket("gone", CONFIG)
    await life.put("k", 10)
    await life.store.put(
        life.store.bucket("gone"), await life.store.find(life.store.bucket("b"), b"k")
    )
    before = life.store.bucket("gone")
    await life.store.delete(life.store.bucket("gone"), [b"k"])
    await life.store.delete_bucket(life.store.bucket("gone"))
    await pass_by(life)
    with pytest.raises(NoSuchBucket):
        await life.store.find(before, b"k")


async def test_damage_is_no_reason_to_look_on(life: Life) -> None:
    """A block that the newest head lacks is lost, and that is said."""
    await life.fill(1)
    await life.put("k", 10)
    bucket = life.store.bucket("b")
    sources = life.segments.settled()
    await life.segments.replace(sources, [cid async for cid, _ in commits(life, sources)])
    with pytest.raises(Corruption, match="in a segment"):
        for key in life.objects:
            await life.store.find(bucket, key.encode())


async def commits(life: Life, sources: Sequence[Any]) -> Any:
    for info in sources:
        async for commit in life.segments.commits_of(info):
            yield commit


async def test_uploads_are_looked_for_at_the_newest_head(life: Life) -> None:
    uploads = life.store.uploads
    upload = await uploads.create(
        life.store.bucket("b"), Upload(b"large", "", NOW, "owner", "Owner")
    )
    body = Body(5, md5(b"bytes").digest(), None, inline=b"bytes")
    await uploads.put_part(life.store.bucket("b"), upload, 1, Part(body, NOW))
    before = life.store.bucket("b")
    await uploads.abort(life.store.bucket("b"), upload)
    await pass_by(life)
    with pytest.raises(NoSuchUpload):
        await uploads.find(before, b"large", upload.id)
    assert await uploads.parts(before, upload) == ([], False)
    assert (await uploads.page(before, b"", b"", (b"", ""), 10)).items == []


class Gate:
    """Segments whose units wait to be written, each until ``when_written`` has run."""

    def __init__(self, segments: Any, when_written: Callable[[], Awaitable[None]]) -> None:
        self._segments, self._when_written = segments, when_written
        self.written = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._segments, name)

    async def replace(self, sources: Any, live: Any, settled: Any) -> Any:
        self.written += 1
        await self._when_written()
        return await self._segments.replace(sources, live, settled)


async def test_a_body_that_begins_to_be_read_while_the_unit_is_written(life: Life) -> None:
    await life.put("read", 30_000)
    data = life.objects["read"]
    before = life.store.bucket("b")
    await life.put("read", 10)
    await life.fill(1)
    readers: list[Any] = []

    async def began() -> None:
        if not readers:
            record = await life.store.find(before, b"read")
            assert record is not None and record.body.inline is None
            readers.append(life.store.read(record.body, 0, len(data)))

    gate = Gate(life.segments, began)
    await compact(gate, life.segments.settled(), life.store._pins)
    assert gate.written == 2, "the first had not counted on this reader"
    assert b"".join([bytes(piece) async for piece in readers[0]]) == data
    assert not list((life.directory / "segments").glob("*.tmp"))
    await life.check()
    await life.fsck()
    await life.stop()
    await life.start()
    await life.check()
    await life.fsck()


async def test_a_body_of_many_chunks_under_way(life: Life) -> None:
    """Its first piece was sent; it is replaced and compacted meanwhile, more than once."""
    await life.put("read", 3_000_000)
    await life.put("small", 60_000)
    data = {key: life.objects[key] for key in ("read", "small")}
    bodies = []
    for key in data:
        record = await life.store.find(life.store.bucket("b"), key.encode())
        assert record is not None
        bodies.append(life.store.read(record.body, 0, len(data[key])))
        del record
    read = [bytearray(await anext(body)) for body in bodies]
    await pass_by(life)
    await pass_by(life)
    for found, body, wanted in zip(read, bodies, data.values(), strict=True):
        async for piece in body:
            found += piece
        assert found == wanted


def client_of(life: Life) -> Any:
    once = Config(retries={"max_attempts": 0})  # an answer of 500 is what is looked for
    return boto3.client("s3", endpoint_url=life.gateway.url, config=once, **life.gateway.boto())


async def test_a_listing_under_way(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the keys and the records of a page all of them are replaced and compacted."""
    client = client_of(life)
    await asyncio.to_thread(client.create_bucket, Bucket="listed")
    for key in range(20):
        await asyncio.to_thread(client.put_object, Bucket="listed", Key=f"k{key:02}", Body=b"old")
    real, times = life.store.page, []

    async def page(*args: Any) -> Any:
        found = await real(*args)
        if not times:
            times.append(1)
            for key in range(19):
                put = client.put_object
                await asyncio.to_thread(put, Bucket="listed", Key=f"k{key:02}", Body=b"newer")
            await asyncio.to_thread(client.delete_object, Bucket="listed", Key="k19")
            await pass_by(life)
        return found

    monkeypatch.setattr(life.store, "page", page)
    listed = await asyncio.to_thread(client.list_objects_v2, Bucket="listed")
    assert [(one["Key"], one["Size"]) for one in listed["Contents"]] == [
        (f"k{key:02}", 5) for key in range(19)
    ]


async def test_a_copy_under_way(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its source is replaced and compacted while its target is looked at."""
    client, data = client_of(life), b"x" * 30_000
    await asyncio.to_thread(client.create_bucket, Bucket="copied")
    await asyncio.to_thread(client.put_object, Bucket="copied", Key="from", Body=data)
    real = life.store.find

    async def find(bucket: Any, key: bytes) -> Any:
        if key == b"to":
            await asyncio.to_thread(client.put_object, Bucket="copied", Key="from", Body=b"")
            await pass_by(life)
        return await real(bucket, key)

    with monkeypatch.context() as patch:
        patch.setattr(life.store, "find", find)
        await asyncio.to_thread(
            client.copy_object,
            Bucket="copied",
            Key="to",
            CopySource="copied/from",
            IfNoneMatch="*",
        )
    found = await asyncio.to_thread(client.get_object, Bucket="copied", Key="to")
    assert await asyncio.to_thread(found["Body"].read) == data
