"""The tables. Nothing else in the project declares one."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import uuid_utils
from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    String,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from app.db.columns import OPEN_KEY, OPEN_KEYS, json_document, one_of, reference, timestamp
from app.db.statuses import AtRest, EntityType, LineageKind, LineageStatus, Resolution, TaskStatus


def new_id() -> UUID:
    """A UUIDv7: unique, and in the order of creation."""
    return UUID(bytes=uuid_utils.uuid7().bytes)


class TemplateStatus(StrEnum):
    """A template's life."""

    DRAFT = "DRAFT"
    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    ARCHIVED = "ARCHIVED"


class VersionStatus(StrEnum):
    """A version's life; only a DRAFT can be edited."""

    DRAFT = "DRAFT"
    PUBLISHED = "PUBLISHED"
    DEPRECATED = "DEPRECATED"


class RecordStatus(StrEnum):
    """The life of an execution's row; what the run is doing lives in Temporal."""

    CREATED = "CREATED"
    STARTED = "STARTED"
    FAILED_TO_START = "FAILED_TO_START"
    COMPLETED = "COMPLETED"


class ClosedAs(StrEnum):
    """How a closed run ended, kept because Temporal forgets."""

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TERMINATED = "TERMINATED"
    TIMED_OUT = "TIMED_OUT"


SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class WorkflowTemplate(SQLModel, table=True):
    """A named, reusable process. `when_paused` is what becomes of what would start it meanwhile.

    `limits` are those of its roots: `{starts_per_minute?, open_executions?, when_full?}`.
    """

    __tablename__ = "workflow_template"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (
        one_of("status", TemplateStatus),
        one_of("when_paused", AtRest),
        ForeignKeyConstraint(
            ["id", "active_version_id"],
            ["workflow_template_version.template_id", "workflow_template_version.id"],
            name="fk_workflow_template_active_version",
            use_alter=True,
        ),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    slug: str = Field(unique=True, max_length=100)
    name: str = Field(max_length=200)
    description: str | None = None
    segment: str | None = Field(default=None, max_length=50)
    category: str | None = Field(default=None, max_length=100)
    tags: list[str] = Field(
        default_factory=list, sa_column=Column(ARRAY(String), nullable=False, server_default=text("'{}'"))
    )
    pinned: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    is_gallery: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    status: str = Field(default=TemplateStatus.DRAFT, max_length=20)
    when_paused: str = Field(
        default=AtRest.REFUSE, max_length=20, sa_column_kwargs={"server_default": text("'REFUSE'")}
    )
    limits: dict[str, Any] | None = Field(default=None, sa_column=json_document())
    active_version_id: UUID | None = Field(default=None, sa_column=Column(Uuid(), unique=True, nullable=True))
    created_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    updated_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True, touch=True))


class WorkflowTemplateVersion(SQLModel, table=True):
    """One definition of a template. A database trigger keeps what is published as it is."""

    __tablename__ = "workflow_template_version"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (
        UniqueConstraint("template_id", "version"),
        # What the template's reference to its active version points at: the version must be its own.
        UniqueConstraint("template_id", "id"),
        one_of("status", VersionStatus),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    template_id: UUID = Field(sa_column=reference("workflow_template.id", index=False))
    version: str = Field(max_length=50)
    version_note: str | None = None
    definition: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    definition_hash: str = Field(max_length=64)
    status: str = Field(default=VersionStatus.DRAFT, max_length=20)
    published_at: datetime | None = Field(default=None, sa_column=timestamp(nullable=True))
    created_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    updated_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True, touch=True))


class WorkflowTemplateLink(SQLModel, table=True):
    """Which template a service or a product starts; one for each entity."""

    __tablename__ = "workflow_template_link"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (UniqueConstraint("entity_type", "entity_id"), one_of("entity_type", EntityType))

    id: UUID = Field(default_factory=new_id, primary_key=True)
    template_id: UUID = Field(sa_column=reference("workflow_template.id"))
    entity_type: str = Field(max_length=30)
    entity_id: str = Field(max_length=200)
    created_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    updated_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True, touch=True))


