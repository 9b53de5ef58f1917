"""Sharded DAG indexes: where each block lies in which CAR, as an archive that Forge stores.

    archive = CARv1 with one root; a block for every shard, then the root block
    root    = { index/sharded/dag@0.1: { shards: [link of a shard's block, ...] } }
    shard   = [shard multihash, [[slice multihash, [start, end]], ...]]

A *shard* is a whole CAR, a *slice* one block's bytes in it. ``start`` and ``end`` are positions in
the CAR's file, **both inclusive** (an older format of the same name has offset and length). Slices
and shards are sorted by digest. A shard has at most 8,192 slices in one archive; a CAR of more
blocks gets several archives that name the same shard, and a reader merges them.

Reading verifies every block's hash (Corruption) and shape (FormatError), and takes any order. Pure;
called by the shipper (``archives``) and by whoever asks the indexer (``query``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from ingot.codec import car, cid, dag_cbor, multihash
from ingot.codec.dag_cbor import Cid
from ingot.errors import FormatError
from ingot.forge import values
from ingot.forge.errors import Malformed, TooLarge
from ingot.limits import FORGE_INDEX_BYTES_MAX, UCAN_ENTRIES_MAX

FORMAT: Final = "index/sharded/dag@0.1"

Range = tuple[int, int]
"""(first byte, last byte) in a CAR."""
Index = dict[bytes, dict[bytes, Range]]
"""By the shard's multihash, by the slice's multihash."""


def archives(shard: bytes, blocks: Iterable[tuple[bytes, int, int]]) -> list[bytes]:
    """The index of one CAR, whose multihash is ``shard``, in as few archives as may be: its blocks
    as (multihash, offset of the block's bytes, length). Empty blocks have no range and are left
    out; of a block that occurs twice, the last place is kept."""
    slices = {name: (offset, offset + length - 1) for name, offset, length in blocks if length}
    names = _by_digest(slices)
    parts = range(0, len(names) or 1, UCAN_ENTRIES_MAX)
    return [
        encode({shard: {name: slices[name] for name in names[at : at + UCAN_ENTRIES_MAX]}})
        for at in parts
    ]


def encode(index: Mapping[bytes, Mapping[bytes, Range]]) -> bytes:
    """One archive; TooLarge when it, or a shard, would hold more than readers take."""
    if len(index) > UCAN_ENTRIES_MAX:
        raise TooLarge(f"{len(index)} shards; an index holds {UCAN_ENTRIES_MAX}")
    blocks = []
    for shard in _by_digest(index):
        slices = index[shard]
        if len(slices) > UCAN_ENTRIES_MAX:
            raise TooLarge(f"a shard of {len(slices)} slices; an index holds {UCAN_ENTRIES_MAX}")
        block = dag_cbor.encode([shard, [(name, slices[name]) for name in _by_digest(slices)]])
        blocks.append((cid.of_structure(block), block))
    root = dag_cbor.wrap(FORMAT, {"shards": [Cid(name) for name, _ in blocks]})
    name = cid.of_structure(root)
    archive = car.encode_archive([name], [*blocks, (name, root)])
    if len(archive) > FORGE_INDEX_BYTES_MAX:
        raise TooLarge(f"an index of {len(archive)} bytes; readers take {FORGE_INDEX_BYTES_MAX}")
    return archive


def _by_digest(names: Iterable[bytes]) -> list[bytes]:
    ordered = sorted(names)
    if ordered and not ordered[0][:2] == ordered[-1][:2] == multihash.SHA2_256_PREFIX:
        ordered.sort(key=lambda name: multihash.split(name)[1])
    return ordered  # what starts alike sorts as what follows does


def decode(data: bytes) -> Index:
    """What an archive says; Corruption for a block that is not what its CID says, FormatError for
    anything else that is no index."""
    if len(data) > FORGE_INDEX_BYTES_MAX:
        raise FormatError(FORGE_INDEX_BYTES_MAX, "the end of the index", f"{len(data)} bytes")
    roots, _ = car.decode_header(data)
    if len(roots) != 1 or not roots[0].startswith(cid.DAG_CBOR_PREFIX):
        raise FormatError(0, "one root, in DAG-CBOR", f"{len(roots)} roots")
    blocks: dict[bytes, bytes] = dict(car.blocks(data))
    root = _block(roots[0], blocks)
    value = dag_cbor.decode(root)
    index: Index = {}
    with values.located(root):
        shards = values.take(value, list, FORMAT, "shards")
        if len(shards) > UCAN_ENTRIES_MAX:
            raise Malformed((FORMAT,), f"at most {UCAN_ENTRIES_MAX} shards", str(len(shards)))
        names = [values.take(value, Cid, FORMAT, "shards", at) for at in range(len(shards))]
        for name in dict.fromkeys(names):  # each once, however often it is named
            shard, slices = _shard(_block(name, blocks))
            index.setdefault(shard, {}).update(slices)
    return index


def _block(name: bytes, blocks: Mapping[bytes, bytes]) -> bytes:
    block = blocks.get(name)
    if block is None:
        raise FormatError(0, f"an index with the block {cid.to_text(name)}", "none such")
    return block


def _shard(block: bytes) -> tuple[bytes, dict[bytes, Range]]:
    value = dag_cbor.decode(block)
    slices: dict[bytes, Range] = {}
    with values.located(block):
        entries = values.take(value, list, 1)
        if len(entries) > UCAN_ENTRIES_MAX:
            raise Malformed((1,), f"at most {UCAN_ENTRIES_MAX} slices", str(len(entries)))
        for at, entry in enumerate(entries):
            if type(entry) is list and len(entry) == 2:
                name, span = entry
                if type(name) is bytes and type(span) is list and len(span) == 2:
                    start, end = span
                    if type(start) is int and type(end) is int and 0 <= start <= end:
                        slices[name] = (start, end)
                        continue
            raise Malformed((1, at), "a multihash, first and last byte", repr(entry)[:99])
        return values.take(value, bytes, 0), slices
