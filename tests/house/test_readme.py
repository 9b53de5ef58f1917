"""The README's examples are executed, and what it names exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ingot.cli import build_parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_embedding_examples_run(private_path: Path, number: int) -> None:
    example = re.findall(r"```python\n(.*?)```", README, re.S)[number]
    run = subprocess.run(
        [sys.executable, "-c", example],
        cwd=private_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(private_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert re.search(r"S3 at http://127\.0\.0\.1:\d+", run.stdout)


def test_options_are_those_of_the_program() -> None:
    usage = build_parser().parse_args(["serve"])
    for option in re.findall(r"`--([a-z-]+)`", README):
        assert option == "config" or hasattr(usage, option.replace("-", "_")), option


def test_links_lead_somewhere() -> None:
    for page in ("README.md", "ingot/README.md", "perf/README.md"):
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / page).read_text()):
            assert ((ROOT / page).parent / link).exists(), f"{page}: {link}"
