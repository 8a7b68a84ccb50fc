"""A tick that is overtaken before it has been delivered: nobody delivers here until the test does."""

from uuid import uuid4

from app.db.session import Database
from app.db.statuses import EventSource
from app.inbox.delivering import deliver
from app.inbox.storing import Incoming, store
from app.schedules.ticks import dedupe_key, tick_is_over, withdraw_tick
from app.settings import Settings
from app.temporal import Temporal
from app.tick_contracts import TickRequest


async def test_what_was_overtaken_before_it_was_delivered_starts_nothing(
    database: Database, temporal: Temporal, settings: Settings
) -> None:
    tick = TickRequest(schedule_id=uuid4(), at="2027-01-01T00:00:00+00:00")
    event = Incoming(EventSource.SCHEDULE, "test.tick", dedupe_key(tick), "a tick", {})
    async with database.driver() as connection:
        [stored] = await store(connection, [event])
    assert not await tick_is_over(database, tick)
    await withdraw_tick(database, temporal, tick)
    assert await tick_is_over(database, tick)
    assert await deliver(database, temporal, settings, [stored.id]) == []
    async with database.driver() as connection:
        status = await connection.fetchval("SELECT status FROM trigger_event WHERE id = $1", stored.id)
    assert status == "HANDLED"
