"""What was done to steps from outside, and in which run of the execution it happened."""

import asyncio
from uuid import UUID

from app.contracts import child_id
from app.executions.control import Caller
from app.executions.history import CallKind
from app.executions.reading import read_execution
from app.executions.reopening import reopen
from app.executions.repair import EngineRepair
from app.run_contracts import DELIVER_SIGNAL, SignalDelivery
from app.settings import TemporalSettings
from app.temporal import Temporal
from tests.documents import action, batch, delay, expr, line, wait_signal
from tests.workflows.harness import PATIENCE, Executions, Handle, failure_of
from tests.workflows.test_step_reading import only, read


async def test_a_signal_is_shown_with_the_visit_that_took_it_and_who_sent_it(running: Executions) -> None:
    handle = await running.start(line(wait_signal("paid")))
    await running.waits_for(handle, "paid")
    await handle.execute_update(
        DELIVER_SIGNAL, SignalDelivery(name="paid", payload={"amount": 3}, correlation_key="o-7", actor="ann")
    )
    await handle.result()
    detail = await read(running, handle, "paid")
    call = only(detail)
    assert (call.key, call.kind, call.name, call.status) == ("paid#1", "SIGNAL", "paid", "COMPLETED")
    assert (call.input, call.correlation_key, call.who, call.answer) == ({"amount": 3}, "o-7", "ann", "DELIVERED")
    assert call.started_at is not None
    assert detail.signals == []


async def test_a_signal_for_whoever_waits_is_shown_with_the_visit_that_took_it(running: Executions) -> None:
    handle = await running.start(line(wait_signal("paid", correlationKey="a")))
    await running.waits_for(handle, "paid")
    await running.deliver_awaited(handle, "paid", "a", "s1")
    await handle.result()
    call = only(await read(running, handle, "paid"))
    assert (call.key, call.kind, call.name, call.status) == ("paid#1", "SIGNAL", "paid", "COMPLETED")
    assert (call.input, call.correlation_key, call.answer) == ("s1", "a", "DELIVERED")


async def test_signals_that_no_receipt_ties_to_a_visit_are_shown_with_the_step(running: Executions) -> None:
    nap = action("nap", actionKey="test.sleep", parameters={"seconds": 1})
    handle = await running.start(line(nap, wait_signal("paid"), wait_signal("sent")))
    await running.waits_for(handle, "nap")
    assert await running.deliver(handle, "paid", "early") == "BUFFERED"
    await handle.signal("sent", "plain")
    await handle.result()
    paid = await read(running, handle, "paid")
    assert [(call.input, call.answer) for call in paid.signals] == [("early", "BUFFERED")]
    assert paid.visits == []
    sent = await read(running, handle, "sent", visit=1)
    assert [(call.input, call.answer, call.kind) for call in sent.signals] == [("plain", None, CallKind.SIGNAL)]


async def is_parked(executions: Executions, handle: Handle, step_id: str, kind: str, code: str | None = None) -> None:
    """Returns when a step waits for somebody, and no longer for its action."""
    for _ in range(PATIENCE):
        [wait] = (await executions.waits_for(handle, step_id)).waiting_for
        if (wait.kind, wait.code) == (kind, code):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{step_id} does not wait for {kind} but for {wait.kind}")


async def test_what_operators_did_to_a_step_is_shown_with_who_they_were(cached: Executions) -> None:
    broken = action("bad", actionKey="test.fail", parameters={"code": "A"}, onFailure="INCIDENT")
    asks = action("ask", actionKey="test.ask", parameters={"question": "why?"})
    handle = await cached.start(line(broken, asks, delay("nap", "PT1H")))
    await is_parked(cached, handle, "bad", "INCIDENT", "A")
    await cached.control(
        handle, "RETRY_INCIDENT", "bad", actor="ann", edit_parameters=True, parameters={"code": "B"}, reason="again"
    )
    await is_parked(cached, handle, "bad", "INCIDENT", "B")
    await cached.control(handle, "COMPLETE_INCIDENT", "bad", actor="bob", output={"by": "hand"})
    await is_parked(cached, handle, "ask", "SUSPENDED")
    await cached.control(handle, "RESUME_STEP", "ask", actor="cleo", data="so")
    await cached.waits_for(handle, "nap")
    await cached.control(handle, "SKIP_TIMER", "nap", actor="dan")
    await handle.result()

    [visit] = (await read(cached, handle, "bad")).visits
    completed, second, retried, first = visit.calls
    assert (completed.kind, completed.name, completed.who) == ("CONTROL", "COMPLETE_INCIDENT", "bob")
    assert (completed.input, completed.answer) == ({"output": {"by": "hand"}}, "APPLIED")
    assert (retried.name, retried.who, retried.reason) == ("RETRY_INCIDENT", "ann", "again")
    assert retried.input == {"parameters": {"code": "B"}}
    assert (first.input, second.input) == ({"code": "A"}, {"code": "B"})

    [visit] = (await read(cached, handle, "ask")).visits
    resumed = next(call for call in visit.calls if call.kind == "CONTROL")
    assert (resumed.name, resumed.who, resumed.input) == ("RESUME_STEP", "cleo", {"data": "so"})

    [visit] = (await read(cached, handle, "nap")).visits
    skipped, timer = visit.calls
    assert (skipped.kind, skipped.name, skipped.who, skipped.key) == ("CONTROL", "SKIP_TIMER", "dan", "nap#1")
    assert timer.kind == "TIMER"
    assert (timer.status, timer.who) == ("SKIPPED", "dan")


