"""The ``ingot`` command: settings in, a gateway or a report out, an exit status to rely on.

Status 0: done, or stopped in an orderly way. 1: something inside went wrong, or ``fsck`` found
damage. 2: a setting, the directory or the database is not right; one line on stderr says which and
what to do. 3: ``fsck`` found only what harms nothing that is kept (``restore`` likewise). 130 and
143: a second SIGINT or SIGTERM ended the drain at once, or SIGINT a command that does not serve.
Nothing here is needed by a host that imports ``ingot.server``.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ingot import dev_network, forge_commands, restore, segments_command
from ingot.config import LOG_LEVELS, Config, default_of, strange_variables
from ingot.credentials import FILE_NAME as CREDENTIALS_FILE
from ingot.errors import ConfigError, IngotError, LeaseLost, Unavailable
from ingot.process import Stopping, check_descriptor, say_ready

if TYPE_CHECKING:
    from ingot.server import Server

COLLECTOR_THRESHOLDS = (20_000, 20, 50)  # objects more than before; collections of the younger ones

EXAMPLES = """\
examples:
  ingot serve                                   serve ./ingot-data on 127.0.0.1:9000, with a private
                                                Postgres; shows a generated key at the first start
  ingot serve --data-dir /var/lib/ingot --postgres postgresql://ingot@db/ingot --listen 0.0.0.0:9000
  ingot serve --listen 127.0.0.1:0              take a free port and print it
  INGOT_ACCESS_KEY=me INGOT_SECRET_KEY=... ingot serve
  ingot serve --forge-dev                       with a Forge network to try things before
  aws --endpoint-url http://127.0.0.1:9000 s3 mb s3://photos
  ingot fsck --data-dir /var/lib/ingot          read and hash everything (the gateway is stopped)
  ingot whoami                                  who this gateway is on the Forge network

"""
SETTINGS = """\
Every option is also INGOT_NAME in the environment (INGOT_DATA_DIR) and a name in the TOML file that
--config gives (data_dir = "/var/lib/ingot"). An option stands before the environment, that before
the file. Sizes may be written 64MiB.
"""


SERVE = """

With --forge-dev a Forge network runs beside it, in a process of its own that ends with it: an
upload service, two nodes and an indexer as 'ingot dev-network' serves them, in DIR/forge-dev. Key
and space are made at the first use. It is for development: keys lie in the clear there, and
everything is on this one disk. Started again on the same directory it has what it had."""

FSCK = """

It reads every frame of every segment file and hashes it, follows the chain of commits, and walks
every bucket from its head to the last byte of its objects and of its open uploads. It says how far
it is every gibibyte. Nothing is repaired. The gateway must be stopped.

