"""What others wrote, in messages of ours."""

from __future__ import annotations

import pytest

from ingot.errors import IngotError
from ingot.forge import command, did
from ingot.forge.errors import BadAnswer, InvalidClaim, Malformed, Refused, shown
from ingot.forge.http import Answer
from ingot.limits import FORGE_ERROR_TEXT_MAX

EVIL = "x\n2026-11-27 ERROR ingot: forged\r\x1b[2J\x00\x9b\u2028\u202e"


@pytest.mark.parametrize(
    "error",
    [
        Refused("Nope", EVIL, "did:web:a"),
        Refused(EVIL, "no"),
        BadAnswer("did:web:a", EVIL),
        BadAnswer(EVIL, "no"),
        Malformed((), EVIL, EVIL),
        InvalidClaim(EVIL),
    ],
    ids=lambda error: type(error).__name__,
)
def test_texts_of_others_steer_nothing(error: IngotError) -> None:
    assert str(error).isprintable() and "\\n2026-11-27 ERROR" in str(error)
    if isinstance(error, Refused):
        assert (error.name + error.message).isprintable()


def test_the_body_of_an_answer() -> None:
    assert Answer(500, {}, b"go\naway \x1b[2J\xff").text() == "go away \\x1b[2J\ufffd"


def test_plain_texts_stay_as_they_are() -> None:
    for text in ("", "plain", "größe \U0001f600 \\n"):
        assert shown(text) == text == shown(shown(text))
    assert shown("a" * FORGE_ERROR_TEXT_MAX + "b") == "a" * FORGE_ERROR_TEXT_MAX + "..."
    assert shown("\ud800") == "\\ud800"


def test_names_that_do_not_print_are_none() -> None:
    with pytest.raises(Malformed, match="printed"):
        did.check("did:web:a\nb")
    with pytest.raises(Malformed, match="printed"):
        command.check("/a\x1b")
