"""What can be wrong with a token or with what it asks for, under the protocol's own names.

The class is the name: ``error.name`` and ``error.value()`` are what an error receipt carries. A
value of the wrong shape is ``Malformed``; decoders of bytes turn it into a FormatError with the
offset. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from ingot.codec.fields import Step
from ingot.errors import IngotError, Unavailable
from ingot.limits import FORGE_ERROR_TEXT_MAX


def shown(text: str) -> str:
    """What others wrote, as one line of a message, in which nothing steers a terminal or looks
    like another line: what does not print is escaped, and there is an end to it."""
    if len(text) > FORGE_ERROR_TEXT_MAX:
        text = text[:FORGE_ERROR_TEXT_MAX] + "..."
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


class Malformed(IngotError):
    """A value that is not what the protocol has at this place; ``path`` leads to it."""

    def __init__(self, path: Sequence[Step], expected: str, found: str) -> None:
        where = "".join(f"[{step!r}]" for step in path)
        expected, found = shown(expected), shown(found)
        super().__init__(f"{where + ': ' if where else ''}expected {expected}, found {found}")
        self.path, self.expected, self.found = tuple(path), expected, found


class TooLarge(IngotError):
    """What should be written is over a limit of the protocol; the message names it."""


class UnsupportedKey(IngotError):
    """A key of a kind that exists and that this code cannot use."""


class UcanError(IngotError):
    """A token does not allow what it is used for. The message may hold what others wrote."""

    def __init__(self, message: str) -> None:
        super().__init__(shown(message))

    @property
    def name(self) -> str:
        return type(self).__name__

    def value(self) -> dict[str, object]:
        """The ``error`` of a receipt."""
        return {"name": self.name, "message": str(self)}


class InvalidSignature(UcanError):
    """No key that may sign for the issuer made this signature."""


class UnverifiableSignature(UcanError):
    """The issuer has no key that may sign and that this code can verify with."""


class DIDKeyResolutionError(UcanError):
    """The issuer's keys are not known: no document, or a did:key that is no key."""


class Expired(UcanError):
    """The token's time is over."""


class TooEarly(UcanError):
    """The delegation's time has not come."""


class UnavailableProof(UcanError):
    """A proof that the invocation names was not sent along."""


class InvalidClaim(UcanError):
    """Nothing gives the issuer a right over the subject, or a receipt answers something else."""


class InvalidSubject(UcanError):
    """A proof is about another subject."""


class InvalidAudience(UcanError):
    """A link of the chain is missing: the right was given to somebody else."""


class ImpossibleAttenuation(UcanError):
    """Two proofs of a chain allow commands of which neither covers the other."""


class MatchError(UcanError):
    """A policy of the chain does not hold for the arguments."""


class ResolutionError(UcanError):
    """A policy's selector selects nothing in the arguments."""


class HandlerNotFound(UcanError):
    """The service does not know the command."""


class MalformedArguments(UcanError):
    """The command's arguments have the wrong shape."""


class HandlerExecutionError(UcanError):
    """The command failed for a reason of its own."""


class UnknownError(UcanError):
    """Anything that has no name of its own, such as a command beyond what the proofs allow."""


class Refused(UcanError):
    """The other side's error, out of its receipt: ``name`` is theirs, the text their message,
    ``service`` the DID that signed it. Asking again brings the same answer."""

    def __init__(self, name: str, message: str, service: str = "") -> None:
        name, message = shown(name), shown(message)
        super().__init__(f"{name}: {message}" if message else name)
        self._name, self.message, self.service = name, message, service

    @property
    def name(self) -> str:
        return self._name


class BadAnswer(Unavailable):
    """What came from ``service`` (a DID or a URL) is not what the protocol has there, or nobody
    who was asked signed it. Another try may bring a right answer."""

    def __init__(self, service: str, message: str) -> None:
        super().__init__(shown(f"{service}: {message}"))
        self.service = service


class CircuitOpen(Unavailable):
    """The service failed so often in a row that it is left alone for a while; nothing was sent."""
