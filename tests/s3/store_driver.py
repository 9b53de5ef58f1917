"""The Driver over the real store: its own loop, a log and a registry in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from ingot.credentials import CredentialStore
from ingot.messages import Request, Response
from ingot.s3.app import App
from tests.s3.driver import OTHER, OWNER, REGION, THIRD, Answer, Driver, drain
from tests.support.world import World

T = TypeVar("T")


class StoreDriver(Driver):
    """Use it as a context manager; ``together`` has several requests under way at once."""

    def __init__(self, region: str = REGION, **settings: Any) -> None:
        super().__init__(region)
        self._runner = asyncio.Runner()
        self.world = self._runner.run(self._make())
        self.app = App(
            self.world.store,
            CredentialStore((OWNER, OTHER, THIRD)),
            region,
            self.clock,
            access_log=self.entries.append,
            **settings,
        )
        self._collected: list[Request] | None = None

    async def _make(self) -> World:
        return await World(self.clock).start(None)

    def __enter__(self) -> StoreDriver:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self.world.stop())
        self._runner.close()

    def send(self, request: Request) -> Answer:
        if not request.index:
            for name, value in request.headers:
                request.index[name] = value.strip(b" \t")
        if self._collected is not None:
            self._collected.append(request)
            return Answer(Response(200))
        return Answer(self._runner.run(self._handle(request)))

    async def _handle(self, request: Request) -> Response:
        response = await self.app.handle(request)
        response.body = await drain(response.body)
        return response

    def together(self, *asks: Callable[[], Any]) -> list[Answer]:
        """The answers of requests that are handled at the same time."""
        self._collected = []
        for ask in asks:
            ask()
        requests, self._collected = self._collected, None

        async def all_of_them() -> list[Response]:
            return await asyncio.gather(*[self._handle(request) for request in requests])

        return [Answer(response) for response in self._runner.run(all_of_them())]

    def hold_back(self) -> None:
        """Requests are not sent from here on; ``held_back`` gives them, and ends that."""
        self._collected = []

    def held_back(self) -> list[Request]:
        assert self._collected is not None
        requests, self._collected = self._collected, None
        return requests

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """A coroutine on the store's loop."""
        return self._runner.run(work)

    def keys(self, bucket: str = "bucket") -> list[bytes]:
        store = self.world.store
        page = self._runner.run(store.page(store.bucket(bucket), b"", b"", None, 1000))
        return [key for key, _ in page.items]


def with_a_source() -> Iterator[StoreDriver]:
    """For a fixture: a driver where OTHER has an object, ``k`` in ``source``, to copy from."""
    with StoreDriver() as made:
        made.bucket("source", account=OTHER)
        assert made.ask("PUT", "/source/k", body=b"copied", account=OTHER).status == 200
        yield made
