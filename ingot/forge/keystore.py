"""The identity of a gateway in files: keys and delegations under ``DATA_DIR/forge``.

    agent.pem       the key that signs requests, PKCS#8; made when it is first asked for
    space.pem       the key of a space that was created or imported here; absent where others own it
    delegations     container of all delegations that were imported or made

Guarantees: a key is made once, whoever asks at the same time; a file is there whole and synced or
not at all; a key file that others may read, or that is another user's, is refused with a
ConfigError and not used. Files are mode 0600, their directory 0700. Called by ``forge_commands``
and by the server; calls block.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence

from ingot.errors import ConfigError, FormatError
from ingot.forge import chain, container, did, document, signature, token
from ingot.forge.container import Container, Form
from ingot.forge.document import Document
from ingot.forge.errors import Malformed, UcanError, UnsupportedKey
from ingot.forge.identity import Identity
from ingot.forge.keys import Signer
from ingot.forge.token import Delegation
from ingot.limits import (
    FORGE_IMPORT_BYTES_MAX,
    FORGE_KEY_BYTES_MAX,
    UCAN_NONCE_BYTES,
)

DIRECTORY = "forge"


class KeyStore:
    """``key`` is the path of the agent's key where it is kept elsewhere; it has to exist then."""

    def __init__(
        self, data_dir: str, key: str | None = None, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        self.directory = os.path.join(os.path.abspath(data_dir), DIRECTORY)
        self.agent_path = key or os.path.join(self.directory, "agent.pem")
        self.space_path = os.path.join(self.directory, "space.pem")
        self.delegations_path = os.path.join(self.directory, "delegations")
        self._given, self._random = key is not None, random

    def agent(self) -> Signer:
        """The agent's key; made where there is none yet."""
        found = _read_key(self.agent_path)
        if found is not None:
            return found
        if self._given:
            raise ConfigError(f"{self.agent_path}: there is no such key file")
        return self._make_key(self.agent_path, Signer.from_seed(self._random(32)))

    def space_key(self) -> Signer | None:
        """The key of a space of our own."""
        return _read_key(self.space_path)

    def delegations(self) -> list[Delegation]:
        """All that were imported or made, in no order."""
        data = _read_private(self.delegations_path, FORGE_IMPORT_BYTES_MAX)
        if data is None:
            return []
        try:
            return list(container.unpack(data).delegations.values())
        except FormatError as error:
            raise ConfigError(
                f"{self.delegations_path} is damaged ({error}): remove it and import the "
                "delegations again with 'ingot space import'"
            ) from error

    def identity(self, now: int, space: str | None = None) -> Identity:
        """Who we are; ``space`` has to be said where there are rights over several. ConfigError
        where there is none yet, or no right over the one said, at ``now`` (Unix seconds)."""
        agent, held = self.agent(), self.delegations()
        spaces = self.spaces(now)
        if space is None and len(spaces) == 1:
            space = spaces[0]
        if space is None and not spaces:
            raise ConfigError(
                f"{agent.did} has no right over a space: make one with 'ingot space create', or "
                "have its owner delegate to this agent and use 'ingot space import FILE'"
            )
        if space is None:
            raise ConfigError(f"rights over several spaces, choose with forge_space: {spaces}")
        if space not in spaces:
            raise ConfigError(f"{agent.did} has no right over the space {space}, only {spaces}")
        return Identity(agent, space, held)

    def spaces(self, now: int) -> list[str]:
        """The spaces that the agent can do something with, by its chains."""
        return [one for one in self._subjects(now) if not did.is_account(one)]

    def accounts(self, now: int) -> list[str]:
        """The accounts in whose name the agent can do something."""
        return [one for one in self._subjects(now) if did.is_account(one)]

    def _subjects(self, now: int) -> list[str]:
        agent, held = self.agent().did, self.delegations()
        subjects = {one.subject for one in held if one.subject is not None}
        commands = {one.command for one in held}
        return sorted(
            subject
            for subject in subjects
            if any(
                chain.find(held, issuer=agent, subject=subject, command=command, now=now)
                is not None
                for command in commands
            )
        )

    def create_space(self) -> Signer:
        """A new space whose key lies here, and the agent's right over it. ConfigError where there
        is one already; one whose creation was cut short is finished."""
        agent = self.agent()
        with self._alone():
            held = self.space_key()
            if held is not None and any(one.issuer == held.did for one in self.delegations()):
                raise ConfigError(f"there is a space already: {held.did} ({self.space_path})")
            return self._own(held or Signer.from_seed(self._random(32)), agent)

    def import_file(self, path: str, now: int) -> list[Delegation]:
        """Take in what a file holds: a container in any form, one bare delegation, or a space's
        private key (PEM or ``MgC...``). The delegations that are new to us. ConfigError where none
        is of any use to this agent now."""
        data = _read_any(path)
        agent = self.agent()
        key = _key_in(data, path)
        if key is not None and key.did == agent.did:
            raise ConfigError(f"{path}: that is the key of this gateway's agent, not of a space")
        with self._alone():
            if key is not None:
                held = self.space_key()
                if held is not None and held.did != key.did:
                    raise ConfigError(f"there is another space already: {held.did}")
                before = set(self.delegations())
                self._own(key, agent)
                return [one for one in self.delegations() if one not in before]
            brought = _delegations_in(data, path)
            before = set(self.delegations())
            everything = [*before, *(one for one in brought if one not in before)]
            useful = [one for one in brought if _useful(one, everything, agent.did, now)]
            if not useful:
                audiences = ", ".join(sorted({one.audience for one in brought})) or "nobody"
                raise ConfigError(
                    f"{path}: nothing in it gives {agent.did} a right that is valid now; it is "
                    f"for {audiences}"
                )
            self._keep(everything)
            return [one for one in brought if one not in before]

    def _own(self, key: Signer, agent: Signer) -> Signer:
        """Keep a space's key, and have it delegate everything to the agent, without end."""
        if self.space_key() is None:
            key = self._make_key(self.space_path, key)
        held = self.delegations()
        if not any(one.issuer == key.did and one.audience == agent.did for one in held):
            made = token.delegate(
                key,
                audience=agent.did,
                subject=key.did,
                command="/",
                expires=None,
                nonce=self._random(UCAN_NONCE_BYTES),
            )
            self._keep([*held, made])
        return key

    def _keep(self, delegations: Sequence[Delegation]) -> None:
        temporary = self._write_beside(self.delegations_path, container.pack(delegations, Form.RAW))
        os.rename(temporary, self.delegations_path)
        _sync_directory(self.directory)

    def _make_key(self, path: str, key: Signer) -> Signer:
        """The key that is at ``path`` from now on: ours, or the one that was sooner."""
        temporary = self._write_beside(path, key.to_pem())
        try:
            os.link(temporary, path)
        except FileExistsError:
            sooner = _read_key(path)
            assert sooner is not None
            return sooner
        finally:
            os.unlink(temporary)
        _sync_directory(self.directory)
        return key

    def _write_beside(self, path: str, data: bytes) -> str:
        """A synced file of mode 0600 that a crash leaves without harm."""
        self._prepare()
        temporary = f"{path}.{secrets.token_hex(4)}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            with open(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigError(f"{temporary}: {error.strerror}") from error
        return temporary

    def _prepare(self) -> None:
        try:
            os.makedirs(self.directory, 0o700, exist_ok=True)
            _sync_directory(os.path.dirname(self.directory))
        except OSError as error:
            raise ConfigError(f"{self.directory}: {error.strerror}") from error

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else changes the delegations meanwhile."""
        self._prepare()
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _read_key(path: str) -> Signer | None:
    data = _read_private(path, FORGE_KEY_BYTES_MAX)
    if data is None:
        return None
    try:
        return Signer.from_pem(data)
    except (Malformed, UnsupportedKey) as error:
        raise ConfigError(f"{path}: no ed25519 key that can be used: {error}") from error


def _read_private(path: str, bytes_max: int) -> bytes | None:
    """A file of ours that nobody else may read; None where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    try:
        _check_private(path, os.fstat(descriptor))
        data = b""
        while len(data) <= bytes_max and (piece := os.read(descriptor, bytes_max + 1)):
            data += piece
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(data) > bytes_max:
        raise ConfigError(f"{path}: larger than {bytes_max} bytes")
    return data


def _check_private(path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{path} is no regular file")
    if found.st_uid != os.geteuid():
        raise ConfigError(
            f"{path} belongs to user {found.st_uid} and this process is user {os.geteuid()}: "
            "who owns a key can use it, so take a copy of your own"
        )
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise ConfigError(f"{path}: mode {mode:04o} lets others read or change it: chmod 600")


def _read_any(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(FORGE_IMPORT_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if len(data) > FORGE_IMPORT_BYTES_MAX:
        raise ConfigError(f"{path}: larger than {FORGE_IMPORT_BYTES_MAX} bytes")
    return data


def _key_in(data: bytes, path: str) -> Signer | None:
    """A private key, where the file holds one."""
    text = data.strip()
    try:
        if text.startswith(b"-----BEGIN"):
            return Signer.from_pem(text)
        return Signer.from_text(text.decode()) if text.startswith(b"MgC") else None
    except (Malformed, UnsupportedKey, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no ed25519 key that can be used: {error}") from error


def _delegations_in(data: bytes, path: str) -> list[Delegation]:
    try:
        found = _container_in(data)
    except FormatError as error:
        raise ConfigError(f"{path}: neither a container nor a delegation: {error}") from error
    if found.undecoded:
        raise ConfigError(f"{path}: a token in it is damaged: {found.undecoded[0][1]}")
    for one in found.delegations.values():
        documents: dict[str, Document] = {}
        if signature.unresolved([one], documents):
            continue  # signed by a service: whoever is shown it verifies it
        try:
            document.resolve(one.issuer, documents)
            signature.check(one, 0, documents)
        except UcanError as error:
            raise ConfigError(f"{path}: {error}") from error
    return list(found.delegations.values())


def _container_in(data: bytes) -> Container:
    """Packed in any form, as an HTTP body, or a delegation by itself."""
    stripped = data.lstrip()
    if stripped[:1] in (b"B", b"C", b"E", b"F"):
        return container.unpack(stripped)
    if data[:1] in (b"@", b"D"):
        return container.unpack(data)
    if data[:1] == b"\x82":
        one = token.decode(data)
        if not isinstance(one, Delegation):
            raise FormatError(0, "a delegation", one.command)
        return Container({one.cid: one})
    return container.decode(data)


def _useful(one: Delegation, held: Sequence[Delegation], agent: str, now: int) -> bool:
    """Whether it stands in a chain that gives the agent something."""
    for subject in {each.subject for each in held if each.subject is not None}:
        found = chain.find(held, issuer=agent, subject=subject, command=one.command, now=now)
        if found and one in found:
            return True
    return False


def _sync_directory(path: str) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
