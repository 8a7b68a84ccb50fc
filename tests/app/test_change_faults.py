"""Whatever ends in the middle, no change is lost and none is told twice; what cannot go on says so."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr

from app.changes import replication, service
from app.changes.reader import Reader
from app.changes.schemas import WatchRequest
from app.connections.opening import Connections
from app.db.migrate import migrate
from app.db.session import Connection, Database
from app.embedded import EmbeddedPostgres, start_postgres
from app.errors import AppError, Unavailable
from app.processes import OwnProcess
from app.settings import ChangeSettings
from tests.app.scenes import Json, ok, refused
from tests.app.shop import ORDERS, SHOP, Shop, dsn
from tests.wire_cutter import relayed

INSERT = "INSERT INTO orders (id) SELECT generate_series($1::int, $2::int)"
KEPT = "kept_by_a_test"


async def told(shop: Shop, table: str = "orders") -> list[int]:
    return [one["after"]["id"] for one in await shop.payloads() if one["table"] == table]


async def put_back(shop: Shop, slot: str) -> None:
    """The slot as it was when `KEPT` was copied from it: nobody has moved it on since."""
    await shop.user.execute("SELECT pg_drop_replication_slot($1)", slot)
    await shop.user.execute("SELECT pg_copy_logical_replication_slot($1, $2)", KEPT, slot)


async def test_a_reader_that_ends_before_the_slot_is_moved_on_tells_nothing_twice(shop: Shop) -> None:
    source = await shop.watch()
    await shop.user.execute("SELECT pg_copy_logical_replication_slot($1, $2)", source["slot"], KEPT)
    await shop.user.execute(INSERT, 1, 100)
    await shop.read()
    await put_back(shop, source["slot"])
    await shop.user.execute(INSERT, 101, 110)
    await shop.read()
    assert await told(shop) == list(range(1, 111))
    assert {event["times"] for event in await shop.events()} == {1}


async def test_an_inbox_that_knows_no_position_still_knows_the_events(shop: Shop) -> None:
    source = await shop.watch()
    await shop.user.execute("SELECT pg_copy_logical_replication_slot($1, $2)", source["slot"], KEPT)
    await shop.user.execute(INSERT, 1, 10)
    await shop.read()
    await put_back(shop, source["slot"])
    async with shop.database.driver() as connection:
        await connection.execute("UPDATE change_source SET checkpoint = NULL")
    await shop.read()
    assert await told(shop) == list(range(1, 11))
    assert {event["times"] for event in await shop.events()} == {2}
    assert (await shop.source(source))["eventsStored"] == 10


async def test_a_reader_that_is_ended_within_a_transaction_begins_it_again(shop: Shop) -> None:
    await shop.watch()
    await shop.user.execute(INSERT, 1, 4000)
    first = shop.new_reader()
    reading = asyncio.create_task(first.read(SHOP))
    while not await told(shop):
        await asyncio.sleep(0.01)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await first.close()
    assert 0 < len(await told(shop)) < 4000
    await shop.read()
    assert sorted(await told(shop)) == list(range(1, 4001))


async def test_a_connection_that_is_cut_is_told_and_made_again(shop: Shop) -> None:
    source = await shop.watch()
    folder = shop.url.partition("host=")[2]
    async with relayed(f"{folder}/.s.PGSQL.5432") as relay:
        name = dsn(shop.url).partition("@/")[2].partition("?")[0]
        url = SecretStr(f"postgresql://postgres@{relay.address}/{name}?sslmode=disable")
        reader = Reader(shop.database, Connections(shop.database.url, {SHOP: url}), ChangeSettings())
        await shop.user.execute(INSERT, 1, 3)
        await reader.read(SHOP)
        await relay.cut()
        await shop.user.execute(INSERT, 4, 6)
        await reader.read(SHOP)
        problem = await shop.source(source)
        assert (problem["status"], problem["code"]) == ("ACTIVE", "CONNECTION_UNREACHABLE")
        await relay.mend()
        await reader.read(SHOP)
        await reader.close()
    assert await told(shop) == [1, 2, 3, 4, 5, 6]
    assert (await shop.source(source))["code"] is None


async def test_our_own_database_away_loses_nothing(shop: Shop) -> None:
    await shop.watch()
    folder = shop.url.partition("host=")[2]
    async with relayed(f"{folder}/.s.PGSQL.5432") as relay:
        name = str(shop.database.engine.url.database)
        own = Database(f"postgresql+asyncpg://postgres@{relay.address}/{name}?ssl=disable")
        reader = Reader(own, Connections(own.url, shop.settings.connections), ChangeSettings())
        await reader.read(SHOP)
        await relay.cut()
        await shop.user.execute(INSERT, 1, 3)
        with pytest.raises(Unavailable):
            await reader.read(SHOP)
        await relay.mend()
        await reader.read(SHOP)
        await reader.close()
        await own.close()
    assert await told(shop) == [1, 2, 3]


async def test_a_slot_that_is_gone_is_told_and_can_be_made_again(shop: Shop) -> None:
    source = await shop.watch()
    await shop.user.execute("SELECT pg_drop_replication_slot($1)", source["slot"])
    await shop.user.execute(INSERT, 1, 3)
    await shop.read()
    failed = await shop.source(source)
    assert (failed["status"], failed["code"]) == ("FAILED", "SLOT_LOST")
    refused(await shop.api.post(f"/change-sources/{source['id']}/pause"), 409, "CHANGE_SOURCE_NOT_ACTIVE")
    again = await ok(await shop.api.post(f"/change-sources/{source['id']}/resume"))
    assert (again["status"], again["code"]) == ("ACTIVE", None)
    assert await shop.slots() == [again["slot"]]
    await shop.user.execute(INSERT, 4, 6)
    await shop.read()
    assert await told(shop) == [4, 5, 6]


async def test_a_publication_that_is_gone_is_told_and_can_be_made_again(shop: Shop) -> None:
    source = await shop.watch()
    await shop.user.execute(INSERT, 1, 3)
    await shop.user.execute(f"DROP PUBLICATION {source['publication']}")
    await shop.read()
    failed = await shop.source(source)
    assert (failed["status"], failed["code"]) == ("FAILED", "TABLE_NOT_PUBLISHED")
    assert await told(shop) == [1, 2, 3]
    again = await ok(await shop.api.post(f"/change-sources/{source['id']}/resume"))
    assert await shop.slots() == [again["slot"]]
    await shop.user.execute(INSERT, 4, 6)
    await shop.read()
    assert await told(shop) == [1, 2, 3, 4, 5, 6]


async def test_a_table_that_was_renamed_is_told_and_the_others_go_on(shop: Shop) -> None:
    await shop.user.execute("CREATE TABLE lines (id int PRIMARY KEY)")
    orders, lines = await shop.watch(), await shop.watch("lines")
    await shop.user.execute("ALTER TABLE orders RENAME TO purchases")
    await shop.user.execute("INSERT INTO lines VALUES (7)")
    await shop.read()
    assert ((await shop.source(orders))["code"], (await shop.source(lines))["code"]) == ("TABLE_NOT_PUBLISHED", None)
    assert await told(shop, "lines") == [7]
    refused(await shop.api.post(f"/change-sources/{orders['id']}/resume"), 422, "TABLE_UNKNOWN")
    assert (await shop.api.delete(f"/change-sources/{orders['id']}")).status_code == 204


async def test_a_paused_table_waits_while_the_others_go_on(shop: Shop) -> None:
    await shop.user.execute("CREATE TABLE lines (id int PRIMARY KEY)")
    orders, lines = await shop.watch(), await shop.watch("lines")
    paused = await ok(await shop.api.post(f"/change-sources/{orders['id']}/pause"))
    assert (paused["status"], paused["slot"] != lines["slot"]) == ("PAUSED", True)
    await shop.user.execute(INSERT, 1, 3)
    await shop.user.execute("INSERT INTO lines VALUES (7)")
    await shop.read()
    assert (await told(shop), await told(shop, "lines")) == ([], [7])
    await ok(await shop.api.post(f"/change-sources/{orders['id']}/resume"))
    await shop.read()
    assert (await told(shop), await told(shop, "lines")) == ([1, 2, 3], [7])


async def test_a_table_that_is_watched_later_leaves_what_a_paused_one_waits_for(shop: Shop) -> None:
    await shop.user.execute("CREATE TABLE lines (id int PRIMARY KEY)")
    orders = await shop.watch()
    await ok(await shop.api.post(f"/change-sources/{orders['id']}/pause"))
    await shop.user.execute(INSERT, 1, 3)
    lines = await shop.watch("lines")
    assert lines["slot"] != orders["slot"]
    await shop.user.execute("INSERT INTO lines VALUES (7)")
    await shop.read()
    await ok(await shop.api.post(f"/change-sources/{orders['id']}/resume"))
    await shop.read()
    assert (await told(shop), await told(shop, "lines")) == ([1, 2, 3], [7])
    assert (await shop.api.delete(f"/change-sources/{orders['id']}")).status_code == 204
    assert await shop.slots() == [lines["slot"]]


async def test_a_slot_that_is_not_read_is_warned_of(shop: Shop) -> None:
    source = await shop.watch()
    await ok(await shop.api.post(f"/change-sources/{source['id']}/pause"))
    await shop.user.execute(INSERT, 1, 1000)
    low = ChangeSettings(lag_warning_bytes=1024)
    reader = Reader(shop.database, Connections(shop.database.url, shop.settings.connections), low)
    await reader.read(SHOP)
    await reader.close()
    shown = await shop.source(source)
    assert (shown["status"], shown["code"]) == ("PAUSED", "LAG_HIGH")
    assert "paused" in shown["message"]
    assert shown["unreadBytes"] > 1024
    await ok(await shop.api.post(f"/change-sources/{source['id']}/resume"))
    await shop.read()
    assert len(await told(shop)) == 1000


async def test_a_slot_that_no_source_knows_is_let_go(shop: Shop) -> None:
    source = await shop.watch()
    stray = f"{source['publication']}_stray"
    await shop.user.execute("SELECT pg_copy_logical_replication_slot($1, $2)", source["slot"], stray)
    reader = shop.new_reader()
    await reader.read(SHOP)
    await reader.close()
    assert await shop.slots() == [source["slot"]]


@pytest.fixture
async def account(shop: Shop) -> AsyncIterator[str]:
    """A role of the user's server that may log in and nothing else."""
    name = f"r{uuid4().hex[:8]}"
    await shop.user.execute(f"CREATE ROLE {name} LOGIN")
    await shop.user.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
    yield name
    await shop.user.execute(f"REASSIGN OWNED BY {name} TO postgres; DROP OWNED BY {name}; DROP ROLE {name}")


