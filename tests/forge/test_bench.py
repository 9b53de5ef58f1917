"""Every case of the benchmark runs once, so that it still runs when it is needed."""

from __future__ import annotations

import pytest

from ingot.forge import container, index
from perf import bench_ucan
from perf.bench_ucan import CASES


@pytest.mark.parametrize("name", CASES)
def test_smoke(name: str) -> None:
    CASES[name]()


def test_what_the_cases_give() -> None:
    assert CASES["verify"]() is True
    assert CASES["sign"]() == bench_ucan.SIGNED
    assert CASES["encode an invocation, signing it"]() == bench_ucan.INVOCATION
    assert set(CASES["decode a header of four tokens"]().tokens()) == set(bench_ucan.TOKENS)
    assert container.decode(CASES["encode a body of four tokens"]()).delegations == (
        bench_ucan.PROOFS
    )
    ((shard, slices),) = CASES["read an index of 8,000 slices"]().items()
    assert shard == bench_ucan.SHARD and len(slices) == 8000
    assert [index.encode({shard: slices})] == CASES["write an index of 8,000 slices"]()
