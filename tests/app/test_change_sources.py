"""Changes of a real table, read from PostgreSQL's log by logical replication, become events of the inbox."""

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import delete, select
from sqlmodel import col

from app.db.event_tables import Subscription, TriggerDefinition
from tests.app.scenes import Json, active_template, ok, refused
from tests.app.shop import SHOP, Shop


async def test_inserts_updates_and_deletes_are_told_with_the_row_before_and_after(shop: Shop) -> None:
    await shop.user.execute("INSERT INTO orders (id, status) VALUES (1, 'before the watching')")
    source = await shop.watch()
    assert (source["key"], source["status"], source["beforeImage"]) == ("orders_db_change", "ACTIVE", "FULL")
    await shop.user.execute(
        "INSERT INTO orders VALUES (42, 'Ann', 10.50, 'new', NULL, true, '2026-01-31 10:00+01', "
        """'{a,"b c"}', '{"k": [1]}', '\\xdead')"""
    )
    await shop.user.execute("UPDATE orders SET status = 'won', amount = 11 WHERE id = 42")
    await shop.user.execute("DELETE FROM orders WHERE id = 42")
    inserted, updated, deleted = await shop.read()
    row = {
        "id": 42, "customer": "Ann", "amount": 10.5, "status": "new", "note": None, "paid": True,
        "at": "2026-01-31T09:00:00+00:00", "tags": ["a", "b c"], "extra": {"k": [1]}, "raw": "\\xdead",
    }  # fmt: skip
    won = row | {"status": "won", "amount": 11}
    assert (inserted["operation"], inserted["before"], inserted["after"]) == ("INSERT", None, row)
    assert (updated["operation"], updated["before"], updated["after"]) == ("UPDATE", row, won)
    assert updated["changed_columns"] == ["amount", "status"]
    assert (deleted["operation"], deleted["before"], deleted["after"]) == ("DELETE", won, None)
    assert (updated["schema"], updated["table"], updated["metadata"]["source"]) == ("public", "orders", SHOP)
    assert updated["metadata"]["txid"] > 0
    assert [event["summary"] for event in await shop.events()] == [
        "orders · INSERT · 42",
        "orders · UPDATE · 42",
        "orders · DELETE · 42",
    ]
    shown = await shop.source(source)
    assert (shown["changesSeen"], shown["eventsStored"]) == (3, 3)
    # Whatever else the server writes meanwhile counts too.
    assert shown["unreadBytes"] < 100_000
    assert shown["lastChangeAt"] is not None


async def test_a_registry_entry_describes_the_tables_columns(shop: Shop) -> None:
    source = await shop.watch()
    async with shop.database.driver() as connection:
        entry = await connection.fetchrow("SELECT * FROM trigger_definition WHERE key = $1", source["key"])
    assert entry is not None
    assert (entry["category"], entry["source"]) == ("database", "row-change")
    types = {variable["path"]: variable["type"] for variable in entry["variables"]}
    assert (types["after.amount"], types["before.at"], types["after.tags"]) == ("number", "dateTime", "array")
    assert entry["sample_payload"]["after"]["status"] == "text"


@pytest.mark.parametrize(
    ("whole", "names"), [(True, ["operations", "monitor_columns", "columns"]), (False, ["operations"])]
)
async def test_subscriptions_can_be_narrowed_as_far_as_the_row_before_is_known(
    shop: Shop, whole: bool, names: list[str]
) -> None:
    source = await shop.watch(wholeBefore=whole)
    entry = await ok(await shop.api.get(f"/registry/triggers/{source['key']}"))
    assert [field["name"] for field in entry["properties"]] == names
    template = await active_template(shop.api)
    body = {"templateId": template["id"], "triggerKey": source["key"]}
    narrowing = {"operations": ["UPDATE"], "monitor_columns": True, "columns": ["status"]}
    properties = {name: narrowing[name] for name in names}
    made = await ok(await shop.api.post("/subscriptions", json=body | {"properties": properties}), 201)
    wrong = await shop.api.post("/subscriptions", json=body | {"properties": {"operations": ["TRUNCATE"]}})
    refused(wrong, 422, "PROPERTIES_INVALID")
    await shop.api.delete(f"/subscriptions/{made['id']}")


async def test_an_update_counts_only_if_it_changed_a_monitored_column(shop: Shop) -> None:
    await shop.watch(monitoredColumns=["status", "amount"])
    await shop.user.execute("INSERT INTO orders (id, status) VALUES (1, 'new')")
    await shop.user.execute("UPDATE orders SET note = 'x'")
    await shop.user.execute("UPDATE orders SET status = 'new'")
    await shop.user.execute("UPDATE orders SET status = 'won'")
    await shop.user.execute("DELETE FROM orders")
    assert [one["operation"] for one in await shop.read()] == ["INSERT", "UPDATE", "DELETE"]


