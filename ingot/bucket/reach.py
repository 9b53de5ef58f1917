"""What of a head Forge lacks: asked of every bucket that moves once a file shipped with damage.

Walks what the head reaches and the head that Forge has does not, since that was found there before:
the nodes in which the trees differ, the values behind changed keys and all that these link to. So
it costs what was changed, not what the bucket holds. Nodes and records are read, chunks are not.

Called by ``ingot.shipper``, which says of a block whether Forge has it, good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from ingot import mst
from ingot.bucket.config_block import decode_config
from ingot.bucket.liveness import STRUCTURE
from ingot.bucket.nodes import Nodes
from ingot.codec import dag_cbor
from ingot.codec.cid import to_text
from ingot.errors import Corruption, FormatError, IngotError, NotFound, Unavailable, Unfetched
from ingot.limits import COPY_STEP_BLOCKS, REACH_CACHE_BYTES
from ingot.messages import Cid, Head

CHANGES: Final = 256  # of a tree that are looked at in one go

Available = Callable[[Cid], bool]


class Blocks(Protocol):
    """The part of the segment store that is read here."""

    def read_now(self, cid: Cid) -> bytes | None: ...
    async def read(self, cid: Cid) -> bytes: ...
    def prefetch(self, cids: Sequence[Cid]) -> None: ...


class Lacking(IngotError):
    """This block is not in Forge, or nobody can see here what it leads to."""


class Reach:
    """See the module's head."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks

    async def lacking(self, there: Head | None, head: Head, available: Available) -> str | None:
        """The first block of ``head`` that is not ``available`` or cannot be read, in words; None:
        everything that it reaches is, given that everything is that ``there`` reaches. Unfetched
        where the network is needed to tell and is away."""
        walk = _Walk(self._blocks, available)
        before = there or Head(0)
        what = "its configuration"
        try:
            salt = await walk.salt(head.config)
            for name, old, new in (
                ("object", before.objects, head.objects),
                ("upload", before.uploads, head.uploads),
            ):
                what = f"its tree of {name}s"
                after = b""
                while True:
                    changes = await walk.changes(old, new, after, salt)
                    for key, _, value in changes:
                        what = f"{name} {key.decode('utf-8', 'replace')!r}"
                        if value is not None:
                            await walk.all_below(value)
                    what = f"its tree of {name}s"
                    if len(changes) < CHANGES:
                        break
                    after = changes[-1][0]
        except Lacking as error:
            return f"{what} needs {error}"
        return None


class _Walk:
    """One walk. Raises Lacking where it ends early. Also the ``Blocks`` of its nodes: whatever is
    read is asked for first."""

    def __init__(self, blocks: Blocks, available: Available) -> None:
        self._blocks = blocks
        self._available = available
        self._nodes = Nodes(self, REACH_CACHE_BYTES)
        self._steps = 0

    async def salt(self, config: Cid | None) -> bytes:
        return b"" if config is None else decode_config(await self.read(config)).salt

    async def changes(
        self, old: Cid | None, new: Cid | None, after: bytes, salt: bytes
    ) -> list[tuple[bytes, Cid | None, Cid | None]]:
        cache = self._nodes.cache
        return await self._nodes.run(lambda: mst.diff(cache, old, new, CHANGES, after, salt))

    async def all_below(self, value: Cid) -> None:
        reached = [value]
        while reached:
            cid = reached.pop()
            self._steps += 1
            if self._steps % COPY_STEP_BLOCKS == 0:
                await asyncio.sleep(0)
            if not cid.startswith(STRUCTURE):
                self._ask(cid)
                continue
            block = await self.read(cid)
            try:
                reached += dag_cbor.links(block)
            except FormatError as error:
                raise Lacking(f"block {to_text(cid)}, which cannot be read: {error}") from error

    def _ask(self, cid: Cid) -> None:
        if not self._available(cid):
            raise Lacking(f"block {to_text(cid)}, which is in no file that shipped, or damaged")

    # -- ingot.bucket.nodes.Blocks -----------------------------------------------------------------

    def read_now(self, cid: Cid) -> bytes | None:
        self._ask(cid)
        try:
            return self._blocks.read_now(cid)
        except (Corruption, NotFound):
            return None  # ``read`` words it

    async def read(self, cid: Cid) -> bytes:
        self._ask(cid)
        try:
            return await self._blocks.read(cid)
        except Unfetched:
            raise
        except (Corruption, NotFound, Unavailable) as error:
            raise Lacking(f"block {to_text(cid)}, which cannot be read here: {error}") from error

    def prefetch(self, cids: Sequence[Cid]) -> None:
        self._blocks.prefetch(cids)
