"""What is read before a step."""

from typing import Any

import pytest

from engine.protocol import RunAction
from tests.documents import Document, action, arrow, child, confirm, document, expr, join, line, put, split, step
from tests.engine.world import World


def source(alias: str = "d", **fields: Any) -> Document:
    """A datasource."""
    return {"alias": alias, "dataSourceId": f"test.{alias}", **fields}


def test_a_datasource_is_read_through_its_action_before_the_step() -> None:
    call = action(
        "a", dataSources=[source(params={"id": expr("__context__.id")})], parameters=expr("__datasources__.d.x")
    )
    world = World(line(call), {"id": 7})
    read = world.command("a#1/data/d")
    assert isinstance(read, RunAction)
    assert (read.action_key, read.parameters) == ("test.d", {"id": 7})
    assert world.done("a#1/data/d", {"x": 1}).command("a#1").parameters == 1


def test_a_datasource_is_cut_down_to_what_is_selected() -> None:
    call = action("a", dataSources=[source(select="__result__.rows[0]")], parameters=expr("__datasources__.d"))
    assert World(line(call)).done("a#1/data/d", {"rows": [3, 4]}).command("a#1").parameters == 3


def test_several_are_read_at_once() -> None:
    call = action(
        "a", dataSources=[source("x"), source("y")], parameters=[expr("__datasources__.x"), expr("__datasources__.y")]
    )
    world = World(line(call))
    assert world.keys() == ["a#1/data/x", "a#1/data/y"]
    assert world.done("a#1/data/y", 2).done("a#1/data/x", 1).command("a#1").parameters == [1, 2]


@pytest.mark.parametrize("step_", [child("a"), confirm("a"), put("a", x=expr("__datasources__.d"))])
def test_any_step_may_read(step_: Document) -> None:
    world = World(line({**step_, "dataSources": [source()]})).done("a#1/data/d", 5)
    assert world.output == {"x": 5} if step_["type"] == "SYS_SET" else world.keys() == ["a#1"]


def test_a_gateway_may_read() -> None:
    definition = document(
        step("x", "GATEWAY_EXCLUSIVE_SPLIT", dataSources=[source()]),
        put("a", took="a"),
        put("b", took="b"),
        join("m", "EXCLUSIVE"),
        arrow("start -> x"),
        arrow("x -> a", condition="__datasources__.d = 1"),
        arrow("x -> b", isDefault=True),
        arrow("a -> m"),
        arrow("b -> m"),
        arrow("m -> end"),
    )
    assert World(definition).done("x#1/data/d", 1).output == {"took": "a"}
    assert World(definition).done("x#1/data/d", 2).output == {"took": "b"}
    assert World(definition).failed("x#1/data/d").failure.step_id == "x"


def thrice(target: Document) -> Document:
    """Three tokens, the last behind a person, at one step."""
    return document(
        split("s"),
        put("p", p=1),
        put("q", q=1),
        confirm("later"),
        join("m", "EXCLUSIVE"),
        target,
        arrow("start -> s"),
        arrow("s -> p"),
        arrow("s -> q"),
        arrow("s -> later"),
        arrow("p -> m"),
        arrow("q -> m"),
        arrow("later -> m"),
        arrow(f"m -> {target['id']}"),
        arrow(f"{target['id']} -> end"),
    )


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_visits_that_read_at_once_keep_their_numbers(order: tuple[int, ...]) -> None:
    append = [{"targetPath": "seen", "value": expr("__datasources__.d"), "mode": "append"}]
    world = World(thrice(step("x", "SYS_SET", assignments=append, dataSources=[source()])))
    first, second = order
    world.done(f"x#{first}/data/d", first)
    world.done("later#1")
    assert world.keys() == [f"x#{second}/data/d", "x#3/data/d"]
    assert world.state.steps["x"].visits == 3
    assert world.done(f"x#{second}/data/d", second).done("x#3/data/d", 3).output["seen"] == [first, second, 3]


def test_a_datasource_that_cannot_be_read_fails_the_step_and_the_others_are_stopped() -> None:
    world = World(line(action("a", dataSources=[source("x"), source("y")]))).failed("a#1/data/x")
    assert world.withdrawn == {"a#1/data/y"}
    assert world.settle().failure.code == "BROKEN"


def test_a_datasource_that_cannot_be_read_may_be_caught() -> None:
    definition = document(
        action("a", dataSources=[source("x"), source("y")]),
        put("mend", code=expr("__error__.code")),
        join("m", "EXCLUSIVE"),
        arrow("start -> a"),
        arrow("a -> m"),
        arrow("a -> mend", on="ERROR"),
        arrow("mend -> m"),
        arrow("m -> end"),
    )
    assert World(definition).failed("a#1/data/x").settle().output == {"code": "BROKEN"}


def test_a_retry_reads_again_once_what_was_stopped_has_answered() -> None:
    world = World(line(action("a", onFailure="INCIDENT", dataSources=[source("x"), source("y")])))
    world.failed("a#1/data/x").resolve("a#1", "RETRY")
    assert world.keys() == ["a#1/data/y"]
    world.settle()
    assert world.keys() == ["a#1/data/x", "a#1/data/y"]
    assert world.done("a#1/data/x").done("a#1/data/y").keys() == ["a#1"]


def test_a_selection_that_fails_parks_the_step() -> None:
    world = World(line(action("a", onFailure="INCIDENT", dataSources=[source(select="__result__.x")])))
    assert world.done("a#1/data/d", {}).keys() == ["a#1"]
    assert world.resolve("a#1", "RETRY").done("a#1/data/d", {"x": 1}).keys() == ["a#1"]


def test_parameters_of_a_datasource_that_fail_fail_the_step() -> None:
    world = World(line(action("a", dataSources=[source("x"), source("y", params=expr("__context__.missing"))])))
    assert world.failure.step_id == "a"


def test_the_data_is_seen_by_the_mapping_of_the_output() -> None:
    mapping = [{"targetPath": "x", "value": expr("__datasources__.d")}]
    world = World(line(action("a", dataSources=[source()], outputMapping=mapping)))
    assert world.done("a#1/data/d", 4).done("a#1").output == {"x": 4}


def test_the_data_is_not_seen_by_the_next_step() -> None:
    world = World(
        line(
            action("a", dataSources=[source()]),
            action("b", dataSources=[source()], parameters=expr("__datasources__.d")),
        )
    )
    world.done("a#1/data/d", 1).done("a#1").done("b#1/data/d", 2)
    assert world.command("b#1").parameters == 2


def test_a_list_may_come_from_a_datasource() -> None:
    over = {"iterable": {"type": "DATASOURCE", "alias": "d", "select": "rows"}}
    world = World(line(action("a", dataSources=[source()], forEach=over, parameters=expr("__each__"))))
    world.done("a#1/data/d", {"rows": ["p", "q"]})
    assert [world.command(key).parameters for key in sorted(world.open)] == ["p", "q"]


def test_reading_takes_no_place_among_the_actions() -> None:
    definition = document(
        split("s"),
        action("a"),
        action("b", dataSources=[source()]),
        join("j"),
        arrow("start -> s"),
        arrow("s -> a"),
        arrow("s -> b"),
        arrow("a -> j"),
        arrow("b -> j"),
        arrow("j -> end"),
        limits={"parallelism": 1},
    )
    world = World(definition)
    assert world.keys() == ["a#1", "b#1/data/d"]
    world.done("b#1/data/d")
    assert world.keys() == ["a#1"]
    assert world.done("a#1").done("b#1").output == {}
