"""HTTP to Forge's services: one session, a bound on everything, errors of ours.

Every call has a time for connecting, for the first byte, between bytes and for the whole, every
answer a largest size, every service (scheme, host and port) a circuit breaker. What may work later
is Unavailable: no connection, a lost or late answer, status 5xx, 408, 425 and 429. Another status
that the caller did not ask for is Refused, under the name ``HTTP 404``. Nothing is repeated here
but a GET on a connection that the service had closed meanwhile: repeating is ``retry``'s, for it
takes a freshly signed invocation.

aiohttp's limit of 8,190 bytes for a line of an answer's head is raised: a receipt in
``X-UCAN-Container`` may be longer (forge.md section 3.3). Redirects, cookies and proxies of the
environment are not followed, kept or used: URLs come from tokens that were signed, by anybody. So
none of them leads to an address that is not the Internet's (that is judged where the socket is
made, whatever a name resolved to), unless the network is one of one's own. Bodies are taken as they
come and not decompressed.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from ingot import __version__, limits
from ingot.codec import multihash
from ingot.errors import Corruption, IngotError, Unavailable
from ingot.forge.blob import BlobRef, Source, new_hasher
from ingot.forge.breaker import Breaker, State
from ingot.forge.errors import BadAnswer, Malformed, Refused, shown
from ingot.limits import FORGE_ERROR_TEXT_MAX, FORGE_PIECE_BYTES, FORGE_URL_CHARS_MAX

_FOR_LATER: Final = (408, 425, 429)  # of the statuses below 500
# What a node may want to see with a blob: nothing that steers the connection, nothing that is shown
# to prove who one is elsewhere, on the same host.
_ADDRESS_HEADER: Final = re.compile("content-(type|md5|disposition|encoding)|cache-control|x-.+")
# IPv6 addresses that lead to the IPv4 address in their last four bytes, on networks that have such.
_TRANSLATED: Final = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """Bounds of calls. ``insecure`` also takes URLs of plain http, and ``private_addresses`` (as
    does ``insecure``) connects to addresses that are not the Internet's: for networks of one's
    own."""

    insecure: bool = False
    private_addresses: bool = False
    connect_s: float = limits.FORGE_CONNECT_S
    answer_s: float = limits.FORGE_ANSWER_S
    stall_s: float = limits.FORGE_STALL_S
    rate_min: float = limits.FORGE_RATE_MIN
    connections_max: int = limits.FORGE_CONNECTIONS_MAX
    breaker_failures: int = limits.FORGE_BREAKER_FAILURES
    breaker_open_s: float = limits.FORGE_BREAKER_OPEN_S


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def text(self) -> str:
        """The start of the body as words, for a message."""
        words = self.body[:FORGE_ERROR_TEXT_MAX].decode(errors="replace")
        return shown(" ".join(words.split())[:200])


class Response:
    """An answer whose body is still to come. Close it, whatever happened."""

    def __init__(
        self, raw: aiohttp.ClientResponse, guard: Callable[[], Any], failures: Callable[[], None]
    ) -> None:
        self.status, self.headers = raw.status, raw.headers
        self._raw, self._guard, self._failed = raw, guard, failures

    @property
    def length(self) -> int | None:
        """What the answer says its body has."""
        return self._raw.content_length

    async def piece(self) -> bytes:
        """The next bytes, in whatever portions they come; empty at the end. Unavailable when the
        connection breaks, stalls or ends before its length."""
        try:
            with self._guard():
                return await self._raw.content.readany()
        except Unavailable:
            self._failed()
            raise

    async def whole(self, bytes_max: int) -> bytes:
        """All of it; BadAnswer when it is longer than that, or compressed."""
        encoding = self.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise BadAnswer(str(self._raw.url), f"an answer in {encoding}, which nobody asked for")
        pieces, room = [], bytes_max
        while piece := await self.piece():
            room -= len(piece)
            if room < 0:
                raise BadAnswer(str(self._raw.url), f"an answer of more than {bytes_max} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    async def start(self) -> Answer:
        """The answer with as much of the body as a message needs."""
        pieces, room = [], FORGE_ERROR_TEXT_MAX
        while room > 0 and (piece := await self.piece()):
            room -= len(piece)
            pieces.append(piece)
        return Answer(self.status, self.headers, b"".join(pieces)[:FORGE_ERROR_TEXT_MAX])

    def close(self) -> None:
        """Gives the connection back if the body was read to its end, else ends it."""
        self._raw.close() if not self._raw.content.is_eof() else self._raw.release()


class Http:
    """The session of one client; belongs to the loop that runs when it is opened."""

    def __init__(
        self, monotonic: Callable[[], float], settings: HttpSettings | None = None
    ) -> None:
        self.settings = settings or HttpSettings()
        self._monotonic = monotonic
        self._session: aiohttp.ClientSession | None = None
        self._breakers: dict[str, Breaker] = {}

    async def open(self) -> None:
        own_network = self.settings.insecure or self.settings.private_addresses
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self.settings.connections_max,
                socket_factory=None if own_network else _socket_to_the_internet,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"ingot/{__version__}", "Accept-Encoding": "identity"},
            auto_decompress=False,
            max_line_size=limits.FORGE_HEADER_BYTES_MAX,
            max_field_size=limits.FORGE_HEADER_BYTES_MAX,
            trust_env=False,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def breakers(self) -> dict[str, State]:
        """How each service that was called stands, by scheme, host and port."""
        now = self._monotonic()
        return {name: breaker.state(now) for name, breaker in self._breakers.items()}

    async def call(
        self,
        method: str,
        url: str,
        *,
        bytes_max: int,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        statuses: tuple[int, ...] = (200,),
    ) -> Answer:
        """A whole answer of at most ``bytes_max`` bytes that has one of these statuses."""
        total_s = self.settings.answer_s + (len(body or b"") + bytes_max) / self.settings.rate_min
        timeout = aiohttp.ClientTimeout(
            total=total_s, sock_connect=self.settings.connect_s, sock_read=self.settings.answer_s
        )
        response = await self._send(method, url, headers or {}, body, timeout)
        try:
            if response.status not in statuses:
                raise _refusal(url, await response.start())
            data = await response.whole(bytes_max)
            return Answer(response.status, response.headers, data)
        finally:
            response.close()

    async def get(self, url: str, headers: Mapping[str, str]) -> Response:
        """The head of an answer of any status, its body still to come and not decompressed. How
        long that may take in all is the caller's to bound."""
        silence_s = self.settings.stall_s
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self.settings.connect_s, sock_read=silence_s
        )
        try:
            async with asyncio.timeout(self.settings.connect_s + silence_s):
                return await self._send("GET", url, headers, None, timeout)
        except TimeoutError as error:
            raise Unavailable(f"GET {origin_of(url)}: no connection became free") from error

    async def put(
        self, url: str, headers: Mapping[str, str], blob: BlobRef, source: Source
    ) -> None:
        """Send a blob as the body of one PUT with its Content-Length, a piece at a time.

        The bytes are digested on their way and the last piece is kept back until the digest is
        known: Corruption, and no whole blob sent, when they are not those of ``blob``.
        """
        if source.length != blob.size:
            raise Corruption(f"the source of {blob}", blob.size, source.length)
        if len(headers) > limits.FORGE_ADDRESS_HEADERS_MAX:
            raise BadAnswer(origin_of(url), f"an address with {len(headers)} headers")
        for name in headers:
            if not _ADDRESS_HEADER.fullmatch(name.lower()):
                raise BadAnswer(origin_of(url), f"an address that wants the header {name}")
        payload = _BlobPayload(blob, source, self.settings.stall_s)
        total_s = self.settings.answer_s + blob.size / self.settings.rate_min
        timeout = aiohttp.ClientTimeout(
            total=total_s, sock_connect=self.settings.connect_s, sock_read=self.settings.answer_s
        )
        try:
            response = await self._send("PUT", url, headers, payload, timeout)
        except Unavailable:
            if payload.fault is not None:
                raise payload.fault from None
            raise
        try:
            if not 200 <= response.status < 300:
                answer = await response.start()
                # Even a refusal may be mended: the next /blob/add brings another address.
                raise Unavailable(f"PUT {origin_of(url)}: HTTP {answer.status} {answer.text()}")
        finally:
            response.close()

    async def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Payload | None,
        limits_s: aiohttp.ClientTimeout,
    ) -> Response:
        assert self._session is not None, "not open"
        origin = origin_of(url, self.settings.insecure)
        breaker = self._breaker(origin)

        def failed() -> None:
            breaker.failed(self._monotonic())

        def guard() -> Any:
            return _as_unavailable(f"{method} {origin}")

        breaker.admit(self._monotonic())
        try:
            with guard():
                raw = await self._session.request(
                    method,
                    url,
                    headers=headers,
                    data=body,
                    timeout=limits_s,
                    allow_redirects=False,
                    skip_auto_headers=() if isinstance(body, bytes) else ("Content-Type",),
                )
        except Unavailable:
            failed()
            raise
        except BaseException:
            breaker.abandoned()
            raise
        if raw.status >= 500 or raw.status == 429:
            failed()
        else:
            breaker.succeeded()
        return Response(raw, guard, failed)

    def _breaker(self, origin: str) -> Breaker:
        breaker = self._breakers.pop(origin, None)
        if breaker is None:
            settings = self.settings
            breaker = Breaker(origin, settings.breaker_failures, settings.breaker_open_s)
            while len(self._breakers) >= limits.FORGE_BREAKERS_MAX:
                del self._breakers[next(iter(self._breakers))]
        self._breakers[origin] = breaker  # last: the one called longest ago goes first
        return breaker


