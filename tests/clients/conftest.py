"""A gateway as a process of its own for each session, and the clients over it.

What is not installed is skipped, visibly; so is what a client cannot do.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.clients.certificates import make_certificates
from tests.clients.libraries import LIBRARIES, Boto3
from tests.clients.port import Endpoint, S3Client, Unable
from tests.clients.programs import PROGRAMS, AwsCli
from tests.support.client import Client
from tests.support.process import ACCESS_KEY, SECRET_KEY, Gateway

CLIENTS: dict[str, type[S3Client]] = {made.name: made for made in (*PROGRAMS, *LIBRARIES)}
HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = any(HERE.name in Path(argument.split("::")[0]).parts for argument in config.args)
    for item in items:
        if not item.path.is_relative_to(HERE):
            continue
        item.add_marker(pytest.mark.slow)
        # What clients' own code warns of is not ours to mend.
        item.add_marker(pytest.mark.filterwarnings("ignore"))
        if not asked and f"[{AwsCli.name}]" in item.name:
            # A minute of the whole suite's, which has ``tests/e2e/test_awscli.py``.
            reason = f"{AwsCli.name} is slow to start: python -m tests.clients"
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A flow that names no client runs with each."""
    marks = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    for name in ("client", "secure_client"):
        if name in metafunc.fixturenames and name not in marks:
            metafunc.parametrize(name, list(CLIENTS), indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    try:
        return (yield)
    except Unable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def gateway(reachable_path: Path) -> Iterator[Gateway]:
    with Gateway(reachable_path / "clients-gateway") as running:
        yield running


@pytest.fixture
def endpoint(gateway: Gateway, tmp_path: Path) -> Endpoint:
    home = tmp_path / "home"
    home.mkdir()
    return Endpoint(gateway.url, ACCESS_KEY, SECRET_KEY, "us-east-1", home)


def open_client(name: str, endpoint: Endpoint) -> Iterator[S3Client]:
    kind = CLIENTS[name]
    if missing := kind.missing():
        pytest.skip(f"{missing} is not installed: {kind.install}")
    made = kind(endpoint)
    yield made
    made.close()


@pytest.fixture
def client(request: pytest.FixtureRequest, endpoint: Endpoint) -> Iterator[S3Client]:
    yield from open_client(request.param, endpoint)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of an authority, beside a server's certificate and key, ``server.pem``."""
    directory = tmp_path_factory.mktemp("authority")
    make_certificates(directory / "authority.pem", directory / "server.pem")
    return directory / "authority.pem"


@pytest.fixture(scope="session")
def secure_gateway(reachable_path: Path, authority: Path) -> Iterator[Gateway]:
    server = str(authority.with_name("server.pem"))
    options = ("--tls-certificate", server, "--tls-key", server)
    with Gateway(reachable_path / "clients-secure", *options) as running:
        yield running


@pytest.fixture
def secure_endpoint(endpoint: Endpoint, secure_gateway: Gateway, authority: Path) -> Endpoint:
    return replace(endpoint, url=secure_gateway.url, authority=authority)


@pytest.fixture
def secure_client(request: pytest.FixtureRequest, secure_endpoint: Endpoint) -> Iterator[S3Client]:
    yield from open_client(request.param, secure_endpoint)


@pytest.fixture
def secure_bucket(secure_endpoint: Endpoint) -> str:
    name, own = new_name(), Boto3(secure_endpoint)
    own.make_bucket(name)
    own.close()
    return name


@pytest.fixture
def observer(gateway: Gateway) -> Iterator[Client]:
    """Sees what the gateway has, whatever a client says."""
    made = gateway.client()
    yield made
    made.close()


def new_name() -> str:
    return f"bucket-{os.urandom(6).hex()}"


@pytest.fixture
def bucket(observer: Client) -> str:
    name = new_name()
    assert observer.put(f"/{name}", b"").status == 200
    return name


def fill(gateway: Gateway, bucket: str, keys: list[str]) -> None:
    """Small objects under keys that need no escaping, quickly."""

    def put(some: list[str]) -> None:
        own = gateway.client()
        for key in some:
            assert own.put(f"/{bucket}/{key}", key.encode()).status == 200
        own.close()

    hands = 8
    with ThreadPoolExecutor(hands) as pool:
        list(pool.map(put, [keys[first::hands] for first in range(hands)]))


@pytest.fixture(scope="session")
def crowded(gateway: Gateway) -> tuple[str, list[str]]:
    """A bucket with more keys, and more groups of keys, than a page of a listing holds, and its
    keys in order."""
    keys = [f"many/{number:04}" for number in range(1050)] + ["one/a", "one/b", "top"]
    keys += [f"wide/{number:04}/x" for number in range(1010)]
    name = new_name()
    own = gateway.client()
    assert own.put(f"/{name}", b"").status == 200
    own.close()
    fill(gateway, name, keys)
    return name, keys
