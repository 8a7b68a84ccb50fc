"""Schedules and polls on the wire."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from app.db.statuses import EventStatus, OverlapPolicy, ScheduleKind
from app.schedules import examples
from app.schedules.cron import cron_fault
from app.trigger_keys import TriggerKey
from app.wire import Given, JsonObject, Moment, Taken
from engine.event_values import read_event_value
from engine.scalars import Duration, seconds

ScheduleName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,99}$")]
DAY = 86_400.0

# What an answer says beside the configuration.
ANSWERED_ONLY = frozenset(
    {
        "id",
        "template",
        "remaining",
        "cursor",
        "lastRunAt",
        "lastError",
        "lastErrorAt",
        "failures",
        "synced",
        "syncError",
    }
    | {"createdAt", "updatedAt"}
)
# What is sometimes looked for beside the target, or under the name of the column that holds it.
_ELSEWHERE = {
    "templateId": "target.templateId",
    "triggerKey": "target.triggerKey",
    "context": "target.context",
    "executionName": "target.name",
    "catchUpSeconds": "catchUpWindow",
}


def _checked_cron(text: str) -> str:
    fault = cron_fault(text)
    if fault is not None:
        raise PydanticCustomError(
            "cron_invalid", "{cron} is no cron expression: {fault}", {"cron": text, "fault": fault}
        )
    return text


def _checked_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise PydanticCustomError("time_zone_unknown", "there is no time zone {name}", {"name": name}) from error
    return name


def _checked_value(raw: Any) -> Any:
    _, problems = read_event_value(raw, "")
    if problems:
        why = {"why": problems[0].message, "below": tuple(filter(None, problems[0].path.split(".")))}
        raise PydanticCustomError("expression_invalid", "{why}", why)
    return raw


def _checked_expression(text: str) -> str:
    _, problems = read_event_value({"type": "expr", "expr": text}, "")
    if problems:
        raise PydanticCustomError("expression_invalid", "{why}", {"why": problems[0].message})
    return text


def _offset(value: object) -> float:
    return 0.0 if value in ("PT0S", 0) else seconds(value)


Cron = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_checked_cron)
]
Zone = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_checked_zone)]
EventValueText = Annotated[Any, AfterValidator(_checked_value)]
ExpressionText = Annotated[str, StringConstraints(min_length=1, max_length=8_192), AfterValidator(_checked_expression)]


class Interval(Taken):
    """Every so often, counted from 1970, shifted by `offset`; durations are ISO 8601 or seconds."""

    every: Duration = Field(ge=1)
    offset: Annotated[float, BeforeValidator(_offset)] = 0.0

    @model_validator(mode="after")
    def _is_shorter(self) -> Self:
        if self.offset >= self.every:
            raise PydanticCustomError("offset_too_long", "the offset is shorter than the interval")
        return self


class Range(Taken):
    """From `start` to `end`, in steps."""

    start: int = Field(ge=0)
    end: int | None = Field(default=None, ge=0)
    step: int = Field(default=1, ge=1)


Ranges = list[int | Range]


class Calendar(Taken):
    """Times whose every part is one of those named; what is left out is 0 for parts of the day, and any day."""

    second: Ranges | None = None
    minute: Ranges | None = None
    hour: Ranges | None = None
    day_of_month: Ranges | None = None
    month: Ranges | None = None
    year: Ranges | None = None
    day_of_week: Ranges | None = Field(default=None, description="0 is Sunday")
    comment: str | None = Field(default=None, max_length=200)


class Spec(Taken):
    """When: at every time that any of `cron`, `intervals` and `calendars` names, and none of `exclude` does."""

    model_config = ConfigDict(json_schema_extra={"examples": examples.SPECS})

    cron: list[Cron] = Field(default=[], max_length=20)
    intervals: list[Interval] = Field(default=[], max_length=20)
    calendars: list[Calendar] = Field(default=[], max_length=20)
    exclude: list[Calendar] = Field(default=[], max_length=50)
    time_zone: Zone = "UTC"
    start_at: Moment | None = None
    end_at: Moment | None = None
    jitter: Duration | None = Field(default=None, description="each time is put off by a random part of it")

    @model_validator(mode="after")
    def _names_times(self) -> Self:
        if not (self.cron or self.intervals or self.calendars):
            raise PydanticCustomError("spec_empty", "a schedule needs a cron expression, an interval or a calendar")
        if self.start_at and self.end_at and self.start_at >= self.end_at:
            raise PydanticCustomError("spec_never", "the end comes before the start")
        return self


_SECRET_HEADER = ("authorization", "cookie", "token", "secret", "password", "key")


class HttpSource(Taken):
    """A GET request. `url`, and each of `query`, are values over `__trigger__`; a query value that is null is left out.

    What a header must keep secret is configured, MILLRACE_POLLING__SECRETS, and named in `secretHeaders`.
    """

    type: Literal["HTTP"]
    url: EventValueText
    headers: dict[str, str] = Field(default={}, max_length=50)
    secret_headers: dict[str, str] = Field(default={}, max_length=10, description="header → name of its secret")
    query: dict[str, EventValueText] = Field(default={}, max_length=50)

    @model_validator(mode="after")
    def _holds_no_secret(self) -> Self:
        for name in self.headers:
            if any(word in name.lower() for word in _SECRET_HEADER):
                message = "{name} belongs to secretHeaders: what is written here everybody can read"
                raise PydanticCustomError("secret_in_header", message, {"name": name})
        if isinstance(self.url, str) and "@" in self.url.partition("://")[2].partition("/")[0]:
            raise PydanticCustomError("secret_in_url", "a URL with a password in it is refused")
        return self


class SqlSource(Taken):
    """A query on a configured connection; `:cursor` in it is the cursor. It is run in a read-only transaction."""

    type: Literal["SQL"]
    connection: str = Field(min_length=1, max_length=40)
    query: str = Field(min_length=1, max_length=20_000)


class Poll(Taken):
    """What is asked, and what is made of the answer: JSONata over `__trigger__`.

    `items` sees `{response, cursor}` (default: the response), `id` sees `{item}`, `cursor` sees
    `{response, items, cursor}`. From NOW, the items of the first answer are only remembered.
    """

    source: Annotated[HttpSource | SqlSource, Field(discriminator="type")]
    items: ExpressionText | None = None
    id: ExpressionText
    cursor: ExpressionText | None = None
    begin: Literal["ALL", "NOW"] = "ALL"


class Target(Taken):
    """A template, with context and name as values over the tick, or the trigger key that subscriptions hear."""

    template_id: str | None = Field(default=None, min_length=1, max_length=100, description="a template's id or slug")
    context: EventValueText = None
    name: EventValueText = None
    trigger_key: TriggerKey | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.template_id is None) == (self.trigger_key is None):
            raise PydanticCustomError("target_not_one", "a target is a templateId or a triggerKey")
        if self.trigger_key is not None and not (self.context is None and self.name is None):
            raise PydanticCustomError("target_not_one", "what context and name are is each subscription's to say")
        return self


class _Shape(Taken):
    """What creating and changing have in common: an answer can be sent back whole."""

    kind: ScheduleKind | None = Field(default=None, description="which kind it is follows from `poll`, for good")

    @model_validator(mode="before")
    @classmethod
    def _as_answered(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        for name, instead in _ELSEWHERE.items():
            if name in body:
                message = "there is no {name} here: write {instead} instead"
                raise PydanticCustomError("member_elsewhere", message, {"name": name, "instead": instead})
        if "template" in body and "target" not in body:
            # No answer that is sent back, but somebody who means what it would do there.
            message = "there is no {name} here: write {instead} instead"
            raise PydanticCustomError("member_elsewhere", message, {"name": "template", "instead": "target.templateId"})
        return {name: value for name, value in body.items() if name not in ANSWERED_ONLY}


class ScheduleCreate(_Shape):
    """A new schedule; with `poll` it asks a source at each of its times. What only answers say is passed over."""

    model_config = ConfigDict(json_schema_extra={"examples": examples.CREATED})

    name: ScheduleName
    description: str | None = Field(default=None, max_length=2_000)
    spec: Spec
    overlap: OverlapPolicy = OverlapPolicy.SKIP
    catch_up_window: Duration = Field(default=DAY, ge=10, description="how late a tick may come after an outage")
    max_executions: int | None = Field(default=None, ge=1, le=1_000_000_000)
    paused: bool = False
    note: str | None = Field(default=None, max_length=500)
    target: Target
    poll: Poll | None = None

    @model_validator(mode="after")
    def _polls_one_by_one(self) -> Self:
        if self.poll is not None and self.overlap != OverlapPolicy.SKIP:
            raise PydanticCustomError("overlap_of_poll", "a source is not asked again before it has answered: SKIP")
        if self.kind is not None and (self.kind == ScheduleKind.POLL) != (self.poll is not None):
            raise PydanticCustomError("kind_of_poll", "what has a poll is a POLL, and what has none a SCHEDULE")
        return self


class ScheduleChange(_Shape):
    """What is left out stays, and what only answers say is passed over. A change of `poll` keeps the cursor unless
    `resetCursor` is true.
    """

    model_config = ConfigDict(json_schema_extra={"examples": examples.CHANGED})

    name: ScheduleName | None = None
    description: str | None = Field(default=None, max_length=2_000)
    spec: Spec | None = None
    overlap: OverlapPolicy | None = None
    catch_up_window: Duration | None = Field(default=None, ge=10)
    max_executions: int | None = Field(default=None, ge=1, le=1_000_000_000)
    paused: bool | None = None
    note: str | None = Field(default=None, max_length=500)
    target: Target | None = None
    poll: Poll | None = None
    reset_cursor: bool = False

    @model_validator(mode="after")
    def _keeps_what_it_needs(self) -> Self:
        for name in ("name", "spec", "overlap", "catch_up_window", "paused", "target"):
            if name in self.model_fields_set and getattr(self, name) is None:
                message = "{name} cannot be null; leave it out, and it stays as it is"
                raise PydanticCustomError("null_refused", message, {"name": to_camel(name)})
        return self


class PauseRequest(Taken):
    """Why, for those who come after; Temporal's Web UI shows it too."""

    note: str | None = Field(default=None, max_length=500)


