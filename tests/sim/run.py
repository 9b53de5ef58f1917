"""Runs seeds: ``python -m tests.sim.run --seeds 2000 --start 1``.

Prints progress, and for a failing seed the line that replays it.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback

from tests.sim.world import run_seed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--start", type=int, default=1)
    parser.add_argument("--cycles", type=int, default=5)
    parser.add_argument("--mood", choices=["", "paged", "killed"], default="")
    parser.add_argument("--keep-going", action="store_true")
    arguments = parser.parse_args()
    logging.disable()  # the store reports what the faults do to it
    began, crashes, commits, units, retired, failures = time.monotonic(), 0, 0, 0, 0, 0
    for seed in range(arguments.start, arguments.start + arguments.seeds):
        try:
            world = run_seed(seed, arguments.cycles, arguments.mood)
        except Exception:
            traceback.print_exc()
            options = f"--start {seed} --mood '{arguments.mood}' --cycles {arguments.cycles}"
            print(f"replay: python -m tests.sim.run --seeds 1 {options}", flush=True)
            failures += 1
            if not arguments.keep_going:
                return 1
            continue
        crashes += world.crashes
        commits += world.commits
        units += world.units
        retired += world.retired
        if (seed - arguments.start + 1) % 200 == 0:
            elapsed = time.monotonic() - began
            print(f"seed {seed}: {crashes} crashes, {commits} commits, {elapsed:.0f} s", flush=True)
    print(
        f"{arguments.seeds} seeds, {crashes} crash states, {commits} commits, {units} units, "
        f"{retired} segments retired, {failures} failures"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
