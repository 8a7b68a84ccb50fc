"""The outbox: a table in the user's database that row triggers fill, for where replication is not permitted.

Each change is a row of it until it is stored in the inbox; then the row is deleted. It needs nothing but the right to
make a table and a trigger, or somebody who runs `setup_sql` once and grants SELECT, UPDATE (what is read is locked)
and DELETE.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

from app.changes.catalogue import TableShape
from app.changes.row_changes import Operation, Row, RowChange
from app.changes.statements import LOCK_WITHIN, literal, quoted
from app.connections.selecting import as_row
from app.db.session import Connection

TABLE: Final = "millrace_outbox"
FUNCTION: Final = "millrace_capture"
TRIGGER: Final = "millrace_capture"

_SETUP: Final = f"""\
CREATE TABLE IF NOT EXISTS public.{TABLE} (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key uuid NOT NULL DEFAULT gen_random_uuid(),
    txid text NOT NULL DEFAULT pg_current_xact_id()::text,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    table_schema text NOT NULL,
    table_name text NOT NULL,
    operation text NOT NULL,
    before jsonb,
    after jsonb
);
CREATE OR REPLACE FUNCTION public.{FUNCTION}() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC' SET datestyle = 'ISO' SET intervalstyle = 'iso_8601' SET bytea_output = 'hex' AS $capture$
BEGIN
    INSERT INTO public.{TABLE} (table_schema, table_name, operation, before, after) VALUES (
        TG_ARGV[0], TG_ARGV[1], TG_OP,
        CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END,
        CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END);
    RETURN NULL;
END
$capture$;
REVOKE ALL ON FUNCTION public.{FUNCTION}() FROM PUBLIC;
"""
_INSTALLED: Final = """
    SELECT true FROM pg_trigger
    WHERE tgname = $1 AND tgrelid = to_regclass($2) AND tgenabled <> 'D' AND NOT tgisinternal
        AND to_regclass($3) IS NOT NULL
"""
_WAITING: Final = f"""
    SELECT id, key::text, txid, at, operation, before::text, after::text FROM public.{TABLE}
    WHERE table_schema = $1 AND table_name = $2 ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED
"""


def setup_sql(schema: str, name: str) -> str:
    """What makes the table's changes go into the outbox; it may be run again."""
    table = quoted(schema, name)
    return (
        f"{_SETUP}"
        f"CREATE OR REPLACE TRIGGER {TRIGGER} AFTER INSERT OR UPDATE OR DELETE ON {table}\n"
        f"    FOR EACH ROW EXECUTE FUNCTION public.{FUNCTION}({literal(schema)}, {literal(name)});\n"
    )


def removal_sql(schema: str, name: str) -> str:
    """What takes the table out again; what waits in the outbox stays there."""
    return f"DROP TRIGGER IF EXISTS {TRIGGER} ON {quoted(schema, name)};\n"


async def install(connection: Connection, table: TableShape) -> None:
    """Lets the table's changes go into the outbox, unless somebody has seen to it already.

    Raises what PostgreSQL does where the connection's user may not.
    """
    if await installed(connection, table.schema, table.name):
        return
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = {LOCK_WITHIN}")
        await connection.execute(setup_sql(table.schema, table.name))


async def installed(connection: Connection, schema: str, name: str) -> bool:
    """Whether the table's changes go into the outbox."""
    return bool(await connection.fetchval(_INSTALLED, TRIGGER, quoted(schema, name), f"public.{TABLE}"))


async def remove(connection: Connection, schema: str, name: str) -> None:
    """Takes the table out of the outbox, and the outbox away with the last one; what waits of the table goes."""
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = {LOCK_WITHIN}")
        if await connection.fetchval("SELECT to_regclass($1)::text", quoted(schema, name)):
            await connection.execute(removal_sql(schema, name))
        if not await connection.fetchval("SELECT to_regclass($1)::text", f"public.{TABLE}"):
            return
        await connection.execute(
            f"DELETE FROM public.{TABLE} WHERE table_schema = $1 AND table_name = $2", schema, name
        )
        if not await connection.fetchval("SELECT true FROM pg_trigger WHERE tgname = $1", TRIGGER):
            await connection.execute(f"DROP FUNCTION IF EXISTS public.{FUNCTION}()")
            await connection.execute(f"DROP TABLE public.{TABLE}")


async def waiting(
    connection: Connection, schema: str, name: str, most: int
) -> AsyncGenerator[tuple[int, RowChange, int], None]:
    """The oldest changes that wait, each with its id and size in bytes; nobody else gets them while the caller's
    transaction lasts.

    A transaction that commits late finds its changes taken late, and none is passed over: nothing counts the ids.
    """
    async for row in connection.cursor(_WAITING, schema, name, most, prefetch=50):
        size = len(row["before"] or "") + len(row["after"] or "")
        yield row["id"], _change(row, schema, name), size


async def forget(connection: Connection, ids: Sequence[int]) -> None:
    """Deletes what is stored in the inbox."""
    await connection.execute(f"DELETE FROM public.{TABLE} WHERE id = ANY ($1)", ids)


async def count_waiting(connection: Connection, schema: str, name: str) -> int:
    """How many changes of the table wait."""
    statement = f"SELECT count(*) FROM public.{TABLE} WHERE table_schema = $1 AND table_name = $2"
    return int(await connection.fetchval(statement, schema, name))


def _change(row: Any, schema: str, name: str) -> RowChange:
    return RowChange(
        operation=Operation(row["operation"]),
        schema=schema,
        table=name,
        at=row["at"].isoformat(),
        before=_row(row["before"]),
        after=_row(row["after"]),
        key=row["key"],
        position={"txid": int(row["txid"])},
    )


def _row(text: str | None) -> Row | None:
    return None if text is None else as_row(text)
