"""ingot: an S3 gateway over content-addressed storage, as a library and as ``ingot serve``.

Importing this starts nothing and loads no server: the public names are loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingot.config import Config
    from ingot.credentials import Account
    from ingot.ports import AccessQuestion, Decision
    from ingot.server import Deps, Server

__all__ = ["AccessQuestion", "Account", "Config", "Decision", "Deps", "Server", "__version__"]
__version__ = "0.1.0"

_HOMES = {
    "AccessQuestion": "ingot.ports",
    "Account": "ingot.credentials",
    "Config": "ingot.config",
    "Decision": "ingot.ports",
    "Deps": "ingot.server",
    "Server": "ingot.server",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
