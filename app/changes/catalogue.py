"""What a user's database says of a table: its columns, its key, and what of an old row its log holds."""

from dataclasses import dataclass
from typing import Final

from app.db.session import Connection
from app.errors import Invalid

_TABLE: Final = """
    SELECT c.oid::int8 AS oid, c.relkind, c.relpersistence, c.relreplident,
        (SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
         WHERE x.indrelid = c.oid AND x.indisreplident) AS identity_index,
        pg_has_role(current_user, c.relowner, 'USAGE') AS owned
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2
"""
_COLUMNS: Final = """
    SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS written, t.typcategory AS category,
        coalesce(a.attnum = ANY (k.indkey), false) AS key
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_index k ON k.indrelid = a.attrelid AND k.indisprimary
    WHERE a.attrelid = $1::int8::oid AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
"""


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column: its type as PostgreSQL writes it, and the letter of the type's category (`pg_type.typcategory`)."""

    name: str
    written: str
    category: str
    key: bool


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table. `identity` is what is logged of an old row: d(efault: the key), n(othing), f(ull), i(ndex)."""

    schema: str
    name: str
    partitioned: bool
    logged: bool
    identity: str
    identity_index: str | None
    owned: bool
    columns: tuple[TableColumn, ...]

    def key_columns(self) -> list[str]:
        """The columns of the primary key."""
        return [column.name for column in self.columns if column.key]

    def identified(self) -> bool:
        """Whether the log tells which row was changed: if not, publishing the table would forbid to change it."""
        return self.identity in {"f", "i"} or (self.identity == "d" and any(column.key for column in self.columns))


async def read_table(connection: Connection, schema: str, name: str) -> TableShape:
    """The table. Raises `Invalid` TABLE_UNKNOWN, TABLE_NOT_WATCHABLE."""
    found = await connection.fetchrow(_TABLE, schema, name)
    if found is None:
        raise Invalid("TABLE_UNKNOWN", f"There is no table {schema}.{name} that this connection can see.")
    kind, persistence = found["relkind"].decode(), found["relpersistence"].decode()
    if kind not in {"r", "p"} or persistence == "t":
        raise Invalid("TABLE_NOT_WATCHABLE", f"{schema}.{name} is no ordinary table, so its rows cannot be watched.")
    columns = await connection.fetch(_COLUMNS, found["oid"])
    return TableShape(
        schema=schema,
        name=name,
        partitioned=kind == "p",
        logged=persistence == "p",
        identity=found["relreplident"].decode(),
        identity_index=found["identity_index"],
        owned=found["owned"],
        columns=tuple(
            TableColumn(column["name"], column["written"], column["category"].decode(), column["key"])
            for column in columns
        ),
    )
