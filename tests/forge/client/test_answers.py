"""Answers of an upload service that are not what they should be, token by token."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from ingot.clock import SystemClock
from ingot.codec import cid, multihash
from ingot.codec.dag_cbor import Cid
from ingot.errors import Unavailable
from ingot.forge import container, token, values
from ingot.forge.blob import BlobRef, BytesSource
from ingot.forge.client import ForgeClient, ForgeSettings
from ingot.forge.container import CONTENT_TYPE
from ingot.forge.errors import BadAnswer
from ingot.forge.invoker import Service
from ingot.forge.keys import Signer
from ingot.forge.query import LOCATION
from ingot.forge.token import Invocation, Receipt, Token
from tests.forge.client.support import ONCE, http, someone
from tests.forge.support import NONCE, person

DATA = b"the bytes of a blob"
BLOB: dict[str, object] = {"size": len(DATA), "digest": multihash.of(DATA)}
SERVICE, NODE, STRANGER = person(60), person(61), person(62)
SPACE = someone().space
TASK = cid.of_structure(b"a task")
PUT_KEY = Signer.from_seed(multihash.of(DATA)[-32:])


@dataclass
class Upload:
    """An upload service and its node in one. ``changes`` are made to the fields of the tokens that
    it makes, by name; ``without`` are left out."""

    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    without: set[str] = field(default_factory=set)
    url: str = ""
    put: list[bytes] = field(default_factory=list)
    accepts_at_once: bool = False
    concluded: list[Receipt] = field(default_factory=list)
    instead: tuple[bytes, str] | None = None  # body and content type of every answer

    def invoke(self, name: str, signer: Signer, **fields: Any) -> Invocation:
        changed = {"expires": None, "nonce": NONCE, **fields, **self.changes.get(name, {})}
        return token.invoke(changed.pop("signer", signer), **changed)

    def receipt(self, name: str, signer: Signer, ran: bytes, ok: object) -> Receipt:
        fields: dict[str, Any] = {"ran": ran, "out": {"ok": ok}, "expires": None, "nonce": NONCE}
        fields |= self.changes.get(name, {})
        return token.answer(fields.pop("signer", signer), **fields)

    def tokens(self, task: bytes) -> dict[str, Token]:
        """Everything about the blob, by name."""
        allocate = self.invoke(
            "allocate",
            SERVICE,
            subject=NODE.did,
            command="/blob/allocate",
            arguments={"blob": BLOB, "cause": Cid(task), "space": SPACE},
        )
        put = self.invoke(
            "put",
            PUT_KEY,
            subject=PUT_KEY.did,
            command="/http/put",
            arguments={"body": BLOB, "destination": values.promise(allocate.task)},
            meta={"keys": {"id": PUT_KEY.did, "keys": {PUT_KEY.did: PUT_KEY.to_tagged()}}},
        )
        accept = self.invoke(
            "accept",
            SERVICE,
            subject=NODE.did,
            command="/blob/accept",
            arguments={"_put": values.promise(put.task), "blob": BLOB, "space": SPACE},
        )
        address = {"url": f"{self.url}/put", "expires": 1, "headers": {"X-Signed": "yes"}}
        location = self.invoke(
            "location",
            NODE,
            subject=NODE.did,
            command=LOCATION,
            arguments={
                "space": SPACE,
                "content": BLOB["digest"],
                "location": [f"{self.url}/piece"],
                "range": {"start": 0, "end": len(DATA) - 1},
            },
        )
        site = {"site": Cid(location.cid), "pdp": values.promise(accept.task)}
        made: dict[str, Token] = {
            "allocate": allocate,
            "put": put,
            "accept": accept,
            "added": self.receipt("added", SERVICE, task, {"site": values.promise(accept.task)}),
            "allocated": self.receipt(
                "allocated", NODE, allocate.task, {"size": len(DATA), "address": address}
            ),
            "accepted": self.receipt("accepted", NODE, accept.task, site),
            "location": location,
        }
        return made

    async def post(self, request: web.Request) -> web.StreamResponse:
        asked = container.decode(await request.read())
        if self.instead is not None:
            return web.Response(body=self.instead[0], headers={"Content-Type": self.instead[1]})
        (invocation,) = asked.invocations.values()
        if invocation.command == "/blob/add":
            self.made = self.tokens(invocation.task)
            late = set() if self.accepts_at_once else {"accepted", "location"}
            names = self.made.keys() - self.without - late
        else:
            self.concluded += asked.receipts.values()
            self.made["concluded"] = self.receipt("concluded", SERVICE, invocation.task, {})
            names = {"concluded", "accepted", "location"} - self.without
        body = container.encode([self.made[name] for name in names])
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def take(self, request: web.Request) -> web.StreamResponse:
        assert request.headers["X-Signed"] == "yes"
        self.put.append(await request.read())
        return web.Response(status=204)

    async def no_receipt(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=404)


@pytest.fixture
async def upload() -> AsyncIterator[Upload]:
    made = Upload()
    application = web.Application()
    application.router.add_post("/", made.post)
    application.router.add_put("/put", made.take)
    application.router.add_get("/receipt/{task}", made.no_receipt)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


async def add(upload: Upload) -> Any:
    settings = ForgeSettings(upload=Service(SERVICE.did, upload.url), http=http(), retry=ONCE)
    async with ForgeClient(settings, someone(), SystemClock()) as client:
        return await client.upload.add(BlobRef.of(DATA), BytesSource(DATA))


async def test_the_answer_as_it_should_be(upload: Upload) -> None:
    (place,) = await add(upload)
    assert place.node == NODE.did and upload.put == [DATA]
    (receipt,) = upload.concluded
    assert receipt.issuer == PUT_KEY.did and receipt.result() == {}
    upload.accepts_at_once = True
    assert await add(upload) and upload.put == [DATA]


async def test_a_put_that_leaves_the_digest_to_its_receipt(upload: Upload) -> None:
    """The newer form of the blob argument: the receipt says what was put."""
    unnamed = {"size": len(DATA), "digestCode": 18}
    allocate = {"blob": unnamed, "cause": Cid(TASK), "space": SPACE}
    change(upload, "allocate", arguments=allocate)
    made = upload.tokens(TASK)
    assert isinstance(made["allocate"], Invocation)
    destination = values.promise(made["allocate"].task)
    change(upload, "put", arguments={"body": unnamed, "destination": destination})
    assert await add(upload)
    (receipt,) = upload.concluded
    assert receipt.result() == {"blob": {"digest": BLOB["digest"]}}


OTHER = {"size": len(DATA), "digest": multihash.of(b"another")}
WRONG: dict[str, Callable[[Upload], None]] = {
    "no accept": lambda one: one.without.add("accept"),
    "no put": lambda one: one.without.add("put"),
    "no allocate": lambda one: one.without.add("allocate"),
    "no allocate receipt": lambda one: one.without.add("allocated"),
    "no add receipt": lambda one: one.without.add("added"),
    "no conclude receipt": lambda one: one.without.add("concluded"),
    "no location": lambda one: one.without.add("location"),
    "accept by another": lambda one: change(one, "accept", signer=STRANGER),
    "allocate by another": lambda one: change(one, "allocate", signer=STRANGER),
    "allocate for another node": lambda one: change(one, "allocate", subject=STRANGER.did),
    "put by another key": lambda one: change(one, "put", signer=STRANGER),
    "put without a key": lambda one: change(one, "put", meta=None),
    "put with a wrong key": lambda one: change(
        one, "put", meta={"keys": {"id": PUT_KEY.did, "keys": {PUT_KEY.did: NODE.to_tagged()}}}
    ),
    "add receipt by another": lambda one: change(one, "added", signer=STRANGER),
    "allocate receipt by another": lambda one: change(one, "allocated", signer=STRANGER),
    "accept receipt by another": lambda one: change(one, "accepted", signer=SERVICE),
    "conclude receipt by another": lambda one: change(one, "concluded", signer=STRANGER),
    "add without a site": lambda one: change(one, "added", out={"ok": {}}),
    "accept without a site": lambda one: change(one, "accepted", out={"ok": {}}),
    "no accept receipt anywhere": lambda one: one.without.update({"accepted"}),
    "an accept that failed": lambda one: change(
        one, "accepted", out={"error": {"name": "Oops", "message": "no"}}
    ),
    "location by another": lambda one: change(
        one, "location", signer=STRANGER, subject=STRANGER.did
    ),
    "location that expired": lambda one: change(one, "location", expires=1),
    "location of another space": lambda one: located(one, space=STRANGER.did),
    "location of another blob": lambda one: located(one, content=OTHER["digest"]),
    "location of a part": lambda one: located(one, range={"start": 0, "end": 3}),
    "location of a later part": lambda one: located(one, range={"start": 1}),
    "location without a URL": lambda one: located(one, location=[]),
    "location in a file": lambda one: located(one, location=["file:///etc/passwd"]),
    "location that is a number": lambda one: located(one, location=[7]),
    "address in a file": lambda one: addressed(one, url="file:///etc/passwd"),
    "address without a URL": lambda one: addressed(one, headers={}),
    "address that wants a host": lambda one: addressed(
        one, url=f"{one.url}/put", headers={"Host": "other"}
    ),
    "address with a broken header": lambda one: addressed(
        one, url=f"{one.url}/put", headers={"a": "b\r\nc: d"}
    ),
}


KNOWN_AFTER_THE_PUT = {
    "no conclude receipt",
    "no location",
    "accept receipt by another",
    "conclude receipt by another",
    "accept without a site",
    "no accept receipt anywhere",
    "an accept that failed",
}


def change(upload: Upload, name: str, **fields: Any) -> None:
    upload.changes[name] = fields


def located(upload: Upload, **fields: Any) -> None:
    arguments: dict[str, Any] = {
        "space": SPACE,
        "content": BLOB["digest"],
        "location": [f"{upload.url}/piece"],
        "range": {"start": 0, "end": len(DATA) - 1},
    }
    change(upload, "location", arguments=arguments | fields)


def addressed(upload: Upload, **address: Any) -> None:
    change(upload, "allocated", out={"ok": {"size": len(DATA), "address": address}})


@pytest.mark.parametrize("wrong", WRONG)
async def test_answers_that_are_not_believed(upload: Upload, wrong: str) -> None:
    WRONG[wrong](upload)
    with pytest.raises(Unavailable) as caught:
        await add(upload)
    passing = ("an accept that failed", "no accept receipt anywhere")
    assert isinstance(caught.value, BadAnswer) is (wrong not in passing)
    assert bool(upload.put) is (wrong in KNOWN_AFTER_THE_PUT or wrong.startswith("location"))


@pytest.mark.parametrize("name", ["accept", "put", "allocate"])
@pytest.mark.parametrize(
    "blob",
    [OTHER, {**BLOB, "size": 7}, {"size": len(DATA)}, {"size": len(DATA), "digestCode": 17}, 7],
    ids=repr,
)
async def test_answers_about_another_blob(upload: Upload, name: str, blob: object) -> None:
    made = upload.tokens(TASK)[name]
    assert isinstance(made, Invocation)
    arguments = {**made.arguments, ("body" if name == "put" else "blob"): blob}
    change(upload, name, arguments=arguments)
    with pytest.raises(BadAnswer):
        await add(upload)
    assert not upload.put


NOT_CONTAINERS: list[tuple[bytes, str]] = [
    (b"", CONTENT_TYPE),
    (b"<html>", "text/html"),
    (container.encode([]), CONTENT_TYPE + "; charset=utf-8"),
    (container.encode([]), CONTENT_TYPE),
    (b"\xa1gctn-v1\x81\x41\x00", CONTENT_TYPE),
]


@pytest.mark.parametrize(("body", "kind"), NOT_CONTAINERS, ids=repr)
async def test_bodies_that_answer_nothing(upload: Upload, body: bytes, kind: str) -> None:
    upload.instead = (body, kind)
    with pytest.raises(BadAnswer):
        await add(upload)
