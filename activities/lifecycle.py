"""What a run writes about itself: its row's life, and the rows of its children. All of it may be repeated safely."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from temporalio import activity
from temporalio.exceptions import ApplicationError

from app.contracts import (
    CLOSE_EXECUTION,
    MARK_STARTED,
    RECORD_STEPS,
    REGISTER_CHILDREN,
    CloseExecution,
    RecordSteps,
    RegisterChildren,
    RegisteredChildren,
)
from app.db.session import Database
from app.errors import AppError
from app.executions import lifecycle, records
from app.inbox import awaiting


def lifecycle_activities(database: Database) -> list[Callable[..., Any]]:
    """The activities that every worker runs, bound to the database."""

    @activity.defn(name=MARK_STARTED)
    async def mark_started(execution_id: UUID) -> None:
        with refusals_translated():
            async with database.driver() as connection:
                await lifecycle.mark_started(connection, execution_id)

    @activity.defn(name=CLOSE_EXECUTION)
    async def close_execution(request: CloseExecution) -> None:
        with refusals_translated():
            async with database.driver() as connection:
                await lifecycle.close_execution(connection, request, activity.info().workflow_run_id)

    @activity.defn(name=RECORD_STEPS)
    async def record_steps(request: RecordSteps) -> None:
        with refusals_translated():
            async with database.transaction() as session:
                await records.record_steps(session, request)
            await awaiting.record_waits(database, request.execution_id, request.waits)

    @activity.defn(name=REGISTER_CHILDREN)
    async def register_children(request: RegisterChildren) -> RegisteredChildren:
        with refusals_translated():
            async with database.transaction() as session:
                return await lifecycle.register_children(session, request)

    return [mark_started, close_execution, record_steps, register_children]


@contextmanager
def refusals_translated() -> Iterator[None]:
    """A refusal keeps its code; only what is unavailable is worth another attempt."""
    try:
        yield
    except AppError as error:
        raise ApplicationError(error.message, type=error.code, non_retryable=error.status < 500) from error
