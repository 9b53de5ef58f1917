"""One round each of the long runs over kill -9 and of those of contention; and that their models
see what is wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e import contention
from tests.e2e.crash_s3 import SCENARIOS
from tests.support import history
from tests.support.process import Gateway
from tests.support.rounds import run
from tests.support.rules import NotAllowed, Rule, Rules, Version
from tests.support.s3 import Piece, Seen


@pytest.mark.slow
def test_kill_9_loses_and_brings_back_nothing(private_data: Path) -> None:
    scenarios = [make(1, fewer=4) for make in SCENARIOS.values()]
    run(scenarios, 1, 1, private_data.parent, load_s=(1.0, 1.0))


# -- contention --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(reachable_path: Path) -> Iterator[Gateway]:
    path = reachable_path / "contention"
    path.mkdir(mode=0o711)
    with Gateway(path / "data") as running:
        contention.prepare(running)
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("bucket", [contention.PLAIN, contention.KEPT])
def test_one_of_many_wins(gateway: Gateway, bucket: str) -> None:
    source = random.Random(1)
    with contention.connections(gateway, bucket, 40) as all_s3:
        for number in range(3):
            contention.puts(all_s3, f"put-{number}", source)
        contention.completes(all_s3[:12], "complete", source)
        contention.deletes(all_s3, "complete")


@pytest.mark.slow
@pytest.mark.parametrize("write", [contention.by_put, contention.by_complete])
def test_no_increment_is_lost(gateway: Gateway, write: contention.Write) -> None:
    with contention.connections(gateway, contention.KEPT, 8) as all_s3:
        contention.counter(all_s3, write.__name__, 3, write)


@pytest.mark.slow
def test_a_mutex_has_one_holder(gateway: Gateway) -> None:
    with contention.connections(gateway, contention.PLAIN, 8) as all_s3:
        contention.mutex(all_s3, "mutex", 3)


@pytest.mark.slow
def test_a_counter_outlives_its_gateway(private_data: Path) -> None:
    data = private_data
    gateway = Gateway(data)
    contention.prepare(gateway)
    made = contention.relay(data, gateway, 8, 1, 0.2)
    assert made.gateway.stop() == 0
    assert made.acknowledged


# -- the models --------------------------------------------------------------------------------

PIECE, OTHER = Piece(0, 100), Piece(1, 100)


def seen(id: str, piece: Piece | None, latest: bool = True) -> Seen:
    return Seen(id, piece is None, piece.etag if piece else "", 100 if piece else 0, latest)


def version(id: str, piece: Piece | None, born: float) -> Version:
    return Version(id, piece, born, born + 0.1)


def test_rules_explain_what_they_remove_and_nothing_else() -> None:
    plain = Rules([Rule("a/", days=1)], keeps=False)
    key = (version("null", PIECE, 10.0),)
    assert plain.explain("a/k", key, [seen("null", PIECE)], 99.0) == key
    assert plain.explain("a/k", key, [], 11.0) == ()
    for name, at in (("a/k", 10.9), ("b/k", 99.0)):
        with pytest.raises(NotAllowed, match="is gone"):
            plain.explain(name, key, [], at)
    with pytest.raises(NotAllowed, match="nobody made"):
        plain.explain("a/k", key, [seen("null", OTHER)], 99.0)
    with pytest.raises(NotAllowed, match="nobody made"):
        plain.explain("a/k", (), [seen("null", PIECE)], 99.0)


def test_rules_explain_versions() -> None:
    rules = Rules([Rule("a/", days=1), Rule("a/", noncurrent=1, newer=1)], keeps=True)
    old, new = version("1", PIECE, 10.0), version("2", OTHER, 10.5)
    key = rules.put_in_front("a/k", (old,), new)
    both = [seen("2", OTHER), seen("1", PIECE, False)]
    assert rules.explain("a/k", key, both, 99.0) == key
    hidden = [seen("m", None), *(each._replace(latest=False) for each in both)]
    (marker, *others) = rules.explain("a/k", key, hidden, 11.5)
    assert (marker.born, others[0].since) == (11.5, 11.5)
    with pytest.raises(NotAllowed, match="nobody made"):
        rules.explain("a/k", key, hidden, 11.4)
    with pytest.raises(NotAllowed, match="is gone"):  # one noncurrent version stays
        rules.explain("a/k", key, both[:1], 99.0)
    assert len(rules.explain("a/k", (marker, *others), hidden[:2], 11.5)) == 2
    with pytest.raises(NotAllowed, match="is gone"):
        rules.explain("a/k", (marker, *others), hidden[:2], 11.4)
    with pytest.raises(NotAllowed, match="latest"):
        rules.explain("a/k", key, [each._replace(latest=True) for each in both], 99.0)
    assert [each.id for each in rules.end("a/k", key)] == ["", "2"]


def test_a_marker_goes_only_when_nothing_is_behind_it() -> None:
    rules = Rules([Rule(marker=True)], keeps=True)
    marker, old = version("m", None, 10.0), version("1", PIECE, 9.0)
    assert rules.explain("k", (marker,), [], 10.0) == ()
    key = rules.put_in_front("k", (old,), marker)
    with pytest.raises(NotAllowed, match="is gone"):
        rules.explain("k", key, [seen("1", PIECE)], 99.0)
    assert rules.end("k", key) == key


def test_a_marker_may_have_gone_while_it_stood_alone() -> None:
    """A version in front of it expired, was removed by its client, and another came later."""
    rules = Rules([Rule(days=1)], keeps=True)
    marker, short = version("m", None, 10.0), version("1", PIECE, 10.2)
    removed = rules.without("k", rules.put_in_front("k", (marker,), short), "1", 11.5)
    assert [each.removed for each in removed] == [True, False]
    for born, allowed in ((11.6, True), (10.5, False)):
        key = rules.put_in_front("k", removed, version("2", OTHER, born))
        if allowed:
            assert len(rules.explain("k", key, [seen("2", OTHER)], 11.7)) == 1
        else:
            with pytest.raises(NotAllowed, match="is gone"):
                rules.explain("k", key, [seen("2", OTHER)], 11.7)


def test_histories_tell_one_version_from_another() -> None:
    empty = history.Bucket("Enabled", {})
    once = history.Put("k", PIECE).on(empty).named("k", "1")
    twice = history.Put("k", OTHER).on(once)
    told = twice.named("k", "2")
    assert history.explains(twice, told)
    assert not history.explains(twice, once)
    assert not history.explains(twice, twice.named("k", "1")), "an id that another has"
    assert not history.explains(told, twice.named("k", "3"))
    suspended = history.SetStatus("Suspended").on(told)
    over = history.Delete("k").on(history.Put("k", PIECE).on(suspended))
    assert [each.id for each in over.of("k")] == ["null", "2", "1"]
    assert over.of("k")[0].piece is None
    tagged = history.SetTags("k", "1", (("a", "b"),)).on(told)
    assert not history.explains(told, tagged)
    assert not history.explains(told, replace(told, status="Suspended"))
    assert "k: seen" in history.difference(once, told)
    assert history.Remove("k", "2").on(told) == once
