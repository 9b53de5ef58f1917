"""What all services of the network have in common: identity, state, HTTP, running invocations.

    POST /                     a container of invocations; see ``run``
    GET  /receipt/TASK         the receipt of a task, and the tokens that belong to it; 404 without
    GET  /.well-known/did.json who the service is
    GET  /                     the same for people; /health

An invocation whose executor is somebody else is passed over without a word. Of the others, in this
order: the command exists (HandlerNotFound), the invocation is valid, its arguments have the right
shape (MalformedArguments), the command does what it says. Whatever goes wrong is a receipt in a
200. A failure that a command declares is final; any other one is a HandlerExecutionError whose
receipt expires after half a minute. Receipts of valid invocations that do not expire are kept; all
that a command did is on disk, and then its receipt is, before that is sent.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import aiohttp
from aiohttp import web

from ingot.codec import cid
from ingot.codec.dag_cbor import Cid
from ingot.errors import FormatError, IngotError
from ingot.forge import container, did, document, keys, token, validate
from ingot.forge.container import CONTENT_TYPE, Container
from ingot.forge.errors import (
    Expired,
    HandlerExecutionError,
    HandlerNotFound,
    Malformed,
    MalformedArguments,
    UcanError,
)
from ingot.forge.network.arguments import Failure
from ingot.forge.network.faults import (
    Answered,
    Applied,
    Closed,
    ErrorReceipt,
    ExpiredDelegations,
    Faults,
    ForgedReceipt,
    LateReceipts,
    MissingReceipt,
)
from ingot.forge.network.peers import Peers
from ingot.forge.network.ports import bind
from ingot.forge.network.state import State
from ingot.forge.token import Delegation, Invocation, Receipt, Token
from ingot.limits import (
    CONTAINER_BYTES_MAX,
    CONTAINER_HEADER_READ_MAX,
    FORGE_FAILURE_TTL_S,
    NETWORK_STOP_S,
    UCAN_NONCE_BYTES,
    UCAN_TTL_S,
)
from ingot.ports import Clock

log = logging.getLogger("ingot.forge.network")


@dataclass(slots=True)
class Call:
    """An invocation that is being run; ``attached`` goes into the answer beside its receipt.

    ``valid`` is set once it was found allowed. The receipt of one that was not is not kept: a task
    names no issuer, so anybody's refusal would take the place of the answer to who may ask.
    """

    invocation: Invocation
    request: Container
    faults: Applied
    attached: list[Token] = field(default_factory=list)
    valid: bool = False

    @property
    def arguments(self) -> Mapping[str, object]:
        return self.invocation.arguments

    @property
    def subject(self) -> str:
        return self.invocation.subject


@dataclass(frozen=True, slots=True)
class Answer:
    """The record of a task's receipt: a container of it and of the tokens that belong to it."""

    tokens: bytes


Handler = Callable[[Call], Awaitable[object]]
HttpHandler = Callable[[web.Request, Applied], Awaitable[web.StreamResponse]]


