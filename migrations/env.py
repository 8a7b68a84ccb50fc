"""Alembic's environment: on the connection that `app.db.migrate` hands in, or on the configured database."""

import asyncio

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import SQLModel

import app.db.backfill_tables
import app.db.event_tables
import app.db.payload_tables
import app.db.schedule_tables
import app.db.tables  # noqa: F401  (all declare tables)
from app.db.session import driver_url
from app.settings import Settings

# Any number: whoever migrates holds this lock, so that two processes starting together do not both migrate.
MIGRATION_LOCK = 7_410_233_151


def _run(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        compare_type=True,
        compare_server_default=True,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


async def _run_on_configured_database() -> None:
    url = Settings().database.url
    if url is None:
        raise SystemExit("Set MILLRACE_DATABASE__URL to the database to migrate.")
    engine = create_async_engine(driver_url(url.get_secret_value()))
    async with engine.begin() as connection:
        await connection.run_sync(_run)
    await engine.dispose()


given = context.config.attributes.get("connection")
if given is None:
    asyncio.run(_run_on_configured_database())
else:
    _run(given)
