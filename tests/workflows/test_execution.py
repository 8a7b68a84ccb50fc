"""The driver on a real Temporal server: what the engine commands is what happens."""

import asyncio
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError, CancelledError

from app.run_contracts import COMPLETE_STEP, StepCompletion
from tests.documents import (
    action,
    arrow,
    batch,
    child,
    confirm,
    document,
    expr,
    join,
    line,
    put,
    split,
    step,
)
from tests.workflows.harness import PATIENCE, Executions, event_types, failure_of

DOUBLE = line(action("call", parameters={"n": expr("__context__.n * 2")}), output=expr("__steps__.call.n"))


def loop_of_actions(rounds: int) -> dict[str, Any]:
    """An action in a cycle."""
    return document(
        join("again", "EXCLUSIVE"),
        action("call", parameters={"n": expr("__context__.n")}),
        put("count", n=expr("__context__.n + 1")),
        split("x", "EXCLUSIVE"),
        arrow("start -> again"),
        arrow("again -> call"),
        arrow("call -> count"),
        arrow("count -> x"),
        arrow("x -> again", condition=f"__context__.n < {rounds}"),
        arrow("x -> end", isDefault=True),
    )


async def test_an_action_runs_and_the_row_is_closed(running: Executions) -> None:
    handle = await running.start(DOUBLE, {"n": 21})
    assert await handle.result() == 42
    row = await running.row(handle)
    assert (row.status, row.closed_as, row.status_reason) == ("COMPLETED", "COMPLETED", None)
    assert row.ended_at is not None


async def test_the_history_has_only_one_event_more_than_a_hand_written_workflow(running: Executions) -> None:
    handle = await running.start(DOUBLE, {"n": 1})
    await handle.result()
    types = await event_types(handle)
    assert types.count("marker_recorded") == 1
    assert len(types) == 12


async def test_pure_steps_cost_no_round_trip(running: Executions) -> None:
    handle = await running.start(line(*(put(f"s{n}", **{f"v{n}": n}) for n in range(50))))
    assert len(await handle.result()) == 50
    assert (await event_types(handle)).count("workflow_task_completed") == 1


async def test_activities_carry_the_command_s_key_the_action_s_name_and_the_step_s_name(
    running: Executions,
) -> None:
    handle = await running.start(loop_of_actions(2), {"n": 0})
    await handle.result()
    scheduled = [
        event
        for event in (await handle.fetch_history()).events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    ids = [event.activity_task_scheduled_event_attributes.activity_id for event in scheduled]
    names = {event.activity_task_scheduled_event_attributes.activity_type.name for event in scheduled}
    summaries = {event.user_metadata.summary.data for event in scheduled}
    assert (ids, names, summaries) == (["call#1", "call#2"], {"test.echo"}, {b'"call"'})


async def test_a_person_completes_a_step_once_and_a_repetition_gives_the_first_result(
    running: Executions,
) -> None:
    handle = await running.start(line(confirm("ok", outcomes=["yes", "no"]), confirm("then")))
    view = await running.waits_for(handle, "ok")
    assert view.waiting_for[0].kind == "PERSON"
    answer = StepCompletion(step_id="ok", outcome="yes", comment="fine", completed_by="desk")
    first = await handle.execute_update(COMPLETE_STEP, answer)
    assert first["output"]["outcome"] == "yes"
    again = await handle.execute_update(COMPLETE_STEP, answer.model_copy(update={"completed_by": "another desk"}))
    assert again == first
    await handle.execute_update(COMPLETE_STEP, StepCompletion(step_id="then"))
    assert await handle.result() == {}


async def test_two_people_who_complete_a_step_at_the_same_moment_get_one_result(running: Executions) -> None:
    handle = await running.start(line(confirm("ok", outcomes=["yes", "no"]), confirm("then")))
    await running.waits_for(handle, "ok")
    answers = [StepCompletion(step_id="ok", outcome=outcome) for outcome in ("yes", "no", "yes", "no")]
    asked = (handle.execute_update(COMPLETE_STEP, one) for one in answers)
    results = await asyncio.gather(*asked, return_exceptions=True)
    refused = [result for result in results if isinstance(result, WorkflowUpdateFailedError)]
    assert [one.cause.type for one in refused] == ["STEP_ALREADY_COMPLETED"] * 2
    taken = [result for result in results if not isinstance(result, BaseException)]
    assert len({result["output"]["outcome"] for result in taken}) == 1
    await handle.terminate()


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        ({"step_id": "nowhere"}, "STEP_NOT_FOUND"),
        ({"step_id": "later"}, "STEP_NOT_OPEN"),
        ({"step_id": "start"}, "STEP_NOT_OPEN"),
        ({"step_id": "ok", "outcome": "perhaps"}, "OUTCOME_UNKNOWN"),
        ({"step_id": "ok"}, "OUTCOME_UNKNOWN"),
        ({"step_id": "ok", "outcome": "yes", "visit": 7}, "STEP_NOT_OPEN"),
    ],
)
async def test_a_completion_that_does_not_fit_is_refused_with_its_reason_and_leaves_no_event(
    running: Executions, completion: dict[str, Any], code: str
) -> None:
    handle = await running.start(line(confirm("ok", outcomes=["yes"]), confirm("later")))
    await running.waits_for(handle, "ok")
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update(COMPLETE_STEP, StepCompletion(**completion))
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.type == code
    assert "workflow_execution_update_accepted" not in await event_types(handle)
    await handle.terminate()


