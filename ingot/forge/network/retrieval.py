"""A node's bytes, for an invocation in the header ``X-UCAN-Container``.

    GET or POST /piece/CID    one /content/retrieve (of a space) or /blob/retrieve (of the node)

    200 or 206, the bytes, the receipt in the header           done
    404, 416, 500, a text, the error receipt in the header     a failure that the command declares
    200, no bytes, the error receipt in the header             the invocation is not valid
    500, a text, no header                                     not exactly one invocation for us

A space is given only what was accepted for it. Receipts of retrievals are not kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aiohttp import web

from ingot.codec import cid, multihash
from ingot.errors import FormatError
from ingot.forge import container, values
from ingot.forge.container import HEADER
from ingot.forge.errors import Malformed
from ingot.forge.network.arguments import Failure, digest_of
from ingot.forge.network.faults import Applied, FlippedBit, ForgedReceipt, MissingReceipt, Truncated
from ingot.forge.network.records import Acceptance, Allocation, held
from ingot.forge.network.service import Call, Handler
from ingot.forge.token import Token

if TYPE_CHECKING:
    from ingot.forge.network.node import Node

_STATUS = {"NotFound": 404, "NotAllocated": 404, "RangeNotSatisfiable": 416}


class Retrieval:
    """What ``node`` serves of its blobs."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.commands: dict[str, Handler] = {
            "/content/retrieve": self._content,
            "/blob/retrieve": self._blob,
        }

    async def serve(self, request: web.Request, faults: Applied) -> web.StreamResponse:
        try:
            asked = container.from_header(request.headers[HEADER])
        except KeyError:
            return web.Response(status=500, text=f"no header {HEADER}")
        except FormatError as error:
            return web.Response(status=500, text=str(error))
        ours = [one for one in asked.invocations.values() if one.executor == self._node.did]
        if len(ours) != 1:
            return web.Response(status=500, text=f"{len(ours)} invocations for {self._node.did}")
        self._node.requests[ours[0].command] += 1
        applied = self._node.faults.take(ours[0].command)
        await applied.before()
        call = Call(ours[0], asked, applied)
        receipt = await self._node.execute(call, self.commands)
        if applied.get(ForgedReceipt):
            receipt = self._node.forge(receipt)
        headers = {"Vary": HEADER}
        if not applied.get(MissingReceipt):
            headers[HEADER] = container.to_header([receipt])
        if "error" in receipt.out:
            name = values.get(receipt.out, str, "error", "name") or ""
            text = values.get(receipt.out, str, "error", "message") or ""
            status = _STATUS.get(name, 200)
            if name == "HandlerExecutionError":
                status, name = 500, "InternalServerError"
            if status == 200:
                return web.Response(headers=headers)
            return web.Response(
                status=status, text=text, headers={**headers, "X-Piri-Error-Name": name}
            )
        digest, start, end = self._asked(call)
        if self._digest(request) != digest:
            return web.Response(status=404, text="another blob than the path's", headers=headers)
        for each in (applied, faults):
            each.after()  # before the first byte of what is to get lost
        return await self._send(request, faults, headers, digest, start, end)

    def _digest(self, request: web.Request) -> bytes:
        try:
            return multihash.of_cid(cid.from_text(request.match_info["cid"]))
        except FormatError:
            return b""

    async def _send(
        self,
        request: web.Request,
        faults: Applied,
        headers: dict[str, str],
        digest: bytes,
        start: int,
        end: int,
    ) -> web.StreamResponse:
        size = self._node.blobs.size(digest) or 0
        length, truncated = end + 1 - start, faults.get(Truncated)
        left = max(0, length - truncated.missing) if truncated else length
        response = web.StreamResponse(status=200 if length == size else 206, headers=headers)
        response.content_type = "application/octet-stream"
        response.content_length = left if truncated and not truncated.cut else length
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        response.headers["ETag"] = f'"{multihash.to_text(digest)}"'
        if response.status == 206:
            response.headers["Content-Range"] = f"bytes {start}-{end}/{size}"
        await response.prepare(request)
        wrong = length // 2 if faults.get(FlippedBit) else -1
        async for piece in self._node.blobs.read(digest, start, end):
            if 0 <= wrong < len(piece):
                piece = piece[:wrong] + bytes([piece[wrong] ^ 1]) + piece[wrong + 1 :]
            wrong -= len(piece)
            await response.write(piece[:left])
            left -= len(piece)
            if left <= 0:
                break
        if truncated and truncated.cut and request.transport is not None:
            request.transport.close()
            return response
        await response.write_eof()
        return response

    # -- the two commands, as far as they are not bytes ---------------------------------------

    async def _content(self, call: Call) -> object:
        digest, start, end = self._asked(call)
        size = self._node.blobs.size(digest)
        if size is None:
            raise Failure("NotFound", f"no blob {multihash.to_text(digest)}")
        key = held(call.subject, digest)
        if not await self._node.state.get(Allocation, key) or not await self._node.state.get(
            Acceptance, key
        ):
            raise Failure("NotAllocated", f"no such blob in {call.subject}")
        if end >= size:
            raise Failure("RangeNotSatisfiable", f"bytes {start} to {end} of {size}")
        return {}

    async def _blob(self, call: Call) -> object:
        digest, _, _ = self._asked(call)
        if self._node.blobs.size(digest) is None:
            raise Failure("NotFound", f"no blob {multihash.to_text(digest)}")
        return {}

    def _asked(self, call: Call) -> tuple[bytes, int, int]:
        """(multihash, first byte, last byte)."""
        digest = digest_of(call.arguments, "blob", "digest")
        if call.invocation.command == "/blob/retrieve":
            return digest, 0, (self._node.blobs.size(digest) or 0) - 1
        span = values.take(call.arguments, list, "range")
        if len(span) != 2:
            raise Malformed(("range",), "the first and the last byte", repr(span)[:99])
        start, end = (values.take(call.arguments, int, "range", at) for at in (0, 1))
        if not 0 <= start <= end:
            raise Malformed(("range",), "a last byte behind the first", f"{start}, {end}")
        return digest, start, end


def header_of(tokens: Iterable[Token]) -> dict[str, str]:
    """The request header that carries an invocation and its proofs."""
    return {HEADER: container.to_header(tokens)}
