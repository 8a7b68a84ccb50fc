"""How many events a second are stored, and delivered; beside a bare insert, and beside bare starts of workflows."""

import asyncio
import itertools
import json
import time
from typing import Any
from uuid import UUID

from sqlalchemy import text

from app.canonical import canonical_json
from app.db.event_tables import Subscription, TriggerDefinition
from app.db.session import Database
from app.db.statuses import EventSource
from app.db.tables import new_id
from app.inbox.delivering import deliver_due
from app.inbox.storing import Incoming, store
from app.payloads.storage import PayloadStorage
from app.settings import Settings
from app.temporal import Temporal
from bench.accepting import PAYLOAD
from bench.figures import Figure, Say
from bench.load import Side, take_turns
from bench.runs import five_actions
from bench.servers import database_url, own_servers, store_template

SLUG = "bench-inbox"
TRIGGER = "bench_db_change"
BARE = "CREATE TABLE bench_bare (id uuid PRIMARY KEY, key text UNIQUE NOT NULL, payload jsonb NOT NULL)"
INSERT = "INSERT INTO bench_bare (id, key, payload) VALUES ($1, $2, $3::text::jsonb)"
INSERT_MANY = """
    INSERT INTO bench_bare (id, key, payload)
    SELECT (row->>'id')::uuid, row->>'key', row->'payload' FROM jsonb_array_elements($1::text::jsonb) AS row
"""
BLOCKS = 4
ONE_BY_ONE = 500
TOGETHER = 40
BATCH = 100
DELIVERED = 400
# What is started at once by a delivery, and here without one.
STARTED_AT_ONCE = 20


class Sides:
    """An event into the inbox, and the same payload into a table of three columns."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.payload: dict[str, Any] = json.loads(PAYLOAD.read_text())
        self._numbers = itertools.count()

    def event(self) -> Incoming:
        """A change of a row, unlike all others."""
        number = next(self._numbers)
        return Incoming(EventSource.ROW_CHANGE, TRIGGER, f"event-{number}", f"orders · {number}", self.payload)

    async def store_one(self) -> None:
        """An event in a transaction of its own."""
        async with self.database.driver() as connection, connection.transaction():
            await store(connection, [self.event()])

    async def insert_one(self) -> None:
        """A bare insert in a transaction of its own."""
        async with self.database.driver() as connection, connection.transaction():
            number = next(self._numbers)
            await connection.execute(INSERT, new_id(), f"event-{number}", canonical_json(self.payload))

    async def store_many(self) -> None:
        """A batch of events in one transaction."""
        async with self.database.driver() as connection, connection.transaction():
            await store(connection, [self.event() for _ in range(BATCH)])

    async def insert_many(self) -> None:
        """A batch of bare inserts in one statement."""
        rows = [
            {"id": str(new_id()), "key": f"event-{next(self._numbers)}", "payload": self.payload} for _ in range(BATCH)
        ]
        async with self.database.driver() as connection, connection.transaction():
            await connection.execute(INSERT_MANY, canonical_json(rows))


async def measure(say: Say) -> list[Figure]:
    """One by one, in batches, and delivered."""
    say("starting PostgreSQL and Temporal")
    async with own_servers("bench-nobody-polls") as settings:
        database = Database(database_url(settings), settings.database)
        try:
            async with database.transaction() as session:
                await session.execute(text(BARE))
            sides = Sides(database)
            say(f"{BLOCKS * ONE_BY_ONE} events on each side, 10 at a time")
            one = await take_turns(sides.store_one, sides.insert_one, blocks=BLOCKS, size=ONE_BY_ONE, at_once=10)
            say(f"{BLOCKS * TOGETHER} batches of {BATCH} events on each side")
            many = await take_turns(sides.store_many, sides.insert_many, blocks=BLOCKS, size=TOGETHER, at_once=1)
            say(f"{DELIVERED} events, each of which starts an execution")
            delivered = await _delivered(database, settings, sides)
        finally:
            await database.close()
    return [
        _figure("an event a transaction, 10 at a time", *one, 1),
        _figure(f"{BATCH} events a transaction", *many, BATCH),
        delivered,
    ]


async def _delivered(database: Database, settings: Settings, sides: Sides) -> Figure:
    await store_template(database, SLUG, five_actions(), service="bench-inbox")
    async with database.transaction() as session:
        await session.execute(text("TRUNCATE trigger_event CASCADE"))
        template_id: UUID = (
            await session.execute(text("SELECT id FROM workflow_template WHERE slug = :slug"), {"slug": SLUG})
        ).scalar_one()
        trigger = TriggerDefinition(key=TRIGGER, name=TRIGGER, category="database", source="row-change")
        session.add(trigger)
        await session.flush()
        session.add(Subscription(template_id=template_id, trigger_id=trigger.id, trigger_key=TRIGGER))
    storage = PayloadStorage(database_url(settings), settings.payloads, settings.database)
    try:
        temporal = Temporal(settings.temporal, storage.converter)
        await temporal.assure()
        ours = bare = 0.0
        for _ in range(BLOCKS):
            async with database.driver() as connection, connection.transaction():
                await store(connection, [sides.event() for _ in range(DELIVERED // BLOCKS)])
            began = time.perf_counter()
            while await deliver_due(database, temporal, settings):
                continue
            between = time.perf_counter()
            await _start_bare(temporal, sides)
            ours, bare = ours + between - began, bare + time.perf_counter() - between
    finally:
        await storage.close()
    async with database.transaction() as session:
        started = (
            await session.execute(text("SELECT count(*) FROM workflow_execution WHERE status = 'STARTED'"))
        ).scalar_one()
    if started != DELIVERED:
        raise AssertionError(f"{started} executions were started of {DELIVERED} events")
    return Figure(
        part="inbox",
        case="delivered: an execution each",
        millrace=f"{DELIVERED / ours:,.0f} /s",
        beside=f"bare starts {DELIVERED / bare:,.0f} /s",
        ratio=f"{bare / ours:.2f} ×",
        numbers={"perSecond": DELIVERED / ours, "bare": DELIVERED / bare},
    )


async def _start_bare(temporal: Temporal, sides: Sides) -> None:
    """As many workflows as a block delivers, with the same payload and nothing written anywhere else."""
    client = await temporal.client()
    room = asyncio.Semaphore(STARTED_AT_ONCE)

    async def start() -> None:
        async with room:
            queue = temporal.settings.task_queue
            await client.start_workflow("bench-bare", sides.payload, id=f"bare/{new_id()}", task_queue=queue)

    await asyncio.gather(*(start() for _ in range(DELIVERED // BLOCKS)))


def _figure(case: str, ours: Side, bare: Side, each: int) -> Figure:
    return Figure(
        part="inbox",
        case=case,
        millrace=f"{ours.rate * each:,.0f} /s stored",
        beside=f"bare insert {bare.rate * each:,.0f} /s",
        ratio=f"{ours.rate / bare.rate:.2f} ×",
        numbers={"stored": ours.numbers(), "bare": bare.numbers(), "each": each},
    )