async def test_what_waits_for_people_can_be_found_by_search_attribute(running: Executions) -> None:
    handle = await running.start(line(confirm("sign"), action("call"), confirm("archive")))
    await running.waits_for(handle, "sign")
    await handle.execute_update(COMPLETE_STEP, StepCompletion(step_id="sign"))
    await running.waits_for(handle, "archive")
    upserts = (await event_types(handle)).count("upsert_workflow_search_attributes")
    assert upserts <= 3
    for _ in range(PATIENCE):
        described = await handle.describe()
        if any(pair.value == "archive" for pair in described.typed_search_attributes):
            break
        await asyncio.sleep(0.05)
    else:
        raise AssertionError("the search attribute did not follow")
    await handle.terminate()


async def test_temporal_s_own_ui_shows_the_steps_and_what_is_waited_for(running: Executions) -> None:
    handle = await running.start(line(action("call"), confirm("sign", assignment={"assignee": "desk"})))
    await running.waits_for(handle, "sign")
    metadata = await handle.query("__temporal_workflow_metadata")
    shown = metadata["currentDetails"] if isinstance(metadata, dict) else metadata.current_details
    assert "| sign (`sign`) | PERSON |" in shown
    assert "| call (`call`) | COMPLETED | 1 |" in shown
    assert "desk" in shown
    await handle.terminate()


async def test_children_and_grandchildren_are_linked_to_parent_and_root(cached: Executions) -> None:
    suffix = cached.task_queue[-8:]
    await cached.template(f"leaf-{suffix}", DOUBLE)
    copy = [{"targetPath": "n", "value": expr("__context__.n")}]
    nested = child("sub", childWorkflowTemplateVersionId=f"leaf-{suffix}@1.0.0", inputMapping=copy)
    await cached.template(f"middle-{suffix}", line(nested, output=expr("__steps__.sub + 1")))
    mapping = [{"targetPath": "n", "value": expr("__each__")}]
    handle = await cached.start(
        line(
            batch(
                "all",
                "[1, 2, 3]",
                concurrency=2,
                childWorkflowTemplateVersionId=f"middle-{suffix}@1.0.0",
                inputMapping=mapping,
            ),
            output=expr("__steps__.all"),
        )
    )
    assert await handle.result() == [3, 5, 7]
    rows = await cached.rows(handle)
    root = await cached.row(handle)
    assert len(rows) == 7
    assert {row.status for row in rows} == {"COMPLETED"}
    middles = [row for row in rows if row.parent_id == root.id]
    assert sorted(row.name for row in middles) == ["all 1/3", "all 2/3", "all 3/3"]
    leaves = [row for row in rows if row.parent_id in {row.id for row in middles}]
    assert len(leaves) == 3
    assert all(row.started_at is not None for row in rows if row is not root)


