"""Logging: one chain for the API, the worker, workflows and activities, whoever speaks.

Our own events go through structlog; what uvicorn, the Temporal SDK, SQLAlchemy and alembic say through the
standard library. Both end in the same processors and the same line format on standard error.
`workflow.logger`, which keeps silent while a history is replayed, comes out with the same keys as everything else.
"""

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger
from temporalio import activity, workflow
from temporalio.exceptions import ApplicationError

from app.settings import LogSettings

_QUIETER = {
    # Requests, start and stop are logged by us.
    "uvicorn.access": logging.WARNING,
    "uvicorn.error": logging.WARNING,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "asyncio": logging.WARNING,
    "alembic.runtime.plugins": logging.WARNING,
    "sqlalchemy": logging.WARNING,
}
_SECRET_KEY = re.compile(
    r"password|passwd|secret|authorization|api[_-]?key|access[_-]?key|private[_-]?key|token$|cookie",
    re.IGNORECASE,
)
_PASSWORD_IN_URL = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s/@]+@", re.IGNORECASE)
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_HIDDEN = "***"
_OF_SEVERAL_LINES = frozenset({"exception", "stack"})

# What an action's own mistake becomes: that one keeps its trace.
ACTION_BUG = "ACTION_FAILED"

_WORKFLOW_ID_PREFIX = "execution/"
_TEMPORAL_KEYS = {
    "workflow_type": "template",
    "activity_type": "action",
    "attempt": "attempt",
}


def configure_logging(settings: LogSettings) -> None:
    """Sends everything this process says through one chain. Call it once, first, in every entry point."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(), temporal_keys, expected_failures],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                without_secrets,
                *_renderers(settings),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level)
    _adopt_libraries()


def temporal_keys(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Turns the details that the Temporal SDK adds to its log records into our keys."""
    details: dict[str, Any] = {}
    for name in ("temporal_workflow", "temporal_activity"):
        found = event.pop(name, None)
        if isinstance(found, Mapping):
            details |= found
    workflow_id = details.get("workflow_id")
    if isinstance(workflow_id, str):
        event.setdefault("execution", workflow_id.removeprefix(_WORKFLOW_ID_PREFIX))
    step, separator, _ = str(details.get("activity_id", "")).partition("#")
    if separator:
        event.setdefault("step", step)
    for theirs, ours in _TEMPORAL_KEYS.items():
        if theirs in details:
            event.setdefault(ours, details[theirs])
    return event


def expected_failures(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A coded failure of an action is an answer, not a bug: it needs no trace."""
    error = event.pop("__temporal_error_identifier", None) and _raised(event)
    if isinstance(error, ApplicationError) and error.type not in (None, ACTION_BUG):
        event.pop("exc_info", None)
        event.update(event="activity_failed", code=error.type, cause=error.message)
    return event


def _raised(event: EventDict) -> BaseException | None:
    info = event.get("exc_info")
    if isinstance(info, tuple):
        return cast("BaseException | None", info[1])
    return sys.exc_info()[1] if info is True else info if isinstance(info, BaseException) else None


def without_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Hides values whose key says they are secret, and passwords inside URLs and headers."""
    return cast(EventDict, _scrubbed(event))


def printable(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Writes what is no visible character as Python does: what others wrote must not steer a terminal, nor forge lines.

    Traces keep their lines. What is not a text is shown by its `repr`, which does the same.
    """
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = _visible(value, keep="\n\t" if key in _OF_SEVERAL_LINES else "")
    return event


def _visible(text: str, keep: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode("ascii") for char in text
    )


def _event_first(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    first = {key: event[key] for key in ("timestamp", "level", "event") if key in event}
    return {**first, **event}


def _scrubbed(value: Any) -> Any:
    match value:
        case str():
            text = _PASSWORD_IN_URL.sub(rf"\g<scheme>:{_HIDDEN}@", value)
            return _BEARER.sub(rf"\1 {_HIDDEN}", text)
        case Mapping():
            return {
                key: _HIDDEN if _SECRET_KEY.search(str(key)) and member else _scrubbed(member)
                for key, member in value.items()
            }
        case list() | tuple():
            return [_scrubbed(item) for item in value]
        case _:
            return value


def _renderers(settings: LogSettings) -> list[Processor]:
    if settings.format == "json":
        return [_event_first, structlog.processors.JSONRenderer(default=str)]
    return [printable, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=32)]


def _adopt_libraries() -> None:
    """Libraries with handlers of their own lose them: a line appears once."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "temporalio", "alembic", "sqlalchemy"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    for name, level in _QUIETER.items():
        logging.getLogger(name).setLevel(level)
    # The details go into keys, so the message need not repeat them.
    workflow.logger.workflow_info_on_message = False
    activity.logger.activity_info_on_message = False
