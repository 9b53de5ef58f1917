"""What the registry's shipments tell of cold segments."""

from __future__ import annotations

import logging

import pytest

from ingot.codec import multihash
from ingot.cold import Shipments
from ingot.errors import Unavailable
from ingot.forge.query import LOCATION
from ingot.forge.token import invoke
from ingot.messages import Shipment
from ingot.registry.memory import MemoryRegistry
from tests.forge.support import person

DIGEST = multihash.of(b"the file")


class Registry(MemoryRegistry):
    """Counts how often it is asked, and may be away."""

    asked = 0
    away = False

    async def shipments(self) -> list[Shipment]:
        if self.away:
            raise Unavailable("no registry")
        self.asked += 1
        return await super().shipments()


def location() -> bytes:
    node, space = person(1), person(2)
    arguments = {
        "space": space.did,
        "content": DIGEST,
        "location": ["http://127.0.0.1/piece/it"],
        "range": {"start": 0, "end": 7},
    }
    made = invoke(
        node, subject=node.did, command=LOCATION, arguments=arguments, expires=None, nonce=b""
    )
    return made.data


@pytest.fixture
async def registry() -> Registry:
    made = Registry()
    await made.open()
    token = await made.acquire("test", 60.0)
    assert token is not None
    tokens = (location(), b"no token")
    for number, state, locations in (
        (1, "indexed", tokens),
        (2, "stored", tokens),
        (3, "queued", ()),
    ):
        row = Shipment("body", number, state, DIGEST, locations, 8, 0, 0)
        await made.put_shipment(token, row)
    return made


async def test_what_is_confirmed_and_where_it_is(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    shipments = Shipments(registry, "indexed")
    assert await shipments.confirmed() == {("body", 1)}
    for number in (1, 2, 1, 2):
        found = await shipments.shipped(("body", number))
        assert found is not None and found.digest == DIGEST
        assert [place.node for place in found.locations] == [person(1).did]
    assert registry.asked == 1, "the rows are held"
    assert caplog.text.count("a location that was kept cannot be read") == 2
    assert await shipments.shipped(("body", 4)) is None
    assert registry.asked == 2


async def test_the_registry_is_away(registry: Registry) -> None:
    shipments = Shipments(registry, "indexed")
    registry.away = True
    with pytest.raises(Unavailable):
        await shipments.shipped(("body", 1))
    registry.away = False
    assert await shipments.shipped(("body", 1)) is not None
    registry.away = True
    assert await shipments.shipped(("body", 1)) is not None
    with pytest.raises(Unavailable):
        await shipments.confirmed()
