"""What the driver throws, as others get it."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.db.session import Database


async def test_an_error_that_means_nothing_to_users_is_not_its_own_cause(database: Database) -> None:
    with pytest.raises(DBAPIError) as raised:
        async with database.transaction() as session:
            await session.execute(text("SELECT 1 FROM nowhere"))
    assert raised.value.__cause__ is not raised.value
