"""The end-to-end suite runs, its figures are whole, and two of its results can be compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("Cython")
ROOT = Path(__file__).parents[2]


def perf(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "perf" / arguments[0]), *arguments[1:]],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.slow
def test_a_small_run(reachable_path: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    arguments = ("--sizes", "1k,1m", "--connections", "2", "--seconds", "0.2", "--keys", "300")
    ended = perf("e2e.py", *arguments, "--dir", str(reachable_path), "--json", str(results))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(results.read_text())
    operations = [(f["operation"], f["size"], f["connections"]) for f in found["figures"]]
    sized = [(op, size, 2) for size in (1 << 10, 1 << 20) for op in ("put", "get")]
    assert operations == [*sized, ("list", 0, 2), ("list-folders", 0, 2)]
    for figure in found["figures"]:
        assert figure["statuses"].keys() == {"200"}
        assert figure["requests"] > 0 and figure["floor"]["share"] > 0
        assert 0 < figure["p50_us"] <= figure["p999_us"] <= figure["max_us"]
    assert found["floors"]["sync_us"]["idle"]["p50"] > 0
    assert list(reachable_path.glob("tmp-*")) == []
    compared = perf("compare.py", str(results), str(results), "--fail")
    assert compared.returncode == 0 and compared.stdout.count(" 1.00") >= len(operations)


def result(share: float, unit: str = "/s") -> dict[str, Any]:
    figure = {"operation": "put", "size": 1024, "connections": 64, "rate": 1000.0}
    figure |= {"p50_us": 1.0, "p99_us": 2.0}
    figure["floor"] = {"name": "echo", "value": 1.0, "unit": unit, "share": share}
    idle = {"idle": {"p50": 100.0}}
    return {
        "about": {"commit": "c", "when": "w", "keys": 1},
        "floors": {"sync_us": idle, "swap_us": idle, "digests_mb_s": {"md5": 700.0}},
        "figures": [figure],
    }


@pytest.mark.parametrize(
    ("old", "new", "unit", "status", "word"),
    [
        (0.2, 0.3, "/s", 0, "better"),
        (0.3, 0.2, "/s", 1, "WORSE"),
        (0.2, 0.21, "/s", 0, "1.05\n"),
        (1.3, 1.8, "us p50", 1, "WORSE"),
        (1.8, 1.3, "us p50", 0, "better"),
    ],
)
def test_comparing(
    tmp_path: Path, old: float, new: float, unit: str, status: int, word: str
) -> None:
    paths = [tmp_path / "old.json", tmp_path / "new.json"]
    for path, share in zip(paths, (old, new), strict=True):
        path.write_text(json.dumps(result(share, unit)))
    ended = perf("compare.py", *map(str, paths), "--fail")
    assert ended.returncode == status, ended.stderr
    assert word in ended.stdout