async def watch_as(shop: Shop, account: str, **fields: object) -> str:
    """Watches as somebody; the code of the refusal."""
    url = SecretStr(dsn(shop.url).replace("postgres@", f"{account}@"))
    request = WatchRequest.model_validate({"connection": SHOP, "table": "orders", **fields})
    with pytest.raises(AppError) as refusal:
        await service.watch(shop.database, Connections(shop.database.url, {SHOP: url}), request, None)
    assert (await ok(await shop.api.get("/change-sources")))["items"] == []
    return refusal.value.code


async def test_somebody_who_may_not_replicate_is_told_what_to_do(shop: Shop, account: str) -> None:
    assert await watch_as(shop, account) == "REPLICATION_NOT_PERMITTED"
    assert await watch_as(shop, account, method="OUTBOX") == "OUTBOX_NOT_PERMITTED"
    await shop.user.execute(f"ALTER TABLE orders OWNER TO {account}")
    name = dsn(shop.url).partition("@/")[2].partition("?")[0]
    await shop.user.execute(f'GRANT CREATE ON DATABASE "{name}" TO {account}')
    # Now only the slot is refused: what was made before it is taken back.
    assert await watch_as(shop, account) == "REPLICATION_NOT_PERMITTED"
    assert await shop.user.fetchval("SELECT count(*) FROM pg_publication") == 0
    assert await shop.user.fetchval("SELECT relreplident::text FROM pg_class WHERE relname = 'orders'") == "d"


