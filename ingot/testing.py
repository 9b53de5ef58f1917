"""A whole gateway in one object, for the tests of hosts: in-memory registry, temporary directory,
free port. The bytes are written and synced for real; only Postgres is replaced.

    with Gateway() as gateway:
        client = boto3.client("s3", endpoint_url=gateway.url, **gateway.boto())

``Network`` is the Forge network to point one at: real HTTP servers, with faults on demand.
"""

from __future__ import annotations

import tempfile
from types import TracebackType
from typing import Any

from ingot.config import Config
from ingot.credentials import Account, CredentialStore
from ingot.forge.network import Network
from ingot.ports import AccountStore, Authorizer
from ingot.registry.memory import MemoryRegistry
from ingot.server import Deps, RunningServer, Server

__all__ = ["ACCESS_KEY", "SECRET_KEY", "Gateway", "Network"]

ACCESS_KEY = "AKIAINGOTTESTING0000"
SECRET_KEY = "ingot-testing-secret-key-0000000000000000"


class Gateway:
    """Works as ``with`` (on a thread of its own) and as ``async with`` (on the running loop)."""

    def __init__(
        self,
        registry: MemoryRegistry | None = None,
        *,
        accounts: CredentialStore | AccountStore | None = None,
        authorizer: Authorizer | None = None,
        **settings: Any,
    ) -> None:
        """``accounts``: the host's own; without, there is the one of ``ACCESS_KEY``."""
        self.access_key, self.secret_key = ACCESS_KEY, SECRET_KEY
        self.registry = registry or MemoryRegistry()
        if accounts is None:
            account = Account(self.access_key, self.secret_key, "0" * 63 + "1", "testing")
            accounts = CredentialStore([account])
        self._accounts = accounts
        self._authorizer = authorizer
        self._settings = settings
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._running: RunningServer | None = None
        self.server: Server

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def region(self) -> str:
        return self.server.config.region

    def boto(self) -> dict[str, str]:
        """Keyword arguments for ``boto3.client("s3", endpoint_url=gateway.url, ...)``."""
        return {
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret_key,
            "region_name": self.region,
        }

    def _make(self) -> Server:
        settings = {"listen": "127.0.0.1:0", **self._settings}
        if "data_dir" not in settings:
            self._directory = tempfile.TemporaryDirectory(prefix="ingot-testing-")
            settings["data_dir"] = self._directory.name
        deps = Deps(registry=self.registry, accounts=self._accounts, authorizer=self._authorizer)
        self.server = Server(Config(**settings), deps)
        return self.server

    def _clean(self) -> None:
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def __enter__(self) -> Gateway:
        try:
            self._running = self._make().run_in_thread()
        except BaseException:
            self._clean()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._running is not None
        try:
            self._running.stop()
        finally:
            self._clean()

    async def __aenter__(self) -> Gateway:
        try:
            await self._make().start()
        except BaseException:
            self._clean()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.server.stop()
        finally:
            self._clean()
