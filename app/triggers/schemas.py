"""Triggers on the wire."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from app.db.tables import RecordStatus
from app.executions.schemas import ReadingProblem
from app.wire import Given, JsonObject, Name, Taken


class TriggerRequest(Taken):
    """Something happened. `eventId` makes repetitions of the same event one; `entityId` finds the link."""

    event_id: str = Field(min_length=1, max_length=400)
    entity_id: str = Field(min_length=1, max_length=200)
    context: JsonObject = {}
    name: Name | None = None


class TriggerView(Given):
    """Whether the entity is linked to a template, and the execution that the event got.

    `eventRecordId` is the event in the inbox. A QUEUED one has no execution yet, and `problem` says what it waits for;
    otherwise `problem` is WORKER_UNAVAILABLE when no worker polled a moment ago, so
    that the run will have to wait for one.
    """

    event_record_id: UUID
    matched: bool
    execution_id: UUID | None = None
    status: RecordStatus | Literal["QUEUED"] | None = None
    status_reason: str | None = None
    problem: ReadingProblem | None = None
