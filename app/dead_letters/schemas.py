"""Dead letters on the wire."""

from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from app.dead_letters.queries import DeadLetterRow
from app.wire import Given, Moment, Taken


class DeadLetterView(Given):
    """A run that failed for good; `retriedAt` says when it was retried, and is null again when that failed too."""

    id: UUID
    execution_id: UUID
    name: str
    template: str
    version: str
    step_id: str | None
    code: str
    message: str
    attempts: int
    failed_execution_id: UUID | None
    created_at: datetime
    retried_at: datetime | None


class DeadLetterDetail(DeadLetterView):
    """With the state that a retry goes on from, where it was asked for."""

    state: dict[str, Any] | None = None


class PurgeRequest(Taken):
    """Which dead letters go: those created before a time, of these executions if any are named."""

    created_before: Moment | None = None
    execution_ids: list[UUID] | None = Field(default=None, min_length=1, max_length=1_000)
    dry_run: bool = False
    reason: str | None = Field(default=None, max_length=1_000)


class PurgeView(Given):
    """How many dead letters went, or would go."""

    purged: int
    dry_run: bool


def dead_letter_view(row: DeadLetterRow) -> DeadLetterView:
    """A dead letter as it is shown in lists."""
    return DeadLetterView(**asdict(row))