def origin_of(url: str, insecure: bool = True) -> str:
    """Scheme, host and port of a URL that may be called; Malformed when it is no http(s) URL, or
    plain http where that is not allowed."""
    try:
        if len(url) > FORGE_URL_CHARS_MAX or any(ord(letter) <= 32 for letter in url):
            raise ValueError
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Malformed((), "a URL", repr(url[:99])) from None
    schemes = ("https", "http") if insecure else ("https",)
    if parts.scheme not in schemes or not parts.hostname or parts.username or parts.password:
        raise Malformed((), f"a URL of {' or '.join(schemes)}", repr(url[:99]))
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the Internet's, and not of this host or a network near it."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found in _TRANSLATED:
            inner = ipaddress.IPv4Address(found.packed[-4:])
        if inner is not None:
            return inner.is_global and not inner.is_multicast
    return found.is_global and not found.is_multicast


def _socket_to_the_internet(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, where = address
    if not is_public(str(where[0])):
        raise PermissionError(
            errno.EACCES,
            f"{where[0]} is no address of the Internet; in a network of your own, set "
            "forge_private_addresses",
        )
    return socket.socket(family, kind, protocol)


@contextmanager
def _as_unavailable(what: str) -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, OSError, ValueError) as error:  # a TimeoutError is an OSError
        why = shown(" ".join(str(error).split())[:300]) or type(error).__name__
        raise Unavailable(f"{what}: {why}") from error


