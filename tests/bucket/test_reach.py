"""What a head needs beyond the one that Forge has: real trees and bodies in real segments."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ingot.bucket.part import Part, Upload
from ingot.bucket.reach import Reach
from ingot.errors import Unavailable, Unfetched
from ingot.messages import Head
from tests.body.support import Stream
from tests.bucket.life import NOW, Life


def head(life: Life) -> Head:
    return life.store.bucket("b").head


class Asked:
    """Says which blocks are available; all but ``bad`` ones."""

    def __init__(self, *bad: bytes) -> None:
        self.bad = set(bad)
        self.cids: set[bytes] = set()

    def __call__(self, cid: bytes) -> bool:
        self.cids.add(cid)
        return cid not in self.bad


async def chunks(life: Life, key: str) -> list[bytes]:
    record = await life.store.find(life.store.bucket("b"), key.encode())
    return [cid for cid, _ in record.body.chunks]


async def test_everything_is_asked_for_once_and_then_only_what_changed(life: Life) -> None:
    for number in range(200):
        await life.put(f"k{number:03}", 100)
    await life.put("large", 3_000_000)
    reach, before, asked = Reach(life.segments), head(life), Asked()
    assert await reach.lacking(None, before, asked) is None
    assert {before.objects, before.config, *await chunks(life, "large")} <= asked.cids
    assert len(asked.cids) > 200
    assert await reach.lacking(before, before, again := Asked()) is None
    assert again.cids <= {before.config}
    await life.put("k007", 100)
    assert await reach.lacking(before, head(life), again := Asked()) is None
    assert head(life).objects in again.cids and len(again.cids) < 20


async def test_each_block_that_is_reached_can_be_lacking(life: Life) -> None:
    for number in range(30):
        await life.put(f"k{number:02}", random.Random(number).choice((100, 30_000)))
    await life.put("large", 2_000_000)
    body = await life.store.ingest(Stream(b"p" * 100_000), ("md5",))
    upload = await life.store.uploads.create(
        life.store.bucket("b"), Upload(b"up", "", NOW, "owner", "Owner")
    )
    await life.store.uploads.put_part(life.store.bucket("b"), upload, 1, Part(body, NOW))
    reach, asked = Reach(life.segments), Asked()
    assert await reach.lacking(None, head(life), asked) is None
    large = await chunks(life, "large")
    for bad in sorted(asked.cids):
        why = await reach.lacking(None, head(life), Asked(bad))
        assert why is not None and "needs block" in why
        if bad in large:
            assert why.startswith("object 'large' needs")
    found = await reach.lacking(None, head(life), Asked(body.chunks[0][0]))
    assert found is not None and found.startswith("upload 'up")


async def test_what_is_overwritten_is_needed_no_more(life: Life) -> None:
    await life.put("other", 100)
    before = head(life)
    await life.put("large", 300_000)
    bad = (await chunks(life, "large"))[0]
    reach = Reach(life.segments)
    assert await reach.lacking(before, head(life), Asked(bad)) is not None
    await life.put("large", 10)
    assert await reach.lacking(before, head(life), Asked(bad)) is None
    assert await reach.lacking(None, head(life), Asked(bad)) is None


@pytest.mark.parametrize(
    ("error", "raises"), [(Unavailable("a bad sector"), False), (Unfetched("away"), True)]
)
async def test_what_cannot_be_read_hides_what_is_below(
    life: Life, error: Exception, raises: bool
) -> None:
    await life.put("k", 30_000)

    class Unreadable:
        def read_now(self, cid: bytes) -> bytes | None:
            return None

        async def read(self, cid: bytes) -> bytes:
            raise error

        def prefetch(self, cids: Any) -> None:
            pass

    reach = Reach(Unreadable())
    if raises:
        with pytest.raises(Unfetched):
            await reach.lacking(None, head(life), Asked())
    else:
        why = await reach.lacking(None, head(life), Asked())
        assert why is not None and "a bad sector" in why


async def test_a_bucket_that_is_empty_needs_its_configuration(life: Life) -> None:
    config = head(life).config
    assert config is not None
    assert await Reach(life.segments).lacking(None, head(life), Asked()) is None
    why = await Reach(life.segments).lacking(None, head(life), Asked(config))
    assert why is not None and why.startswith("its configuration needs")