exit status:
  0   all is good
  1   damage: something that a bucket keeps is lost, or the log lacks commits, so that it alone
      could not rebuild the store
  2   nothing was checked: a setting, the directory or the database is not right
  3   nothing that is kept is lost, but something is damaged that nothing needs or that can be read
      elsewhere, or the start had something to report"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.command == "version":
        print(version_line())
        return 0
    try:
        if hasattr(arguments, "alone"):  # a command that has no gateway's settings
            return int(arguments.alone(arguments))
        config = Config.load(_given(arguments), file=arguments.config)
        logging.basicConfig(
            level=config.log_level.upper(),
            stream=sys.stderr,
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        )
        for line in strange_variables():
            logging.getLogger("ingot.config").warning("%s", line)
        run: Callable[[Config, argparse.Namespace], int] = arguments.run
        status = run(config, arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # who reads our report had enough of it, as "| head" has
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # what is buffered goes there
        return 1
    except BaseException as error:
        ended = exit_status(error)
        if ended is None:
            raise
        print(f"ingot: {_one_line(error)}", file=sys.stderr)
        return ended


def exit_status(error: BaseException) -> int | None:
    """What an error that ends a command means to the shell; None for one that needs a traceback."""
    if isinstance(error, ConfigError | Unavailable):
        return 2
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, IngotError):
        return 1
    return 1 if isinstance(error, OSError) else None


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ingot",
        description="An S3 gateway over content-addressed storage.",
        epilog=EXAMPLES + SETTINGS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version_line())
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    serve = _command(commands, "serve", "serve S3 until SIGTERM or SIGINT", run_serve, SERVE)
    serve.add_argument("--listen", metavar="HOST:PORT", help="default 127.0.0.1:9000; port 0: any")
    serve.add_argument(
        "--metrics-listen", metavar="HOST:PORT", help="serve /metrics for Prometheus; default: not"
    )
    serve.add_argument("--region", metavar="NAME", help="default us-east-1")
    serve.add_argument("--credentials", metavar="FILE", help="TOML with [[account]] tables")
    serve.add_argument("--tls-certificate", metavar="FILE", help="PEM; serves https")
    serve.add_argument("--tls-key", metavar="FILE", help="PEM, of the certificate")
    for name, metavar, what in (
        ("segment_bytes", "SIZE", "seal a segment at this size"),
        ("log_bytes_max", "SIZE", "all segments; over it 503 SlowDown"),
        ("batch_mutations", "N", "mutations in one commit, at most"),
        ("busy_poll_s", "S", "stay awake so long for a commit, for latency; 0: never"),
        ("node_cache_bytes", "SIZE", "memory for tree nodes"),
        ("summary_cache_bytes", "SIZE", "memory for what listings show, 64 bytes a key"),
        ("connections_max", "N", "clients at one time"),
        ("warm_bytes", "SIZE", "what Forge has confirmed stays here up to this"),
    ):
        option = f"--{name.replace('_', '-')}"
        text = f"{what}; default {default_of(name)}"
        serve.add_argument(option, metavar=metavar, help=text)
    serve.add_argument(
        "--forge-dev",
        action="store_true",
        default=None,
        help="run a Forge network for development in DIR/forge-dev, and ship there: for trying "
        "things, not for data that matters",
    )
    serve.add_argument(
        "--ready-fd",
        metavar="N",
        type=int,
        help="write one line of JSON to this descriptor when requests are accepted, and close it",
    )
    fsck = _command(
        commands, "fsck", "read and hash everything; the status says what was found", run_fsck, FSCK
    )
    fsck.add_argument(
        "--no-bodies",
        action="store_true",
        help="do not put the bytes of objects together; the segments are read all the same",
    )
    segments_command.register(commands, _command)
    restore.register(commands, _command)
    forge_commands.register(commands, _command)
    dev_network.add_command(commands)
    commands.add_parser("version", help="print the version")
    return parser


def _command(
    commands: Any,
    name: str,
    text: str,
    run: Callable[[Config, argparse.Namespace], int],
    details: str = "",
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.{details}",
        epilog=EXAMPLES + SETTINGS if name == "serve" else SETTINGS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data-dir", metavar="DIR", help="default ./ingot-data")
    parser.add_argument(
        "--postgres", metavar="DSN", help="default: a private Postgres in the data directory"
    )
    parser.add_argument("--config", metavar="FILE", help="settings in TOML")
    parser.add_argument("--log-level", choices=LOG_LEVELS, help="default info")
    parser.set_defaults(run=run)
    return parser


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    names = {name for name in vars(arguments) if name in Config.__dataclass_fields__}
    return {name: getattr(arguments, name) for name in names}


def version_line() -> str:
    from ingot import __version__

    return f"ingot {__version__}"


# -- serve ----------------------------------------------------------------------------------------


def run_serve(config: Config, arguments: argparse.Namespace) -> int:
    from ingot.server import loop_factory

    if arguments.ready_fd is not None:
        check_descriptor(arguments.ready_fd)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(config, arguments.ready_fd))


