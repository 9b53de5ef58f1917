"""Drives an App over the store in memory: raw requests signed by botocore, and a boto3 client whose
HTTP is a function call."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.config import Config as BotoConfig
from botocore.credentials import Credentials

from ingot.bucket.record import Record
from ingot.credentials import Account, CredentialStore
from ingot.messages import Request, Response
from ingot.s3.answers import AccessEntry
from ingot.s3.app import App
from tests.s3.fake_store import FakeBody, FakeStore, run_now

HOST = "s3.test"
REGION = "eu-north-1"
OWNER = Account("AKIAOWNER00000000001", "owner-secret", "1" * 64, "owner")
OTHER = Account("AKIAOTHER00000000001", "other-secret", "2" * 64, "other")
THIRD = Account("AKIATHIRD00000000001", "third-secret", "3" * 64, "third")
NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class FakeClock:
    """Stands at the real time, which botocore signs with, until moved."""

    def __init__(self) -> None:
        import time

        self.ms = int(time.time() * 1000)

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000

    def boottime(self) -> float:
        return self.ms / 1000


class Answer:
    """A response, drained."""

    def __init__(self, response: Response) -> None:
        self.status = response.status
        self.headers: dict[str, str] = {}
        for name, value in response.headers:
            assert name.decode().lower() not in self.headers, f"{name!r} twice"
            self.headers[name.decode().lower()] = value.decode("latin-1")
        self.response = response
        self.body = run_now(drain(response.body))
        if response.length is not None and response.length != len(self.body):
            assert not self.body, "the length does not fit the body"
        self.length = len(self.body) if response.length is None else response.length

    @property
    def xml(self) -> ElementTree.Element:
        assert self.headers["content-type"] == "application/xml"
        return ElementTree.fromstring(self.body)

    @property
    def code(self) -> str:
        """The error code of a document in the form that botocore looks for."""
        root = self.xml
        assert root.tag == "Error"
        assert root.findtext("RequestId") == self.headers["x-amz-request-id"]
        return root.findtext("Code") or ""

    def texts(self, path: str) -> list[str]:
        """Texts of the elements at ``path`` of an answer in S3's namespace."""
        steps = "/".join(NAMESPACE + step for step in path.split("/"))
        return [found.text or "" for found in self.xml.iterfind(steps)]

    def text(self, path: str) -> str | None:
        found = self.texts(path)
        return found[0] if found else None


async def drain(body: bytes | AsyncIterator[memoryview | bytes]) -> bytes:
    if isinstance(body, bytes):
        return body
    return b"".join([bytes(piece) async for piece in body])


class Driver:
    """One App, its store, and ways to ask it."""

    def __init__(self, region: str = REGION, **settings: Any) -> None:
        self.store = FakeStore()
        self.clock = FakeClock()
        self.region = region
        self.entries: list[AccessEntry] = []
        accounts = CredentialStore((OWNER, OTHER, THIRD))
        self.app = App(
            self.store,  # type: ignore[arg-type]
            accounts,
            region,
            self.clock,
            access_log=self.entries.append,
            logger=logging.getLogger("ingot.s3.test"),
            **settings,
        )
        self.body = FakeBody(b"")

    def ask(
        self,
        method: str,
        path: str,
        query: str = "",
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        account: Account | None = OWNER,
        stream: FakeBody | None = None,
        sign_body: bool = True,
    ) -> Answer:
        """A request whose ``path`` and ``query`` go on the wire as they are."""
        target = path + ("?" + query if query else "")
        pairs = {"host": HOST, **(headers or {})}
        if body or method in ("PUT", "POST"):
            pairs.setdefault("content-length", str(len(body)))
        if account is not None:
            digest = hashlib.sha256(body).hexdigest() if sign_body else "UNSIGNED-PAYLOAD"
            pairs.setdefault("x-amz-content-sha256", digest)
            pairs = _sign(method, target, pairs, account, self.region)
        self.body = stream or FakeBody(body)
        encoded = [(k.lower().encode(), v.encode()) for k, v in pairs.items()]
        return self.send(
            Request(method, target.encode("latin-1"), encoded, {}, self.body, "-", False)
        )

    def send(self, request: Request) -> Answer:
        if not request.index:
            for name, value in request.headers:
                value = value.strip(b" \t")
                held = request.index.get(name)
                request.index[name] = value if held is None else held + b"," + value
        return Answer(run_now(self.app.handle(request)))

    def bucket(self, name: str = "bucket", account: Account = OWNER) -> str:
        answer = self.ask("PUT", f"/{name}", account=account)
        assert answer.status == 200, answer.body
        return name

    def put(self, key: str, body: bytes = b"x", bucket: str = "bucket", **headers: str) -> Answer:
        pairs = {name.replace("_", "-"): value for name, value in headers.items()}
        path = f"/{bucket}/{quote(key, safe='/~')}"
        answer = self.ask("PUT", path, headers=pairs, body=body)
        assert answer.status == 200, answer.body
        return answer

    def record(self, key: str, bucket: str = "bucket") -> Record:
        return self.store.objects[bucket][key.encode()]

    def keys(self, bucket: str = "bucket") -> list[bytes]:
        return sorted(self.store.objects[bucket])

    def client(self, account: Account = OWNER, style: str = "path", **settings: Any) -> Any:
        """A boto3 client that calls the App instead of a socket."""
        client = boto3.client(
            "s3",
            endpoint_url=f"http://{HOST}",
            region_name=self.region,
            aws_access_key_id=account.access_key,
            aws_secret_access_key=account.secret_key,
            config=BotoConfig(
                s3={"addressing_style": style}, retries={"total_max_attempts": 1}, **settings
            ),
        )
        client.meta.events.register("before-send.s3", self._carry)
        return client

    def _carry(self, request: Any, **_: Any) -> AWSResponse:
        parts = urlsplit(request.url)
        body = request.body or b""
        if hasattr(body, "read"):
            body = body.read()
        headers = [
            (name.lower().encode(), value if isinstance(value, bytes) else str(value).encode())
            for name, value in request.headers.items()
        ]
        target = parts.path + ("?" + parts.query if parts.query else "")
        if b"host" not in dict(headers):
            headers.append((b"host", parts.netloc.encode()))
        self.body = FakeBody(body)
        answer = self.send(
            Request(request.method, target.encode(), headers, {}, self.body, "-", False)
        )
        answered = {"content-length": str(answer.length), **answer.headers}
        return AWSResponse(request.url, answer.status, answered, _Raw(answer.body))


class _Raw(io.BytesIO):
    """What botocore expects of urllib3."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


def _sign(
    method: str, target: str, headers: dict[str, str], account: Account, region: str
) -> dict[str, str]:
    """``headers`` with a signature by botocore, which is handed the target as it is."""
    request = AWSRequest(method, f"http://{HOST}{target}", headers=headers)
    auth = S3SigV4Auth(Credentials(account.access_key, account.secret_key), "s3", region)
    auth.payload = lambda _: headers["x-amz-content-sha256"]  # type: ignore[method-assign]
    auth.add_auth(request)
    signed = {name: str(value) for name, value in request.headers.items()}
    return signed


def query_of(**parameters: str) -> str:
    return urlencode({name.replace("_", "-"): value for name, value in parameters.items()})
