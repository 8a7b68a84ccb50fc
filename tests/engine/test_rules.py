"""Every rule is held to its examples, of which it must have both kinds: some that break it and some that do not."""

from collections.abc import Callable, Iterator

import pytest

from engine.compile import compile_document
from engine.rules.table import RULES
from engine.validate import has_errors, validate
from tests.documents import Document
from tests.engine.definitions import everything, the_rest, world
from tests.engine.rule_examples import EXAMPLES, Broken, Change
from tests.engine.rule_examples_rest import THE_REST

Base = Callable[[], Document]


def cases() -> Iterator[tuple[str, Broken | Change, Base, str]]:
    """Every example with its rule, the definition that it changes, and a name."""
    for base, examples in ((everything, EXAMPLES), (the_rest, THE_REST)):
        for rule, listed in examples.items():
            for at, example in enumerate(listed):
                yield rule, example, base, f"{rule}-{base.__name__}-{at}"


BROKEN = [pytest.param(*case, id=name) for *case, name in cases() if isinstance(case[1], Broken)]
UNBROKEN = [pytest.param(*case, id=name) for *case, name in cases() if not isinstance(case[1], Broken)]


def changed(base: Base, change: Change) -> Document:
    document = base()
    change(document)
    return document


@pytest.mark.parametrize("base", [everything, the_rest])
def test_the_definitions_that_use_everything_break_no_rule(base: Base) -> None:
    assert validate(base(), world()) == ()


@pytest.mark.parametrize(("rule", "broken", "base"), BROKEN)
def test_a_breach_is_found_where_it_is(rule: str, broken: Broken, base: Base) -> None:
    problems = validate(changed(base, broken.change), world(**broken.world))
    found = [(each.path, each.severity) for each in problems if each.rule == rule]
    assert (broken.path, broken.severity) in found, problems


@pytest.mark.parametrize(("rule", "change", "base"), UNBROKEN)
def test_what_only_comes_close_is_no_breach(rule: str, change: Change, base: Base) -> None:
    assert [each for each in validate(changed(base, change), world()) if each.rule == rule] == []


@pytest.mark.parametrize(("rule", "example", "base"), [*BROKEN, *UNBROKEN])
def test_what_has_no_errors_compiles(rule: str, example: Broken | Change, base: Base) -> None:
    document = changed(base, example.change if isinstance(example, Broken) else example)
    if not has_errors(validate(document, world())):
        assert len(compile_document(document).nodes) == len(document["steps"])


def test_every_rule_has_an_example_that_breaks_it_and_one_that_does_not() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    assert set(EXAMPLES) | set(THE_REST) == set(names)
    for rule in names:
        examples = (*EXAMPLES.get(rule, ()), *THE_REST.get(rule, ()))
        assert {isinstance(each, Broken) for each in examples} == {True, False}, rule
