"""Lanes and an ingest on the running loop; every test ends with all buffers back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from ingot.body.ingest import Ingest
from ingot.body.pool import Pool
from ingot.offload import Lanes


@pytest.fixture
async def lanes() -> AsyncIterator[Lanes]:
    made = Lanes(asyncio.get_running_loop())
    yield made
    made.close()
    assert set(made.in_flight().values()) == {(0, 0)}


@pytest.fixture
async def ingest(lanes: Lanes) -> AsyncIterator[Ingest]:
    made = Ingest(lanes)
    made.pool = Pool(made.pool.count, made.pool.size, mangle=True)
    made.small_pool = Pool(made.small_pool.count, made.small_pool.size, mangle=True)
    yield made
    assert (made.pool.out, made.pool.waiting) == (0, 0)
    assert (made.small_pool.out, made.small_pool.waiting) == (0, 0)
