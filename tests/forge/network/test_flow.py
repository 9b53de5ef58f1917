"""The flow of an upload, from the first request to the bytes coming back."""

from __future__ import annotations

import os

from ingot.codec import multihash
from ingot.forge.network import Network
from tests.forge.network.client import Client, site


async def test_a_blob_is_added_put_accepted_and_retrieved(network: Network, client: Client) -> None:
    data = os.urandom(300_000)
    digest = multihash.of(data)
    added = await client.add(data)
    assert added.allocated["size"] == len(data)
    assert await client.receipt(added.accept.task) is None
    assert await client.put(added, data) == 204
    answer = await client.conclude(added)
    assert bool(answer.receipts_of(added.accept.task)) == (network.upload.generation == "next")
    place = await client.location(added)
    assert (place.node, place.space, place.blob) == (added.node, client.space.did, digest)
    assert (place.start, place.end) == (0, len(data) - 1)
    status, body, receipt = await client.retrieve(place, 0, len(data) - 1)
    assert (status, receipt.result()) == (200, {}) and body == data
    status, body, receipt = await client.retrieve(place, 1000, 1999)
    assert (status, receipt.result()) == (206, {}) and body == data[1000:2000]
    node = network.node(added.node)
    assert node.effects["stored", digest] == node.effects["accepted", digest] == 1


async def test_a_blob_that_is_there_is_answered_with_all_its_tokens(
    network: Network, client: Client
) -> None:
    data = os.urandom(1000)
    place = await client.store(data)
    again = await client.add(data)
    (accepted,) = again.answer.receipts_of(again.accept.task)
    assert site(accepted) == place.claim.cid in again.answer.invocations
    assert again.answer.receipts_of(again.put.task)
    node = network.node(place.node)
    assert node.effects["stored", multihash.of(data)] == 1
