"""A client of the network in a few lines: plain HTTP and tokens made by ``ingot.forge``. It checks
what it gets only as far as the tests say."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp

from ingot.codec import cid, multihash
from ingot.codec.dag_cbor import Cid
from ingot.forge import container, query, token, values
from ingot.forge.container import CONTENT_TYPE, HEADER, Container
from ingot.forge.keys import Signer
from ingot.forge.network import Network
from ingot.forge.token import Delegation, Invocation, Receipt, Token


class Client:
    """An agent with a space of its own, and the right to do everything with it."""

    def __init__(self, network: Network, session: aiohttp.ClientSession, seed: int = 1) -> None:
        self.network = network
        self.session = session
        self.space = Signer.from_seed(bytes([seed]) * 32)
        self.agent = Signer.from_seed(bytes([seed + 100]) * 32)
        self.right = self.grant(self.space, self.agent.did, "/")

    def grant(
        self,
        giver: Signer,
        audience: str,
        command: str,
        policy: Sequence[object] = (),
        lasting: int | None = None,
    ) -> Delegation:
        """A right over the space, for ``lasting`` seconds or for ever."""
        return token.delegate(
            giver,
            audience=audience,
            subject=self.space.did,
            command=command,
            expires=None if lasting is None else now() + lasting,
            policy=policy,
            nonce=os.urandom(16),
        )

    def ask(
        self,
        command: str,
        arguments: Mapping[str, object],
        *,
        audience: str | None = None,
        subject: str | None = None,
        proofs: Sequence[Delegation] | None = None,
        signer: Signer | None = None,
        **more: Any,
    ) -> Invocation:
        """An invocation for the upload service about the space, unless a test says otherwise."""
        shown = [self.right] if proofs is None else proofs
        fields = {"expires": now() + 30, "nonce": os.urandom(16), **more}
        return token.invoke(
            signer or self.agent,
            audience=audience or self.network.upload.did,
            subject=subject or self.space.did,
            command=command,
            arguments=arguments,
            proofs=[proof.cid for proof in shown],
            **fields,
        )

    async def send(
        self, tokens: Sequence[Token], url: str | None = None, status: int = 200
    ) -> Container:
        """POST a container; chunked, as the services' own clients send it."""

        async def body() -> Any:
            yield container.encode(tokens)

        async with self.session.post(
            url or self.network.upload.url, data=body(), headers={"Content-Type": CONTENT_TYPE}
        ) as response:
            assert response.status == status, await response.text()
            assert response.headers["Content-Type"] == CONTENT_TYPE
            return container.decode(await response.read())

    async def call(
        self, invocation: Invocation, *along: Token, url: str | None = None
    ) -> tuple[Receipt, Container]:
        answer = await self.send([invocation, self.right, *along], url)
        (receipt,) = answer.receipts_of(invocation.task)
        assert receipt.issuer == invocation.executor
        return receipt, answer

    async def run(self, command: str, arguments: Mapping[str, object], **more: Any) -> Any:
        """The ``ok`` of a command of the upload service; raises Refused."""
        receipt, _ = await self.call(self.ask(command, arguments, **more))
        return receipt.result()

    # -- the flow, step by step ---------------------------------------------------------------

    async def add(self, data: bytes, blob: Mapping[str, object] | None = None) -> Added:
        named = blob or {"size": len(data), "digest": multihash.of(data)}
        invocation = self.ask("/blob/add", {"blob": named})
        receipt, answer = await self.call(invocation)
        return Added(invocation, receipt, answer)

    async def put(self, added: Added, data: bytes, **headers: str) -> int:
        async with self.session.put(added.url, data=data, headers=headers) as response:
            return response.status

    async def conclude(self, added: Added, out: Mapping[str, object] | None = None) -> Container:
        receipt = added.done(out or {})
        invocation = self.concluding(receipt)
        answer = await self.send([invocation, receipt])
        (concluded,) = answer.receipts_of(invocation.task)
        concluded.result()
        return answer

    def concluding(self, receipt: Receipt) -> Invocation:
        """Both generations at once."""
        name = Cid(receipt.cid)
        return self.ask(
            "/ucan/conclude",
            {"receipt": name, "receipts": [name]},
            subject=self.agent.did,
            proofs=[],
        )

    async def receipt(self, task: bytes) -> Container | None:
        """None for a 404."""
        url = f"{self.network.upload.url}/receipt/{cid.to_text(task)}"
        async with self.session.get(url) as response:
            if response.status == 404:
                assert await response.json() == {"error": "receipt not found"}
                return None
            assert response.status == 200
            return container.decode(await response.read())

    async def location(self, added: Added) -> query.Location:
        answer = await self.receipt(added.accept.task)
        assert answer is not None
        (accepted,) = answer.receipts_of(added.accept.task)
        return query.location_of(answer.invocations[site(accepted)])

    async def store(self, data: bytes) -> query.Location:
        """All steps."""
        added = await self.add(data)
        if added.address is not None and not added.answer.receipts_of(added.put.task):
            assert await self.put(added, data) == 204
            await self.conclude(added)
        return await self.location(added)

    async def retrieve(
        self,
        place: query.Location,
        start: int,
        end: int,
        proofs: Sequence[Delegation] | None = None,
        **more: Any,
    ) -> tuple[int, bytes, Any]:
        """(status, bytes, the result in the receipt, or the error that it is)."""
        fields = {"arguments": {"blob": {"digest": place.blob}, "range": [start, end]}, **more}
        invocation = self.ask("/content/retrieve", audience=place.node, proofs=proofs, **fields)
        shown = [self.right] if proofs is None else proofs
        header = {HEADER: container.to_header([invocation, *shown])}
        async with self.session.get(place.urls[0], headers=header) as response:
            answer = container.from_header(response.headers[HEADER])
            assert response.headers["Vary"] == HEADER
            (receipt,) = answer.receipts_of(invocation.task)
            body = await response.read()
            return response.status, body, receipt


class Added:
    """An answer to ``/blob/add``, its links followed."""

    def __init__(self, invocation: Invocation, receipt: Receipt, answer: Container) -> None:
        self.invocation, self.receipt, self.answer = invocation, receipt, answer
        accept = answer.invocation_of(values.promised(receipt.result(), "site"))
        assert accept is not None
        put = answer.invocation_of(values.promised(accept.arguments, "_put"))
        assert put is not None
        self.accept, self.put = accept, put
        (allocated,) = answer.receipts_of(values.promised(put.arguments, "destination"))
        self.allocated = values.take(allocated.out, dict, "ok")
        self.address = values.get(self.allocated, dict, "address")

    @property
    def url(self) -> str:
        assert self.address is not None
        return str(self.address["url"])

    @property
    def node(self) -> str:
        return self.accept.executor

    def done(self, out: Mapping[str, object]) -> Receipt:
        """The client's receipt for the put, by the key in the put's meta."""
        key = self.put.issuer
        signer = Signer.from_tagged(values.take(self.put.meta, bytes, "keys", "keys", key))
        return token.answer(
            signer,
            ran=self.put.task,
            out={"ok": dict(out)},
            expires=None,
            nonce=os.urandom(16),
            issued_at=now(),
        )


def site(accepted: Receipt) -> bytes:
    """The location commitment that an accept receipt names."""
    return bytes(values.take(accepted.result(), Cid, "site"))


async def until(condition: Callable[[], bool]) -> None:
    """Return once it holds; a test that waits too long says so."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def now() -> int:
    return int(time.time())
