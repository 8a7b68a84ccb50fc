"""Bounds a JSON Schema's cost before anything is evaluated.

References make it possible to write, in a few lines, a schema whose evaluation takes time exponential in its own
length or in the depth of a value. Evaluation cannot be interrupted, so such schemas are refused, by three counts: the
subschemas that result when all references are followed; subschemas that lead back to themselves without descending
into the value; and recursions that look at one and the same part of a value more than once.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from engine.reach import components

MOST_SUBSCHEMAS = 5_000
MOST_EVALUATIONS = 5_000
MOST_PATTERNS = 100
LONGEST_PATTERN = 1_000

_HERE_ONE = ("not", "if", "then", "else")
_HERE_MANY = ("allOf", "anyOf", "oneOf")
_HERE_NAMED = ("dependentSchemas", "dependencies")
_ANY_MEMBER = ("additionalProperties", "unevaluatedProperties", "propertyNames")
_ANY_ITEM = ("items", "additionalItems", "unevaluatedItems", "contains")
_DEFINITIONS = ("$defs", "definitions")
_UNSUPPORTED = ("$dynamicRef", "$recursiveRef")

Schema = dict[str, Any]


class _Refused(Exception):
    pass


class _Edge(NamedTuple):
    """A subschema: `step` is None when it looks at the same value, otherwise the part it descends into."""

    step: str | None
    target: Schema | None
    applies: bool = True


def refusal(schema: Schema) -> str | None:
    """Why a schema is not accepted, or None. Tolerates a malformed schema: that is for the meta-schema to say."""
    try:
        edges = _Collector(schema).collect()
        _refuse_growth(edges)
        _refuse_repeated_recursion(edges)
    except _Refused as refused:
        return str(refused)
    return None


Edges = list[list[tuple[str | None, int]]]


class _Collector:
    """Gathers every subschema and how it is reached, each once."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._schemas: list[Schema] = [root]
        self._index = {id(root): 0}
        self._patterns = 0

    def collect(self) -> Edges:
        edges: Edges = []
        at = 0
        while at < len(self._schemas):
            edges.append([])
            schema = self._schemas[at]
            self._count_patterns(schema)
            for edge in _subschemas(schema):
                if edge.target is not None:
                    target = self._number(edge.target)
                    if edge.applies:
                        edges[at].append((edge.step, target))
            for target_schema in self._referred(schema, at):
                edges[at].append((None, self._number(target_schema)))
            at += 1
        return edges

    def _number(self, schema: Schema) -> int:
        number = self._index.setdefault(id(schema), len(self._schemas))
        if number == len(self._schemas):
            if number >= MOST_SUBSCHEMAS:
                raise _Refused(f"a schema has at most {MOST_SUBSCHEMAS} subschemas")
            self._schemas.append(schema)
        return number

    def _count_patterns(self, schema: Schema) -> None:
        patterns = [schema["pattern"]] if isinstance(schema.get("pattern"), str) else []
        by_pattern = schema.get("patternProperties")
        if isinstance(by_pattern, dict):
            patterns.extend(by_pattern)
        if any(len(pattern) > LONGEST_PATTERN for pattern in patterns):
            raise _Refused(f"a pattern has at most {LONGEST_PATTERN} characters")
        self._patterns += len(patterns)
        if self._patterns > MOST_PATTERNS:
            raise _Refused(f"a schema has at most {MOST_PATTERNS} patterns")

    def _referred(self, schema: Schema, at: int) -> Iterator[Schema]:
        for word in _UNSUPPORTED:
            if word in schema:
                raise _Refused(f"{word} is not supported; use $ref")
        if at and "$id" in schema:
            raise _Refused("$id is allowed at the top of a schema only")
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return
        if reference != "#" and not reference.startswith("#/"):
            raise _Refused(
                f"$ref {reference[:80]!r} is refused: a reference stays in its own schema, as in #/$defs/name"
            )
        target = _pointed(self._root, reference)
        if isinstance(target, dict):
            yield target


def _pointed(root: Schema, reference: str) -> Any:
    """What a local JSON pointer names; None when there is nothing (the validator says so later)."""
    found: Any = root
    for token in reference.split("/")[1:]:
        member = token.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(member)
        elif isinstance(found, list) and member.isdecimal() and int(member) < len(found):
            found = found[int(member)]
        else:
            return None
    return found


def _subschemas(schema: Schema) -> Iterator[_Edge]:
    for word in _HERE_ONE:
        yield _Edge(None, _schema(schema.get(word)))
    for word in _HERE_MANY:
        yield from (_Edge(None, _schema(item)) for item in _list(schema.get(word)))
    for word in _HERE_NAMED:
        yield from (_Edge(None, _schema(item)) for item in _map(schema.get(word)).values())
    for name, item in _map(schema.get("properties")).items():
        yield _Edge(f".{name}", _schema(item))
    yield from (_Edge(".*", _schema(item)) for item in _map(schema.get("patternProperties")).values())
    yield from (_Edge(".*", _schema(schema.get(word))) for word in _ANY_MEMBER)
    yield from (_Edge("[*", _schema(schema.get(word))) for word in _ANY_ITEM)
    for word in ("prefixItems", "items"):
        for at, item in enumerate(_list(schema.get(word))):
            yield _Edge(f"[{at}", _schema(item))
    for word in _DEFINITIONS:
        yield from (_Edge(None, _schema(item), False) for item in _map(schema.get(word)).values())


def _schema(value: Any) -> Schema | None:
    return value if isinstance(value, dict) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _refuse_growth(edges: Edges) -> None:
    """Counts the subschemas after following every reference, each recursion once."""
    following = [[target for _, target in outgoing] for outgoing in edges]
    cost = [0] * len(edges)
    for component in reversed(components(following)):
        members = set(component)
        total = len(component) + sum(
            cost[target] for node in component for target in following[node] if target not in members
        )
        if total > MOST_EVALUATIONS:
            raise _Refused(
                f"the schema grows to more than {MOST_EVALUATIONS} subschemas when its references are followed"
            )
        for node in component:
            cost[node] = total


def _refuse_repeated_recursion(edges: Edges) -> None:
    part = [0] * len(edges)
    for number, component in enumerate(components([[target for _, target in out] for out in edges])):
        for node in component:
            part[node] = number
    here = [[target for step, target in out if step is None] for out in edges]
    descents: list[Counter[str]] = [Counter() for _ in edges]
    for component in reversed(components(here)):
        node = component[0]
        if len(component) > 1 or node in here[node]:
            raise _Refused("a subschema refers back to itself without descending into the value")
        for step, target in edges[node]:
            if part[target] == part[node]:
                descents[node].update({step: 1} if step is not None else descents[target])
        if _repeats(descents[node]):
            raise _Refused(
                "a recursive part of the schema would be evaluated more than once for the same part of a value"
            )


def _repeats(descents: Counter[str]) -> bool:
    return any(
        count + (descents[f"{step[0]}*"] if not step.endswith("*") else 0) > 1 for step, count in descents.items()
    )
