"""Inputs, outputs and errors of steps, read from the histories of real runs."""

import asyncio
from uuid import UUID

import pytest

from app.contracts import child_id
from app.executions.runs import find_outcome
from app.executions.schemas import StepCall, StepDetail
from app.executions.step_reading import read_step
from app.executions.step_scan import MOST_EVENTS, Wanted
from app.run_contracts import COMPLETE_STEP, StepCompletion
from app.settings import TemporalSettings
from app.temporal import Temporal
from tests.documents import action, arrow, batch, child, confirm, document, expr, join, line, split, step
from tests.workflows.harness import Executions, Handle
from tests.workflows.test_execution import loop_of_actions


async def read(
    executions: Executions,
    handle: Handle,
    step_id: str,
    visit: int | None = None,
    item: int | None = None,
    cursor: str | None = None,
    limit: int = 20,
    most_events: int = MOST_EVENTS,
    *,
    chunk: str | None = None,
) -> StepDetail:
    """A step of an execution, over a connection of its own."""
    address = executions.client.service_client.config.target_host
    temporal = Temporal(TemporalSettings(address=address), executions.converter)
    execution_id = UUID(handle.id.removeprefix("execution/"))
    wanted = Wanted(step_id, visit, item, chunk, most_events)
    return await read_step(executions.database, temporal, execution_id, wanted, cursor=cursor, limit=limit)


def only(detail: StepDetail) -> StepCall:
    """The one call of a step's one visit."""
    [visit] = detail.visits
    [call] = visit.calls
    return call


async def test_an_action_s_parameters_and_output_are_read(running: Executions) -> None:
    handle = await running.start(line(action("call", parameters={"n": expr("__context__.n")})), {"n": 7})
    await handle.result()
    detail = await read(running, handle, "call")
    assert (detail.name, detail.type, detail.status, detail.visit_count) == ("call", "SYS_ACTION", "COMPLETED", 1)
    call = only(detail)
    assert (call.key, call.kind, call.name, call.status) == ("call#1", "ACTION", "test.echo", "COMPLETED")
    assert call.input == {"n": 7}
    assert call.output == {"n": 7, "key": f"{handle.id.removeprefix('execution/')}/call#1"}
    assert call.attempts == 1
    assert call.scheduled_at is not None
    assert call.started_at is not None
    assert call.closed_at is not None
    assert call.scheduled_at <= call.started_at <= call.closed_at
    assert (detail.next_cursor, detail.truncated) == (None, False)


async def test_a_failed_action_shows_its_error_its_attempts_and_the_failure_before(running: Executions) -> None:
    failing = action(
        "bad",
        actionKey="test.fail",
        parameters={"retryable": True},
        retry={"maxAttempts": 3, "initialInterval": 0.05},
    )
    handle = await running.start(line(failing))
    with pytest.raises(Exception, match="failed"):
        await handle.result()
    call = only(await read(running, handle, "bad"))
    assert (call.status, call.attempts) == ("FAILED", 3)
    assert call.error is not None
    assert call.last_failure is not None
    assert (call.error.code, call.last_failure.code) == ("BROKEN", "BROKEN")
    assert "output" not in call.model_fields_set


async def test_an_action_under_way_shows_how_often_it_has_been_tried(running: Executions) -> None:
    failing = action(
        "bad",
        actionKey="test.fail",
        parameters={"retryable": True},
        retry={"maxAttempts": 100, "initialInterval": 0.2, "maxInterval": 0.2},
    )
    handle = await running.start(line(failing))
    for _ in range(100):
        call = only(await read(running, handle, "bad"))
        if (call.attempts or 0) > 2:
            break
        await asyncio.sleep(0.05)
    assert (call.status, call.input) == ("OPEN", {"retryable": True})
    assert call.last_failure is not None
    assert call.last_failure.code == "BROKEN"
    await handle.terminate()


async def test_a_timed_out_action_says_so(running: Executions) -> None:
    slow = action("slow", actionKey="test.sleep", parameters={"seconds": 30}, timeout=0.2, retry={"maxAttempts": 1})
    handle = await running.start(line(slow))
    with pytest.raises(Exception, match="failed"):
        await handle.result()
    call = only(await read(running, handle, "slow"))
    assert call.status == "TIMED_OUT"
    assert call.error is not None
    assert call.error.code == "STEP_TIMED_OUT"


