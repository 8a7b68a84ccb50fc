"""Runs worth recording of what came after the spine: waits and steering, compensation, another version."""

import asyncio
import contextlib
import json
from uuid import uuid4

from temporalio.client import WorkflowFailureError
from temporalio.common import RawValue

from app.payloads.content import definition_payload
from app.run_contracts import MIGRATE, MIGRATE_INLINE, MigrationReport, MigrationRequest
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
    policy_join,
    put,
    split,
    step,
)
from tests.workflows.harness import Executions, Handle, event_types

UNDOABLE = "recorded-undoable"
HALF = "recorded-half"
SHORT = "recorded-n"

_CHILD_STARTED = "child_workflow_execution_started_event_attributes"


async def steered(executions: Executions) -> Handle:
    """An early signal, an event split, a pause, a skipped timer, an incident that is retried and one completed."""
    definition = document(
        step("paid", "SYS_WAIT_SIGNAL", signal="paid", correlationKey="order-1"),
        step("first", "GATEWAY_EVENT_SPLIT"),
        step("later", "SYS_DELAY", duration="PT1H"),
        confirm("person", timeout=600),
        join("met", "EXCLUSIVE"),
        step("pause", "SYS_DELAY", duration="PT1H"),
        action("bad", actionKey="test.fail", onFailure="INCIDENT", retry={"maxAttempts": 1}),
        action("each", parameters={"n": expr("__each__")}, forEach={"iterable": _items("[1..3]"), "concurrency": 2}),
        *(arrow(text) for text in ("start -> paid", "paid -> first", "first -> later", "first -> person")),
        *(arrow(text) for text in ("later -> met", "person -> met", "met -> pause", "pause -> bad", "bad -> each")),
        arrow("each -> end"),
        output=expr("__steps__.each"),
    )
    handle = await executions.start(definition)
    await executions.waits_for(handle, "paid")
    await executions.deliver(handle, "paid", {"amount": 5}, key="order-2")
    await executions.deliver(handle, "paid", {"amount": 7}, key="order-1")
    await executions.waits_for(handle, "later", "person")
    await executions.complete(handle, "person")
    await executions.waits_for(handle, "pause")
    await executions.control(handle, "PAUSE")
    await executions.control(handle, "SKIP_TIMER", "pause")
    await asyncio.sleep(0.3)
    await executions.control(handle, "RESUME")
    await executions.waits_for(handle, "bad")
    await _parked(executions, handle)
    await executions.control(handle, "RETRY_INCIDENT", "bad")
    await _parked(executions, handle)
    await executions.control(handle, "COMPLETE_INCIDENT", "bad", output={"by": "hand"})
    return await _ended(handle)


async def undone(executions: Executions) -> Handle:
    """Steps of the run and of a child are undone, latest first, when a later one fails."""
    undo = {"actionKey": "test.echo", "parameters": {"n": expr("__result__.n")}}
    await executions.template(UNDOABLE, line(action("inner", parameters={"n": 2}, compensate=undo)))
    definition = document(
        split("s"),
        action("one", parameters={"n": 1}, compensate=undo),
        child("sub", childWorkflowTemplateVersionId=f"{UNDOABLE}@1.0.0"),
        join("j"),
        action("bad", actionKey="test.fail"),
        *(arrow(text) for text in ("start -> s", "s -> one", "s -> sub", "one -> j", "sub -> j", "j -> bad")),
        arrow("bad -> end"),
    )
    return await _ended(await executions.start(definition))


async def migrated(executions: Executions) -> Handle:
    """A run that waits for a person goes on with another version, whose definition is in the request."""
    handle = await executions.start(line(confirm("person"), action("old", parameters={"n": 1})))
    await executions.waits_for(handle, "person")
    second = line(confirm("person"), action("new", parameters={"n": 2}))
    request = MigrationRequest(version_id=uuid4(), version="2.0.0", definition=second)
    await handle.execute_update(MIGRATE_INLINE, request, result_type=MigrationReport)
    await executions.complete(handle, "person")
    return await _ended(handle)


async def awaited(executions: Executions) -> Handle:
    """A withdrawn action succeeds all the same; then a cancel waits for another that does, and both are undone."""
    undo = {"actionKey": "test.echo", "parameters": {"n": expr("__result__")}}
    slow = {"actionKey": "test.finish", "parameters": {"seconds": 30}, "timeout": 60, "compensate": undo}
    definition = document(
        split("s"),
        action("late", **slow),
        confirm("go"),
        policy_join("first", "ANY", cancel=True),
        split("t"),
        action("later", **slow),
        action("local", **{**slow, "actionKey": "test.sleep"}),
        join("j"),
        *(arrow(text) for text in ("start -> s", "s -> late", "s -> go", "late -> first", "go -> first", "first -> t")),
        *(arrow(text) for text in ("t -> later", "t -> local", "later -> j", "local -> j", "j -> end")),
    )
    handle = await executions.start(definition)
    await executions.waits_for(handle, "go", "late")
    await asyncio.sleep(0.5)
    await executions.complete(handle, "go")
    await executions.waits_for(handle, "later", "local")
    await asyncio.sleep(0.5)
    await handle.cancel()
    return await _ended(handle)


