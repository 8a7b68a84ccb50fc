"""However many tables are watched, over however many connections, and however slow their databases are: everything else
goes on."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from app.db.session import Connection, Database
from app.settings import ChangeSettings, Settings
from app.temporal import Temporal
from tests.app.conftest import serving
from tests.app.scenes import active_template, link, ok, purchase
from tests.app.shop import dsn
from tests.conftest import MakeDatabase

# More than the pool of our own database has connections, which are twenty.
CONNECTIONS = 25
TABLES = 40
PURCHASES = "/triggers/product-purchases"
OUTBOX = "public.millrace_outbox"


@dataclass
class Many:
    """The user's database under many names, and an API that watches its tables."""

    user: Connection
    api: httpx.AsyncClient
    database: Database

    async def stored(self) -> int:
        """How many tables have told of a change."""
        async with self.database.driver() as connection:
            return int(await connection.fetchval("SELECT count(DISTINCT trigger_key) FROM trigger_event"))

    async def change(self) -> None:
        await self.user.execute(";".join(f"INSERT INTO t{n} DEFAULT VALUES" for n in range(TABLES)))


@pytest.fixture
async def many(
    make_empty_database: MakeDatabase, settings: Settings, database: Database, temporal: Temporal
) -> AsyncIterator[Many]:
    url = await make_empty_database()
    user = await asyncpg.connect(dsn(url))
    await user.execute(";".join(f"CREATE TABLE t{n} (id int GENERATED ALWAYS AS IDENTITY)" for n in range(TABLES)))
    named = {f"c{n}": SecretStr(dsn(url)) for n in range(CONNECTIONS)}
    ours = settings.model_copy(update={"connections": named, "changes": ChangeSettings(interval=0.1)})
    async with closing(user), serving(ours, database, temporal) as api:
        for n in range(TABLES):
            body = {"connection": f"c{n % CONNECTIONS}", "table": f"t{n}", "method": "OUTBOX"}
            await ok(await api.post("/change-sources", json=body), 201)
        yield Many(user, api, database)
        async with database.driver() as driver:
            await driver.execute("DELETE FROM change_source; DELETE FROM trigger_definition")


@asynccontextmanager
async def closing(connection: Connection) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await connection.close()


async def until(many: Many, tables: int) -> None:
    for _ in range(200):
        if await many.stored() >= tables:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"changes of {await many.stored()} tables have been told")


async def test_databases_that_hang_hold_up_nothing_but_their_own_changes(many: Many) -> None:
    entity_id = await link(many.api, await active_template(many.api))
    lock = many.user.transaction()
    await lock.start()
    await many.user.execute(f"LOCK TABLE {OUTBOX} IN ACCESS EXCLUSIVE MODE")
    for _ in range(100):
        waiting = "SELECT count(*) FROM pg_locks WHERE relation = $1::regclass AND NOT granted"
        if await many.user.fetchval(waiting, OUTBOX) == CONNECTIONS:
            break
        await asyncio.sleep(0.1)
    else:
        raise AssertionError("not every connection is being read")
    took = []
    for _ in range(10):
        began = time.monotonic()
        assert (await many.api.get("http://" + many.api.base_url.netloc.decode() + "/health/ready")).status_code == 200
        await ok(await many.api.post(PURCHASES, json=purchase(entity_id)), 202)
        took.append(time.monotonic() - began)
    assert max(took) < 2
    await lock.rollback()
    await many.change()
    await until(many, TABLES)


async def test_changes_of_many_tables_at_once_leave_room_for_starts(many: Many) -> None:
    entity_id = await link(many.api, await active_template(many.api))
    for _ in range(20):
        await many.change()
    took = []
    for _ in range(10):
        began = time.monotonic()
        await ok(await many.api.post(PURCHASES, json=purchase(entity_id)), 202)
        took.append(time.monotonic() - began)
    assert max(took) < 2
    await until(many, TABLES)
