"""Watched tables on the wire."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, StringConstraints

from app.changes.row_changes import Operation
from app.db.event_tables import ChangeSource
from app.db.statuses import BeforeImage, ChangeMethod, ChangeSourceStatus, EntityType
from app.settings import OWN_CONNECTION
from app.wire import Given, JsonObject, Taken

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=63)]


class WatchRequest(Taken):
    """The table to watch, and which of its changes are events."""

    connection: str = Field(
        default=OWN_CONNECTION,
        min_length=1,
        max_length=40,
        description="a configured database; `millrace` is its own. With POSTED any name of where they come from",
    )
    schema_name: Identifier = Field(default="public", alias="schema")
    table: Identifier
    method: ChangeMethod = ChangeMethod.REPLICATION
    operations: list[Operation] = Field(default_factory=lambda: list(Operation), min_length=1, max_length=3)
    monitored_columns: list[Identifier] = Field(
        default_factory=list, max_length=200, description="an UPDATE counts only if it changed one of them"
    )
    status_column: Identifier | None = Field(
        default=None, description="only UPDATEs that changed this column count, and nothing else"
    )
    filter: JsonObject | None = Field(default=None, description="a filter over the payload: `after`, `before` …")
    entity_type: EntityType | None = None
    entity_column: Identifier | None = Field(default=None, description="the column that holds the entity's id")
    whole_before: bool = Field(
        default=True,
        description="let the database log old rows whole (REPLICA IDENTITY FULL); else `before` is the key alone",
    )


class ChangeSourceView(Given):
    """A watched table. `code` and `message` say why it is FAILED, or what is amiss.

    `lagBytes` is what the server keeps on disk for it, measured every minute and when one source is read.
    """

    id: UUID
    key: str
    connection: str
    schema_name: str = Field(alias="schema")
    table: str
    method: ChangeMethod
    operations: list[str]
    monitored_columns: list[str]
    status_column: str | None
    filter: dict[str, Any] | None
    entity_type: EntityType | None
    entity_column: str | None
    before_image: BeforeImage
    status: ChangeSourceStatus
    code: str | None
    message: str | None
    slot: str | None
    publication: str | None
    checkpoint: str | None
    lag_bytes: int | None
    changes_seen: int
    events_stored: int
    last_change_at: datetime | None
    created_at: datetime
    updated_at: datetime


class ChangeSourceDetail(ChangeSourceView):
    """With what the user's database says just now; `unreachable` says why it says nothing.

    `lagBytes` is what the server keeps on disk, `unreadBytes` what was not read yet, `waitingChanges` what waits in
    the outbox.
    """

    unread_bytes: int | None = None
    waiting_changes: int | None = None
    unreachable: str | None = None


class PostedView(Given):
    """What became of the changes in a request; `repeated` ones were there before, `skipped` ones are no events."""

    stored: int
    repeated: int
    skipped: int
    event_record_ids: list[UUID]


def source_view(source: ChangeSource) -> ChangeSourceView:
    """A source as it is shown in lists."""
    return ChangeSourceView(**_shown(source))


def source_detail(source: ChangeSource) -> ChangeSourceDetail:
    """A source as it is shown by itself, still without what its database says."""
    return ChangeSourceDetail(**_shown(source))


def _shown(source: ChangeSource) -> dict[str, Any]:
    hidden = {"trigger_id", "key_columns", "identity_before", "table_schema", "table_name"}
    return source.model_dump(exclude=hidden) | {"schema": source.table_schema, "table": source.table_name}