async def test_with_a_status_column_only_its_changes_count(shop: Shop) -> None:
    await shop.watch(statusColumn="status")
    await shop.user.execute("INSERT INTO orders (id, status) VALUES (1, 'new')")
    await shop.user.execute("UPDATE orders SET note = 'x'")
    await shop.user.execute("UPDATE orders SET status = 'won'")
    await shop.user.execute("DELETE FROM orders")
    [told] = await shop.read()
    assert (told["before"]["status"], told["after"]["status"]) == ("new", "won")


async def test_only_the_operations_that_are_asked_for_count(shop: Shop) -> None:
    await shop.watch(operations=["DELETE"])
    await shop.user.execute("INSERT INTO orders (id) VALUES (1)")
    await shop.user.execute("DELETE FROM orders")
    assert [one["operation"] for one in await shop.read()] == ["DELETE"]


async def test_a_filter_decides_by_the_row(shop: Shop) -> None:
    condition = {"field": "after.amount", "operator": ">=", "value": 1000, "type": "number"}
    await shop.watch(filter={"operator": "AND", "conditions": [condition]})
    await shop.user.execute("INSERT INTO orders (id, amount) VALUES (1, 999.99), (2, 1000)")
    assert [one["after"]["id"] for one in await shop.read()] == [2]


async def test_an_entity_is_told_by_a_column(shop: Shop) -> None:
    await shop.watch(entityType="PRODUCT", entityColumn="customer")
    await shop.user.execute("INSERT INTO orders (id, customer) VALUES (1, 'prod_42'), (2, NULL)")
    await shop.read()
    assert [(one["entity_type"], one["entity_id"]) for one in await shop.events()] == [
        ("PRODUCT", "prod_42"),
        (None, None),
    ]


async def test_a_transaction_of_many_changes_is_told_whole(shop: Shop) -> None:
    source = await shop.watch()
    await shop.user.execute("INSERT INTO orders (id) SELECT generate_series(1, 500)")
    assert [one["after"]["id"] for one in await shop.read()] == list(range(1, 501))
    shown = await shop.source(source)
    caught_up = "SELECT confirmed_flush_lsn >= $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1"
    assert await shop.user.fetchval(caught_up, source["slot"], shown["checkpoint"])


async def test_rows_that_were_copied_in_are_all_told(shop: Shop) -> None:
    await shop.watch()
    await shop.user.copy_records_to_table("orders", records=[(n,) for n in range(1200)], columns=["id"])
    assert [one["after"]["id"] for one in await shop.read()] == list(range(1200))


async def test_a_transaction_that_is_larger_than_a_look_is_not_cut(shop: Shop) -> None:
    await shop.watch()
    await shop.user.execute("INSERT INTO orders (id) SELECT generate_series(1, 6000)")
    await shop.user.execute("INSERT INTO orders (id) VALUES (0)")
    told = [one["after"]["id"] for one in await shop.read()]
    assert told == [*range(1, 6001), 0]


async def test_a_transaction_that_is_open_is_told_when_it_has_committed(shop: Shop) -> None:
    await shop.watch()
    async with shop.user.transaction():
        await shop.user.execute("INSERT INTO orders (id) VALUES (1)")
        assert await shop.read() == []
    assert [one["after"]["id"] for one in await shop.read()] == [1]


async def test_what_was_rolled_back_is_not_told(shop: Shop) -> None:
    await shop.watch()
    transaction = shop.user.transaction()
    await transaction.start()
    await shop.user.execute("INSERT INTO orders (id) VALUES (1)")
    await transaction.rollback()
    assert await shop.read() == []


async def test_a_large_value_that_did_not_change_is_told_all_the_same(shop: Shop) -> None:
    await shop.watch()
    long = "".join(f"{n:x}" for n in range(20_000))
    await shop.user.execute("ALTER TABLE orders ALTER note SET STORAGE EXTERNAL")
    await shop.user.execute("INSERT INTO orders (id, note) VALUES (1, $1)", long)
    await shop.user.execute("UPDATE orders SET status = 'won'")
    _, updated = await shop.read()
    assert updated["after"]["note"] == long
    assert updated["changed_columns"] == ["status"]


