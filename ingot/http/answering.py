"""Answers on their way out: a ``Response`` encoded and sent, and what becomes of the body unread.

Guarantees: what is sent is one whole answer, or the start of one after which the connection closes
short; a connection goes on only after the request's body was read to its end, by the handler or
here. ``ingot.http.connection`` adds the taking of requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ingot.errors import IngotError, Unavailable
from ingot.http.body import NoBody, ReceivedBody
from ingot.http.errors import BodyError
from ingot.http.parser import Framing
from ingot.http.wire import Wire
from ingot.http.writer import CLOSE, KEEP_ALIVE
from ingot.limits import SEND_TURN_BYTES
from ingot.messages import Request, Response
from ingot.net.socket import PeerGone, SocketClosed, Stalled

GONE = (PeerGone, SocketClosed, Stalled)


class Answering(Wire):
    """One socket, and the answers that go out on it."""

    __slots__ = ()

    def _failure(self, request: Request, error: BaseException) -> Response:
        shared = self._shared
        shared.counters.handler_errors += 1
        target = ascii(request.target.partition(b"?")[0].decode("latin-1"))
        # Of an error of ours the words say it all; of another, where it came from must be seen.
        where = None if isinstance(error, IngotError) else error
        shared.log.error("%s %s failed: %s", request.method, target, error, exc_info=where)
        response = shared.bad_request("InternalError", "internal error")
        response.close = True
        return response

    def _encoded(
        self, request: Request, framing: Framing, response: Response, keep: bool, now_ms: int
    ) -> tuple[bytes, bytes | AsyncIterator[memoryview | bytes] | None, bool]:
        """What to send first, what is to follow, and whether the connection may go on after it."""
        shared = self._shared
        keep = keep and not response.close
        if not keep:
            connection = CLOSE
        else:
            connection = KEEP_ALIVE if framing.v10 else b""
        head_only = request.method == "HEAD"
        try:
            start, rest = shared.writer.encode(response, head_only, connection, now_ms)
        except ValueError as error:
            failure = self._failure(request, error)
            return *shared.writer.encode(failure, head_only, CLOSE, now_ms), False
        return start, rest, keep

    async def _send_stream(self, request: Request, start: bytes, response: Response) -> bool:
        """Send head and pieces; False when the pieces fell short and the connection must end so."""
        content, length = response.body, response.length
        assert not isinstance(content, bytes) and length is not None  # the writer has seen to it
        left, turn = length, 0
        try:
            async for piece in content:
                left -= len(piece)
                if left < 0:
                    raise ValueError(f"a streamed body exceeds its length of {length}")
                if start:
                    await self._send_pair(start, piece)
                    start = b""
                else:
                    await self._send(piece)
                turn += len(piece)
                if turn >= SEND_TURN_BYTES:
                    turn = 0
                    await asyncio.sleep(0)
            if left:
                raise ValueError(f"a streamed body is {left} bytes shorter than its length")
            if start:
                await self._send(start)
            return True
        except GONE:
            raise
        except Exception as error:
            if start and isinstance(error, Unavailable):  # the body cannot be had now
                failure = self._shared.bad_request("SlowDown", str(error))
                failure.headers.append((b"Retry-After", b"%d" % max(1, error.retry_after_s)))
                failure.close = True
            else:
                failure = self._failure(request, error)
            if start:  # nothing was sent yet: a whole answer is due
                await self._send(self._refusal(failure))
            return False

    async def _close_iterator(self, content: bytes | AsyncIterator[memoryview | bytes]) -> None:
        """Have a source of pieces let go of what it holds now, not when it is collected."""
        close = getattr(content, "aclose", None)
        if close is not None:
            try:
                await close()
            except Exception as error:
                self._shared.log.error("a response body failed to close", exc_info=error)

    def _refusal(self, response: Response) -> bytes:
        assert isinstance(response.body, bytes), "refusals are not streamed"
        shared = self._shared
        start, rest = shared.writer.encode(response, False, CLOSE, shared.clock.now_ms())
        return start if rest is None else start + response.body

    # -- what is left of the body ---------------------------------------------------------------

    def _reusable(self, body: NoBody | ReceivedBody) -> bool:
        """Whether the connection can be used again once the rest of the body is discarded."""
        body.settle()
        left = body.left
        if self._socket.awaited:  # by a task that the handler left behind: it would go on reading
            return False
        if left == 0:
            return True
        if left is None or self._body_broken:
            return False
        # A client that was not told to continue may send the body or not: nobody could know.
        return not self._continue_due and left <= self._shared.limits.drain_bytes_max

    async def _settle(self, body: NoBody | ReceivedBody, keep: bool) -> bool:
        """After the answer: read what is left of the body, or end the connection gently."""
        if keep and body.left != 0:
            keep = await self._discard(body)
        if not keep and not self._socket.awaited:
            await self._linger(body.left)
        return keep

    async def _discard(self, body: NoBody | ReceivedBody) -> bool:
        """Read the rest of a short body, so that the connection can be used again."""
        shared = self._shared
        self._body_deadline = shared.after(shared.limits.drain_deadline_s)
        try:
            # Others may receive into the same memory while this waits: all of it is discarded.
            while await body.readinto(shared.view):
                pass
        except BodyError:
            return False
        return True
