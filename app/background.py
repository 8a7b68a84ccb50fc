"""What an API process does beside answering: each of these any number of processes may do at the same time."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta

import structlog

from app.backfills.retention import delete_old_rows
from app.changes.reader import Reader
from app.db.session import Database
from app.errors import Unavailable
from app.executions.reconciler import Sweep, reconcile_once
from app.inbox.dispatcher import Dispatcher
from app.inbox.service import purge_events
from app.payloads.retention import keep_for, purge_blobs
from app.pollers import Pollers
from app.schedules.reconciling import reconcile_schedules
from app.settings import ReconcilerSettings, Settings
from app.temporal import Temporal
from app.versions.retention import prune_versions

log = structlog.get_logger(__name__)

PURGE_EVERY = timedelta(days=1)
# Seconds until the next look for row changes: when there are more, and when PostgreSQL is away.
MORE_CHANGES_AFTER = 0.01
AWAY_LOOK_EVERY = 5.0


@asynccontextmanager
async def background_work(
    database: Database, temporal: Temporal, settings: Settings, pollers: Pollers, reader: Reader
) -> AsyncIterator[None]:
    """Does all of it for as long as the block lasts. What is being delivered in the end is not broken off."""
    others = [
        asyncio.create_task(work)
        for work in (
            reconcile_forever(database, temporal, settings.reconciler),
            reconcile_schedules_forever(database, temporal, settings.reconciler),
            purge_forever(database, temporal, settings),
            read_changes_forever(reader, settings.changes.interval),
            pollers.watch(),
        )
    ]
    try:
        async with Dispatcher(database, temporal, settings).running():
            yield
    finally:
        for task in others:
            task.cancel()
        for task in others:
            with suppress(asyncio.CancelledError):
                await task
        await reader.close()


async def reconcile_forever(database: Database, temporal: Temporal, settings: ReconcilerSettings) -> None:
    """A pass of the reconciler every `interval` seconds, until cancelled."""
    sweep = Sweep(lost_after=timedelta(seconds=settings.lost_after))
    keep = timedelta(days=settings.dead_letter_days)
    while True:
        await asyncio.sleep(settings.interval)
        with _survived("reconciling"):
            await reconcile_once(database, temporal, timedelta(seconds=settings.grace), sweep, keep)


async def reconcile_schedules_forever(database: Database, temporal: Temporal, settings: ReconcilerSettings) -> None:
    """Brings schedules and Temporal together every `interval` seconds, until cancelled."""
    while True:
        await asyncio.sleep(settings.interval)
        with _survived("reconciling schedules"):
            await reconcile_schedules(database, temporal)


async def purge_forever(
    database: Database, temporal: Temporal, settings: Settings, interval: timedelta = PURGE_EVERY
) -> None:
    """Deletes what is old and nobody can need any more, every `interval`, until cancelled: events, values,
    versions, rows of backfills.
    """
    while True:
        await asyncio.sleep(interval.total_seconds())
        with _survived("purging"):
            async with database.transaction() as session:
                events = await purge_events(session, timedelta(days=settings.inbox.keep_days))
            rows = await delete_old_rows(database, datetime.now(UTC) - timedelta(days=settings.backfills.keep_days))
            values = await purge_blobs(database, await keep_for(temporal, settings.payloads))
            versions = await prune_versions(database)
            log.info("purged", events=events, values=values, versions=versions, backfill_rows=rows)


async def read_changes_forever(reader: Reader, interval: float) -> None:
    """Looks for row changes every `interval` seconds, and at once while there are more, until cancelled."""
    while True:
        pause = max(interval, AWAY_LOOK_EVERY)
        with _survived("reading row changes"):
            pause = MORE_CHANGES_AFTER if await reader.begin_passes() else interval
        await asyncio.sleep(pause)


@contextmanager
def _survived(work: str) -> Iterator[None]:
    """Nothing that fails ends what goes on in the background: it is tried again."""
    try:
        yield
    except Unavailable as error:
        log.warning("background_work_postponed", work=work, code=error.code)
    # The edge of a background task: an error that ended it would go unnoticed.
    except Exception:
        log.exception("background_work_failed", work=work)
