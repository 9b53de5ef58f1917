"""The error catalogue, section 6 of the surface: every code, provoked over a socket.

A case makes one request that ends in its code. What it hears is compared whole: status, code,
message, and the elements that belong to the code. A code without a case stands in ``NEVER``, with
the reason why ingot has no use for it.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import hmac
import http.client
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from xml.etree import ElementTree

import pytest

from ingot import AccessQuestion, Account, Decision
from ingot.errors import LeaseLost
from ingot.limits import ACCOUNT_LOOKUPS_PEER_MAX
from ingot.registry.memory import MemoryRegistry
from ingot.s3.errors import ERRORS
from ingot.testing import Gateway
from tests.s3.test_errors import ROWS
from tests.support import form
from tests.support.client import Answer, Client

REGION = "eu-central-1"
SECRET = "catalogue-secret-key"
MIB = 1 << 20
EMPTY = hashlib.sha256(b"").hexdigest()

NEVER = {
    "ConditionalRequestConflict": "conditions are judged at the commit, one after the other: 412",
    "ExpiredToken": "there are no session tokens, so none expires",
    "InsufficientStorage": "for hosts with quotas of their own; a full log is 503",
    "OperationAborted": "changes of a bucket are committed one after the other: none is aborted",
    "QuotaExceeded": "for hosts with quotas of their own",
}


class People:
    """Accounts of a host."""

    async def get(self, access_key: str) -> Account | None:
        name = {"MINE": "a", "OTHER": "b"}.get(access_key)
        return None if name is None else Account(access_key, SECRET, name * 64, access_key)


class Slow:
    """Accounts of a host that takes its time: ``all_ask`` once as many keys are looked up as one
    address may have looked up at a time."""

    def __init__(self) -> None:
        self.all_ask = threading.Event()
        self.answer: Callable[[], object] = lambda: None
        self._asking: list[asyncio.Future[None]] = []

    async def get(self, access_key: str) -> Account | None:
        loop = asyncio.get_running_loop()
        self._asking.append(loop.create_future())
        if len(self._asking) == ACCOUNT_LOOKUPS_PEER_MAX:
            self.answer = lambda: loop.call_soon_threadsafe(self._answer)
            self.all_ask.set()
        await self._asking[-1]
        return None

    def _answer(self) -> None:
        for each in self._asking:
            each.set_result(None)


class Broken:
    """A host's authorizer that fails over one key."""

    def decide(self, asked: AccessQuestion) -> Decision:
        if asked.key == "broken":
            raise RuntimeError("a mistake in the host")
        return Decision.USUAL


