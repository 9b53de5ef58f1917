"""The benchmark of listings runs on tiny input, and its figures are whole."""

from __future__ import annotations

import pytest

from perf.bench_listing import main


@pytest.mark.slow
def test_smoke() -> None:
    found = main(["--smoke"])
    assert {"page", "with owner", "url", "folders", "walk", "first read"} == set(found)
    for figures in found.values():
        assert 0 < figures["cpu least"] <= figures["cpu p50"]
        assert 0 < figures["step p50"] <= figures["time p50"] <= figures["time p99"]
