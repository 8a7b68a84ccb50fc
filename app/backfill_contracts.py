"""What the API, the workflow of a backfill and its activity agree on."""

from typing import Literal
from uuid import UUID

from app.contracts import Contract

BACKFILL_WORKFLOW = "millrace.backfill"

# The signal that says: look at the backfill's row again.
BACKFILL_CHANGED = "millrace.backfill_changed"

# Of one call of the activity: what it takes is bounded, and so is what a kill makes it do again.
MOST_ROWS = 100


def backfill_workflow_id(backfill_id: UUID | str) -> str:
    """The Temporal workflow id of a backfill."""
    return f"backfill/{backfill_id}"


class BackfillRun(Contract):
    """The argument of a backfill's workflow; `rate` is starts a second, None sets no limit.

    `next_at` is there when the run continues as new: when the next start is due, in seconds since 1970. It does so
    after `most_events` in its history.
    """

    backfill_id: UUID
    rate: float | None = None
    next_at: float | None = None
    most_events: int = 4_000


class StartRows(Contract):
    """Start the next rows, `most` of them at most."""

    backfill_id: UUID
    most: int


class StartedRows(Contract):
    """What was done: how many rows were `taken`, and how the backfill stands.

    `waits` says why rows that had their turn could not be settled: the code of what has to pass first.
    """

    status: Literal["LOADING", "RUNNING", "PAUSED", "COMPLETED", "CANCELLED", "FAILED"]
    taken: int = 0
    waits: str | None = None
