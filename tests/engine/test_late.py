"""What was withdrawn and has succeeded all the same."""

import pytest

from engine.errors import ClockExceeded
from engine.events import ActionDone
from engine.interpreter import Overdue, Pace, advance
from engine.state import Phase
from tests.documents import expr, parallel
from tests.engine.world import World

UNDO = {"actionKey": "test.undo", "parameters": {"n": expr("__result__")}}


def out_of_time() -> None:
    raise ClockExceeded("the expressions of one step")


def test_what_would_undo_a_late_success_and_takes_too_long_to_work_out_is_a_turn_like_any_other() -> None:
    document = parallel("a", "b")
    next(step for step in document["steps"] if step["id"] == "b")["compensate"] = UNDO
    world = World(document).failed("a#1")
    event = ActionDone("b#1", world.tick(), "late")
    assert advance(world.plan, world.state, event).state.phase is Phase.COMPENSATING
    with pytest.raises(Overdue) as found:
        advance(world.plan, world.state, event, Pace(clock=out_of_time))
    assert found.value.turn == 0
    recorded = advance(world.plan, world.state, event, Pace(overdue=frozenset({0})))
    assert recorded.state.phase is Phase.FAILED
