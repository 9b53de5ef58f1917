"""What the tree's tests share: blocks to load, an oracle, keys by layer, the vectors' recipe."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from ingot import mst
from ingot.errors import Missing
from ingot.mst.verify import KeyRule, valid_key

T = TypeVar("T")
VECTORS = Path(__file__).parents[1] / "vectors" / "mst"
BUDGET = 64 * 1024 * 1024


def vectors(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


def cid(text: str) -> bytes:
    """A binary CID from its base32 text."""
    body = text[1:].upper()
    return base64.b32decode(body + "=" * (-len(body) % 8))


def value(number: int) -> bytes:
    return b"\x01\x71\x12\x20" + sha256(b"value %d" % number).digest()


def node_cid(block: bytes) -> bytes:
    return b"\x01\x71\x12\x20" + sha256(block).digest()


class Shelf:
    """Blocks as a disk would hold them, beside a cache: runs a call until nothing is missing."""

    def __init__(self, budget: int = BUDGET, blocks: dict[bytes, bytes] | None = None) -> None:
        self.blocks = {} if blocks is None else dict(blocks)
        self.cache = mst.NodeCache(budget)
        self.loads: list[bytes] = []
        self.rounds = 0

    def run(self, call: Callable[[mst.NodeCache], T]) -> T:
        self.loads, self.rounds = [], 0
        while True:
            try:
                return call(self.cache)
            except Missing as missing:
                self.rounds += 1
                assert missing.cids and len(set(missing.cids)) == len(missing.cids)
                for name in missing.cids:
                    self.loads.append(name)
                    self.cache.add(name, self.blocks[name])

    def apply(
        self,
        root: bytes | None,
        mutations: Iterable[tuple[bytes, bytes | None]],
        salt: bytes = b"",
    ) -> mst.Applied:
        batch = sorted(mutations)
        applied = self.run(lambda held: mst.apply(held, root, batch, salt))
        self.blocks.update(applied.blocks)
        return applied

    def forget(self) -> None:
        """A cold cache."""
        self.cache = mst.NodeCache(self.cache.budget)

    def nodes(self, root: bytes | None) -> set[bytes]:
        """The CIDs of a tree; the empty tree is a node too when it has a root."""
        found: set[bytes] = set()
        waiting = [] if root is None else [root]
        while waiting:
            name = waiting.pop()
            found.add(name)
            block = mst.EMPTY_BLOCK if name == mst.EMPTY_ROOT else self.blocks[name]
            left, entries = mst.decode_node(block)
            waiting += [link for link in (left, *(e[2] for e in entries)) if link is not None]
        return found

    def check(
        self, root: bytes | None, salt: bytes = b"", rule: KeyRule = valid_key
    ) -> mst.TreeStats:
        """Every invariant of the tree, from the blocks alone."""
        check = mst.TreeCheck(root, salt, rule)
        while wanted := check.wanted:
            for name in wanted:
                check.feed(name, self.blocks[name])
        return check.stats


def oracle(content: dict[bytes, bytes], salt: bytes = b"") -> tuple[bytes, dict[bytes, bytes]]:
    """(root, blocks) of a map, built from the definition: keys of a layer, gaps below."""
    if not content:
        return mst.EMPTY_ROOT, {mst.EMPTY_ROOT: mst.EMPTY_BLOCK}
    blocks: dict[bytes, bytes] = {}
    layers = {key: mst.key_layer(key, salt) for key in content}

    def build(keys: list[bytes], layer: int) -> bytes | None:
        if not keys:
            return None
        gaps: list[list[bytes]] = [[]]
        here = []
        for key in keys:
            if layers[key] == layer:
                here.append(key)
                gaps.append([])
            else:
                gaps[-1].append(key)
        links = [build(gap, layer - 1) for gap in gaps]
        entries = [(k, content[k], link) for k, link in zip(here, links[1:], strict=True)]
        block = mst.encode_node(links[0], entries)
        blocks[node_cid(block)] = block
        return node_cid(block)

    root = build(sorted(content), max(layers.values()))
    assert root is not None
    return root, blocks


def inverse(
    mutations: list[tuple[bytes, bytes | None]], previous: list[bytes | None]
) -> list[tuple[bytes, bytes | None]]:
    return [(key, old) for (key, _), old in zip(mutations, previous, strict=True)]


@cache
def keys_by_layer() -> list[list[bytes]]:
    """Some keys of every layer 0 to 16: short ones, and the mined ones of the vectors."""
    pool: list[list[bytes]] = [[] for _ in range(17)]
    for n in range(30000):
        key = b"u/%d" % n
        layer = mst.key_layer(key)
        if len(pool[layer]) < 12:
            pool[layer].append(key)
    for case in vectors("key-heights")["mined"]:
        pool[case["height"]].append(case["key"].encode())
    return pool


# -- the recipe of the large key sets (vectors README) ---------------------------------------------

_T = b"ingot-mst-vectors/1/"
ODD = bytes.fromhex(
    "25 32 46 2b 26 3d 3b 3a 40 21 24 27 28 29 2a 2c 7e 60 5e 7c 5c 22 3c 3e 7b 7d 5b 5d 23 3f"
)


def recipe_digest(i: int) -> bytes:
    return sha256(_T + b"key/%d" % i).digest()


def recipe_value(i: int, generation: int) -> bytes:
    return b"\x01\x71\x12\x20" + sha256(_T + b"value/%d/%d" % (i, generation)).digest()


def updated(i: int) -> bool:
    return recipe_digest(i)[31] % 8 == 0


def deleted(i: int) -> bool:
    return recipe_digest(i)[30] % 3 == 0


def recipe_key(i: int) -> bytes:
    d = recipe_digest(i)
    return _RECIPE[d[0] % 16](i, d, str(i)).encode()


def _long(d: bytes) -> int:
    return 200 + (d[1] * 256 + d[2]) % 825


def _ascii_fill(i: int, d: bytes, s: str) -> str:
    head = f"long/{s}/"
    return head + (d.hex() * 32)[: _long(d) - len(head)]


def _wide_fill(i: int, d: bytes, s: str) -> str:
    head = f"\u9577\u3044/{s}/"
    n = _long(d) - len(head.encode())
    return head + "\u3042" * (n // 3) + "x" * (n % 3)


_RECIPE: list[Callable[[int, bytes, str], str]] = [
    lambda i, d, s: (
        f"logs/year=20{20 + d[1] % 7:02d}/month={1 + d[2] % 12:02d}/day={1 + d[3] % 28:02d}"
        f"/host-{d[4] % 40:03d}/part-{i:08d}.json.gz"
    ),
    lambda i, d, s: f"photos/{2015 + d[1] % 10}/{1 + d[2] % 12:02d}/IMG_{i:07d}.JPG",
    lambda i, d, s: f"My Documents/Project {d[1] % 50}/report (final v{d[2] % 9}) {s}.docx",
    lambda i, d, s: ("caf\u00e9/" if d[1] % 2 else "cafe\u0301/") + f"men\u00fc {s}",
    lambda i, d, s: f"\u8cc7\u6599/\u90e8\u9580{d[1] % 20}/\u8b70\u4e8b\u9332 {s}.pdf",
    lambda i, d, s: f"\U0001f4e6/{chr(0x1F300 + d[1])}/{s}",
    lambda i, d, s: (chr(0xFF01 + d[1] % 94) if d[2] % 2 else chr(0xE000 + d[1])) + f"/{s}",
    lambda i, d, s: f"objects/{d[1]:02x}/{d[2]:02x}/{d[1:17].hex()}-{s}",
    lambda i, d, s: "/".join(f"d{d[2 + j % 8] % 4}" for j in range(1 + d[1] % 30)) + f"/f{s}",
    lambda i, d, s: (
        ("/", "//", "a//b/", "./", "../", "dir/")[d[1] % 6] + s + ("", "/", "//", "/.")[d[2] % 4]
    ),
    lambda i, d, s: chr(1 + d[1] % 31) + ODD.decode() + s,
    _ascii_fill,
    _wide_fill,
    lambda i, d, s: "same-prefix/" + "p" * 988 + f"{i:024d}",
    lambda i, d, s: (
        f"backups/db-{d[1] % 8}/2024-{1 + d[2] % 12:02d}-{1 + d[3] % 28:02d}T{d[4] % 24:02d}:"
        f"{d[5] % 60:02d}:{d[6] % 60:02d}Z/base/{i:016X}"
    ),
    lambda i, d, s: chr(97 + d[1] % 26) + s,
]


def cut(items: list[T], size: int) -> Iterator[list[T]]:
    for at in range(0, len(items), size):
        yield items[at : at + size]


def set_digest(cids: Iterable[bytes]) -> str:
    return sha256(b"".join(sorted(cids))).hexdigest()
