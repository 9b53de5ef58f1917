"""Compiled frames and index against their twins, on the same input."""

from __future__ import annotations

import inspect
from hashlib import sha256
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot._speedups import frame_c, frame_py, index_c, index_py
from ingot.errors import FormatError

RAW, DAG = b"\x01\x55\x12\x20", b"\x01\x71\x12\x20"


def block(data: bytes, prefix: bytes = RAW) -> tuple[bytes, bytes]:
    return prefix + sha256(data).digest(), data


blocks = st.lists(
    st.builds(block, st.binary(max_size=300), st.sampled_from([RAW, DAG])), max_size=12
)


def outcome(call: Any, *args: Any) -> Any:
    """What a call returns or raises, comparable."""
    try:
        return call(*args)
    except FormatError as error:
        return FormatError, error.offset
    except (ValueError, IndexError) as error:
        return type(error)


@pytest.mark.parametrize("compiled, twin", [(frame_c, frame_py), (index_c, index_py)])
def test_the_twins_have_the_same_names_signatures_and_docstrings(
    compiled: ModuleType, twin: ModuleType
) -> None:
    def public(module: ModuleType) -> dict[str, Any]:
        return {
            name: value
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
        }

    assert public(compiled).keys() == public(twin).keys()
    for name, value in public(twin).items():
        other = public(compiled)[name]
        assert inspect.getdoc(other) == inspect.getdoc(value)
        if inspect.isclass(value):
            for method, body in vars(value).items():
                if not method.startswith("_"):
                    assert inspect.getdoc(getattr(other, method)) == inspect.getdoc(body), method
        else:
            signature = str(inspect.signature(other, eval_str=True))
            assert signature.replace(compiled.__name__, twin.__name__) == str(
                inspect.signature(value, eval_str=True)
            )
    for name in vars(twin):
        if not name.isupper() or name.startswith("_") or name not in vars(compiled):
            continue
        assert getattr(compiled, name) == getattr(twin, name)


@given(blocks, st.binary(max_size=200), st.binary(max_size=3), st.integers(0, 12))
def test_pack_and_scan_agree(
    items: list[tuple[bytes, bytes]], tail: bytes, mark: bytes, cut: int
) -> None:
    packed = frame_c.pack(items)
    assert packed == frame_py.pack(items)
    data = packed + tail
    middle = len(frame_c.pack(items[:cut]))
    found = []
    for module in (frame_c, frame_py):
        tally = module.Tally()  # carried over from one span to the next
        first = module.scan(data, 0, middle, mark, tally)
        assert first[:3] == (middle, min(cut, len(items)), 1)
        found.append((first[3], module.scan(data, middle, len(data), mark, tally)))
    assert found[0] == found[1]
    marks, scanned = found[0][0] + found[0][1][3], found[0][1]
    assert scanned[0] >= len(packed)
    since: list[bytes] = []
    expected = []
    for cid, content in items:
        if cid.startswith(DAG) and content.startswith(mark):
            expected.append((len(since), sha256(b"".join(since)).digest()))
            since.clear()
        else:
            since.append(cid)
    marks = marks[: len(expected)]
    assert [each[4:] for each in marks] == expected
    chosen = [item for item in items if item[0].startswith(DAG) and item[1].startswith(mark)]
    assert [each[2:4] for each in marks] == chosen
    assert [data[each[0] : each[1]] for each in marks] == [frame_c.pack([one]) for one in chosen]


@given(blocks, st.data())
def test_damage_is_seen_alike(items: list[tuple[bytes, bytes]], draw: st.DataObject) -> None:
    packed = bytearray(frame_c.pack(items))
    if packed:
        at = draw.draw(st.integers(0, len(packed) - 1))
        packed[at] ^= 1 << draw.draw(st.integers(0, 7))
    stop = draw.draw(st.integers(0, len(packed)))
    start = draw.draw(st.integers(0, stop))
    budget = draw.draw(st.integers(0, 5000))
    scans = [
        outcome(module.scan, packed, start, stop, b"", module.Tally())
        for module in (frame_c, frame_py)
    ]
    assert scans[0] == scans[1]
    finds = [module.find(packed, start, stop, budget) for module in (frame_c, frame_py)]
    assert finds[0] == finds[1]


