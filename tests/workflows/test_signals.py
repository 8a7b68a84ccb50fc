"""Signals on the real server: early, late, twice, correlated, without a receipt, and from people who ask in vain."""

import asyncio
from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from tests.documents import action, arrow, document, expr, join, line, split, step
from tests.workflows.harness import Executions, event_types, refused


def wait(step_id: str, name: str = "paid", **fields: Any) -> dict[str, Any]:
    """A SYS_WAIT_SIGNAL."""
    return step(step_id, "SYS_WAIT_SIGNAL", signal=name, **fields)


async def test_a_signal_reaches_the_step_that_waits_and_its_sender_is_told(running: Executions) -> None:
    handle = await running.start(line(wait("w"), output=expr("__steps__.w")))
    view = await running.waits_for(handle, "w")
    assert (view.waiting_for[0].kind, view.waiting_for[0].who) == ("SIGNAL", "paid")
    assert await running.deliver(handle, "paid", {"amount": 3}) == "DELIVERED"
    assert await handle.result() == {"amount": 3}


async def test_a_signal_that_comes_early_is_kept(running: Executions) -> None:
    nap = action("nap", actionKey="test.sleep", parameters={"seconds": 1})
    handle = await running.start(line(nap, wait("w"), output=expr("__steps__.w")))
    await running.waits_for(handle, "nap")
    assert await running.deliver(handle, "paid", "early") == "BUFFERED"
    assert await handle.result() == "early"


async def test_a_step_that_does_not_buffer_ignores_what_came_before(running: Executions) -> None:
    nap = action("nap", actionKey="test.sleep", parameters={"seconds": 1})
    handle = await running.start(line(nap, wait("w", buffer=False), output=expr("__steps__.w")))
    await running.waits_for(handle, "nap")
    assert await running.deliver(handle, "paid", "early") == "BUFFERED"
    await running.waits_for(handle, "w")
    await running.deliver(handle, "paid", "late")
    assert await handle.result() == "late"


async def test_a_plain_temporal_signal_works_too(running: Executions) -> None:
    handle = await running.start(line(wait("w", correlationKey="order-7"), output=expr("__steps__.w")))
    await running.waits_for(handle, "w")
    await handle.signal("paid", args=["other", "order-8"])
    await handle.signal("paid", args=["mine", "order-7"])
    assert await handle.result() == "mine"


async def test_a_plain_signal_sent_before_the_first_task_is_kept(executions: Executions) -> None:
    handle = await executions.start(line(wait("w"), output=expr("__steps__.w")))
    await handle.signal("paid", "first of all")
    async with executions.worker():
        assert await handle.result() == "first of all"
    await executions.replay_all()


async def test_updates_that_come_with_the_first_task_are_answered(executions: Executions) -> None:
    handle = await executions.start(line(wait("w"), step("ask", "HUMAN_CONFIRM"), output=expr("__steps__.w")))
    early = [
        asyncio.create_task(executions.deliver(handle, "paid", "early")),
        asyncio.create_task(refused(executions.complete(handle, "ask"))),
        asyncio.create_task(refused(executions.control(handle, "SKIP_TIMER", "w"))),
    ]
    await asyncio.sleep(0.5)
    async with executions.worker():
        assert await asyncio.gather(*early) == ["DELIVERED", "STEP_NOT_OPEN", "NO_TIMER"]
        await executions.complete(handle, "ask")
        assert await handle.result() == "early"
    await executions.replay_all()


async def test_a_signal_goes_to_the_step_with_its_correlation_key(running: Executions) -> None:
    definition = document(
        split("s"),
        wait("a", correlationKey=expr("__context__.a")),
        wait("b", correlationKey=expr("__context__.b")),
        join("j"),
        *(arrow(text) for text in ("start -> s", "s -> a", "s -> b", "a -> j", "b -> j", "j -> end")),
        output={"a": expr("__steps__.a"), "b": expr("__steps__.b")},
    )
    handle = await running.start(definition, {"a": "one", "b": 2})
    await running.waits_for(handle, "a", "b")
    assert await running.deliver(handle, "paid", "for b", key="2") == "DELIVERED"
    await running.waits_for(handle, "a")
    assert await running.deliver(handle, "paid", "for nobody", key="three") == "BUFFERED"
    assert await running.deliver(handle, "paid", "for a", key="one") == "DELIVERED"
    assert await handle.result() == {"a": "for a", "b": "for b"}


async def test_a_signal_sent_twice_with_one_id_is_one(running: Executions) -> None:
    handle = await running.start(line(wait("one"), wait("two"), output=expr("[__steps__.one, __steps__.two]")))
    await running.waits_for(handle, "one")
    statuses = await asyncio.gather(
        *(running.deliver(handle, "paid", "once", signal_id="delivery-1") for _ in range(5))
    )
    assert set(statuses) == {"DELIVERED"}
    await running.waits_for(handle, "two")
    assert await running.deliver(handle, "paid", "twice", signal_id="delivery-2") == "DELIVERED"
    assert await handle.result() == ["once", "twice"]