class RunRequest(Taken):
    """How a tick by hand gets on with what runs: by the schedule's own overlap policy unless one is given."""

    overlap: OverlapPolicy | None = None


class TargetView(Given):
    """What a schedule starts, as it can be sent; a template is named by its id."""

    template_id: UUID | None
    context: Any
    name: Any
    trigger_key: str | None


class ScheduleView(Given):
    """A schedule as users read it, in the shape in which it is sent; durations are seconds. `template` is the slug of
    the target's.

    Until Temporal has it as it stands here it is not `synced`; `syncError` says why.
    """

    id: UUID
    name: str
    description: str | None
    kind: ScheduleKind
    spec: JsonObject
    overlap: OverlapPolicy
    catch_up_window: float
    max_executions: int | None
    remaining: int | None
    paused: bool
    note: str | None
    target: TargetView
    template: str | None
    poll: JsonObject | None
    cursor: Any
    last_run_at: datetime | None
    last_error: str | None
    last_error_at: datetime | None
    failures: int
    synced: bool
    sync_error: str | None
    created_at: datetime
    updated_at: datetime


class FireTimes(Given):
    """When a schedule comes next, as Temporal has it, in UTC; fewer than asked for when there are no more. `timeZone`
    is the specification's.
    """

    items: list[datetime]
    time_zone: str


class ScheduleRun(Given):
    """An event of a schedule, and what it started."""

    event_record_id: UUID
    received_at: datetime
    summary: str
    status: EventStatus
    execution_ids: list[UUID]


class RunReceipt(Given):
    """A tick that was asked for."""

    id: UUID
    requested_at: datetime