@pytest.mark.parametrize("module", [frame_c, frame_py])
def test_a_scan_needs_a_tally(module: ModuleType) -> None:
    with pytest.raises((TypeError, AttributeError)):
        data = module.pack([block(b"one")])
        module.scan(data, 0, len(data), b"", None)


@given(st.binary(max_size=40), st.integers(-1, 1 << 22))
def test_heads_agree(cid: bytes, length: int) -> None:
    for name in (cid, (RAW + cid + bytes(32))[:36]):
        assert outcome(frame_c.head, name, length) == outcome(frame_py.head, name, length)


def test_find_meets_the_first_good_frame_behind_junk() -> None:
    packed = frame_c.pack([block(b"one" * 50), block(b"two")])
    for junk in (b"", b"\x00" * 77, RAW * 9, packed[:-1], packed[3:60]):
        data = junk + packed
        expected = frame_py.find(data, 0, len(data), 1 << 20)
        assert frame_c.find(data, 0, len(data), 1 << 20) == expected
        assert 0 <= expected[0] <= len(junk)


def test_find_gives_up_when_its_budget_is_spent() -> None:
    """Bytes made to look like many long frames must not cost many long hashes."""
    data = b"".join(b"\xff\x07" + RAW + bytes(10) for _ in range(200)) + bytes(2000)
    for module in (frame_c, frame_py):
        assert module.find(data, 0, len(data), 5000) == (-1, 0)
        assert module.find(data, 0, len(data), 1 << 30)[0] == -1


# -- the index ------------------------------------------------------------------------------------

digests = st.binary(min_size=32, max_size=32) | st.builds(
    lambda few, end: bytes([few]) * 31 + bytes([end]), st.integers(254, 255), st.integers(0, 255)
)
places = st.lists(
    st.tuples(digests, st.integers(1, 1000), st.integers(0, 1 << 21), st.booleans()), max_size=300
)


def exported(table: Any, step: int) -> bytes:
    out, cursor = b"", 0
    while True:
        piece, cursor = table.export(cursor, step, 7)
        out += piece
        if cursor == 0:
            return out


@settings(max_examples=60)
@given(places, st.integers(1, 1000), st.integers(1, 50))
def test_tables_agree(items: list[tuple[bytes, int, int, bool]], bound: int, step: int) -> None:
    one, two = index_c.Table(), index_py.Table()
    for digest, offset, length, verified in items:
        cid = RAW + digest
        assert one.add(cid, offset, length, verified) == two.add(cid, offset, length, verified)
    for digest, *_ in items[::3]:
        one.verify(DAG + digest)
        two.verify(DAG + digest)
    assert exported(one, step) == exported(two, step)
    assert one.drop_from(bound) == two.drop_from(bound)
    assert len(one) == len(two)
    for digest, *_ in items:
        assert one.find(RAW + digest) == two.find(RAW + digest)
        assert (DAG + digest in one) == (DAG + digest in two)
    assert exported(one, step) == exported(two, step)


def test_a_table_survives_digests_mined_to_share_a_prefix() -> None:
    table = index_c.Table()
    cids = [RAW + b"\xff" * 29 + n.to_bytes(3, "big") for n in range(3000)]
    for n, cid in enumerate(cids):
        assert table.add(cid, n + 1, n, False)
    assert all(table.find(cid) == (n + 1, n, False) for n, cid in enumerate(cids))
    assert [table.export(0, 3000, 0)[0][at : at + 32] for at in range(0, 44 * 3000, 44)] == [
        cid[4:] for cid in cids
    ]


@given(blocks)
def test_fresh_blocks_agree(items: list[tuple[bytes, bytes]]) -> None:
    answers = []
    for table in (index_c.Table(), index_py.Table()):
        for n, (cid, _) in enumerate(items[::3]):
            table.add(cid, n + 1, 1, True)
        answers.append(list(table.fresh(items * 2).items()))
    assert answers[0] == answers[1]
    known = {cid[4:] for cid, _ in items[::3]}
    assert answers[0] == list({c: d for c, d in items if c[4:] not in known}.items())


