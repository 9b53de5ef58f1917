"""The one switch between compiled code and its Python twins.

``from ingot._speedups import mst`` gives ``mst_c``, or ``mst_py`` under ``INGOT_PURE=1``. A missing
extension is an ImportError, never a silent fallback. The twin is the specification: type checkers
read it, and ``tests/parity`` compares the two.
"""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

PURE = os.environ.get("INGOT_PURE", "") not in ("", "0")

if TYPE_CHECKING:
    from . import cbor_py as cbor
    from . import digest_py as digest
    from . import entries_py as entries
    from . import express_py as express
    from . import frame_py as frame
    from . import head_py as head
    from . import index_py as index
    from . import lane_py as lane
    from . import layout_py as layout
    from . import mst_py as mst
    from . import resident_py as resident
    from . import sigv4_py as sigv4
    from . import summaries_py as summaries

__all__ = [
    "PURE",
    "cbor",
    "digest",
    "entries",
    "express",
    "frame",
    "head",
    "index",
    "lane",
    "layout",
    "mst",
    "resident",
    "sigv4",
    "summaries",
]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{name}_{'py' if PURE else 'c'}")
    globals()[name] = module
    return module