async def test_a_table_whose_rows_nobody_could_change_any_more_is_not_published(shop: Shop) -> None:
    await shop.user.execute("CREATE TABLE lines (word text)")
    body = {"connection": SHOP, "table": "lines", "wholeBefore": False}
    refused(await shop.api.post("/change-sources", json=body), 409, "REPLICA_IDENTITY_MISSING")
    await shop.user.execute("INSERT INTO lines VALUES ('a')")
    await shop.user.execute("UPDATE lines SET word = 'b'")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"connection": "nowhere"}, 422, "CONNECTION_UNKNOWN"),
        ({"table": "nothing"}, 422, "TABLE_UNKNOWN"),
        ({"table": "a_view"}, 422, "TABLE_NOT_WATCHABLE"),
        ({"table": "not_logged"}, 409, "TABLE_NOT_WATCHABLE"),
        ({"connection": "millrace", "table": "trigger_event"}, 422, "TABLE_NOT_WATCHABLE"),
        ({"monitoredColumns": ["status", "colour"]}, 422, "COLUMN_UNKNOWN"),
        ({"filter": {"operator": "AND", "conditions": [{"field": "after.x", "operator": "~"}]}}, 422, "FILTER_INVALID"),
        ({"entityType": "PRODUCT"}, 422, "ENTITY_INCOMPLETE"),
        ({"wholeBefore": False, "statusColumn": "status"}, 409, "BEFORE_NOT_KNOWN"),
        ({"operations": []}, 422, "REQUEST_INVALID"),
        ({"table": ""}, 422, "REQUEST_INVALID"),
    ],
)
async def test_what_cannot_be_watched_is_refused_and_leaves_nothing_behind(
    shop: Shop, fields: Json, status: int, code: str
) -> None:
    await shop.user.execute(
        "CREATE VIEW a_view AS SELECT 1 AS id; CREATE UNLOGGED TABLE not_logged (id int PRIMARY KEY)"
    )
    body = {"connection": SHOP, "table": "orders", **fields}
    refused(await shop.api.post("/change-sources", json=body), status, code)
    assert (await ok(await shop.api.get("/change-sources")))["items"] == []
    assert await shop.slots() == []


