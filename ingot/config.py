"""The settings of a gateway: from arguments, the environment and a file; checked before anything
starts.

Precedence: argument, then ``INGOT_NAME`` in the environment, then the TOML file, then the default.
The file has the names of the fields below at its top level, and an unknown name is an error, since
a misspelt setting that is ignored is found too late. Sizes may be written ``64MiB``, durations are
seconds. Called by ``ingot.cli`` and by hosts, which may as well call ``Config(...)`` directly.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ingot import limits
from ingot.errors import ConfigError

if TYPE_CHECKING:
    from ingot.forge.client import ForgeSettings
    from ingot.http.limits import HttpLimits
    from ingot.segments.model import SegmentSettings

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_FLAGS = {"1": True, "true": True, "yes": True, "on": True}
_FLAGS |= {"0": False, "false": False, "no": False, "off": False}
# Those that are no settings: where these stand, root's keys, and what builds and benchmarks read.
_OTHER_VARIABLES = (
    *("CONFIG", "ACCESS_KEY", "SECRET_KEY"),
    *("PURE", "DEBUG", "TRACE", "ASAN", "BENCH_FULL"),
)
_LABEL = "[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)*(?=[a-z]){_LABEL}")  # what ends in digits is an address
LOG_LEVELS = ("debug", "info", "warning", "error")
OWNERSHIPS = ("BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter")
RECREATIONS = ("aws", "idempotent")


def parse_size(text: str) -> int:
    """``64MiB``, ``64M`` (the same) and ``64MB`` (a million bytes each) to bytes."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError(f"{text!r} is not a size such as 64MiB, 1.5GiB or 1048576")
    exact = float(match[1]) * _UNITS[match[2].lower()] if "." in match[1] else None
    return int(match[1]) * _UNITS[match[2].lower()] if exact is None else int(exact)


