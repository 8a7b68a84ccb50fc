"""When starts are due, against a clock that is moved by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.pace import LATEST, Pace


def test_without_a_rate_as_many_are_due_as_may_be() -> None:
    pace = Pace(None, 0.0)
    pace.started(5)
    assert pace.due(0.0, 100) == 100
    assert pace.pause(0.0) == 0.0


@pytest.mark.parametrize("rate", [0.1, 1.0, 3.0, 20.0, 250.0])
def test_a_rate_holds_over_an_hour_without_drift(rate: float) -> None:
    pace, now, started = Pace(rate, 1_000.0), 1_000.0, 0
    while now < 4_600.0:
        due = pace.due(now, 100)
        pace.started(due)
        started += due
        # Each call takes its time, and what is left of the pause is waited.
        now += max(pace.pause(now), 0.07 if due else 0.001)
    assert abs(started - rate * 3_600) <= rate * 2 + 1


def test_what_was_not_started_in_time_does_not_come_all_at_once() -> None:
    pace = Pace(10.0, 0.0)
    assert pace.due(3_600.0, 10_000) == 10 * LATEST + 1


def test_a_slow_rate_waits_for_its_turn() -> None:
    pace = Pace(0.1, 0.0)
    assert pace.due(0.0, 100) == 1
    pace.started(1)
    assert pace.due(9.9, 100) == 0
    assert pace.pause(0.0) == pytest.approx(10.0)
    assert pace.due(10.0, 100) == 1


@given(st.floats(0.05, 500), st.lists(st.floats(0.0, 30.0), min_size=1, max_size=200))
def test_no_stretch_of_time_has_more_than_its_rate_and_what_may_be_late(rate: float, steps: list[float]) -> None:
    pace, now = Pace(rate, 0.0), 0.0
    made: list[tuple[float, int]] = []
    for step in steps:
        now += step
        due = pace.due(now, 100)
        pace.started(due)
        made.append((now, due))
    for first in range(0, len(made), 7):
        began = made[first][0]
        total = sum(count for _, count in made[first:])
        assert total <= rate * (now - began + max(LATEST, 1 / rate)) + 2
