"""The tables of backfills: what is to be started for the past, and what became of each row."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel, UniqueConstraint

from app.db.columns import json_document, one_of, reference, timestamp
from app.db.statuses import BackfillRowStatus, BackfillStatus, EntityType
from app.db.tables import new_id


class Backfill(SQLModel, table=True):
    """Executions to be started for many past events, of one template or of what the entities are linked to.

    `rate` is starts a second, `concurrency` how many of its executions may be open at once; None sets no limit.
    `source` says where the rows came from and how they were read, as the command line needs it to go on. `row_counts`
    are those of rows that have been deleted since.
    """

    __tablename__ = "backfill"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (one_of("status", BackfillStatus), one_of("entity_type", EntityType))

    id: UUID = Field(default_factory=new_id, primary_key=True)
    name: str = Field(max_length=200)
    template_id: UUID | None = Field(
        default=None, sa_column=reference("workflow_template.id", nullable=True, ondelete="SET NULL", index=False)
    )
    entity_type: str | None = Field(default=None, max_length=30)
    rate: float | None = None
    concurrency: int | None = None
    source: dict[str, Any] = Field(
        default_factory=dict, sa_column=Column(JSONB, nullable=False, server_default=text("'{}'"))
    )
    status: str = Field(default=BackfillStatus.LOADING, max_length=20)
    status_reason: str | None = None
    created_by: str | None = Field(default=None, max_length=200)
    created_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    updated_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True, touch=True))
    started_at: datetime | None = Field(default=None, sa_column=timestamp(nullable=True))
    ended_at: datetime | None = Field(default=None, sa_column=timestamp(nullable=True))
    row_counts: dict[str, Any] | None = Field(default=None, sa_column=json_document())
    rows_deleted_at: datetime | None = Field(default=None, sa_column=timestamp(nullable=True))


class BackfillRow(SQLModel, table=True):
    """A row of a backfill's source, by its number there, and what became of it.

    `event_id` is the event's own id, where the source has one. `raw` is what an INVALID row said. `trigger_event_id`
    is the event in the inbox, and `repeated` whether that had started something before. `open` means that the
    execution it started has not been seen to end: those count towards the backfill's concurrency.
    """

    __tablename__ = "backfill_row"
    __table_args__ = (
        UniqueConstraint("backfill_id", "event_id"),
        one_of("status", BackfillRowStatus),
        Index("ix_backfill_row_status", "backfill_id", "status", "number"),
        Index("ix_backfill_row_open", "backfill_id", postgresql_where=text("open")),
    )

    backfill_id: UUID = Field(sa_column=reference("backfill.id", index=False, primary_key=True))
    number: int = Field(primary_key=True)
    event_id: str | None = Field(default=None, max_length=400)
    entity_id: str | None = Field(default=None, max_length=200)
    name: str | None = Field(default=None, max_length=200)
    context: dict[str, Any] | None = Field(default=None, sa_column=json_document())
    raw: Any = Field(default=None, sa_column=json_document())
    status: str = Field(default=BackfillRowStatus.PENDING, max_length=20)
    code: str | None = Field(default=None, max_length=200)
    message: str | None = None
    trigger_event_id: UUID | None = Field(
        default=None, sa_column=reference("trigger_event.id", nullable=True, ondelete="SET NULL")
    )
    repeated: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    open: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    execution_id: UUID | None = Field(
        default=None, sa_column=reference("workflow_execution.id", nullable=True, ondelete="SET NULL")
    )
    updated_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True, touch=True))
