"""How fast changes of a watched table become events, and how far behind a change is that comes alone.

Beside it stands what PostgreSQL itself takes to give the same changes: decoding the log, and throwing it away.
"""

import asyncio
import time
from contextlib import suppress

from app.background import read_changes_forever
from app.changes import service
from app.changes.reader import Reader
from app.changes.schemas import WatchRequest
from app.connections.opening import Connections
from app.db.session import Connection, Database
from app.settings import OWN_CONNECTION, Settings
from bench.figures import Figure, Say
from bench.servers import database_url, own_servers

TABLE = "bench_orders"
TRANSACTIONS = 100
ROWS = 50
ALONE = 30
_CREATE = f"CREATE TABLE {TABLE} (id bigserial PRIMARY KEY, customer text, amount numeric, status text, at timestamptz)"
_INSERT = f"""
    INSERT INTO {TABLE} (customer, amount, status, at)
    SELECT 'customer ' || n, n * 1.01, 'new', now() FROM generate_series(1, $1::int) n
"""
_DECODE = """
    SELECT count(*) FROM pg_logical_slot_get_binary_changes(
        'bench', NULL, NULL, 'proto_version', '1', 'publication_names', $1)
"""
# Between the commit of the change and the row of its event.
_LAG = """
    SELECT percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY extract(epoch FROM
        received_at - (payload ->> 'timestamp')::timestamptz)::float8)
    FROM (SELECT * FROM trigger_event ORDER BY id DESC LIMIT $1) AS latest
"""


async def measure(say: Say) -> list[Figure]:
    """Many at once, then one after the other."""
    say("starting PostgreSQL and Temporal")
    async with own_servers("bench-nobody-polls") as settings:
        database = Database(database_url(settings), settings.database)
        connections = Connections(database.url, {})
        user = await connections.open(OWN_CONNECTION)
        try:
            await user.execute(_CREATE)
            request = WatchRequest.model_validate({"table": TABLE, "wholeBefore": False})
            source = await service.watch(database, connections, request, None)
            await user.execute("SELECT pg_create_logical_replication_slot('bench', 'pgoutput')")
            reader = Reader(database, connections, settings.changes)
            say(f"{TRANSACTIONS} transactions of {ROWS} changes")
            many = await _many(user, reader, source.publication or "")
            say(f"{ALONE} changes, one at a time")
            alone = await _alone(user, reader, settings)
            await reader.close()
        finally:
            await user.close()
            await database.close()
    return [many, alone]


async def _many(user: Connection, reader: Reader, publication: str) -> Figure:
    for _ in range(TRANSACTIONS):
        await user.execute(_INSERT, ROWS)
    began = time.perf_counter()
    while await reader.read(OWN_CONNECTION):
        continue
    ours = time.perf_counter() - began
    count = TRANSACTIONS * ROWS
    stored = await user.fetchval("SELECT count(*) FROM trigger_event")
    if stored != count:
        raise AssertionError(f"{stored} events are stored of {count} changes")
    began = time.perf_counter()
    decoded = await user.fetchval(_DECODE, publication)
    bare = time.perf_counter() - began
    if decoded < count:
        raise AssertionError(f"PostgreSQL decoded {decoded} messages of {count} changes")
    return Figure(
        part="changes",
        case=f"{count} changes, {ROWS} a transaction",
        millrace=f"{count / ours:,.0f} /s stored",
        beside=f"decoded by PostgreSQL alone {count / bare:,.0f} /s",
        ratio=f"{ours / bare:.0f} × as long",
        numbers={"stored": count / ours, "decoded": count / bare},
    )


async def _alone(user: Connection, reader: Reader, settings: Settings) -> Figure:
    reading = asyncio.create_task(read_changes_forever(reader, settings.changes.interval))
    before = await user.fetchval("SELECT count(*) FROM trigger_event")
    for _ in range(ALONE):
        await user.execute(_INSERT, 1)
        await asyncio.sleep(0.17)
    async with asyncio.timeout(60):
        while await user.fetchval("SELECT count(*) FROM trigger_event") < before + ALONE:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    middle, high = await user.fetchval(_LAG, ALONE)
    return Figure(
        part="changes",
        case=f"lag, a look every {settings.changes.interval:g} s",
        millrace=f"p50 {middle * 1000:.0f} ms, p95 {high * 1000:.0f} ms",
        numbers={"p50": middle, "p95": high},
    )
