"""From the request to the end with worker and API in one process: eager starts, and short steps run locally."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

import worker
from app.contracts import ExecutionStart, workflow_id
from app.db.tables import WorkflowExecution, WorkflowTemplateVersion, new_id
from app.executions.queries import find_target
from app.executions.reconciler import reconcile_once
from app.executions.service import start_execution
from app.executions.starting import StartRequest
from app.settings import DatabaseSettings, Settings, TemporalSettings
from app.temporal import Temporal
from millrace.actions import action
from tests.app.conftest import serving
from tests.documents import action as act
from tests.documents import expr, line
from tests.workflows.harness import Executions, Handle, event_types


@action("fast.add", idempotent=True, expected_duration=0.05)
async def add(n: int) -> int:
    """Adds one."""
    return n + 1


@action("fast.report", long=True)
async def report(n: int) -> int:
    """Takes long, or so it says."""
    return n


@action("fast.order")
async def order(n: int) -> int:
    """Is neither short nor long."""
    return n


ACTIONS = (add, report, order)


@pytest.fixture
def settings(temporal_address: str, database_url: str, executions: Executions) -> Settings:
    return Settings(
        database=DatabaseSettings(url=SecretStr(database_url)),
        temporal=TemporalSettings(address=temporal_address, task_queue=executions.task_queue),
    )


@asynccontextmanager
async def working(settings: Settings, temporal: Temporal | None = None) -> AsyncIterator[None]:
    """The worker as its process runs it."""
    ready = asyncio.Event()
    running = asyncio.create_task(worker.serve(settings, ready, ACTIONS, beside=temporal))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait({running})


async def accepted(executions: Executions, settings: Settings, temporal: Temporal, *steps: dict[str, Any]) -> Handle:
    """An execution of a new template, accepted the way the API accepts it."""
    slug = f"t-{uuid4().hex[-12:]}"
    await executions.template(slug, line(*steps))
    request = StartRequest(context={"n": 1}, trigger={"source": "test"}, name=None, key=f"test:{slug}")
    started = await start_execution(
        executions.database, temporal, settings, lambda found: find_target(found, slug, None, request.key), request
    )
    assert started is not None
    return executions.client.get_workflow_handle(workflow_id(started.execution_id))


def add_one(step_id: str) -> dict[str, Any]:
    return act(step_id, actionKey="fast.add", parameters={"n": expr("__context__.n")})


async def is_eager(handle: Handle) -> bool:
    first = (await handle.fetch_history()).events[0]
    return first.workflow_execution_started_event_attributes.eager_execution_accepted


async def test_a_start_beside_a_worker_brings_the_first_workflow_task_with_it(
    executions: Executions, settings: Settings
) -> None:
    temporal = Temporal(settings.temporal, executions.converter)
    async with working(settings, temporal):
        handle = await accepted(executions, settings, temporal, add_one("one"), add_one("two"))
        await asyncio.wait_for(handle.result(), 20)
    assert await is_eager(handle)
    assert (await event_types(handle)).count("workflow_task_started") == 1
    assert (await executions.row(handle)).closed_as == "COMPLETED"
    await executions.replay_all()


async def test_a_start_from_elsewhere_is_not_eager(executions: Executions, settings: Settings) -> None:
    async with working(settings):
        handle = await accepted(executions, settings, Temporal(settings.temporal, executions.converter), add_one("one"))
        await asyncio.wait_for(handle.result(), 20)
    assert not await is_eager(handle)


async def test_an_accept_hands_down_which_actions_are_short_and_which_are_long(
    executions: Executions, settings: Settings
) -> None:
    temporal = Temporal(settings.temporal, executions.converter)
    async with working(settings, temporal):
        others = [act(name, actionKey=f"fast.{name}", parameters={"n": 2}, timeout=60) for name in ("report", "order")]
        handle = await accepted(executions, settings, temporal, add_one("one"), *others)
        await asyncio.wait_for(handle.result(), 20)
    events = (await handle.fetch_history()).events
    first = events[0].workflow_execution_started_event_attributes.input
    [start] = await executions.client.data_converter.decode(first.payloads[:1], [ExecutionStart])
    assert (start.local_actions, start.long_actions) == (["fast.add"], ["fast.report"])
    scheduled = "activity_task_scheduled_event_attributes"
    found = [getattr(event, scheduled) for event in events if event.HasField(scheduled)]
    assert [(one.activity_id, one.heartbeat_timeout.seconds) for one in found] == [("report#1", 10), ("order#1", 30)]


async def test_what_the_reconciler_starts_is_told_the_same(executions: Executions, settings: Settings) -> None:
    temporal = Temporal(settings.temporal, executions.converter)
    async with working(settings, temporal):
        version_id = await executions.template(f"t-{uuid4().hex[-12:]}", line(add_one("one")))
        execution_id = new_id()
        async with executions.database.transaction() as session:
            version = await session.get_one(WorkflowTemplateVersion, version_id)
            row = {"root_id": execution_id, "name": "left", "context": {"n": 1}, "status": "CREATED"}
            template_id = version.template_id
            session.add(WorkflowExecution(id=execution_id, version_id=version_id, template_id=template_id, **row))
        assert (await reconcile_once(executions.database, temporal, timedelta(0))).started == 1
        handle = executions.client.get_workflow_handle(workflow_id(execution_id))
        await asyncio.wait_for(handle.result(), 20)
    assert "activity_task_scheduled" not in await event_types(handle)


async def test_the_registry_shows_what_an_action_declares(executions: Executions, settings: Settings) -> None:
    temporal = Temporal(settings.temporal, executions.converter)
    async with working(settings, temporal), serving(settings, executions.database, temporal) as api:
        answer = (await api.get("/registry/actions/fast.add")).json()
    assert answer["policies"] == {"idempotent": True, "expectedDuration": 0.05, "long": False, "local": True}
