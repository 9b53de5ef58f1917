"""Index archives: the vectors byte for byte, any index, its limits, and damage."""

from __future__ import annotations

from typing import Any

import dag_cbor as oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiformats import CID

from ingot.codec import car, cid, dag_cbor, multihash
from ingot.codec.dag_cbor import Cid
from ingot.errors import Corruption, FormatError
from ingot.forge import index
from ingot.forge.errors import TooLarge
from ingot.forge.index import Index
from ingot.limits import FORGE_INDEX_BYTES_MAX, UCAN_ENTRIES_MAX
from tests.forge import builders
from tests.forge.support import VECTORS, load

SEGMENT = load("segment-index.json")
NAMES = st.binary(max_size=3).map(multihash.of)
RANGES = st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 20)).map(
    lambda span: (span[0], span[0] + span[1])
)
INDEXES = st.dictionaries(NAMES, st.dictionaries(NAMES, RANGES, max_size=6), max_size=3)
SHARD = multihash.of(b"shard")


def test_the_segment_of_the_vectors() -> None:
    """Its blocks stand where our archive reader says, and their index is the vector's."""
    data = (VECTORS / "segment.car").read_bytes()
    _, offset = car.decode_header(data)
    blocks = []
    for frame, expected in zip(car.frames(data, offset), SEGMENT["segment"]["blocks"], strict=True):
        assert cid.to_text(frame.cid) == expected["cid"]
        assert frame.offset == expected["sectionStart"]
        assert frame.end - frame.offset == expected["sectionLength"]
        assert (frame.block, frame.end - frame.block) == (
            expected["dataOffset"],
            expected["dataLength"],
        )
        name = multihash.of_cid(frame.cid)
        assert name.hex() == expected["multihashHex"]
        blocks.append((name, frame.block, frame.end - frame.block))
    shard = multihash.of(data)
    assert shard.hex() == SEGMENT["segment"]["multihashHex"]
    assert multihash.to_text(shard) == SEGMENT["segment"]["multihashBase58"]
    assert cid.to_text(cid.of_archive(shard[2:])) == SEGMENT["segment"]["carCid"]
    (made,) = index.archives(shard, blocks)
    assert made == (VECTORS / "index.car").read_bytes()
    spans = {
        bytes.fromhex(one["multihashHex"]): (one["start"], one["end"])
        for one in SEGMENT["segment"]["blocks"]
    }
    assert index.decode(made) == {shard: spans}


@pytest.mark.parametrize("name", ["index", "twoShardIndex"])
def test_archives_of_the_vectors(name: str) -> None:
    expected = SEGMENT[name]
    data = (VECTORS / expected["file"]).read_bytes()
    read = index.decode(data)
    assert index.encode(read) == data and len(data) == expected["size"]
    assert multihash.of(data).hex() == expected["multihashHex"]
    assert cid.to_text(cid.of_archive(multihash.of(data)[2:])) == expected["cid"]
    *shards, root = list(car.blocks(data))
    assert [block.hex() for _, block in [*shards, root]] == [b["hex"] for b in expected["blocks"]]
    assert [cid.to_text(one) for one, _ in [*shards, root]] == [
        b["cid"] for b in expected["blocks"]
    ]
    assert car.decode_header(data)[0] == [root[0]]
    assert len(read) == len(shards)


@given(INDEXES)
def test_round_trip(value: Index) -> None:
    data = index.encode(value)
    assert index.decode(data) == value
    assert index.encode(dict(reversed(list(value.items())))) == data


@given(INDEXES)
def test_read_by_the_specification(value: Index) -> None:
    """With other libraries: one root, last; shards and slices by digest; both ends included."""
    blocks = list(car.blocks(index.encode(value)))
    for name, block in blocks:
        assert bytes(CID("base32", 1, "dag-cbor", multihash.of(block))) == name
    root: Any = oracle.decode(blocks[-1][1])
    links = root["index/sharded/dag@0.1"]["shards"]
    assert [bytes(link) for link in links] == [name for name, _ in blocks[:-1]]
    found = [oracle.decode(block) for _, block in blocks[:-1]]
    assert found == [
        [shard, [[name, list(value[shard][name])] for name in sorted(value[shard])]]
        for shard in sorted(value)
    ]


def test_empty_blocks_are_left_out() -> None:
    name, other = multihash.of(b""), multihash.of(b"x")
    (made,) = index.archives(SHARD, [(name, 100, 0), (other, 100, 1)])
    assert index.decode(made) == {SHARD: {other: (100, 100)}}
    (nothing,) = index.archives(SHARD, [])
    assert index.decode(nothing) == {SHARD: {}}


def test_other_hashes_are_sorted_by_their_digests() -> None:
    names = [bytes([0x00, 2]) + b"zz", multihash.of(b"a"), bytes([0x12, 4]) + b"\0\0\0\1"]
    (made,) = index.archives(SHARD, [(name, 1, 1) for name in names])
    block = next(iter(car.blocks(made)))[1]
    value: Any = dag_cbor.decode(block)
    digests = [multihash.split(name)[1] for name, _ in value[1]]
    assert digests == sorted(digests) and index.decode(made)[SHARD].keys() == set(names)