async def test_an_update_s_id_is_the_signal_s_when_it_brings_none(running: Executions) -> None:
    handle = await running.start(line(wait("one"), wait("two"), output=expr("[__steps__.one, __steps__.two]")))
    await running.waits_for(handle, "one")
    for _ in range(2):
        await handle.execute_update("deliver_signal", {"name": "paid", "payload": "x"}, id="same")
    await running.waits_for(handle, "two")
    await running.deliver(handle, "paid", "y")
    assert await handle.result() == ["x", "y"]


async def test_many_signals_at_once_are_all_kept_in_their_order(cached: Executions) -> None:
    most = 30
    waits = [wait(f"w{n}") for n in range(most)]
    seen = ", ".join(f"__steps__.w{n}" for n in range(most))
    handle = await cached.start(line(*waits, output=expr(f"[{seen}]")))
    for n in range(most):
        await handle.signal("paid", n)
    assert await handle.result() == list(range(most))


async def test_a_signal_adds_items_to_a_step_that_runs_over_them(cached: Executions) -> None:
    each = {"iterable": {"type": "EXPRESSION", "expr": {"src": "[1]"}}, "concurrency": 3}
    person = step("ask", "HUMAN_CONFIRM", forEach=each)
    handle = await cached.start(line(person, output=expr("$count(__steps__.ask)")))
    await cached.waits_for(handle, "ask")
    assert await cached.deliver(handle, "ask.add", [2, 3]) == "DELIVERED"
    await cached.waits_for(handle, "ask", "ask", "ask")
    for item in range(3):
        await cached.complete(handle, "ask", item=item)
    assert await handle.result() == 3


@pytest.mark.parametrize("limit", [0, 2])
async def test_a_full_buffer_refuses_and_leaves_no_event(running: Executions, limit: int) -> None:
    handle = await running.start(line(wait("w", correlationKey="k"), limits={"bufferedSignals": limit}))
    await running.waits_for(handle, "w")
    for _ in range(limit):
        assert await running.deliver(handle, "paid") == "BUFFERED"
    assert await refused(running.deliver(handle, "paid")) == "SIGNAL_BUFFER_FULL"
    assert (await event_types(handle)).count("workflow_execution_update_accepted") == limit
    assert await running.deliver(handle, "paid", key="k") == "DELIVERED"
    await handle.result()


async def test_a_signal_that_no_step_could_ever_take_is_refused(running: Executions) -> None:
    handle = await running.start(line(step("ask", "HUMAN_CONFIRM")))
    await running.waits_for(handle, "ask")
    assert await refused(running.deliver(handle, "paid")) == "SIGNAL_UNKNOWN"
    assert "workflow_execution_update_accepted" not in await event_types(handle)
    await handle.terminate()


async def test_a_wait_that_takes_too_long_leaves_by_its_timeout(running: Executions) -> None:
    definition = document(
        wait("w", timeout=0.3),
        join("m", "EXCLUSIVE"),
        step("late", "SYS_SET", assignments=[{"targetPath": "late", "value": expr("__error__.code")}]),
        arrow("start -> w"),
        arrow("w -> m"),
        arrow("w -> late", on="TIMEOUT"),
        arrow("late -> m"),
        arrow("m -> end"),
    )
    handle = await running.start(definition)
    assert await handle.result() == {"late": "STEP_TIMED_OUT"}


async def test_a_signal_by_a_name_that_no_step_takes_is_refused_with_the_names_there_are(running: Executions) -> None:
    each = step("all", "HUMAN_CONFIRM", forEach={"iterable": {"type": "EXPRESSION", "expr": {"src": "[1]"}}})
    handle = await running.start(line(wait("w"), each))
    await running.waits_for(handle, "w")
    with pytest.raises(WorkflowUpdateFailedError) as refusal:
        await running.deliver(handle, "payed")
    assert isinstance(refusal.value.cause, ApplicationError)
    assert refusal.value.cause.type == "SIGNAL_UNKNOWN"
    assert "paid" in refusal.value.cause.message
    assert "all.add" in refusal.value.cause.message
    assert await running.deliver(handle, "all.add", [2]) == "BUFFERED"
    assert await running.deliver(handle, "paid") == "DELIVERED"
    await handle.terminate()


async def test_any_signal_is_kept_where_a_step_works_out_the_name_that_it_waits_for(running: Executions) -> None:
    worked_out = step("w", "SYS_WAIT_SIGNAL", signal=expr("'paid'"))
    handle = await running.start(line(worked_out))
    await running.waits_for(handle, "w")
    assert await running.deliver(handle, "payed") == "BUFFERED"
    await handle.terminate()
