"""The words that rows of links, tasks, incidents and lineage use for what they are."""

from enum import StrEnum


class EntityType(StrEnum):
    """What a template can be linked to."""

    SERVICE_CATALOG = "SERVICE_CATALOG"
    PRODUCT = "PRODUCT"


class TaskStatus(StrEnum):
    """A human task's life; the run owns open and closed, a claim is ours."""

    OPEN = "OPEN"
    CLAIMED = "CLAIMED"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


class Resolution(StrEnum):
    """How an incident ended."""

    RETRIED = "RETRIED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    WITHDRAWN = "WITHDRAWN"


class LineageKind(StrEnum):
    """Why an execution got another run, another version, or came to be at all."""

    RETRY = "RETRY"
    RESUME = "RESUME"
    MIGRATE = "MIGRATE"
    REPLAY = "REPLAY"


class LineageStatus(StrEnum):
    """PENDING is what was decided and may not have been done yet; the reconciler does it."""

    PENDING = "PENDING"
    DONE = "DONE"
    REFUSED = "REFUSED"
