"""``ingot dev-network``: a whole Forge network on this machine, to develop and try things with."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from typing import Any, Final

from ingot.limits import NETWORK_NODES_MAX
from ingot.process import Stopping, check_descriptor, say_ready

DETAILS: Final = """\
It is an upload service, storage nodes and an indexing service, each at an address of its own, in
one process. They speak the protocol of the real ones and judge requests as strictly, over plain
HTTP. It prints their addresses and DIDs, for any client of Forge, and serves until SIGTERM or
SIGINT. The settings that point a gateway at it are in DIR/gateway.toml, ready for --config.

Everything is in --dir: the keys, the ports and all that is stored. Started again on the same
directory, after whatever end, it has the same identities, addresses and contents. There is no
security about it: keys lie in the clear, and any space may store here unless --space says which.
"""

EPILOG: Final = """\
examples:
  ingot dev-network                             ./ingot-forge: two nodes and an indexer
  ingot serve --config ingot-forge/gateway.toml a gateway that is pointed at it
  ingot dev-network --dir /tmp/forge --nodes 3  one more node
  ingot dev-network --no-indexer                indexes cannot be published
  ingot dev-network --space did:key:z6Mk...     a network that refuses other spaces
  curl URL/.well-known/did.json                 who a service is

Stopping and starting a network tries out what a client does while it is away. Faults on demand are
for tests: ingot.testing.Network, in the test's own process.
"""


def add_command(commands: Any) -> None:
    """``dev-network`` among the subcommands of ``ingot``."""
    text = "serve a Forge network for development"
    parser: argparse.ArgumentParser = commands.add_parser(
        "dev-network",
        help=text,
        description=f"{text[0].upper()}{text[1:]}.\n\n{DETAILS}",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dir", metavar="DIR", default="ingot-forge", help="default ./ingot-forge")
    parser.add_argument(
        "--nodes", metavar="N", type=int, default=2, help=f"default 2, at most {NETWORK_NODES_MAX}"
    )
    parser.add_argument("--no-indexer", action="store_true", help="without an indexing service")
    parser.add_argument(
        "--generation",
        choices=("seed", "next"),
        default="seed",
        help="whether /ucan/conclude answers with the accept receipts (next), or they are to be"
        " asked for (seed, the default)",
    )
    parser.add_argument("--host", metavar="HOST", default="127.0.0.1", help="default 127.0.0.1")
    parser.add_argument(
        "--space",
        metavar="DID",
        action="append",
        default=[],
        help="let this space store here, and only those that were ever named; may be repeated",
    )
    parser.add_argument(
        "--ready-fd",
        metavar="N",
        type=int,
        help="write one line of JSON to this descriptor when requests are accepted, and close it",
    )
    parser.add_argument(
        "--until-closed",
        metavar="N",
        type=int,
        help="also end when the other end of this pipe is closed, as when its holder was killed",
    )
    parser.set_defaults(alone=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal; the exit status. ConfigError for what is not right."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    if arguments.ready_fd is not None:
        check_descriptor(arguments.ready_fd)
    if arguments.until_closed is not None:
        check_descriptor(arguments.until_closed, "--until-closed")
    return asyncio.run(_serve(arguments))


async def _serve(arguments: argparse.Namespace) -> int:
    from ingot.forge.network.network import SETTINGS, Network

    stopping = Stopping()
    if arguments.until_closed is not None:
        stopping.when_closed(arguments.until_closed)
    try:
        network = Network(
            arguments.dir,
            nodes=arguments.nodes,
            indexer=not arguments.no_indexer,
            generation=arguments.generation,
            open=not arguments.space,
            host=arguments.host,
        )
        async with network:
            for space in arguments.space:
                await network.provision(space)
            described = network.describe()
            print(f"ingot: a Forge network in {described['directory']}")
            for service in network.services:
                print(f"{service.key:<9} {service.url}  {service.did}")
            if network.indexer is None:
                print("indexer   none")
            print(f"ingot: point a gateway at it with --config {network.directory / SETTINGS}")
            sys.stdout.flush()
            if arguments.ready_fd is not None:
                say_ready(arguments.ready_fd, {"pid": os.getpid(), **described})
            await stopping.asked()
            print("ingot: stopping", file=sys.stderr, flush=True)
    finally:
        stopping.close()
    return 0
