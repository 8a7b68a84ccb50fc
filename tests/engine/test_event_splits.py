"""Several waits, of which the first to finish wins."""

import itertools
from typing import Any

from engine.events import HumanCompleted, TimerFired
from engine.protocol import CloseHumanTask, Withdraw
from tests.documents import (
    Document,
    arrow,
    confirm,
    delay,
    document,
    event_split,
    expr,
    join,
    policy_join,
    put,
    split,
    wait_signal,
)
from tests.engine.world import World


def race(*targets: Document, before: tuple[Document, ...] = (), after: tuple[Document, ...] = (), **fields: Any) -> Any:
    """An event split over the targets, each followed by a SET that says who won."""
    chain = ["start", *(part["id"] for part in before), "e"]
    parts: list[Document] = [*before, event_split("e"), *targets, join("j", "EXCLUSIVE"), *after]
    arrows = [arrow(f"{one} -> {other}") for one, other in itertools.pairwise(chain)]
    for target in targets:
        name = target["id"]
        parts.append(put(f"won_{name}", winner=name))
        arrows += [arrow(f"e -> {name}"), arrow(f"{name} -> won_{name}"), arrow(f"won_{name} -> j")]
    chain = ["j", *(part["id"] for part in after), "end"]
    arrows += [arrow(f"{one} -> {other}") for one, other in itertools.pairwise(chain)]
    return document(*parts, *arrows, **fields)


def test_the_first_to_finish_wins_and_the_others_are_withdrawn() -> None:
    definition = race(wait_signal("paid", timeout=60), confirm("ok", timeout=30), delay("late"))
    world = World(definition)
    assert world.keys() == ["late#1/delay", "ok#1", "ok#1/timeout", "paid#1/timeout"]
    world.done("ok#1")
    assert world.output == {"winner": "ok"}
    assert world.statuses()["paid"] == world.statuses()["late"] == "CANCELLED"


def test_a_person_who_loses_is_no_longer_asked() -> None:
    world = World(race(wait_signal("paid"), confirm("ok"), after=(confirm("next"),))).signal("paid")
    assert CloseHumanTask("ok#1", "CANCELLED") in world.commands
    world.changes_nothing(HumanCompleted("ok#1", world.tick()))
    assert world.done("next#1").output == {"winner": "paid"}


def test_a_timer_that_loses_is_stopped_and_does_nothing_when_it_fires() -> None:
    world = World(race(wait_signal("paid"), delay("late"), after=(confirm("next"),))).signal("paid")
    assert world.said(Withdraw) == [Withdraw(("late#1/delay",))]
    world.changes_nothing(TimerFired("late#1/delay", world.tick()))


def test_the_buffered_signal_of_a_loser_stays() -> None:
    definition = race(
        wait_signal("a", "first"),
        wait_signal("b", "second"),
        before=(confirm("ok"),),
        after=(wait_signal("c", "second"),),
    )
    world = World(definition).signal("second", 2).signal("first", 1)
    world.done("ok#1")
    assert world.output == {"winner": "a"}


def test_a_target_that_is_satisfied_at_once_wins_before_the_others_open() -> None:
    definition = race(delay("now", 0), confirm("ok"), wait_signal("paid", timeout=60))
    world = World(definition)
    assert world.output == {"winner": "now"}
    assert len(world.commands) == 1


def test_of_two_signals_that_wait_already_the_first_target_wins() -> None:
    definition = race(wait_signal("a"), wait_signal("b"), before=(confirm("ok"),))
    assert World(definition).signal("b").signal("a").done("ok#1").output == {"winner": "a"}


def test_a_later_target_that_is_satisfied_at_once_withdraws_those_that_were_opened_in_this_very_call() -> None:
    world = World(race(confirm("ok", timeout=60), delay("late"), wait_signal("paid"), before=(confirm("first"),)))
    commands = len(world.commands)
    world.signal("paid").done("first#1")
    assert world.output == {"winner": "paid"}
    assert len(world.commands) == commands + 2  # the first person's task is closed; the run completes


def test_a_target_that_is_disabled_is_passed_by_and_wins() -> None:
    world = World(race(confirm("ok", activationPolicy={"defaultStatus": "DISABLED"}), delay("late")))
    assert world.output == {"winner": "ok"}


def test_a_target_whose_failure_is_caught_wins() -> None:
    definition = race(wait_signal("paid", timeout=60), confirm("ok"))
    definition["stepTransitions"].append(arrow("paid -> j", on="TIMEOUT"))
    assert World(definition).fire("paid#1/timeout").output == {}


def test_a_target_that_fails_uncaught_fails_the_run() -> None:
    world = World(race(wait_signal("paid", timeout=60), confirm("ok"))).fire("paid#1/timeout")
    assert world.failure.code == "STEP_TIMED_OUT"
    assert world.statuses()["ok"] == "CANCELLED"


def test_a_parked_target_competes_on_and_is_withdrawn_when_another_wins() -> None:
    definition = race(wait_signal("paid", timeout=60, onFailure="INCIDENT"), confirm("ok"))
    world = World(definition).fire("paid#1/timeout")
    assert world.keys() == ["ok#1", "paid#1"]
    assert world.done("ok#1").output == {"winner": "ok"}


def test_each_activation_of_an_event_split_is_a_race_of_its_own() -> None:
    definition = race(wait_signal("paid"), delay("late"))
    definition["steps"] += [split("s"), put("x", x=1), put("y", y=1), join("m", "EXCLUSIVE")]
    definition["stepTransitions"][0] = arrow("start -> s")
    definition["stepTransitions"] += [
        arrow("s -> x"), arrow("s -> y"), arrow("x -> m"), arrow("y -> m"), arrow("m -> e"),
    ]  # fmt: skip
    world = World(definition)
    assert sorted(world.waits()) == ["paid#1", "paid#2"]
    world.signal("paid")
    assert world.keys() == ["late#2/delay"]
    assert world.fire("late#2/delay").output == {"winner": "late", "x": 1, "y": 1}


def test_a_race_in_a_branch_that_is_withdrawn_goes_with_it() -> None:
    definition = document(
        split("s"),
        confirm("fast"),
        event_split("e"),
        wait_signal("paid", timeout=60),
        delay("late"),
        join("m", "EXCLUSIVE"),
        policy_join("j", "ANY", cancel=True),
        arrow("start -> s"),
        arrow("s -> fast"),
        arrow("s -> e"),
        arrow("e -> paid"),
        arrow("e -> late"),
        arrow("paid -> m"),
        arrow("late -> m"),
        arrow("m -> j"),
        arrow("fast -> j"),
        arrow("j -> end"),
        output=expr("1"),
    )
    world = World(definition)
    assert world.done("fast#1").output == 1
    assert world.statuses()["paid"] == world.statuses()["late"] == "CANCELLED"
