"""PostgreSQL's clock is an hour away from this process's: it alone says what is due, and how long something waited."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from app.db.migrate import migrate
from app.db.session import Database
from app.inbox.delivering import deliver
from app.settings import Settings
from app.temporal import Temporal
from tests.app.inbox_scenes import incoming_event, read_deliveries, read_event, store_events, subscribe
from tests.app.scenes import active_template, create_template, link, ok, publish, purchase, refused
from tests.conftest import MakeDatabase

SKEWED = """
    CREATE SCHEMA skewed;
    CREATE FUNCTION skewed.now() RETURNS timestamptz LANGUAGE sql STABLE
        AS $$ SELECT pg_catalog.now() + interval '{skew}' $$;
    ALTER DATABASE {name} SET search_path = public, skewed, pg_catalog;
"""


@pytest.fixture(scope="module", params=["1 hour", "-1 hour"], ids=["ahead", "behind"])
async def database_url(make_empty_database: MakeDatabase, request: pytest.FixtureRequest) -> str:
    """The URL of a database whose clock goes wrong."""
    url = await make_empty_database()
    database = Database(url)
    async with database.driver() as connection:
        await connection.execute(SKEWED.format(skew=request.param, name=make_url(url).database))
    await database.close()
    await migrate(url)
    return url


async def time_there(database: Database) -> datetime:
    async with database.transaction() as session:
        found: datetime = (await session.execute(text("SELECT now()"))).scalar_one()
    return found


async def put_off(database: Database, due_at: Any) -> timedelta:
    found: timedelta = due_at - await time_there(database)
    return found


async def test_a_signal_that_nobody_waits_for_is_looked_for_soon_and_for_as_long_as_was_promised(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, settings: Settings
) -> None:
    expr = {"type": "expr", "expr": {"src": "__trigger__.after.id"}}
    template = await active_template(api)
    await subscribe(database, template, "skewed_db_change", mode="RESUME", signal="go", correlation_key=expr)
    (stored,) = await store_events(database, incoming_event("skewed_db_change"), held=True)
    await deliver(database, temporal, settings, [stored.id])
    for _ in range(2):
        (delivery,) = await read_deliveries(database, stored.id)
        assert (delivery.status, delivery.code) == ("PENDING", "NO_ONE_WAITS")
        assert timedelta(seconds=-5) < await put_off(database, delivery.due_at) <= timedelta(seconds=10)
        await deliver(database, temporal, settings, [stored.id])


async def test_a_signal_that_is_being_handed_over_is_taken_up_by_nobody_else_for_its_time(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, settings: Settings
) -> None:
    expr = {"type": "expr", "expr": {"src": "__trigger__.after.id"}}
    template = await active_template(api)
    await subscribe(database, template, "handed_db_change", mode="START_OR_RESUME", signal="go", correlation_key=expr)
    first, second = await store_events(
        database, incoming_event("handed_db_change"), incoming_event("handed_db_change"), held=True
    )
    await deliver(database, temporal, settings, [first.id])
    # No worker is there to take it, so that it waits.
    await deliver(database, temporal, settings, [second.id])
    (delivery,) = await read_deliveries(database, second.id)
    assert (delivery.kind, delivery.status) == ("SIGNAL", "PENDING")
    assert timedelta(0) < await put_off(database, delivery.due_at) <= timedelta(seconds=40)


async def test_what_is_queued_waits_until_it_is_called(api: httpx.AsyncClient, database: Database) -> None:
    template = await active_template(api)
    await ok(await api.patch(f"/templates/{template['id']}", json={"whenPaused": "QUEUE"}))
    await ok(await api.post(f"/templates/{template['id']}/pause"))
    body = purchase(await link(api, template))
    for _ in range(2):
        queued = await ok(await api.post("/triggers/product-purchases", json=body), 202)
        (delivery,) = await read_deliveries(database, UUID(queued["eventRecordId"]))
        assert timedelta(minutes=9) < await put_off(database, delivery.due_at) <= timedelta(minutes=10)


async def test_an_event_that_is_delivered_again_by_hand_is_held_for_a_moment(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await create_template(api)
    await publish(api, template)
    body = purchase(await link(api, template))
    problem = refused(await api.post("/triggers/product-purchases", json=body), 422, "TEMPLATE_NOT_ACTIVE")
    await ok(await api.post(f"/trigger-events/{problem['eventRecordId']}/redeliver"), 202)
    event = await read_event(database, UUID(problem["eventRecordId"]))
    assert timedelta(0) < await put_off(database, event.due_at) <= timedelta(seconds=10)
