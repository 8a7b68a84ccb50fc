"""Columns as every table here has them."""

from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, Column, DateTime, ForeignKey, Uuid, func
from sqlalchemy.dialects.postgresql import JSONB

# Of the deeds under one key that are done to the same, one is being done at a time.
OPEN_KEY = ("entity_kind", "entity_id", "idempotency_key")
OPEN_KEYS = "result = 'PENDING' AND idempotency_key IS NOT NULL"


def one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    """A check that a column holds one of the values."""
    allowed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({allowed})", name=f"{column}_known")


def timestamp(*, nullable: bool, now: bool = False, touch: bool = False) -> Any:
    """A `timestamptz`; `now` fills it when the row is written, `touch` whenever the row changes."""
    return Column(
        DateTime(timezone=True),
        nullable=nullable,
        server_default=func.now() if now else None,
        onupdate=func.now() if touch else None,
    )


def json_document() -> Any:
    """A `jsonb` column whose None is NULL."""
    return Column(JSONB(none_as_null=True), nullable=True)


def reference(
    target: str, *, nullable: bool = False, ondelete: str = "CASCADE", index: bool = True, primary_key: bool = False
) -> Any:
    """An id in another table: `orders.id`."""
    return Column(
        Uuid(), ForeignKey(target, ondelete=ondelete), nullable=nullable, index=index, primary_key=primary_key
    )
