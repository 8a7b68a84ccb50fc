"""A poll whose database takes connections and says nothing: saving it holds up nobody else."""

import asyncio
import socket
from uuid import uuid4

from pydantic import SecretStr

from app.db.session import Database
from app.settings import Settings
from app.temporal import Temporal
from tests.app.conftest import Serve
from tests.app.scenes import ok


async def test_no_connection_is_held_while_a_source_is_asked_about_a_new_poll(
    serve: Serve, settings: Settings, database: Database, temporal: Temporal
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = SecretStr(f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/shop")
        api = await serve(settings.model_copy(update={"connections": {"silent": url}}), database, temporal)
        source = {"type": "SQL", "connection": "silent", "query": "SELECT 1 AS id"}
        body = {
            "name": f"p-{uuid4().hex}",
            "spec": {"cron": ["0 0 1 1 *"]},
            "poll": {"source": source, "id": "__trigger__.item.id"},
            "target": {"triggerKey": "k"},
        }
        saving = asyncio.create_task(api.post("/schedules", json=body, headers={"Idempotency-Key": uuid4().hex}))
        await asyncio.sleep(1)
        async with database.driver() as connection:
            held = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in tr%'"
            )
            assert await connection.fetchval(held) == 0
        assert not saving.done()
        assert (await ok(await saving, 201))["lastError"].startswith("CONNECTION_UNREACHABLE: ")
