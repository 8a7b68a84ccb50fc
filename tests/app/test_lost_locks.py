"""A reader that has lost its lock in the middle of a pass, and another one, or somebody who pauses, beside it."""

import asyncio

import asyncpg
import pytest

from app.changes import replication
from tests.app.scenes import ok
from tests.app.shop import SHOP, Shop
from tests.app.test_change_faults import INSERT, told


async def test_a_slot_that_was_made_since_a_reader_lost_its_lock_is_not_let_go(shop: Shop) -> None:
    await shop.user.execute("CREATE TABLE lines (id int PRIMARY KEY)")
    orders, _ = await shop.watch(), await shop.watch("lines")
    await shop.user.execute(INSERT, 1, 20_000)
    reader = shop.new_reader()
    reading = asyncio.create_task(reader.read(SHOP))
    while not await told(shop):
        await asyncio.sleep(0.01)
    async with shop.database.driver() as connection:
        holder = (
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid "
            "FROM pg_database WHERE datname = current_database())"
        )
        assert await connection.fetch(holder)
    paused = await ok(await shop.api.post(f"/change-sources/{orders['id']}/pause"))
    assert not reading.done()
    await asyncio.gather(reading, return_exceptions=True)
    await reader.close()
    assert paused["slot"] in await shop.slots()


async def test_a_slot_that_somebody_else_has_moved_on_is_not_lost(shop: Shop) -> None:
    source = await shop.watch()
    before = await shop.user.fetchval("SELECT pg_current_wal_flush_lsn()::text")
    await shop.user.execute(INSERT, 1, 10)
    after = await shop.user.fetchval("SELECT pg_current_wal_flush_lsn()::text")
    assert await replication.advance(shop.user, source["slot"], after)
    assert not await replication.advance(shop.user, source["slot"], before)
    await shop.user.execute("SELECT pg_drop_replication_slot($1)", source["slot"])
    with pytest.raises(asyncpg.PostgresError):
        await replication.advance(shop.user, source["slot"], after)
