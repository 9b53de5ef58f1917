"""Commit records and checkpoints: the blocks that let the log alone rebuild every bucket.

A commit record is the last frame of a group commit: the write path makes one a batch, recovery
reads them in order, compaction and restore read their moves and pins. What a record does not have
(no previous one, no bodies, no pins) is left out. Pure.

    ingot/commit@1     = { store: 16 bytes, lease: 16 bytes, incarnation: uint, segment: uint,
                           sequence: uint from 1, time: uint (unix ms), previous: link,
                           frames: uint, digest: 32 bytes (sha256 over the CIDs of those frames),
                           checkpoint: link, bodies: [[segment, end]], moves: [move], pins: [link] }
    move               = { bucket: 16 bytes, name: text, old: head, new: head }  (one at least)
    head               = { sequence: uint, objects: link, uploads: link, config: link }
    ingot/checkpoint@1 = { store: 16 bytes, incarnation: uint, sequence: uint, time: uint,
                           root: link }
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ingot._speedups import layout
from ingot.codec import dag_cbor
from ingot.codec.dag_cbor import Cid
from ingot.codec.fields import Fields, open_envelope
from ingot.messages import BodyPosition, CommitRecord, Head, HeadMove

COMMIT = "ingot/commit@1"
CHECKPOINT = "ingot/checkpoint@1"
_COMMIT_PREFIX = dag_cbor.envelope_prefix(COMMIT)

ID_BYTES = 16  # of a store, a bucket, a lease token

Outline = tuple[bytes, Sequence[Sequence[int]] | None, bytes, int, int, bytes | None, int]

_OUTLINE: Final = (
    ("store", "bytes16"),
    ("bodies", "pairs?"),
    ("digest", "bytes32"),
    ("frames", "uint"),
    ("segment", "uint"),
    ("previous", "link?"),
    ("sequence", "uint"),
)
outline_commit: Final[Callable[[bytes], Outline]] = layout.Layout(COMMIT, _OUTLINE).pick
"""What a start needs of each record of a log: a tenth of what ``decode_commit`` costs, which made
half of the start. The rest is stepped over, so that it is as we write it is not found out here.
FormatError."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``ingot/checkpoint@1``: every bucket of the gateway as of one commit."""

    store: bytes
    incarnation: int
    sequence: int  # the commit whose heads it holds
    time_ms: int
    root: bytes  # of the tree over bucket ids


def is_commit(block: bytes | memoryview) -> bool:
    """Whether a block claims to be a commit record of this version; cheap, for log scans."""
    return bytes(block[: len(_COMMIT_PREFIX)]) == _COMMIT_PREFIX


def encode_commit(record: CommitRecord) -> bytes:
    assert len(record.store) == len(record.lease) == ID_BYTES and len(record.frames_digest) == 32
    assert record.sequence >= 1
    fields: dict[str, object] = {"store": record.store, "lease": record.lease}
    if record.pins:
        fields["pins"] = [Cid(cid) for cid in record.pins]
    fields["time"] = record.time_ms
    if record.moves:
        fields["moves"] = [_encode_move(move) for move in record.moves]
    if record.bodies:
        fields["bodies"] = [[position.segment, position.end] for position in record.bodies]
    fields |= {"digest": record.frames_digest, "frames": record.frames, "segment": record.segment}
    fields |= {"sequence": record.sequence, "incarnation": record.incarnation}
    _put_link(fields, "previous", record.previous)
    _put_link(fields, "checkpoint", record.checkpoint)
    return dag_cbor.wrap(COMMIT, fields)


def decode_commit(block: bytes) -> CommitRecord:
    """FormatError for anything that ``encode_commit`` would not write."""
    fields = open_envelope(block, COMMIT)
    record = CommitRecord(
        store=fields.need_bytes("store", ID_BYTES),
        incarnation=fields.need_uint("incarnation"),
        lease=fields.need_bytes("lease", ID_BYTES),
        segment=fields.need_uint("segment"),
        sequence=fields.need_uint("sequence", 1),
        time_ms=fields.need_uint("time"),
        previous=fields.get_link("previous"),
        frames=fields.need_uint("frames"),
        frames_digest=fields.need_bytes("digest", 32),
        checkpoint=fields.get_link("checkpoint"),
        bodies=_decode_bodies(fields),
        moves=tuple(
            _decode_move(fields.inside(move, "moves", index))
            for index, move in enumerate(fields.get_list("moves"))
        ),
        pins=_decode_pins(fields),
    )
    fields.done()
    return record


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    return dag_cbor.wrap(
        CHECKPOINT,
        {
            "root": Cid(checkpoint.root),
            "time": checkpoint.time_ms,
            "store": checkpoint.store,
            "sequence": checkpoint.sequence,
            "incarnation": checkpoint.incarnation,
        },
    )


def decode_checkpoint(block: bytes) -> Checkpoint:
    """FormatError for anything that ``encode_checkpoint`` would not write."""
    fields = open_envelope(block, CHECKPOINT)
    checkpoint = Checkpoint(
        store=fields.need_bytes("store", ID_BYTES),
        incarnation=fields.need_uint("incarnation"),
        sequence=fields.need_uint("sequence", 1),
        time_ms=fields.need_uint("time"),
        root=bytes(fields.need("root", Cid)),
    )
    fields.done()
    return checkpoint


# -- the parts ----------------------------------------------------------------------------------


def _put_link(fields: dict[str, object], name: str, cid: bytes | None) -> None:
    if cid is not None:
        fields[name] = Cid(cid)


def _encode_move(move: HeadMove) -> dict[str, object]:
    assert len(move.bucket) == ID_BYTES and (move.old is not None or move.new is not None)
    fields: dict[str, object] = {}
    if move.new is not None:
        fields["new"] = _encode_head(move.new)
    if move.old is not None:
        fields["old"] = _encode_head(move.old)
    fields |= {"name": move.name, "bucket": move.bucket}
    return fields


def _encode_head(head: Head) -> dict[str, object]:
    fields: dict[str, object] = {}
    _put_link(fields, "config", head.config)
    _put_link(fields, "objects", head.objects)
    _put_link(fields, "uploads", head.uploads)
    fields["sequence"] = head.sequence
    return fields


def _decode_move(fields: Fields) -> HeadMove:
    old, new = fields.get_fields("old"), fields.get_fields("new")
    if old is None and new is None:
        fields.need("new", dict)
    move = HeadMove(
        bucket=fields.need_bytes("bucket", ID_BYTES),
        name=fields.need("name", str),
        old=_decode_head(old) if old is not None else None,
        new=_decode_head(new) if new is not None else None,
    )
    fields.done()
    return move


def _decode_head(fields: Fields) -> Head:
    head = Head(
        sequence=fields.need_uint("sequence"),
        objects=fields.get_link("objects"),
        uploads=fields.get_link("uploads"),
        config=fields.get_link("config"),
    )
    fields.done()
    return head


def _decode_bodies(fields: Fields) -> tuple[BodyPosition, ...]:
    positions = []
    for index, item in enumerate(fields.get_list("bodies")):
        if not isinstance(item, list) or [type(n) for n in item] != [int, int] or min(item) < 0:
            fields.refuse("bodies", "[segment, end]", repr(item), index)
        positions.append(BodyPosition(item[0], item[1]))
    return tuple(positions)


def _decode_pins(fields: Fields) -> tuple[bytes, ...]:
    pins = []
    for index, item in enumerate(fields.get_list("pins")):
        if not isinstance(item, Cid):
            fields.refuse("pins", "a link", repr(item), index)
        pins.append(bytes(item))
    return tuple(pins)