async def test_without_whole_rows_only_the_key_is_known_of_the_row_before(shop: Shop) -> None:
    source = await shop.watch(wholeBefore=False)
    assert source["beforeImage"] == "KEY"
    await shop.user.execute("INSERT INTO orders (id, status) VALUES (1, 'new')")
    await shop.user.execute("UPDATE orders SET status = 'won'")
    await shop.user.execute("DELETE FROM orders")
    _, updated, deleted = await shop.read()
    assert (updated["before"], updated["changed_columns"], updated["metadata"]["before"]) == ({"id": 1}, None, "key")
    assert deleted["before"] == {"id": 1}


async def test_a_change_of_the_tables_columns_is_followed(shop: Shop) -> None:
    await shop.watch()
    await shop.user.execute("INSERT INTO orders (id) VALUES (1)")
    await shop.user.execute("ALTER TABLE orders ADD colour text")
    await shop.user.execute("CREATE TYPE mood AS ENUM ('sad', 'fine')")
    await shop.user.execute("ALTER TABLE orders ADD moods mood[]")
    await shop.user.execute("UPDATE orders SET colour = 'red', moods = '{sad,fine}'")
    _, updated = await shop.read()
    assert (updated["after"]["colour"], updated["after"]["moods"]) == ("red", ["sad", "fine"])


async def test_a_table_without_a_key_is_told_by_its_whole_rows(shop: Shop) -> None:
    await shop.user.execute("CREATE TABLE lines (word text)")
    await shop.watch("lines")
    await shop.user.execute("INSERT INTO lines VALUES ('a')")
    await shop.user.execute("UPDATE lines SET word = 'b'")
    assert [one["operation"] for one in await shop.read()] == ["INSERT", "UPDATE"]
    assert [one["summary"] for one in await shop.events()] == ["lines · INSERT · a", "lines · UPDATE · b"]


async def test_a_partitioned_table_is_told_under_its_own_name(shop: Shop) -> None:
    await shop.user.execute("CREATE TABLE parts (id int PRIMARY KEY, word text) PARTITION BY RANGE (id)")
    await shop.user.execute("CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (10)")
    await shop.watch("parts")
    await shop.user.execute("INSERT INTO parts VALUES (1, 'a')")
    await shop.user.execute("UPDATE parts SET word = 'b'")
    _, updated = await shop.read()
    assert (updated["table"], updated["before"]["word"], updated["changed_columns"]) == ("parts", "a", ["word"])


async def test_tables_of_one_connection_share_a_slot_and_keep_their_order(shop: Shop) -> None:
    await shop.user.execute("CREATE TABLE lines (id int PRIMARY KEY)")
    orders, lines = await shop.watch(), await shop.watch("lines")
    assert orders["slot"] == lines["slot"]
    async with shop.user.transaction():
        await shop.user.execute("INSERT INTO orders (id) VALUES (1)")
        await shop.user.execute("INSERT INTO lines (id) VALUES (1)")
        await shop.user.execute("INSERT INTO orders (id) VALUES (2)")
    assert [one["table"] for one in await shop.read()] == ["orders", "lines", "orders"]


async def test_tables_of_one_name_have_keys_of_their_own(shop: Shop) -> None:
    await shop.user.execute("CREATE SCHEMA sales")
    await shop.user.execute("CREATE TABLE sales.orders (id int PRIMARY KEY)")
    assert (await shop.watch())["key"] == "orders_db_change"
    assert (await shop.watch(schema="sales"))["key"] == "sales_orders_db_change"
    await shop.user.execute("CREATE TABLE sales_orders (id int PRIMARY KEY)")
    assert (await shop.watch("sales_orders"))["key"] == "shop_sales_orders_db_change"


async def test_two_readers_at_once_tell_nothing_twice(shop: Shop) -> None:
    await shop.watch()
    await shop.user.execute("INSERT INTO orders (id) SELECT generate_series(1, 2000)")
    readers = [shop.new_reader() for _ in range(4)]
    await asyncio.gather(*(reader.read(SHOP) for reader in readers))
    for reader in readers:
        await reader.close()
    told = await shop.read()
    assert [one["after"]["id"] for one in told] == list(range(1, 2001))
    assert {event["times"] for event in await shop.events()} == {1}


async def test_what_was_made_for_a_table_is_taken_away_with_the_watching(shop: Shop) -> None:
    await shop.user.execute("CREATE TABLE lines (id int PRIMARY KEY)")
    orders, lines = await shop.watch(), await shop.watch("lines")
    for source, left in ((orders, 1), (lines, 0)):
        assert (await shop.api.delete(f"/change-sources/{source['id']}")).status_code == 204
        assert len(await shop.slots()) == left
    identity = "SELECT relreplident::text FROM pg_class WHERE oid = 'orders'::regclass"
    assert await shop.user.fetchval(identity) == "d"
    assert await shop.user.fetchval("SELECT count(*) FROM pg_publication") == 0
    refused(await shop.api.get(f"/change-sources/{orders['id']}"), 404, "CHANGE_SOURCE_NOT_FOUND")
    async with shop.database.driver() as connection:
        assert await connection.fetchval("SELECT count(*) FROM trigger_definition WHERE key LIKE '%s_db_change'") == 0
    deeds: Json = await ok(await shop.api.get("/audit", params={"entityKind": "CHANGE_SOURCE"}))
    assert [one["action"] for one in deeds["items"]] == ["UNWATCH", "UNWATCH", "WATCH", "WATCH"]


