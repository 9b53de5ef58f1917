"""What linters cannot see: imports of compiled modules, pure stages, leftovers in the tree."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILED = sorted((ROOT / "ingot" / "_speedups").glob("*.pyx"))
PURE_STAGES = ["ingot.codec", "ingot.mst", "ingot.errors", "ingot.limits", "ingot.messages"]
PURE_STAGES += [f"ingot.forge.{name}" for name in ("validate", "chain", "container", "query")]
ALLOWED = (
    *("libc", "cpython", "posix", "cython", "ingot.errors", "ingot.limits", "ingot._speedups"),
    *("hashlib", "functools", "__future__", "collections", "typing", "os", "errno", "warnings"),
)
TOP_LEVEL = {"pyproject.toml", "setup.py", "ingot", "tests", "perf", "migrations", "README.md"}


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so it is not known which files belong")
    return listed.stdout.split("\n")[:-1]


def test_top_level_is_as_agreed() -> None:
    found = {name.split("/")[0] for name in tracked() if not name.startswith(".")}
    assert found == TOP_LEVEL | {"LICENSE"}


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.name)
def test_compiled_leaves_import_leaves_only(path: Path) -> None:
    for line in path.read_text().splitlines():
        match = re.match(r"\s*(?:from\s+([\w.]+)\s+c?import|c?import\s+([\w.]+)$)", line)
        name = (match[1] or match[2]) if match else "."
        if not name.startswith("."):
            assert name.startswith(ALLOWED), f"{path.name}: {line.strip()}"


@pytest.mark.parametrize("stage", PURE_STAGES)
def test_pure_stages_load_no_database_and_no_loop(stage: str) -> None:
    code = f"import sys, {stage}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert loaded.returncode == 0, loaded.stderr
    assert not {"asyncpg", "uvloop", "httptools", "asyncio"} & set(loaded.stdout.split())


def test_no_leftovers() -> None:
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b|NotImplemented" + "Error")
    for name in tracked():
        if name.endswith((".py", ".pyx", ".pxd", ".sql")) and (ROOT / name).exists():
            for number, line in enumerate((ROOT / name).read_text().splitlines(), 1):
                assert not marks.search(line), f"{name}:{number}: {line.strip()}"
