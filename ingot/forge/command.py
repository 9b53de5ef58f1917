"""Commands: ``/blob/add``, and which of two covers the other. Pure; used by tokens and chains."""

from __future__ import annotations

from ingot.forge import values
from ingot.forge.errors import Malformed
from ingot.limits import UCAN_NAME_BYTES_MAX

TOP = "/"


def check(command: str) -> str:
    """The command itself; Malformed unless it is a lower-case path with a slash in front only,
    which prints: commands stand in messages."""
    values.check_text(command, UCAN_NAME_BYTES_MAX)
    if not command.isprintable():
        raise Malformed((), "a command that can be printed", repr(command[:99]))
    if not command.startswith("/"):
        raise Malformed((), "a command that starts with a slash", repr(command))
    if command != TOP and command.endswith("/"):
        raise Malformed((), "a command that does not end with a slash", repr(command))
    if command != command.lower():
        raise Malformed((), "a command in lower case", repr(command))
    return command


def covers(held: str, wanted: str) -> bool:
    """Whether who may ``held`` may ``wanted``: the same or one below it, by whole names."""
    return held in (wanted, TOP) or wanted.startswith(held + "/")
