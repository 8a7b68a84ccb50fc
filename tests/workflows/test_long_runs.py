"""Continue-as-new: on a server that suggests it after sixty events, nothing may be lost."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowFailureError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import CancelledError

from app.contracts import COMPLETE_STEP, StepCompletion
from app.db.session import Database
from app.embedded import start_temporal
from app.processes import OwnProcess
from tests.documents import action, arrow, batch, confirm, document, expr, join, line, put, split
from tests.workflows.harness import Executions, Handle
from tests.workflows.test_step_reading import read

SUGGESTED_AFTER = 60


@pytest.fixture(scope="module")
async def short_histories(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """A client of a server that suggests to continue as new early."""
    started: list[OwnProcess] = []
    home: Path = tmp_path_factory.mktemp("temporal")
    option = f"limit.historyCount.suggestContinueAsNew={SUGGESTED_AFTER}"
    try:
        server = await start_temporal(home, started.append, throwaway=True, options=("--dynamic-config-value", option))
        yield await Client.connect(server.address, data_converter=pydantic_data_converter)
    finally:
        for process in started:
            await process.stop()


@pytest.fixture
async def running(short_histories: Client, database_url: str) -> AsyncIterator[Executions]:
    """Executions with a worker on that server; every history is replayed in the end."""
    database = Database(database_url)
    executions = Executions(short_histories, database, f"q-{uuid4().hex}")
    async with executions.worker():
        yield executions
    await executions.replay_all()
    await database.close()


def counting(rounds: int, *before: dict[str, Any]) -> dict[str, Any]:
    """Counts to `rounds`, an action in each round, after the steps given."""
    ids = ["start", *(one["id"] for one in before), "again"]
    return document(
        *before,
        *(arrow(f"{source} -> {target}") for source, target in itertools.pairwise(ids)),
        join("again", "EXCLUSIVE"),
        action("call", parameters={"n": expr("__context__.n")}),
        put("count", n=expr("__context__.n + 1")),
        split("x", "EXCLUSIVE"),
        arrow("again -> call"),
        arrow("call -> count"),
        arrow("count -> x"),
        arrow("x -> again", condition=f"__context__.n < {rounds}"),
        arrow("x -> end", isDefault=True),
    )


async def runs_of(handle: Handle, client: Client) -> int:
    """How many Temporal runs the execution took."""
    found = [run async for run in client.list_workflows(f"WorkflowId = '{handle.id}'")]
    return len(found)


async def test_a_long_loop_goes_on_in_new_runs_and_loses_no_round(running: Executions) -> None:
    handle = await running.start(counting(30), {"n": 0})
    assert await handle.result() == {"n": 30}
    assert await runs_of(handle, running.client) >= 2
    row = await running.row(handle)
    assert (row.status, row.closed_as) == ("COMPLETED", "COMPLETED")
    view = await running.view(running.client.get_workflow_handle(handle.id))
    assert {step.id: step.visits for step in view.steps}["call"] == 30


async def test_an_open_human_step_and_its_timeout_survive_and_no_answer_is_lost(running: Executions) -> None:
    definition = document(
        split("s"),
        confirm("person", timeout=60),
        join("again", "EXCLUSIVE"),
        action("call", parameters={"n": expr("__context__.n")}),
        put("count", n=expr("__context__.n + 1")),
        split("x", "EXCLUSIVE"),
        join("j"),
        arrow("start -> s"),
        arrow("s -> person"),
        arrow("person -> j"),
        arrow("s -> again"),
        arrow("again -> call"),
        arrow("call -> count"),
        arrow("count -> x"),
        arrow("x -> again", condition="__context__.n < 20"),
        arrow("x -> j", isDefault=True),
        arrow("j -> end"),
        output=expr("__steps__.person.comment"),
    )
    handle = await running.start(definition, {"n": 0})
    latest = running.client.get_workflow_handle(handle.id)
    await running.waits_for(latest, "person")
    assert await runs_of(handle, running.client) >= 2
    await latest.execute_update(COMPLETE_STEP, StepCompletion(step_id="person", comment="late"))
    assert await handle.result() == "late"


async def test_answers_that_come_while_the_run_moves_on_are_all_applied(running: Executions) -> None:
    steps = [confirm(f"p{n}") for n in range(30)]
    handle = await running.start(line(*steps))
    latest = running.client.get_workflow_handle(handle.id)
    for n in range(30):
        await running.waits_for(latest, f"p{n}")
        answer = await latest.execute_update(COMPLETE_STEP, StepCompletion(step_id=f"p{n}"))
        assert answer["visit"] == 1
    await handle.result()
    assert await runs_of(handle, running.client) >= 2


async def test_a_cancel_after_a_continue_as_new_still_ends_the_run(running: Executions) -> None:
    handle = await running.start(counting(10_000) | {"limits": {"maxStepVisits": 100_000}}, {"n": 0})
    while await runs_of(handle, running.client) < 3:
        await asyncio.sleep(0.05)
    await running.client.get_workflow_handle(handle.id).cancel()
    for _ in range(200):
        row = await running.row(handle)
        if row.closed_as is not None:
            break
        await asyncio.sleep(0.05)
    assert row.closed_as == "CANCELLED"


async def test_open_children_put_the_new_run_off_and_none_is_lost(running: Executions) -> None:
    slug = f"leaf-{running.task_queue[-8:]}"
    await running.template(slug, line(action("call", parameters={"n": expr("__context__.n")})))
    mapping = [{"targetPath": "n", "value": expr("__each__")}]
    children = batch(
        "all",
        "[1..12]",
        concurrency=3,
        childWorkflowTemplateVersionId=f"{slug}@1.0.0",
        inputMapping=mapping,
    )
    handle = await running.start(counting(3, children), {"n": 0})
    assert await handle.result() == {"n": 3}
    rows = await running.rows(handle)
    assert len(rows) == 13
    assert {row.closed_as for row in rows} == {"COMPLETED"}


def beside_a_slow_action(*more: dict[str, Any]) -> dict[str, Any]:
    """A counting loop long enough for a new run, while a slow action and a person keep this one."""
    return document(
        split("s"),
        confirm("person"),
        action("slow", actionKey="test.sleep", parameters={"seconds": 4}, timeout=60),
        join("again", "EXCLUSIVE"),
        action("call", parameters={"n": expr("__context__.n")}),
        put("count", n=expr("__context__.n + 1")),
        split("x", "EXCLUSIVE"),
        join("j"),
        *(arrow(f"s -> {name}") for name in ("person", "slow", "again")),
        *(arrow(text) for text in ("start -> s", "person -> j", "slow -> j", "again -> call", "call -> count")),
        arrow("count -> x"),
        arrow("x -> again", condition="__context__.n < 20"),
        arrow("x -> j", isDefault=True),
        arrow("j -> end"),
        output=expr("__steps__.person.comment"),
    )


async def drains(handle: Handle) -> None:
    """Returns when the history is long enough for the run to want to go on as a new one."""
    while (await handle.describe()).history_length <= SUGGESTED_AFTER:
        await asyncio.sleep(0.05)


async def test_a_person_who_answers_while_the_run_drains_gets_what_was_applied(running: Executions) -> None:
    handle = await running.start(beside_a_slow_action(), {"n": 0})
    await drains(handle)
    answer = await handle.execute_update(COMPLETE_STEP, StepCompletion(step_id="person", comment="now"))
    assert answer["output"]["comment"] == "now"
    assert await handle.result() == "now"


async def test_a_cancel_while_the_run_drains_ends_it_as_cancelled(running: Executions) -> None:
    handle = await running.start(beside_a_slow_action(), {"n": 0})
    await drains(handle)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError) as ended:
        await handle.result()
    assert isinstance(ended.value.cause, CancelledError)
    assert (await running.row(handle)).closed_as == "CANCELLED"


async def test_a_step_s_calls_are_read_along_the_chain_of_runs(running: Executions) -> None:
    handle = await running.start(counting(30), {"n": 0})
    await handle.result()
    assert await runs_of(handle, running.client) >= 2
    inputs: list[int] = []
    cursor = None
    while True:
        detail = await read(running, handle, "call", cursor=cursor, limit=7)
        inputs += [call.input["n"] for visit in detail.visits for call in visit.calls]
        cursor = detail.next_cursor
        if cursor is None:
            break
    assert inputs == list(range(29, -1, -1))
