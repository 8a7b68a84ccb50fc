"""Addresses as strict as bodies: a mistyped query parameter would otherwise be a filter that filters nothing."""

from collections.abc import Iterator
from difflib import get_close_matches

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from app.errors import Invalid


async def refuse_unknown_parameters(request: Request) -> None:
    """Raises `Invalid` REQUEST_INVALID for query parameters that the route does not have."""
    route = request.scope.get("route")
    if not request.query_params or not isinstance(route, APIRoute):
        return
    known = set(_names(route.dependant))
    problems = [
        {"path": f"query.{name[:100]}", "message": _advice(name, known), "code": "EXTRA_FORBIDDEN"}
        for name in dict.fromkeys(request.query_params)
        if name not in known
    ]
    if problems:
        raise Invalid("REQUEST_INVALID", "The request is not valid.", problems)


def _names(dependant: Dependant) -> Iterator[str]:
    """The query parameters of a route and of all that it depends on."""
    for field in dependant.query_params:
        yield field.alias
    for other in dependant.dependencies:
        yield from _names(other)


def _advice(name: str, known: set[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return "There is no such parameter" + (f"; did you mean {near[0]}?" if near else "")