async def _serve(config: Config, ready_fd: int | None) -> int:
    from ingot.server import Server

    stopping = Stopping()
    server = Server(config)
    try:
        start = asyncio.ensure_future(server.start())
        if not await stopping.interrupts(start):
            await start
            _spare_collector()
            _announce(server, config, ready_fd)
            failed = asyncio.ensure_future(server.failed.wait())
            if not await stopping.interrupts(failed):
                await server.stop(config.stop_deadline_s)
                why = server.pipeline.failed or "the gateway failed"
                raise LeaseLost(f"stopped serving: {why}")
        print("ingot: stopping", file=sys.stderr, flush=True)
        await server.stop(config.stop_deadline_s)
    finally:
        stopping.close()
    return 0


def _spare_collector() -> None:
    """Have the garbage collector leave alone what lives as long as the process, and come seldom.

    A request makes and drops hundreds of objects without a cycle among them; at Python's thresholds
    the collector walked the young ones every few requests and found nothing, for 6% of a PUT. This
    process is ours alone: a host that embeds the gateway decides for itself.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


def _announce(server: Server, config: Config, ready_fd: int | None) -> None:
    print(f"ingot: serving {os.path.abspath(config.data_dir)} at {server.url}")
    if server.root is not None and server.root_generated:
        print(f"ingot: access key {server.root.access_key}")
        print(f"ingot: secret key {server.root.secret_key}")
    elif server.root is not None and not (config.credentials or os.environ.get("INGOT_ACCESS_KEY")):
        kept = os.path.join(os.path.abspath(config.data_dir), CREDENTIALS_FILE)
        print(f"ingot: access key {server.root.access_key}, its secret key is in {kept}")
    if server.metrics_url:
        print(f"ingot: metrics at {server.metrics_url}")
    if server.development is not None:
        for text in server.development.about():
            print(f"ingot: {text}")
    sys.stdout.flush()
    if ready_fd is None:
        return
    line: dict[str, Any] = {
        "url": server.url,
        "metrics_url": server.metrics_url or None,
        "pid": os.getpid(),
        "access_key": server.root.access_key if server.root is not None else None,
        "data_dir": os.path.abspath(config.data_dir),
        "region": config.region,
        "version": version_line().split()[1],
    }
    say_ready(ready_fd, line)


# -- fsck -----------------------------------------------------------------------------------------


def run_fsck(config: Config, arguments: argparse.Namespace) -> int:
    from ingot.server import loop_factory

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_fsck(config, read_bodies=not arguments.no_bodies))


async def _fsck(config: Config, read_bodies: bool) -> int:
    """Through a gateway that takes no requests, so that recovery, lease and registry are those of
    a start."""
    from ingot.bucket.fsck import Fsck
    from ingot.datadir import existing
    from ingot.server import Server

    with existing(config.data_dir).held():
        pass  # a gateway that runs is an error here, and nothing to wait for
    server = Server(config)
    await server.start(listening=False)
    try:
        for line in server.report:
            _say(line)
        verified = await server.segments.verify(_say)
        _say(
            f"{verified.segments} segments, {verified.frames} frames, {verified.read} bytes; "
            f"commits {verified.first_commit} to {verified.last_commit}"
            + f"; {verified.cold} cold segments were not read"
            * (verified.cold > 0)
        )
        fsck = Fsck(server.segments, _say, read_bodies, verified)
        found = await fsck.check(server.store.buckets())
        harmless = [*server.report, *found.harmless]
    finally:
        await server.stop()
    verdict = "all that is here is good" if found.cold or verified.cold else "all good"
    if found.damage or harmless:
        verdict = f"{len(found.damage)} damaged, {len(harmless)} that harm nothing"
    if found.cold:
        verdict += f"; cold and not looked at: {found.cold} blocks and what is below them"
    _say(f"{found.buckets} buckets, {found.keys} keys, {found.bytes} bytes of objects: {verdict}")
    return 1 if found.damage else 3 if harmless else 0


def _say(line: str) -> None:
    print(line, flush=True)


def _one_line(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
