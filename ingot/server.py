"""The composition root: builds every part of a gateway from ``Config`` and ``Deps`` and wires them.

``start`` returns when requests are accepted, and raises, with everything released, when that cannot
be. ``stop`` finishes requests, commits what was taken, seals, gives the lease back. Importing
this module starts nothing; two servers can live in one process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ingot import limits
from ingot.accounts import Accounts, HeldAccounts
from ingot.body.ingest import Ingest
from ingot.bucket.checkpoint import Checkpoints
from ingot.bucket.nodes import Nodes, Published
from ingot.bucket.pins import Pins
from ingot.bucket.pipeline import Pipeline
from ingot.bucket.reconcile import reconcile
from ingot.bucket.store import Store
from ingot.bucket.values import Values
from ingot.clock import SystemClock
from ingot.config import Config, parse_address
from ingot.credentials import Account, CredentialStore
from ingot.datadir import DataDirectory, StoreMark
from ingot.errors import ConfigError, Unavailable
from ingot.expiring import Expiring
from ingot.lease import Lease
from ingot.listener import HttpServer
from ingot.offload import Lanes
from ingot.ports import AccountStore, Authorizer, Clock, FileSystem, Registry
from ingot.running import RunningServer, loop_factory
from ingot.s3.app import App
from ingot.segment_rows import SegmentRows
from ingot.segments.coldnotes import ColdNotes, agree
from ingot.segments.files import SystemFiles
from ingot.segments.model import Row
from ingot.segments.store import SegmentStore
from ingot.shipper.lifecycle import INDEXED

if TYPE_CHECKING:
    from ingot.forge_dev import DevNetwork
    from ingot.metrics import Metrics
    from ingot.shipping import Shipping

__all__ = ["Deps", "RunningServer", "Server", "loop_factory"]

HOUSEKEEPING_S = 1.0
PRUNE_S = 60.0


@dataclass(slots=True)
class Deps:
    """What a host may lend; whatever is None is built from ``Config``."""

    registry: Registry | None = None
    pool: Any = None  # an asyncpg pool that belongs to the server's loop
    accounts: CredentialStore | AccountStore | None = None
    authorizer: Authorizer | None = None
    clock: Clock | None = None
    files: FileSystem | None = None
    logger: logging.Logger | None = None


class Server:
    """One gateway. ``url`` is where it answers once ``start`` has returned."""

    def __init__(self, config: Config, deps: Deps | None = None) -> None:
        self.config = config
        self.deps = deps or Deps()
        self.log = self.deps.logger or logging.getLogger("ingot")
        self.clock: Clock = self.deps.clock or SystemClock()
        self.report: list[str] = []  # what an operator must hear of the last start
        self.failed: asyncio.Event = asyncio.Event()
        self.url = ""
        self.metrics_url = ""  # where ``metrics_listen`` says
        self.root: Account | None = None
        self.root_generated = False
        self.segments: SegmentStore
        self.shipping: Shipping | None = None  # where a Forge network is named
        self.development: DevNetwork | None = None  # the one that ``forge_dev`` starts
        self.store: Store
        self.nodes: Nodes
        self.pipeline: Pipeline
        self.http: HttpServer | None = None
        self._registry: Registry
        self._stack: contextlib.AsyncExitStack | None = None
        self._process = os.getpid()
        self._metrics: Metrics | None = None

    # -- life ------------------------------------------------------------------------------------

    async def start(self, listening: bool = True) -> None:
        """ConfigError where a setting, the directory or the database is not right; waits as a
        standby, saying so, while another gateway has the store. Without ``listening`` the store is
        opened for tools and no request is taken."""
        assert self._stack is None, "started already"
        async with contextlib.AsyncExitStack() as stack:
            store, accounts = await self._open(stack)
            if listening:
                await self._listen(store, self._held(accounts, stack), stack)
            self._stack = stack.pop_all()

    async def stop(self, deadline_s: float = limits.STOP_DEADLINE_S) -> None:
        """Stop accepting, finish requests, commit, seal, release the lease. Does nothing in a
        forked child, whose parent owns all of it."""
        stack, self._stack = self._stack, None
        if stack is None or os.getpid() != self._process:
            return
        try:
            if self.http is not None:
                await self.http.drain(deadline_s)
            stopping = asyncio.ensure_future(self.pipeline.stop())
            await asyncio.wait([stopping], timeout=deadline_s)
            if not stopping.done():
                self.pipeline.fail(Unavailable("stopped before the registry answered"))
            await stopping
        finally:
            await stack.aclose()

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def metrics(self) -> bytes:
        """What the server does, in Prometheus' text format. Not before ``start`` has returned."""
        if self._metrics is None:
            from ingot.metrics import Metrics

            self._metrics = Metrics(self)
        return await self._metrics.text()

    def run_in_thread(self) -> RunningServer:
        """Start it on a loop of its own in a new thread, for hosts that have none."""
        if self.deps.pool is not None:
            raise ConfigError("a lent pool belongs to another loop; give the DSN instead")
        return RunningServer(self)

    # -- start, in order ---------------------------------------------------------------------------

    async def _open(
        self, stack: contextlib.AsyncExitStack
    ) -> tuple[Store, CredentialStore | AccountStore]:
        directory = DataDirectory(self.config.data_dir)
        directory.prepare()
        await self._lock(directory, stack)
        mark = directory.mark()
        if self.config.forge_dev:
            await self._develop(stack)
        accounts = self._accounts(directory, mark)
        registry = await self._open_registry(directory, stack)
        await self._claim(registry, mark, directory)
        lease = await self._take_lease(registry, directory, stack)
        return await self._open_store(registry, lease, directory, mark, stack), accounts

    def _held(
        self, accounts: CredentialStore | AccountStore, stack: contextlib.AsyncExitStack
    ) -> Accounts:
        """Accounts that can be had without waiting, or say that they cannot."""
        if isinstance(accounts, CredentialStore):
            return accounts
        held = HeldAccounts(accounts, self.clock)
        stack.callback(held.close)
        return held

    async def _listen(
        self, store: Store, accounts: Accounts, stack: contextlib.AsyncExitStack
    ) -> None:
        config = self.config
        if isinstance(accounts, CredentialStore):
            # Whose a bucket is, whose configuration is in the network, may not be known yet.
            known = [bucket for _, bucket in sorted(store.tips.items()) if not bucket.away]
            owned = [(bucket.name, bucket.config.owner) for bucket in known]
            accounts.check_owners(owned, self.log)
        app = App(
            store,
            accounts,
            config.region,
            self.clock,
            default_ownership=config.default_object_ownership,
            recreate_own_bucket=config.recreate_own_bucket,
            form_signature_v2=config.form_signature_v2,
            virtual_host_domain=config.virtual_host_domain,
            authorizer=self.deps.authorizer,
        )
        http = self.http = HttpServer(
            app.handle,
            limits=config.http_limits(),
            bad_request=app.bad_request,
            express=app.express,
            ssl_context=self._tls(),
            clock=self.clock,
        )
        await http.start(*config.address)
        stack.push_async_callback(http.close)
        self.url = _url(http.address, secure=bool(config.tls_certificate))
        if config.metrics_listen is not None:
            from ingot.exporter import PATH, Exporter

            exporter = Exporter(self.metrics)
            await exporter.start(*parse_address(config.metrics_listen))
            stack.push_async_callback(exporter.close)
            self.metrics_url = _url(exporter.address, secure=False) + PATH

    async def _lock(self, directory: DataDirectory, stack: contextlib.AsyncExitStack) -> None:
        said = False
        while not directory.lock():
            if not said:
                said = True
                self.log.warning(
                    "standby: process %s has %s; waiting for it to end",
                    directory.holder(),
                    directory.path,
                )
            await asyncio.sleep(limits.STANDBY_POLL_S)
        stack.callback(directory.unlock)

    async def _develop(self, stack: contextlib.AsyncExitStack) -> None:
        """Start the network of ``forge_dev`` and point this gateway at it."""
        from ingot.forge_dev import DevNetwork, pointed

        network = self.development = DevNetwork(self.config.data_dir, self.log)
        await network.start()
        stack.push_async_callback(network.stop)
        self.config = pointed(self.config, network, self.clock.now_ms() // 1000)

    def _accounts(
        self, directory: DataDirectory, mark: StoreMark
    ) -> CredentialStore | AccountStore:
        if self.deps.accounts is not None:
            return self.deps.accounts
        accounts = CredentialStore.load(directory.path, self.config.credentials, root_id=mark.root)
        if mark.root is None and accounts.root_id is not None:
            try:
                directory.keep_root(accounts.root_id)
            except OSError as error:  # the next start does it, if the key is the same then
                self.log.warning("root's canonical id was not kept: %s", error)
        self.root, self.root_generated = accounts.root, accounts.generated
        return accounts

    async def _open_registry(
        self, directory: DataDirectory, stack: contextlib.AsyncExitStack
    ) -> Registry:
        registry = self.deps.registry
        if registry is None:
            from ingot.registry.postgres import Postgres

            cached = self.config.postgres_statement_cache
            if self.deps.pool is not None:
                registry = Postgres(
                    pool=self.deps.pool, statement_cache_size=cached, logger=self.deps.logger
                )
            else:
                dsn = self.config.postgres
                if dsn is None:
                    from ingot.registry.embedded import EmbeddedPostgres

                    embedded = EmbeddedPostgres(directory.path)
                    dsn = await embedded.start()
                    stack.push_async_callback(embedded.stop)
                registry = Postgres(dsn=dsn, statement_cache_size=cached, logger=self.deps.logger)
        await registry.open()
        stack.push_async_callback(registry.close)
        return registry

    async def _claim(self, registry: Registry, mark: StoreMark, directory: DataDirectory) -> None:
        theirs = await registry.store_id()
        if theirs is None and _holds_segments(directory):
            raise ConfigError(
                f"the registry was never used, but {directory.path} holds segments of store "
                f"{mark.store.hex()}: nothing is served and nothing was changed. Point --postgres "
                "at the right database, or rebuild this one with 'ingot restore --from-segments'."
            )
        if theirs is not None and theirs != mark.store:
            raise ConfigError(
                f"the registry belongs to store {theirs.hex()}, {directory.path} to store "
                f"{mark.store.hex()}: nothing is served and nothing was changed. Bring the two "
                "that belong together, or see 'ingot restore'."
            )
        await registry.claim(mark.store)

    async def _take_lease(
        self, registry: Registry, directory: DataDirectory, stack: contextlib.AsyncExitStack
    ) -> Lease:
        """Renewed from here on until everything else has ended."""
        lease = Lease(registry, self.clock, self.log)
        owner = f"{socket.gethostname()}:{os.getpid()}:{directory.path}"
        await lease.take(owner, directory.last_lease)
        stack.push_async_callback(lease.release)
        stack.push_async_callback(_cancel, asyncio.create_task(lease.keep()))
        try:
            directory.keep_lease(lease.token)
        except OSError as error:
            self.log.warning("after a crash a start will wait for the lease to expire: %s", error)
        return lease

    async def _open_store(
        self,
        registry: Registry,
        lease: Lease,
        directory: DataDirectory,
        mark: StoreMark,
        stack: contextlib.AsyncExitStack,
    ) -> Store:
        config = self.config
        lanes = Lanes(asyncio.get_running_loop())
        stack.callback(lanes.close)
        files = self.deps.files or SystemFiles()
        self.segments = SegmentStore(
            files, lanes, directory.segments, config.segment_settings(), self.clock
        )
        notes = ColdNotes(files, directory.cold)
        agreed = await agree(registry, lease.token, notes, INDEXED)
        pins = Pins()
        rows = SegmentRows(registry)
        self.shipping = self._shipping(registry, lease, directory, mark, pins, rows, notes)
        if self.shipping is not None:
            stack.push_async_callback(self.shipping.close)
            await self.shipping.attach()
        recovered = await self.segments.open(mark.store, mark.incarnation, agreed.cold)
        stack.push_async_callback(self.segments.close)
        if self.shipping is not None:
            stack.push_async_callback(self.shipping.stop)
        newest = recovered.newest[1] if recovered.newest is not None else None
        outcome = await reconcile(self.segments, registry, lease.token)
        used_up = await registry.newest_commit()
        self.segments.resume_after(used_up.sequence)
        self.report = [*agreed.faults, *recovered.problems, *outcome.report]
        for line in self.report:
            self.log.error("%s", line)
        blocks = Published(self.segments)
        nodes = self.nodes = Nodes(blocks, config.node_cache_bytes)
        checkpoints = Checkpoints(nodes, mark.store, mark.incarnation, self.clock)
        self.pipeline = Pipeline(
            nodes,
            self.segments,
            registry,
            self.clock,
            Values(blocks),
            pins,
            checkpoints,
            config.batch_mutations,
            busy_poll_s=config.busy_poll_s,
        )
        self.store = Store(
            self.segments,
            nodes,
            self.pipeline,
            Ingest(lanes),
            pins,
            self.clock,
            config.summary_cache_bytes,
        )
        if lease.lost is not None:
            raise lease.lost
        lease.hear = lambda: self._follow_lease(lease)
        lease.hear()
        self.pipeline.start(lease.token, outcome.buckets, newest, self.segments.sequence)
        stack.push_async_callback(self.pipeline.stop)

        def segment_changed(row: Row) -> None:
            rows.put(row)
            self._judge_room()
            if row.state == "sealed":
                checkpoints.segment_sealed()
            if self.shipping is not None:
                self.shipping.changed()

        self.segments.on_change = segment_changed
        for row in self.segments.rows():
            rows.put(row)
        self._judge_room()
        stack.push_async_callback(_cancel, asyncio.create_task(self._keep_house(registry)))
        stack.push_async_callback(_cancel, asyncio.create_task(self._fetch_away()))
        rows.start()
        stack.push_async_callback(rows.stop)
        day_s = config.lifecycle_debug_day_s
        expiring = Expiring(self.store, registry, self.clock, day_s)
        stack.push_async_callback(_cancel, asyncio.create_task(expiring.run()))
        if self.shipping is not None:
            await self.shipping.start()
        return self.store

    def _shipping(
        self,
        registry: Registry,
        lease: Lease,
        directory: DataDirectory,
        mark: StoreMark,
        pins: Pins,
        rows: SegmentRows,
        notes: ColdNotes,
    ) -> Shipping | None:
        """What takes segments to the Forge network, where one is named."""
        config = self.config
        network = config.forge_settings()
        if network is None:
            return None
        from ingot.forge.client import ForgeClient
        from ingot.forge.keystore import KeyStore
        from ingot.shipping import Shipping, ShippingSettings

        keys = KeyStore(directory.path, config.forge_key)
        identity = keys.identity(self.clock.now_ms() // 1000, config.forge_space)
        return Shipping(
            ForgeClient(network, identity, self.clock),
            self.segments,
            registry,
            lease.token,
            pins,
            self.clock,
            ShippingSettings(
                warm_bytes=config.warm_budget,
                cache_bytes=config.cold_cache_bytes,
                seal_age_s=config.seal_age_s,
                unit_age_s=config.unit_age_s,
                round_s=min(limits.RETENTION_ROUND_S, config.unit_age_s),
            ),
            store=mark.store,
            incarnation=mark.incarnation,
            record=rows.record,
            indexed=network.indexer is not None,
            directory=directory.path,
            notes=notes,
        )

    def _tls(self) -> ssl.SSLContext | None:
        config = self.config
        if not config.tls_certificate:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(config.tls_certificate, config.tls_key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"TLS certificate {config.tls_certificate}: {error}") from error
        return context

    # -- background --------------------------------------------------------------------------------

    def _follow_lease(self, lease: Lease) -> None:
        self.store.lease_until = lease.until
        if lease.lost is not None:
            self.pipeline.fail(lease.lost)
            self.failed.set()

    def _judge_room(self) -> None:
        was = self.store.full
        config = self.config
        used = self.segments.bytes_here()
        self.store.judge_room(used, config.log_bytes_max, config.log_reserve)
        if self.store.full and not was:
            away = "a Forge network would take them, or a higher limit"
            if self.shipping is not None:
                away = "files that Forge has will go; 'ingot segments' shows what it lacks"
            self.log.error("writes are refused: %s; %s", self.store.full, away)
        elif was and not self.store.full:
            self.log.warning("there is room again: writes are taken")

    async def _fetch_away(self) -> None:
        """Until every bucket has its configuration. Apart from the housekeeping, which must not
        wait for a network that says nothing."""
        while any(bucket.away for bucket in self.store.tips.values()):
            await asyncio.sleep(HOUSEKEEPING_S)
            await self.store.fetch_away()

    async def _keep_house(self, registry: Registry) -> None:
        pruned = self.clock.monotonic()
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            self.pipeline.expire()
            self._judge_room()
            if self.pipeline.failed is not None:
                self.failed.set()
                if self.shipping is not None:
                    await self.shipping.stop()  # what it would change is another's now
            if self.clock.monotonic() - pruned >= PRUNE_S:
                pruned = self.clock.monotonic()
                try:
                    await registry.prune(limits.HEADS_KEPT)
                except Exception as error:  # the next round will do
                    self.log.warning("old heads were not pruned: %s", error)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _holds_segments(directory: DataDirectory) -> bool:
    try:
        return any(name.startswith("log-") for name in os.listdir(directory.segments))
    except FileNotFoundError:
        return False


def _url(address: tuple[str, int], secure: bool) -> str:
    host, port = address[0], address[1]
    if ":" in host:
        host = f"[{host}]"
    return f"http{'s' if secure else ''}://{host}:{port}"
