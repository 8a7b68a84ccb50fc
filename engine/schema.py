"""JSON Schema checks of data that comes from outside: contexts, parameters, outputs.

The only module that imports the validator, so patterns that stand by themselves are here too. Schemas are written by
authors and values by anybody, so both are held to what can be decided quickly: patterns run on a linear-time engine,
nothing is ever fetched, and a schema whose evaluation could grow beyond measure is refused before it is compiled
(`engine.schema_bounds`).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import jsonschema_rs

from engine.errors import EngineError
from engine.schema_bounds import refusal

SHOWN_VALUE = 80
SHOWN_MESSAGE = 300
MOST_VIOLATIONS = 100
PATTERN_BYTES = 1024 * 1024
ALL_VIOLATIONS_UP_TO = 64 * 1024

_MASK = "\u2039value\u203a"
_NO_SCHEMA = "a schema is JSON that is not nested too deeply"
_NO_JSON = "the value is not JSON, or is nested too deeply"


@dataclass(frozen=True, slots=True)
class SchemaViolation:
    """One way in which a value does not fit: where (`items[3].id`; empty for the value itself), and why.

    `keyword` is the schema's word that was broken, `location` the members that lead to the place, `schema_location`
    those that lead to the keyword.
    """

    path: str
    message: str
    keyword: str = ""
    location: tuple[str | int, ...] = ()
    schema_location: tuple[str | int, ...] = ()


def check_schema(schema: Mapping[str, Any]) -> str | None:
    """Why this is not a usable JSON Schema (draft 2020-12 unless `$schema` says otherwise), or None when it is."""
    text = _text(schema)
    if text is None:
        return _NO_SCHEMA
    compiled = _compiled(text)
    return compiled if isinstance(compiled, str) else None


def violations(schema: Mapping[str, Any], value: Any, at: str = "") -> tuple[SchemaViolation, ...]:
    """Where `value` (plain dicts and lists) does not fit, at most 100 places, with paths that begin with `at`.

    Of a value larger than 64 KiB only the first violation is told. Raises `EngineError` (SCHEMA_INVALID) when the
    schema is not usable.
    """
    return Checker(schema).violations(value, at)


class Checker:
    """A schema made ready, for many values in a row. Raises `EngineError` (SCHEMA_INVALID) when it is not usable."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        text = _text(schema)
        compiled = _NO_SCHEMA if text is None else _compiled(text)
        if isinstance(compiled, str):
            raise EngineError("SCHEMA_INVALID", compiled)
        self._validator = compiled

    def violations(self, value: Any, at: str = "") -> tuple[SchemaViolation, ...]:
        """As the function of this name."""
        text = _text(value)
        if text is None:
            return (SchemaViolation(at, _NO_JSON),)
        try:
            if self._validator.is_valid(value):
                return ()
            search = _all if len(text) <= ALL_VIOLATIONS_UP_TO else _first
            return tuple(_violation(error, at) for error in search(self._validator, value))
        except ValueError:
            return (SchemaViolation(at, _NO_JSON),)


class Pattern:
    """A regular expression by itself, on the same linear-time engine and within the same bounds.

    Raises `EngineError` (PATTERN_INVALID) for one that needs backtracking, is too large or is none at all.
    """

    def __init__(self, source: str, case_sensitive: bool = True) -> None:
        text = _text({"pattern": source if case_sensitive else f"(?i){source}"})
        compiled = "a pattern is Unicode text" if text is None else _compiled(text)
        if isinstance(compiled, str):
            raise EngineError("PATTERN_INVALID", compiled.removeprefix("pattern: "))
        self._validator = compiled

    def found_in(self, text: str) -> bool | None:
        """Whether it is found anywhere in a text; None for a text that is not Unicode."""
        try:
            return self._validator.is_valid(text)
        except ValueError:
            return None


def path_to(location: tuple[str | int, ...], at: str = "") -> str:
    """Members as a path in the style of a definition: `items[3].id`, below `at`."""
    path = at
    for member in location:
        if isinstance(member, int):
            path += f"[{member}]"
        else:
            path += f".{clipped(member, SHOWN_VALUE)}" if path else clipped(member, SHOWN_VALUE)
    return path


def clipped(text: str, length: int) -> str:
    """The text, cut to `length` characters with a mark where something is missing."""
    return text if len(text) <= length else f"{text[: length - 1]}\u2026"


def _all(validator: jsonschema_rs.Validator, value: Any) -> Iterator[jsonschema_rs.ValidationError]:
    return islice(validator.iter_errors(value), MOST_VIOLATIONS)


def _first(validator: jsonschema_rs.Validator, value: Any) -> Iterator[jsonschema_rs.ValidationError]:
    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        yield error


def _violation(error: jsonschema_rs.ValidationError, at: str) -> SchemaViolation:
    location = tuple(error.instance_path)
    message = error.message
    if _MASK in message:
        shown = json.dumps(error.instance, ensure_ascii=False, default=str)
        message = message.replace(_MASK, clipped(shown, SHOWN_VALUE), 1)
    return SchemaViolation(
        path_to(location, at),
        clipped(message, SHOWN_MESSAGE),
        error.kind.name,
        location,
        tuple(error.schema_path),
    )


@lru_cache(maxsize=256)
def _compiled(text: str) -> jsonschema_rs.Validator | str:
    """The validator of a schema, or why there is none."""
    schema = json.loads(text)
    if not isinstance(schema, dict):
        return "a schema is an object"
    why = refusal(schema)
    if why is not None:
        return why
    try:
        return jsonschema_rs.validator_for(
            schema,
            validate_formats=True,
            mask=_MASK,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=PATTERN_BYTES),
            offline=True,
        )
    except jsonschema_rs.ValidationError as error:
        return _why(error)
    except ValueError as error:
        return clipped(str(error), SHOWN_MESSAGE)


def _why(error: jsonschema_rs.ValidationError) -> str:
    place = path_to(tuple(error.instance_path))
    message = error.message
    if error.kind.name in ("format", "pattern") and place.rpartition(".")[2] == "pattern":
        message = "a pattern must be a regular expression without look-around and back-references, and not too large"
    return clipped(f"{place}: {message}" if place else message, SHOWN_MESSAGE)


def _text(value: Any) -> str | None:
    """The value as canonical JSON text, or None when it has none."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        return None
    return text