async def test_the_list_shows_what_is_watched(shop: Shop) -> None:
    source = await shop.watch()
    page = await ok(await shop.api.get("/change-sources", params={"connection": SHOP, "status": "ACTIVE"}))
    assert [one["key"] for one in page["items"]] == [source["key"]]
    by_key = await ok(await shop.api.get(f"/change-sources/{source['key']}"))
    assert by_key["id"] == source["id"]
    page = await ok(await shop.api.get("/change-sources", params={"status": "PAUSED"}))
    assert page["items"] == []


async def test_each_change_starts_one_execution_of_what_subscribes_to_it(shop: Shop) -> None:
    source = await shop.watch(statusColumn="status")
    template = await active_template(shop.api)
    async with shop.database.transaction() as session:
        entry = await session.execute(select(TriggerDefinition).where(col(TriggerDefinition.key) == source["key"]))
        subscription = Subscription(
            template_id=UUID(template["id"]), trigger_id=entry.scalar_one().id, trigger_key=source["key"]
        )
        session.add(subscription)
    await shop.user.execute("INSERT INTO orders (id, status) SELECT generate_series(1, 20), 'new'")
    await shop.user.execute("UPDATE orders SET status = 'won'")
    await shop.user.execute("UPDATE orders SET note = 'seen'")
    await shop.read()
    query = {"template": template["id"], "limit": "100"}

    async def started() -> list[Json]:
        found: list[Json] = (await ok(await shop.api.get("/executions", params=query)))["items"]
        return found

    async with asyncio.timeout(20):
        while len(await started()) < 20:
            await asyncio.sleep(0.05)
    async with shop.database.driver() as connection:
        contexts = await connection.fetch(
            "SELECT context FROM workflow_execution WHERE template_id = $1", template["id"]
        )
    assert sorted(row["context"]["after"]["id"] for row in contexts) == list(range(1, 21))
    refused(await shop.api.delete(f"/change-sources/{source['id']}"), 409, "TRIGGER_IN_USE")
    async with shop.database.transaction() as session:
        await session.execute(delete(Subscription).where(col(Subscription.id) == subscription.id))


@pytest.mark.parametrize("method", ["REPLICATION", "POSTED"])
async def test_subscriptions_narrow_by_the_operations_and_columns_of_a_table(shop: Shop, method: str) -> None:
    source = await shop.watch(method=method)
    template = await active_template(shop.api)
    body = {
        "templateId": template["id"],
        "triggerKey": source["key"],
        "properties": {"operations": ["UPDATE"], "monitor_columns": True, "columns": ["status"]},
    }
    subscription = await ok(await shop.api.post("/subscriptions", json=body), 201)
    payload = {"operation": "UPDATE", "changed_columns": ["note"]}
    explain = f"/subscriptions/{subscription['id']}/explain"
    assert not (await ok(await shop.api.post(explain, json={"payload": payload})))["holds"]
    payload["changed_columns"] = ["status", "note"]
    assert (await ok(await shop.api.post(explain, json={"payload": payload})))["holds"]
    await shop.api.delete(f"/subscriptions/{subscription['id']}")


async def test_the_trigger_of_a_very_wide_table_is_like_any_other(shop: Shop) -> None:
    columns = ", ".join(f"c{n} int" for n in range(400))
    await shop.user.execute(f"CREATE TABLE wide (id int PRIMARY KEY, {columns})")
    source = await shop.watch("wide", method="OUTBOX")
    path = f"/registry/triggers/{source['key']}"
    trigger = await ok(await shop.api.get(path))
    assert [one["path"] for one in trigger["variables"]][-1] == "before.c89"
    saved = await shop.api.patch(path, json={"variables": trigger["variables"], "properties": trigger["properties"]})
    assert (await ok(saved))["variables"] == trigger["variables"]
    async with shop.database.driver() as connection:
        found = await connection.fetch("SELECT action FROM audit_event ORDER BY id")
    assert [row["action"] for row in found] == ["CREATE_TRIGGER", "WATCH"]
