"""Runs to be recorded of what comes in: a tick of a schedule, a backfill, and events for whoever waits for them."""

import asyncio
import contextlib
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlmodel import col
from temporalio import activity
from temporalio.client import Client, WorkflowFailureError
from temporalio.worker import Worker

from app.backfill_contracts import (
    BACKFILL_CHANGED,
    BACKFILL_WORKFLOW,
    BackfillRun,
    StartedRows,
    StartRows,
    backfill_workflow_id,
)
from app.contracts import START_ROWS, TICK_WORKFLOW
from app.db.backfill_tables import Backfill, BackfillRow
from app.db.schedule_tables import ScheduleTrigger
from app.db.statuses import BackfillStatus
from app.db.tables import WorkflowTemplate, WorkflowTemplateVersion
from app.inbox.dispatcher import Dispatcher
from app.settings import Settings, TemporalSettings
from app.temporal import Temporal
from app.tick_contracts import Tick
from tests.documents import arrow, document, event_split, expr, join, wait_signal
from tests.workflows.harness import Executions, Handle, refused
from workflows.backfill import BackfillStarts


def delivering(executions: Executions) -> AbstractAsyncContextManager[None]:
    """A dispatcher: what ticks and rows bring into the inbox is delivered."""
    settings = Settings(temporal=TemporalSettings(task_queue=executions.task_queue))
    temporal = Temporal(settings.temporal, executions.converter, executions.client)
    return Dispatcher(executions.database, temporal, settings).running()


async def ticked(executions: Executions, slug: str) -> Handle:
    """A tick that waits for the execution that it has started."""
    handle = await _tick(executions, slug, "recorded tick")
    await handle.result()
    return handle


async def withdrawn_tick(executions: Executions, slug: str) -> Handle:
    """A tick that is cancelled while it waits, and waits for the end of what it withdraws."""
    handle = await _tick(executions, slug, "recorded withdrawn tick")
    async with asyncio.timeout(20):
        while "timerStartedEventAttributes" not in (await handle.fetch_history()).to_json():
            await asyncio.sleep(0.2)
    await handle.cancel()
    with contextlib.suppress(WorkflowFailureError):
        await handle.result()
    return handle


async def backfilled(executions: Executions, slug: str) -> Handle:
    """A backfill of three rows at a rate."""
    template_id = await _active(executions, slug)
    async with executions.database.transaction() as session:
        backfill = Backfill(name="recorded", template_id=template_id, rate=2.0, status=BackfillStatus.RUNNING)
        session.add(backfill)
        await session.flush()
        for number in range(1, 4):
            session.add(BackfillRow(backfill_id=backfill.id, number=number, context={"n": number}))
    handle = await executions.client.start_workflow(
        BACKFILL_WORKFLOW,
        BackfillRun(backfill_id=backfill.id, rate=backfill.rate),
        id=backfill_workflow_id(backfill.id),
        task_queue=executions.task_queue,
    )
    await handle.result()
    return handle


async def told_at_the_end(client: Client) -> tuple[Handle, int]:
    """A backfill that is told of a change by the time its rows have all had their turn; and how often it then looked.

    What starts rows is a stand-in, which knows the moment.
    """
    task_queue, backfill_id = f"told-{uuid4()}", uuid4()
    workflow_id, calls = backfill_workflow_id(backfill_id), 0

    @activity.defn(name=START_ROWS)
    async def start_rows(asked: StartRows) -> StartedRows:
        nonlocal calls
        calls += 1
        if calls == 1:
            await client.get_workflow_handle(workflow_id).signal(BACKFILL_CHANGED)
        return StartedRows(status="COMPLETED", taken=1)

    worker = Worker(
        client,
        task_queue=task_queue,
        workflows=[BackfillStarts],
        activities=[start_rows],
    )
    async with worker:
        handle = await client.start_workflow(
            BACKFILL_WORKFLOW, BackfillRun(backfill_id=backfill_id), id=workflow_id, task_queue=task_queue
        )
        await handle.result()
    return handle, calls


async def waited(executions: Executions) -> Handle:
    """Waits under correlation keys that end in every way: signal, lost race, timeout, cancel; and signals for
    who waits now that nobody takes, one of them because another came at once.
    """
    again = {"until": "__iteration__ = 1"}
    definition = document(
        event_split("race"),
        wait_signal("one", "paid", correlationKey="a"),
        wait_signal("two", "paid", correlationKey="b"),
        join("met", "EXCLUSIVE"),
        wait_signal("twice", "paid", correlationKey=expr("'c' & __iteration__"), repeat=again),
        wait_signal("late", "paid", correlationKey="d", timeout=3, retry={"maxAttempts": 2, "initialInterval": 0.1}),
        *(arrow(text) for text in ("start -> race", "race -> one", "race -> two", "one -> met", "two -> met")),
        *(arrow(text) for text in ("met -> twice", "twice -> late", "late -> end")),
    )
    handle = await executions.start(definition)
    await executions.waits_for(handle, "one", "two")
    await refused(executions.deliver_awaited(handle, "paid", "c0", "s0"))
    await executions.deliver_awaited(handle, "paid", "a", "s1")
    await executions.waits_for(handle, "twice")
    signals = [executions.deliver_awaited(handle, "paid", "c0", f"s{n}") for n in (2, 3)]
    await asyncio.gather(*signals, return_exceptions=True)
    await executions.deliver_awaited(handle, "paid", "c1", "s4")
    await executions.waits_for(handle, "late")
    await asyncio.sleep(4.5)
    await handle.cancel()
    with contextlib.suppress(WorkflowFailureError):
        await handle.result()
    return handle


async def _tick(executions: Executions, slug: str, name: str) -> Handle:
    template_id = await _active(executions, slug)
    spec: dict[str, Any] = {"cron": ["0 0 1 1 *"]}
    async with executions.database.transaction() as session:
        schedule = ScheduleTrigger(name=name, spec=spec, catch_up_seconds=60, template_id=template_id)
        session.add(schedule)
    return await executions.client.start_workflow(
        TICK_WORKFLOW,
        Tick(schedule_id=schedule.id, waits=True),
        id=f"tick/{schedule.id}",
        task_queue=executions.task_queue,
    )


async def _active(executions: Executions, slug: str) -> UUID:
    """A template that may be started; the harness's own are not active."""
    async with executions.database.transaction() as session:
        template = (
            await session.execute(select(WorkflowTemplate).where(col(WorkflowTemplate.slug) == slug))
        ).scalar_one()
        version = select(col(WorkflowTemplateVersion.id)).where(col(WorkflowTemplateVersion.template_id) == template.id)
        template.status = "ACTIVE"
        template.active_version_id = (await session.execute(version)).scalar_one()
    return template.id
