"""One of many transitions, chosen by a key."""

from typing import Any

import pytest

from tests.documents import Document, arrow, document, expr, join, put, route
from tests.engine.world import World


def routed(select: Any, *, default: bool = True) -> Document:
    """`a`, `7` and (perhaps) the default."""
    arrows = [
        arrow("start -> r"),
        arrow("r -> a", branchKey="a"),
        arrow("r -> seven", branchKey="7"),
        arrow("a -> j"),
        arrow("seven -> j"),
        arrow("j -> end"),
    ]
    steps = [route("r", select), put("a", took="a"), put("seven", took="seven"), join("j", "EXCLUSIVE")]
    if default:
        steps.append(put("other", took="other"))
        arrows += [arrow("r -> other", isDefault=True), arrow("other -> j")]
    return document(*steps, *arrows)


@pytest.mark.parametrize(("selected", "taken"), [("'a'", "a"), ("'7'", "seven"), ("7", "seven"), ("'b'", "other")])
def test_the_transition_with_the_selected_key_is_taken(selected: str, taken: str) -> None:
    assert World(routed(expr(selected))).output == {"took": taken}


def test_without_a_match_and_a_default_the_run_fails() -> None:
    failure = World(routed(expr("'b'"), default=False)).failure
    assert (failure.code, failure.step_id) == ("ROUTE_NOT_FOUND", "r")


def test_an_undefined_key_is_an_error_even_with_a_default() -> None:
    assert World(routed(expr("__context__.missing"))).failure.step_id == "r"
