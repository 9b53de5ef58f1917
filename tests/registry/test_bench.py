"""The benchmark runs on tiny input, so that it still runs when it is needed."""

from __future__ import annotations

from perf.bench_registry import main


def test_smoke(postgres: str) -> None:
    found = main(["--smoke", "--dsn", postgres])
    assert {"select 1", "insert", "swap of 1"} <= set(found)
    assert all(figures["p50"] > 0 for figures in found.values())