def _refusal(url: str, answer: Answer) -> IngotError:
    if answer.status >= 500 or answer.status in _FOR_LATER:
        return Unavailable(f"{origin_of(url)}: HTTP {answer.status} {answer.text()}")
    return Refused(f"HTTP {answer.status}", answer.text(), origin_of(url))


class _BlobPayload(Payload):
    """A request's body out of a source, with a time limit on every piece."""

    def __init__(self, blob: BlobRef, source: Source, stall_s: float) -> None:
        super().__init__(source)
        self.fault: IngotError | OSError | None = None
        self._blob, self._source, self._stall_s = blob, source, stall_s

    @property
    def size(self) -> int:
        return self._source.length

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return str(self._blob)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, self._source.length)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        assert content_length == self._source.length
        # aiohttp repeats a PUT on a closed connection, unless its body cannot be read again.
        self._consumed = True
        hasher, at, end = new_hasher(), 0, self._source.length
        while at < end:
            try:
                piece = await self._source.read(at, min(FORGE_PIECE_BYTES, end - at), hasher)
                at += len(piece)
                if at == end:
                    self._check(hasher.digest())
            except (IngotError, OSError) as error:
                self.fault = error
                raise
            async with asyncio.timeout(self._stall_s):
                await writer.write(piece)

    def _check(self, digest: bytes) -> None:
        expected = multihash.split(self._blob.digest)[1]
        if digest != expected:
            where = f"the bytes to be sent as {self._blob}"
            raise Corruption(where, expected.hex(), digest.hex())
