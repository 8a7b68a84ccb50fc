"""The tables of what comes in: events, what they start, and what listens to them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel, UniqueConstraint

from app.contracts import LONGEST_CORRELATION_KEY, LONGEST_SIGNAL
from app.db.columns import json_document, one_of, reference, timestamp
from app.db.statuses import (
    BeforeImage,
    ChangeMethod,
    ChangeSourceStatus,
    DeliveryKind,
    DeliveryStatus,
    EventSource,
    EventStatus,
    SubscriptionMode,
    SubscriptionStatus,
    TriggerCategory,
    WebhookResponse,
    WebhookScheme,
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
        Index("ix_trigger_event_due", "trigger_key", "due_at", "id", postgresql_where=text("status = 'PENDING'")),
        Index("ix_trigger_event_entity", "entity_type", "entity_id"),
        Index("ix_trigger_event_trigger_key_id", "trigger_key", "id"),
        # The events of one schedule: their keys begin with its id.
        Index(
            "ix_trigger_event_by_clock",
            "dedupe_key",
            postgresql_ops={"dedupe_key": "text_pattern_ops"},
            postgresql_where=text("source IN ('schedule', 'poll')"),
        ),
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
    why it still waits). `wait_id` is the `SignalWait` that it was given to, which may have gone or be another's since.
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
        # The queue of each template, the oldest first.
        Index(
            "ix_trigger_delivery_queued",
            "template_id",
            "event_id",
            postgresql_where=text(
                "status = 'PENDING' AND code IN ('TEMPLATE_PAUSED', 'RATE_LIMITED', 'CONCURRENCY_LIMITED')"
            ),
        ),
        Index("ix_trigger_delivery_wait_id", "wait_id", postgresql_where=text("wait_id IS NOT NULL")),
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
    wait_id: UUID | None = None
    correlation_key: str | None = Field(default=None, max_length=400)
    status: str = Field(default=DeliveryStatus.PENDING, max_length=20)
    code: str | None = Field(default=None, max_length=200)
    message: str | None = None
    attempts: int = Field(default=1, sa_column_kwargs={"server_default": text("1")})
    due_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    created_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    updated_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True, touch=True))


class SignalWait(SQLModel, table=True):
    """A step of a run that waits for a signal under a correlation key; the last wait under each key of the run.

    `id` is the wait's own: the step's next one has another. `recorded_at` is the run's own time of what was applied
    last: an older record changes nothing.
    """

    __tablename__ = "signal_wait"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (
        UniqueConstraint("execution_id", "key"),
        Index(
            "ix_signal_wait_open", "signal", "correlation_key", "opened_at", postgresql_where=text("closed_at IS NULL")
        ),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    execution_id: UUID = Field(sa_column=reference("workflow_execution.id", index=False))
    key: str = Field(max_length=500)
    signal: str = Field(max_length=LONGEST_SIGNAL)
    correlation_key: str = Field(max_length=LONGEST_CORRELATION_KEY)
    opened_at: datetime = Field(sa_column=timestamp(nullable=False))
    closed_at: datetime | None = Field(default=None, sa_column=timestamp(nullable=True))
    recorded_at: datetime = Field(sa_column=timestamp(nullable=False))


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


class WebhookEndpoint(SQLModel, table=True):
    """An address at which webhooks come in as events of `trigger_key`, or of `template_id` outright.

    `shape` is the path with `*` for every parameter; `segments`, `wild` and `open_ended` narrow the search for a path.
    The secrets are encrypted; the previous one is good until `previous_secret_until`. `required_headers` maps names to
    values, or to null. `allowance` says until when the rate limit's allowance is used up.
    """

    __tablename__ = "webhook_endpoint"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (
        one_of("scheme", WebhookScheme),
        one_of("response_mode", WebhookResponse),
        Index("ix_webhook_endpoint_wild", "segments", postgresql_where=text("wild")),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    name: str = Field(max_length=200)
    description: str | None = None
    path: str = Field(max_length=500)
    shape: str = Field(unique=True, max_length=500)
    segments: int
    wild: bool
    open_ended: bool
    methods: list[str] = Field(sa_column=Column(JSONB, nullable=False))
    required_headers: dict[str, str | None] = Field(sa_column=Column(JSONB, nullable=False))
    max_bytes: int
    response_mode: str = Field(default=WebhookResponse.ASYNC, max_length=20)
    response: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    scheme: str = Field(max_length=20)
    verification: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    secret: str | None = None
    previous_secret: str | None = None
    previous_secret_until: datetime | None = Field(default=None, sa_column=timestamp(nullable=True))
    trigger_key: str = Field(max_length=200, index=True)
    template_id: UUID | None = Field(default=None, sa_column=reference("workflow_template.id", nullable=True))
    dedupe: Any = Field(default=None, sa_column=json_document())
    rate_limit: dict[str, Any] | None = Field(default=None, sa_column=json_document())
    allowance: datetime | None = Field(default=None, sa_column=timestamp(nullable=True))
    enabled: bool = True
    created_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    updated_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True, touch=True))


class WebhookTally(SQLModel, table=True):
    """How often an endpoint did something with what came in: ACCEPTED, REPEATED, or why it was refused."""

    __tablename__ = "webhook_tally"

    endpoint_id: UUID = Field(
        sa_column=Column(ForeignKey("webhook_endpoint.id", ondelete="CASCADE"), primary_key=True, nullable=False)
    )
    result: str = Field(max_length=100, primary_key=True)
    count: int = Field(sa_type=BigInteger)
    last_at: datetime = Field(sa_column=timestamp(nullable=False))


class ChangeSource(SQLModel, table=True):
    """A table whose changes are events, under the key of a registry entry of its own.

    With REPLICATION `slot` is where the changes wait and `publication` what puts them there; sources of a connection
    share both, except for the slot of one that was paused. `checkpoint` is the log position up to which everything is
    stored. `identity_before` is what the table's replica identity was before Millrace set it.
    `code` and `message` say why it is FAILED, or what is amiss while it is ACTIVE or PAUSED.
    """

    __tablename__ = "change_source"
    __mapper_args__ = {"eager_defaults": True}
    __table_args__ = (
        UniqueConstraint("connection", "table_schema", "table_name"),
        one_of("method", ChangeMethod),
        one_of("status", ChangeSourceStatus),
        one_of("before_image", BeforeImage),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    key: str = Field(unique=True, max_length=200)
    trigger_id: UUID = Field(sa_column=reference("trigger_definition.id", ondelete="RESTRICT"))
    connection: str = Field(max_length=40)
    table_schema: str = Field(max_length=63)
    table_name: str = Field(max_length=63)
    method: str = Field(max_length=20)
    operations: list[str] = Field(sa_column=Column(JSONB, nullable=False))
    monitored_columns: list[str] = Field(
        default_factory=list, sa_column=Column(JSONB, nullable=False, server_default=text("'[]'"))
    )
    status_column: str | None = Field(default=None, max_length=63)
    filter: dict[str, Any] | None = Field(default=None, sa_column=json_document())
    entity_type: str | None = Field(default=None, max_length=30)
    entity_column: str | None = Field(default=None, max_length=63)
    key_columns: list[str] = Field(
        default_factory=list, sa_column=Column(JSONB, nullable=False, server_default=text("'[]'"))
    )
    before_image: str = Field(max_length=20)
    identity_before: str | None = Field(default=None, max_length=200)
    slot: str | None = Field(default=None, max_length=63)
    publication: str | None = Field(default=None, max_length=63)
    checkpoint: str | None = Field(default=None, max_length=20)
    status: str = Field(max_length=20)
    code: str | None = Field(default=None, max_length=200)
    message: str | None = None
    lag_bytes: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    changes_seen: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default=text("0")))
    events_stored: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default=text("0")))
    last_change_at: datetime | None = Field(default=None, sa_column=timestamp(nullable=True))
    created_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True))
    updated_at: datetime = Field(default=None, sa_column=timestamp(nullable=False, now=True, touch=True))
