"""digest_c against digest_py: same results, same refusals, same faces."""

from __future__ import annotations

import array
import hashlib
import inspect
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot._speedups import digest_c, digest_py, lane_c, lane_py

FUNCTIONS = ["sha256", "sha256_md5", "cid_raw", "cid_dag_cbor", "cid_matches"]
NAMES = ["sha256", "md5", "sha1"]


def buffers(data: bytes) -> list[Any]:
    return [data, bytearray(data), memoryview(data), memoryview(b"x" + data + b"y")[1:-1]]


@given(st.binary(max_size=3000))
def test_one_shots_agree(data: bytes) -> None:
    for each in buffers(data):
        for name in FUNCTIONS[:-1]:
            assert getattr(digest_c, name)(each) == getattr(digest_py, name)(each)
    assert digest_c.sha256_md5(data) == (hashlib.sha256(data).digest(), hashlib.md5(data).digest())


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 1_000_000])
def test_sizes_around_where_the_gil_is_let_go(size: int) -> None:
    data = bytes(size)
    for name in FUNCTIONS[:-1]:
        assert getattr(digest_c, name)(data) == getattr(digest_py, name)(data)
    for name in NAMES:
        hasher = digest_c.Hasher(name)
        hasher.update(data)
        assert hasher.digest() == hashlib.new(name, data).digest()


@given(
    st.sampled_from(NAMES),
    st.lists(st.tuples(st.sampled_from(["update", "digest", "copy"]), st.binary(max_size=200))),
)
def test_running_hashers_agree(name: str, steps: list[tuple[str, bytes]]) -> None:
    ours, twin = digest_c.Hasher(name), digest_py.Hasher(name)
    everything = b""
    for step, data in steps:
        if step == "update":
            ours.update(data)
            twin.update(data)
            everything += data
        elif step == "copy":
            for other in (ours.copy(), twin.copy()):
                other.update(b"not in the original")
            ours, twin = ours.copy(), twin.copy()
        assert ours.digest() == twin.digest() == hashlib.new(name, everything).digest()
    assert (ours.name, ours.digest_size, ours.held) == (twin.name, twin.digest_size, twin.held)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_cid_matches_agrees_on_anything(cid: bytes, data: bytes) -> None:
    right = digest_py.sha256(data)
    tail = b"\x12\x20" + right
    candidates = [cid, b"\x01" + cid, cid + tail, b"\x01" + cid + tail]
    for each in candidates:
        for form in buffers(each):
            assert digest_c.cid_matches(form, data) is digest_py.cid_matches(form, data)


@pytest.mark.parametrize("module", [digest_c, digest_py], ids=["compiled", "twin"])
def test_cids(module: Any) -> None:
    data = b"a chunk"
    right = hashlib.sha256(data).digest()
    assert module.cid_raw(data) == b"\x01\x55\x12\x20" + right
    assert module.cid_dag_cbor(data) == b"\x01\x71\x12\x20" + right
    for prefix in ("01551220", "01711220", "0182041220"):
        cid = bytes.fromhex(prefix) + right
        assert module.cid_matches(cid, data) is True
        assert module.cid_matches(cid, data + b"!") is False
        assert module.cid_matches(cid[:-1], data) is False
    assert module.cid_matches(bytes.fromhex("01551120") + right, data) is False
    assert module.cid_matches(bytes.fromhex("02551220") + right, data) is False


@pytest.mark.parametrize("module", [digest_c, digest_py], ids=["compiled", "twin"])
def test_refusals(module: Any) -> None:
    with pytest.raises(ValueError, match="no hasher is called 'crc32'"):
        module.Hasher("crc32")
    for function in (module.sha256, module.sha256_md5, module.cid_raw, module.Hasher("md5").update):
        with pytest.raises(TypeError):
            function("text")
        with pytest.raises(BufferError):
            function(memoryview(b"abcdef")[::2])
        assert function(array.array("I", [1, 2])) in (None, function(b"\1\0\0\0\2\0\0\0"))


def test_threads_do_not_disturb_one_another() -> None:
    data = [bytes([at]) * 200_000 for at in range(8)]
    wrong: list[int] = []

    def work(at: int) -> None:
        for _ in range(5):
            if digest_c.sha256_md5(data[at]) != digest_py.sha256_md5(data[at]):
                wrong.append(at)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("compiled", "twin"), [(digest_c, digest_py), (lane_c, lane_py)], ids=["digest", "lane"]
)
def test_faces_agree(compiled: Any, twin: Any) -> None:
    def callables(owner: Any) -> dict[str, Any]:
        return {
            name: value
            for name, value in vars(owner).items()
            if not name.startswith("_") and callable(value)
        }

    def compare(ours: Any, theirs: Any) -> None:
        assert ours.__doc__ == theirs.__doc__
        one, two = inspect.signature(ours), inspect.signature(theirs)
        assert [(p.name, p.kind, p.default) for p in one.parameters.values()] == [
            (p.name, p.kind, p.default) for p in two.parameters.values()
        ]

    for name in [*FUNCTIONS, "Hasher"] if twin is digest_py else ["Job", "Lane"]:
        ours, theirs = getattr(compiled, name), getattr(twin, name)
        if not isinstance(theirs, type):
            compare(ours, theirs)
            continue
        assert ours.__doc__ == theirs.__doc__
        for method, value in callables(ours).items():
            compare(value, getattr(theirs, method))
        only_twin = callables(theirs).keys() - callables(ours).keys()
        assert only_twin <= {"feed", "hold", "release", "run"}
