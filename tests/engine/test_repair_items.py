"""Taking a closed run up again at one item of a step."""

from engine.protocol import Complete
from tests.documents import action, arrow, batch, document, expr, join, line, put, split
from tests.engine.test_repair import code_of, resumed
from tests.engine.world import World


def test_one_item_is_done_again_and_the_others_keep_what_they_gave() -> None:
    world = World(line(batch("all", "[1..3]"), output=expr("__steps__.all")))
    for index in range(3):
        world.done(f"all#1/item/{index}", index)
    resumed(world, "all", item=1)
    assert world.keys() == ["all#2/item/1"]
    assert world.done("all#2/item/1", "again").output == [0, "again", 2]


def test_an_output_that_is_given_takes_the_place_of_doing_one_item_again() -> None:
    each = {"iterable": {"type": "EXPRESSION", "expr": {"src": "[1..3]"}}}
    promise = {"outputSchema": {"type": "integer"}}
    world = World(line(action("all", forEach=each, **promise), output=expr("__steps__.all")))
    for index in range(3):
        world.done(f"all#1/item/{index}", index)
    assert code_of(world, "all", item=1, gives_output=True, output="nine") == "OUTPUT_INVALID"
    assert resumed(world, "all", item=1, gives_output=True, output=9).output == [0, 9, 2]
    assert code_of(world, "all", item=3, gives_output=True, output=9) == "ITEM_NOT_FOUND"


def test_an_item_of_an_earlier_visit_is_refused_because_its_others_are_not_kept() -> None:
    each = {"iterable": {"type": "EXPRESSION", "expr": {"src": "[1, 2]"}}}
    world = World(
        document(
            join("m", "EXCLUSIVE"),
            action("all", forEach=each),
            put("count", n=expr("__context__.n + 1")),
            split("x", "EXCLUSIVE"),
            *(arrow(text) for text in ("start -> m", "m -> all", "all -> count", "count -> x")),
            arrow("x -> m", condition="__context__.n < 2"),
            arrow("x -> end", isDefault=True),
        ),
        {"n": 0},
    )
    for visit in (1, 2):
        for item in (0, 1):
            world.done(f"all#{visit}/item/{item}", [visit, item])
    assert isinstance(world.ended, Complete)
    assert code_of(world, "all", visit=1, item=0, context={"n": 1}) == "ITEM_NOT_FOUND"
    assert resumed(world, "all", visit=2, item=0).keys() == ["all#3/item/0"]
