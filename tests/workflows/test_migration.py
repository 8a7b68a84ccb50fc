"""An open run moves to another version on the real server."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from app.payloads.content import definition_payload
from app.run_contracts import COMPLETE_STEP, MIGRATE, MIGRATE_INLINE, MigrationReport, MigrationRequest, StepCompletion
from tests.documents import action, confirm, expr, line
from tests.workflows.harness import Executions, Handle, failure_of, refused

FIRST = line(confirm("person"), action("a", parameters={"n": 1}))


async def migrated(handle: Handle, definition: dict[str, Any], **fields: Any) -> MigrationReport:
    request = MigrationRequest(version_id=uuid4(), version="2.0.0", **fields)
    stored = RawValue(definition_payload(json.dumps(definition)))
    return await handle.execute_update(MIGRATE, args=[request, stored], result_type=MigrationReport)


async def test_the_new_definition_is_kept_outside_history(running: Executions) -> None:
    handle = await running.start(FIRST)
    await running.waits_for(handle, "person")
    second = line(confirm("person"), action("a", parameters={"n": "a-word-to-find"}))
    assert (await migrated(handle, second)).migrated
    arguments = [
        payload.data.decode(errors="replace")
        for event in (await handle.fetch_history()).events
        for payload in event.workflow_execution_update_accepted_event_attributes.accepted_request.input.args.payloads
    ]
    assert len(arguments) == 2
    assert "a-word-to-find" not in "".join(arguments)
    await running.complete(handle, "person")
    await handle.result()


async def test_a_request_that_has_the_definition_inside_is_taken_too(running: Executions) -> None:
    handle = await running.start(FIRST)
    await running.waits_for(handle, "person")
    second = line(confirm("person"), output="done")
    request = MigrationRequest(version_id=uuid4(), version="2.0.0", definition=second)
    report = await handle.execute_update(MIGRATE_INLINE, request, result_type=MigrationReport)
    assert report.migrated
    await running.complete(handle, "person")
    assert await handle.result() == "done"


async def test_an_open_run_goes_on_with_the_new_version(running: Executions) -> None:
    handle = await running.start(FIRST)
    await running.waits_for(handle, "person")
    second = line(confirm("person"), action("b", parameters={"n": 2}), output=expr("__steps__.b.n"))
    assert await migrated(handle, second, dry_run=True) == MigrationReport(verdict="SAFE")
    assert [step.id for step in (await running.view(handle)).steps] == ["start", "person", "a", "end"]
    assert (await migrated(handle, second)).migrated
    assert [step.id for step in (await running.view(handle)).steps] == ["start", "person", "b", "end"]
    await handle.execute_update(COMPLETE_STEP, StepCompletion(step_id="person"))
    assert await handle.result() == 2


async def test_what_needs_a_mapping_is_refused_without_one(running: Executions) -> None:
    handle = await running.start(FIRST)
    await running.waits_for(handle, "person")
    other = line(confirm("someone"), output="done")
    report = await migrated(handle, other, dry_run=True)
    assert report.verdict == "NEEDS_MAPPING"
    assert report.findings[0].step_id == "person"
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await migrated(handle, other)
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.type == "MIGRATION_NEEDS_MAPPING"
    assert (await migrated(handle, other, mapping={"person": "someone"})).migrated
    await running.waits_for(handle, "someone")
    await handle.execute_update(COMPLETE_STEP, StepCompletion(step_id="someone"))
    assert await handle.result() == "done"


async def test_a_definition_that_cannot_be_run_is_refused(running: Executions) -> None:
    handle = await running.start(FIRST)
    await running.waits_for(handle, "person")
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await migrated(handle, {"steps": [], "stepTransitions": []})
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.type == "DEFINITION_INVALID"
    await handle.execute_update(COMPLETE_STEP, StepCompletion(step_id="person"))
    await handle.result()


async def test_what_undoes_a_step_that_a_migration_removed_can_be_decided_by_hand(running: Executions) -> None:
    undo = {"actionKey": "test.fail", "retry": {"maxAttempts": 1}}
    bad = action("bad", actionKey="test.fail", retry={"maxAttempts": 1})
    handle = await running.start(line(action("gone", compensate=undo), confirm("person"), bad))
    await running.waits_for(handle, "person")
    assert (await migrated(handle, line(confirm("person"), bad))).migrated
    await running.complete(handle, "person")
    for _ in range(200):
        waits = (await running.view(handle)).waiting_for
        if [one.kind for one in waits] == ["INCIDENT"]:
            break
        await asyncio.sleep(0.05)
    assert [(one.step_id, one.kind) for one in waits] == [("gone", "INCIDENT")]
    assert await refused(running.control(handle, "COMPLETE_INCIDENT", "nowhere")) == "STEP_NOT_FOUND"
    assert await refused(running.control(handle, "COMPLETE_INCIDENT", "gone", visit=2)) == "NO_INCIDENT"
    assert await running.control(handle, "COMPLETE_INCIDENT", "gone") == "APPLIED"
    assert (await failure_of(handle))["stepId"] == "bad"
