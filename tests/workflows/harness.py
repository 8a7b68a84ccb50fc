"""Executions on the real servers, started the way the API starts them, without the API."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlmodel import select
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer

from app.contracts import STEPS_QUERY, ExecutionStart, RunView, workflow_id
from app.db.session import Database
from app.db.tables import WorkflowExecution, WorkflowTemplate, WorkflowTemplateVersion, new_id
from app.settings import HttpActionSettings, Settings, TemporalSettings, WorkerSettings
from millrace.actions import Action, ActionFailure, Call, action
from worker import build_worker
from workflows.execution import Execution

Handle = WorkflowHandle[Any, Any]


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


ACTIONS = (echo, fail, sleep)


class Executions:
    """Templates and executions of one test."""

    def __init__(self, client: Client, database: Database, task_queue: str) -> None:
        self.client = client
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
        replayer = Replayer(workflows=[Execution], data_converter=pydantic_data_converter)
        async for run in self.client.list_workflows(f"TaskQueue = '{self.task_queue}'"):
            handle = self.client.get_workflow_handle(run.id, run_id=run.run_id)
            await replayer.replay_workflow(await handle.fetch_history())

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
        self, document: dict[str, Any], context: dict[str, Any] | None = None, slug: str | None = None
    ) -> Handle:
        """A root execution of a new template."""
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
        start = ExecutionStart(
            execution_id=execution_id,
            name=slug,
            root_id=execution_id,
            template_id=version.template_id,
            template=slug,
            version_id=version_id,
            version="1.0.0",
            context=context or {},
        )
        return await self.client.start_workflow(
            slug, args=[start, document], id=workflow_id(execution_id), task_queue=self.task_queue
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

    async def waits_for(self, handle: Handle, *step_ids: str) -> RunView:
        """Returns when the run waits for exactly these steps."""
        for _ in range(200):
            view = await self.view(handle)
            if sorted(wait.step_id for wait in view.waiting_for) == sorted(step_ids):
                return view
            await asyncio.sleep(0.05)
        raise AssertionError(f"the run does not wait for {step_ids}: {view.waiting_for}")


async def failure_of(handle: Handle) -> dict[str, Any]:
    """How a run failed: the detail of its application error."""
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    cause = failed.value.cause
    assert isinstance(cause, ApplicationError), cause
    detail: dict[str, Any] = cause.details[0]
    assert cause.type == detail["code"]
    return detail


async def event_types(handle: Handle) -> list[str]:
    """The history of a run, by type of event."""
    history = await handle.fetch_history()
    return [str(event.WhichOneof("attributes")).removesuffix("_event_attributes") for event in history.events]
