"""The embedded servers are the real ones, and nothing of them stays behind."""

import asyncpg
from temporalio.client import Client


async def test_a_database_comes_with_its_tables(database_url: str) -> None:
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    assert await connection.fetchval("SELECT count(*) FROM workflow_template") == 0
    await connection.close()


async def test_the_temporal_server_answers(temporal_client: Client) -> None:
    assert await temporal_client.service_client.check_health()