async def test_a_failing_grandchild_carries_its_code_to_the_root(cached: Executions) -> None:
    suffix = cached.task_queue[-8:]
    await cached.template(f"leaf-{suffix}", line(action("bad", actionKey="test.fail", parameters={"code": "NO_STOCK"})))
    await cached.template(f"middle-{suffix}", line(child("sub", childWorkflowTemplateVersionId=f"leaf-{suffix}@1.0.0")))
    handle = await cached.start(line(child("top", childWorkflowTemplateVersionId=f"middle-{suffix}@1.0.0")))
    failure = await failure_of(handle)
    assert (failure["code"], failure["stepId"]) == ("NO_STOCK", "top")
    assert {row.closed_as for row in await cached.rows(handle)} == {"FAILED"}


async def test_an_unknown_child_fails_its_parent_with_a_code(cached: Executions) -> None:
    handle = await cached.start(line(child("sub", childWorkflowTemplateVersionId="nobody@1.0.0")))
    failure = await failure_of(handle)
    assert (failure["code"], failure["stepId"]) == ("CHILD_NOT_FOUND", "sub")
    assert len(await cached.rows(handle)) == 1


async def test_a_cancel_reaches_every_descendant(cached: Executions) -> None:
    suffix = cached.task_queue[-8:]
    await cached.template(f"leaf-{suffix}", line(confirm("wait")))
    await cached.template(
        f"middle-{suffix}", line(batch("all", "[1, 2]", childWorkflowTemplateVersionId=f"leaf-{suffix}@1.0.0"))
    )
    handle = await cached.start(line(child("top", childWorkflowTemplateVersionId=f"middle-{suffix}@1.0.0")))
    for _ in range(200):
        rows = await cached.rows(handle)
        if len(rows) == 4 and all(row.status == "STARTED" for row in rows):
            break
        await asyncio.sleep(0.05)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError) as ended:
        await handle.result()
    assert isinstance(ended.value.cause, CancelledError)
    assert [row.closed_as for row in await cached.rows(handle)] == ["CANCELLED"] * 4


async def test_a_failure_withdraws_what_still_runs(running: Executions) -> None:
    definition = document(
        split("s"),
        action("slow", actionKey="test.sleep", parameters={"seconds": 30}, timeout=60),
        action("bad", actionKey="test.fail"),
        confirm("person"),
        join("j"),
        *(arrow(f"s -> {name}") for name in ("slow", "bad", "person")),
        *(arrow(f"{name} -> j") for name in ("slow", "bad", "person")),
        arrow("start -> s"),
        arrow("j -> end"),
    )
    handle = await running.start(definition)
    failure = await failure_of(handle)
    assert (failure["code"], failure["stepId"]) == ("BROKEN", "bad")
    statuses = {one.id: one.status for one in (await running.view(handle)).steps}
    assert (statuses["slow"], statuses["bad"], statuses["person"]) == ("CANCELLED", "FAILED", "CANCELLED")


async def test_an_action_is_tried_again_by_its_policy(running: Executions) -> None:
    definition = line(
        action(
            "bad",
            actionKey="test.fail",
            parameters={"retryable": True},
            retry={"maxAttempts": 3, "initialInterval": 0.05, "backoff": "linear"},
        )
    )
    failure = await failure_of(await running.start(definition))
    assert (failure["code"], failure["attempts"]) == ("BROKEN", 3)


async def test_a_code_named_non_retryable_is_not_tried_again(running: Executions) -> None:
    definition = line(
        action(
            "bad",
            actionKey="test.fail",
            parameters={"retryable": True, "code": "NEVER"},
            retry={"maxAttempts": 5, "initialInterval": 0.05, "nonRetryable": ["NEVER"]},
        )
    )
    failure = await failure_of(await running.start(definition))
    assert (failure["code"], failure["attempts"]) == ("NEVER", 1)


async def test_a_timed_out_attempt_fails_its_step(running: Executions) -> None:
    definition = line(
        action("slow", actionKey="test.sleep", parameters={"seconds": 30}, timeout=0.2, retry={"maxAttempts": 1})
    )
    failure = await failure_of(await running.start(definition))
    assert (failure["code"], failure["stepId"]) == ("STEP_TIMED_OUT", "slow")


async def test_parameters_that_an_action_does_not_know_fail_the_step_once(running: Executions) -> None:
    failure = await failure_of(await running.start(line(action("call", parameters={"bogus": 1}))))
    assert (failure["code"], failure["attempts"]) == ("ACTION_PARAMETERS_INVALID", 1)


