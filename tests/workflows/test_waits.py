"""Events that resume the executions which wait for them, from the posted event to the resumed run."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest
from temporalio.client import Client

from app.contracts import WaitRecord
from app.db.event_tables import SignalWait
from app.db.statuses import DeliveryStatus, SubscriptionMode
from app.executions import updates
from app.executions.control import Caller
from app.executions.reopening import reopen
from app.executions.repair import EngineRepair
from app.executions.tidying import close_left_open
from app.inbox.awaiting import record_waits
from app.run_contracts import AwaitedSignal
from tests.app.inbox_scenes import read_deliveries
from tests.documents import arrow, child, document, expr, join, line, split, wait_signal
from tests.workflows.harness import Executions, event_types, executions_on
from tests.workflows.recorded_ways_in import delivering
from tests.workflows.waiting import OUTPUT, Shop, waiting


@pytest.fixture
async def shop(executions: Executions) -> AsyncIterator[Shop]:
    """A shop with a worker and a dispatcher."""
    async with executions.worker(), delivering(executions):
        yield Shop(executions)
    await executions.replay_all()


@pytest.fixture
async def quiet_shop(cached: Executions) -> Shop:
    """A shop with a worker, where nothing is delivered by itself."""
    return Shop(cached)


async def test_an_event_resumes_the_run_that_waits_under_its_key(shop: Shop) -> None:
    await shop.open(line(waiting(), output=OUTPUT))
    other, handle = await shop.start(order="b"), await shop.start(order="a")
    await shop.waits(2)
    payment = await shop.post("a", amount=5)
    assert await handle.result() == {"order": "a", "amount": 5}
    assert (await shop.delivery(payment)).execution_id == UUID(handle.id.removeprefix("execution/"))
    (left,) = await shop.waits(1)
    view = (await shop.executions.waits_for(other, "wait")).waiting_for[0]
    assert (view.signal, view.correlation_key, left.correlation_key) == ("paid", "b", "b")
    await other.cancel()
    await shop.waits(0)


async def test_an_event_that_came_first_is_handed_over_as_soon_as_a_run_waits(shop: Shop) -> None:
    await shop.open(line(waiting(), output=OUTPUT))
    payment = await shop.post("a")
    assert (await shop.delivery(payment, DeliveryStatus.PENDING)).code == "NO_ONE_WAITS"
    await shop.put_off(payment)
    handle = await shop.start(order="a")
    async with asyncio.timeout(10):
        assert await handle.result() == {"order": "a"}
    assert (await shop.delivery(payment)).code is None


async def test_an_event_resumes_the_child_that_waits(shop: Shop) -> None:
    slug = await shop.open(line(waiting(), output=OUTPUT))
    mapping = [{"targetPath": "order", "value": "a"}]
    parent = line(child("sub", childWorkflowTemplateVersionId=f"{slug}@1.0.0", inputMapping=mapping))
    handle = await shop.executions.start({**parent, "output": expr("__steps__.sub")})
    (wait,) = await shop.waits()
    payment = await shop.post("a")
    assert await handle.result() == {"order": "a"}
    assert (await shop.delivery(payment)).execution_id == wait.execution_id


async def test_of_two_runs_the_one_that_has_waited_longest_gets_the_event(shop: Shop) -> None:
    await shop.open(line(waiting(), output=OUTPUT))
    first = await shop.start(order="a")
    await shop.waits(1)
    second = await shop.start(order="a")
    await shop.waits(2)
    await shop.post("a", n=1)
    assert (await first.result())["n"] == 1
    await shop.post("a", n=2)
    assert (await second.result())["n"] == 2


async def test_twenty_events_at_once_resume_twenty_runs(shop: Shop) -> None:
    await shop.open(line(waiting(), output=expr("__steps__.wait.n")))
    handles = await asyncio.gather(*(shop.start(order="a") for _ in range(20)))
    await shop.waits(20)
    await asyncio.gather(*(shop.post("a", n=n) for n in range(20)))
    async with asyncio.timeout(60):
        outputs = await asyncio.gather(*(handle.result() for handle in handles))
    assert sorted(outputs) == list(range(20))


async def test_a_run_that_waits_again_and_again_gets_one_event_each_time(shop: Shop) -> None:
    again = waiting(repeat={"until": "__iteration__ = 4"})
    await shop.open(line(again, output=expr("__steps__.wait.n")))
    payments = [await shop.post("a", n=n) for n in range(5)]
    for payment in payments:
        await shop.delivery(payment, DeliveryStatus.PENDING)
        await shop.put_off(payment)
    handle = await shop.start(order="a")
    async with asyncio.timeout(20):
        assert sorted(await handle.result()) == list(range(5))


async def test_several_waits_of_one_run_get_an_event_each(shop: Shop) -> None:
    items = {"iterable": {"type": "EXPRESSION", "expr": {"src": "[1..3]"}}}
    await shop.open(line(waiting(forEach=items), output=expr("__steps__.wait.n")))
    handle = await shop.start(order="a")
    await shop.waits(3)
    payments = await asyncio.gather(*(shop.post("a", n=n) for n in range(4)))
    assert len(set(await handle.result())) == 3
    codes: list[str] = []
    async with asyncio.timeout(20):
        # The run may end before it is the last event's turn.
        while len(codes) < len(payments):
            left = [await read_deliveries(shop.executions.database, payment) for payment in payments]
            codes = [str(delivery.code) for deliveries in left for delivery in deliveries]
    assert sorted(codes) == ["NO_ONE_WAITS", "None", "None", "None"]


async def test_each_of_two_steps_that_wait_alike_is_found_after_the_other_has_its_event(shop: Shop) -> None:
    # The run itself would give a signal to `a` first, and says first that `z` waits.
    names = ("z", "a")
    steps = [wait_signal(name, "paid", correlationKey="k") for name in names]
    arrows = [arrow(text) for name in names for text in (f"s -> {name}", f"{name} -> j")]
    await shop.open(document(arrow("start -> s"), split("s"), *steps, join("j"), *arrows, arrow("j -> end")))
    handle = await shop.start()
    first, second = await shop.waits(2)
    payments = []
    for left in (1, 0):
        payments.append(await shop.post("k"))
        await shop.delivery(payments[-1])
        await shop.waits(left)
    given = [(await shop.delivery(payment)).wait_id for payment in payments]
    assert given == [first.id, second.id]
    await handle.result()


async def test_however_waits_and_events_meet_each_event_is_taken_once(shop: Shop) -> None:
    # Waits that end again and again, and another dispatcher besides.
    retry = {"maxAttempts": 100, "initialInterval": 0.2, "backoff": "fixed"}
    restless = waiting(timeout=1, retry=retry, repeat={"until": "__iteration__ = 2"})
    await shop.open(line(restless, output=expr("__steps__.wait.n")))
    orders = ["a", "b", "c"] * 4

    async def posted(n: int) -> None:
        await asyncio.sleep(n * 0.1)
        await shop.post(orders[n % len(orders)], n=n)

    async with delivering(shop.executions), asyncio.timeout(100):
        posting = asyncio.gather(*(posted(n) for n in range(3 * len(orders))))
        handles = [await shop.start(order=order) for order in orders]
        await posting
        outputs = await asyncio.gather(*(handle.result() for handle in handles))
    assert sorted(n for output in outputs for n in output) == list(range(3 * len(orders)))


async def test_an_event_is_for_who_waits_before_it_starts_anything(shop: Shop) -> None:
    await shop.open(line(waiting(), output=OUTPUT), SubscriptionMode.START_OR_RESUME)
    handle = await shop.start(order="a")
    await shop.waits()
    resuming = await shop.post("a", n=1)
    assert (await handle.result())["n"] == 1
    await shop.waits(0)
    # Whoever waits by itself has no claim to later events.
    starting = await shop.post("a", n=2)
    started = await shop.delivery(starting, DeliveryStatus.STARTED)
    assert (await shop.delivery(resuming)).execution_id != started.execution_id
    await shop.handle(started.execution_id).cancel()


async def test_an_event_whose_wait_has_timed_out_meanwhile_waits_for_another(quiet_shop: Shop) -> None:
    shop = quiet_shop
    await shop.open(line(waiting(timeout=600), output=OUTPUT))
    late = await shop.start(order="a")
    await shop.waits()
    payment = await shop.post("a", held=True)
    settled = await shop.settle(payment)
    await shop.executions.control(late, "SKIP_TIMER", "wait")
    await shop.perform(settled)
    refused = await shop.delivery(payment, DeliveryStatus.PENDING)
    assert (refused.code, refused.execution_id) in (("NOT_AWAITED", None), ("EXECUTION_ENDED", None))
    in_time = await shop.start(order="a")
    await shop.waits()
    await shop.perform(await shop.settle(payment))
    assert (await in_time.result())["order"] == "a"
    await shop.executions.closed(late)


async def test_a_wait_that_has_another_signal_refuses_an_event_and_the_next_run_gets_it(quiet_shop: Shop) -> None:
    shop = quiet_shop
    await shop.open(line(waiting(), wait_signal("other")))
    first, second = await shop.start(order="a"), await shop.start(order="a")
    oldest, _ = await shop.waits(2)
    payment = await shop.post("a", held=True)
    settled = await shop.settle(payment)
    (handover,) = settled.handovers
    assert (handover.execution_id, handover.wait.id) == (oldest.execution_id, oldest.id)
    taken, left = (first, second) if str(oldest.execution_id) in first.id else (second, first)
    await shop.executions.deliver(taken, "paid", "by hand", key="a")
    await shop.perform(settled)
    refused = await shop.delivery(payment, DeliveryStatus.PENDING)
    assert (refused.code, refused.execution_id, refused.wait_id) == ("NOT_AWAITED", None, None)
    await shop.perform(await shop.settle(payment))
    assert str((await shop.delivery(payment)).execution_id) in left.id
    await shop.executions.waits_for(left, "other")
    for handle in (taken, left):
        await shop.executions.deliver(handle, "other")
        await handle.result()


async def test_each_wait_is_given_one_event(quiet_shop: Shop) -> None:
    shop = quiet_shop
    await shop.open(line(waiting()))
    handles = [await shop.start(order="a") for _ in range(2)]
    waits = await shop.waits(2)
    payments = [await shop.post("a", held=True) for _ in range(3)]
    given = [each for payment in payments for each in (await shop.settle(payment)).handovers]
    assert [each.wait and each.wait.id for each in given] == [wait.id for wait in waits]
    assert (await shop.delivery(payments[2], DeliveryStatus.PENDING)).code == "NO_ONE_WAITS"
    for handle in handles:
        await handle.cancel()
        await shop.executions.closed(handle)


async def test_of_two_signals_for_one_wait_that_come_at_once_one_is_refused_and_not_kept(quiet_shop: Shop) -> None:
    shop = quiet_shop
    await shop.open(line(waiting(), wait_signal("other")))
    handle = await shop.start(order="a")
    (wait,) = await shop.waits()
    signals = [AwaitedSignal(name="paid", payload=n, correlation_key="a", id=f"s{n}") for n in range(2)]
    ask = [updates.deliver_awaited(shop.temporal, wait.execution_id, signal, signal.id or "") for signal in signals]
    answers = await asyncio.gather(*ask, return_exceptions=True)
    assert sorted(str(getattr(each, "code", None) or getattr(each, "status", "")) for each in answers) == [
        "DELIVERED",
        "NOT_AWAITED",
    ]
    assert "signals" not in await shop.executions.memory(handle)
    await shop.executions.deliver(handle, "other")
    await handle.result()


async def test_an_event_that_was_taken_while_its_sender_died_is_not_given_to_another(quiet_shop: Shop) -> None:
    shop = quiet_shop
    await shop.open(line(waiting(), output=OUTPUT))
    handle = await shop.start(order="a")
    await shop.waits()
    other = await shop.start(order="a")
    await shop.waits(2)
    payment = await shop.post("a", held=True)
    (handover,) = (await shop.settle(payment)).handovers
    name = f"delivery:{handover.delivery_id}"
    signal = AwaitedSignal(name="paid", payload={}, correlation_key="a", id=name)
    await updates.deliver_awaited(shop.temporal, handover.execution_id, signal, f"{name}:{handover.wait.id}")
    await handle.result()
    await shop.perform(await shop.settle(payment))
    assert str((await shop.delivery(payment)).execution_id) in handle.id
    await shop.executions.waits_for(other, "wait")
    await other.cancel()
    await shop.executions.closed(other)


async def test_an_event_that_comes_while_no_worker_is_there_is_handed_over_later(executions: Executions) -> None:
    shop = Shop(executions)
    async with delivering(executions):
        async with executions.worker():
            await shop.open(line(waiting(), output=OUTPUT))
            handle = await shop.start(order="a")
            await shop.waits()
        payment = await shop.post("a")
        assert (await shop.delivery(payment, DeliveryStatus.PENDING)).code == "WORKER_UNAVAILABLE"
        async with executions.worker():
            await shop.delivery(payment)
            assert await handle.result() == {"order": "a"}


async def test_runs_of_an_earlier_revision_have_no_rows(cached: Executions) -> None:
    start, definition = await cached.prepare(line(waiting()), {"order": "a"})
    handle = await cached.launch((start.model_copy(update={"engine_revision": 3}), definition))
    await cached.waits_for(handle, "wait")
    await cached.deliver(handle, "paid", key="a")
    await handle.result()
    # One local activity: the row of the execution's end.
    assert (await event_types(handle)).count("marker_recorded") == 1


async def test_a_wait_that_postgres_does_not_take_at_first_is_found_later(shop: Shop) -> None:
    await shop.open(line(waiting(), output=OUTPUT))
    rename = "ALTER TABLE {} RENAME TO {}"
    async with shop.executions.database.driver() as connection:
        await connection.execute(rename.format("signal_wait", "signal_wait_away"))
        handle = await shop.start(order="a")
        while "activity_task_scheduled" not in await event_types(handle):
            await asyncio.sleep(0.1)
        await connection.execute(rename.format("signal_wait_away", "signal_wait"))
    await shop.waits()
    await shop.post("a")
    assert await handle.result() == {"order": "a"}


async def test_a_run_that_continues_as_new_while_it_waits_is_found_in_whichever_of_its_runs(
    short_histories: Client, database_url: str
) -> None:
    async with executions_on(short_histories, database_url) as executions:
        shop = Shop(executions)
        async with executions.worker(), delivering(executions):
            await shop.open(line(waiting(repeat={"until": "__iteration__ = 11"}), output=expr("__steps__.wait.n")))
            handle = await shop.start(order="a")
            for n in range(12):
                await shop.waits()
                await shop.delivery(await shop.post("a", n=n))
            assert await handle.result() == list(range(12))
            assert len([run async for run in short_histories.list_workflows(f"WorkflowId = '{handle.id}'")]) > 1
            await shop.waits(0)
        await executions.replay_all()


async def test_an_event_resumes_a_run_that_was_taken_up_again(shop: Shop) -> None:
    await shop.open(line(waiting(), output=OUTPUT))
    handle = await shop.start(order="a")
    (first,) = await shop.waits()
    await handle.cancel()
    await shop.executions.closed(handle)
    await reopen(shop.executions.database, shop.temporal, EngineRepair(), first.execution_id, None, Caller("ann"))
    (again,) = await shop.waits()
    assert (again.execution_id, again.key, again.id == first.id) == (first.execution_id, first.key, False)
    await shop.delivery(await shop.post("a"))
    assert await shop.handle(first.execution_id).result() == {"order": "a"}


async def test_what_an_ended_execution_waited_for_is_forgotten(quiet_shop: Shop) -> None:
    shop = quiet_shop
    await shop.open(line(waiting()))
    handle = await shop.start(order="a")
    (wait,) = await shop.waits()
    await handle.cancel()
    await shop.executions.closed(handle)
    async with shop.executions.database.transaction() as session:
        await close_left_open(session, [wait.execution_id])
        assert await session.get(SignalWait, wait.id) is None


async def test_a_record_that_comes_late_or_twice_changes_nothing(quiet_shop: Shop) -> None:
    shop = quiet_shop
    await shop.open(line(waiting()))
    handle = await shop.start(order="a")
    (wait,) = await shop.waits()
    moment = wait.opened_at

    async def recorded(seconds: float, signal: str | None = "paid") -> None:
        at = (moment + timedelta(seconds=seconds)).isoformat()
        record = WaitRecord(key="wait#1", at=at, signal=signal, correlation_key=None if signal is None else "a")
        await record_waits(shop.executions.database, wait.execution_id, [record])

    await recorded(-1, None)
    await recorded(0)
    assert (await shop.waits())[0].id == wait.id
    await recorded(2, None)
    await recorded(0)
    await recorded(1)
    await shop.waits(0)
    await recorded(3)
    assert (await shop.waits())[0].id != wait.id
    await handle.cancel()
    await shop.executions.closed(handle)