class WorkflowExecution(SQLModel, table=True):
    """One run of a version: who started it with what, and its lifecycle. Never its steps.

    A root's `root_id` is its own id; the parent of a `detached` child does not wait for it. `trigger` is
    `{source, eventId, entityType, entityId, …}`.
    """

    __tablename__ = "workflow_execution"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (
        UniqueConstraint("template_id", "idempotency_key"),
        one_of("status", RecordStatus),
        one_of("closed_as", ClosedAs),
        CheckConstraint(
            "num_nulls(closed_as, ended_at) = CASE status WHEN 'COMPLETED' THEN 0 ELSE 2 END",
            name="closed_whole",
        ),
        CheckConstraint("parent_id IS NOT NULL OR root_id = id", name="root_of_itself"),
        Index("ix_workflow_execution_created_at_id", "created_at", "id"),
        Index("ix_workflow_execution_template_id_created_at_id", "template_id", "created_at", "id"),
        Index("ix_workflow_execution_open", "id", postgresql_where=text("status IN ('CREATED', 'STARTED')")),
        Index(
            "ix_workflow_execution_left_created",
            "created_at",
            postgresql_where=text("status = 'CREATED' AND parent_id IS NULL"),
        ),
        Index(
            "ix_workflow_execution_cancel_unconfirmed",
            "id",
            postgresql_where=text("status_reason = 'CANCEL_UNCONFIRMED'"),
        ),
        Index("ix_workflow_execution_closed_as", "closed_as", "id"),
        Index("ix_workflow_execution_entity", text("(trigger->>'entityType')"), text("(trigger->>'entityId')")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    name: str = Field(max_length=500)
    version_id: UUID = Field(sa_column=reference("workflow_template_version.id", ondelete="RESTRICT"))
    template_id: UUID = Field(sa_column=reference("workflow_template.id", ondelete="RESTRICT", index=False))
    parent_id: UUID | None = Field(default=None, sa_column=reference("workflow_execution.id", nullable=True))
    root_id: UUID = Field(sa_column=reference("workflow_execution.id"))
    detached: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    context: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    trigger: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB(none_as_null=True), nullable=True))
    status: str = Field(default=RecordStatus.CREATED, max_length=20)
    status_reason: str | None = None
    idempotency_key: str | None = Field(default=None, max_length=500)
    request_hash: str | None = Field(default=None, max_length=64)
    started_at: datetime | None = Field(default=None, sa_column=timestamp(nullable=True))
    ended_at: datetime | None = Field(default=None, sa_column=timestamp(nullable=True))
    closed_as: str | None = Field(default=None, max_length=20)
    created_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    updated_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True, touch=True))


class Action(SQLModel, table=True):
    """What workers can run; upserted by each worker when it starts. The catalogue for validation."""

    __tablename__ = "action"
    __mapper_args__ = {"eager_defaults": True}

    id: UUID = Field(default_factory=new_id, primary_key=True)
    key: str = Field(unique=True, max_length=200)
    version: str = Field(max_length=50)
    description: str | None = None
    parameters_schema: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    output_schema: dict[str, Any] | None = Field(
        default=None, sa_column=Column(JSONB(none_as_null=True), nullable=True)
    )
    policies: dict[str, Any] = Field(
        default_factory=dict, sa_column=Column(JSONB, nullable=False, server_default=text("'{}'"))
    )
    created_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    updated_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True, touch=True))


class HumanTask(SQLModel, table=True):
    """A step that waits for a person. The run writes when it opens and closes, people write claims and drafts.

    `recorded_at` is the run's own time of what was applied last: an older record changes nothing.
    """

    __tablename__ = "human_task"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (
        UniqueConstraint("execution_id", "key"),
        one_of("status", TaskStatus),
        Index("ix_human_task_open", "execution_id", postgresql_where=text("status IN ('OPEN', 'CLAIMED')")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    execution_id: UUID = Field(sa_column=reference("workflow_execution.id", index=False))
    key: str = Field(max_length=500)
    step_id: str = Field(max_length=200)
    visit: int
    item: int | None = None
    name: str | None = None
    type: str | None = Field(default=None, max_length=50)
    status: str = Field(max_length=20)
    assignee: str | None = None
    candidate_groups: list[str] = Field(
        default_factory=list, sa_column=Column(ARRAY(String), nullable=False, server_default=text("'{}'"))
    )
    due_at: datetime | None = Field(default=None, sa_column=timestamp(nullable=True))
    form: dict[str, Any] | None = Field(default=None, sa_column=json_document())
    outcome: Any = Field(default=None, sa_column=json_document())
    opened_at: datetime = Field(sa_column=timestamp(nullable=False))
    closed_at: datetime | None = Field(default=None, sa_column=timestamp(nullable=True))
    recorded_at: datetime = Field(sa_column=timestamp(nullable=False))
    claimed_by: str | None = None
    draft: dict[str, Any] | None = Field(default=None, sa_column=json_document())
    created_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    updated_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True, touch=True))


