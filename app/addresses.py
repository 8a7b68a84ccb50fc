"""Addresses as strict as bodies: a mistyped query parameter would otherwise be a filter that filters nothing."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from types import UnionType
from typing import Any, Union, get_args, get_origin
from uuid import UUID

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BeforeValidator

from app.errors import Invalid, NotFound


def id_of(what: str) -> BeforeValidator:
    """For an id in a path: text that is no id is the id of nothing. Raises <WHAT>_NOT_FOUND."""

    def read(text: Any) -> UUID:
        try:
            return UUID(str(text))
        except ValueError:
            raise NotFound(what, str(text)[:100]) from None

    return BeforeValidator(read)


async def refuse_wrong_parameters(request: Request) -> None:
    """Raises `Invalid` REQUEST_INVALID for query parameters that the route does not have, and for several values of one
    that takes one: all but one of them would be passed over in silence.
    """
    route = request.scope.get("route")
    if not request.query_params or not isinstance(route, APIRoute):
        return
    known = dict(_parameters(route.dependant))
    problems = [
        {"path": f"query.{name[:100]}", **fault}
        for name in dict.fromkeys(request.query_params)
        if (fault := _fault(name, len(request.query_params.getlist(name)), known)) is not None
    ]
    if problems:
        raise Invalid("REQUEST_INVALID", "The request is not valid.", problems)


def _fault(name: str, values: int, known: Mapping[str, bool]) -> dict[str, str] | None:
    if name not in known:
        return {"message": _advice(name, known), "code": "EXTRA_FORBIDDEN"}
    if values > 1 and not known[name]:
        return {"message": f"This parameter takes one value, and has {values}", "code": "PARAMETER_REPEATED"}
    return None


def _parameters(dependant: Dependant) -> Iterator[tuple[str, bool]]:
    """The query parameters of a route and of all that it depends on, and whether each takes several values."""
    for field in dependant.query_params:
        yield field.alias, _is_plural(field.field_info.annotation)
    for other in dependant.dependencies:
        yield from _parameters(other)


def _is_plural(annotation: Any) -> bool:
    origin = get_origin(annotation) or annotation
    if origin in (Union, UnionType):
        return any(_is_plural(one) for one in get_args(annotation))
    return origin in (list, set, frozenset, tuple)


def _advice(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return "There is no such parameter" + (f"; did you mean {near[0]}?" if near else "")
