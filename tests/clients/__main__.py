"""Every client through every flow, as a table: ``python -m tests.clients``.

``install`` first installs the clients that are missing: Python packages by pip, programs by
apt-get. Other arguments go to pytest (``-k rclone``). The exit status is pytest's.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.clients import libraries, programs

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROGRAMS = ("rclone", "restic")

NAMES = [made.name for made in (*programs.PROGRAMS, *libraries.LIBRARIES)]


def install() -> None:
    python = [sys.executable, "-m", "pip", "install", "-q", "-e", f"{ROOT}[clients,embedded,test]"]
    subprocess.run(python, check=True)
    for command in (["update", "-q"], ["install", "-qy", *PROGRAMS]):
        subprocess.run(["apt-get", *command], check=True)


class Matrix:
    """Listens to a run of pytest and remembers what became of each cell, a client's in a flow."""

    def __init__(self) -> None:
        self.cells: dict[tuple[str, str], str] = {}
        self.notes: dict[str, dict[str, None]] = defaultdict(dict)  # by client, in order

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = re.search(r"::test_(\w+)\[([^]]+)\]$", report.nodeid)
        if found is None or (report.passed and report.when != "call"):
            return
        flow, client = found[1], found[2]
        word = {"passed": "pass", "skipped": "skip"}.get(report.outcome, "FAIL")
        self.cells[client, flow] = max(
            word, self.cells.get((client, flow), word), key=("pass", "skip", "FAIL").index
        )
        if isinstance(report.longrepr, tuple):  # a skip: where, and why
            reason = report.longrepr[2].removeprefix("Skipped: ")
            self.notes[client][reason if "installed" in reason else f"{flow}: {reason}"] = None
        for name, value in report.user_properties:
            if name == "unsendable":
                self.notes[client][f"keys: no {value}"] = None

    def __str__(self) -> str:
        shared = re.findall(r"^def test_(\w+)", (HERE / "test_flows.py").read_text(), re.M)
        names = {name: None for name in NAMES} | {client: None for client, _ in self.cells}
        clients = [name for name in names if any(name == client for client, _ in self.cells)]
        width = max(map(len, names))
        lines = ["  ".join([" " * width, *shared, "own flows"])]
        for client in clients:
            row = [self.cells.get((client, flow), "-").ljust(len(flow)) for flow in shared]
            own = [
                f"{flow}: {word}"
                for (who, flow), word in self.cells.items()
                if who == client and flow not in shared
            ]
            lines.append("  ".join([client.ljust(width), *row, ", ".join(own)]).rstrip())
        lines += [f"{client}: {note}" for client in clients for note in self.notes[client]]
        words = list(self.cells.values())
        counts = f"{words.count('FAIL')} failed, {words.count('skip')} skipped"
        return "\n".join([*lines, f"{words.count('pass')} passed, {counts}"])


def main(arguments: list[str]) -> int:
    if "install" in arguments:
        arguments.remove("install")
        install()
    matrix = Matrix()
    status = pytest.main([str(HERE), "--no-header", "-q", "-r", "", *arguments], plugins=[matrix])
    print(f"\n{matrix}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
