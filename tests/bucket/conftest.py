"""A life of a gateway, begun and ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.bucket.life import Life


@pytest.fixture
async def life(tmp_path: Path) -> AsyncIterator[Life]:
    made = Life(tmp_path / "data")
    await made.start()
    yield made
    await made.stop()
