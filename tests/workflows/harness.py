"""Executions on the real servers, started the way the API starts them, without the API."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Text, cast
from sqlmodel import select
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.common import RawValue
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer

from app.contracts import ExecutionStart, workflow_id
from app.db.session import Database
from app.db.tables import WorkflowExecution, WorkflowTemplate, WorkflowTemplateVersion, new_id
from app.payloads.content import definition_payload
from app.payloads.storage import WORKER_PATIENCE, PayloadStorage
from app.run_contracts import (
    COMPLETE_STEP,
    CONTROL,
    DELIVER_AWAITED,
    DELIVER_SIGNAL,
    STATE_QUERY,
    STEPS_QUERY,
    AwaitedSignal,
    ControlReceipt,
    ControlRequest,
    RunView,
    SignalDelivery,
    SignalReceipt,
    StateDump,
    StepCompletion,
)
from app.settings import (
    DatabaseSettings,
    HttpActionSettings,
    PayloadSettings,
    Settings,
    TemporalSettings,
    WorkerSettings,
)
from millrace.actions import Action, ActionFailure, Call, Suspend, action
from worker import build_worker
from workflows.backfill import BackfillStarts
from workflows.execution import Execution
from workflows.tick import TickRun

Handle = WorkflowHandle[Any, Any]

# Looks, 0.05 s apart: longer than a workflow task that its worker has lost takes to time out, which is ten seconds.
PATIENCE = 500


@action("test.echo")
async def echo(call: Call, n: Any = None) -> dict[str, Any]:
    """Gives back what it got."""
    return {"n": n, "key": call.idempotency_key}


@action("test.fail")
async def fail(code: str = "BROKEN", retryable: bool = False, nul: bool = False) -> None:
    """Fails as it is told to."""
    raise ActionFailure(code, "told\0to fail" if nul else "told to fail", retryable=retryable)


@action("test.sleep")
async def sleep(seconds: float) -> float:
    """Takes its time."""
    await asyncio.sleep(seconds)
    return seconds


@action("test.finish")
async def finish(seconds: float) -> float:
    """Takes its time, and cannot be stopped."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        await asyncio.sleep(0.1)
    return seconds


@action("test.ask")
async def ask(call: Call, question: str) -> Any:
    """Suspends itself with a question, and gives back what it was resumed with."""
    if call.resumed is None:
        return Suspend({"question": question})
    return {"asked": call.resumed.suspended["question"], "answer": call.resumed.data}


@action("test.choosy")
async def choosy(n: Any, bad: list[Any]) -> Any:
    """Fails for some."""
    if n in bad:
        raise ActionFailure("CHOOSY", f"not {n}", retryable=False)
    return n


ACTIONS = (echo, fail, sleep, finish, ask, choosy)


