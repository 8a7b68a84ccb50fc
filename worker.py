"""The worker: settings → Temporal client → Worker(workflows, activities) → wait.

`python worker.py` runs one; `--with-api` runs the HTTP API in the same process. `millrace worker` and `millrace dev`
use the same function.
"""

import asyncio
import sys
from collections.abc import Iterable
from contextlib import AsyncExitStack
from datetime import timedelta

import structlog
from temporalio.client import Client
from temporalio.worker import PollerBehaviorAutoscaling, Worker

from activities.backfills import backfill_activities
from activities.http import http_request_action
from activities.lifecycle import lifecycle_activities
from activities.registry import BEAT, action_activities, check_activities, load_actions, unknown_action
from activities.runs import run_activities
from activities.schedules import schedule_activities
from app.contracts import OWN_ACTIVITIES
from app.db.session import Database
from app.inbox.dispatcher import Dispatcher
from app.payloads.storage import WORKER_PATIENCE, PayloadStorage
from app.registry.queries import ActionRegistration, upsert_actions
from app.settings import Settings
from app.temporal import Temporal, check_namespace, connect, register_search_attributes
from millrace.actions import Action
from workflows.backfill import BackfillStarts
from workflows.execution import Execution
from workflows.tick import TickRun

log = structlog.get_logger(__name__)


def build_worker(client: Client, database: Database, settings: Settings, actions: Iterable[Action]) -> Worker:
    """A worker for the actions. Raises `RegistryError` when they and the workflows do not fit together."""
    temporal = Temporal(settings.temporal, client.data_converter, client)
    own = [
        *lifecycle_activities(database),
        *run_activities(),
        *schedule_activities(database, temporal, settings),
        *backfill_activities(database, temporal, settings),
    ]
    check_activities(own, OWN_ACTIVITIES)
    return Worker(
        client,
        task_queue=settings.temporal.task_queue,
        workflows=[Execution, TickRun, BackfillStarts],
        activities=[*own, *action_activities(actions), unknown_action],
        max_cached_workflows=settings.worker.max_cached_workflows,
        max_concurrent_activities=settings.worker.max_concurrent_activities,
        # A withdrawal is heard of with a heartbeat; by default the SDK keeps them back for most of their timeout.
        max_heartbeat_throttle_interval=timedelta(seconds=BEAT),
        graceful_shutdown_timeout=timedelta(seconds=settings.worker.graceful_shutdown),
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
    )


def known_actions(settings: Settings) -> tuple[Action, ...]:
    """The actions that a worker with these settings has. Raises `RegistryError` for a module that cannot be had."""
    return (http_request_action(settings.http_action), *load_actions(settings.worker.actions))


async def serve(
    settings: Settings,
    ready: asyncio.Event | None = None,
    actions: Iterable[Action] = (),
    beside: Temporal | None = None,
) -> None:
    """Runs until it is cancelled. `settings` name a database and a Temporal server; `ready` is set when it polls.

    `beside` is the API's way to Temporal when both are in one process: its starts then come straight to this worker.

    Raises `Unavailable` when either cannot be reached, `RegistryError` when two actions share a key.
    """
    url = settings.database.url
    if url is None:
        raise ValueError("no database is configured")
    database = Database(url.get_secret_value(), settings.database)
    storage = PayloadStorage(url.get_secret_value(), settings.payloads, settings.database, WORKER_PATIENCE)
    try:
        client = await connect(settings.temporal, storage.converter)
        await check_namespace(client)
        await register_search_attributes(client)
        known = (*known_actions(settings), *actions)
        worker = build_worker(client, database, settings, known)
        async with database.transaction() as session:
            await upsert_actions(session, [_registration(one) for one in known])
        async with AsyncExitStack() as running:
            await running.enter_async_context(worker)
            if beside is None:
                # What schedules, polls and backfills bring starts also where no API runs.
                temporal = Temporal(settings.temporal, storage.converter, client)
                await running.enter_async_context(Dispatcher(database, temporal, settings).running())
            log.info("worker_started", task_queue=settings.temporal.task_queue, actions=[one.key for one in known])
            if beside is not None:
                beside.work_beside(client)
            if ready is not None:
                ready.set()
            await asyncio.Event().wait()
    finally:
        await database.close()
        await storage.close()
        log.info("worker_stopped")


def _registration(action: Action) -> ActionRegistration:
    return ActionRegistration(
        key=action.key,
        version=action.version,
        parameters_schema=action.parameters.model_json_schema(by_alias=True),
        description=action.description,
        policies=action.policies,
    )


if __name__ == "__main__":
    from app.cli.main import run

    run(["worker", *sys.argv[1:]])
