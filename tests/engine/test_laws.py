"""Laws of the interpreter, on random processes and random orders of what happens.

Every `World` sees to it, after each event, that the state and what is open outside agree, that nothing is begun while
a run is paused, and that nothing is left behind in the end.
"""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import SignalReceived, Yielded, events_from_json, events_to_json
from engine.interpreter import advance, start
from engine.protocol import Cancel, Complete, Fail, OpenHumanTask, RunAction, SpawnChildren
from engine.state import Phase, Stage
from engine.state_json import state_from_json, state_to_json
from engine.validate import has_errors, validate
from engine.withdrawal import command_key
from tests.engine.processes import Block, blocks, steady_blocks, written_out
from tests.engine.world import World, run_input

ORDERS = st.randoms(use_true_random=False)
MOMENTS = st.integers(0, 20)
UNDO = {"actionKey": "test.undo", "parameters": None}
UNDOABLE = {"SYS_ACTION", "SYS_SUB_WORKFLOW", "HUMAN_CONFIRM", "SYS_WAIT_SIGNAL"}


def choices(world: World) -> list[str]:
    """What could happen next: an answer, a timer, or (under the key of what waits for it) a signal."""
    return sorted([*world.open, *world.waits()])


def happens(world: World, order: Any) -> str | None:
    """One of the things that could; tells the key of what has succeeded by it, if that is some work."""
    key = order.choice(choices(world))
    wanted = world.waits().get(key)
    if wanted is not None:
        work = world.state.work[key]
        key = command_key(world.plan.node(work.step_id), key, work)
        world.signal(wanted[0], key=next(iter(wanted[1:]), None))
    elif key in world.withdrawn and order.random() < 0.5:
        world.failed(key, "CANCELLED")
        return None
    else:
        command = world.open[key]
        world.done(key)
        if not isinstance(command, RunAction | SpawnChildren | OpenHumanTask):
            return None
    return key


def played(document: dict[str, Any], order: Any, world: World | None = None) -> World:
    """A run whose open work is answered in a random order until it ends."""
    world = World(document) if world is None else world
    while world.ended is None:
        assert choices(world), f"nothing is open and the run has not ended: {world.state}"
        happens(world, order)
        assert len(world.history) < 5_000
    return world


def begun(document: dict[str, Any], order: Any, moment: int) -> World:
    """A run to which so many things have happened, or all of them."""
    world = World(document)
    for _ in range(moment):
        if world.ended is None:
            happens(world, order)
    return world


def failing(world: World, order: Any) -> None:
    """Something that runs fails for good, where anything does."""
    if world.outside():
        world.failed(order.choice(sorted(world.outside())), retryable=False)


def visits(world: World) -> dict[str, int]:
    """How often each step was entered."""
    return {key: record.visits for key, record in world.state.steps.items()}


@given(blocks(), ORDERS)
def test_every_sound_process_ends_well_in_whatever_order_things_happen(block: Block, order: Any) -> None:
    world = played(written_out(block), order)
    assert isinstance(world.ended, Complete)
    assert set(world.statuses().values()) <= {"COMPLETED", "SKIPPED", "CANCELLED", "FAILED"}


@given(steady_blocks(), ORDERS)
def test_where_nothing_races_every_step_ends_well_or_is_skipped(block: Block, order: Any) -> None:
    statuses = played(written_out(block), order).statuses()
    caught = {step_id for step_id in statuses if step_id.startswith("tried")}
    assert {status for step_id, status in statuses.items() if step_id not in caught} <= {"COMPLETED", "SKIPPED"}


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


@given(blocks(), ORDERS)
def test_a_run_that_is_carried_over_ends_like_one_that_is_not(block: Block, order: Any) -> None:
    document = written_out(block)
    world = played(document, order)
    other = World(document)
    for event in world.history:
        if not other.outside():
            other.carried_over()
        other.replayed(event)
    assert other.state == world.state
    assert other.ended == world.ended


