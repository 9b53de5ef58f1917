"""Who may sign requests: accounts from a file, from the environment, or one made at first start.

The file is TOML, one ``[[account]]`` table an access key::

    [[account]]
    access_key = "AKIAEXAMPLE00000001"
    secret_key = "at least eight characters"
    display_name = "photos app"     # optional, shown to whoever may see what is the account's
    id = "64 hexadecimal digits"    # optional canonical id; several keys may share one

``INGOT_ACCESS_KEY`` and ``INGOT_SECRET_KEY`` name the root account; they stand before the accounts
of a file and replace the keys that root had in the data directory's.
Without either, a root account is generated once and kept in ``credentials.toml`` of the data
directory, mode 0600; ``generated`` then says that its secret was not known to anyone before.

A canonical id follows from the access key unless the file says one. The root account's is kept with
the data directory (``root_id``) and stays when the key changes, since root's buckets are owned by
it. Called by ``ingot.server`` and by hosts; lookups are from memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import secrets
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ingot.errors import ConfigError

OWNERS_SAID_MAX: Final = 10  # of those whom no account is, in the log of a start
FILE_NAME = "credentials.toml"
FILE_BYTES_MAX = 4 * 1024 * 1024
_KNOWN = ("access_key", "secret_key", "display_name", "id")
_ACCESS_KEY = re.compile(r"[A-Za-z0-9._@+-]{3,128}")  # stands in a header between slashes
_SECRET_KEY = re.compile(r"[\x21-\x7e]{8,128}")
_CANONICAL_ID = re.compile(r"[0-9a-f]{64}")
_NAME_CHARS = 12  # of a canonical id, where there is no other name
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@dataclass(frozen=True, slots=True)
class Account:
    """One access key and whose it is. ``id`` is the canonical id that owns buckets."""

    access_key: str
    secret_key: str = field(repr=False)
    id: str
    display_name: str


# Nobody in particular: whoever sent a request without a signature. It owns nothing, and no other
# account has this id.
ANONYMOUS: Final = Account("", "", "anonymous", "anonymous")


def canonical_id(access_key: str) -> str:
    """The same 64 hexadecimal digits for an access key at every start, and on every machine."""
    return hashlib.sha256(b"ingot canonical id\0" + access_key.encode()).hexdigest()


def shown_name(id: str, name: str) -> str:
    """``name``, or in its place the beginning of the canonical id: an access key is nobody else's
    business, and stands as the owner's name in what was written when it was the default."""
    return id[:_NAME_CHARS] if not name or canonical_id(name) == id else name


class CredentialStore:
    """Accounts by access key. The first is ``root``. ``root_id`` is the canonical id to keep with
    the data directory; None where there are only the accounts of a file that was named."""

    def __init__(
        self, accounts: Iterable[Account], generated: bool = False, root_id: str | None = None
    ) -> None:
        self.accounts = tuple(accounts)
        self.generated = generated
        self.root_id = root_id
        self._by_key = {account.access_key: account for account in self.accounts}
        self._by_id = {account.id: account for account in reversed(self.accounts)}
        if not self.accounts:
            raise ConfigError("there is no account: nobody could sign a request")
        if len(self._by_key) != len(self.accounts):
            raise ConfigError("two accounts have the same access key")

    @property
    def root(self) -> Account:
        return self.accounts[0]

    def get(self, access_key: str) -> Account | None:
        return self._by_key.get(access_key)

    def by_id(self, id: str) -> Account | None:
        """The first account with a canonical id."""
        return self._by_id.get(id)

    def check_owners(self, owners: Iterable[tuple[str, str]], logger: logging.Logger) -> None:
        """Say which buckets no account owns; ``owners`` are names of buckets and canonical ids."""
        lost: dict[str, list[str]] = {}
        for bucket, id in owners:
            if id and id not in self._by_id:
                lost.setdefault(id, []).append(bucket)
        for id, buckets in list(lost.items())[:OWNERS_SAID_MAX]:
            logger.warning(
                "no account has the canonical id %s, which owns %d bucket(s), %s among them: "
                'an [[account]] table with id = "%s" gives access to them',
                id,
                len(buckets),
                buckets[0],
                id,
            )

    @classmethod
    def load(
        cls,
        data_dir: str,
        path: str | None = None,
        environ: Mapping[str, str] | None = None,
        logger: logging.Logger | None = None,
        root_id: str | None = None,
    ) -> CredentialStore:
        """From ``path``, else the data directory's file, and the environment; makes a root account
        where there is neither. ``root_id`` is what was kept of an earlier start. ConfigError names
        the file and the table that is wrong."""
        logger = logger or logging.getLogger("ingot.credentials")
        own = os.path.join(data_dir, FILE_NAME)
        root = _from_environment(os.environ if environ is None else environ, root_id)
        accounts = [] if root is None else [root]
        if path is not None or os.path.exists(own):
            for account in _read(path or own, logger):
                replaced = root is not None and (
                    account.access_key == root.access_key
                    or (path is None and account.id == root_id)  # root's, from an earlier start
                )
                if not replaced:
                    accounts.append(account)
        if not accounts:
            made = _generate(root_id)
            _write(own, made)
            return cls([made], True, made.id)
        if path is not None and root is None:
            return cls(accounts)
        if root_id is not None and root_id not in [account.id for account in accounts]:
            logger.warning(
                "credentials %s: no account has root's canonical id %s, nor access to the buckets "
                'that it owns: give one of the tables id = "%s"',
                own,
                root_id,
                root_id,
            )
        return cls(accounts, root_id=accounts[0].id)