@dataclass
class World:
    gateway: Gateway
    mine: Client
    other: Client

    def client(self, access_key: str, secret_key: str = SECRET, region: str = REGION) -> Client:
        return Client(self.gateway.url, access_key, secret_key, region)

    def ask(
        self,
        method: str,
        path: str,
        query: str = "",
        body: bytes | str = b"",
        **headers: str,
    ) -> Answer:
        """A signed request; a body comes with its MD5."""
        data = body.encode() if isinstance(body, str) else body
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if data and "content-md5" not in named:
            named["content-md5"] = base64.b64encode(hashlib.md5(data).digest()).decode()
        return self.mine.request(method, path, data, named, query)

    def bare(self, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        """A request without a signature."""
        connection = http.client.HTTPConnection(self.mine.host, self.mine.port, timeout=20)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, target, body, named)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        answer = Answer(response.status, found, response.read())
        connection.close()
        return answer

    def raw(self, data: bytes, end: bool = False) -> Answer:
        """The answer to bytes as they are; ``end``: nothing more comes."""
        with socket.create_connection((self.mine.host, self.mine.port), timeout=20) as peer:
            peer.sendall(data)
            if end:
                peer.shutdown(socket.SHUT_WR)
            response = http.client.HTTPResponse(peer, method="PUT")
            response.begin()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())

    def signed_head(self, path: str, headers: dict[str, str], payload: str = "UNSIGNED-PAYLOAD"):
        """The head of a signed PUT, for ``raw``."""
        signed = self.mine.sign("PUT", path, "", headers, payload)
        lines = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
        return f"PUT {path} HTTP/1.1\r\n{lines}\r\n".encode()

    def upload(self, key: str, *sizes: int) -> tuple[str, list[str]]:
        """An upload with parts of these sizes: its id and their ETags."""
        made = self.ask("POST", f"/bucket/{key}", "uploads=")
        name = ElementTree.fromstring(made.body).findtext("{*}UploadId") or ""
        etags = []
        for number, size in enumerate(sizes, 1):
            query = f"partNumber={number}&uploadId={name}"
            etags.append(self.ask("PUT", f"/bucket/{key}", query, bytes(size)).headers["etag"])
        return name, etags

    def complete(self, key: str, name: str, parts: list[tuple[int, str]]) -> Answer:
        listed = "".join(
            f"<Part><PartNumber>{n}</PartNumber><ETag>{etag}</ETag></Part>" for n, etag in parts
        )
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>"
        return self.ask("POST", f"/bucket/{key}", f"uploadId={name}", body)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Gateway(
        accounts=People(), authorizer=Broken(), region=REGION, body_stall_s=0.2
    ) as gateway:
        clients = [Client(gateway.url, key, SECRET, REGION) for key in ("MINE", "OTHER")]
        made = World(gateway, *clients)
        assert made.ask("PUT", "/bucket").status == 200
        locked = {"x-amz-bucket-object-lock-enabled": "true"}
        assert made.mine.request("PUT", "/locked", b"", locked).status == 200
        assert made.ask("PUT", "/bucket/k", body=b"bytes").status == 200
        assert made.ask("PUT", "/locked/k", body=b"bytes").status == 200
        yield made
        for client in clients:
            client.close()


@dataclass
class Case:
    code: str
    provoke: Callable[[World], Answer]
    message: str = ""  # "": the code's own
    elements: dict[str, str | None] = field(default_factory=dict)  # None: any text


CASES: list[Case] = []


def case(
    code: str, message: str = "", **elements: str | None
) -> Callable[[Callable[[World], Answer]], Callable[[World], Answer]]:
    """What a request that ends in ``code`` hears; underscores of elements are hyphens."""

    def note(provoke: Callable[[World], Answer]) -> Callable[[World], Answer]:
        named = {name.replace("_", "-"): value for name, value in elements.items()}
        CASES.append(Case(code, provoke, message, named))
        return provoke

    return note


def simple(
    code: str, method: str, path: str, query: str = "", body: str = "", **elements: str | None
) -> None:
    """A case of one signed request whose answer has the code's own message."""
    case(code, **elements)(lambda world: world.ask(method, path, query, body))


# -- reading and listing --------------------------------------------------------------------------
simple("NoSuchBucket", "GET", "/none", BucketName="none")
simple("NoSuchBucket", "GET", "/none/k", BucketName="none", Resource="/none/k")
simple("NoSuchKey", "GET", "/bucket/none", Key="none", Resource="/bucket/none")
simple(
    *("NoSuchVersion", "GET", "/bucket/k", f"versionId={'0' * 32}"),
    Key="k",
    VersionId="0" * 32,
)
simple("NoSuchUpload", "GET", "/bucket/k", "uploadId=none", UploadId="none")
simple("NoSuchObjectLockConfiguration", "GET", "/locked/k", "retention=", Key="k")
simple("InvalidObjectState", "POST", "/bucket/k", "restore=", "<RestoreRequest/>")
for _code, _resource in {
    "NoSuchBucketPolicy": "policy",
    "NoSuchCORSConfiguration": "cors",
    "NoSuchLifecycleConfiguration": "lifecycle",
    "NoSuchWebsiteConfiguration": "website",
    "NoSuchTagSet": "tagging",
    "NoSuchPublicAccessBlockConfiguration": "publicAccessBlock",
    "ObjectLockConfigurationNotFoundError": "object-lock",
    "ReplicationConfigurationNotFoundError": "replication",
    "ServerSideEncryptionConfigurationNotFoundError": "encryption",
    "NoSuchConfiguration": "inventory=&id=1",
}.items():
    simple(
        _code,
        "GET",
        "/bucket",
        _resource if "=" in _resource else f"{_resource}=",
        BucketName="bucket",
    )