async def rows_insisted_on(executions: Executions) -> Handle:
    """A row of a task that Postgres does not take at first, so that an ordinary activity writes it."""
    rename = "ALTER TABLE {} RENAME TO {}"
    handle = await executions.start(line(step("paid", "SYS_WAIT_SIGNAL", signal="paid"), confirm("person")))
    await executions.waits_for(handle, "paid")
    async with executions.database.driver() as connection:
        await connection.execute(rename.format("human_task", "human_task_away"))
        await executions.deliver(handle, "paid")
        while "activity_task_scheduled" not in await event_types(handle):
            await asyncio.sleep(0.1)
        await connection.execute(rename.format("human_task_away", "human_task"))
    await executions.complete(handle, "person")
    return await _ended(handle)


async def withdrawn_chunk(executions: Executions) -> Handle:
    """The run of a chunk of items that is withdrawn while one child is done and another waits."""
    undo = {"actionKey": "test.echo", "parameters": {"n": expr("__result__.n")}}
    first = action("first", parameters={"n": expr("__context__.n")}, compensate=undo)
    await executions.template(HALF, line(first, confirm("ask", skipIf="__context__.n = 1")))
    mapping = [{"targetPath": "n", "value": expr("__each__")}]
    many = batch(
        "many", "[1..501]", concurrency=1, childWorkflowTemplateVersionId=f"{HALF}@1.0.0", inputMapping=mapping
    )
    handle = await executions.start(line(many))
    while len([row for row in await executions.rows(handle) if row.status != "CREATED"]) < 3:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    await handle.cancel()
    await _ended(handle)
    [chunk] = [event async for event in handle.fetch_history_events() if event.HasField(_CHILD_STARTED)]
    started = chunk.child_workflow_execution_started_event_attributes.workflow_execution
    return executions.client.get_workflow_handle(started.workflow_id)


async def moved(executions: Executions) -> Handle:
    """A run that waits for a person goes on with another version, whose definition is kept outside history."""
    handle = await executions.start(line(confirm("person"), action("old", parameters={"n": 1})))
    await executions.waits_for(handle, "person")
    request = MigrationRequest(version_id=uuid4(), version="2.0.0")
    second = line(confirm("person"), action("new", parameters={"n": 2}))
    stored = RawValue(definition_payload(json.dumps(second)))
    await handle.execute_update(MIGRATE, args=[request, stored], result_type=MigrationReport)
    await executions.complete(handle, "person")
    return await _ended(handle)


async def asked_together(executions: Executions) -> Handle:
    """Requests that come together: the second of two pauses, and of two equal completions, changes nothing."""
    handle = await executions.start(
        line(
            step("first", "SYS_DELAY", duration="PT1H"), confirm("person"), step("paid", "SYS_WAIT_SIGNAL", signal="p")
        )
    )
    await executions.waits_for(handle, "first")
    await asyncio.gather(*(executions.control(handle, "PAUSE") for _ in range(2)))
    await asyncio.gather(*(executions.control(handle, "RESUME") for _ in range(2)))
    await executions.control(handle, "SKIP_TIMER", "first")
    await executions.waits_for(handle, "person")
    await asyncio.gather(*(executions.complete(handle, "person", comment="same") for _ in range(2)))
    await executions.deliver(handle, "p", 1)
    return await _ended(handle)


async def counted(executions: Executions) -> Handle:
    """Results that are counted: of items, of iterations, and of chunks."""
    mapping = [{"targetPath": "n", "value": expr("__each__")}]
    leaf = {"childWorkflowTemplateVersionId": f"{SHORT}@1.0.0", "inputMapping": mapping}
    await executions.template(SHORT, line(put("n", n=1)))
    return await _ended(
        await executions.start(
            line(
                action("each", parameters={"n": expr("__each__")}, forEach={"iterable": _items("[1..3]")}),
                action("again", parameters={"n": expr("__iteration__")}, repeat={"until": "__iteration__ = 2"}),
                batch("many", "[1..501]", concurrency=8, **leaf),
                output=expr("$count(__steps__.many)"),
            )
        )
    )


def _items(source: str) -> dict[str, object]:
    return {"type": "EXPRESSION", "expr": {"src": source}}


async def _parked(executions: Executions, handle: Handle) -> None:
    for _ in range(200):
        if any(wait.kind == "INCIDENT" for wait in (await executions.view(handle)).waiting_for):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("no step is parked")


async def _ended(handle: Handle) -> Handle:
    with contextlib.suppress(WorkflowFailureError):
        await handle.result()
    return handle
