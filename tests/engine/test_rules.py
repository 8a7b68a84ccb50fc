"""Every rule is held to its examples, of which it must have both kinds: some that break it and some that do not."""

import pytest

from engine.compile import compile_document
from engine.rules.table import RULES
from engine.validate import has_errors, validate
from tests.engine.definitions import Document, everything, world
from tests.engine.rule_examples import EXAMPLES, Broken, Change

BROKEN = [
    pytest.param(rule, each, id=f"{rule}-{at}")
    for rule, examples in EXAMPLES.items()
    for at, each in enumerate(examples)
    if isinstance(each, Broken)
]
UNBROKEN = [
    pytest.param(rule, each, id=f"{rule}-{at}")
    for rule, examples in EXAMPLES.items()
    for at, each in enumerate(examples)
    if not isinstance(each, Broken)
]


def changed(change: Change) -> Document:
    document = everything()
    change(document)
    return document


def test_the_definition_that_uses_everything_breaks_no_rule() -> None:
    assert validate(everything(), world()) == ()


@pytest.mark.parametrize(("rule", "broken"), BROKEN)
def test_a_breach_is_found_where_it_is(rule: str, broken: Broken) -> None:
    problems = validate(changed(broken.change), world(**broken.world))
    found = [(each.path, each.severity) for each in problems if each.rule == rule]
    assert (broken.path, broken.severity) in found, problems


@pytest.mark.parametrize(("rule", "change"), UNBROKEN)
def test_what_only_comes_close_is_no_breach(rule: str, change: Change) -> None:
    assert [each for each in validate(changed(change), world()) if each.rule == rule] == []


@pytest.mark.parametrize(("rule", "example"), [*BROKEN, *UNBROKEN])
def test_what_has_no_errors_compiles(rule: str, example: Broken | Change) -> None:
    document = changed(example.change if isinstance(example, Broken) else example)
    if not has_errors(validate(document, world())):
        assert len(compile_document(document).nodes) == len(document["steps"])


def test_every_rule_has_an_example_that_breaks_it_and_one_that_does_not() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    assert set(EXAMPLES) == set(names)
    for rule, examples in EXAMPLES.items():
        assert {isinstance(each, Broken) for each in examples} == {True, False}, rule