class Service:
    """``requests`` counts by route, ``effects`` by what was done to which multihash or task: a
    test's means to say "once". Both begin at nothing in every process."""

    name: ClassVar[str]
    hands_on: ClassVar[tuple[str, ...]] = ()  # commands that give delegations to other services

    def __init__(
        self,
        signer: keys.Signer,
        address: tuple[str, int],
        state: State,
        session: aiohttp.ClientSession,
        clock: Clock,
        authority: str = "",
    ) -> None:
        self.signer = signer
        self.did = signer.did
        self.state = state
        self.address = address
        self.document = (
            document.of_key(self.did)
            if did.is_key(self.did)
            else document.of_service(self.did, signer.public.did)
        )
        self.peers = Peers(session, clock, self.document, authority or self.did)
        self.commands: dict[str, Handler] = {}  # by POST /
        self.header_commands: dict[str, Handler] = {}  # by the header of another request
        self.http: dict[str, tuple[str, str, HttpHandler]] = {
            "POST /": ("POST", "/", self._post),
            "GET /receipt": ("GET", "/receipt/{task}", self._receipt),
            "GET /did.json": ("GET", "/.well-known/did.json", self._did_json),
            "GET /": ("GET", "/", self._about),
            "GET /health": ("GET", "/health", self._health),
        }
        self.requests: Counter[str] = Counter()
        self.effects: Counter[tuple[str, bytes]] = Counter()
        self.key = self.name  # which of the network's services it is
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    def now(self) -> int:
        return self.peers.now()

    def declare(self) -> None:
        """To be called once all commands and HTTP routes are known."""
        self.faults = Faults([*self.commands, *self.header_commands, *self.http])

    # -- HTTP ---------------------------------------------------------------------------------

    async def listen(self, listener: socket.socket | None = None) -> None:
        """Answer requests at ``address``, on a socket that is bound to it or a new one."""
        if self._runner is not None:
            return
        application = web.Application(client_max_size=CONTAINER_BYTES_MAX)
        for route, (method, path, handler) in self.http.items():
            application.router.add_route(method, path, self._guarded(route, handler))
        self._runner = web.AppRunner(
            application,
            access_log=None,
            max_line_size=CONTAINER_HEADER_READ_MAX,
            max_field_size=CONTAINER_HEADER_READ_MAX,
            shutdown_timeout=NETWORK_STOP_S,
        )
        await self._runner.setup()
        await web.SockSite(self._runner, listener or bind(*self.address)).start()

    async def hang_up(self) -> None:
        """Refuse connections and end those there are, until ``listen`` is called again."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    def _guarded(
        self, route: str, handler: HttpHandler
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def run(request: web.Request) -> web.StreamResponse:
            self.requests[route] += 1
            faults = self.faults.take(route)
            try:
                await faults.before()
                response = await handler(request, faults)
                faults.after()
                return response
            except Closed:
                if request.transport is not None:
                    request.transport.abort()
                return web.Response()
            except ConnectionError:
                return web.Response()  # the client went away: nobody reads this
            except Answered as answer:
                return web.Response(status=answer.status, text=answer.text)

        return run

    async def _post(self, request: web.Request, _: Applied) -> web.StreamResponse:
        if request.headers.get("Content-Type") != CONTENT_TYPE:
            return web.Response(status=415, text=f"send {CONTENT_TYPE}, without parameters")
        try:
            asked = container.decode(await request.read())
        except FormatError as error:
            return web.Response(status=500, text=str(error))
        tokens = await self.run(asked)
        return web.Response(body=container.encode(tokens), headers={"Content-Type": CONTENT_TYPE})

    async def _receipt(self, request: web.Request, faults: Applied) -> web.StreamResponse:
        try:
            task = bytes(cid.from_text(request.match_info["task"]))
        except FormatError as error:
            return web.Response(status=400, text=str(error))
        answer = None if faults.get(LateReceipts) else await self.state.get(Answer, task)
        if answer is None:
            return self.no_receipt()
        body = answer.tokens
        if faults.get(ForgedReceipt):
            kept = container.decode(body)
            forged = [self.forge(one) for one in kept.receipts.values()]
            body = container.encode([*kept.invocations.values(), *forged])
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    def no_receipt(self) -> web.Response:
        return web.Response(status=404, text="receipt not found")

    async def _did_json(self, request: web.Request, _: Applied) -> web.StreamResponse:
        return web.json_response(self.document.to_json())

    async def _about(self, request: web.Request, _: Applied) -> web.StreamResponse:
        return web.json_response({"id": self.did, "service": self.name, "build": "ingot"})

    async def _health(self, request: web.Request, _: Applied) -> web.StreamResponse:
        return web.Response(text="OK")

    # -- invocations --------------------------------------------------------------------------

    async def run(self, asked: Container) -> list[Token]:
        """Run what is for this service: the tokens of the answer. Closed or Answered by faults."""
        tokens: list[Token] = []
        for invocation in list(asked.invocations.values()):
            if invocation.executor != self.did:
                continue
            self.requests[invocation.command] += 1
            faults = self.faults.take(invocation.command)
            await faults.before()
            call = Call(invocation, asked, faults)
            receipt = await self.execute(call, self.commands)
            if call.valid and receipt.expires is None:
                kept = container.encode([receipt, *call.attached])
                await self.state.write((invocation.task, Answer(kept)))
            faults.after()
            if faults.get(ForgedReceipt):
                receipt = self.forge(receipt)
            tokens += call.attached if faults.get(MissingReceipt) else [receipt, *call.attached]
        return tokens

    async def execute(self, call: Call, commands: Mapping[str, Handler]) -> Receipt:
        """The receipt of one invocation, after doing what it asks."""
        invocation, expires = call.invocation, None
        try:
            out = {"ok": await self._run(call, commands)}
        except UcanError as error:
            out = {"error": error.value()}
            if isinstance(error, HandlerExecutionError):
                expires = self.now() + FORGE_FAILURE_TTL_S
        except Exception as error:
            if not isinstance(error, (IngotError, OSError, aiohttp.ClientError, TimeoutError)):
                log.exception("%s failed at %s", self.name, invocation)
            message = str(error) or type(error).__name__
            out = {"error": HandlerExecutionError(message).value()}
            expires = self.now() + FORGE_FAILURE_TTL_S
        return self.sign_receipt(invocation.task, out, expires)

    async def _run(self, call: Call, commands: Mapping[str, Handler]) -> object:
        invocation = call.invocation
        handler = commands.get(invocation.command)
        if handler is None:
            raise HandlerNotFound(f"{self.did} has no handler for {invocation.command}")
        if call.faults.get(ExpiredDelegations) and invocation.command not in self.hands_on:
            raise Expired(f"the proofs of the {invocation} are expired")
        await self.validate(invocation, call.request)
        call.valid = True
        injected = call.faults.get(ErrorReceipt)
        if injected is not None:
            raise Failure(injected.name, injected.message)
        try:
            return await handler(call)
        except Malformed as error:
            raise MalformedArguments(str(error)) from error
        except Failure:
            raise
        except UcanError as error:  # somebody else's, met on the way
            raise HandlerExecutionError(f"{error.name}: {error}") from error

    async def validate(self, invocation: Invocation, request: Container) -> None:
        """The UcanError that makes ``invocation`` worthless, if any."""
        proofs = [request.delegations.get(name) for name in invocation.proofs]
        tokens = [invocation, *(proof for proof in proofs if proof is not None)]
        documents = await self.peers.documents(tokens)
        validate.validate(invocation, request.delegations, self.now(), documents)

    def forge(self, receipt: Receipt) -> Receipt:
        """The same words of the same issuer, signed by a key that is nobody's."""
        stranger = keys.Signer.from_seed(os.urandom(32)).issuing_as(receipt.issuer)
        return self.sign_receipt(receipt.ran, receipt.out, receipt.expires, stranger)

    # -- tokens of one's own ------------------------------------------------------------------

    def sign_receipt(
        self,
        task: bytes,
        out: Mapping[str, object],
        expires: int | None = None,
        signer: keys.Signs | None = None,
    ) -> Receipt:
        return token.answer(
            signer or self.signer,
            ran=task,
            out=out,
            expires=expires,
            nonce=nonce(),
            issued_at=self.now(),
        )

    def delegate(
        self, audience: str, command: str, subject: str | None = None, expires: int | None = None
    ) -> Delegation:
        """A right over this service itself, or over ``subject``, where it holds one."""
        return token.delegate(
            self.signer,
            audience=audience,
            subject=subject or self.did,
            command=command,
            expires=expires,
            nonce=nonce(),
        )

    def invoke(
        self,
        executor: str,
        command: str,
        arguments: Mapping[str, object],
        proofs: list[Delegation],
        *,
        subject: str | None = None,
        meta: Mapping[str, object] | None = None,
    ) -> Invocation:
        """An invocation of another service's command, good for half a minute."""
        return token.invoke(
            self.signer,
            audience=executor,
            subject=subject or executor,
            command=command,
            arguments=arguments,
            proofs=[proof.cid for proof in proofs],
            expires=self.now() + UCAN_TTL_S,
            nonce=nonce(),
            meta=meta,
        )


def nonce() -> bytes:
    return os.urandom(UCAN_NONCE_BYTES)


def links(tokens: list[Delegation]) -> list[Cid]:
    return [Cid(one.cid) for one in tokens]
