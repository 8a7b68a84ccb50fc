"""A server whose log is too short for logical replication, as PostgreSQL comes out of the box: `wal_level=replica`."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from app.embedded import EmbeddedPostgres, start_postgres
from app.processes import OwnProcess
from tests.app.scenes import refused
from tests.app.shop import SHOP, Shop
from tests.conftest import MakeDatabase


@pytest.fixture(scope="module")
async def plain_server(short_home: Path) -> AsyncIterator[EmbeddedPostgres]:
    home = short_home / f"plain-{uuid4().hex[:8]}"
    home.mkdir()
    processes: list[OwnProcess] = []
    try:
        yield await start_postgres(home, processes.append, throwaway=True, options=["wal_level=replica"])
    finally:
        for process in processes:
            await process.stop()


@pytest.fixture(scope="module")
async def make_empty_database(plain_server: EmbeddedPostgres) -> MakeDatabase:
    """Where the module's shop gets its database from."""

    async def make() -> str:
        name = f"t{uuid4().hex}"
        admin = await asyncpg.connect(host=str(plain_server.socket_folder), user="postgres", database="postgres")
        await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
        await admin.close()
        return plain_server.url(name)

    return make


async def test_replication_is_refused_with_what_is_missing_and_nothing_stays_behind(shop: Shop) -> None:
    body = {"connection": SHOP, "table": "orders"}
    problem = refused(await shop.api.post("/change-sources", json=body), 409, "REPLICATION_NOT_CONFIGURED")
    assert "wal_level=replica" in problem["detail"]
    assert "wal_level=logical in postgresql.conf and a restart" in problem["detail"]
    assert "--method outbox" in problem["detail"]
    assert (await shop.api.get("/change-sources")).json()["items"] == []
    refused(await shop.api.get("/registry/triggers/orders_db_change"), 404, "TRIGGER_NOT_FOUND")
    assert await shop.user.fetch("SELECT pubname FROM pg_publication") == []
    assert await shop.slots() == []
    assert await shop.user.fetchval("SELECT relreplident FROM pg_class WHERE relname = 'orders'") == b"d"


async def test_the_outbox_tells_everything_there(shop: Shop) -> None:
    refused(
        await shop.api.post("/change-sources", json={"connection": SHOP, "table": "orders"}),
        409,
        "REPLICATION_NOT_CONFIGURED",
    )
    source = await shop.watch(method="OUTBOX", monitoredColumns=["status"])
    await shop.user.execute("INSERT INTO orders (id, status, amount) VALUES (1, 'new', 9.90)")
    await shop.user.execute("UPDATE orders SET note = 'x'")
    await shop.user.execute("UPDATE orders SET status = 'won'")
    await shop.user.execute("DELETE FROM orders")
    told = await shop.read()
    assert [one["operation"] for one in told] == ["INSERT", "UPDATE", "DELETE"]
    assert (told[1]["before"]["status"], told[1]["after"]["status"], told[1]["changed_columns"]) == (
        "new",
        "won",
        ["status"],
    )
    assert (await shop.source(source))["status"] == "ACTIVE"
