"""Writing into `__context__`: a dot path, set or append, on a persistent map with plain JSON below it."""

from collections.abc import Sequence
from typing import Any

from immutables import Map

from engine.errors import ExpressionError
from engine.expression import Moment
from engine.json_types import JSON, Undefined
from engine.plan import Write
from engine.values import Scope, path_of, resolve


def written(context: Map[str, JSON], writes: Sequence[Write], scope: Scope, moment: Moment) -> Map[str, JSON]:
    """The context after the writes; all values are taken from `scope`, which later writes do not change.

    An optional value that is undefined writes nothing. Raises `ExpressionError`; the given map is never changed.
    """
    for write in writes:
        value = resolve(write.value, scope, moment)
        if isinstance(value, Undefined):
            continue
        first, *rest = write.target
        try:
            context = context.set(first, _changed(context.get(first), rest, value, write.append))
        except _NotAContainer as error:
            target = ".".join(write.target)
            raise ExpressionError(
                "CONTEXT_WRITE_INVALID", f"cannot write {target}: {error}", path_of(write.value)
            ) from error
    return context


def plain(context: Map[str, JSON]) -> dict[str, JSON]:
    """The map as a dict, its members in order of name: a map's own order differs between processes."""
    return dict(sorted(context.items()))


class _NotAContainer(Exception):
    pass


def _changed(present: Any, rest: Sequence[str], value: JSON, append: bool) -> JSON:
    """What stands at a place after the write below it; containers on the way are copied, not changed."""
    if not rest:
        return [*_list_of(present), value] if append else value
    member, *below = rest
    if isinstance(present, list):
        if not member.isdecimal() or int(member) >= len(present):
            raise _NotAContainer(f"the list has no item {member}")
        copy = list(present)
        copy[int(member)] = _changed(present[int(member)], below, value, append)
        return copy
    if present is None or isinstance(present, dict):
        here = present or {}
        return {**here, member: _changed(here.get(member), below, value, append)}
    raise _NotAContainer(f"there is a {type(present).__name__} on the way, not an object")


def _list_of(present: Any) -> list[JSON]:
    if present is None:
        return []
    if isinstance(present, list):
        return present
    raise _NotAContainer(f"append needs a list there, not a {type(present).__name__}")
