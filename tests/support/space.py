"""What a development network really has of a space: read from its files, by none of the gateway's
own ways, so that what the gateway believes can be compared with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from hashlib import sha256
from pathlib import Path

from ingot.codec import car, dag_cbor, multihash


class Space:
    """The contents of the network in ``directory``, which one space uses. Blobs are read once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.blocks: dict[bytes, bytes] = {}  # by CID
        self._read: set[bytes] = set()

    def registered(self) -> set[bytes]:
        """The multihashes of the blobs that the upload service lists."""
        return set(self._keys("upload", "Registered"))

    def accepted(self) -> list[bytes]:
        """The multihashes of the blobs that nodes took, once for each node that did."""
        nodes = [path.name for path in self.directory.glob("node-*")]
        return [digest for node in nodes for digest in self._keys(node, "Acceptance")]

    def _keys(self, service: str, kind: str) -> list[bytes]:
        path = self.directory / service / "state.sqlite3"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as state:
            rows = state.execute("SELECT key FROM records WHERE kind = ?", (kind,)).fetchall()
        return [key.split(b"\0", 1)[1] for (key,) in rows]

    def blob(self, digest: bytes) -> bytes:
        """A blob's bytes, from the one node that has it; AssertionError where they are wrong."""
        (path,) = self.directory.glob(f"node-*/blobs/{multihash.to_text(digest)}")
        data = path.read_bytes()
        assert multihash.of(data) == digest, f"{path} has other bytes"
        return data

    def take(self, digests: Iterable[bytes]) -> None:
        """Have the blocks of these segment files at hand, each verified."""
        for digest in set(digests) - self._read:
            self._read.add(digest)
            for cid, block in car.blocks(self.blob(digest)):
                assert sha256(block).digest() == cid[-32:], "a frame has not its hash"
                self.blocks[bytes(cid)] = bytes(block)

    def check_reachable(self, roots: Iterable[bytes]) -> int:
        """Follow every link from ``roots`` within what ``take`` has; how many blocks that were.
        AssertionError for one that is not there."""
        seen = set(roots)
        left = list(seen)
        while left:
            cid = left.pop()
            assert cid in self.blocks, f"block {cid.hex()} is reached, and nowhere in the network"
            if cid.startswith(b"\x01\x71"):
                for link in dag_cbor.links(self.blocks[cid]):
                    if link not in seen:
                        seen.add(link)
                        left.append(link)
        return len(seen)
