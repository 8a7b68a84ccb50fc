"""Starting the rows of backfills, some at each call."""

from collections.abc import Callable
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.registry import beating
from app.backfill_contracts import StartedRows, StartRows
from app.backfills import starting
from app.contracts import START_ROWS
from app.db.session import Database
from app.errors import AppError
from app.settings import Settings
from app.temporal import Temporal


def backfill_activities(database: Database, temporal: Temporal, settings: Settings) -> list[Callable[..., Any]]:
    """The activities of backfills, bound to where executions are started."""

    @activity.defn(name=START_ROWS)
    async def start_rows(asked: StartRows) -> StartedRows:
        async with beating():
            try:
                return await starting.start_rows(database, temporal, settings, asked)
            except AppError as error:
                # No row may be lost because of what was the matter when it had its turn: it is tried again.
                raise ApplicationError(error.message, type=error.code) from error

    return [start_rows]
