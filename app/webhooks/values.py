"""What an endpoint computes from a request: values (constants, fields, JSONata) over `__trigger__`."""

import time
from typing import Any

from app.errors import Invalid
from engine.errors import ClockExceeded, EngineError
from engine.expression import Moment
from engine.json_types import Undefined
from engine.values import Value, ValueReader, leaves, resolve

TRIGGER = "__trigger__"


def check_value(raw: Any, path: str) -> None:
    """Raises `Invalid` VALUE_INVALID for what cannot be read, or asks for anything but the request."""
    _read(raw, path)


def compute(raw: Any, payload: Any, seed: str) -> Any:
    """The value of `raw` for a request; None where it has none. Raises `EngineError` when it cannot be computed."""
    try:
        resolved = resolve(_read(raw, ""), {TRIGGER: payload}, Moment(int(time.time() * 1000), seed))
    except ClockExceeded as error:
        raise EngineError("EXPRESSION_LIMIT", "the expression takes too long") from error
    return None if isinstance(resolved, Undefined) else resolved


def _read(raw: Any, path: str) -> Value:
    reader = ValueReader()
    value = reader.read(raw, path)
    problems = [{"path": fault.path or path, "message": fault.message, "code": fault.code} for fault in reader.faults]
    for place, references in leaves(value):
        problems += [
            {"path": place, "message": f"{reference} is not there: only {TRIGGER}, the request, is", "code": "UNKNOWN"}
            for reference in references
            if reference.root != TRIGGER
        ]
    if problems:
        raise Invalid("VALUE_INVALID", "A value is not valid.", problems)
    return value
