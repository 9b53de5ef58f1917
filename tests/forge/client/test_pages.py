"""Listings of a service that never end are given up."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import pytest

from ingot.codec import cid
from ingot.codec.dag_cbor import Cid
from ingot.forge import invoker
from ingot.forge.errors import BadAnswer
from ingot.forge.holdings import Holdings
from ingot.forge.invoker import Service
from ingot.forge.upload import Page
from ingot.forge.uploads import Uploads
from tests.forge.client.support import ONCE

ROW = {"root": Cid(cid.of_structure(b"root"))}


@dataclass
class Endless:
    """A service whose pages have these cursors, and then the first again."""

    cursors: list[str]
    asked: list[str | None] = field(default_factory=list)

    def random(self, count: int) -> bytes:
        return bytes(count)

    def next_cursor(self, cursor: str | None) -> str:
        self.asked.append(cursor)
        return self.cursors[(len(self.asked) - 1) % len(self.cursors)]

    async def ask(self, service: Service, command: str, arguments: Any) -> Any:
        ok = {"results": [ROW], "cursor": self.next_cursor(arguments.get("cursor"))}
        return invoker.Reply(None, ok, None)  # type: ignore[arg-type]

    async def list_blobs(self, cursor: str | None) -> Page:
        return Page([], self.next_cursor(cursor))


async def walk(endless: Endless, uploads: bool) -> None:
    if uploads:
        service = Service("did:web:upload", "http://upload")
        await Uploads(endless, service, ONCE, logging.getLogger()).named()  # type: ignore[arg-type]
        return
    parts: list[Any] = [endless, None, None, ONCE, endless.random, logging.getLogger()]
    async for _ in Holdings(*parts).blobs():
        pass


@pytest.mark.parametrize("uploads", [True, False])
async def test_a_cursor_that_comes_again_ends_the_listing(uploads: bool) -> None:
    endless = Endless(["a", "b"])
    with pytest.raises(BadAnswer, match="repeats the cursor 'a'"):
        await walk(endless, uploads)
    assert endless.asked == [None, "a", "b"]


@pytest.mark.parametrize("uploads", [True, False])
async def test_too_many_pages_end_the_listing(
    uploads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invoker, "FORGE_PAGES_MAX", 5)
    endless = Endless([str(number) for number in range(20)])
    with pytest.raises(BadAnswer, match="more than 5 pages"):
        await walk(endless, uploads)
    assert len(endless.asked) == 6