async def test_timers_fire_and_disarmed_ones_do_not(running: Executions) -> None:
    definition = line(confirm("quick", timeout=60), confirm("slow", timeout=0.3))
    handle = await running.start(definition)
    await running.waits_for(handle, "quick")
    await handle.execute_update(COMPLETE_STEP, StepCompletion(step_id="quick"))
    failure = await failure_of(handle)
    assert (failure["code"], failure["stepId"]) == ("STEP_TIMED_OUT", "slow")
    types = await event_types(handle)
    assert (types.count("timer_started"), types.count("timer_canceled")) == (2, 1)


async def test_a_definition_that_cannot_run_fails_the_execution_and_closes_its_row(running: Executions) -> None:
    handle = await running.start({"steps": [step("start", "START")], "stepTransitions": [{"id": "x"}]})
    assert (await failure_of(handle))["code"] == "DEFINITION_INVALID"
    assert (await running.row(handle)).closed_as == "FAILED"


async def test_thousands_of_pure_steps_in_a_loop_trip_no_deadlock_detector(running: Executions) -> None:
    definition = document(
        join("again", "EXCLUSIVE"),
        put("count", n=expr("__context__.n + 1")),
        split("x", "EXCLUSIVE"),
        arrow("start -> again"),
        arrow("again -> count"),
        arrow("count -> x"),
        arrow("x -> again", condition="__context__.n < 2500"),
        arrow("x -> end", isDefault=True),
        limits={"maxSteps": 100_000, "maxStepVisits": 100_000},
    )
    handle = await running.start(definition, {"n": 0})
    assert await handle.result() == {"n": 2500}
    assert "workflow_task_failed" not in await event_types(handle)


async def test_names_longer_than_the_server_s_summaries_do_no_harm(cached: Executions) -> None:
    long = "ä" * 200
    slug = f"leaf-{cached.task_queue[-8:]}"
    await cached.template(slug, line(action("call")))
    mapping = {"childWorkflowTemplateVersionId": f"{slug}@1.0.0", "childWorkflowName": long * 2}
    steps = [action("a") | {"name": long}, child("sub", **mapping) | {"name": long}]
    people = [confirm(f"person-{'x' * 80}-{n}", timeout=60) | {"name": long} for n in range(5)]
    definition = document(
        *steps,
        split("s"),
        *people,
        join("j"),
        arrow("start -> a"),
        arrow("a -> sub"),
        arrow("sub -> s"),
        *(arrow(f"s -> {one['id']}") for one in people),
        *(arrow(f"{one['id']} -> j") for one in people),
        arrow("j -> end"),
    )
    handle = await cached.start(definition)
    await cached.waits_for(handle, *(one["id"] for one in people))
    assert "workflow_task_failed" not in await event_types(handle)
    await handle.terminate()


async def test_an_action_begun_and_withdrawn_in_one_activation_ends_the_run(executions: Executions) -> None:
    arrows = ("start -> s", "s -> ok", "s -> bad", "ok -> next", "next -> j", "bad -> j", "j -> end")
    definition = document(
        split("s"),
        action("ok"),
        action("next"),
        action("bad", actionKey="test.fail"),
        join("j"),
        *(arrow(text) for text in arrows),
    )
    async with executions.worker():
        handles = [await executions.start(definition) for _ in range(20)]
        failures = [await asyncio.wait_for(failure_of(handle), 30) for handle in handles]
    assert {failure["code"] for failure in failures} == {"BROKEN"}
    await executions.replay_all()


async def test_a_failure_message_that_no_row_could_hold_still_closes_the_row(running: Executions) -> None:
    handle = await running.start(line(action("bad", actionKey="test.fail", parameters={"nul": True})))
    failure = await asyncio.wait_for(failure_of(handle), 20)
    assert failure["stepId"] == "bad"
    row = await running.row(handle)
    assert (row.closed_as, row.status_reason) == ("FAILED", "BROKEN: told\ufffdto fail")


async def test_an_action_that_no_worker_has_fails_with_a_code_of_its_own(running: Executions) -> None:
    unknown = action("call", actionKey="nobody.knows", retry={"maxAttempts": 2, "initialInterval": 0.05})
    failure = await failure_of(await running.start(line(unknown)))
    assert (failure["code"], failure["attempts"]) == ("ACTION_NOT_REGISTERED", 2)
