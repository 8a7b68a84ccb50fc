"""The tables. Nothing else in the project declares one."""

import builtins
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import uuid_utils
from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    String,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel


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


class EntityType(StrEnum):
    """What a template can be linked to."""

    SERVICE_CATALOG = "SERVICE_CATALOG"
    PRODUCT = "PRODUCT"


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


def _one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    allowed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({allowed})", name=f"{column}_known")


def _timestamp(*, nullable: bool, now: bool = False, touch: bool = False) -> Any:
    return Column(
        DateTime(timezone=True),
        nullable=nullable,
        server_default=func.now() if now else None,
        onupdate=func.now() if touch else None,
    )


def _reference(target: str, *, nullable: bool = False, ondelete: str = "CASCADE", index: bool = True) -> Any:
    return Column(Uuid(), ForeignKey(target, ondelete=ondelete), nullable=nullable, index=index)


SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class WorkflowTemplate(SQLModel, table=True):
    """A named, reusable process."""

    __tablename__ = "workflow_template"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (
        _one_of("status", TemplateStatus),
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
    active_version_id: UUID | None = Field(default=None, sa_column=Column(Uuid(), unique=True, nullable=True))
    created_at: datetime = Field(default=None, sa_column=_timestamp(nullable=False, now=True))
    updated_at: datetime = Field(default=None, sa_column=_timestamp(nullable=False, now=True, touch=True))


class WorkflowTemplateVersion(SQLModel, table=True):
    """One definition of a template. A database trigger keeps what is published as it is."""

    __tablename__ = "workflow_template_version"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (
        UniqueConstraint("template_id", "version"),
        # What the template's reference to its active version points at: the version must be its own.
        UniqueConstraint("template_id", "id"),
        _one_of("status", VersionStatus),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    template_id: UUID = Field(sa_column=_reference("workflow_template.id", index=False))
    version: str = Field(max_length=50)
    version_note: str | None = None
    definition: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    definition_hash: str = Field(max_length=64)
    status: str = Field(default=VersionStatus.DRAFT, max_length=20)
    published_at: datetime | None = Field(default=None, sa_column=_timestamp(nullable=True))
    created_at: datetime = Field(default=None, sa_column=_timestamp(nullable=False, now=True))
    updated_at: datetime = Field(default=None, sa_column=_timestamp(nullable=False, now=True, touch=True))


class WorkflowTemplateLink(SQLModel, table=True):
    """Which template a service or a product starts; one for each entity."""

    __tablename__ = "workflow_template_link"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (UniqueConstraint("entity_type", "entity_id"), _one_of("entity_type", EntityType))

    id: UUID = Field(default_factory=new_id, primary_key=True)
    template_id: UUID = Field(sa_column=_reference("workflow_template.id"))
    entity_type: str = Field(max_length=30)
    entity_id: str = Field(max_length=200)
    created_at: datetime = Field(default=None, sa_column=_timestamp(nullable=False, now=True))
    updated_at: datetime = Field(default=None, sa_column=_timestamp(nullable=False, now=True, touch=True))


class WorkflowExecution(SQLModel, table=True):
    """One run of a version: who started it with what, and its lifecycle. Never its steps.

    A root's `root_id` is its own id. `trigger` is `{source, eventId, entityType, entityId, …}`.
    """

    __tablename__ = "workflow_execution"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (
        UniqueConstraint("template_id", "idempotency_key"),
        _one_of("status", RecordStatus),
        _one_of("closed_as", ClosedAs),
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
    version_id: UUID = Field(sa_column=_reference("workflow_template_version.id", ondelete="RESTRICT"))
    template_id: UUID = Field(sa_column=_reference("workflow_template.id", ondelete="RESTRICT", index=False))
    parent_id: UUID | None = Field(default=None, sa_column=_reference("workflow_execution.id", nullable=True))
    root_id: UUID = Field(sa_column=_reference("workflow_execution.id"))
    context: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    trigger: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB(none_as_null=True), nullable=True))
    status: str = Field(default=RecordStatus.CREATED, max_length=20)
    status_reason: str | None = None
    idempotency_key: str | None = Field(default=None, max_length=500)
    request_hash: str | None = Field(default=None, max_length=64)
    started_at: datetime | None = Field(default=None, sa_column=_timestamp(nullable=True))
    ended_at: datetime | None = Field(default=None, sa_column=_timestamp(nullable=True))
    closed_as: str | None = Field(default=None, max_length=20)
    created_at: datetime = Field(default=None, sa_column=_timestamp(nullable=False, now=True))
    updated_at: datetime = Field(default=None, sa_column=_timestamp(nullable=False, now=True, touch=True))


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
    created_at: datetime = Field(default=None, sa_column=_timestamp(nullable=False, now=True))
    updated_at: datetime = Field(default=None, sa_column=_timestamp(nullable=False, now=True, touch=True))


class PayloadBlob(SQLModel, table=True):
    """A value that is kept outside Temporal's histories: a serialized payload, under the SHA-256 of its bytes.

    `last_used_at` is when a process last wrote a reference to it, to the hour.
    """

    __tablename__ = "payload_blob"
    __table_args__ = (Index("ix_payload_blob_last_used_at", "last_used_at"),)

    sha256: str = Field(primary_key=True, max_length=64)
    bytes: builtins.bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    size: int
    created_at: datetime = Field(default=None, sa_column=_timestamp(nullable=False, now=True))
    last_used_at: datetime = Field(default=None, sa_column=_timestamp(nullable=False, now=True))