@pytest.mark.slow
@pytest.mark.parametrize("extra", [0, 1, UCAN_ENTRIES_MAX + 1])
def test_a_large_car_gets_several_archives_of_one_shard(extra: int) -> None:
    count = UCAN_ENTRIES_MAX + extra
    blocks = [(multihash.of(at.to_bytes(4, "big")), at * 100, 90) for at in range(count)]
    made = index.archives(SHARD, blocks)
    assert len(made) == -(-count // UCAN_ENTRIES_MAX)
    merged: dict[bytes, tuple[int, int]] = {}
    for data in made:
        ((shard, slices),) = index.decode(data).items()
        assert shard == SHARD and len(slices) <= UCAN_ENTRIES_MAX
        assert not merged.keys() & slices.keys()
        merged |= slices
    assert merged == {name: (at, at + size - 1) for name, at, size in blocks}
    if extra:
        with pytest.raises(TooLarge, match=f"{count} slices"):
            index.encode({SHARD: merged})


@pytest.mark.slow
def test_shards_are_bounded() -> None:
    many: Index = {multihash.of(at.to_bytes(4, "big")): {} for at in range(UCAN_ENTRIES_MAX + 1)}
    with pytest.raises(TooLarge, match="shards"):
        index.encode(many)
    many.popitem()
    assert index.decode(index.encode(many)) == many


@given(st.data())
def test_damage(data: st.DataObject) -> None:
    whole = index.encode(data.draw(INDEXES))
    changed = data.draw(st.composite(builders.damaged)(whole))
    try:
        read = index.decode(changed)
    except (FormatError, Corruption):
        return
    assert read == index.decode(whole)  # blocks that come twice or are nobody's change nothing


@given(st.binary(max_size=80))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(FormatError):
        index.decode(data)


def archive(root: object, shards: list[object], roots: int = 1) -> bytes:
    blocks = [(cid.of_structure(block), block) for block in map(dag_cbor.encode, shards)]
    if root is ...:
        root = {index.FORMAT: {"shards": [Cid(name) for name, _ in blocks]}}
    block = dag_cbor.encode(root)
    name = cid.of_structure(block)
    return car.encode_archive([name] * roots, [*blocks, (name, block)])


GOOD = [SHARD, [[multihash.of(b"x"), [0, 9]]]]


def test_the_archives_of_these_tests_are_good() -> None:
    assert index.decode(archive(..., [GOOD])) == {SHARD: {multihash.of(b"x"): (0, 9)}}


@pytest.mark.parametrize(
    "shard",
    [
        None,
        [],
        [SHARD],
        {"shard": SHARD},
        ["text", []],
        [SHARD, {}],
        [SHARD, [[]]],
        [SHARD, [[SHARD]]],
        [SHARD, [[SHARD, [1]]]],
        [SHARD, [[SHARD, [1, 2, 3]]]],
        [SHARD, [[SHARD, [2, 1]]]],
        [SHARD, [[SHARD, [-1, 1]]]],
        [SHARD, [[SHARD, [0, True]]]],
        [SHARD, [[SHARD, 0, 9]]],
        [SHARD, [["text", [0, 9]]]],
        [SHARD, [[Cid(cid.of_chunk(b"")), [0, 9]]]],
        [SHARD, [GOOD[1][0]] * (UCAN_ENTRIES_MAX + 1)],
    ],
    ids=lambda shard: repr(shard)[:30],
)
def test_malformed_shards(shard: object) -> None:
    with pytest.raises(FormatError):
        index.decode(archive(..., [GOOD, shard]))


@pytest.mark.parametrize(
    "root",
    [
        None,
        {},
        {"index/sharded/dag@0.2": {"shards": []}},
        {index.FORMAT: []},
        {index.FORMAT: {}},
        {index.FORMAT: {"shards": {}}},
        {index.FORMAT: {"shards": [b"x"]}},
        {index.FORMAT: {"shards": [Cid(cid.of_structure(b"missing"))]}},
        {index.FORMAT: {"shards": [Cid(cid.of_structure(b""))] * (UCAN_ENTRIES_MAX + 1)}},
    ],
    ids=lambda root: repr(root)[:60],
)
def test_malformed_roots(root: object) -> None:
    with pytest.raises(FormatError):
        index.decode(archive(root, [GOOD]))


def test_a_shard_named_many_times_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or 300 kB could ask for an hour's work."""
    block = dag_cbor.encode(GOOD)
    root = {index.FORMAT: {"shards": [Cid(cid.of_structure(block))] * UCAN_ENTRIES_MAX}}
    data = archive(root, [GOOD])
    seen = []
    decode = dag_cbor.decode
    monkeypatch.setattr(dag_cbor, "decode", lambda *one: seen.append(one[0]) or decode(*one))
    assert index.decode(data) == {SHARD: {multihash.of(b"x"): (0, 9)}}
    assert seen.count(block) == 1


def test_other_malformed_archives() -> None:
    for roots in (0, 2):
        with pytest.raises(FormatError, match="one root"):
            index.decode(archive(..., [GOOD], roots))
    with pytest.raises(FormatError):
        index.decode(car.encode_archive([cid.of_chunk(b"")], [(cid.of_chunk(b""), b"")]))
    with pytest.raises(FormatError, match="none such"):
        index.decode(car.encode_archive([cid.of_structure(b"")], []))
    with pytest.raises(FormatError, match="end of the index"):
        index.decode(bytes(FORGE_INDEX_BYTES_MAX + 1))
    damaged = bytearray(archive(..., [GOOD]))
    damaged[damaged.index(SHARD)] ^= 1
    with pytest.raises(Corruption):
        index.decode(bytes(damaged))