@case("OwnershipControlsNotFoundError", BucketName="owned")
def _(world: World) -> Answer:
    world.ask("PUT", "/owned")
    assert world.ask("DELETE", "/owned", "ownershipControls=").status == 204
    return world.ask("GET", "/owned", "ownershipControls=")


@case("InvalidRange", RangeRequested="bytes=9-", ActualObjectSize="5")
def _(world: World) -> Answer:
    answer = world.ask("GET", "/bucket/k", range="bytes=9-")
    assert answer.headers["content-range"] == "bytes */5"
    return answer


simple(
    *("InvalidPartNumber", "GET", "/bucket/k", "partNumber=2"),
    ActualPartCount="1",
    PartNumberRequested="2",
)


@case("NotModified")
def _(world: World) -> Answer:
    return world.ask("GET", "/bucket/k", if_none_match="*")


@case("PreconditionFailed", Condition="If-Match")
def _(world: World) -> Answer:
    return world.ask("GET", "/bucket/k", if_match='"other"')


@case("PreconditionFailed", Condition="If-None-Match")
def _(world: World) -> Answer:
    return world.ask("PUT", "/bucket/k", body=b"new", if_none_match="*")


@case(
    "InvalidArgument",
    "Argument max-buckets must be an integer between 1 and 10000",
    ArgumentName="max-buckets",
    ArgumentValue="0",
)
def _(world: World) -> Answer:
    return world.ask("GET", "/", "max-buckets=0")


@case("TooManyBuckets")
def _(world: World) -> Answer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ingot.s3.buckets.BUCKETS_OF_ACCOUNT_MAX", 1)
        return world.ask("PUT", "/one-more")


@case("InvalidURI")
def _(world: World) -> Answer:
    return world.raw(b"GET /bucket/%zz HTTP/1.1\r\nHost: x\r\n\r\n")


@case("KeyTooLongError", Size="1025", MaxSizeAllowed="1024")
def _(world: World) -> Answer:
    return world.ask("PUT", "/bucket/" + "k" * 1025)


simple("InvalidBucketName", "GET", "/Upper", BucketName="Upper")


# -- who asks -------------------------------------------------------------------------------------
@case("AccessDenied")
def _(world: World) -> Answer:
    return world.bare("GET", "/bucket/k")


@case("AccessDenied")
def _(world: World) -> Answer:
    return world.other.get("/bucket/k")


@case(
    "AccessDenied",
    "There were headers present in the request which were not signed",
    HeadersNotSigned="x-amz-meta-a",
)
def _(world: World) -> Answer:
    signed = world.mine.sign("GET", "/bucket/k", "", {})
    return world.bare("GET", "/bucket/k", **{**signed, "x-amz-meta-a": "b"})


@case("AccessDenied", "Access Denied because object protected by object lock.")
def _(world: World) -> Answer:
    hold = "<LegalHold><Status>ON</Status></LegalHold>"
    assert world.ask("PUT", "/locked/k", "legal-hold=", hold).status == 200
    version = world.ask("HEAD", "/locked/k").headers["x-amz-version-id"]
    return world.ask("DELETE", "/locked/k", f"versionId={version}")