class Executions:
    """Templates and executions of one test."""

    def __init__(self, client: Client, database: Database, task_queue: str, converter: DataConverter) -> None:
        self.client = client
        self.converter = converter
        self.database = database
        self.task_queue = task_queue

    @asynccontextmanager
    async def worker(self, cached: int = 100, actions: Iterable[Action] = ACTIONS) -> AsyncIterator[None]:
        """A worker for this test's task queue; `cached` workflows stay in memory between tasks."""
        settings = Settings(
            temporal=TemporalSettings(task_queue=self.task_queue),
            worker=WorkerSettings(max_cached_workflows=cached, graceful_shutdown=0),
            http_action=HttpActionSettings(),
        )
        async with build_worker(self.client, self.database, settings, actions):
            yield

    async def replay_all(self) -> None:
        """Replays every history of this test: none may have depended on anything but its events."""
        again = replayer(self.converter)
        async for run in self.client.list_workflows(f"TaskQueue = '{self.task_queue}'"):
            handle = self.client.get_workflow_handle(run.id, run_id=run.run_id)
            await again.replay_workflow(await handle.fetch_history())

    async def template(self, slug: str, document: dict[str, Any], status: str = "PUBLISHED") -> UUID:
        """A template with one active version, 1.0.0; gives the version's id."""
        template = WorkflowTemplate(slug=slug, name=slug.title())
        text = json.dumps(document)
        version = WorkflowTemplateVersion(
            template_id=template.id,
            version="1.0.0",
            definition=document,
            definition_hash=hashlib.sha256(text.encode()).hexdigest(),
            status=status,
        )
        async with self.database.transaction() as session:
            session.add(template)
            await session.flush()
            session.add(version)
            await session.flush()
            template.active_version_id = version.id
        return version.id

    async def start(
        self,
        document: dict[str, Any],
        context: dict[str, Any] | None = None,
        slug: str | None = None,
        local_actions: Iterable[str] = (),
        long_actions: Iterable[str] = (),
        task_timeout: timedelta | None = None,
    ) -> Handle:
        """A root execution of a new template; a worker's death is noticed within `task_timeout`, or ten seconds."""
        return await self.launch(await self.prepare(document, context, slug, local_actions, long_actions), task_timeout)

    async def prepare(
        self,
        document: dict[str, Any],
        context: dict[str, Any] | None = None,
        slug: str | None = None,
        local_actions: Iterable[str] = (),
        long_actions: Iterable[str] = (),
    ) -> tuple[ExecutionStart, RawValue]:
        """The rows of a root execution of a new template, and the arguments that it is started with."""
        execution_id = new_id()
        slug = slug or f"t-{execution_id.hex[-12:]}"
        version_id = await self.template(slug, document)
        async with self.database.transaction() as session:
            version = await session.get_one(WorkflowTemplateVersion, version_id)
            row = WorkflowExecution(
                id=execution_id,
                root_id=execution_id,
                name=slug,
                version_id=version_id,
                template_id=version.template_id,
                context=context or {},
                status="STARTED",
                started_at=datetime.now(UTC),
            )
            session.add(row)
            statement = select(cast(WorkflowTemplateVersion.definition, Text)).where(
                WorkflowTemplateVersion.id == version_id  # type: ignore[arg-type]
            )
            text = (await session.execute(statement)).scalar_one()
        start = ExecutionStart(
            execution_id=execution_id,
            name=slug,
            root_id=execution_id,
            template_id=version.template_id,
            template=slug,
            version_id=version_id,
            version="1.0.0",
            context=context or {},
            local_actions=list(local_actions),
            long_actions=list(long_actions),
        )
        return start, RawValue(definition_payload(text))

    async def launch(self, prepared: tuple[ExecutionStart, RawValue], task_timeout: timedelta | None = None) -> Handle:
        """Starts what has been prepared."""
        start, definition = prepared
        return await self.client.start_workflow(
            start.template,
            args=[start, definition],
            id=workflow_id(start.execution_id),
            task_queue=self.task_queue,
            task_timeout=task_timeout,
        )

    async def rows(self, root: Handle) -> list[WorkflowExecution]:
        """The root's row and those of all its descendants."""
        root_id = UUID(root.id.removeprefix("execution/"))
        async with self.database.transaction() as session:
            found = await session.execute(
                select(WorkflowExecution).where(WorkflowExecution.root_id == root_id).order_by(WorkflowExecution.name)  # type: ignore[arg-type]
            )
            return list(found.scalars())

    async def row(self, root: Handle) -> WorkflowExecution:
        """The root's own row."""
        return next(row for row in await self.rows(root) if row.parent_id is None)

    async def view(self, handle: Handle) -> RunView:
        """The answer to the steps query."""
        return await handle.query(STEPS_QUERY, result_type=RunView)

    async def statuses(self, handle: Handle) -> dict[str, str]:
        """The status of every step that has begun."""
        return {one.id: one.status for one in (await self.view(handle)).steps if one.visits}

    async def memory(self, handle: Handle) -> dict[str, Any]:
        """The answer to the state query."""
        dump = await handle.query(STATE_QUERY, result_type=StateDump)
        assert dump.state is not None
        return dump.state

    async def complete(self, handle: Handle, step_id: str, **fields: Any) -> Any:
        """A person completes a step."""
        return await handle.execute_update(COMPLETE_STEP, StepCompletion(step_id=step_id, **fields))

    async def deliver(
        self, handle: Handle, name: str, payload: Any = None, key: str | None = None, signal_id: str | None = None
    ) -> str:
        """A signal with a receipt; gives what became of it."""
        signal = SignalDelivery(name=name, payload=payload, correlation_key=key, id=signal_id)
        return (await handle.execute_update(DELIVER_SIGNAL, signal, result_type=SignalReceipt)).status

    async def deliver_awaited(self, handle: Handle, name: str, key: str, signal_id: str) -> str:
        """A signal for who waits for it now; gives what became of it."""
        signal = AwaitedSignal(name=name, payload=signal_id, correlation_key=key, id=signal_id)
        return (await handle.execute_update(DELIVER_AWAITED, signal, result_type=SignalReceipt)).status

    async def control(self, handle: Handle, what: str, step_id: str | None = None, **fields: Any) -> str:
        """An operator steers the run; gives what became of it."""
        request = ControlRequest.model_validate({"what": what, "step_id": step_id, **fields})
        return (await handle.execute_update(CONTROL, request, result_type=ControlReceipt)).status

    async def children(self, root: Handle, count: int) -> list[Handle]:
        """The runs of so many children, once they have started, in order of name."""
        for _ in range(PATIENCE):
            rows = [row for row in await self.rows(root) if row.parent_id is not None and row.status != "CREATED"]
            if len(rows) >= count:
                return [self.client.get_workflow_handle(workflow_id(row.id)) for row in rows]
            await asyncio.sleep(0.05)
        raise AssertionError(f"there are not {count} children")

    async def closed(self, handle: Handle) -> WorkflowExecution:
        """The root's row, once the run has ended, however it ended; the row and Temporal must say the same."""
        with suppress(WorkflowFailureError):
            await handle.result()
        row = await self.row(handle)
        described = await self.client.get_workflow_handle(handle.id).describe()
        name = "CANCELED" if row.closed_as == "CANCELLED" else row.closed_as
        assert described.status is not None
        assert described.status.name == name, f"the row says {row.closed_as}, Temporal {described.status.name}"
        return row

    async def waits_for(self, handle: Handle, *step_ids: str) -> RunView:
        """Returns when the run waits for exactly these steps."""
        for _ in range(PATIENCE):
            view = await self.view(handle)
            if sorted(wait.step_id for wait in view.waiting_for) == sorted(step_ids):
                return view
            await asyncio.sleep(0.05)
        raise AssertionError(f"the run does not wait for {step_ids}: {view.waiting_for}")


