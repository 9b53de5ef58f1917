"""One HTTP/1.1 connection: socket events in, exchanges out.

The state is one of three. *Reading*: heads are taken from what arrives; the reader stays
registered. *Busy*: one exchange is under way (a request, its answer, and the rest of its body), or
a handshake or refusal; bytes are read only when that exchange asks for them and stay in the kernel
otherwise. *Closed*. Exchanges never overlap: the next pipelined request starts when the answer
before it is with the kernel and its body has been read to the end.

Every head is shown to the express lane first, which may take the request and call ``answer`` at
once or in a later turn; the connection is busy until then. Answers without waiting are made inside
the loop's callback, with no Task (``ingot.http.eager``).

Every wait for the peer has a deadline; ``expire`` is called when it has passed: idle connections
close, an unfinished head is answered with 408, and a wait of the exchange raises ``Stalled``.

A request with ``Expect: 100-continue`` hears 100 before an answer after which the connection goes
on, even where there was nothing to wait for: botocore takes a final status that came in its place
for the status of the connection's next response too, and then waits for ever.

Ends: after an answer that says ``Connection: close`` our side is shut and what the peer still sends
is discarded for a while, because closing over unread bytes sends RST, which can overtake the
answer. A body that breaks off is never completed by other means: the connection closes short.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from ingot.http import eager
from ingot.http.answering import GONE, Answering
from ingot.http.body import NO_BODY, ChunkedBody, CountedBody, NoBody, ReceivedBody, peek
from ingot.http.errors import HeadError
from ingot.http.parser import BARE_LF, END_OF_HEAD, Framing
from ingot.http.shared import Shared
from ingot.http.wire import NEVER
from ingot.http.writer import CLOSE, CONTINUE
from ingot.limits import (
    REQUESTS_PER_WAKE,
    SEND_TOGETHER_BYTES_MAX,
    SENDS_TOGETHER_MIN,
)
from ingot.messages import Request, Response
from ingot.net.socket import WOULD_BLOCK, PeerGone, Socket, Stalled
from ingot.net.tls import TlsSocket

_CR: Final = 13
LINE_BYTES_MIN: Final = 4  # "a:" and CRLF, so a short head needs no counting of its lines


class Connection(Answering):
    """Owns one accepted socket until it is closed."""

    __slots__ = (
        "_busy",
        "_head_due",
        "_later",
        "_posted",
        "_scanned",
        "_task",
        "closed",
        "peer",
    )

    def __init__(self, shared: Shared, socket: Socket, peer: str) -> None:
        super().__init__(shared, socket)
        self.peer = peer
        self._busy = False
        self._task: asyncio.Task[None] | None = None  # of an exchange that had to wait
        self._head_due = False  # the deadline is that of a head; it is set once for each
        self._scanned = 0  # of ``pending``, while it holds part of a head
        self._posted = b""  # an answer that goes out at the end of this turn of the loop
        self._later = False  # the express lane's answer comes when nobody takes heads any more
        self.closed = False
        shared.connections[self] = None
        shared.counters.connections_open += 1
        socket.on_readable = self._on_readable

    # -- what the server calls ------------------------------------------------------------------

    def start(self) -> None:
        """Take requests."""
        if isinstance(self._socket, TlsSocket):
            self._run(self._handshake(self._socket))
        else:
            self.deadline = self._shared.after(self._shared.limits.idle_deadline_s)
        if not self._busy:
            self._socket.resume()

    def turn_away(self, kind: str, detail: str) -> None:
        """Answer what is no request, or one too many, and close."""
        self._run(self._refuse(kind, detail))

    def expire(self) -> None:
        """The deadline has passed."""
        if self._busy:
            if not self._fail_wait():
                # Woken in this very turn. It looks at what came first; a flood is no excuse.
                self._shared.loop.call_soon(self._fail_wait)
            return
        self._shared.counters.deadlines_missed += 1
        if self.pending:
            self.turn_away("RequestTimeout", "the request head did not arrive in time")
        else:
            self.close()

    def _fail_wait(self) -> bool:
        if self.deadline > self._shared.now:
            return True  # another wait has begun since
        if not self._socket.fail_waits(Stalled("the peer let a deadline pass")):
            return False
        self.deadline = NEVER
        self._shared.counters.deadlines_missed += 1
        return True

    @property
    def idle(self) -> bool:
        """Whether no request is under way; a part of one may have arrived."""
        return not self._busy

    def drain(self) -> None:
        """Close unless a request was begun; one that has just arrived was."""
        if not self._busy and not self.pending:
            self._on_readable()
            if not self._busy and not self.pending:
                self.close()

    def abort(self) -> asyncio.Task[None] | None:
        """Close at once; the task of the exchange, cancelled, when there is one."""
        task = self._task
        self.close()
        if task is not None:
            task.cancel()
        return task

    def close(self) -> None:
        """Give the socket up. May be repeated."""
        if self.closed:
            return
        self.closed = self._busy = True
        self.deadline = NEVER
        self.pending.clear()
        self._socket.close()
        shared = self._shared
        shared.connections.pop(self, None)
        shared.counters.connections_open -= 1
        if not shared.connections and shared.on_empty is not None:
            shared.on_empty()

    # -- taking heads ---------------------------------------------------------------------------

    def _on_readable(self) -> None:
        socket = self._socket
        if self._busy:
            socket.pause()
            return
        shared = self._shared
        try:
            count = socket.recv_now(shared.head_view)
        except PeerGone:
            self.close()
            return
        if count <= 0:
            if count != WOULD_BLOCK:
                self.close()
            return
        shared.counters.bytes_in += count
        if self.pending:
            self.pending += shared.head_view[:count]
        else:
            # The usual case: one whole head, parsed where it was received.
            end = shared.buffer.find(END_OF_HEAD, 0, count)
            if end > 0 and shared.buffer[0] != _CR:
                end += len(END_OF_HEAD)
                head = bytes(shared.head_view[:end])
                if end < count:
                    self.pending += shared.head_view[end:count]
                self._begin(head)
            else:
                self.pending += shared.head_view[:count]
        if self.pending and not self._busy:
            self._advance()
        if socket.secure and not self._busy and socket.has_pending:
            self._yield_turn()

    def _advance(self) -> None:
        """Begin the exchanges that ``pending`` has heads of, while they end without waiting."""
        pending = self.pending
        for _ in range(REQUESTS_PER_WAKE):
            while pending.startswith(b"\r\n"):  # some clients send one too many after a body
                del pending[:2]
                self._scanned = 0
            end = pending.find(END_OF_HEAD, self._scanned)
            if end < 0:
                self._await_rest_of_head()
                return
            self._scanned = 0
            end += len(END_OF_HEAD)
            head = bytes(pending[:end])
            del pending[:end]
            self._begin(head)
            if self._busy or not pending:
                return
        self._yield_turn()

    def _await_rest_of_head(self) -> None:
        pending, scanned = self.pending, self._scanned
        if len(pending) > self._shared.limits.header_bytes_max:
            self.turn_away("RequestHeaderSectionTooLarge", "the request head is too large")
        elif BARE_LF.search(pending, scanned) is not None:
            # Never a head for us, so there would be nothing to wait for but the deadline.
            self.turn_away("BadRequest", "a line of the request head does not end with CRLF")
        elif pending:
            if not self._head_due:
                self._head_due = True
                self.deadline = self._shared.after(self._shared.limits.header_deadline_s)
            self._scanned = max(0, len(pending) - len(END_OF_HEAD) + 1)

    def _yield_turn(self) -> None:
        """Go on in the loop's next turn; what arrives meanwhile waits in the kernel."""
        self._busy = True
        self._shared.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self.closed:
            return
        self._busy = False
        if self.pending:
            self._advance()
        if not self._busy:
            if self._socket.has_pending:
                self._on_readable()
            self._socket.resume()
        if self._shared.draining and not self._busy and not self.pending:
            self.close()

    def _begin(self, head_bytes: bytes) -> None:
        shared = self._shared
        received_ms = shared.clock.now_ms()
        if (
            shared.express is not None
            and len(head_bytes) <= shared.limits.header_bytes_max
            and (
                len(head_bytes) <= LINE_BYTES_MIN * shared.limits.header_count_max
                or head_bytes.count(b"\r\n") <= shared.limits.header_count_max + 2
            )
        ):
            self._busy = True
            deadline, self.deadline = self.deadline, NEVER
            if shared.express(head_bytes, self, received_ms):
                shared.counters.requests += 1
                self._later = self._busy
                return
            self._busy, self.deadline = False, deadline
        if shared.may_begin():
            self._begin_generally(head_bytes, received_ms)
        else:
            self._busy, self.deadline = True, NEVER
            shared.hold(self, head_bytes, received_ms)

    def begin_held(self, head: bytes, received_ms: int) -> None:
        """Begin the request that ``Shared`` held back."""
        if not self.closed:
            self._begin_generally(head, received_ms)
            if not self._busy:
                self._go_on()

    def _begin_generally(self, head_bytes: bytes, received_ms: int) -> None:
        shared = self._shared
        try:
            request, framing = shared.parser.parse(head_bytes, self.peer, self._socket.secure)
        except HeadError as error:
            self.turn_away(error.kind, error.detail)
            return
        shared.counters.requests += 1
        body: NoBody | ReceivedBody = NO_BODY
        length = framing.length
        if length != 0:
            body = ChunkedBody(self) if length is None else CountedBody(self, length)
            request.body = body
            self._expect_body(framing.expects and not self.pending)
        request.received_ms = received_ms
        self._run(self._exchange(request, framing, body))

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._busy = True
        self.deadline = NEVER
        try:
            self._task = eager.start(coroutine, self._shared.loop)
        except BaseException:
            self.close()
            raise

    # -- one exchange ---------------------------------------------------------------------------

    async def _exchange(
        self, request: Request, framing: Framing, body: NoBody | ReceivedBody
    ) -> None:
        shared = self._shared
        keep = False
        try:
            try:
                response = await shared.handler(request)
            except Exception as error:
                response = self._failure(request, error)
            except asyncio.CancelledError as error:
                if self._cancelled():
                    raise
                response = self._failure(request, error)
            keep = framing.persistent and not shared.draining
            if body is not NO_BODY:
                keep = keep and self._reusable(body)
            uncontinued = framing.expects and (body is NO_BODY or not self._continued)
            if uncontinued:
                keep = keep and response.status < 400
            try:
                # An answer made at once bears the time of its request.
                at_once = self._task is None
                now_ms = request.received_ms if at_once else shared.clock.now_ms()
                start, rest, keep = self._encoded(request, framing, response, keep, now_ms)
                if uncontinued and keep:
                    start = CONTINUE + start
                if rest is None and keep and self._post(start, body):
                    return
                if rest is None:
                    sent = self._socket.send_now(start)
                    shared.counters.bytes_out += sent
                    if sent != len(start):
                        await self._send(memoryview(start)[sent:])
                elif isinstance(rest, bytes):
                    await self._send_pair(start, rest)
                else:
                    keep = await self._send_stream(request, start, response) and keep
            finally:
                if not isinstance(response.body, bytes):
                    await self._close_iterator(response.body)
            if body is not NO_BODY or not keep:
                keep = await self._settle(body, keep)
        except GONE:
            keep = False  # nobody is left to answer
        finally:
            body.detach()
            if not self._posted:
                self._finish(keep)

    def peek(self, length: int) -> bytes | None:
        """The body of a request that the express lane looks at, if it has arrived."""
        return peek(self, length)

    def consume(self, length: int) -> None:
        """The express lane has taken the body."""
        del self.pending[:length]

    def answer(self, response: Response) -> None:
        """The express lane's answer to a request whose body, if any, has been taken."""
        shared = self._shared
        shared.counters.express += 1
        if self.closed:
            return
        keep = not shared.draining
        connection = b"" if keep else CLOSE
        start, rest = shared.writer.encode(response, False, connection, shared.clock.now_ms())
        if isinstance(rest, bytes):
            start += rest
        if not keep:
            self._run(self._send_last(start))
        elif not self._post(start, NO_BODY):
            self._posted = start
            self.send_posted()

    def _post(self, answer: bytes, body: NoBody | ReceivedBody) -> bool:
        """Have an answer after which nothing is left to do sent with those of other connections.

        A client that sleeps is woken by the first answer it gets: one wake-up for many answers
        costs both sides less than one for each.
        """
        shared = self._shared
        if (
            len(shared.connections) < SENDS_TOGETHER_MIN
            or len(answer) > SEND_TOGETHER_BYTES_MAX
            or self.pending
            or self._socket.secure
            or self.closed
            or (body is not NO_BODY and body.left != 0)
        ):
            return False
        self._posted = answer
        shared.post(self)
        return True

    def send_posted(self) -> None:
        """Send what was posted; called by ``Shared`` before the loop waits again."""
        answer, self._posted = self._posted, b""
        if self.closed:
            return
        try:
            sent = self._socket.send_now(answer)
        except GONE:
            self.close()
            return
        self._shared.counters.bytes_out += sent
        if sent == len(answer):
            self._finish(True)
        else:
            self._run(self._send_rest(memoryview(answer)[sent:]))

    async def _send_rest(self, rest: memoryview) -> None:
        keep = False
        try:
            await self._send(rest)
            keep = True
        except GONE:
            pass  # nobody is left to answer
        finally:
            self._finish(keep)

    def _finish(self, keep: bool) -> None:
        if not keep or self._shared.draining:
            self.close()
            return
        self._busy = self._head_due = False
        self.deadline = self._shared.after(self._shared.limits.idle_deadline_s)
        if self._task is not None or self._later or not self._socket.reading:
            self._task = None
            self._later = False
            if self.pending or self._socket.has_pending:
                self._yield_turn()
            else:
                self._socket.resume()

    def _cancelled(self) -> bool:
        """Whether we are to stop, as opposed to a handler that awaited something cancelled."""
        return self.closed or (self._task is not None and self._task.cancelling() > 0)

    # -- refusing, ending -----------------------------------------------------------------------

    async def _handshake(self, socket: TlsSocket) -> None:
        done = False
        self.deadline = self._shared.after(self._shared.limits.handshake_deadline_s)
        try:
            await socket.handshake()
            done = True
        except GONE as error:
            self._shared.log.debug("TLS handshake with %s failed: %s", self.peer, error)
        finally:
            self._finish(done)

    async def _refuse(self, kind: str, detail: str) -> None:
        self._shared.counters.bad_requests += 1
        response = self._shared.bad_request(kind, detail)
        if kind == "SlowDown":
            response.headers.append((b"Retry-After", b"1"))
        await self._send_last(self._refusal(response))

    async def _send_last(self, answer: bytes) -> None:
        """An answer after which the connection ends, gently."""
        try:
            await self._send(answer)
            await self._linger(None)
        except GONE:
            pass  # nobody is left to answer
        finally:
            self.close()
