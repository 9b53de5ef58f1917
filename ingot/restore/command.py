"""The command itself: its options, its help, and which way is gone."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from typing import Any

from ingot.config import Config
from ingot.errors import ConfigError

RESTORE = """

--from-segments: for a database that was lost: it is empty, was never used, or lost its heads. The
segment files of --data-dir are opened as at a start; the commits are followed from the newest back
to a checkpoint, each found by its hash; the heads of all buckets are written in one transaction.
Then 'ingot serve' starts as ever. Afterwards every bucket is walked, so that the report says what
it holds and what of it cannot be read (its bytes are for 'ingot fsck' to read). The gateway must be
stopped. It changes no registry that holds heads: to rebuild one all the same, drop its schema first
(DROP SCHEMA ingot CASCADE; of a private Postgres move DIR/postgres away). Where DIR/STORE is lost
it is made again.

--from-forge: for a data directory that was lost, and its database with it. Everything is in the
space of the Forge network: give the forge settings of the gateway that was lost, put its identity
back (a copy of DIR/forge, or 'ingot space import space.pem'), an empty data directory and an empty
database. The newest commit that the space names is taken; indexes are fetched, bodies and records
stay in the network and are read from there. What was not shipped when the disk was lost is lost:
the report says up to when. An older gateway of this store that still runs stops shipping.
A commit says by its hash what it holds, and not who made it: whoever may add blobs and uploads to
the space could name one that is forged. So all else that the space names or holds of the store is
reported as damage; look with --dry-run, and choose with --root CID.

exit status:
  0   restored, and all is good
  1   damage: something is lost, the lines before say what; all else is restored. Or nothing was
      restored because the segments contradict themselves
  2   nothing was restored: a setting, the directory or the database is not right
  3   restored; something was reported that costs nothing that is kept"""


def register(commands: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command; ``add`` makes one, with the options that all have."""
    parser = add(commands, "restore", "rebuild a store that was lost", run_restore, RESTORE)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--from-segments",
        action="store_true",
        help="the database is lost: from the segment files in the data directory",
    )
    source.add_argument(
        "--from-forge",
        action="store_true",
        help="the data directory and the database are lost: from the space of the Forge network",
    )
    parser.add_argument(
        "--store",
        metavar="ID",
        help="which store, where the space holds several (with --from-forge)",
    )
    parser.add_argument(
        "--root",
        metavar="CID",
        help="the commit to restore, where it is not the newest one named (with --from-forge)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="report what would be restored, change nothing"
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="follow the commits to the first, and see that the checkpoint agrees with them",
    )


def run_restore(config: Config, arguments: argparse.Namespace) -> int:
    from ingot.restore.from_forge import FromForge
    from ingot.restore.from_segments import FromSegments
    from ingot.server import loop_factory

    dry_run, verify = arguments.dry_run, arguments.verify
    if arguments.store is not None and not arguments.from_forge:
        raise ConfigError("--store goes with --from-forge: segments are of one store")
    if arguments.root is not None and not arguments.from_forge:
        raise ConfigError("--root goes with --from-forge: what segments hold is followed whole")
    restore: FromForge | FromSegments
    if arguments.from_forge:
        restore = FromForge(config, dry_run, verify, arguments.store, _say, arguments.root)
    else:
        restore = FromSegments(config, dry_run, verify, _say)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(restore.run())


def _say(line: str) -> None:
    print(line, flush=True)
