"""Operators on the real server: pause and resume, skipped timers, incidents, suspended actions, cancels."""

import asyncio
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import CancelledError

from tests.documents import action, arrow, batch, child, confirm, document, expr, join, line, put, split, step
from tests.workflows.harness import Executions, Handle, event_types, failure_of, refused


async def parents(executions: Executions, leaf: dict[str, Any], *after: dict[str, Any]) -> dict[str, Any]:
    """A definition whose child's child runs `leaf`."""
    suffix = executions.task_queue[-8:]
    await executions.template(f"leaf-{suffix}", leaf)
    await executions.template(
        f"middle-{suffix}", line(child("sub", childWorkflowTemplateVersionId=f"leaf-{suffix}@1.0.0"))
    )
    return line(child("top", childWorkflowTemplateVersionId=f"middle-{suffix}@1.0.0"), *after)


async def is_paused(executions: Executions, handle: Handle, paused: bool = True) -> None:
    """Returns when a run is paused, or no longer."""
    for _ in range(200):
        view = await executions.view(handle)
        if any(wait.kind == "RESUME" for wait in view.waiting_for) == paused:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{handle.id} is {'not' if paused else 'still'} paused")


async def test_a_paused_run_begins_nothing_new_and_goes_on_when_it_is_resumed(running: Executions) -> None:
    nap = action("nap", actionKey="test.sleep", parameters={"seconds": 0.5})
    handle = await running.start(line(nap, action("next"), confirm("last")))
    await running.waits_for(handle, "nap")
    assert await running.control(handle, "PAUSE", actor="ada") == "APPLIED"
    assert await running.control(handle, "PAUSE") == "UNCHANGED"
    await running.waits_for(handle, "")
    await asyncio.sleep(0.3)
    assert (await running.statuses(handle)).keys() >= {"nap"}
    assert (await event_types(handle)).count("activity_task_scheduled") == 1
    assert await running.control(handle, "RESUME") == "APPLIED"
    await running.waits_for(handle, "last")
    assert await running.control(handle, "RESUME") == "UNCHANGED"
    await running.complete(handle, "last")
    await handle.result()
    assert (await event_types(handle)).count("activity_task_scheduled") == 2


async def test_a_pause_and_a_resume_reach_children_and_their_children(cached: Executions) -> None:
    definition = await parents(cached, line(confirm("ask"), action("call")), action("after"))
    handle = await cached.start(definition)
    children = await cached.children(handle, 2)
    first, second = children
    leaf = second if "sub" in await cached.statuses(first) else first
    await cached.waits_for(leaf, "ask")
    await cached.control(handle, "PAUSE")
    for one in children:
        await is_paused(cached, one)
    await cached.complete(leaf, "ask")
    await asyncio.sleep(0.3)
    assert "activity_task_scheduled" not in await event_types(leaf)
    await cached.control(handle, "RESUME")
    await handle.result()
    assert {row.closed_as for row in await cached.rows(handle)} == {"COMPLETED"}


async def test_a_pause_at_the_moment_that_children_start_reaches_them(cached: Executions) -> None:
    slug = f"leaf-{cached.task_queue[-8:]}"
    await cached.template(slug, line(confirm("ask")))
    definition = line(confirm("go"), batch("all", "[1..5]", childWorkflowTemplateVersionId=f"{slug}@1.0.0"))
    handle = await cached.start(definition)
    await cached.waits_for(handle, "go")
    await asyncio.gather(cached.complete(handle, "go"), cached.control(handle, "PAUSE"))
    await is_paused(cached, handle)
    if "all" in await cached.statuses(handle):
        for one in await cached.children(handle, 5):
            await is_paused(cached, one)
    await cached.control(handle, "RESUME")
    for one in await cached.children(handle, 5):
        await is_paused(cached, one, paused=False)
        await cached.waits_for(one, "ask")
        await cached.complete(one, "ask")
    await handle.result()


async def test_a_timer_can_be_skipped(running: Executions) -> None:
    handle = await running.start(line(step("delay", "SYS_DELAY", duration="PT1H"), action("call")))
    await running.waits_for(handle, "delay")
    assert await refused(running.control(handle, "SKIP_TIMER", "call")) == "NO_TIMER"
    assert await running.control(handle, "SKIP_TIMER", "delay") == "APPLIED"
    await handle.result()
    assert (await event_types(handle)).count("timer_fired") == 0


