"""Events that wait for somebody: whom a wait that begins or ends calls, and what is known of those that were taken."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import pytest
from temporalio.client import Client

from app.contracts import WaitRecord
from app.db.statuses import DeliveryStatus, SubscriptionMode
from app.executions import updates
from app.executions.control import Caller
from app.inbox.awaiting import record_waits
from app.inbox.service import redeliver
from app.run_contracts import AwaitedSignal
from tests.app.inbox_scenes import read_deliveries
from tests.documents import confirm, line, wait_signal
from tests.workflows.harness import Executions, executions_on
from tests.workflows.waiting import Shop, waiting

SEVERAL = 12


@pytest.fixture
async def shop(cached: Executions) -> Shop:
    """A shop with a worker, where nothing is delivered by itself."""
    return Shop(cached)


async def is_called(shop: Shop, payment: UUID) -> bool:
    """Whether a payment is to be delivered now."""
    (delivery,) = await read_deliveries(shop.executions.database, payment)
    assert delivery.status == DeliveryStatus.PENDING
    return delivery.due_at <= datetime.now(UTC)


async def grow_old(shop: Shop, payment: UUID) -> None:
    """A payment that has waited for most of its hour is looked at every few minutes."""
    async with shop.executions.database.driver() as connection:
        await connection.execute(
            "UPDATE trigger_delivery SET created_at = now() - interval '50 minutes' WHERE event_id = $1", payment
        )


async def test_as_many_events_are_called_as_waits_begin_at_once(shop: Shop) -> None:
    await shop.open(line(waiting(), wait_signal("other")))
    handle = await shop.start(order="none")
    (wait,) = await shop.waits()
    payments = [await shop.post("a", held=True) for _ in range(SEVERAL)]
    for payment in payments:
        await shop.settle(payment)
        await shop.put_off(payment)
    at = datetime.now(UTC).isoformat()
    begun = [WaitRecord(key=f"w#{n}", at=at, signal="paid", correlation_key="a") for n in range(SEVERAL)]
    await record_waits(shop.executions.database, wait.execution_id, begun)
    assert [await is_called(shop, payment) for payment in payments] == [True] * SEVERAL
    await handle.cancel()
    await shop.executions.closed(handle)


async def test_an_old_event_whose_receiver_has_ended_is_given_to_the_next_at_once(shop: Shop) -> None:
    await shop.open(line(waiting()))
    handles = [await shop.start(order="a") for _ in range(2)]
    first, second = await shop.waits(2)
    payment = await shop.post("a", held=True)
    settled = await shop.settle(payment)
    await grow_old(shop, payment)
    ended, other = handles if str(first.execution_id) in handles[0].id else reversed(handles)
    await ended.cancel()
    await shop.executions.closed(ended)
    await shop.perform(settled)
    assert (await shop.delivery(payment, DeliveryStatus.PENDING)).code == "EXECUTION_ENDED"
    assert await is_called(shop, payment)
    await shop.perform(await shop.settle(payment))
    assert (await shop.delivery(payment)).execution_id == second.execution_id
    await other.result()


async def test_a_wait_that_begins_calls_an_event_whose_receiver_has_ended(shop: Shop) -> None:
    await shop.open(line(waiting()))
    ended = await shop.start(order="a")
    await shop.waits()
    payment = await shop.post("a", held=True)
    settled = await shop.settle(payment)
    await ended.cancel()
    await shop.executions.closed(ended)
    await shop.perform(settled)
    await shop.put_off(payment)
    other = await shop.start(order="a")
    async with asyncio.timeout(10):
        while not await is_called(shop, payment):
            await asyncio.sleep(0.05)
    await other.cancel()
    await shop.executions.closed(other)


async def test_an_event_that_an_earlier_run_has_taken_is_not_given_to_another(
    short_histories: Client, database_url: str
) -> None:
    async with executions_on(short_histories, database_url) as executions:
        shop = Shop(executions)
        async with executions.worker():
            again = wait_signal("again", "go", repeat={"until": "__iteration__ = 19"})
            await shop.open(line(waiting(), again))
            handle = await shop.start(order="a")
            await shop.waits()
            payment = await shop.post("a", held=True)
            settled = await shop.settle(payment)
            (handover,) = settled.handovers
            name = f"delivery:{handover.delivery_id}"
            signal = AwaitedSignal(name="paid", payload={}, correlation_key="a", id=name)
            # The answer is lost, and the run continues as new, and ends, before it is asked again.
            await updates.deliver_awaited(shop.temporal, handover.execution_id, signal, f"{name}:{handover.wait.id}")
            for _ in range(20):
                await executions.deliver(handle, "go")
            await handle.result()
            assert len([run async for run in short_histories.list_workflows(f"WorkflowId = '{handle.id}'")]) > 1
            await shop.perform(settled)
            assert (await shop.delivery(payment)).execution_id == handover.execution_id


async def test_an_event_that_was_refused_is_delivered_again_to_whoever_waits_by_then(shop: Shop) -> None:
    definition = line(confirm("ok"), waiting(), limits={"bufferedSignals": 0})
    await shop.open(definition, SubscriptionMode.START_OR_RESUME)
    await shop.perform(await shop.settle(begun := await shop.post("a", held=True)))
    busy = await shop.delivery(begun, DeliveryStatus.STARTED)
    await shop.executions.waits_for(shop.handle(busy.execution_id), "ok")
    await shop.perform(await shop.settle(payment := await shop.post("a", held=True)))
    refused = await shop.delivery(payment, DeliveryStatus.REFUSED)
    assert (refused.code, refused.execution_id) == ("SIGNAL_BUFFER_FULL", busy.execution_id)
    free = await shop.start(order="a")
    await shop.executions.complete(free, "ok")
    await shop.waits()
    await redeliver(shop.executions.database, shop.temporal, shop.settings, payment, Caller("ann"))
    assert str((await shop.delivery(payment)).execution_id) in free.id
    await free.result()
    await shop.handle(busy.execution_id).cancel()
