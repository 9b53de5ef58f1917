"""``ingot whoami`` and ``ingot space``: a gateway's identity on the Forge network, from the shell.

They read and write ``DATA_DIR/forge``. Only ``space provision`` and ``space unname`` ask anybody:
the upload service. A gateway may run meanwhile, which reads its identity at its start.
Registered by ``cli.build_parser``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ingot.clock import SystemClock
from ingot.config import Config
from ingot.datadir import DataDirectory
from ingot.errors import ConfigError

if TYPE_CHECKING:
    from ingot.forge.client import ForgeSettings
    from ingot.forge.identity import Identity
    from ingot.forge.keystore import KeyStore
    from ingot.forge.token import Delegation

Run = Callable[[Config, argparse.Namespace], int]

NEEDED = (
    *("/blob/add", "/blob/list", "/blob/remove", "/index/add", "/content/retrieve"),
    *("/upload/add", "/upload/list", "/upload/shard/list", "/upload/remove"),
)

WHOAMI = """

The agent's key is made at the first call and kept in DIR/forge/agent.pem, or is the one of
forge_key. Whoever owns a space delegates to the DID shown; take the delegation in with
'ingot space import FILE'."""
CREATE = """

It makes the space's key, keeps it in DIR/forge/space.pem and lets the agent do everything with the
space. Keep a copy of that file: who has it owns all that is stored. Before bytes are taken, the
upload service has to provide for the space: see 'ingot space provision --help'."""
PROVISION = """