async def test_a_slot_that_waits_too_long_for_an_open_transaction_is_given_up(shop: Shop) -> None:
    other = await asyncpg.connect(dsn(shop.url))
    async with other.transaction():
        await other.execute(INSERT, 1, 1)
        with pytest.raises(AppError) as refusal:
            await replication.make_slot(shop.user, "waits_in_vain", within=0.5)
    await other.close()
    assert refusal.value.code == "TRANSACTIONS_OPEN"
    assert await shop.slots() == []


async def test_a_server_that_logs_too_little_is_told_so() -> None:
    class Replica:
        async def fetchval(self, _: str) -> str:
            return "replica"

    with pytest.raises(AppError, match=r"wal_level=logical.*outbox") as refusal:
        await replication.check_server(cast(Connection, Replica()))
    assert refusal.value.code == "REPLICATION_NOT_CONFIGURED"


async def test_a_connection_that_is_watched_no_more_is_closed(shop: Shop) -> None:
    source = await shop.watch()
    reader = shop.new_reader()
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    before = await shop.user.fetchval(count)
    await reader.begin_passes()
    while await shop.user.fetchval(count) == before:
        await asyncio.sleep(0.01)
    assert (await shop.api.delete(f"/change-sources/{source['id']}")).status_code == 204
    while await shop.user.fetchval(count) != before:
        await reader.begin_passes()
        await asyncio.sleep(0.01)
    await reader.close()


