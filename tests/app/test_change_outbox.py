"""Where replication is not permitted, a trigger fills an outbox, and its changes are told the same."""

import asyncio
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr

from app.changes import service
from app.changes.outbox import setup_sql
from app.changes.reader import Reader
from app.changes.schemas import WatchRequest
from app.connections.opening import Connections
from app.settings import ChangeSettings
from tests.app.scenes import ok
from tests.app.shop import SHOP, Shop, dsn

ROW = """
    INSERT INTO orders VALUES (42, 'Ann', 10.50, 'new', NULL, true, '2026-01-31 10:00+01', '{a,"b c"}', '{"k": [1]}',
    '\\xdead')
"""


async def told(shop: Shop) -> list[int]:
    return [one["after"]["id"] for one in await shop.payloads()]


async def test_the_outbox_tells_what_replication_tells(shop: Shop) -> None:
    await shop.user.execute("CREATE TABLE numbers (id bigint PRIMARY KEY, exact numeric, span interval, day date)")
    for table in ("orders", "numbers"):
        await shop.watch(table)
    statements = (
        ROW,
        "UPDATE orders SET status = 'won', amount = 11 WHERE id = 42",
        "DELETE FROM orders",
        "INSERT INTO numbers VALUES (9007199254740993, 0.12345678901234567890, '1 day 2 hours', '2026-01-31')",
    )
    for statement in statements:
        await shop.user.execute(statement)
    replicated = await shop.read()
    for source in (await ok(await shop.api.get("/change-sources")))["items"]:
        await shop.api.delete(f"/change-sources/{source['id']}")
    await shop.user.execute("DELETE FROM numbers")
    for table in ("orders", "numbers"):
        await shop.watch(table, method="OUTBOX")
    for statement in statements:
        await shop.user.execute(statement)
    # Tables are read one after the other: each by itself is in order.
    outboxed = sorted((await shop.read())[len(replicated) :], key=lambda one: one["table"] == "numbers")
    for one in (*replicated, *outboxed):
        for different in ("timestamp", "metadata"):
            one.pop(different)
    assert outboxed == replicated


async def test_what_is_stored_leaves_the_outbox(shop: Shop) -> None:
    source = await shop.watch(method="OUTBOX")
    await shop.user.execute("INSERT INTO orders (id) SELECT generate_series(1, 1200)")
    assert (await shop.source(source))["waitingChanges"] == 1200
    await shop.read()
    assert await told(shop) == list(range(1, 1201))
    shown = await shop.source(source)
    assert (shown["waitingChanges"], shown["eventsStored"]) == (0, 1200)


async def test_a_reader_that_ends_before_the_outbox_is_cleared_tells_nothing_twice(shop: Shop) -> None:
    await shop.watch(method="OUTBOX")
    await shop.user.execute("INSERT INTO orders (id) VALUES (1), (2)")
    await shop.user.execute("CREATE TABLE kept AS SELECT * FROM millrace_outbox")
    await shop.read()
    # As if the rows had never been deleted.
    await shop.user.execute("INSERT INTO millrace_outbox OVERRIDING SYSTEM VALUE SELECT * FROM kept")
    await shop.read()
    assert await told(shop) == [1, 2]
    assert {event["times"] for event in await shop.events()} == {2}


async def test_a_transaction_that_commits_late_is_not_passed_over(shop: Shop) -> None:
    await shop.watch(method="OUTBOX")
    other = await asyncpg.connect(dsn(shop.url))
    async with other.transaction():
        await other.execute("INSERT INTO orders (id) VALUES (1)")
        await shop.user.execute("INSERT INTO orders (id) VALUES (2)")
        await shop.read()
    await shop.read()
    await other.close()
    assert await told(shop) == [2, 1]


async def test_readers_at_once_tell_nothing_twice(shop: Shop) -> None:
    await shop.watch(method="OUTBOX")
    await shop.user.execute("INSERT INTO orders (id) SELECT generate_series(1, 400)")
    readers = [shop.new_reader() for _ in range(3)]
    await asyncio.gather(*(reader.read(SHOP) for reader in readers))
    for reader in readers:
        await reader.close()
    await shop.read()
    assert await told(shop) == list(range(1, 401))


async def test_a_paused_outbox_keeps_its_changes(shop: Shop) -> None:
    source = await shop.watch(method="OUTBOX")
    await ok(await shop.api.post(f"/change-sources/{source['id']}/pause"))
    await shop.user.execute("INSERT INTO orders (id) VALUES (1)")
    assert await shop.read() == []
    await ok(await shop.api.post(f"/change-sources/{source['id']}/resume"))
    await shop.read()
    assert await told(shop) == [1]


async def test_a_trigger_that_is_gone_is_told_and_can_be_made_again(shop: Shop) -> None:
    source = await shop.watch(method="OUTBOX")
    await shop.user.execute("DROP TRIGGER millrace_capture ON orders")
    await shop.read()
    failed = await shop.source(source)
    assert (failed["status"], failed["code"]) == ("FAILED", "OUTBOX_LOST")
    await ok(await shop.api.post(f"/change-sources/{source['id']}/resume"))
    await shop.user.execute("INSERT INTO orders (id) VALUES (1)")
    await shop.read()
    assert await told(shop) == [1]


async def test_nothing_stays_behind_when_the_watching_ends(shop: Shop) -> None:
    await shop.user.execute("CREATE TABLE lines (id int PRIMARY KEY)")
    sources = [await shop.watch(table, method="OUTBOX") for table in ("orders", "lines")]
    left = "SELECT count(*) FROM pg_class WHERE relname = 'millrace_outbox'"
    for source, expected in zip(sources, (1, 0), strict=True):
        assert (await shop.api.delete(f"/change-sources/{source['id']}")).status_code == 204
        assert await shop.user.fetchval(left) == expected
    await shop.user.execute("INSERT INTO orders (id) VALUES (1)")


async def test_somebody_else_may_make_the_outbox(shop: Shop) -> None:
    """What `--print-sql` prints is run by an administrator; Millrace's user reads and deletes."""
    account = f"r{uuid4().hex[:8]}"
    await shop.user.execute(setup_sql("public", "orders"))
    await shop.user.execute(f"CREATE ROLE {account} LOGIN")
    await shop.user.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
    await shop.user.execute(f"GRANT SELECT, UPDATE, DELETE ON millrace_outbox TO {account}")
    await shop.user.execute(f"GRANT SELECT, INSERT ON orders TO {account}")
    url = SecretStr(dsn(shop.url).replace("postgres@", f"{account}@"))
    connections = Connections(shop.database.url, {SHOP: url})
    request = WatchRequest.model_validate({"connection": SHOP, "table": "orders", "method": "OUTBOX"})
    await service.watch(shop.database, connections, request, None)
    reader = Reader(shop.database, connections, ChangeSettings())
    user = await asyncpg.connect(dsn(shop.url).replace("postgres@", f"{account}@"))
    await user.execute("INSERT INTO orders (id) VALUES (1)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await user.execute("INSERT INTO millrace_outbox (table_schema, table_name, operation) VALUES ('a', 'b', 'c')")
    await user.close()
    await reader.read(SHOP)
    await reader.close()
    assert await told(shop) == [1]
    await shop.user.execute(f"DROP OWNED BY {account}; DROP ROLE {account}")
