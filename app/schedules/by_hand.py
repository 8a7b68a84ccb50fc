"""Ticks that are asked for by hand, one after the other, each with a second of its own.

Temporal names what a schedule starts by the second that is meant, and takes two of one second for the same. So who asks
within a second that is taken, by another one or by the clock, gets the next that is free.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.service import Deed, audited_once
from app.canonical import canonical_json, digest
from app.db.schedule_tables import ScheduleTrigger
from app.db.session import Database
from app.db.statuses import OverlapPolicy
from app.errors import AppError, Conflict, Unavailable
from app.executions.control import Caller
from app.schedules import carrying
from app.temporal import Temporal

# How far from now the second may be that a tick is given.
_WITHIN: Final = timedelta(minutes=1)
_SECOND: Final = timedelta(seconds=1)
# Seconds that one who asks waits for others who do.
_PATIENCE: Final = 10.0
_SOON, _SELDOM = 0.02, 0.5

_TAKE_TURN = text("SELECT pg_try_advisory_xact_lock(hashtextextended('RUN_SCHEDULE ' || :schedule, 0))")
# What the latest are given lies less than `_WITHIN` ahead of the moment at which they were asked for.
_TAKEN = text("""
    SELECT after ->> 'triggerTime' FROM audit_event
    WHERE action = 'RUN_SCHEDULE' AND entity_id = :schedule AND at > now() - 2 * CAST(:within AS interval)
        AND after ? 'triggerTime'
""")
_TAKE = text("UPDATE audit_event SET after = CAST(:after AS jsonb) WHERE id = :id")


async def run_schedule(
    database: Database, temporal: Temporal, row: ScheduleTrigger, overlap: OverlapPolicy | None, caller: Caller
) -> datetime:
    """Asks Temporal for a tick now, also of a paused schedule; when it was asked for. A repetition with the caller's
    key asks for nothing more.

    Raises SCHEDULE_NOT_SYNCED, IDEMPOTENCY_CONFLICT, `Unavailable`; SCHEDULE_CROWDED when no second of the next minute
    is free, as with one that comes every second.
    """
    key = caller.update_id(f"RUN_SCHEDULE {row.id}")
    deed = Deed("RUN_SCHEDULE", "SCHEDULE", str(row.id), caller.actor, request={"overlap": overlap}, key=key)
    requested_at = datetime.now(UTC)
    async with audited_once(database, deed) as done:
        if done is not None and done.after is not None:
            return datetime.fromisoformat(done.after["requestedAt"])
        failed = None
        async with _turn(database, row) as session:
            second = await _free_second(session, row, await _times_of_clock(temporal, row, requested_at))
            deed.after = {"requestedAt": requested_at.isoformat(), "triggerTime": second.isoformat()}
            await session.execute(_TAKE, {"after": canonical_json(deed.after), "id": deed.id})
            try:
                # Temporal takes two that come together for one, by the same id.
                await carrying.trigger(temporal, row.id, overlap, second, None if key is None else digest(key))
            except AppError as error:
                # It may have it all the same, so that the second stays taken.
                failed = error
        if failed is not None:
            raise failed
    return requested_at


@asynccontextmanager
async def _turn(database: Database, row: ScheduleTrigger) -> AsyncIterator[AsyncSession]:
    """A transaction in which nobody else asks for a tick of the schedule; who waits for it keeps no connection."""
    deadline, wait = time.monotonic() + _PATIENCE, _SOON
    while True:
        async with database.transaction() as session:
            if (await session.execute(_TAKE_TURN, {"schedule": str(row.id)})).scalar_one():
                yield session
                return
        if time.monotonic() >= deadline:
            raise Unavailable("SCHEDULE_BUSY", f"Others are asking for ticks of {row.name}; try again.")
        await asyncio.sleep(wait)
        wait = min(wait * 2, _SELDOM)


async def _times_of_clock(temporal: Temporal, row: ScheduleTrigger, now: datetime) -> Collection[datetime]:
    """The seconds about now that are the clock's. Of a schedule with jitter Temporal tells when it comes, and not which
    second is meant.

    It is asked in any case: it answers when it has dealt with all that it was sent before, and of two requests for a
    tick that it finds together it forgets the first.
    """
    # The clocks of PostgreSQL and of this machine may differ.
    times = await carrying.times_between(temporal, row.id, now - _WITHIN, now + 2 * _WITHIN)
    return () if row.paused or row.remaining == 0 else times


async def _free_second(session: AsyncSession, row: ScheduleTrigger, times: Collection[datetime]) -> datetime:
    """The first second from now on that is nobody's. Raises SCHEDULE_CROWDED."""
    found = await session.execute(_TAKEN, {"schedule": str(row.id), "within": _WITHIN})
    taken = {*times, *map(datetime.fromisoformat, found.scalars())}
    now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    second = now.astimezone(UTC).replace(microsecond=0)
    last = second + _WITHIN
    while second in taken:
        second += _SECOND
    if second >= last:
        message = "Every second of the next minute is taken: by the schedule's own times, or by others who have asked."
        raise Conflict("SCHEDULE_CROWDED", message)
    return second
