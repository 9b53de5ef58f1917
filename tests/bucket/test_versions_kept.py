"""Versions in real segments: over a compaction and a restart, and what fsck says of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ingot import mst
from ingot.bucket.fsck import Fsck
from ingot.bucket.leaf import Acl, Leaf, Retention, State, encode_leaf, order_key, version_id
from ingot.bucket.model import ENABLED, VERSIONING, Outcome
from ingot.bucket.mutation import Removal
from ingot.bucket.record import Record, cid_of
from ingot.bucket.versions import NewState
from ingot.messages import Body, Cid
from tests.bucket.life import CONFIG, NOW, Life
from tests.support.world import World

GIVEN = Acl("writer", "w", (("writer", "FULL_CONTROL"), ("reader", "READ")))
LOCK = State({"a": "b"}, Retention("COMPLIANCE", NOW + 10), hold=True, acl=GIVEN)


async def test_versions_outlive_compaction_and_restart(tmp_path: Path) -> None:
    life = Life(tmp_path)
    await life.start()
    await life.store.create_bucket("v", replace(CONFIG, documents={VERSIONING: ENABLED}))
    kept: dict[tuple[bytes, str], bytes] = {}

    async def put(key: bytes, data: bytes, state: State | None = None) -> str:
        body = Body(len(data), None, None, inline=data)
        outcome = await life.store.put(
            life.store.bucket("v"), Record(key, body, "e", NOW), None, state
        )
        assert isinstance(outcome, Outcome)
        kept[key, outcome.version] = data
        return outcome.version

    locked = await put(b"k", b"locked", LOCK)
    for round_ in range(6):
        for n in range(8):
            await put(b"k%d" % (n % 3), b"%d.%d" % (round_, n))
        gone = await put(b"k", b"gone")
        await life.store.remove(life.store.bucket("v"), [Removal(b"k", None, NOW, gone)])
        del kept[b"k", gone]
        await life.store.delete(life.store.bucket("v"), [b"k1"])
        await life.fill(round_ + 1)
    await life.until_settled(6)
    await life.store.set_state(life.store.bucket("v"), b"k", locked, NewState(tags={"c": "d"}), NOW)
    await life.compact(count=3)
    await life.compact(first=1, count=2)

    async def check() -> None:
        bucket = life.store.bucket("v")
        for (key, version), data in kept.items():
            found = await life.store.look(bucket, key, version)
            assert found is not None and found.record.body.inline == data
        found = await life.store.look(bucket, b"k", locked)
        assert found is not None and found.state == replace(LOCK, tags={"c": "d"})
        await life.check()
        await life.fsck()

    await check()
    await life.stop()
    await life.start()
    await check()
    await life.stop()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("state", "its state cannot be read"),
        ("id", "which leads elsewhere"),
        ("null", "its null version is at None"),
        ("key", "its record is of key b'other'"),
        ("lost", "older version b'ffff"),
    ],
)
async def test_fsck_finds_what_is_wrong_with_versions(damage: str, said: str) -> None:
    world = await World().start()
    store = world.store

    def add(block: bytes) -> Cid:
        world.log.blocks[cid_of(block)] = block
        return cid_of(block)

    def record(key: bytes) -> Record:
        return Record(key, Body(1, None, None, inline=b"x"), "e", NOW)

    await store.put(store.bucket("b"), record(b"k"))
    await store.put(store.bucket("b"), record(b"other"))
    cids = dict((await store.page(store.bucket("b"), b"", b"", None, 9)).items)
    good, other = cids[b"k"], cids[b"other"]
    assert good is not None and other is not None
    ids = [version_id(order_key(n, 1), b"%08d" % n) for n in range(3)]
    lost = good[:4] + bytes(32)
    current = {"key": other}.get(damage, good)
    orders = {ids[0]: order_key(9 if damage == "id" else 0, 1), ids[1]: order_key(1, 1)}
    older = [
        (order.encode(), lost if damage == "lost" else add(encode_leaf(Leaf(good, id))))
        for id, order in orders.items()
    ]
    tree = mst.apply(world.nodes.cache, None, sorted(older), b"")
    world.log.blocks.update(tree.blocks)
    state = good if damage == "state" else None
    null = order_key(0, 0) if damage == "null" else None
    leaf = add(encode_leaf(Leaf(current, ids[2], state, tree.root, null)))
    objects = mst.apply(world.nodes.cache, None, [(b"k", leaf)], b"")
    world.log.blocks.update(objects.blocks)
    bucket = store.bucket("b")
    bucket = replace(bucket, head=replace(bucket.head, objects=objects.root))
    found = await Fsck(world.log, lambda line: None).check([bucket])  # type: ignore[arg-type]
    assert len(found.damage) == (2 if damage == "lost" else 1) and said in found.damage[0]
    assert found.keys == 1
    await world.stop()
