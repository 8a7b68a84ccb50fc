"""The rules that come before all others: a document of bearable size, and of the right shape.

They look at raw JSON. When one of them finds something, the others would only say nonsense.
"""

import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from engine.definition import Definition, read_definition
from engine.rules.examined import Finding
from engine.schema import clipped, path_to
from engine.steps import StepType

LARGEST_DOCUMENT = 1024 * 1024
MOST_STEPS = 5_000
MOST_TRANSITIONS = 20_000
DEEPEST = 100
MOST_SHAPE_FINDINGS = 1_000
_SHOWN_OF_MANY = 20

Location = tuple[str | int, ...]


def size_findings(document: Mapping[str, Any]) -> Iterator[Finding]:
    """At most 1 MiB of JSON (UTF-8, without spaces), 5,000 steps, 20,000 transitions, 100 levels of nesting."""
    for name, most in (("steps", MOST_STEPS), ("stepTransitions", MOST_TRANSITIONS)):
        entries = document.get(name)
        if isinstance(entries, list) and len(entries) > most:
            yield Finding(name, f"a definition has at most {most:,} {name}, not {len(entries):,}")
            return
    measured = _Measured(document)
    if measured.too_large:
        yield Finding("", f"a definition is at most {LARGEST_DOCUMENT:,} bytes of JSON")
    elif measured.too_deep:
        yield Finding("", f"a definition is nested at most {DEEPEST} levels deep")


class _Measured:
    """Walks a document without recursion and stops as soon as it is too much."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.too_deep = False
        self.too_large = False
        least = 0
        level: list[Any] = [document]
        depth = 0
        while level and not self.too_deep and not self.too_large:
            depth += 1
            self.too_deep = depth > DEEPEST
            below: list[Any] = []
            for container in level:
                least += 2 * len(container)
                if least > LARGEST_DOCUMENT:
                    self.too_large = True
                    break
                members = container.values() if isinstance(container, Mapping) else container
                below.extend(member for member in members if isinstance(member, (dict, list)))
            level = below
        if not self.too_deep and not self.too_large:
            self.too_large = _length(document) > LARGEST_DOCUMENT


def _length(document: Mapping[str, Any]) -> int:
    """Bytes of the document as JSON; what is not JSON counts nothing here and is a mistake in shape."""
    try:
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError):
        return 0
    return len(text) if len(text) > LARGEST_DOCUMENT else len(text.encode(errors="surrogatepass"))


def read_shape(document: Mapping[str, Any]) -> Definition | tuple[Finding, ...]:
    """The typed definition, or every mistake in its shape in document order (of very many the first ones)."""
    foreign = _not_json(document)
    if foreign:
        return foreign
    try:
        return read_definition(document)
    except ValidationError as error:
        count = error.error_count()
        if count <= MOST_SHAPE_FINDINGS:
            return _findings(error)
    return (*_first_findings(document), Finding("", f"{count:,} mistakes in all; only the first are listed"))


def _not_json(document: Mapping[str, Any]) -> tuple[Finding, ...]:
    """What a JSON column cannot hold, though Python could: NaN, half characters, the null character."""
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError) as error:
        return (Finding("", f"not JSON: {clipped(str(error), 100)}"),)
    if "\\u0000" in text and _holds_null_character(document):
        return (Finding("", "text may not contain the null character"),)
    return ()


def _holds_null_character(document: Mapping[str, Any]) -> bool:
    waiting: list[Any] = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and "\0" in value:
            return True
        if isinstance(value, Mapping):
            waiting.extend(value)
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return False


def _first_findings(document: Mapping[str, Any]) -> tuple[Finding, ...]:
    try:
        read_definition(_cut(document))
    except ValidationError as error:
        return _findings(error)[:MOST_SHAPE_FINDINGS]
    return ()


def _cut(value: Any) -> Any:
    """The value with every list, and every object below the top, cut to its first few members."""
    if isinstance(value, Mapping):
        return {key: _cut(member) for key, member in list(value.items())[:100]}
    if isinstance(value, list):
        return [_cut(item) for item in value[:_SHOWN_OF_MANY]]
    return value


def _findings(error: ValidationError) -> tuple[Finding, ...]:
    found: dict[Location, Finding] = {}
    for details in error.errors(include_url=False):
        location = _location(details["loc"], details["type"])
        found.setdefault(location, Finding(path_to(location), _message(details, location)))
    return tuple(found.values())


def _location(reported: Location, kind: str) -> Location:
    """Without pydantic's segments for the member of a union that it tried."""
    if kind.startswith("union_tag"):
        return (*reported, "type")
    if reported[:1] == ("steps",) and len(reported) > 2:
        reported = (*reported[:2], *reported[3:])
    for at, name in enumerate(reported):
        if name in _CONDITIONS and at > 1:
            return reported[: at + 1]
    return reported


def _message(details: ErrorDetails, location: Location) -> str:
    kind = details["type"]
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _step_type_message(details["input"])
    if location[-1:] and location[-1] in _CONDITIONS and len(location) > 2:
        return "a condition is JSONata text, or an object with it in `src`"
    if kind == "literal_error":
        return f"must be {_LITERALS.get(details['ctx']['expected'], details['ctx']['expected'])}"
    if kind == "value_error":
        return str(details.get("ctx", {}).get("error", details["msg"]))
    return _MESSAGES.get(kind) or _plain(details["msg"])


# Where JSONata stands without a value around it.
_CONDITIONS = frozenset({"condition", "skipIf", "enabledWhile", "while", "until", "completionCondition", "select"})
_LITERALS = {"True": "true", "False": "false"}
_MESSAGES = {
    "extra_forbidden": "unknown field",
    "missing": "this field is required",
    "tuple_type": "a list is needed here",
    "dict_type": "an object is needed here",
    "model_type": "an object is needed here",
    "model_attributes_type": "an object is needed here",
    "string_type": "text is needed here",
    "bool_type": "true or false is needed here",
    "int_type": "a whole number is needed here",
    "float_type": "a number is needed here",
    "string_pattern_mismatch": (
        "1 to 100 letters, digits, underscores and hyphens are allowed here, and no hyphen at the beginning"
    ),
    "time_delta_parsing": "a duration is ISO 8601 text such as PT30S, or a number of seconds",
}


def _plain(message: str) -> str:
    """Pydantic's sentence as one of ours: `Input should be 'a' or 'b'` → `must be 'a' or 'b'`."""
    for theirs, ours in (("Input should be ", "must be "), ("String should ", "must "), ("Value should ", "must ")):
        if message.startswith(theirs):
            return clipped(ours + message.removeprefix(theirs), 300)
    return clipped(message, 300)


def _step_type_message(step: Any) -> str:
    known = ", ".join(StepType)
    if not isinstance(step, dict) or "type" not in step:
        return f"a step needs a `type`: one of {known}"
    given = step["type"]
    if not isinstance(given, str):
        return f"a step's type is text: one of {known}"
    matches = get_close_matches(given[:100], list(StepType), n=1, cutoff=0.7)
    hint = f'did you mean "{matches[0]}"? ' if matches else ""
    return f'"{clipped(given, 100)}" is no type of step; {hint}known are {known}'
