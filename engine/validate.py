"""Everything that is wrong with a definition, at once, each finding with a rule, a code and a path."""

from collections.abc import Iterable, Mapping
from typing import Any

from engine.catalogue import Catalogue
from engine.definition import Definition
from engine.problems import Problem, Severity
from engine.rules.examined import examine, problem
from engine.rules.shape import read_shape, size_findings
from engine.rules.table import DEFINITION_SHAPE, RULES, SIZE_LIMIT


def validate(document: Mapping[str, Any], catalogue: Catalogue | None = None) -> tuple[Problem, ...]:
    """All problems of a stored document, in the order of the rules and, within a rule, of the document.

    A document that is too large, or not of the right shape, gets those problems only, since the rules could not make
    sense of it. Without a catalogue the rules that need one say NOT_CHECKED, once each, where they would apply.
    """
    plain = dict(document)
    too_much = tuple(problem(*SIZE_LIMIT, finding) for finding in size_findings(plain))
    if too_much:
        return too_much
    shape = read_shape(plain)
    if not isinstance(shape, Definition):
        return tuple(problem(*DEFINITION_SHAPE, finding) for finding in shape)
    examined = examine(shape, catalogue)
    return tuple(found for rule in RULES for found in rule.problems(examined))


def has_errors(problems: Iterable[Problem]) -> bool:
    """Whether anything stands in the way of publishing."""
    return any(found.severity is Severity.ERROR for found in problems)