def presigned(world: World, expires_s: int, age_s: int = 0) -> str:
    """The target of a GET of an object, presigned."""
    sent = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age_s)
    scope = f"{sent:%Y%m%d}/{REGION}/s3/aws4_request"
    parameters = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"MINE/{scope}",
        "X-Amz-Date": sent.strftime("%Y%m%dT%H%M%SZ"),
        "X-Amz-Expires": str(expires_s),
        "X-Amz-SignedHeaders": "host",
    }
    query = "&".join(
        f"{name}={urllib.parse.quote(value, safe='')}" for name, value in parameters.items()
    )
    host = f"{world.mine.host}:{world.mine.port}"
    canonical = f"GET\n/bucket/k\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    string = f"AWS4-HMAC-SHA256\n{parameters['X-Amz-Date']}\n{scope}\n{digest}"
    key = b"AWS4" + SECRET.encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    signature = hmac.digest(key, string.encode(), "sha256").hex()
    return f"/bucket/k?{query}&X-Amz-Signature={signature}"


@case(
    "AccessDenied",
    "Request has expired",
    X_Amz_Expires="10",
    Expires=None,
    ServerTime=None,
)
def _(world: World) -> Answer:
    return world.bare("GET", presigned(world, 10, age_s=60))


@case(
    "AuthorizationQueryParametersError",
    "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be "
    "less than 604800 seconds",
)
def _(world: World) -> Answer:
    return world.bare("GET", presigned(world, 604801))


@case(
    "AuthorizationHeaderMalformed",
    f"The authorization header is malformed; the region 'mars' is wrong; expecting '{REGION}'",
    Region=REGION,
)
def _(world: World) -> Answer:
    return world.client("MINE", region="mars").get("/bucket/k")


@case("InvalidAccessKeyId", AWSAccessKeyId="NOBODY")
def _(world: World) -> Answer:
    return world.client("NOBODY").get("/bucket/k")


@case(
    "SignatureDoesNotMatch",
    AWSAccessKeyId="MINE",
    StringToSign=None,
    SignatureProvided=None,
    StringToSignBytes=None,
    CanonicalRequest=None,
    CanonicalRequestBytes=None,
)
def _(world: World) -> Answer:
    return world.client("MINE", "another-secret-key").get("/bucket/k")


@case(
    "RequestTimeTooSkewed",
    RequestTime="20130524T000000Z",
    ServerTime=None,
    MaxAllowedSkewMilliseconds="900000",
)
def _(world: World) -> Answer:
    signed = world.mine.sign("GET", "/bucket/k", "", {})
    day = signed["x-amz-date"][:8]
    signed["x-amz-date"] = "20130524T000000Z"
    signed["authorization"] = signed["authorization"].replace(f"/{day}/", "/20130524/")
    return world.bare("GET", "/bucket/k", **signed)


@case("InvalidToken")
def _(world: World) -> Answer:
    return world.ask("GET", "/bucket/k", x_amz_security_token="token")


@case(
    "AccessForbidden",
    "CORSResponse: CORS is not enabled for this bucket.",
    Method="GET",
    ResourceType="OBJECT",
)
def _(world: World) -> Answer:
    asked = {"Access-Control-Request-Method": "GET"}
    return world.bare("OPTIONS", "/bucket/k", Origin="https://a.example", **asked)


# -- bodies ---------------------------------------------------------------------------------------
@case("BadDigest", ExpectedDigest=base64.b64encode(bytes(16)).decode(), CalculatedDigest=None)
def _(world: World) -> Answer:
    wrong = base64.b64encode(bytes(16)).decode()
    return world.mine.request("PUT", "/bucket/d", b"x", {"content-md5": wrong})


@case("BadDigest", "The CRC32 you specified did not match the calculated checksum.")
def _(world: World) -> Answer:
    return world.ask("PUT", "/bucket/d", body=b"x", x_amz_checksum_crc32="AAAAAA==")


@case("InvalidDigest", Content_MD5="x")
def _(world: World) -> Answer:
    return world.mine.request("PUT", "/bucket/d", b"x", {"content-md5": "x"})


@case(
    "XAmzContentSHA256Mismatch",
    ClientComputedContentSHA256=EMPTY,
    S3ComputedContentSHA256=hashlib.sha256(b"x").hexdigest(),
)
def _(world: World) -> Answer:
    return world.ask("PUT", "/bucket/d", body=b"x", x_amz_content_sha256=EMPTY)


