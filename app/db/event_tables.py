"""The tables of what comes in: events, what they start, and what listens to them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel, UniqueConstraint

from app.db.columns import json_document, one_of, reference, timestamp
from app.db.statuses import (
    DeliveryKind,
    DeliveryStatus,
    EventSource,
    EventStatus,
    SubscriptionMode,
    SubscriptionStatus,
    TriggerCategory,
)
from app.db.tables import new_id


class TriggerEvent(SQLModel, table=True):
    """Something that happened, as it came; kept before it is acknowledged, once for each key of its source.

    `payload` is the event's own. Where it asks for a start outright (a service request, a schedule of a template, a
    start by hand) it has `{context, name?, version?}`, and `template_id` names the template unless a link does.
    A PENDING one is looked at by the dispatcher when it is due; `matched_at` is when its targets were found.
    """

    __tablename__ = "trigger_event"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (
        UniqueConstraint("source", "dedupe_key"),
        one_of("source", EventSource),
        one_of("status", EventStatus),
        Index("ix_trigger_event_received_at_id", "received_at", "id"),
        Index("ix_trigger_event_due", "due_at", postgresql_where=text("status = 'PENDING'")),
        Index("ix_trigger_event_entity", "entity_type", "entity_id"),
        Index("ix_trigger_event_trigger_key_received_at", "trigger_key", "received_at"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    source: str = Field(max_length=30)
    trigger_key: str = Field(max_length=200)
    dedupe_key: str = Field(max_length=500)
    request_hash: str = Field(max_length=64)
    summary: str = Field(max_length=400)
    payload: Any = Field(sa_column=Column(JSONB, nullable=False))
    headers: dict[str, Any] | None = Field(default=None, sa_column=json_document())
    entity_type: str | None = Field(default=None, max_length=30)
    entity_id: str | None = Field(default=None, max_length=200)
    template_id: UUID | None = Field(
        default=None, sa_column=reference("workflow_template.id", nullable=True, ondelete="SET NULL", index=False)
    )
    status: str = Field(default=EventStatus.PENDING, max_length=20)
    due_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    matched_at: datetime | None = Field(default=None, sa_column=timestamp(nullable=True))
    times: int = Field(default=1, sa_column_kwargs={"server_default": text("1")})
    received_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    last_received_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))


class TriggerDelivery(SQLModel, table=True):
    """What became of an event at one of its targets: `link`, `template`, or `subscription:<id>`.

    It is PENDING until the target has been started or signalled, or has refused (`code` and `message` say why, also
    why it still waits).
    """

    __tablename__ = "trigger_delivery"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (
        UniqueConstraint("event_id", "target"),
        one_of("kind", DeliveryKind),
        one_of("status", DeliveryStatus),
        Index(
            "ix_trigger_delivery_correlation",
            "template_id",
            "correlation_key",
            postgresql_where=text("correlation_key IS NOT NULL"),
        ),
        Index(
            "ix_trigger_delivery_subscription",
            "subscription_id",
            "created_at",
            postgresql_where=text("subscription_id IS NOT NULL"),
        ),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    event_id: UUID = Field(sa_column=reference("trigger_event.id", index=False))
    target: str = Field(max_length=100)
    kind: str = Field(default=DeliveryKind.START, max_length=20)
    template_id: UUID | None = Field(
        default=None, sa_column=reference("workflow_template.id", nullable=True, ondelete="SET NULL", index=False)
    )
    subscription_id: UUID | None = Field(
        default=None, sa_column=reference("subscription.id", nullable=True, ondelete="SET NULL", index=False)
    )
    execution_id: UUID | None = Field(
        default=None, sa_column=reference("workflow_execution.id", nullable=True, ondelete="SET NULL")
    )
    correlation_key: str | None = Field(default=None, max_length=400)
    status: str = Field(default=DeliveryStatus.PENDING, max_length=20)
    code: str | None = Field(default=None, max_length=200)
    message: str | None = None
    attempts: int = Field(default=1, sa_column_kwargs={"server_default": text("1")})
    due_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    created_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    updated_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True, touch=True))


class TriggerDefinition(SQLModel, table=True):
    """An entry of the trigger registry: a kind of event that templates can subscribe to, under a key.

    `properties` is a form of what a subscription may be given; `variables` lists `{path, type, description?}` of the
    payload. Entries that Millrace brings are `built_in`.
    """

    __tablename__ = "trigger_definition"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (one_of("category", TriggerCategory), one_of("source", EventSource))

    id: UUID = Field(default_factory=new_id, primary_key=True)
    key: str = Field(unique=True, max_length=200)
    name: str = Field(max_length=200)
    description: str | None = None
    category: str = Field(max_length=20)
    source: str = Field(max_length=30)
    properties: list[dict[str, Any]] = Field(
        default_factory=list, sa_column=Column(JSONB, nullable=False, server_default=text("'[]'"))
    )
    sample_payload: Any = Field(default=None, sa_column=json_document())
    variables: list[dict[str, Any]] = Field(
        default_factory=list, sa_column=Column(JSONB, nullable=False, server_default=text("'[]'"))
    )
    built_in: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    created_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    updated_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True, touch=True))


class Subscription(SQLModel, table=True):
    """A template that listens to a trigger, as long as it is ACTIVE.

    `filter` decides which events, `properties` are the trigger's own options. `context`, `name` and `correlation_key`
    are values over the payload (`__trigger__`); without `context` the payload is the context. With the mode RESUME an
    event is handed to executions as the signal `signal`, with START_OR_RESUME it starts one where there is none.
    """

    __tablename__ = "subscription"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (
        one_of("status", SubscriptionStatus),
        one_of("mode", SubscriptionMode),
        Index("ix_subscription_active", "trigger_key", postgresql_where=text("status = 'ACTIVE'")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    template_id: UUID = Field(sa_column=reference("workflow_template.id"))
    trigger_id: UUID = Field(sa_column=reference("trigger_definition.id", ondelete="RESTRICT"))
    trigger_key: str = Field(max_length=200)
    description: str | None = None
    status: str = Field(default=SubscriptionStatus.ACTIVE, max_length=20)
    mode: str = Field(default=SubscriptionMode.START, max_length=20)
    filter: dict[str, Any] | None = Field(default=None, sa_column=json_document())
    properties: dict[str, Any] = Field(
        default_factory=dict, sa_column=Column(JSONB, nullable=False, server_default=text("'{}'"))
    )
    context: Any = Field(default=None, sa_column=json_document())
    name: Any = Field(default=None, sa_column=json_document())
    signal: str | None = Field(default=None, max_length=200)
    correlation_key: Any = Field(default=None, sa_column=json_document())
    created_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    updated_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True, touch=True))
