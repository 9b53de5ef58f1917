"""kill -9 rounds over what S3 has beside PUT and DELETE, one at a time or all on one store:
``python -m tests.e2e.crash_s3 --what multipart --rounds 20 --seed 1``
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from tests.e2e.crash_complete import Complete
from tests.e2e.crash_lifecycle import Lifecycle
from tests.e2e.crash_multipart import Multipart
from tests.e2e.crash_versions import Versions
from tests.support.rounds import Scenario, run

SCENARIOS: dict[str, type[Scenario]] = {
    made.name: made for made in (Multipart, Complete, Versions, Lifecycle)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", choices=(*SCENARIOS, "all"), default="all")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    names = list(SCENARIOS) if options.what == "all" else [options.what]
    directory = Path(tempfile.mkdtemp(prefix="ingot-crash-"))
    directory.chmod(0o755)
    began = time.monotonic()
    try:
        scenarios = [SCENARIOS[name](options.seed) for name in names]
        load_s = scenarios[0].load_s if len(scenarios) == 1 else Scenario.load_s
        starts = run(scenarios, options.rounds, options.seed, directory, load_s, say=True)
    except BaseException:
        print(f"what was left, with the gateway's log: {directory}", flush=True)
        raise
    shutil.rmtree(directory)
    print(
        f"{options.what}: {options.rounds} rounds in {time.monotonic() - began:.0f} s; starts: "
        f"median {sorted(starts)[len(starts) // 2]:.2f} s, slowest {max(starts):.2f} s"
    )


if __name__ == "__main__":
    main()