async def test_a_person_s_answer_is_read_and_what_is_waited_for_before_it(running: Executions) -> None:
    handle = await running.start(line(confirm("ok", outcomes=["yes", "no"], timeout=600)))
    await running.waits_for(handle, "ok")
    [visit] = (await read(running, handle, "ok")).visits
    assert [wait.kind for wait in visit.waiting_for] == ["PERSON"]
    assert [(call.kind, call.status, call.role) for call in visit.calls] == [("TIMER", "OPEN", "timeout")]
    assert visit.calls[0].due_at is not None

    await handle.execute_update(
        COMPLETE_STEP, StepCompletion(step_id="ok", outcome="yes", comment="fine", completed_by="ann")
    )
    await handle.result()
    [visit] = (await read(running, handle, "ok")).visits
    assert (visit.visit, visit.waiting_for) == (1, [])
    answer, timer = visit.calls
    assert (answer.key, answer.kind, answer.status) == ("ok#1", "PERSON", "COMPLETED")
    assert answer.input == {"outcome": "yes", "comment": "fine", "completedBy": "ann"}
    assert (answer.output["outcome"], answer.output["completedBy"]) == ("yes", "ann")
    assert (timer.role, timer.status) == ("timeout", "CANCELLED")


async def test_children_are_read_with_the_executions_they_lead_to(cached: Executions) -> None:
    await cached.template("child", line(action("call", parameters={"n": expr("__context__.n")})))
    mapping = [{"targetPath": "n", "value": expr("__each__")}]
    many = batch("many", "[5..8]", concurrency=2, inputMapping=mapping)
    handle = await cached.start(line(child("one", inputMapping=[{"targetPath": "n", "value": 5}]), many))
    await handle.result()
    parent = handle.id.removeprefix("execution/")
    one = only(await read(cached, handle, "one"))
    assert (one.key, one.kind, one.name, one.status, one.input) == ("one#1", "CHILD", "child", "COMPLETED", {"n": 5})
    assert one.execution_id == child_id(parent, "one#1", 1)
    assert one.output == {"n": 5}
    address = cached.client.service_client.config.target_host
    temporal = Temporal(TemporalSettings(address=address), cached.converter)
    outcome = await find_outcome(temporal, child_id(parent, "one#1", 1))
    assert outcome is not None
    assert outcome.output == {"n": 5}, "what a child tells its parent besides is not its output"

    [visit] = (await read(cached, handle, "many")).visits
    assert {(call.item, call.input["n"]) for call in visit.calls} == {(0, 5), (1, 6), (2, 7), (3, 8)}
    assert {call.execution_id for call in visit.calls} == {
        child_id(parent, f"many#1/item/{index}", 1) for index in range(4)
    }
    third = only(await read(cached, handle, "many", visit=1, item=2))
    assert (third.key, third.input) == ("many#1/item/2", {"n": 7})


async def test_a_failed_child_shows_the_child_s_own_error(cached: Executions) -> None:
    await cached.template("broken", line(action("bad", actionKey="test.fail", parameters={"code": "NO_STOCK"})))
    handle = await cached.start(line(child("one", childWorkflowTemplateVersionId="broken@1.0.0")))
    with pytest.raises(Exception, match="failed"):
        await handle.result()
    call = only(await read(cached, handle, "one"))
    assert (call.status, call.error and call.error.code) == ("FAILED", "NO_STOCK")


async def test_visits_are_paged_the_newest_first_and_none_is_lost_or_shown_twice(running: Executions) -> None:
    handle = await running.start(loop_of_actions(7), {"n": 0})
    await handle.result()
    read_keys: list[str] = []
    cursor, pages = None, 0
    while True:
        detail = await read(running, handle, "call", cursor=cursor, limit=3)
        read_keys += [call.key for visit in detail.visits for call in visit.calls]
        pages, cursor = pages + 1, detail.next_cursor
        if cursor is None:
            break
    assert read_keys == [f"call#{visit}" for visit in range(7, 0, -1)]
    assert pages == 3
    fourth = await read(running, handle, "call", visit=4)
    assert only(fourth).input == {"n": 3}
    # It stopped where the visit began; what is older is for those who ask.
    assert fourth.next_cursor is not None
    older = await read(running, handle, "call", visit=4, cursor=fourth.next_cursor)
    assert (older.visits, older.next_cursor) == ([], None)