def _setting(default: Any, kind: str, least: float = 0, most: float = float("inf")) -> Any:
    return field(default=default, metadata={"kind": kind, "least": least, "most": most})


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings, with values that work. Raises ConfigError for one that cannot be."""

    listen: str = _setting("127.0.0.1:9000", "address")
    """HOST:PORT; port 0 takes a free one; an IPv6 host stands in brackets."""
    metrics_listen: str | None = _setting(None, "address")
    """HOST:PORT where ``/metrics`` is served for Prometheus, without a password; None: nowhere."""
    data_dir: str = _setting("ingot-data", "path")
    postgres: str | None = _setting(None, "dsn")
    """postgresql://user:password@host:port/database; None runs a private Postgres."""
    postgres_statement_cache: int = _setting(100, "count", 0, 10_000)
    """0 behind pgbouncer in transaction mode."""
    region: str = _setting("us-east-1", "region")
    default_object_ownership: str = _setting("BucketOwnerEnforced", "ownership")
    """Of a bucket whose creation does not say: BucketOwnerEnforced, BucketOwnerPreferred or
    ObjectWriter."""
    recreate_own_bucket: str = _setting("aws", "recreation")
    """What creating a bucket hears from somebody who has it already. ``aws``: in us-east-1 200, in
    every other region 409 BucketAlreadyOwnedByYou. ``idempotent``: 200 where the request asks for
    what the bucket is, else 409 BucketAlreadyExists."""
    form_signature_v2: bool = _setting(True, "flag")
    """Take forms that are signed by HMAC-SHA1 (Signature Version 2), as boto3 signs them for
    us-east-1 unless told otherwise. Nothing else is taken with that signature."""
    virtual_host_domain: str | None = _setting(None, "domain")
    """A domain whose every name leads here, such as ``s3.example.com``: a host ``NAME.DOMAIN`` then
    means the bucket of that name. None: buckets are named in the path only."""
    credentials: str | None = _setting(None, "path")
    tls_certificate: str | None = _setting(None, "path")
    tls_key: str | None = _setting(None, "path")
    segment_bytes: int = _setting(
        limits.SEGMENT_SEAL_BYTES,
        "size",
        limits.MIB,
        limits.SEGMENT_BYTES_MAX - limits.BATCH_BYTES_MAX - limits.NODE_BYTES_READ_MAX,
    )
    """A segment is sealed when it has reached this size; with a Forge network at the latest at an
    eighth of ``warm_bytes``, for open ones count too."""
    log_bytes_max: int = _setting(limits.LOG_BYTES_MAX, "size", limits.LOG_BYTES_MIN)
    """All segments that are here together; over it PUT gets 503 SlowDown. At least 8 segments."""
    batch_mutations: int = _setting(limits.BATCH_MUTATIONS_MAX, "count", 1, 4096)
    busy_poll_s: float = _setting(limits.BUSY_POLL_S, "seconds", 0.0)
    """So long the loop stays awake for a commit, where commits are quicker than that; 0: never."""
    lifecycle_debug_day_s: float = _setting(86400.0, "seconds", 1.0)
    """The length of a day in lifecycle rules, for tests of such rules."""
    node_cache_bytes: int = _setting(limits.NODE_CACHE_BYTES, "size", 4 * limits.MIB)
    summary_cache_bytes: int = _setting(
        limits.SUMMARY_CACHE_BYTES, "size", limits.SUMMARY_CACHE_BYTES_MIN
    )
    """What listings show of records, 64 bytes each; taken as far as records are listed."""
    connections_max: int = _setting(limits.CONNECTIONS_MAX, "count", 1, 1_000_000)
    header_deadline_s: float = _setting(limits.HEADER_DEADLINE_S, "seconds", 0.01)
    idle_deadline_s: float = _setting(limits.IDLE_DEADLINE_S, "seconds", 0.01)
    body_stall_s: float = _setting(limits.BODY_STALL_S, "seconds", 0.01)
    send_stall_s: float = _setting(limits.SEND_STALL_S, "seconds", 0.01)
    stop_deadline_s: float = _setting(limits.STOP_DEADLINE_S, "seconds", 0.0)
    log_level: str = _setting("info", "level")
    forge_upload_did: str | None = _setting(None, "did")
    """The upload service of a Forge network, and its URL; None ships nothing."""
    forge_upload_url: str | None = _setting(None, "url")
    forge_receipts_url: str | None = _setting(None, "url")
    """Where the upload service keeps receipts; None is ``/receipt`` under its URL."""
    forge_indexer_did: str | None = _setting(None, "did")
    forge_indexer_url: str | None = _setting(None, "url")
    forge_dev: bool = _setting(False, "flag")
    """Run a Forge network for development in ``data_dir/forge-dev`` and ship there."""
    forge_home_node: str | None = _setting(None, "did")
    """The one node that blobs shall go to; None leaves the choice to the upload service. What lies
    at another one already stays there, and the log says so."""
    forge_private_addresses: bool = _setting(False, "flag")
    """Also connect to services at addresses that are not the Internet's: a network of one's own.
    Plain http to the upload service implies it."""
    forge_space: str | None = _setting(None, "did")
    """Needed where the delegations are about several spaces."""
    seal_age_s: float = _setting(limits.SEAL_AGE_S, "seconds", 0.01)
    """With a Forge network: an open segment that holds something is sealed when it is so old,"""
    unit_age_s: float = _setting(limits.UNIT_AGE_S, "seconds", 0.01)
    """and log segments become a unit, which ships, when they have waited so long for more."""
    warm_bytes: int = _setting(limits.LOG_BYTES_MAX, "size", 6 * limits.MIB)
    """All segments together: of those that the network has confirmed, so many stay that this is
    kept to, and three quarters of ``log_bytes_max``."""
    cold_cache_bytes: int = _setting(limits.COLD_CACHE_BYTES, "size", 16 * limits.MIB)
    """What was read back from the network stays on the disk up to this size, beside them."""
    forge_key: str | None = _setting(None, "path")
    """The agent's private key; None is ``forge/agent.pem`` in the data directory."""

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            value = getattr(self, setting.name)
            try:
                object.__setattr__(self, setting.name, _checked(value, setting))
            except (ValueError, TypeError) as error:
                raise ConfigError(f"{setting.name}: {error}") from error
        if self.log_bytes_max < limits.LOG_SEGMENTS_MIN * self.segment_bytes:
            raise ConfigError(
                f"log_bytes_max: {_sized(self.log_bytes_max)} is out of range: at least "
                f"{limits.LOG_SEGMENTS_MIN} segments of segment_bytes, {_sized(self.segment_bytes)}"
            )
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError("tls_certificate and tls_key go together: one of them is missing")
        for name in ("forge_upload", "forge_indexer"):
            if (getattr(self, f"{name}_did") is None) != (getattr(self, f"{name}_url") is None):
                raise ConfigError(f"{name}_did and {name}_url go together: one of them is missing")
        if self.forge_dev and self.forge_upload_did is not None:
            raise ConfigError("forge_dev: forge_upload_did names another network already")
        if self.forge_indexer_did is not None and self.forge_upload_did is None:
            raise ConfigError("forge_indexer_did: an indexer needs an upload service beside it")

    @property
    def address(self) -> tuple[str, int]:
        return parse_address(self.listen)

    @classmethod
    def load(
        cls,
        arguments: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        file: str | None = None,
    ) -> Config:
        """``arguments`` by field name, None meaning not given; ``file`` or ``INGOT_CONFIG``."""
        environ = os.environ if environ is None else environ
        path = file or environ.get("INGOT_CONFIG") or None
        names = [setting.name for setting in dataclasses.fields(cls)]
        chosen: dict[str, Any] = {}
        source: dict[str, str] = {}
        for name, value in (_read_file(path, names) if path else {}).items():
            chosen[name], source[name] = value, f"{path}: {name}"
        for name in names:
            value = environ.get(f"INGOT_{name.upper()}", "")
            if value:
                chosen[name], source[name] = value, f"INGOT_{name.upper()}"
        for name, value in (arguments or {}).items():
            if value is not None:
                chosen[name], source[name] = value, f"--{name.replace('_', '-')}"
        try:
            return cls(**chosen)
        except ConfigError as error:
            name, _, rest = str(error).partition(": ")
            raise ConfigError(
                f"{source.get(name, name)}: {rest}" if rest else str(error)
            ) from error

    @property
    def warm_budget(self) -> int:
        """Bytes of segments over which files that the network has go: so far below the limit of
        the log that room is made before it is reached."""
        return min(self.warm_bytes, int(self.log_bytes_max * limits.LOG_WARM_SHARE))

    @property
    def log_reserve(self) -> int:
        """Bytes above ``log_bytes_max`` that deletions may take. Of several segments at least: the
        limit is seen when a segment ends, or a second later."""
        least = limits.LOG_RESERVE_SEGMENTS * self.segment_bytes
        return max(int(self.log_bytes_max * limits.LOG_RESERVE_SHARE), least)

    def http_limits(self) -> HttpLimits:
        from ingot.http.limits import HttpLimits

        return HttpLimits(
            connections_max=self.connections_max,
            header_deadline_s=self.header_deadline_s,
            idle_deadline_s=self.idle_deadline_s,
            body_stall_s=self.body_stall_s,
            send_stall_s=self.send_stall_s,
        )

    def forge_settings(self) -> ForgeSettings | None:
        """The services of the Forge network, where one is named. Plain http to the upload service
        means a network of one's own, in which plain http is taken everywhere."""
        if self.forge_upload_did is None or self.forge_upload_url is None:
            return None
        from ingot.forge.client import ForgeSettings
        from ingot.forge.http import HttpSettings
        from ingot.forge.invoker import Service

        indexer = None
        if self.forge_indexer_did is not None and self.forge_indexer_url is not None:
            indexer = Service(self.forge_indexer_did, self.forge_indexer_url)
        return ForgeSettings(
            upload=Service(self.forge_upload_did, self.forge_upload_url),
            indexer=indexer,
            receipts=self.forge_receipts_url,
            home=self.forge_home_node,
            http=HttpSettings(
                insecure=self.forge_upload_url.startswith("http:"),
                private_addresses=self.forge_private_addresses,
            ),
        )

    def segment_settings(self) -> SegmentSettings:
        from ingot.segments.model import SegmentSettings

        size = self.segment_bytes
        if self.forge_upload_did is not None:
            size = min(size, max(limits.MIB, self.warm_budget // 8))
        return SegmentSettings(seal_bytes=size, log_ahead_bytes=size + limits.MIB)


def strange_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """A line for each ``INGOT_…`` variable that nothing of ingot reads: misspelt, most likely."""
    known = [setting.name.upper() for setting in dataclasses.fields(Config)]
    known += _OTHER_VARIABLES
    lines = []
    for variable in sorted(os.environ if environ is None else environ):
        prefix, _, name = variable.partition("_")
        if prefix == "INGOT" and name not in known:
            near = difflib.get_close_matches(name, known, 1)
            lines.append(
                f"{variable} means nothing" + (f"; is it INGOT_{near[0]}?" if near else "")
            )
    return lines


def default_of(name: str) -> str:
    """A setting's default as a person would write it."""
    kinds = {setting.name: setting.metadata["kind"] for setting in dataclasses.fields(Config)}
    value = float(getattr(Config(), name))
    return _sized(value) if kinds[name] == "size" else f"{value:g}"


def parse_address(text: str) -> tuple[str, int]:
    """(host, port) of ``127.0.0.1:9000``, ``[::1]:9000``, ``:9000`` (every address)."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\[\]:]*)):(\d{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:9000 or [::1]:9000")
    return match[1] or match[2] or "0.0.0.0", int(match[3])


def _read_file(path: str, names: list[str]) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    unknown = sorted(set(document) - set(names))
    if unknown:
        raise ConfigError(
            f"{path}: unknown {', '.join(map(repr, unknown))}; known are {', '.join(names)}"
        )
    return document


def _checked(value: Any, setting: dataclasses.Field[Any]) -> Any:
    """The value in its field's type; ValueError or TypeError says what is wrong with it."""
    kind = setting.metadata["kind"]
    if value is None and setting.default is None:
        return None
    if kind == "flag":
        return _flag(value)
    if kind in ("size", "count", "seconds"):
        return _number(value, kind, setting.metadata["least"], setting.metadata["most"])
    if isinstance(value, os.PathLike) and kind == "path":
        value = os.fspath(value)
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    if kind == "address":
        parse_address(value)
    elif kind == "path" and (not value or "\0" in value):
        raise ValueError("the path is empty or holds a NUL")
    elif kind == "url" and not re.fullmatch(r"https?://[^/\s@]+(/\S*)?", value):
        raise ValueError(f"{value!r} is not a URL such as https://example.com")
    elif kind == "did" and not re.fullmatch(r"did:[a-z0-9]+:\S+", value):
        raise ValueError(f"{value!r} is not a DID such as did:web:example.com")
    elif kind == "dsn":
        _check_dsn(value)
    elif kind == "domain":
        value = value.lower()
        if not _DOMAIN.fullmatch(value):
            raise ValueError(f"{value!r} is not a domain such as s3.example.com")
    elif kind == "region" and not re.fullmatch(r"[A-Za-z0-9-]{1,63}", value):
        raise ValueError(f"{value!r} is not a region name such as us-east-1")
    elif kind == "ownership" and value not in OWNERSHIPS:
        raise ValueError(f"{value!r} is none of {', '.join(OWNERSHIPS)}")
    elif kind == "recreation" and value not in RECREATIONS:
        raise ValueError(f"{value!r} is none of {', '.join(RECREATIONS)}")
    elif kind == "level":
        value = value.lower()
        if value not in LOG_LEVELS:
            raise ValueError(f"{value!r} is none of {', '.join(LOG_LEVELS)}")
    return value


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _FLAGS:
        return _FLAGS[value.lower()]
    raise ValueError(f"{value!r} is neither true nor false")


def _number(value: Any, kind: str, least: float, most: float) -> int | float:
    number: int | float
    if isinstance(value, bool):
        raise TypeError(f"{value!r} is not a number")
    if kind == "seconds":
        number = float(value)
    elif isinstance(value, str):
        number = parse_size(value) if kind == "size" else int(value)
    elif isinstance(value, int):
        number = value
    else:
        raise TypeError(f"{value!r} is not a whole number")
    if not least <= number <= most or number in (float("inf"), float("-inf")):
        write = _sized if kind == "size" else "{:g}".format
        bounds = f"{write(least)} to {write(most)}"
        if most == float("inf"):
            bounds = f"at least {write(least)}"
        raise ValueError(f"{write(number)} is out of range: {bounds}")
    return number


def _sized(size: float) -> str:
    """A size as a person would write it; ``parse_size`` takes it again."""
    for unit, name in ((limits.GIB, "GiB"), (limits.MIB, "MiB"), (limits.KIB, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size / unit:g}{name}"
    return f"{size:.0f}"


def _check_dsn(text: str) -> None:
    """Only the form, and without repeating it: it may hold a password."""
    if urlsplit(text).scheme not in ("postgresql", "postgres"):
        raise ValueError(
            "not a Postgres DSN: expected postgresql://user:password@host:port/database"
        )
