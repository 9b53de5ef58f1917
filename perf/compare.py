"""Two results side by side: ``python perf/compare.py OLD.json NEW.json``.

For every figure that both have: rate, p50 and p99 then and now, and its share, the figure divided
by the floor of its own run, which takes most of the machine's mood out of the comparison. A change
by less than the ratio ``--noise`` is not marked: runs repeat within about 15 %. With ``--fail`` the
status is 1 when a share got worse by more than that.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from report import ms, size_text

NOISE = 1.15
Key = tuple[str, int, int]


def figures_of(found: dict[str, Any]) -> dict[Key, dict[str, Any]]:
    return {(f["operation"], f["size"], f["connections"]): f for f in found["figures"]}


def gain(old: dict[str, Any], new: dict[str, Any]) -> float:
    """How many times better the new figure stands to its floor; 0 where one has none."""
    before, now = old["floor"]["share"], new["floor"]["share"]
    if not before or not now:
        return 0.0
    better_when_less = new["floor"]["unit"].startswith("us")
    return float(before / now if better_when_less else now / before)


def mark(ratio: float, noise: float) -> str:
    if not ratio or 1 / noise < ratio < noise:
        return ""
    return "better" if ratio > 1 else "WORSE"


def row(key: Key, old: dict[str, Any], new: dict[str, Any], noise: float) -> str:
    operation, size, connections = key
    ratio = gain(old, new)
    times = "".join(
        f"{ms(old[name] / 1000):>10} ->{ms(new[name] / 1000):>9}" for name in ("p50_us", "p99_us")
    )
    return (
        f"{operation:<13}{size_text(size):>7}{connections:>6}"
        f"{old['rate']:>10,.0f} ->{new['rate']:>9,.0f}{times}"
        f"{old['floor']['share']:>9.3f} ->{new['floor']['share']:>7.3f} {new['floor']['name']:<12}"
        f"{ratio:>6.2f} {mark(ratio, noise)}"
    ).rstrip()


def compare(old: dict[str, Any], new: dict[str, Any], noise: float) -> tuple[list[str], bool]:
    """(the table's lines, whether a figure got worse)."""
    lines = []
    for name, found in (("old", old), ("new", new)):
        about = found["about"]
        lines.append(f"{name}: {about['commit']} {about['when']}, {about['keys']:,} keys")
        syncs, swaps = (found["floors"][floor]["idle"]["p50"] for floor in ("sync_us", "swap_us"))
        digests = found["floors"]["digests_mb_s"]
        lines[-1] += f"; sync {syncs:,.0f} us, swap {swaps:,.0f} us, md5 {digests['md5']:,.0f} MB/s"
    lines.append(
        f"{'operation':<13}{'size':>7}{'conns':>6}{'answers/s':>22}{'p50 ms':>22}{'p99 ms':>22}"
        f"{'share of the floor':>31}{'gain':>6}"
    )
    before, now = figures_of(old), figures_of(new)
    shared = [key for key in before if key in now]
    worse = False
    for key in shared:
        lines.append(row(key, before[key], now[key], noise))
        worse = worse or mark(gain(before[key], now[key]), noise) == "WORSE"
    alone = len(before) + len(now) - 2 * len(shared)
    if alone:
        lines.append(f"{alone} figures are in one of the two only")
    return lines, worse


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--noise", type=float, default=NOISE, help=f"default {NOISE}")
    parser.add_argument("--fail", action="store_true", help="status 1 when something got worse")
    options = parser.parse_args()
    old, new = (json.loads(path.read_text()) for path in (options.old, options.new))
    lines, worse = compare(old, new, options.noise)
    print("\n".join(lines))
    return 1 if worse and options.fail else 0


if __name__ == "__main__":
    sys.exit(main())
