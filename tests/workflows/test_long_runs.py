"""Continue-as-new: on a server that suggests it after sixty events, nothing may be lost."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import CancelledError

from app.contracts import TELL_CHILD, ChildOrder, workflow_id
from app.run_contracts import COMPLETE_STEP, StepCompletion
from tests.documents import action, arrow, batch, child, confirm, document, expr, join, line, put, split, step
from tests.workflows.conftest import SUGGESTED_AFTER
from tests.workflows.counterpart import Counterpart, call
from tests.workflows.harness import Executions, Handle, executions_on, failure_of
from tests.workflows.killing import SOON, Workers
from tests.workflows.test_step_reading import read


@pytest.fixture
def running(renewed: Executions) -> Executions:
    """Executions with a worker on that server."""
    return renewed


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


def with_slow(definition: dict[str, Any], seconds: float, **fields: Any) -> dict[str, Any]:
    """The same with a slow action that takes so long."""
    slow = next(one for one in definition["steps"] if one["id"] == "slow")
    slow.update(parameters={"seconds": seconds}, timeout=seconds + 30)
    return definition | fields


async def test_a_long_action_does_not_hold_up_the_rest_of_a_run_with_a_long_history(running: Executions) -> None:
    handle = await running.start(with_slow(beside_a_slow_action(), 40), {"n": 0})
    begun = asyncio.get_running_loop().time()
    await running.complete(handle, "person", comment="early")
    await drains(handle)
    latest = running.client.get_workflow_handle(handle.id)
    while (await running.memory(latest))["context"]["n"] < 20:
        assert asyncio.get_running_loop().time() - begun < 30, "the run stands still"
        await asyncio.sleep(0.2)
    assert await asyncio.wait_for(handle.result(), 60) == "early"


async def test_the_deadline_of_a_run_that_drains_is_kept(running: Executions) -> None:
    limits = {"executionTimeout": 6}
    handle = await running.start(with_slow(beside_a_slow_action(), 40, limits=limits), {"n": 0})
    await drains(handle)
    begun = asyncio.get_running_loop().time()
    failure = await asyncio.wait_for(failure_of(handle), 30)
    assert failure["code"] == "EXECUTION_TIMED_OUT"
    assert asyncio.get_running_loop().time() - begun < 12, "the deadline waited for the drain"


async def test_a_pause_from_the_parent_is_applied_while_the_run_drains(running: Executions) -> None:
    handle = await running.start(with_slow(beside_a_slow_action(), 20), {"n": 0})
    await drains(handle)
    await handle.signal(TELL_CHILD, ChildOrder(what="PAUSE"))
    begun = asyncio.get_running_loop().time()
    while not (await running.memory(handle)).get("paused"):
        assert asyncio.get_running_loop().time() - begun < 5
        await asyncio.sleep(0.1)
    await handle.terminate()


async def test_a_child_that_stays_open_is_adopted_by_the_new_run(running: Executions) -> None:
    slug = f"waits-{running.task_queue[-8:]}"
    waits = step("wait", "SYS_WAIT_SIGNAL", signal="go")
    await running.template(slug, line(waits, output=expr("__steps__.wait")))
    definition = document(
        split("s"),
        child("sub", childWorkflowTemplateVersionId=f"{slug}@1.0.0"),
        *(part for part in counting(220)["steps"] if part["type"] not in ("START", "END")),
        join("j"),
        *(arrow(text) for text in ("start -> s", "s -> sub", "s -> again", "sub -> j", "again -> call")),
        *(arrow(text) for text in ("call -> count", "count -> x", "j -> end")),
        arrow("x -> again", condition="__context__.n < 220"),
        arrow("x -> j", isDefault=True),
        limits={"maxSteps": 10_000, "maxStepVisits": 1_000},
        output=expr("__steps__.sub"),
    )
    handle = await running.start(definition, {"n": 0})
    for _ in range(600):
        if await runs_of(handle, running.client) > 1:
            break
        await asyncio.sleep(0.1)
    assert await runs_of(handle, running.client) > 1, "the open child kept the run from going on as a new one"
    rows = await running.rows(handle)
    below = next(row for row in rows if row.parent_id is not None)
    assert below.closed_as is None
    await running.client.get_workflow_handle(workflow_id(below.id)).signal("go", {"went": True})
    assert await asyncio.wait_for(handle.result(), 60) == {"went": True}
    assert {row.closed_as for row in await running.rows(handle)} == {"COMPLETED"}


async def test_a_cancel_reaches_an_adopted_child(running: Executions) -> None:
    slug = f"waits-{running.task_queue[-8:]}"
    await running.template(slug, line(step("wait", "SYS_WAIT_SIGNAL", signal="go")))
    definition = document(
        split("s"),
        child("sub", childWorkflowTemplateVersionId=f"{slug}@1.0.0"),
        *(part for part in counting(400)["steps"] if part["type"] not in ("START", "END")),
        join("j"),
        *(arrow(text) for text in ("start -> s", "s -> sub", "s -> again", "sub -> j", "again -> call")),
        *(arrow(text) for text in ("call -> count", "count -> x", "j -> end")),
        arrow("x -> again", condition="__context__.n < 400"),
        arrow("x -> j", isDefault=True),
        limits={"maxSteps": 10_000, "maxStepVisits": 1_000},
    )
    handle = await running.start(definition, {"n": 0})
    for _ in range(600):
        if await runs_of(handle, running.client) > 1:
            break
        await asyncio.sleep(0.1)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError) as ended:
        await asyncio.wait_for(handle.result(), 60)
    assert isinstance(ended.value.cause, CancelledError)
    assert {row.closed_as for row in await running.rows(handle)} == {"CANCELLED"}


async def test_signals_that_come_while_the_run_moves_on_are_all_taken_in_their_order(running: Executions) -> None:
    most = 60
    wait = step("w", "SYS_WAIT_SIGNAL", signal="paid", repeat={"while": f"__iteration__ < {most}"})
    handle = await running.start(line(wait, output=expr("__steps__.w")))
    latest = running.client.get_workflow_handle(handle.id)
    for n in range(most):
        if n % 3:
            await latest.signal("paid", n)
        else:
            await running.deliver(latest, "paid", n, signal_id=f"signal-{n}")
    assert await handle.result() == list(range(most))
    assert await runs_of(handle, running.client) >= 2


async def test_a_signal_repeated_in_a_later_run_is_still_known(running: Executions) -> None:
    waits = [step(name, "SYS_WAIT_SIGNAL", signal="paid") for name in ("first", "second")]
    loop = counting(20, waits[0])
    loop["steps"].insert(-1, waits[1])
    loop["stepTransitions"] = [one for one in loop["stepTransitions"] if one["toStepId"] != "end"]
    loop["stepTransitions"] += [arrow("x -> second", isDefault=True), arrow("second -> end")]
    handle = await running.start(loop, {"n": 0})
    latest = running.client.get_workflow_handle(handle.id)
    await running.waits_for(latest, "first")
    await running.deliver(latest, "paid", signal_id="one")
    await running.waits_for(latest, "second")
    assert await runs_of(handle, running.client) >= 2
    assert await running.deliver(latest, "paid", signal_id="one") == "DELIVERED"
    await running.waits_for(latest, "second")
    await running.deliver(latest, "paid", signal_id="two")
    await handle.result()


@pytest.mark.parametrize("moment", ["while it drains", "when the new run begins"])
async def test_a_worker_killed_around_a_continue_as_new_loses_nothing(
    short_histories: Client, database_url: str, counterpart: Counterpart, tmp_path: Path, moment: str
) -> None:
    async with executions_on(short_histories, database_url) as executions:
        address = short_histories.service_client.config.target_host
        workers = Workers(executions.task_queue, address, database_url, tmp_path, cached=0)
        rounds = 14
        loop = counting(rounds)
        number = {"method": "POST", "url": expr(f"'{counterpart.url}/round-' & __context__.n")}
        for one in loop["steps"]:
            if one["id"] == "call":
                one.update(call("call", counterpart.url), parameters=number)
        if moment == "while it drains":
            loop = beside(loop, call("wait", counterpart.url))
        handle = await executions.start(loop, {"n": 0}, task_timeout=SOON)
        try:
            workers.start()
            if moment == "while it drains":
                await counterpart.called("/wait")
                await drains(handle)
                workers.kill()
                counterpart.gate.set()
                workers.start()
            else:
                while await runs_of(handle, short_histories) < 2:
                    await asyncio.sleep(0.02)
                workers.kill()
                workers.start()
            assert (await asyncio.wait_for(handle.result(), 60))["n"] == rounds
            assert (await executions.closed(handle)).closed_as == "COMPLETED"
            await executions.replay_all()
        finally:
            await workers.stop()
    assert await runs_of(handle, short_histories) >= 2
    assert {path for path in counterpart.calls if "round" in path} == {f"/round-{n}" for n in range(rounds)}
    assert all(len(keys) == 1 for keys in counterpart.keys.values())
    # A call that was under way at the kill is made again; there was at most one.
    assert sum(counterpart.calls[path] - 1 for path in counterpart.calls if "round" in path) <= 1


def beside(loop: dict[str, Any], slow: dict[str, Any]) -> dict[str, Any]:
    """A loop with a slow step in another branch."""
    steps = [one for one in loop["steps"] if one["type"] not in ("START", "END")]
    arrows = [one for one in loop["stepTransitions"] if one["fromStepId"] != "start" and one["toStepId"] != "end"]
    more = ("start -> s", "s -> again", f"s -> {slow['id']}", f"{slow['id']} -> j", "j -> end")
    return document(
        split("s"), slow, join("j"), *steps, *arrows, *(arrow(one) for one in more), arrow("x -> j", isDefault=True)
    )


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