@given(blocks(), ORDERS, MOMENTS)
def test_what_has_been_answered_changes_nothing_when_it_comes_again(block: Block, order: Any, moment: int) -> None:
    world = begun(written_out(block), order, moment)
    for event in world.history:
        if isinstance(event, SignalReceived | Yielded):
            continue
        if getattr(event, "key", "") not in world.open:
            world.changes_nothing(event)


@given(steady_blocks(), ORDERS, ORDERS)
def test_independent_branches_commute(block: Block, one: Any, other: Any) -> None:
    document = written_out(block)
    first, second = played(document, one), played(document, other)
    assert first.output == second.output
    assert first.statuses() == second.statuses()
    assert visits(first) == visits(second)


@given(blocks(), ORDERS, MOMENTS)
def test_a_cancel_at_any_moment_ends_the_run_once_everything_outside_has_answered(
    block: Block, order: Any, moment: int
) -> None:
    world = begun(written_out(block), order, moment)
    if world.state.phase is not Phase.RUNNING:
        return
    world.cancelled()
    while world.ended is None:
        assert set(world.open) == world.withdrawn
        happens(world, order)
    assert isinstance(world.ended, Cancel)


@given(blocks(), ORDERS, MOMENTS)
def test_a_failure_at_any_moment_ends_the_run_or_is_borne(block: Block, order: Any, moment: int) -> None:
    document = written_out(block)
    world = begun(document, order, moment)
    if world.ended is None:
        failing(world, order)
        played(document, order, world)
    assert isinstance(world.ended, Complete | Fail)


@given(blocks(), ORDERS, MOMENTS)
def test_a_parked_failure_that_is_tried_again_does_no_harm(block: Block, order: Any, moment: int) -> None:
    document = {**written_out(block), "onFailure": "INCIDENT"}
    world = begun(document, order, moment)
    if world.ended is None:
        failing(world, order)
        for key in [key for key, work in world.state.work.items() if work.stage is Stage.INCIDENT]:
            world.resolve(key, "RETRY")
        played(document, order, world)
    assert isinstance(world.ended, Complete)


@given(blocks(), ORDERS, MOMENTS, st.booleans())
def test_whatever_has_succeeded_is_undone_once_and_in_reverse_order(
    block: Block, order: Any, moment: int, cancels: bool
) -> None:
    document = written_out(block)
    for part in document["steps"]:
        if part["type"] in UNDOABLE:
            part["compensate"] = UNDO
    world = World(document)
    succeeded = []
    for _ in range(moment):
        if world.ended is None:
            succeeded.append(happens(world, order))
    if world.state.phase is not Phase.RUNNING:
        return
    world.cancelled() if cancels else failing(world, order)
    while world.ended is None:
        done = happens(world, order)
        succeeded.append(None if done is not None and done.endswith("/compensate") else done)
    asked = [command.key for command in world.said(RunAction) if command.key.endswith("/compensate")]
    if isinstance(world.ended, Complete):
        assert not asked
    else:
        assert asked == [f"{key}/compensate" for key in reversed(succeeded) if key is not None]


@given(steady_blocks(), ORDERS, MOMENTS)
def test_a_run_that_was_paused_ends_like_one_that_was_not(block: Block, order: Any, moment: int) -> None:
    document = written_out(block)
    world = begun(document, order, moment)
    if world.ended is None:
        world.paused()
        while choices(world):
            happens(world, order)
        world.resumed()
        played(document, order, world)
    other = played(document, order)
    assert world.output == other.output
    assert world.statuses() == other.statuses()
    assert visits(world) == visits(other)


@settings(max_examples=50)
@given(blocks())
def test_what_compiles_is_accepted_by_the_validator(block: Block) -> None:
    problems = [problem for problem in validate(written_out(block)) if problem.rule != "REFERENCE_BEFORE_AVAILABLE"]
    assert not has_errors(tuple(problems)), problems
