"""One gateway a module over real sockets and real files, and the clients that people use."""

from __future__ import annotations

import datetime
import functools
import importlib.util
import ipaddress
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config as BotoConfig
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ingot.testing import Gateway
from tests.support.forking import Program
from tests.support.store import Store


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway() as running:
        yield running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ingot tests")])
    now = datetime.datetime.now(datetime.UTC)
    host = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([host]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


@pytest.fixture(scope="module")
def secure_gateway(certificate: Path) -> Iterator[Gateway]:
    with Gateway(tls_certificate=str(certificate), tls_key=str(certificate)) as running:
        yield running


def make_client(gateway: Gateway, region: str | None = None, **settings: Any) -> Any:
    """A boto3 client that retries nothing, so that nothing is hidden."""
    keys = gateway.boto() if region is None else gateway.boto() | {"region_name": region}
    config = BotoConfig(
        s3={"addressing_style": "path"},
        signature_version="s3v4",  # without it URLs for us-east-1 are signed by version 2
        retries={"total_max_attempts": 1},
        **settings,
    )
    return boto3.client("s3", endpoint_url=gateway.url, config=config, **keys)


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[Any]:
    made = make_client(gateway)
    yield made
    made.close()


@pytest.fixture
def bucket(client: Any) -> Iterator[str]:
    """An empty bucket, torn down as test suites do: by listing versions."""
    name = f"bucket-{os.urandom(6).hex()}"
    client.create_bucket(Bucket=name)
    yield name
    for page in client.get_paginator("list_object_versions").paginate(Bucket=name):
        doomed = [{"Key": v["Key"], "VersionId": v["VersionId"]} for v in page.get("Versions", [])]
        if doomed:
            client.delete_objects(Bucket=name, Delete={"Objects": doomed, "Quiet": True})
    client.delete_bucket(Bucket=name)


Aws = Callable[..., str]


@functools.cache
def _awscli() -> Program:
    return Program("awscli.clidriver", "awscli.customizations.s3.s3")


@pytest.fixture
def aws(gateway: Gateway, tmp_path: Path) -> Aws:
    """Runs the ``aws`` command; AssertionError with its complaint when it fails."""
    if importlib.util.find_spec("awscli") is None:
        pytest.skip("awscli is not installed")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": gateway.access_key,
        "AWS_SECRET_ACCESS_KEY": gateway.secret_key,
        "AWS_DEFAULT_REGION": gateway.region,
        "AWS_ENDPOINT_URL": gateway.url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    }

    def run(*arguments: str, fails: bool = False, given: bytes = b"") -> str:
        status, output, errors = _awscli().run(arguments, environment, given)
        said = output + errors
        assert (status != 0) == fails, said
        return said

    return run


@pytest.fixture(scope="session")
def filled_stores() -> dict[tuple[int, bytes], Store]:
    """They end with the session's Postgres."""
    return {}


@pytest.fixture
def store(
    private_path: Path, postgres: str, filled_stores: dict[tuple[int, bytes], Store]
) -> Iterator[Store]:
    made = Store(private_path, postgres, filled_stores)
    yield made
    made.close()
