"""Makes a sealed segment cold: its file goes, its index and what is known of it stay.

Guarantees: readers under way finish, for the descriptor they read from is closed by the last of
them; whoever comes after is sent to the network (``cold``). A file whose index was not checked yet
stays, because without the file the index could not be made again. Where the file cannot be removed
the segment is as warm as before.

Whether the network surely has the segment, and that a later start is told so, is the caller's
(``ingot.segments.retention``). Called by the store.
"""

from __future__ import annotations

import asyncio
from typing import Final

from ingot.errors import RequestError, Unavailable
from ingot.messages import Cid
from ingot.segments import format
from ingot.segments.disk import Disk, OpenFiles, unavailable
from ingot.segments.index import SegmentIndex
from ingot.segments.model import COLD, SEALED, Key, SegmentInfo, row_of
from ingot.segments.seal import Sealer

RETIRABLE: Final = (format.BODY, format.UNIT)  # a log segment's turn comes when a unit has it


class Retirer:
    """See the module's head."""

    def __init__(
        self, disk: Disk, segments: SegmentIndex, sealer: Sealer, files: OpenFiles
    ) -> None:
        self._disk = disk
        self._index = segments
        self._sealer = sealer
        self._files = files

    def retirable(self, newest: Cid | None) -> list[SegmentInfo]:
        """What could be retired as far as this directory goes. The segment of the ``newest`` commit
        stays, since a start reads that."""
        index = self._index
        return [
            info
            for info in sorted(index.sealed(), key=lambda info: info.key)
            if info.stream in RETIRABLE
            and info.state == SEALED
            and info.key not in index.absent
            and info.key not in index.growing
            and (info.root is None or info.root != newest)
            and index.audited(info.key)
        ]

    async def retire(self, key: Key, newest: Cid | None, audit: asyncio.Task[None] | None) -> None:
        """RequestError for what must not go, Unavailable where it cannot go now."""
        name = format.file_name(*key)
        if audit is not None and not audit.done():
            raise Unavailable(f"{name}: the indexes of this start are still being checked", 5)
        info = next((info for info in self.retirable(newest) if info.key == key), None)
        if info is None:
            raise RequestError(
                f"{name} is no body segment or unit that is whole, indexed and not the newest"
            )
        self._index.chill(key)
        try:
            await self._disk.call(self._disk.files.unlink, self._disk.path(name))
        except FileNotFoundError:
            pass  # which is what was wanted
        except OSError as error:
            self._index.warm(key)
            raise unavailable(f"{name} cannot be removed", error, self._disk.directory) from error
        self._files.forget(key)
        self._disk.statistics.retired += 1
        self._sealer.on_change(row_of(info.as_state(COLD)))
        try:
            await self._disk.call(self._disk.sync_directory)
        except OSError as error:
            self._disk.problem(
                f"the removal of {name} could not be synced ({error.strerror}); after a power "
                "failure it may be back, and is then used"
            )