async def test_the_runs_of_a_retried_execution_are_linked_and_all_of_them_read(cached: Executions) -> None:
    definition = line(action("fine"), action("bad", actionKey="test.fail", parameters={"code": "A"}))
    handle = await cached.start(definition)
    await failure_of(handle)
    await cached.closed(handle)
    first = (await handle.describe()).run_id
    address = cached.client.service_client.config.target_host
    temporal = Temporal(TemporalSettings(address=address, task_queue=cached.task_queue), cached.converter)
    execution_id = UUID(handle.id.removeprefix("execution/"))
    await reopen(cached.database, temporal, EngineRepair(), execution_id, None, Caller("ann"), "once more")
    latest = cached.client.get_workflow_handle(handle.id)
    await failure_of(latest)
    second = (await latest.describe()).run_id
    assert second != first

    detail = await read(cached, handle, "bad")
    assert [(run.run_id, run.began, run.actor, run.note) for run in detail.runs] == [
        (second, "RETRY", "ann", "once more"),
        (first, "STARTED", None, None),
    ]
    assert detail.runs[0].previous_run_id == first
    assert [call.run_id for visit in detail.visits for call in visit.calls] == [second, first]
    assert only(await read(cached, handle, "fine")).run_id == first

    # A page that ends in the newer run says why that began, too, and the next goes on to the older.
    page = await read(cached, handle, "bad", limit=1)
    assert [run.began for run in page.runs] == ["RETRY"]
    older = await read(cached, handle, "bad", limit=1, cursor=page.next_cursor)
    assert [call.run_id for visit in older.visits for call in visit.calls] == [first]


async def test_the_chunks_of_a_large_batch_tell_how_far_they_are_and_their_calls_are_read(cached: Executions) -> None:
    slug = f"leaf-{cached.task_queue[-8:]}"
    nap = action("nap", actionKey="test.sleep", parameters={"seconds": expr("__context__.n > 515 ? 600 : 0")})
    await cached.template(slug, line(nap))
    mapping = [{"targetPath": "n", "value": expr("__each__")}]
    many = batch(
        "all", "[1..520]", concurrency=40, childWorkflowTemplateVersionId=f"{slug}@1.0.0", inputMapping=mapping
    )
    handle = await cached.start(line(many))
    for _ in range(600):
        detail = await read(cached, handle, "all")
        calls = [call for visit in detail.visits for call in visit.calls]
        if any(call.status == "COMPLETED" for call in calls) and detail.items is not None and detail.items.done == 515:
            break
        await asyncio.sleep(0.1)
    assert detail.items is not None
    assert detail.items.model_dump() == {"total": 520, "open": 5, "done": 515, "failed": 0}
    [visit] = detail.visits
    chunks = {call.key: call for call in visit.calls}
    assert set(chunks) == {"all#1/batch/0", "all#1/batch/260"}
    whole, part = chunks["all#1/batch/0"], chunks["all#1/batch/260"]
    assert (whole.kind, whole.status, whole.input, whole.output) == ("CHUNK", "COMPLETED", None, None)
    assert whole.items is not None
    assert whole.items.model_dump() == {"first": 0, "last": 259, "open": 0, "done": 260, "failed": 0}
    assert part.items is not None
    assert part.items.model_dump() == {"first": 260, "last": 519, "open": 5, "done": 255, "failed": 0}

    page = await read(cached, handle, "all", chunk="all#1/batch/260", limit=10)
    calls = [call for visit in page.visits for call in visit.calls]
    assert len(calls) == 10
    assert page.next_cursor is not None
    assert all(call.item is not None and call.item >= 260 for call in calls)
    found = only(await read(cached, handle, "all", item=300))
    assert found.key == "all#1/batch/260"
    three_hundredth = only(await read(cached, handle, "all", chunk=found.key, item=300))
    parent = handle.id.removeprefix("execution/")
    assert three_hundredth.execution_id == child_id(parent, "all#1/item/300", 1)
    assert three_hundredth.input == {"n": 301}
    await handle.cancel()
    await cached.closed(handle)


async def test_a_paused_execution_says_so_with_since_when_and_by_whom(cached: Executions) -> None:
    handle = await cached.start(line(delay("nap", "PT1H"), action("call")))
    await cached.waits_for(handle, "nap")
    address = cached.client.service_client.config.target_host
    temporal = Temporal(TemporalSettings(address=address), cached.converter)
    execution_id = UUID(handle.id.removeprefix("execution/"))
    assert "paused" not in (await read_execution(cached.database, temporal, execution_id)).model_fields_set
    await cached.control(handle, "PAUSE", actor="ann")
    view = await read_execution(cached.database, temporal, execution_id)
    assert view.runtime_status == "IN_PROGRESS"
    assert view.paused is not None
    assert view.paused.by == "ann"
    await cached.control(handle, "RESUME")
    assert "paused" not in (await read_execution(cached.database, temporal, execution_id)).model_fields_set
    await handle.terminate()
