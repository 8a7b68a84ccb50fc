"""JSON that comes from outside: what is refused before anything else looks at it.

PostgreSQL's jsonb holds neither NUL characters nor lone surrogates nor infinities, and serialisers give up on
deep nesting; each would otherwise surface far from its cause, as a failed statement or workflow task.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from app.errors import AppError, Invalid

DEEPEST = 100
_ODD = re.compile("[\0\ud800-\udfff]")


class JsonRefused(AppError):
    """400: the body is not JSON that this service takes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, 400, message)


def check_json(body: bytes) -> None:
    """Raises `JsonRefused` (400) for a body that is not JSON, `Invalid` for one that cannot be stored."""
    document = read_json(body)
    if b"\\u" in body:
        place = first_unstorable(document)
        if place is not None:
            raise Invalid(
                "TEXT_NOT_STORABLE",
                "Text must not contain NUL characters or lone surrogates.",
                [{"path": place, "message": "contains a NUL character or a lone surrogate"}],
            )


def read_json(body: bytes) -> Any:
    """The document in a body. Raises `JsonRefused` (400) for what is not JSON, `Invalid` for repeated members."""
    try:
        document = json.loads(
            body.decode(), parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_members
        )
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        # UnicodeDecodeError and JSONDecodeError among them; so are numbers of too many digits.
        raise JsonRefused("JSON_INVALID", f"The body is not JSON: {error}.") from error
    if body.count(b"[") + body.count(b"{") > DEEPEST and _depth(document) > DEEPEST:
        raise _too_deep()
    return document


def first_unstorable(document: Any) -> str | None:
    """The path of the first text (or member name) that PostgreSQL cannot hold; None when there is none."""
    for path, value in _walk(document):
        if isinstance(value, str) and not storable(value):
            return path
    return None


def storable(text: str) -> bool:
    """Whether PostgreSQL can hold the text."""
    if text.isascii():
        return "\0" not in text
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def made_storable(document: Any) -> Any:
    """The same document with every NUL character and lone surrogate replaced, for rows that only show it."""
    match document:
        case str():
            return document if storable(document) else _ODD.sub("\ufffd", document)
        case dict():
            return {made_storable(name): made_storable(value) for name, value in document.items()}
        case list():
            return [made_storable(item) for item in document]
        case _:
            return document


def _walk(document: Any) -> Iterator[tuple[str, Any]]:
    pending: list[tuple[str, Any]] = [("", document)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict):
            for name, member in value.items():
                # A member's name must be storable too; the path then names its owner.
                yield path, name
                pending.append((f"{path}.{name}" if path else name, member))
        elif isinstance(value, list):
            pending.extend((f"{path}[{index}]", item) for index, item in enumerate(value))
        else:
            yield path, value


def _depth(document: Any) -> int:
    depth, level = 0, [document]
    while level and depth <= DEEPEST:
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
        depth += any(isinstance(value, dict | list) for value in level)
        level = below
    return depth


def _too_deep() -> JsonRefused:
    return JsonRefused("JSON_TOO_DEEP", f"The body nests deeper than {DEEPEST} levels.")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose members have different names: of two with one name, readers take the first or the last."""
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)[:100]
        raise Invalid(
            "JSON_MEMBER_REPEATED",
            f"An object has two members named {repeated!r}.",
            [{"path": "body", "message": f"the member {repeated!r} is there more than once"}],
        )
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(literal: str) -> float:
    number = float(literal)
    if math.isinf(number):
        raise ValueError(f"the number {literal[:40]} is too large")
    return number
