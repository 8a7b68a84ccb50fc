"""What PostgreSQL is asked for the options of a field, put together from its source: no text of a form, or of whoever
asks, becomes SQL.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, TableClause, Text, cast, column, or_, select, table
from sqlmodel import SQLModel

from app.connections.selecting import Written
from app.db.session import Connection
from app.errors import Invalid
from app.forms.fields import DatabaseSource
from app.forms.rows import columns_in, condition_of
from app.settings import OWN_CONNECTION
from engine.filters.reading import parse

# The columns of what is asked of PostgreSQL.
VALUE, LABEL = "value", "label"

_COLUMNS: Final = """
    SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS written
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
        AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
"""

# Of Millrace's own tables only these: others hold contexts, payloads and secrets.
_OWN_TABLES = frozenset({"workflow_template", "action", "trigger_definition"})
_CATALOGUE = frozenset({"tables", "columns", "schemata"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What options are asked for: what they depend on, a text that is looked for, and the part of the list."""

    values: Mapping[str, Any]
    text: str | None = None
    token: str | None = None
    limit: int = 100


def check_readable(source: DatabaseSource) -> None:
    """Raises `Invalid` TABLE_NOT_READABLE for catalogues, and for tables of Millrace that hold what is not for all."""
    refused = source.schema_.startswith("pg_") or (
        source.schema_ == "information_schema" and source.table not in _CATALOGUE
    )
    own = source.connection == OWN_CONNECTION and source.table in SQLModel.metadata.tables
    if refused or (own and source.table not in _OWN_TABLES):
        raise Invalid("TABLE_NOT_READABLE", f"Options are not read from {source.schema_}.{source.table}.")


async def read_table(connection: Connection, source: DatabaseSource) -> TableClause:
    """The table with its columns. Raises TABLE_UNKNOWN, COLUMN_UNKNOWN."""
    described = await connection.fetch(_COLUMNS, source.schema_, source.table)
    if not described:
        raise Invalid("TABLE_UNKNOWN", f"There is no table {source.schema_}.{source.table}.")
    rows = table(
        source.table, *(column(one["name"], Written(one["written"])) for one in described), schema=source.schema_
    )
    label = source.label_column or source.value_column
    where = parse(source.where)
    for name in (source.value_column, label, source.order_by or label, *columns_in(where)):
        if name not in rows.c:
            raise Invalid("COLUMN_UNKNOWN", f"There is no column {name} in {source.schema_}.{source.table}.")
    return rows


def selected(rows: TableClause, source: DatabaseSource, asked: Asked) -> Select[Any]:
    """The rows that are asked for, in their order. Raises COLUMN_UNKNOWN, OPTIONS_VALUE_MISSING."""
    label_name = source.label_column or source.value_column
    value, label = rows.c[source.value_column], cast(rows.c[label_name], Text)
    statement = select(value.label(VALUE), label.label(LABEL)).where(
        value.is_not(None), condition_of(parse(source.where), dict(rows.c), asked.values)
    )
    if asked.text is not None:
        statement = statement.where(or_(label.icontains(asked.text, autoescape=True), cast(value, Text) == asked.text))
    order = rows.c[source.order_by or label_name]
    return statement.order_by(order.desc() if source.descending else order, cast(value, Text))
