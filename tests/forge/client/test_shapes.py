"""Whatever a service says instead: one kind of error, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingot.codec import multihash
from ingot.forge import allocation, values
from ingot.forge.blob import BlobRef
from ingot.forge.container import Container
from ingot.forge.errors import Malformed, UnsupportedKey
from ingot.forge.http import origin_of
from ingot.forge.keys import Signer
from ingot.forge.token import Invocation
from tests.forge.builders import MAPS, VALUES, ask
from tests.forge.support import person

DATA = b"bytes"
BLOB = BlobRef.of(DATA)
SERVICE, NODE, SPACE = person(60), person(61), person(1).did
PUT_KEY = Signer.from_seed(multihash.of(DATA)[-32:])


def odd(right: object) -> st.SearchStrategy[object]:
    """The right value, mostly, or any other."""
    return st.one_of(st.just(right), st.just(right), VALUES)


def arguments(**right: object) -> st.SearchStrategy[dict[str, Any]]:
    fields = {name: odd(value) for name, value in right.items()}
    return st.fixed_dictionaries({}, optional=fields) | st.fixed_dictionaries(fields)


@pytest.mark.slow
@given(st.data())
def test_answers_of_any_shape(data: st.DataObject) -> None:
    blob, draw = BLOB.argument(), data.draw
    allocate = ask(
        SERVICE, NODE.did, "/blob/allocate", arguments=draw(arguments(blob=blob, space=SPACE))
    )
    put = ask(
        PUT_KEY,
        PUT_KEY.did,
        "/http/put",
        arguments=draw(arguments(body=blob, destination=values.promise(allocate.task))),
        meta=draw(st.none() | MAPS | st.just({"keys": {"id": PUT_KEY.did, "keys": {}}})),
    )
    fields = arguments(_put=values.promise(put.task), blob=blob, space=SPACE)
    accept = ask(SERVICE, NODE.did, "/blob/accept", arguments=draw(fields))
    made: dict[bytes, Invocation] = {one.cid: one for one in (allocate, put, accept)}
    ok = draw(odd({"site": values.promise(accept.task)}))
    try:
        there = allocation.read(Container(invocations=made), ok, BLOB, SPACE, SERVICE.did)
        assert there.node == NODE.did and there.signed() == [accept, put, allocate]
        there.put_key()
    except (Malformed, UnsupportedKey):
        pass


ADDRESSES = st.fixed_dictionaries(
    {}, optional={"url": odd("http://a/"), "headers": odd({"a": "b"}), "expires": VALUES}
)


@given(st.fixed_dictionaries({"address": ADDRESSES | VALUES}) | VALUES)
@example({"address": {"url": "http://a/", "headers": {"a": "b\n"}}})
def test_addresses_of_any_shape(ok: object) -> None:
    try:
        found = allocation.address(ok)
    except Malformed:
        return
    assert found is None or (isinstance(found.url, str) and "\n" not in repr(found.headers))


@given(st.text() | st.text("htps:/@[]%#?\\.aéⒶ0 \t", max_size=30).map(lambda end: "http:" + end))
@example("http://a\\@b/")
@example("http://a:99999/")
def test_urls_of_any_shape(url: str) -> None:
    try:
        found = origin_of(url)
    except Malformed:
        return
    assert found.startswith(("http://", "https://")) and "@" not in found
