"""Request documents: a small body read whole and checked against every digest the client named.

Objects are hashed by the ingest while they are stored. A document is hashed here, once it is there,
with the digests its headers ask for. One that may be long is parsed in turns with other requests.
Called by the operations that take XML.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TypeVar, cast

from ingot._speedups import digest
from ingot.body.checksums import SIZES, one_shot
from ingot.limits import XML_BYTES_MAX
from ingot.messages import Body
from ingot.s3.call import Call
from ingot.s3.errors import S3Error
from ingot.s3.payload import VerifiedBody
from ingot.s3.xml import ELEMENTS_MAX, Element, parse_in_steps

T = TypeVar("T")


async def read_document(
    call: Call, limit: int = XML_BYTES_MAX, checksum_required: bool = False
) -> bytes:
    """The body of the request; b"" where it has none. MaxMessageLengthExceeded over ``limit``."""
    if checksum_required:
        require_checksum(call)
    body = VerifiedBody(call.request, call.authenticated)
    if body.length is not None and body.length > limit:
        raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=str(limit))
    data = await body.read(limit)
    sha256, md5 = digest.sha256_md5(data)
    sums = {name: one_shot(name, data) for name in body.algorithms}
    body.check(Body(len(data), md5, sha256, checksums=sums))
    return data


async def parse_in_turns(body: bytes, root: str, elements_max: int = ELEMENTS_MAX) -> Element:
    """As ``xml.parse``, for documents that may be long."""
    return await in_turns(parse_in_steps(body, root, elements_max))


async def in_turns(steps: Generator[None, None, T]) -> T:
    """What comes of steps between which others have their turn."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("T", end.value)
        await asyncio.sleep(0)


def require_checksum(call: Call) -> None:
    index = call.request.index
    if b"content-md5" in index or any(b"x-amz-checksum-" + n.encode() in index for n in SIZES):
        return
    raise S3Error(
        "InvalidRequest",
        "Missing required header for this request: Content-MD5 OR x-amz-checksum-*",
    )
