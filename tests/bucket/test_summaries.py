"""Summaries of records: what a listing has shown is in memory, is right, and is bounded."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from ingot._speedups import entries, summaries
from ingot.bucket.record import SUMMARY, Record, cid_of, encode_record
from ingot.bucket.summaries import Summaries
from ingot.errors import FormatError
from ingot.messages import Body, Cid

ROOM = 1 << 20
AROUND = (b"<C><Key>", b"</Key><LastModified>", b"</C>")


def block_of(number: int, etag: str | None = None) -> bytes:
    body = Body(1, bytes(16), bytes(32), inline=b"x")
    return encode_record(
        Record(b"k%d" % number, body, etag or f"{number:032x}", number, checksums={"crc32": b"1"})
    )


class Disk:
    """Records' blocks, given a few at a time; ``asked`` has what was read."""

    def __init__(self, blocks: Sequence[bytes]) -> None:
        self.cids = [cid_of(block) for block in blocks]
        self.blocks = dict(zip(self.cids, blocks, strict=True))
        self.asked: list[Cid] = []

    async def records(self, cids: Sequence[Cid]) -> AsyncGenerator[list[bytes], None]:
        for at in range(0, len(cids), 7):
            self.asked += cids[at : at + 7]
            yield [self.blocks[cid] for cid in cids[at : at + 7]]


def shown(items: Sequence[bytes]) -> bytes:
    return entries.write(SUMMARY, [b"n"] * len(items), items, *AROUND)


async def test_what_was_shown_is_not_read_again() -> None:
    disk = Disk([block_of(number) for number in range(40)])
    held = Summaries(disk.records, ROOM)
    first = await held.of(disk.cids)
    assert disk.asked == disk.cids
    disk.asked.clear()
    assert await held.of(disk.cids) == first and disk.asked == []
    assert shown(first) == shown([disk.blocks[cid] for cid in disk.cids])


async def test_a_page_that_is_partly_known() -> None:
    disk = Disk([block_of(number) for number in range(60)])
    held = Summaries(disk.records, ROOM)
    await held.of(disk.cids[::3])
    disk.asked.clear()
    found = await held.of(disk.cids)
    assert disk.asked == [cid for at, cid in enumerate(disk.cids) if at % 3]
    assert shown(found) == shown([disk.blocks[cid] for cid in disk.cids])
    assert await held.of([]) == []


async def test_unusual_records_are_read_each_time() -> None:
    disk = Disk([block_of(1), block_of(2, "no md5"), block_of(3)])
    held = Summaries(disk.records, ROOM)
    for _ in range(2):
        disk.asked.clear()
        found = await held.of(disk.cids)
        assert found[1] == disk.blocks[disk.cids[1]]
        assert shown(found) == shown([disk.blocks[cid] for cid in disk.cids])
    assert disk.asked == [disk.cids[1]]


async def test_what_is_no_record_is_refused_and_not_kept() -> None:
    whole = await Summaries(Disk([block_of(1)]).records, ROOM).of([cid_of(block_of(1))])
    disk = Disk([block_of(1), whole[0]])  # a block that looks like a summary
    held = Summaries(disk.records, ROOM)
    for _ in range(2):
        with pytest.raises(FormatError):
            await held.of(disk.cids)


async def test_memory_is_bounded_and_what_is_found_is_right() -> None:
    """Five times as many keys as there is room for, in rounds and at random."""
    room = 1024 * summaries.SLOT_BYTES
    disk = Disk([block_of(number) for number in range(5000)])
    right = dict(
        zip(disk.cids, entries.summaries(SUMMARY, list(disk.blocks.values())), strict=True)
    )
    held, rng = Summaries(disk.records, room), random.Random(3)
    for round_ in range(12):
        cids = disk.cids if round_ % 2 else rng.choices(disk.cids, k=1500)
        assert await held.of(cids) == [right[cid] for cid in cids]
        assert held.bytes_used <= room
    disk.asked.clear()
    await held.of(disk.cids)
    assert len(disk.asked) < 5000, "a round over too many keys finds some of them"


def table(room: int) -> tuple[Any, list[Cid], list[bytes]]:
    blocks = [block_of(number) for number in range(6000)]
    return (
        summaries.Summaries(room),
        [cid_of(b) for b in blocks],
        entries.summaries(SUMMARY, blocks),
    )


def test_a_table_grows_and_loses_nothing_by_it() -> None:
    held, cids, made = table(ROOM)
    begun = held.bytes_used
    for at in range(0, 6000, 100):
        held.add_many(cids[at : at + 100], made[at : at + 100])
        some = slice(max(0, at - 900), at + 100)
        found = held.find_many(cids[some])
        assert all(one in (None, right) for one, right in zip(found, made[some], strict=True))
        assert found.count(None) <= 20, "of a thousand"
        assert begun <= held.bytes_used <= ROOM * 3 // 2
    assert held.find_many(cids).count(None) < 200, "half full, few sets have more than eight"


def test_what_was_added_last_is_found_while_a_table_grows() -> None:
    held, cids, made = table(ROOM)
    other = made[1]
    for at in range(0, 1200, 100):
        held.add_many(cids[at : at + 100], made[at : at + 100])
        held.add_many(cids[:1], [other if at % 200 else made[0]])
        for _ in range(3):
            assert held.find_many(cids[:1]) == [other if at % 200 else made[0]]


def test_misuse() -> None:
    held, cids, made = table(ROOM)
    with pytest.raises(ValueError, match="no room"):
        summaries.Summaries(1023 * summaries.SLOT_BYTES)
    for wrong in (b"", cids[0][:-1], cids[0] + b"x"):
        with pytest.raises(ValueError, match="a CID has 36 bytes"):
            held.find_many([wrong])
        with pytest.raises(ValueError, match="a CID has 36 bytes"):
            held.add_many([wrong], made[:1])
    with pytest.raises(ValueError):
        held.add_many(cids[:2], made[:1])
    held.add_many(cids[3:6], [b"", made[0][:-1], b"\x02" + made[0][1:]])
    assert held.find_many(cids[3:6]) == [None, None, None]


def test_the_format_of_a_summary() -> None:
    body = Body(258, bytes(16), bytes(32), inline=b"x" * 258)
    etag = "000102030405060708090a0b0c0d0e0f-258"
    record = Record(b"k", body, etag, 772, checksums={"sha256": b"1"}, composite=True)
    [made] = entries.summaries(SUMMARY, [encode_record(record)])
    assert made.hex() == "01850201000102030405060708090a0b0c0d0e0f02010000000000000403000000000000"