def _from_environment(environ: Mapping[str, str], root_id: str | None) -> Account | None:
    access_key = environ.get("INGOT_ACCESS_KEY", "")
    secret_key = environ.get("INGOT_SECRET_KEY", "")
    if not access_key and not secret_key:
        return None
    if not access_key or not secret_key:
        raise ConfigError("INGOT_ACCESS_KEY and INGOT_SECRET_KEY go together: one of them is empty")
    table = {"access_key": access_key, "secret_key": secret_key, "display_name": "root"}
    if root_id is not None:
        table["id"] = root_id
    return _account(table, "INGOT_ACCESS_KEY and INGOT_SECRET_KEY")


def _read(path: str, logger: logging.Logger) -> list[Account]:
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"credentials {path}: {error.strerror}") from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"credentials {path}: larger than {FILE_BYTES_MAX} bytes")
    if mode & 0o077:
        logger.warning("credentials %s: mode %04o lets others read it: chmod 600", path, mode)
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"credentials {path}: not TOML: {error}") from error
    for name in document:
        if name != "account":
            raise ConfigError(
                f"credentials {path}: unknown {name!r}; only [[account]] tables go here"
            )
    tables = document.get("account")
    if not isinstance(tables, list) or not tables:
        raise ConfigError(f"credentials {path}: holds no [[account]] table")
    accounts: dict[str, Account] = {}
    for number, table in enumerate(tables, 1):
        where = f"credentials {path}: [[account]] table {number}"
        account = _account(table, where)
        if account.access_key in accounts:
            raise ConfigError(f"{where}: access key {account.access_key} stands there already")
        accounts[account.access_key] = account
    return list(accounts.values())


def _account(table: object, where: str) -> Account:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: not a table")
    for name, value in table.items():
        if name not in _KNOWN:
            raise ConfigError(f"{where}: unknown {name!r}; known: {', '.join(_KNOWN)}")
        if not isinstance(value, str):
            raise ConfigError(f"{where}: {name} is not a string")
    access_key, secret_key = table.get("access_key", ""), table.get("secret_key", "")
    if not _ACCESS_KEY.fullmatch(access_key):
        raise ConfigError(f"{where}: access_key needs 3 to 128 letters, digits or any of ._@+-")
    if not _SECRET_KEY.fullmatch(secret_key):
        raise ConfigError(
            f"{where}: secret_key needs 8 to 128 printable ASCII characters, no blank"
        )
    canonical = table.get("id") or canonical_id(access_key)
    if not _CANONICAL_ID.fullmatch(canonical):
        raise ConfigError(f"{where}: id needs 64 lower-case hexadecimal digits")
    name = shown_name(canonical, table.get("display_name", ""))
    return Account(access_key, secret_key, canonical, name)


def _generate(root_id: str | None) -> Account:
    access_key = "INGOT" + "".join(secrets.choice(_ALPHABET) for _ in range(15))
    canonical = root_id or canonical_id(access_key)
    return Account(access_key, secrets.token_urlsafe(30), canonical, "root")


def _write(path: str, account: Account) -> None:
    """Durable, whole or not at all, and never readable by others."""
    text = (
        "# The root account, generated at the first start. Add [[account]] tables for more.\n"
        f'[[account]]\naccess_key = "{account.access_key}"\n'
        f'secret_key = "{account.secret_key}"\ndisplay_name = "{account.display_name}"\n'
        f'id = "{account.id}"\n'
    )
    making = path + ".new"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(making)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(making, flags, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(making, path)
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise ConfigError(f"credentials {path}: cannot be written: {error.strerror}") from error