async def test_the_outbox_does_not_watch_itself(shop: Shop) -> None:
    await shop.watch(method="OUTBOX")
    body = {"connection": SHOP, "table": "millrace_outbox", "method": "OUTBOX"}
    refused(await shop.api.post("/change-sources", json=body), 422, "TABLE_NOT_WATCHABLE")


async def test_a_table_that_only_has_the_name_of_one_of_millraces_is_watched(shop: Shop) -> None:
    await shop.user.execute("CREATE TABLE action (id int PRIMARY KEY)")
    await shop.watch("action")


async def test_a_table_is_watched_once(shop: Shop) -> None:
    await shop.watch()
    body = {"connection": SHOP, "table": "orders"}
    answers = await asyncio.gather(*(shop.api.post("/change-sources", json=body) for _ in range(3)))
    for answer in answers:
        refused(answer, 409, "CHANGE_SOURCE_EXISTS")
    assert len(await shop.slots()) == 1


async def started(home: Path) -> EmbeddedPostgres:
    processes: list[OwnProcess] = []
    return await start_postgres(home, processes.append)


async def test_a_server_that_is_killed_and_comes_back_loses_nothing_and_repeats_nothing(short_home: Path) -> None:
    home = short_home / "killed"
    home.mkdir()
    server = await started(home)
    try:
        admin = await asyncpg.connect(dsn(server.url()))
        await admin.execute(ORDERS)
        await admin.execute('CREATE DATABASE "own" TEMPLATE template0')
        await migrate(server.url("own"))
        database = Database(server.url("own"))
        connections = Connections(database.url, {SHOP: SecretStr(dsn(server.url()))})
        reader = Reader(database, connections, ChangeSettings())
        request = WatchRequest.model_validate({"connection": SHOP, "table": "orders"})
        await service.watch(database, connections, request, None)
        await admin.execute(INSERT, 1, 50)
        await reader.read(SHOP)
        await admin.execute(INSERT, 51, 100)
        os.kill(server.process.pid, signal.SIGKILL)
        await server.process.stop()
        server = await started(home)
        admin = await asyncpg.connect(dsn(server.url()))
        await admin.execute(INSERT, 101, 110)
        while await reader.read(SHOP):
            pass
        async with database.driver() as connection:
            found = await connection.fetch("SELECT (payload #>> '{after,id}')::int AS id FROM trigger_event ORDER BY 1")
        assert [row["id"] for row in found] == list(range(1, 111))
        await admin.close()
        await reader.close()
        await database.close()
    finally:
        await server.process.stop()


@pytest.mark.parametrize("method", ["REPLICATION", "OUTBOX"])
@pytest.mark.parametrize("depth", [850, 3_000])
async def test_a_document_that_is_nested_too_deep_holds_up_no_other_change(shop: Shop, method: str, depth: int) -> None:
    source = await shop.watch(method=method)
    nested = "[" * depth + "]" * depth
    await shop.user.execute("INSERT INTO orders (id, extra) VALUES (1, $1)", nested)
    await shop.user.execute("INSERT INTO orders (id) VALUES (2)")
    await shop.read()
    assert await told(shop) == [1, 2]
    extra = (await shop.payloads())[0]["after"]["extra"]
    for _ in range(100):
        (extra,) = extra
    assert extra == "[" * (depth - 100) + "]" * (depth - 100)
    assert (await shop.source(source))["status"] == "ACTIVE"
