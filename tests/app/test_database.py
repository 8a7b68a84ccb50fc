"""What the driver throws, as others get it; and the connections that are kept."""

import asyncio

import pytest
from asyncpg.exceptions import PostgresError
from asyncpg.protocol.protocol import BUILTIN_TYPE_OID_MAP
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.db.session import Database
from app.errors import Unavailable
from app.executions.queries import LINKED_TARGET
from app.executions.starting import CLAIM
from app.inbox.taking import TAKE
from app.settings import DatabaseSettings


async def test_an_error_that_means_nothing_to_users_is_not_its_own_cause(database: Database) -> None:
    with pytest.raises(DBAPIError) as raised:
        async with database.transaction() as session:
            await session.execute(text("SELECT 1 FROM nowhere"))
    assert raised.value.__cause__ is not raised.value


async def test_whoever_is_cancelled_leaves_no_transaction_to_the_next(database_url: str) -> None:
    """Cancelled while a transaction begins, a connection would take what its next user does for a part of it."""
    database = Database(database_url)

    async def work() -> None:
        while True:
            async with database.driver() as connection, connection.transaction():
                pass

    for turn in range(60):
        working = asyncio.create_task(work())
        await asyncio.sleep(0.005 + turn * 0.0003)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        async with database.driver() as connection:
            assert not connection.is_in_transaction()
            async with connection.transaction():
                pass
            assert not connection.is_in_transaction()
    await database.close()


async def test_of_two_that_wait_for_each_other_one_is_told_to_come_again(database: Database) -> None:
    both_hold_one = asyncio.Barrier(2)

    async def lock(*keys: int) -> str | None:
        try:
            async with database.driver() as connection, connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", keys[0])
                await both_hold_one.wait()
                await connection.execute("SELECT pg_advisory_xact_lock($1)", keys[1])
        except Unavailable as error:
            return error.code
        return None

    assert sorted(map(str, await asyncio.gather(lock(711, 712), lock(712, 711)))) == ["DATABASE_BUSY", "None"]


async def test_connections_stay_open_when_many_have_wanted_one_at_once(database_url: str) -> None:
    database = Database(database_url, DatabaseSettings(pool_size=3))

    async def server_process() -> int:
        async with database.driver() as connection:
            await asyncio.sleep(0.01)
            return connection.get_server_pid()

    used = [set(await asyncio.gather(*[server_process() for _ in range(9)])) for _ in range(3)]
    assert len(used[0]) == 3
    assert used == [used[0]] * 3
    # One at a time it is always the same: the one that was used last.
    assert len({await server_process() for _ in range(6)}) == 1
    await database.close()


async def test_a_connection_that_was_lost_in_use_is_replaced(database_url: str) -> None:
    database = Database(database_url, DatabaseSettings(pool_size=1))
    async with database.driver() as connection:
        lost = connection.get_server_pid()
        with pytest.raises(PostgresError):
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    for _ in range(2):
        async with database.driver() as connection:
            assert connection.get_server_pid() != lost
            assert await connection.fetchval("SELECT 1") == 1
    await database.close()


@pytest.mark.parametrize("statement", [LINKED_TARGET, TAKE, CLAIM])
async def test_a_start_asks_for_nothing_that_the_driver_must_look_up(database: Database, statement: str) -> None:
    """Of a type that it does not know the driver asks PostgreSQL on each new connection, for some ten milliseconds."""
    async with database.driver() as connection:
        prepared = await connection.prepare(statement)
        types = [*prepared.get_parameters(), *(attribute.type for attribute in prepared.get_attributes())]
    assert [one.name for one in types if one.oid not in BUILTIN_TYPE_OID_MAP] == []


RUNNING = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(30)'"


@pytest.mark.parametrize("given_up", ["timeout", "cancel"])
async def test_a_statement_that_nobody_waits_for_any_more_is_stopped(database: Database, given_up: str) -> None:
    """It would run on, and keep its locks from who comes after it."""

    async def work() -> None:
        async with database.driver() as connection:
            await connection.execute("SELECT pg_sleep(30)", timeout=0.3 if given_up == "timeout" else 20)

    working = asyncio.create_task(work())
    if given_up == "cancel":
        await asyncio.sleep(0.3)
        working.cancel()
    with pytest.raises((Unavailable, asyncio.CancelledError)):
        await working
    async with database.driver() as connection:
        assert await connection.fetchval(RUNNING) == 0