class Incident(SQLModel, table=True):
    """A step that failed for good and is parked; one row for each time that it was parked."""

    __tablename__ = "incident"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (
        UniqueConstraint("execution_id", "key", "opened_at"),
        one_of("resolution", Resolution),
        CheckConstraint("(resolution IS NULL) = (resolved_at IS NULL)", name="resolved_whole"),
        Index("ix_incident_open", "id", postgresql_where=text("resolved_at IS NULL")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    execution_id: UUID = Field(sa_column=reference("workflow_execution.id", index=False))
    key: str = Field(max_length=500)
    step_id: str = Field(max_length=200)
    visit: int
    item: int | None = None
    code: str = Field(max_length=200)
    message: str
    opened_at: datetime = Field(sa_column=timestamp(nullable=False))
    resolved_at: datetime | None = Field(default=None, sa_column=timestamp(nullable=True))
    resolution: str | None = Field(default=None, max_length=20)
    actor: str | None = None


class DeadLetter(SQLModel, table=True):
    """A run that failed for good, with the state to retry it from.

    The state is `json`, not `jsonb`: a retry needs it to the letter, with the order of members and with characters
    that `jsonb` cannot hold. It is JSON's null where nobody could be asked for it; a retry asks again.
    """

    __tablename__ = "dead_letter"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (Index("ix_dead_letter_created_at_id", "created_at", "id"),)

    id: UUID = Field(default_factory=new_id, primary_key=True)
    execution_id: UUID = Field(
        sa_column=Column(Uuid(), ForeignKey("workflow_execution.id", ondelete="CASCADE"), unique=True, nullable=False)
    )
    step_id: str | None = Field(default=None, max_length=200)
    code: str = Field(max_length=200)
    message: str
    attempts: int = 1
    failed_execution_id: UUID | None = None
    state: dict[str, Any] | None = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    retried_at: datetime | None = Field(default=None, sa_column=timestamp(nullable=True))


class ExecutionLineage(SQLModel, table=True):
    """What an execution's runs came from: retried, resumed, migrated, or the replay of another execution.

    A PENDING one carries all that is needed to do it (`state` for a new run, `mapping` for a migration), and how the
    row was closed before (`closed_as`, `ended_at`, `status_reason`), should it be refused.
    """

    __tablename__ = "execution_lineage"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (
        UniqueConstraint("execution_id", "idempotency_key"),
        one_of("kind", LineageKind),
        one_of("status", LineageStatus),
        Index("ix_execution_lineage_pending", "id", postgresql_where=text("status = 'PENDING'")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    execution_id: UUID = Field(sa_column=reference("workflow_execution.id", index=False))
    kind: str = Field(max_length=20)
    status: str = Field(max_length=20)
    at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    actor: str | None = None
    note: str | None = None
    previous_run_id: str | None = Field(default=None, max_length=100)
    run_id: str | None = Field(default=None, max_length=100)
    source_id: UUID | None = None
    step_id: str | None = Field(default=None, max_length=200)
    visit: int | None = None
    item: int | None = None
    from_version_id: UUID | None = None
    to_version_id: UUID | None = None
    mapping: dict[str, Any] | None = Field(default=None, sa_column=json_document())
    closed_as: str | None = Field(default=None, max_length=20)
    ended_at: datetime | None = Field(default=None, sa_column=timestamp(nullable=True))
    status_reason: str | None = None
    idempotency_key: str | None = Field(default=None, max_length=500)
    state: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))


class AuditEvent(SQLModel, table=True):
    """Who did what to what, with which result. It outlives what it is about, so it refers to nothing."""

    __tablename__ = "audit_event"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (
        Index("ix_audit_event_execution_id_id", "execution_id", "id"),
        Index("ix_audit_event_actor_id", "actor", "id"),
        Index("ix_audit_event_action_id", "action", "id"),
        Index("ix_audit_event_at", "at"),
        Index(
            "ix_audit_event_key",
            "execution_id",
            "idempotency_key",
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        Index(
            "uq_audit_event_open_key",
            *OPEN_KEY,
            unique=True,
            postgresql_where=text(OPEN_KEYS),
        ),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    actor: str | None = None
    action: str = Field(max_length=60)
    entity_kind: str = Field(max_length=40)
    entity_id: str | None = Field(default=None, max_length=200)
    execution_id: UUID | None = None
    request: dict[str, Any] | None = Field(default=None, sa_column=json_document())
    before: dict[str, Any] | None = Field(default=None, sa_column=json_document())
    after: dict[str, Any] | None = Field(default=None, sa_column=json_document())
    result: str = Field(max_length=100)
    reason: str | None = None
    idempotency_key: str | None = None
