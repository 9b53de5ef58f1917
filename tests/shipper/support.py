"""A log of files that is made up, and shippers over it that are in a hurry."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ingot._speedups import frame
from ingot.codec import cid as cids
from ingot.codec import multihash
from ingot.errors import Corruption
from ingot.forge import query, token
from ingot.forge.client import ForgeClient
from ingot.forge.network import Network
from ingot.messages import BodyPosition, CommitRecord, Head, HeadMove, SealedSegment, Shipment
from ingot.segments import format
from ingot.shipper.shipper import Shipper, ShipperSettings
from ingot.shipper.sources import Block

GENERATIONS = ["next", "seed"]
BOTH = pytest.mark.parametrize("network", GENERATIONS, indirect=True)
QUICK = ShipperSettings(files=2, backoff_s=0.002, backoff_max_s=0.02)
Key = tuple[str, int]


@dataclass
class Log:
    """Sources (``ingot.shipper.sources``) with one file after the other: ``body``, ``unit``. The
    same seed gives the same files."""

    directory: Path
    seed: int = 1
    files: dict[Key, SealedSegment] = field(default_factory=dict)
    hidden: set[Key] = field(default_factory=set)  # there, and not to be shipped
    short: set[Key] = field(default_factory=set)  # shorter than they were
    spans: dict[Key, Any] = field(default_factory=dict)  # of damaged files
    blocks: dict[Key, list[Block]] = field(default_factory=dict)
    commits: list[tuple[bytes, CommitRecord]] = field(default_factory=list)
    open_fds: int = 0
    digested: Counter[Key] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.heads: dict[bytes, Head] = {}
        self.directory.mkdir(exist_ok=True)

    # -- making it --------------------------------------------------------------------------------

    def body(self, size: int = 300_000, blocks: int = 3) -> SealedSegment:
        number = 1 + sum(stream == "body" for stream, _ in self.files)
        return self._write("body", number, size, blocks, 0, 0, None)

    def unit(
        self,
        commits: int = 3,
        needs: SealedSegment | None = None,
        size: int = 9_000,
        blocks: int = 9,
        move: Callable[[int], HeadMove] | None = None,
        skip: int = 0,
    ) -> SealedSegment:
        number = 1 + sum(stream == "unit" for stream, _ in self.files)
        last = self.commits[-1][1].sequence if self.commits else 0
        position = BodyPosition(needs.number, needs.bytes) if needs is not None else None
        for sequence in range(last + skip + 1, last + skip + 1 + commits):
            moves = (move(sequence) if move else self.move(),)
            self._commit(sequence, moves, () if position is None else (position,))
        return self._write("unit", number, size, blocks, last + 1, last + skip + commits, position)

    def move(self, bucket: bytes | None = None, gone: bool = False) -> HeadMove:
        """The next step of a bucket; one of three where it is not said."""
        bucket = bucket or self.random.choice([b"a" * 16, b"b" * 16, b"c" * 16])
        old = self.heads.pop(bucket, None)
        if gone:
            return HeadMove(bucket, "name", old, None)
        root = cids.of_structure(self.random.randbytes(9))
        self.heads[bucket] = Head(0 if old is None else old.sequence + 1, root)
        return HeadMove(bucket, "name", old, self.heads[bucket])

    def _commit(self, sequence: int, moves: Any, bodies: Any) -> None:
        previous = self.commits[-1][0] if self.commits else None
        cid = cids.of_structure(b"commit %d" % sequence)
        fixed = (b"s" * 16, 1, b"l" * 16, 1, sequence, 1000 * sequence, previous, 0, b"", None)
        self.commits.append((cid, CommitRecord(*fixed, bodies, moves)))

    def _write(self, stream: str, number: int, size: int, blocks: int, *rest: Any) -> SealedSegment:
        content = [self.random.randbytes(size // blocks) for _ in range(blocks)]
        data = format.header()
        placed: list[Block] = []
        for block in content:
            name = bytes((1, 0x55, 0x12, 0x20)) + sha256(block).digest()
            head = frame.head(name, len(block))
            placed.append((multihash.of(block), len(data) + len(head), len(block)))
            data += head + block
        (self.directory / f"{stream}-{number}").write_bytes(data)
        made = SealedSegment(stream, number, len(data), *rest)
        self.files[stream, number], self.blocks[stream, number] = made, placed
        return made

    def data(self, key: Key) -> bytes:
        return (self.directory / f"{key[0]}-{key[1]}").read_bytes()

    # -- ingot.shipper.sources.Sources ------------------------------------------------------------

    def shippable(self) -> list[SealedSegment]:
        return [made for key, made in self.files.items() if key not in self.hidden]

    def body_numbers(self) -> set[int]:
        return {number for stream, number in self.files if stream == "body"}

    @contextmanager
    def open_file(self, segment: SealedSegment) -> Iterator[int]:
        fd = os.open(self.directory / f"{segment.stream}-{segment.number}", os.O_RDONLY)
        self.open_fds += 1
        try:
            yield fd
        finally:
            self.open_fds -= 1
            os.close(fd)

    async def examine(self, segment: SealedSegment) -> tuple[bytes, tuple[Any, ...]]:
        key = segment.stream, segment.number
        await asyncio.sleep(0)
        self.digested[key] += 1
        if key in self.short:
            raise Corruption(f"{key}", "more", "its end")
        return multihash.of(self.data(key)), self.spans.get(key, ())

    async def blocks_of(
        self, segment: SealedSegment, spans: Any
    ) -> AsyncGenerator[list[Block], None]:
        blocks = [
            block
            for block in self.blocks[segment.stream, segment.number]
            if not any(start <= block[1] < stop for start, stop in spans)
        ]
        for at in range(0, len(blocks), 1000):
            await asyncio.sleep(0)
            yield blocks[at : at + 1000]

    async def commit_of(self, cid: bytes) -> CommitRecord | None:
        return dict(self.commits).get(cid)

    def copies(self, cid: bytes) -> list[tuple[Key, int]]:
        return [
            (key, offset)
            for key, blocks in self.blocks.items()
            for name, offset, _ in blocks
            if name[2:] == cid[4:]
        ]

    async def commits_after(self, after: int) -> AsyncGenerator[tuple[bytes, CommitRecord], None]:
        for cid, record in self.commits:
            if record.sequence > after:
                await asyncio.sleep(0)
                yield cid, record


class Watched:
    """A registry; ``check`` runs before every move of the watermark."""

    def __init__(self, registry: Any, check: Callable[[int], Any]) -> None:
        self._registry, self._check = registry, check

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)

    async def advance_forge(self, token: bytes, commit: int, roots: Any, held: Any = ()) -> None:
        await self._check(commit)
        await self._registry.advance_forge(token, commit, roots, held)


def places_of(row: Shipment) -> list[Any]:
    """Where a file lies, by the tokens in the registry alone."""
    return [query.location_of(token.decode(data)) for data in row.locations]


async def read_back(client: ForgeClient, row: Shipment) -> bytes:
    async with client.retriever.read(places_of(row), 0, row.bytes - 1) as reading:
        return b"".join([piece async for piece in reading])


async def until(condition: Callable[[], bool], shipper: Shipper | None = None) -> None:
    """Poll; a shipper that ended by itself fails the test."""
    async with asyncio.timeout(60):
        while not condition():
            assert shipper is None or shipper.failed is None
            await asyncio.sleep(0.002)


def accepted(network: Network, data: bytes) -> int:
    return sum(node.effects["accepted", multihash.of(data)] for node in network.nodes)


def without(row: Shipment, **fields: Any) -> Shipment:
    return replace(row, **fields)
