"""Writing into the context."""

import pytest
from immutables import Map

from engine.context import plain, written
from engine.errors import ExpressionError
from engine.expression import Moment
from engine.plan import Write
from engine.values import Const

MOMENT = Moment(0, "seed")


def write(context: dict[str, object], path: str, value: object, *, append: bool = False) -> dict[str, object]:
    change = Write(tuple(path.split(".")), Const(value), append)  # type: ignore[arg-type]
    return plain(written(Map(context), (change,), {}, MOMENT))  # type: ignore[arg-type, return-value]


def test_missing_objects_on_the_way_are_made() -> None:
    assert write({}, "a.b.c", 1) == {"a": {"b": {"c": 1}}}


def test_what_stands_beside_the_path_stays() -> None:
    assert write({"a": {"x": 1}, "z": 2}, "a.b", 1) == {"a": {"x": 1, "b": 1}, "z": 2}


def test_a_number_steps_into_a_list() -> None:
    assert write({"a": [{"n": 1}, {"n": 2}]}, "a.1.n", 9) == {"a": [{"n": 1}, {"n": 9}]}


def test_append_makes_the_list_when_there_is_none() -> None:
    assert write({}, "a.list", 1, append=True) == {"a": {"list": [1]}}


def test_the_given_context_is_never_changed() -> None:
    before = {"a": {"list": [1]}}
    context = Map(before)
    written(context, (Write(("a", "list"), Const(2), append=True),), {}, MOMENT)
    assert before == {"a": {"list": [1]}}


@pytest.mark.parametrize(
    ("context", "path", "append"),
    [({"a": 1}, "a.b", False), ({"a": [1]}, "a.7", False), ({"a": [1]}, "a.x", False), ({"a": {}}, "a", True)],
)
def test_what_is_no_container_is_refused(context: dict[str, object], path: str, append: bool) -> None:
    with pytest.raises(ExpressionError) as refused:
        write(context, path, 1, append=append)
    assert refused.value.code == "CONTEXT_WRITE_INVALID"
