"""A state as plain JSON and back. Members that a state of an earlier version did not have get their defaults."""

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from immutables import Map

from engine.json_types import JSON
from engine.state import State
from engine.steps import Retry

Decoder = Callable[[Any], Any]


def state_to_json(state: State) -> dict[str, Any]:
    """The state as plain JSON; what has its default is left out."""
    written: dict[str, Any] = _object(state, [item.name for item in fields(state)], _DEFAULTS)
    return written


def state_from_json(document: Mapping[str, Any]) -> State:
    """The state that `state_to_json` wrote."""
    found: State = _decoder(State)(document)
    return found


def to_json(value: Any) -> Any:
    """A part of a state as plain JSON."""
    match value:
        case str() | int() | float() | None | dict() | list():
            return value.value if isinstance(value, StrEnum) else value
        case Map():
            return {str(key): to_json(member) for key, member in sorted(value.items())}
        case tuple() if hasattr(value, "_fields"):
            return _object(value, value._fields, value._field_defaults)  # type: ignore[attr-defined]
        case tuple():
            return [to_json(item) for item in value]
        case Retry():
            return value.model_dump(mode="json", by_alias=True)
        case _ if is_dataclass(value):
            return {item.name: to_json(getattr(value, item.name)) for item in fields(value)}
        case _:
            raise AssertionError(f"{value!r} has no place in a state")


def from_json(kind: Any, document: Any) -> Any:
    """A part of a state of the given type."""
    return _decoder(kind)(document)


def _object(value: Any, names: Sequence[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    written = {}
    for name in names:
        member = getattr(value, name)
        if name not in defaults or member != defaults[name]:
            written[name] = to_json(member)
    return written


_DEFAULTS = {
    "batch": "", "todo": (), "yielded": False, "regions": Map(), "fans": Map(), "leaving": Map(), "waiting": (),
    "gated": (), "guarded": (), "locks": Map(), "paused": False, "paused_at": 0, "paused_by": None, "signals": (),
    "receipts": (), "named": Map(), "undo": Map(), "ending": None, "lost": None,
}  # fmt: skip


@cache
def _decoder(kind: Any) -> Decoder:
    """How a value of a type is read; made once for each type."""
    if kind is JSON or kind is Any:
        return _same
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _optional(arguments)
    if origin is Map:
        key, member = arguments
        decode = _decoder(member)
        whole = int if key is int else str
        return lambda document: Map({whole(name): decode(item) for name, item in document.items()})
    if origin is tuple:
        decode = _decoder(arguments[0])
        return lambda document: tuple(decode(item) for item in document)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind
    if kind is Retry:
        return Retry.model_validate
    if hasattr(kind, "_fields") or is_dataclass(kind):
        return _members(kind)
    return _same


def _optional(arguments: tuple[Any, ...]) -> Decoder:
    """`X | None`; a union of plain types is read as it is."""
    others = [argument for argument in arguments if argument is not type(None)]
    if len(others) != 1:
        return _same
    decode = _decoder(others[0])
    return lambda document: None if document is None else decode(document)


def _members(kind: Any) -> Decoder:
    hints = get_type_hints(kind)
    decoders = {name: _decoder(hint) for name, hint in hints.items()}
    return lambda document: kind(**{name: decoders[name](member) for name, member in document.items()})


def _same(document: Any) -> Any:
    return document
