"""What a schedule, the workflow of its tick and the activities of that agree on."""

from uuid import UUID

from app.contracts import Contract


class Tick(Contract):
    """What the workflow of a schedule's tick is given. `at` (ISO 8601) is there when it continues as new, as is
    `withdrawn`: what it started has been told to end, and that is waited for.
    """

    schedule_id: UUID
    poll: bool = False
    waits: bool = False
    at: str | None = None
    withdrawn: bool = False


class TickRequest(Contract):
    """A tick of a schedule, by its nominal time (ISO 8601)."""

    schedule_id: UUID
    at: str


class TickStored(Contract):
    """What came of a tick: how many events it put into the inbox; `error` is why there is none, or not yet."""

    events: int = 0
    error: str | None = None
