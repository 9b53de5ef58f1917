"""The Forge network as real HTTP servers in one process: an upload service, nodes, an indexer.

    async with Network("forge", nodes=2) as network:
        await network.provision(space_did)
        print(network.upload.url, network.upload.did)

    with Network("forge") as network:                    on a loop and thread of its own
        network.wait(network.provision(space_did))

Everything is in one directory: keys and ports in ``network.json``, the settings that point a
gateway here in ``gateway.toml``, each service's records and blobs below. A process killed at any
moment loses nothing that was answered, and one that is started on the same directory has the same
identities, addresses and contents. One process at a time may have a directory. It speaks plain
HTTP, so did:web documents are fetched over HTTP as well. Services live on the loop that started
them.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

import aiohttp

from ingot.clock import SystemClock
from ingot.errors import ConfigError
from ingot.forge import did, token
from ingot.forge.keys import Signer
from ingot.forge.network.additions import Registration
from ingot.forge.network.blobs import sync_directory
from ingot.forge.network.indexer import Indexer
from ingot.forge.network.node import Node, Publishing
from ingot.forge.network.ports import bind
from ingot.forge.network.service import Service, nonce
from ingot.forge.network.state import State
from ingot.forge.network.thread import LoopThread
from ingot.forge.network.upload import GENERATIONS, SEED, Indexing, UploadService
from ingot.forge.signature import Attestor
from ingot.forge.token import Delegation
from ingot.limits import CONTAINER_HEADER_READ_MAX, NETWORK_CALL_S, NETWORK_NODES_MAX
from ingot.ports import Clock

S = TypeVar("S", bound=Service)
T = TypeVar("T")

METHODS: Final = ("web", "key")
SETTINGS: Final = "gateway.toml"
_PLAN: Final = "network.json"
FORMAT: Final = 1  # of the records; a development network is made anew rather than converted


@dataclass(slots=True)
class _Plan:
    """What is decided once: the host, and key and port of every service, by its name. The format is
    0 while nothing is."""

    format: int = 0
    host: str = ""
    keys: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    methods: dict[str, str] = field(default_factory=dict)


class Network:
    """``generation``: see ``upload``. ``open``: any space may store, without being provisioned.

    ``did_method`` is how upload service and indexer sign, ``node_did_method`` how nodes do: "web"
    or "key"; a directory keeps what it began with. ``host`` is a name or an IPv4 address.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        nodes: int = 2,
        indexer: bool = True,
        generation: str = SEED,
        open: bool = False,
        host: str = "127.0.0.1",
        did_method: str = "web",
        node_did_method: str = "key",
        clock: Clock | None = None,
    ) -> None:
        if not 0 < nodes <= NETWORK_NODES_MAX:
            raise ConfigError(f"{nodes} nodes; a network has 1 to {NETWORK_NODES_MAX}")
        if not {did_method, node_did_method} <= set(METHODS):
            raise ConfigError(f"did:{did_method}; services sign as did:web or did:key")
        if generation not in GENERATIONS:
            raise ConfigError(f"generation {generation}; there are {' and '.join(GENERATIONS)}")
        if ":" in host:
            raise ConfigError(f"{host}: a network has a name or an IPv4 address")
        self.directory = Path(directory)
        self._count = nodes
        self._with_indexer = indexer
        self._generation = generation
        self._open = open
        self._host = host
        self._methods = did_method, node_did_method
        self._clock = clock or SystemClock()
        self._stack = AsyncExitStack()
        self.upload: UploadService
        self.nodes: list[Node]
        self.indexer: Indexer | None
        self._thread: LoopThread

    # -- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when all services answer; ConfigError when another process has the directory."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock()
        plan = self._read()
        listeners: dict[str, socket.socket] = {}
        names = ["upload", *(["indexer"] if self._with_indexer else [])]
        names += [f"node-{number}" for number in range(self._count)]
        if plan.format not in (0, FORMAT):
            raise ConfigError(f"another version made the network in {self.directory}: remove it")
        plan.format, plan.host = FORMAT, plan.host or self._host
        if plan.host != self._host:
            raise ConfigError(f"the network in {self.directory} is at {plan.host}: its DIDs say so")
        for name in names:
            listeners[name] = bind(self._host, plan.ports.get(name))
            self._stack.callback(listeners[name].close)
            plan.ports[name] = listeners[name].getsockname()[1]
            plan.keys.setdefault(name, Signer.from_seed(os.urandom(32)).to_text())
            plan.methods.setdefault(name, self._methods[name.startswith("node")])
        self._write(_PLAN, json.dumps(asdict(plan), indent=1))
        timeout = aiohttp.ClientTimeout(total=NETWORK_CALL_S)
        limit = CONTAINER_HEADER_READ_MAX
        session = await self._stack.enter_async_context(
            aiohttp.ClientSession(timeout=timeout, max_line_size=limit, max_field_size=limit)
        )
        self.upload = await self._make(UploadService, "upload", plan, session)
        self.upload.generation, self.upload.open = self._generation, self._open
        self.nodes = [
            await self._make(Node, name, plan, session) for name in names if name.startswith("node")
        ]
        self.indexer = None
        if self._with_indexer:
            self.indexer = await self._make(Indexer, "indexer", plan, session)
        for own in (self.directory, *(self.directory / name for name in names)):
            sync_directory(own)
        await self._introduce()
        settings = self.gateway_settings().items()
        self._write(SETTINGS, "".join(f'{name} = "{value}"\n' for name, value in settings))
        for service in self.services:
            await self._stack.enter_async_context(_Listening(service, listeners[service.key]))

    async def _make(
        self, kind: type[S], name: str, plan: _Plan, session: aiohttp.ClientSession
    ) -> S:
        own = self.directory / name
        own.mkdir(exist_ok=True)
        state = State(own / "state.sqlite3")
        self._stack.push_async_callback(state.close)
        await state.open()
        signers = {each: self._signer(each, plan) for each in (name, "upload")}
        address = (self._host, plan.ports[name])
        made = kind(signers[name], address, state, session, self._clock, signers["upload"].did)
        made.key = name
        if isinstance(made, Node):
            made.keep_in(own / "blobs")
        return made

    def _signer(self, name: str, plan: _Plan) -> Signer:
        signer = Signer.from_text(plan.keys[name])
        if plan.methods[name] == "web":
            return signer.issuing_as(f"did:web:{self._host}%3A{plan.ports[name]}")
        return signer

    async def _introduce(self) -> None:
        """Nodes register with the upload service once; where the indexer is, is told every time."""
        if self.indexer is not None:
            self.upload.indexing = Indexing(self.indexer.url, self.indexer.did)
        for node in self.nodes:
            if await self.upload.state.get(Registration, node.did.encode()) is None:
                grants = [grant.data for grant in node.grant(self.upload.did)]
                await self.upload.additions.register(node.did, Registration(node.url, grants))
            if self.indexer is not None:
                proof = self.indexer.delegate(node.did, "/claim/cache")
                node.publishing = Publishing(self.indexer.url, self.indexer.did, [proof])

    async def stop(self) -> None:
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()

    async def __aenter__(self) -> Network:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def __enter__(self) -> Network:
        thread = self._thread = LoopThread()
        try:
            thread.run(self.start())
        except BaseException:
            thread.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._thread.run(self.stop())
        finally:
            self._thread.close()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of this network's, where it has a thread of its own."""
        return self._thread.run(work)

    # -- the directory ------------------------------------------------------------------------

    def _lock(self) -> None:
        descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._stack.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another process has the network in {self.directory}") from None

    def _read(self) -> _Plan:
        try:
            return _Plan(**json.loads((self.directory / _PLAN).read_bytes()))
        except FileNotFoundError:
            return _Plan()

    def _write(self, name: str, text: str) -> None:
        part = self.directory / f"{name}.part"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        part.rename(self.directory / name)
        sync_directory(self.directory)

    # -- for those who use it -----------------------------------------------------------------

    @property
    def services(self) -> list[Service]:
        return [self.upload, *self.nodes, *([self.indexer] if self.indexer else [])]

    def node(self, node_did: str) -> Node:
        """The node of a DID; KeyError when there is none."""
        return {node.did: node for node in self.nodes}[node_did]

    async def provision(self, space: str) -> None:
        """Let a space store here, without an account."""
        await self.upload.provision(did.check(space))

    async def login(self, email: str, agent: str) -> Delegation:
        """An account with a plan lets ``agent`` do everything in its name, as if the link of an
        e-mail had been followed: the upload service attests the delegation."""
        account = did.of_email(email)
        await self.upload.give_plan(account)
        return token.delegate(
            Attestor(account, self.upload.signer),
            audience=agent,
            subject=account,
            command="/",
            expires=None,
            nonce=nonce(),
        )

    def gateway_settings(self) -> dict[str, str]:
        """What points a gateway (``ingot.Config``) at this network."""
        services = {"upload": self.upload, **({"indexer": self.indexer} if self.indexer else {})}
        return {
            f"forge_{name}_{what}": getattr(service, what)
            for name, service in services.items()
            for what in ("did", "url")
        }

    def describe(self) -> dict[str, object]:
        """URLs and DIDs, for people and for JSON."""
        indexer = self.indexer
        return {
            "directory": str(self.directory.absolute()),
            "generation": self._generation,
            "upload": {"url": self.upload.url, "did": self.upload.did},
            "indexer": indexer and {"url": indexer.url, "did": indexer.did},
            "nodes": [{"url": node.url, "did": node.did} for node in self.nodes],
        }


class _Listening:
    """A service that answers, as a context."""

    def __init__(self, service: Service, listener: socket.socket) -> None:
        self._service, self._listener = service, listener

    async def __aenter__(self) -> None:
        await self._service.listen(self._listener)

    async def __aexit__(self, *_: object) -> None:
        await self._service.hang_up()
