"""Waiting for a time."""

import pytest

from engine.events import TimerFired
from tests.documents import arrow, delay, document, expr, join, line, put, split
from tests.engine.world import BEGAN, World


@pytest.mark.parametrize(("duration", "milliseconds"), [("PT30S", 30_000), (1.5, 1_500), ("P1D", 86_400_000)])
def test_a_delay_is_a_timer_of_its_duration(duration: object, milliseconds: int) -> None:
    world = World(line(delay("wait", duration)))
    assert world.command("wait#1/delay").due == BEGAN + milliseconds
    assert world.statuses()["wait"] == "IN_PROGRESS"
    world.fire("wait#1/delay")
    assert world.statuses()["wait"] == "COMPLETED"
    assert world.output == {}


def test_a_duration_may_be_worked_out() -> None:
    world = World(line(delay("wait", expr("__context__.days * 86400"))), {"days": 2})
    assert world.command("wait#1/delay").due == BEGAN + 2 * 86_400_000


def test_a_delay_until_a_time_fires_then() -> None:
    world = World(line(delay("wait", None, until="2023-11-15T00:00:00+01:00")))
    assert world.command("wait#1/delay").due == 1_700_002_800_000


@pytest.mark.parametrize("wait", [delay("wait", None, until="2001-01-01T00:00:00Z"), delay("wait", 0)])
def test_a_delay_that_is_over_already_costs_nothing(wait: dict[str, object]) -> None:
    assert World(line(wait)).output == {}


@pytest.mark.parametrize(
    ("wait", "code"),
    [
        (delay("wait", expr("'soon'")), "DURATION_INVALID"),
        (delay("wait", expr("-1")), "DURATION_INVALID"),
        (delay("wait", None, until="2030-01-01T00:00:00"), "TIME_INVALID"),
        (delay("wait", None, until=expr("12")), "TIME_INVALID"),
    ],
)
def test_a_delay_that_is_no_time_fails_the_run(wait: dict[str, object], code: str) -> None:
    assert World(line(wait)).failure.code == code


@pytest.mark.parametrize("duration", ["1e300", "'P1X'", "'P'"])
def test_a_duration_that_cannot_be_read_is_said_in_our_words(duration: str) -> None:
    failure = World(line(delay("wait", expr(duration)))).failure
    assert (failure.code, "validation" in failure.message) == ("DURATION_INVALID", False)


def test_a_delay_can_be_skipped_once() -> None:
    world = World(line(delay("one", "P1D"), delay("two", "P1D")))
    world.skip("one#1/delay")
    assert world.state.at == BEGAN + 1_000
    assert list(world.state.timers) == ["two#1/delay"]
    world.changes_nothing(TimerFired("one#1/delay", world.tick()))
    assert world.skip("two#1/delay").output == {}


def test_several_delays_of_one_step_run_side_by_side() -> None:
    definition = document(
        split("s"),
        put("a", a=1),
        put("b", b=1),
        join("merge", "EXCLUSIVE"),
        delay("wait"),
        join("merge2", "EXCLUSIVE"),
        arrow("start -> s"),
        arrow("s -> a"),
        arrow("s -> b"),
        arrow("a -> merge"),
        arrow("b -> merge"),
        arrow("merge -> wait"),
        arrow("wait -> end"),
    )
    world = World(definition)
    assert world.keys() == ["wait#1/delay", "wait#2/delay"]
    world.fire("wait#1/delay")
    assert world.statuses()["wait"] == "IN_PROGRESS"
    assert world.fire("wait#2/delay").output == {"a": 1, "b": 1}


def test_a_mapping_that_fails_after_a_delay_fails_the_run() -> None:
    mapping = [{"targetPath": "x", "value": expr("__context__.missing")}]
    assert World(line(delay("wait", outputMapping=mapping))).fire("wait#1/delay").failure.step_id == "wait"