A service stores nothing for a space before it provides for it (its refusal is InsufficientStorage).
Nothing is changed where it does already. Else it is asked in the name of an account that it knows,
with a plan, and that lets this agent do so:

  ingot whoami                     the agent's DID
  (with the service's own tools)   sign in to the account, and delegate /provider/add to that DID
  ingot space import FILE          take in what the account delegated
  ingot space provision            once; a gateway that runs goes on by itself

Or give the space's DID ('ingot space show') to whoever runs the service. The network is the one of
the settings forge_upload_did and forge_upload_url.

exit status: 0 it is provided for; 2 it is not, and why; 1 the service could not be understood"""
UNNAME = """

For a root that does not belong there: a commit of this store that was forged, by which its gateway
stopped shipping (its log names the CID). A root names what a restore begins with, so never remove
the one of a gateway that runs. No blob is removed. First take the right to add uploads away from
whoever named it, or it comes back."""
IMPORT = """

FILE holds delegations to this agent: a container in any of its forms, or one delegation by itself.
It may also be a space's private key (PEM, or the text that starts with MgC); the space is then as
if it had been made here."""


def register(commands: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands; ``add`` makes one, with the options that all have."""
    add(commands, "whoami", "show the agent's DID and what it may do", run_whoami, WHOAMI)
    space = commands.add_parser("space", help="make, import or show the space of the Forge network")
    actions = space.add_subparsers(dest="action", metavar="ACTION", required=True)
    add(actions, "create", "make a space of one's own", run_create, CREATE)
    imported = add(actions, "import", "take in delegations or a space's key", run_import, IMPORT)
    imported.add_argument("file", metavar="FILE")
    provision = add(
        actions, "provision", "have the service store for the space", run_provision, PROVISION
    )
    provision.add_argument(
        "--account", metavar="ACCOUNT", help="e-mail address or DID; default: the only one"
    )
    unname = add(actions, "unname", "have the space name a root no more", run_unname, UNNAME)
    unname.add_argument("root", metavar="CID")
    add(actions, "show", "show the space that a gateway would use", run_show)


def run_whoami(config: Config, arguments: argparse.Namespace) -> int:
    store = _store(config)
    print(f"agent  {store.agent().did}  ({store.agent_path})")
    owned = store.space_key()
    if owned is not None:
        print(f"space  {owned.did}  (its key is {store.space_path})")
    held = store.delegations()
    if held:
        print(f"rights ({store.delegations_path})")
    for one in sorted(held, key=lambda each: (each.audience, each.command)):
        print(_line(one))
    if not held:
        print("nothing is delegated to it: use 'ingot space create' or 'ingot space import FILE'")
    return 0


def run_create(config: Config, arguments: argparse.Namespace) -> int:
    store = _store(config)
    made = store.create_space()
    print(f"space  {made.did}  (its key is {store.space_path}: keep a copy in a safe place)")
    print(f"agent  {store.agent().did} may do everything with it")
    print(
        "before bytes are taken the service has to provide for it: 'ingot space provision --help'"
    )
    return 0


def run_import(config: Config, arguments: argparse.Namespace) -> int:
    store = _store(config)
    taken = store.import_file(arguments.file, int(time.time()))
    for one in taken:
        print(_line(one))
    if not taken:
        print("all of it was there already")
    return 0


def run_unname(config: Config, arguments: argparse.Namespace) -> int:
    from ingot.codec.cid import from_text
    from ingot.errors import FormatError

    settings, store = _settings(config), _existing(config)
    try:
        root = bytes(from_text(arguments.root))
    except FormatError as error:
        raise ConfigError(f"{arguments.root}: no CID: {error}") from error
    who = store.identity(int(time.time()), config.forge_space)
    return asyncio.run(_unname(settings, who, root))


async def _unname(settings: ForgeSettings, who: Identity, root: bytes) -> int:
    from ingot.codec.cid import to_text
    from ingot.forge.client import ForgeClient

    async with ForgeClient(settings, who, SystemClock()) as client:
        if root not in [one.root for one in await client.uploads.named()]:
            raise ConfigError(f"{who.space} does not name {to_text(root)}")
        await client.uploads.remove(root)
        print(f"{who.space} names {to_text(root)} no more")
        return 0


def run_provision(config: Config, arguments: argparse.Namespace) -> int:
    settings = _settings(config)
    store, now = _existing(config), int(time.time())
    who = store.identity(now, config.forge_space)
    return asyncio.run(_provision(settings, who, store.accounts(now), arguments.account))


async def _provision(
    settings: ForgeSettings, who: Identity, accounts: list[str], wanted: str | None
) -> int:
    from ingot.forge.client import ForgeClient

    service = settings.upload.did
    async with ForgeClient(settings, who, SystemClock()) as client:
        if service in await client.space.providers():
            print(f"{service} provides for {who.space} already")
            return 0
        account = _account(wanted, accounts)
        await client.space.provision(account)
        print(f"{service} provides for {who.space}, on behalf of {account}")
        return 0


def _account(wanted: str | None, held: list[str]) -> str:
    from ingot.forge import did
    from ingot.forge.errors import Malformed

    if wanted is None and len(held) == 1:
        return held[0]
    if wanted is None:
        if held:
            raise ConfigError(f"several accounts, choose with --account: {', '.join(held)}")
        raise ConfigError(
            "no account lets this agent act for it: 'ingot space provision --help' says how it "
            "comes to that"
        )
    try:
        return did.check(wanted) if wanted.startswith("did:") else did.of_email(wanted)
    except Malformed as error:
        raise ConfigError(f"--account {wanted}: {error}") from error


def run_show(config: Config, arguments: argparse.Namespace) -> int:
    store, now = _existing(config), int(time.time())
    who = store.identity(now, config.forge_space)
    owned = store.space_key()
    ours = owned is not None and owned.did == who.space
    print(f"space  {who.space}" + (f"  (its key is {store.space_path})" if ours else ""))
    missing = []
    for command in NEEDED:
        try:
            who.proofs(command, now)
        except ConfigError:
            missing.append(command)
    print(f"not allowed: {', '.join(missing)}" if missing else "allowed: all that a gateway needs")
    return 1 if missing else 0


def _settings(config: Config) -> ForgeSettings:
    settings = config.forge_settings()
    if settings is None:
        raise ConfigError(
            "no Forge network is named: give forge_upload_did and forge_upload_url, as in the "
            "gateway's own settings"
        )
    return settings


def _store(config: Config) -> KeyStore:
    from ingot.forge.keystore import KeyStore

    DataDirectory(config.data_dir).prepare()
    return KeyStore(config.data_dir, config.forge_key)


def _existing(config: Config) -> KeyStore:
    """Of a directory that is there: a question about a space makes neither directory nor key."""
    from ingot.forge.keystore import DIRECTORY

    if not os.path.isdir(os.path.join(config.data_dir, DIRECTORY)):
        raise ConfigError(
            f"{os.path.abspath(config.data_dir)} has no identity for Forge: is it the directory "
            "that you mean? 'ingot space create' or 'ingot space import FILE' makes one"
        )
    return _store(config)


def _line(one: Delegation) -> str:
    """A delegation as one line of a report."""
    if one.expires is None:
        ends = "without end"
    else:
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one.expires))
        ends = f"until {moment}" + (" (expired)" if one.expires <= time.time() else "")
    subject = one.subject if one.subject is not None else "all that its giver may use"
    policy = f", if {one.policy.statements!r:.60}" if one.policy.statements else ""
    return f"may    {one.command} on {subject}, {ends}{policy}; {one.issuer} to {one.audience}"
