"""The tables of what asks by the clock: schedules, and what polls remember of what they have seen."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Column, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from app.db.columns import json_document, one_of, reference, timestamp
from app.db.statuses import OverlapPolicy, ScheduleKind
from app.db.tables import new_id


class ScheduleTrigger(SQLModel, table=True):
    """When something is to happen, and what. PostgreSQL holds it; a Temporal Schedule of the same id carries it.

    It starts a template (`context` and `execution_name` are values over the tick), or gives its events a trigger key
    for subscriptions. `remaining` counts down from `max_executions`. Until Temporal has it as it stands here it is not
    `synced`, and `sync_error` says why. A POLL asks the source in `poll`; `cursor` is where it has got to, and until
    it has asked once it is not `primed`.
    """

    __tablename__ = "schedule_trigger"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (
        one_of("kind", ScheduleKind),
        one_of("overlap", OverlapPolicy),
        CheckConstraint("(template_id IS NULL) <> (trigger_key IS NULL)", name="one_target"),
        CheckConstraint("(kind = 'POLL') = (poll IS NOT NULL)", name="source_of_poll"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    name: str = Field(unique=True, max_length=100)
    description: str | None = None
    kind: str = Field(default=ScheduleKind.SCHEDULE, max_length=20)
    spec: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    overlap: str = Field(default=OverlapPolicy.SKIP, max_length=20)
    catch_up_seconds: float
    max_executions: int | None = None
    remaining: int | None = None
    paused: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    note: str | None = None
    template_id: UUID | None = Field(default=None, sa_column=reference("workflow_template.id", nullable=True))
    trigger_key: str | None = Field(default=None, max_length=200)
    context: Any = Field(default=None, sa_column=json_document())
    execution_name: Any = Field(default=None, sa_column=json_document())
    poll: dict[str, Any] | None = Field(default=None, sa_column=json_document())
    cursor: Any = Field(default=None, sa_column=json_document())
    primed: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    last_run_at: datetime | None = Field(default=None, sa_column=timestamp(nullable=True))
    last_error: str | None = None
    last_error_at: datetime | None = Field(default=None, sa_column=timestamp(nullable=True))
    failures: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    synced: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    sync_error: str | None = None
    created_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    updated_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True, touch=True))


class PollItem(SQLModel, table=True):
    """An item that a poll has seen, so that it is no event again: longer than the inbox keeps events."""

    __tablename__ = "poll_item"

    schedule_id: UUID = Field(foreign_key="schedule_trigger.id", ondelete="CASCADE", primary_key=True)
    item: str = Field(primary_key=True, max_length=500)
    seen_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