def test_a_table_is_warmed_without_changing_it() -> None:
    for table in (index_c.Table(10_000), index_py.Table(10_000)):
        table.add(RAW + bytes(32), 5, 6, False)
        table.add(RAW + b"\xff" * 32, 7, 8, True)
        table.warm()
        assert table.find(RAW + bytes(32)) == (5, 6, False)
        assert table.find(RAW + b"\xff" * 32) == (7, 8, True) and len(table) == 2


HELD = st.lists(st.lists(st.integers(0, 60), max_size=25), max_size=3)


@given(HELD, HELD, st.lists(st.integers(0, 80), max_size=60), st.integers(1, 3))
def test_many_blocks_are_found_alike_and_as_one_by_one(
    tables: list[list[int]], runs: list[list[int]], wanted: list[int], names: int
) -> None:
    """Entries number three segments, of which ``names`` exist."""
    cids = [RAW + sha256(b"%d" % n).digest() for n in range(81)]
    trusted = {("run", 1, 0)}
    found = []
    for module in (index_c, index_py):
        held_tables, held_runs = [], []
        for at, numbers in enumerate(tables):
            table = module.Table()
            for n in numbers:
                table.add(cids[n], n + 1, 10 * at, n % 2 == 0)
            held_tables.append((table, ("table", at)))
        for at, numbers in enumerate(runs):
            entries = entries_of([(cids[n][4:], n + 1) for n in numbers], 3)
            builder = module.Filter(len(numbers))
            filter = builder.add(entries) + builder.finish()
            place = (len(filter), len(numbers), 0, len(filter) // 64)
            run = module.Run(filter + entries, *place)
            for position in range(0, len(numbers), 2):
                run.verify(position)
            held_runs.append((run, [("run", at, name) for name in range(names)]))
        held = (held_tables, held_runs, trusted)
        places, unverified = module.find_many(*held, [cids[n] for n in wanted])
        single = [module.find_many(*held, [cids[n]]) for n in wanted]
        assert places == [place for (place,), _ in single]
        assert unverified == [at for at, (_, alone) in enumerate(single) if alone]
        assert all(places[at][0] not in trusted for at in unverified)
        found.append((places, unverified))
    assert found[0] == found[1]
    for at, (n, place) in enumerate(zip(wanted, found[0][0], strict=True)):
        holders = [number for number, numbers in enumerate(tables) if n in numbers]
        if holders:
            assert place == (("table", holders[0]), n + 1, 10 * holders[0])
            assert (at in found[0][1]) == (n % 2 == 1)
        elif not any(n in numbers for numbers in runs):
            assert place is None and at not in found[0][1]


def test_only_cids_are_found() -> None:
    for module in (index_c, index_py):
        with pytest.raises(ValueError, match="36 bytes"):
            module.find_many([(module.Table(), 1)], [], (), [b"short"])


@given(st.binary(min_size=64, max_size=2000), st.lists(digests, max_size=20))
def test_a_run_over_rubbish_answers_something(data: bytes, wanted: list[bytes]) -> None:
    """Damaged entries may be out of order; no look-up may leave them."""
    count = (len(data) - 64) // 44
    whole = b"\xff" * 64 + data[64:]
    run = index_c.Run(whole, 64, count, 0, 1)
    for digest in [*wanted, *(data[64 + 44 * n : 96 + 44 * n] for n in range(count))]:
        position = run.find(RAW + digest)
        assert position == -1 or whole[64 + 44 * position :][:32] == digest


@given(blocks, st.integers(1, 100))
def test_add_frames_agrees(items: list[tuple[bytes, bytes]], base: int) -> None:
    packed = frame_c.pack(items)
    one, two = index_c.Table(), index_py.Table()
    counts = {t.add_frames(packed, 0, len(packed), base, True) for t in (one, two)}
    assert counts == {len({cid[4:] for cid, _ in items})}
    for cid, data in items:
        assert one.find(cid) == two.find(cid)
        offset, length, verified = one.find(cid)
        assert packed[offset - base : offset - base + length] == data and verified
    broken = packed[:-1]
    if broken:
        calls = [
            outcome(t().add_frames, broken, 0, len(broken), 1, True)
            for t in (index_c.Table, index_py.Table)
        ]
        assert calls[0] == calls[1] and calls[0][0] is FormatError


def entries_of(items: list[tuple[bytes, int]], names: int) -> bytes:
    return b"".join(digest + index_py._PLACE.pack(n % names, n, 5) for digest, n in sorted(items))


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.tuples(digests, st.integers(1, 9)), max_size=60), min_size=1, max_size=5),
    st.integers(1, 40),
    st.integers(1, 25),
)
def test_merges_and_runs_agree(
    sources: list[list[tuple[bytes, int]]], limit: int, piece: int
) -> None:
    names = [[10 * s + n for n in range(3)] for s in range(len(sources))]
    feeds = [entries_of(items, 3) for items in sources]
    results = []
    for module in (index_c, index_py):
        merge, at, out = module.Merge(names), [0] * len(sources), b""
        while True:
            source = merge.hungry()
            if source >= 0:
                chunk = feeds[source][at[source] : at[source] + 44 * piece]
                at[source] += len(chunk)
                merge.feed(source, chunk)
                continue
            step = merge.step(limit)
            if not step and merge.hungry() < 0:
                break
            out += step
        count = len(out) // 44
        builder = module.Filter(count)
        filter = (
            b"".join(builder.add(out[i : i + 44 * limit]) for i in range(0, len(out), 44 * limit))
            + builder.finish()
        )
        assert len(filter) == 64 * module.filter_blocks(count)
        results.append((out, filter))
    assert results[0] == results[1]
    out, filter = results[0]
    count = len(out) // 44
    assert out == b"".join(
        sorted((out[i : i + 44] for i in range(0, len(out), 44)), key=lambda e: e[:32])
    )
    buffer = b"pad" + filter + out
    one, two = (
        m.Run(buffer, 3 + len(filter), count, 3, len(filter) // 64) for m in (index_c, index_py)
    )
    for digest, _ in (item for items in sources for item in items):
        cid = RAW + digest
        at = one.find(cid)
        assert at == two.find(cid) >= 0
        assert one.entry(at) == two.entry(at)
        assert one.holds(at + 1, cid) == two.holds(at + 1, cid)
        assert one.lookup(cid) == (*one.entry(at), one.verified(at))
        assert one.lookup(cid)[:3] == two.lookup(cid)[:3]
        one.verify(at)
        assert one.verified(at) and one.lookup(cid)[3]
    for n in range(40):
        cid = RAW + sha256(bytes([n])).digest()
        assert one.find(cid) == two.find(cid) == -1
        assert one.lookup(cid) is two.lookup(cid) is None
    one.release()
    assert one.lookup(RAW + bytes(32)) is None
    assert one.find(RAW + bytes(32)) == -1 and len(one) == 0


@pytest.mark.parametrize("module", [index_c, index_py])
def test_a_run_refuses_what_is_not_inside_its_buffer(module: ModuleType) -> None:
    for entries, count, filter, blocks in [
        (-1, 1, 0, 1),
        (0, 3, 0, 1),
        (200, 0, 0, 1),
        (0, 1, 65, 1),
        (0, 1, 0, 0),
        (0, 1, 0, 3),
        (0, -1, 0, 1),
    ]:
        with pytest.raises((ValueError, OverflowError)):
            module.Run(bytes(128), entries, count, filter, blocks)
    run = module.Run(bytes(128), 64, 1, 0, 1)
    for position in (-1, 1, 1 << 40):
        with pytest.raises(IndexError):
            run.entry(position)


@pytest.mark.parametrize("module", [index_c, index_py])
def test_a_merge_refuses_a_source_out_of_order_or_with_unknown_segments(module: ModuleType) -> None:
    later, earlier = b"\xf2" * 32, b"\x01" * 32
    place = index_py._PLACE.pack(0, 1, 1)
    merge = module.Merge([[0]])
    merge.feed(0, later + place + earlier + place)
    with pytest.raises(FormatError):
        merge.step(5)
    merge = module.Merge([[0]])
    merge.feed(0, later + index_py._PLACE.pack(1, 1, 1))
    with pytest.raises(FormatError):
        merge.step(5)
    with pytest.raises(FormatError):
        module.Filter(1000).add(later + place + earlier + place)
