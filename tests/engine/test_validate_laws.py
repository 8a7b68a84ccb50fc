"""Laws of validation over definitions that have been damaged in a few places at random."""

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.compile import compile_document
from engine.validate import has_errors, validate
from tests.documents import Document
from tests.engine.definitions import everything, the_rest, world

# What damages: values of every JSON type, halves of values and expressions, and names that mean something elsewhere.
PIECES: list[Any] = [
    None, 0, -1, 1.5, True, "", "x", "a b", "__steps__.fetch.x", "__context__.x", "(1", [], {}, [1], 1e308, 10**30,
    {"type": "expr", "expr": {"src": "1+"}}, {"type": "expr"}, {"type": "field", "ref": {"source": "EACH"}},
    {"type": "template", "src": "{{"}, {"type": "const", "value": 1}, "START", "END", "start", "mark", "batch",
    "GATEWAY_PARALLEL_JOIN", "sys.action", "GATEWAY_ROUTE", "GATEWAY_EVENT_SPLIT", "ERROR", "DISABLED", "fan", "settle",
    {"policy": "ANY"}, "PT1S", "__error__.code", "__each__", "DATASOURCE", "per-item", False,
]  # fmt: skip


def spots(value: Any) -> list[tuple[Any, Any]]:
    """Every place of a document: the container and the key or index in it."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [spot for key, member in members for spot in [(value, key), *spots(member)]]


@st.composite
def damaged(draw: st.DrawFn) -> Document:
    """A definition of those that use everything, with one to four places dropped, replaced, doubled or swapped."""
    document = draw(st.sampled_from([everything, the_rest]))()
    for _ in range(draw(st.integers(1, 4))):
        places = spots(document)
        container, key = places[draw(st.integers(0, len(places) - 1))]
        match draw(st.sampled_from(["drop", "replace", "copy", "double"])):
            case "drop":
                del container[key]
            case "replace":
                container[key] = copy.deepcopy(draw(st.sampled_from(PIECES)))
            case "copy":
                source, name = places[draw(st.integers(0, len(places) - 1))]
                container[key] = copy.deepcopy(source[name])
            case "double":
                if isinstance(container, list):
                    container.append(copy.deepcopy(container[key]))
    return document


@settings(max_examples=300, deadline=None)
@given(damaged())
def test_validation_always_answers_and_what_it_accepts_compiles(document: Document) -> None:
    before = copy.deepcopy(document)
    problems = validate(document, world())
    assert document == before
    assert validate(document, world()) == problems
    assert all(problem.message and problem.rule and problem.code for problem in problems)
    if not has_errors(problems):
        assert len(compile_document(document).nodes) == len(document["steps"])


@settings(max_examples=200, deadline=None)
@given(damaged())
def test_knowing_more_never_takes_a_finding_about_the_definition_itself_back(document: Document) -> None:
    alone = {each for each in validate(document) if each.severity != "NOT_CHECKED"}
    assert alone <= set(validate(document, world()))