@case("IncompleteBody")
def _(world: World) -> Answer:
    head = world.signed_head("/bucket/d", {"content-length": "10"})
    return world.raw(head + b"short", end=True)


@case("RequestTimeout")
def _(world: World) -> Answer:
    return world.raw(world.signed_head("/bucket/d", {"content-length": "10"}) + b"short")


@case("EntityTooLarge", ProposedSize=str((5 << 30) + 1), MaxSizeAllowed=str(5 << 30))
def _(world: World) -> Answer:
    return world.raw(world.signed_head("/bucket/d", {"content-length": str((5 << 30) + 1)}))


@case("MissingContentLength")
def _(world: World) -> Answer:
    chunked = world.signed_head("/bucket/d", {"transfer-encoding": "chunked"})
    return world.raw(chunked + b"1\r\nx\r\n0\r\n\r\n")


def framed(world: World, body: bytes, length: int, trailer: str = "") -> Answer:
    """A PUT in aws-chunked framing without signatures."""
    headers = {"content-length": str(len(body)), "x-amz-decoded-content-length": str(length)}
    if trailer:
        headers["x-amz-trailer"] = trailer
    head = world.signed_head("/bucket/d", headers, "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
    return world.raw(head + body)


@case("InvalidChunkSizeError", Chunk="1", BadChunkSize="1")
def _(world: World) -> Answer:
    return framed(world, b"1\r\nx\r\n1\r\ny\r\n0\r\n\r\n", 2)


@case("MalformedTrailerError")
def _(world: World) -> Answer:
    body = b"1\r\nx\r\n0\r\nx-amz-checksum-sha1: AAAA\r\n\r\n"
    return framed(world, body, 1, "x-amz-checksum-crc32")


@case("MaxMessageLengthExceeded", MaxMessageLengthBytes=None)
def _(world: World) -> Answer:
    return world.ask("PUT", "/bucket", "versioning=", "x" * 100_000)


@case("MaxMessageLengthExceeded", MaxMessageLengthBytes=None)
def _(world: World) -> Answer:
    """A document whose length nobody said."""
    headers = {"transfer-encoding": "chunked"}
    signed = world.mine.sign("PUT", "/bucket", "versioning=", headers)
    lines = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (100_000, b"x" * 100_000)
    return world.raw(f"PUT /bucket?versioning= HTTP/1.1\r\n{lines}\r\n".encode() + body)


@case("MetadataTooLarge", Size="2049", MaxSizeAllowed="2048")
def _(world: World) -> Answer:
    return world.ask("PUT", "/bucket/d", x_amz_meta_a="v" * 2048)


@case("RequestHeaderSectionTooLarge", MaxSizeAllowed="65536")
def _(world: World) -> Answer:
    return world.raw(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"v" * 70_000 + b"\r\n\r\n")


@case("BadRequest", additionalMessage=None)
def _(world: World) -> Answer:
    return world.raw(b"GET / HTTP/1.1\r\nno header\r\n\r\n")


@case("BadRequest", "Insufficient information. Origin request header needed.")
def _(world: World) -> Answer:
    return world.bare("OPTIONS", "/bucket/k")


simple("MissingRequestBodyError", "PUT", "/bucket", "versioning=")


# -- headers of objects ---------------------------------------------------------------------------
def put_with(code: str, header: str, value: str, message: str = "", **elements: str | None) -> None:
    case(code, message, **elements)(
        lambda world: world.mine.request("PUT", "/bucket/h", b"x", {header: value})
    )


put_with("AccessControlListNotSupported", "x-amz-acl", "public-read")
put_with(
    "InvalidEncryptionAlgorithmError", "x-amz-server-side-encryption", "DES", ArgumentValue="DES"
)
put_with("InvalidStorageClass", "x-amz-storage-class", "GLACIER", StorageClassRequested="GLACIER")
put_with("InvalidRedirectLocation", "x-amz-website-redirect-location", "nowhere")
put_with(
    *("InvalidTag", "x-amz-tagging", "aws%3Aa=b"),
    "System tags cannot be added/updated by requester",
    TagKey="aws:a",
)
put_with(
    "BadRequest",
    "x-amz-tagging",
    "&".join(f"t{n}=v" for n in range(11)),
    "Object tags cannot be greater than 10",
)
put_with("NotImplemented", "x-amz-write-offset-bytes", "0", Header="x-amz-write-offset-bytes")
put_with(
    *("InvalidRequest", "x-amz-object-lock-legal-hold", "ON"),
    "Bucket is missing ObjectLockConfiguration",
)


# -- buckets --------------------------------------------------------------------------------------
simple("BucketAlreadyOwnedByYou", "PUT", "/bucket", BucketName="bucket")
simple("BucketNotEmpty", "DELETE", "/bucket", BucketName="bucket")


@case("BucketAlreadyExists", BucketName="bucket")
def _(world: World) -> Answer:
    return world.other.request("PUT", "/bucket")


def located(code: str, region: str, message: str = "") -> None:
    body = f"<LocationConstraint>{region}</LocationConstraint>"
    case(code, message, LocationConstraint=region)(
        lambda world: world.ask(
            *("PUT", "/new-bucket", ""),
            f"<CreateBucketConfiguration>{body}</CreateBucketConfiguration>",
        )
    )


located("InvalidLocationConstraint", "nowhere")
located(
    *("IllegalLocationConstraintException", "eu-west-1"),
    "The eu-west-1 location constraint is incompatible for the region specific endpoint this "
    "request was sent to.",
)


@case("InvalidBucketAclWithObjectOwnership")
def _(world: World) -> Answer:
    headers = {"x-amz-acl": "public-read", "x-amz-object-ownership": "BucketOwnerEnforced"}
    return world.mine.request("PUT", "/new-bucket", b"", headers)


def put_document(
    code: str, resource: str, body: str, message: str = "", path: str = "/bucket", **elements: str
) -> None:
    case(code, message, **elements)(lambda world: world.ask("PUT", path, f"{resource}=", body))


LOCK = (
    "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>"
    "</ObjectLockConfiguration>"
)
put_document(
    *("InvalidBucketState", "object-lock", LOCK),
    "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration",
)
put_document(
    *("InvalidBucketState", "versioning"),
    "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>",
    "An Object Lock configuration is present on this bucket, so the versioning state cannot be "
    "changed.",
    "/locked",
)
put_document(
    *("IllegalVersioningConfigurationException", "versioning", "<VersioningConfiguration/>")
)
put_document("MalformedXML", "versioning", "<Versioning")
put_document("MalformedPolicy", "policy", "{")


@case("MalformedACLError")
def _(world: World) -> Answer:
    world.mine.request("PUT", "/shared", b"", {"x-amz-object-ownership": "ObjectWriter"})
    return world.ask("PUT", "/shared", "acl=", "<Acl/>")


@case("MissingSecurityHeader", MissingHeaderName="x-amz-acl")
def _(world: World) -> Answer:
    world.mine.request("PUT", "/shared", b"", {"x-amz-object-ownership": "ObjectWriter"})
    return world.ask("PUT", "/shared", "acl=")


@case("UnresolvableGrantByEmailAddress")
def _(world: World) -> Answer:
    headers = {
        "x-amz-object-ownership": "ObjectWriter",
        "x-amz-grant-read": "emailAddress=a@example.org",
    }
    return world.mine.request("PUT", "/new-bucket", b"", headers)


@case("UnexpectedContent")
def _(world: World) -> Answer:
    return world.ask("PUT", "/bucket", "acl=", "<AccessControlPolicy/>", x_amz_acl="private")


# -- multipart uploads ----------------------------------------------------------------------------
@case("InvalidPart", UploadId=None, PartNumber="1", ETag="other")
def _(world: World) -> Answer:
    name, _ = world.upload("m", 1)
    return world.complete("m", name, [(1, "other")])


@case("InvalidPartOrder")
def _(world: World) -> Answer:
    name, etags = world.upload("m", 1, 1)
    return world.complete("m", name, [(2, etags[1]), (1, etags[0])])


@case(
    "EntityTooSmall",
    ProposedSize="1",
    MinSizeAllowed=str(5 * MIB),
    PartNumber="1",
    ETag=hashlib.md5(b"\0").hexdigest(),
)
def _(world: World) -> Answer:
    name, etags = world.upload("m", 1, 1)
    return world.complete("m", name, [(1, etags[0]), (2, etags[1])])


# -- requests that are no operation ---------------------------------------------------------------
@case("MethodNotAllowed", Method="POST", ResourceType="OBJECT")
def _(world: World) -> Answer:
    answer = world.ask("POST", "/bucket/k")
    assert answer.headers["allow"] == "GET, HEAD, PUT, DELETE"
    return answer


simple_501 = "The operation GetObjectTorrent is not implemented"
case("NotImplemented", simple_501)(lambda world: world.ask("GET", "/bucket/k", "torrent="))


# -- forms ----------------------------------------------------------------------------------------
def post(world: World, body: bytes, kind: str = form.TYPE) -> Answer:
    return world.bare("POST", "/bucket", body, **{"Content-Type": kind})


@case(
    "PreconditionFailed", Condition="Bucket POST must be of the enclosure-type multipart/form-data"
)
def _(world: World) -> Answer:
    return post(world, b"key=k", "text/plain")


@case("MalformedPOSTRequest")
def _(world: World) -> Answer:
    return post(world, b"no form at all")


@case("MaxPostPreDataLengthExceededError")
def _(world: World) -> Answer:
    return post(world, form.encode({"key": "k", "x-ignore-a": "v" * 30_000}))


@case("InvalidPolicyDocument", "Invalid Policy: Policy missing expiration.")
def _(world: World) -> Answer:
    encoded = form.policy(expiration=None)
    return post(world, form.encode({"key": "k", **form.sign_v2(encoded, "MINE", SECRET)}))


def bounded(world: World, least: int, most: int) -> Answer:
    encoded = form.policy({"key": "k"}, ["content-length-range", least, most])
    return post(world, form.encode({"key": "k", **form.sign_v2(encoded, "MINE", SECRET)}))


case("EntityTooLarge", ProposedSize="5", MaxSizeAllowed="4")(lambda world: bounded(world, 0, 4))
case("EntityTooSmall", ProposedSize="5", MinSizeAllowed="6")(lambda world: bounded(world, 6, 9))


# -- not the client's fault -----------------------------------------------------------------------
simple("InternalError", "GET", "/bucket/broken")


@case("SlowDown")
def _(world: World) -> Answer:
    """New keys are looked up, as many as may be."""
    accounts = Slow()

    def ask(access_key: str) -> Answer:
        client = Client(gateway.url, access_key, SECRET)
        try:
            return client.get("/bucket/k")
        finally:
            client.close()

    keys = [f"NEW{number}" for number in range(ACCOUNT_LOOKUPS_PEER_MAX)]
    with Gateway(accounts=accounts) as gateway, ThreadPoolExecutor(len(keys)) as threads:
        asked = [threads.submit(ask, key) for key in keys]
        assert accounts.all_ask.wait(20)
        answer = ask("ONE MORE")
        accounts.answer()
        assert {each.result().status for each in asked} == {403}
    assert int(answer.headers["retry-after"]) >= 1
    return answer


@case("ServiceUnavailable")
def _(world: World) -> Answer:
    """The lease is lost while a commit is under way."""

    async def taken(call: str) -> None:
        if call == "swap" and lost:
            raise LeaseLost("another gateway has it")

    lost: list[bool] = []
    with Gateway(MemoryRegistry(before=taken)) as gateway:
        client = Client(gateway.url, gateway.access_key, gateway.secret_key)
        assert client.request("PUT", "/bucket").status == 200
        lost.append(True)
        answer = client.put("/bucket/k", b"x")
        client.close()
    assert int(answer.headers["retry-after"]) >= 1
    return answer


# -- the test -------------------------------------------------------------------------------------
def test_every_code_has_a_case_or_a_reason() -> None:
    shown = {each.code for each in CASES}
    assert set(ROWS) == set(ERRORS) == shown | set(NEVER)
    assert not shown & set(NEVER)


@pytest.mark.parametrize("each", CASES, ids=lambda each: each.code)
def test_a_code_as_it_is_heard(world: World, each: Case) -> None:
    answer = each.provoke(world)
    status, message = ERRORS[each.code]
    assert answer.status == status, answer.body
    assert answer.headers["x-amz-request-id"]
    if status == 304:
        assert answer.body == b""
        return
    assert answer.headers["content-type"] == "application/xml"
    root = ElementTree.fromstring(answer.body)
    assert (root.tag, root[0].tag, root[1].tag) == ("Error", "Code", "Message")
    found = {child.tag: child.text or "" for child in root}
    assert len(found) == len(root), "an element twice"
    assert found["Code"] == each.code
    assert found["Message"] == (each.message or message)
    assert found["RequestId"] == answer.headers["x-amz-request-id"]
    assert found["HostId"] == answer.headers["x-amz-id-2"]
    assert "Resource" in found
    for name, value in each.elements.items():
        assert found.get(name) if value is None else found.get(name) == value, name


# -- which of two faults is told ------------------------------------------------------------------
HOLD = "<LegalHold><Status>ON</Status></LegalHold>"
WRONG_SUM = {"x_amz_checksum_crc32": "AAAAAA=="}
ORDER: list[tuple[str, Callable[[World], Answer]]] = [
    ("InvalidBucketName", lambda world: world.bare("GET", "/Upper/k")),
    ("InvalidBucketName", lambda world: world.client("NOBODY").get("/Upper/k")),
    ("InvalidAccessKeyId", lambda world: world.client("NOBODY").get("/none")),
    ("SignatureDoesNotMatch", lambda world: world.client("MINE", "wrong").get("/none")),
    ("AccessDenied", lambda world: world.bare("GET", "/none")),
    ("NoSuchBucket", lambda world: world.other.get("/none")),
    ("AccessDenied", lambda world: world.other.get("/bucket/none")),
    ("AccessDenied", lambda world: world.other.get("/bucket/k", "versionId=bad")),
    ("InvalidArgument", lambda world: world.ask("GET", "/bucket/none", "versionId=bad")),
    ("NoSuchKey", lambda world: world.ask("GET", "/bucket/none", if_match="x")),
    ("NoSuchKey", lambda world: world.ask("PUT", "/bucket/none", body=b"x", if_match="x")),
    ("PreconditionFailed", lambda world: world.ask("GET", "/bucket/k", if_match="x", range="9-")),
    ("InvalidRequest", lambda world: world.ask("PUT", "/none/k", x_amz_checksum_crc32="x")),
    ("InvalidDigest", lambda world: world.ask("PUT", "/none/k", content_md5="x")),
    ("NoSuchBucket", lambda world: world.ask("PUT", "/none/k", body=b"x", **WRONG_SUM)),
    (
        "PreconditionFailed",
        lambda world: world.ask("PUT", "/bucket/k", body=b"x", if_none_match="*", **WRONG_SUM),
    ),
    ("NoSuchKey", lambda world: world.ask("GET", "/locked/none", "retention=")),
    ("NoSuchKey", lambda world: world.ask("PUT", "/locked/none", "legal-hold=", HOLD)),
    ("NoSuchKey", lambda world: world.ask("GET", "/bucket/none", "retention=")),
]


@pytest.mark.parametrize(("code", "provoke"), ORDER, ids=range(len(ORDER)))
def test_which_of_two_faults_is_told(
    world: World, code: str, provoke: Callable[[World], Answer]
) -> None:
    assert provoke(world).code == code
