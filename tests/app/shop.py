"""A user's database with tables to watch, and what came of their changes in the inbox."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
from pydantic import SecretStr

from app.changes.reader import Reader
from app.connections.opening import Connections
from app.db.session import Connection, Database
from app.settings import ChangeSettings, Settings
from tests.app.scenes import Json, ok

SHOP = "shop"
ORDERS = """
    CREATE TABLE orders (id int PRIMARY KEY, customer text, amount numeric, status text, note text, paid bool, at
    timestamptz, tags text[], extra jsonb, raw bytea)
"""


def dsn(url: str) -> str:
    return url.replace("postgresql+asyncpg://", "postgresql://")


def shop_settings(settings: Settings, url: str, **changes: Any) -> Settings:
    return settings.model_copy(
        update={"connections": {SHOP: SecretStr(dsn(url))}, "changes": ChangeSettings(interval=3600, **changes)}
    )


@dataclass
class Shop:
    """The user's database, Millrace's, its API, and a reader that reads when it is told to."""

    url: str
    user: Connection
    api: httpx.AsyncClient
    database: Database
    settings: Settings
    reader: Reader

    async def watch(self, table: str = "orders", **fields: Any) -> Json:
        body = {"connection": SHOP, "table": table, **fields}
        return await ok(await self.api.post("/change-sources", json=body), 201)

    async def source(self, source: Json) -> Json:
        return await ok(await self.api.get(f"/change-sources/{source['id']}"))

    async def read(self) -> list[Json]:
        """Reads until there is nothing more, and gives every payload of the inbox in order."""
        while await self.reader.read(SHOP):
            pass
        return await self.payloads()

    async def payloads(self) -> list[Json]:
        return [event["payload"] for event in await self.events()]

    async def events(self) -> list[Json]:
        async with self.database.driver() as connection:
            found = await connection.fetch("SELECT to_jsonb(e)::text AS event FROM trigger_event e ORDER BY id")
        return [json.loads(row["event"]) for row in found]

    async def slots(self) -> list[str]:
        found = await self.user.fetch(
            "SELECT slot_name FROM pg_replication_slots WHERE database = current_database() ORDER BY 1"
        )
        return [row["slot_name"] for row in found]

    def new_reader(self) -> Reader:
        return Reader(self.database, Connections(self.database.url, self.settings.connections), self.settings.changes)

    async def clear(self) -> None:
        """Everything as it was before anybody watched anything."""
        page = await ok(await self.api.get("/change-sources"))
        for source in page["items"]:
            await self.api.delete(f"/change-sources/{source['id']}", params={"abandon": "true"})
        # A slot would keep the server's log, and its place, until the server ends.
        await self.user.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()"
        )
        for publication in await self.user.fetch("SELECT pubname FROM pg_publication"):
            await self.user.execute(f"DROP PUBLICATION {publication['pubname']}")
        await self.user.execute("DROP SCHEMA IF EXISTS sales CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        async with self.database.driver() as connection:
            await connection.execute("DELETE FROM trigger_event; DELETE FROM audit_event")


@asynccontextmanager
async def opened_shop(url: str, api: httpx.AsyncClient, database: Database, settings: Settings) -> AsyncIterator[Shop]:
    # The log can be read up to where it was flushed, which the tests' server otherwise does a while later.
    user = await asyncpg.connect(dsn(url), server_settings={"synchronous_commit": "on"})
    reader = Reader(database, Connections(database.url, settings.connections), settings.changes)
    shop = Shop(url, user, api, database, settings, reader)
    try:
        yield shop
    finally:
        await reader.close()
        await user.close()