async def test_an_action_suspends_itself_and_is_entered_again_with_what_came(running: Executions) -> None:
    ask = action("ask", actionKey="test.ask", parameters={"question": "why?"})
    handle = await running.start(line(ask, output=expr("__steps__.ask")))
    for _ in range(200):
        waits = (await running.view(handle)).waiting_for
        if [one.kind for one in waits] == ["SUSPENDED"]:
            break
        await asyncio.sleep(0.05)
    assert await running.control(handle, "RESUME_STEP", "ask", data={"because": 1}) == "APPLIED"
    assert await handle.result() == {"asked": "why?", "answer": {"because": 1}}


def parked(**fields: Any) -> dict[str, Any]:
    """A step that fails at 2 and is parked then."""
    return action(
        "call",
        actionKey="test.choosy",
        parameters={"n": expr("__context__.n"), "bad": [2]},
        onFailure="INCIDENT",
        **fields,
    )


async def incident(executions: Executions, handle: Handle) -> None:
    """Returns when a step is parked."""
    for _ in range(200):
        waits = (await executions.view(handle)).waiting_for
        if any(one.kind == "INCIDENT" for one in waits):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("no incident")


async def test_an_incident_is_tried_again_with_other_parameters(running: Executions) -> None:
    handle = await running.start(line(parked(), output=expr("__steps__.call")), {"n": 2})
    await incident(running, handle)
    assert (await running.statuses(handle))["call"] == "INCIDENT"
    assert await running.control(handle, "RETRY_INCIDENT", "call") == "APPLIED"
    await incident(running, handle)
    edited = {"edit_parameters": True, "parameters": {"n": 3, "bad": []}}
    await running.control(handle, "RETRY_INCIDENT", "call", **edited)
    assert await handle.result() == 3
    assert (await event_types(handle)).count("activity_task_scheduled") == 3


async def test_an_incident_is_completed_by_hand(running: Executions) -> None:
    handle = await running.start(line(parked(), output=expr("__steps__.call")), {"n": 2})
    await incident(running, handle)
    await running.control(handle, "COMPLETE_INCIDENT", "call", output="by hand", actor="ada")
    assert await handle.result() == "by hand"


async def test_an_incident_that_is_given_up_fails_the_run(running: Executions) -> None:
    handle = await running.start(line(parked()), {"n": 2})
    await incident(running, handle)
    await running.control(handle, "FAIL_INCIDENT", "call")
    failure = await failure_of(handle)
    assert (failure["code"], failure["stepId"]) == ("CHOOSY", "call")
    assert (await running.closed(handle)).closed_as == "FAILED"


async def test_a_condition_that_cannot_be_evaluated_is_parked_and_decided_by_hand(running: Executions) -> None:
    definition = document(
        split("x", "EXCLUSIVE"),
        put("a", way="a"),
        put("b", way="b"),
        join("m", "EXCLUSIVE"),
        arrow("start -> x"),
        arrow("x -> a", condition="__context__.missing"),
        arrow("x -> b", isDefault=True),
        *(arrow(text) for text in ("a -> m", "b -> m", "m -> end")),
        onFailure="INCIDENT",
    )
    handle = await running.start(definition)
    await incident(running, handle)
    await running.control(handle, "COMPLETE_INCIDENT", "x", output={"transitions": ["x-a"]})
    assert await handle.result() == {"way": "a"}


@pytest.mark.parametrize(
    "step_of_its_kind",
    [
        put("it", way=expr("__context__.missing")),
        confirm("it", timeout=1),
        action("it", forEach={"iterable": {"type": "EXPRESSION", "expr": {"src": "[1, 2]"}}}, actionKey="test.nobody"),
    ],
    ids=["set", "person", "items"],
)
async def test_parameters_are_refused_where_no_action_would_take_them(
    cached: Executions, step_of_its_kind: dict[str, Any]
) -> None:
    handle = await cached.start(line(step_of_its_kind, onFailure="INCIDENT"))
    await incident(cached, handle)
    edited = {"edit_parameters": True, "parameters": {"n": 3}}
    assert await refused(cached.control(handle, "RETRY_INCIDENT", "it", **edited)) == "PARAMETERS_NOT_TAKEN"
    assert "workflow_execution_update_accepted" not in await event_types(handle)
    assert await cached.control(handle, "RETRY_INCIDENT", "it") == "APPLIED"
    await handle.terminate()


