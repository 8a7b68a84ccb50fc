"""What the driver throws, as others get it."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.db.session import Database
from app.errors import Unavailable


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