async def test_branches_that_overlap_keep_their_answers_across_pages(running: Executions) -> None:
    """The answer to an early call comes after the beginning of a late one: a page must not lose it."""
    definition = document(
        split("s"),
        action("a", actionKey="test.sleep", parameters={"seconds": 0.4}),
        action("b", actionKey="test.sleep", parameters={"seconds": 0.0}),
        action("c", actionKey="test.sleep", parameters={"seconds": 0.0}),
        join("j"),
        arrow("start -> s"),
        arrow("s -> a"),
        arrow("s -> b"),
        arrow("b -> c"),
        arrow("a -> j"),
        arrow("c -> j"),
        arrow("j -> end"),
    )
    handle = await running.start(definition)
    await handle.result()
    for step_id in "abc":
        assert only(await read(running, handle, step_id)).status == "COMPLETED"


async def test_a_page_that_costs_too_much_ends_early_and_the_next_goes_on(running: Executions) -> None:
    handle = await running.start(loop_of_actions(4), {"n": 0})
    await handle.result()
    keys: list[str] = []
    cursor, truncated = None, 0
    while True:
        detail = await read(running, handle, "call", cursor=cursor, most_events=10)
        keys += [call.key for visit in detail.visits for call in visit.calls]
        truncated += detail.truncated
        cursor = detail.next_cursor
        if cursor is None:
            break
    assert keys == ["call#4", "call#3", "call#2", "call#1"]
    assert truncated >= 2


async def test_the_newest_call_of_a_long_history_costs_the_end_of_it_only(running: Executions) -> None:
    handle = await running.start(loop_of_actions(40), {"n": 0})
    await handle.result()
    assert (await handle.describe()).history_length > 200
    newest = await read(running, handle, "call", limit=1, most_events=15)
    assert (only(newest).key, newest.truncated) == ("call#40", False)


async def test_a_step_that_costs_no_round_trip_has_no_calls(running: Executions) -> None:
    handle = await running.start(loop_of_actions(2), {"n": 0})
    await handle.result()
    detail = await read(running, handle, "count")
    assert (detail.type, detail.status, detail.visit_count, detail.visits) == ("SYS_SET", "COMPLETED", 2, [])


async def test_without_a_worker_history_is_read_all_the_same(executions: Executions) -> None:
    async with executions.worker():
        handle = await executions.start(line(action("call", parameters={"n": 1})))
        await handle.result()
    detail = await read(executions, handle, "call")
    assert only(detail).output["n"] == 1
    assert (detail.status, detail.problem and detail.problem.code) == (None, "WORKER_UNAVAILABLE")


async def test_signals_by_a_name_that_the_step_works_out_are_read_and_the_names_shown(running: Executions) -> None:
    signals = [step(name, "SYS_WAIT_SIGNAL", signal=expr(f"'{name}-' & __context__.n")) for name in ("early", "paid")]
    handle = await running.start(line(confirm("ask"), *signals), {"n": 7})
    await running.waits_for(handle, "ask")
    await handle.signal("early-7", "buffered")
    await handle.signal("another", "nobody's")
    assert (await read(running, handle, "early")).signals == [], "nobody knows yet that it is meant"
    await running.complete(handle, "ask")
    view = await running.waits_for(handle, "paid")
    assert view.waiting_for[0].signal == "paid-7"
    await handle.signal("paid-7", "plain")
    await handle.result()
    for name, payload in (("early", "buffered"), ("paid", "plain")):
        detail = await read(running, handle, name)
        assert detail.signal_names == [f"{name}-7"]
        assert [(call.name, call.input) for call in detail.signals] == [(f"{name}-7", payload)]
