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


class EventSource(StrEnum):
    """Where an event comes from; the first part of the idempotency key of what it starts."""

    SERVICE_REQUEST = "service-request"
    PRODUCT_PURCHASE = "product-purchase"
    MANUAL = "manual"
    WEBHOOK = "webhook"
    SCHEDULE = "schedule"
    ROW_CHANGE = "row-change"
    POLL = "poll"
    BACKFILL = "backfill"


class TriggerCategory(StrEnum):
    """What people look under for a trigger."""

    WEBHOOK = "webhook"
    DATABASE = "database"
    SCHEDULE = "schedule"
    EMAIL = "email"
    EXTERNAL = "external"
    MANUAL = "manual"


class EventStatus(StrEnum):
    """PENDING until all its deliveries are settled; UNMATCHED when nothing wanted it."""

    PENDING = "PENDING"
    HANDLED = "HANDLED"
    UNMATCHED = "UNMATCHED"


class DeliveryKind(StrEnum):
    """Whether an event starts an execution or is handed to one as a signal."""

    START = "START"
    SIGNAL = "SIGNAL"


class DeliveryStatus(StrEnum):
    """PENDING waits, for its turn or for what refused it for now; the others are final."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    SIGNALLED = "SIGNALLED"
    REFUSED = "REFUSED"


class AtRest(StrEnum):
    """What becomes of an event whose template cannot be started now: a refusal, or a place in the queue."""

    REFUSE = "REFUSE"
    QUEUE = "QUEUE"


class SubscriptionStatus(StrEnum):
    """Only an ACTIVE one hears of events."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"


class SubscriptionMode(StrEnum):
    """What a matching event does."""

    START = "START"
    RESUME = "RESUME"
    START_OR_RESUME = "START_OR_RESUME"


class WebhookScheme(StrEnum):
    """How a webhook's sender proves who it is."""

    NONE = "NONE"
    STANDARD = "STANDARD"
    GITHUB = "GITHUB"
    STRIPE = "STRIPE"
    SLACK = "SLACK"
    HMAC = "HMAC"
    TOKEN = "TOKEN"


class WebhookResponse(StrEnum):
    """What the sender of a webhook is told: at once that it is kept, or the result, or what the endpoint says."""

    ASYNC = "ASYNC"
    SYNC = "SYNC"
    CUSTOM = "CUSTOM"


class ChangeMethod(StrEnum):
    """How Millrace hears of a table's changes."""

    REPLICATION = "REPLICATION"
    OUTBOX = "OUTBOX"
    POSTED = "POSTED"


class ChangeSourceStatus(StrEnum):
    """A PAUSED source's changes wait where they are; a FAILED one needs somebody, its row says why."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    FAILED = "FAILED"


class BeforeImage(StrEnum):
    """What is known of a row before it was changed or deleted: all of it, or its key."""

    FULL = "FULL"
    KEY = "KEY"


class ScheduleKind(StrEnum):
    """Whether the tick itself is the event, or a source is asked for some."""

    SCHEDULE = "SCHEDULE"
    POLL = "POLL"


class OverlapPolicy(StrEnum):
    """What happens at a tick while what an earlier one started has not ended; the names are Temporal's."""

    SKIP = "SKIP"
    BUFFER_ONE = "BUFFER_ONE"
    BUFFER_ALL = "BUFFER_ALL"
    CANCEL_OTHER = "CANCEL_OTHER"
    TERMINATE_OTHER = "TERMINATE_OTHER"
    ALLOW_ALL = "ALLOW_ALL"


class BackfillStatus(StrEnum):
    """LOADING takes rows in; RUNNING starts them; PAUSED starts none for now; the others are final."""

    LOADING = "LOADING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


class BackfillRowStatus(StrEnum):
    """PENDING waits for its turn; REPEATED had been started before, REFUSED was not taken, INVALID cannot be read."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    REPEATED = "REPEATED"
    REFUSED = "REFUSED"
    INVALID = "INVALID"
