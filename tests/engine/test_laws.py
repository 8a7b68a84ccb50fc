"""Laws of the interpreter, on random processes and random orders of what happens."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import events_from_json, events_to_json
from engine.interpreter import advance, start
from engine.protocol import Complete
from engine.state_json import state_from_json, state_to_json
from engine.validate import has_errors, validate
from tests.engine.processes import Block, blocks, steady_blocks, written_out
from tests.engine.world import World, run_input

ORDERS = st.randoms(use_true_random=False)


def played(document: dict[str, Any], order: Any, **fields: Any) -> World:
    """A run whose open work is answered in a random order until it ends."""
    world = World(document, **fields)
    answers = 0
    while world.ended is None:
        answer(world, order)
        answers += 1
        assert answers < 5_000
    return world


def answer(world: World, order: Any) -> None:
    """One thing happens: what is open answers, or a signal comes that something waits for."""
    keys = [*sorted(world.open), *sorted(world.waits())]
    assert keys, f"nothing is open and the run has not ended: {world.state}"
    key = order.choice(keys)
    if key in world.open:
        world.done(key)
    else:
        world.signal(world.waits()[key][0])


@given(blocks(), ORDERS)
def test_every_sound_process_ends_well_in_whatever_order_things_happen(block: Block, order: Any) -> None:
    world = played(written_out(block), order)
    assert isinstance(world.ended, Complete)
    state = world.state
    assert not state.work
    assert not state.arrived
    assert not state.filled
    assert not state.fans
    assert not state.leaving
    assert not state.timers
    assert not state.regions
    assert state.running == 0
    assert set(world.statuses().values()) <= {"COMPLETED", "SKIPPED", "FAILED", "CANCELLED"}


@given(steady_blocks(), ORDERS)
def test_where_nothing_races_nothing_is_withdrawn(block: Block, order: Any) -> None:
    world = played(written_out(block), order)
    assert set(world.statuses().values()) <= {"COMPLETED", "SKIPPED", "FAILED"}


@given(blocks(), ORDERS)
def test_the_same_events_give_the_same_states_and_commands(block: Block, order: Any) -> None:
    world = played(written_out(block), order)
    step = start(world.plan, run_input())
    commands = list(step.commands)
    for event in world.history:
        step = advance(world.plan, step.state, event)
        commands.extend(step.commands)
    assert step.state == world.state
    assert commands == world.commands


@given(blocks(), ORDERS)
def test_a_state_that_went_through_json_continues_the_same_way(block: Block, order: Any) -> None:
    world = played(written_out(block), order)
    step = start(world.plan, run_input())
    commands = list(step.commands)
    for event in world.history:
        text = json.dumps(state_to_json(step.state))
        step = advance(world.plan, state_from_json(json.loads(text)), event)
        commands.extend(step.commands)
    assert step.state == world.state
    assert commands == world.commands
    assert state_from_json(state_to_json(world.state)) == world.state
    assert events_from_json(events_to_json(world.history)) == tuple(world.history)


@given(steady_blocks(), ORDERS, ORDERS)
def test_independent_branches_commute(block: Block, one: Any, other: Any) -> None:
    document = written_out(block)
    first, second = played(document, one), played(document, other)
    assert first.output == second.output
    assert first.statuses() == second.statuses()
    visits = [{key: record.visits for key, record in world.state.steps.items()} for world in (first, second)]
    assert visits[0] == visits[1]


@given(blocks(), ORDERS, st.integers(0, 20))
def test_a_cancel_at_any_moment_ends_the_run_once_everything_outside_has_answered(
    block: Block, order: Any, moment: int
) -> None:
    world = World(written_out(block))
    for _ in range(moment):
        if world.ended is None:
            answer(world, order)
    if world.ended is not None:
        return
    world.cancelled()
    while world.ended is None:
        world.done(order.choice(sorted(world.withdrawn)))
    assert type(world.ended).__name__ == "Cancel"
    assert not world.state.work


@settings(max_examples=50)
@given(blocks())
def test_what_compiles_is_accepted_by_the_validator(block: Block) -> None:
    problems = [problem for problem in validate(written_out(block)) if problem.rule != "REFERENCE_BEFORE_AVAILABLE"]
    assert not has_errors(tuple(problems)), problems