@asynccontextmanager
async def executions_on(client: Client, database_url: str) -> AsyncIterator[Executions]:
    """Executions on a database and a task queue of their own, over the connection of a client."""
    database = Database(database_url)
    storage = PayloadStorage(database_url, PayloadSettings(), DatabaseSettings(), WORKER_PATIENCE)
    own = Client(client.service_client, namespace=client.namespace, data_converter=storage.converter)
    try:
        yield Executions(own, database, f"q-{uuid4().hex}", storage.converter)
    finally:
        await storage.close()
        await database.close()


def replayer(converter: DataConverter) -> Replayer:
    """Replays histories with the driver as it is now."""
    return Replayer(workflows=[Execution, BackfillStarts, TickRun], data_converter=converter)


async def failure_of(handle: Handle) -> dict[str, Any]:
    """How a run failed: the detail of its application error."""
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    cause = failed.value.cause
    assert isinstance(cause, ApplicationError), cause
    detail: dict[str, Any] = cause.details[0]
    assert cause.type == detail["code"]
    return detail


async def refused(asked: Awaitable[Any]) -> str:
    """The code with which an update was refused."""
    with pytest.raises(WorkflowUpdateFailedError) as refusal:
        await asked
    cause = refusal.value.cause
    assert isinstance(cause, ApplicationError), cause
    return str(cause.type)


async def event_types(handle: Handle) -> list[str]:
    """The history of a run, by type of event."""
    history = await handle.fetch_history()
    return [str(event.WhichOneof("attributes")).removesuffix("_event_attributes") for event in history.events]