@pytest.mark.parametrize(
    ("what", "step_id", "code"),
    [
        ("SKIP_TIMER", "nowhere", "STEP_NOT_FOUND"),
        ("SKIP_TIMER", "ask", "NO_TIMER"),
        ("RESUME_STEP", "ask", "STEP_NOT_OPEN"),
        ("RETRY_INCIDENT", "ask", "NO_INCIDENT"),
        ("COMPLETE_INCIDENT", None, "STEP_NOT_FOUND"),
    ],
)
async def test_what_does_not_apply_is_refused_and_leaves_no_event(
    cached: Executions, what: str, step_id: str | None, code: str
) -> None:
    handle = await cached.start(line(confirm("ask")))
    await cached.waits_for(handle, "ask")
    assert await refused(cached.control(handle, what, step_id)) == code
    assert "workflow_execution_update_accepted" not in await event_types(handle)
    await handle.terminate()


async def is_cancelled(handle: Handle) -> None:
    """Returns when a run has ended as cancelled."""
    with pytest.raises(WorkflowFailureError) as ended:
        await handle.result()
    assert isinstance(ended.value.cause, CancelledError), ended.value.cause


async def test_a_cancel_by_update_ends_the_run_as_cancelled_and_its_children(cached: Executions) -> None:
    handle = await cached.start(await parents(cached, line(confirm("ask"))))
    await cached.children(handle, 2)
    assert await cached.control(handle, "CANCEL", reason="no longer wanted") == "APPLIED"
    await is_cancelled(handle)
    assert (await cached.closed(handle)).status_reason == "no longer wanted"
    assert {row.closed_as for row in await cached.rows(handle)} == {"CANCELLED"}


async def test_a_cancel_that_comes_before_the_first_task_closes_the_row_too(executions: Executions) -> None:
    handle = await executions.start(line(confirm("ask")))
    await handle.cancel()
    async with executions.worker():
        assert (await executions.closed(handle)).closed_as == "CANCELLED"
    await executions.replay_all()


async def test_a_second_cancel_changes_nothing(cached: Executions) -> None:
    undo = {"actionKey": "test.sleep", "parameters": {"seconds": 1}}
    handle = await cached.start(line(action("call", compensate=undo), confirm("ask")))
    await cached.waits_for(handle, "ask")
    assert await cached.control(handle, "CANCEL") == "APPLIED"
    assert await cached.control(handle, "CANCEL", compensate=False) == "UNCHANGED"
    await handle.cancel()
    await is_cancelled(handle)
    assert (await cached.statuses(handle))["call"] == "COMPENSATED"


async def test_a_child_that_nobody_waits_for_outlives_its_parent(cached: Executions) -> None:
    slug = f"leaf-{cached.task_queue[-8:]}"
    await cached.template(slug, line(confirm("ask")))
    detached = child("free", wait=False, childWorkflowTemplateVersionId=f"{slug}@1.0.0")
    handle = await cached.start(line(detached, output=expr("__steps__.free.executionId")))
    execution_id = await handle.result()
    free = cached.client.get_workflow_handle(f"execution/{execution_id}")
    await cached.waits_for(free, "ask")
    await cached.complete(free, "ask")
    assert await free.result() == {}
    assert {row.closed_as for row in await cached.rows(handle)} == {"COMPLETED"}


async def test_a_cancel_leaves_detached_children_alone(cached: Executions) -> None:
    slug = f"leaf-{cached.task_queue[-8:]}"
    await cached.template(slug, line(confirm("ask")))
    detached = child("free", wait=False, childWorkflowTemplateVersionId=f"{slug}@1.0.0")
    handle = await cached.start(line(detached, confirm("stay")))
    await cached.waits_for(handle, "stay")
    free = (await cached.children(handle, 1))[0]
    await cached.control(handle, "CANCEL")
    await is_cancelled(handle)
    await cached.waits_for(free, "ask")
    await cached.complete(free, "ask")
    await free.result()


async def test_the_state_query_gives_the_whole_memory(running: Executions) -> None:
    handle = await running.start(line(put("set", a=1), confirm("ask"), output=expr("__context__.a")))
    await running.waits_for(handle, "ask")
    memory = await running.memory(handle)
    assert memory["context"] == {"a": 1}
    assert set(memory["work"]) == {"ask#1"}
    await running.complete(handle, "ask")
    assert await handle.result() == 1
    assert (await running.memory(handle))["phase"] == "COMPLETED"
