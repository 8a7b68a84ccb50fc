"""Waits for a signal under a correlation key: others learn when one begins and when it is over, once each."""

from typing import Any

from engine.compile import compile_document
from engine.events import SignalReceived
from engine.migration import migrate
from engine.protocol import CloseWait, Command, OpenWait, SpawnChildren
from engine.repair import Point, resume_from, retry_failed
from tests.documents import (
    action,
    arrow,
    batch,
    confirm,
    delay,
    document,
    event_split,
    expr,
    join,
    line,
    split,
    wait_signal,
)
from tests.engine.world import World

ITEMS = {"iterable": {"type": "EXPRESSION", "expr": {"src": "[7, 8, 9]"}}, "concurrency": 2}


def keyed(step_id: str, **fields: Any) -> Any:
    """A step that waits for `paid` under the key of the order."""
    return wait_signal(step_id, "paid", **{"correlationKey": expr("__context__.order"), **fields})


def told(world: World) -> list[Command]:
    """What was said of waits, in order."""
    return [command for command in world.commands if isinstance(command, OpenWait | CloseWait)]


def test_a_wait_under_a_key_is_told_of_and_is_over_with_its_signal() -> None:
    world = World(line(keyed("wait"), confirm("ok")), {"order": 7})
    assert told(world) == [OpenWait("wait#1", "paid", "7")]
    world.signal("paid", 1, "8")
    assert told(world) == [OpenWait("wait#1", "paid", "7")]
    world.signal("paid", 1, "7")
    assert told(world) == [OpenWait("wait#1", "paid", "7"), CloseWait("wait#1")]


def test_a_wait_without_a_key_is_not_told_of() -> None:
    world = World(line(wait_signal("wait", "paid", timeout=60), wait_signal("other")))
    world.signal("paid").signal("other")
    assert told(world) == []


def test_a_signal_that_came_before_is_taken_without_a_wait() -> None:
    world = World(line(confirm("ok"), keyed("wait")), {"order": 7})
    world.signal("paid", 1, "7").done("ok#1")
    assert world.ended is not None
    assert told(world) == []


def test_a_wait_that_takes_too_long_is_over_and_begins_again_with_the_next_attempt() -> None:
    world = World(line(keyed("wait", timeout=60, retry={"maxAttempts": 2})), {"order": 7})
    world.fire("wait#1/timeout")
    assert told(world) == [OpenWait("wait#1", "paid", "7"), CloseWait("wait#1")]
    world.fire("wait#1/retry")
    world.fire("wait#1/timeout")
    assert told(world) == [OpenWait("wait#1", "paid", "7"), CloseWait("wait#1")] * 2


def test_the_waits_that_lose_a_race_are_over() -> None:
    definition = document(
        event_split("race"),
        keyed("one"),
        keyed("two", correlationKey="other"),
        delay("later", "PT1H"),
        join("met", "EXCLUSIVE"),
        arrow("start -> race"),
        *(arrow(f"race -> {name}") for name in ("one", "two", "later")),
        *(arrow(f"{name} -> met") for name in ("one", "two", "later")),
        arrow("met -> end"),
    )
    world = World(definition, {"order": 7}).signal("paid", 1, "other")
    assert sorted(map(str, told(world)[2:])) == [str(CloseWait("one#1")), str(CloseWait("two#1"))]


def test_a_wait_that_is_won_before_it_is_told_of_is_never_told_of() -> None:
    definition = document(
        confirm("ok"),
        event_split("race"),
        keyed("one"),
        keyed("two", correlationKey="other"),
        join("met", "EXCLUSIVE"),
        arrow("start -> ok"),
        arrow("ok -> race"),
        *(arrow(f"race -> {name}") for name in ("one", "two")),
        *(arrow(f"{name} -> met") for name in ("one", "two")),
        arrow("met -> end"),
    )
    world = World(definition, {"order": 7}).signal("paid", 1, "other").done("ok#1")
    assert world.ended is not None
    assert told(world) == []


def test_items_wait_each_under_their_own_key() -> None:
    world = World(line(keyed("wait", correlationKey=expr("__each__"), forEach=ITEMS)))
    assert told(world) == [OpenWait("wait#1/item/0", "paid", "7"), OpenWait("wait#1/item/1", "paid", "8")]
    world.signal("paid", 1, "8")
    assert told(world)[2:] == [CloseWait("wait#1/item/1"), OpenWait("wait#1/item/2", "paid", "9")]


def test_a_repeated_step_waits_anew_in_each_iteration() -> None:
    world = World(line(keyed("wait", repeat={"until": "__iteration__ = 1"})), {"order": 7})
    world.signal("paid", 1, "7").signal("paid", 2, "7")
    assert told(world) == [OpenWait("wait#1", "paid", "7"), CloseWait("wait#1")] * 2


def test_a_pause_neither_ends_a_wait_nor_lets_one_begin() -> None:
    world = World(line(keyed("wait"), keyed("again")), {"order": 7}).paused()
    world.signal("paid", 1, "7")
    assert told(world)[1:] == [CloseWait("wait#1")]
    world.resumed()
    assert told(world)[2:] == [OpenWait("again#1", "paid", "7")]


def test_a_run_that_is_cancelled_waits_for_nothing() -> None:
    world = World(line(keyed("wait")), {"order": 7}).cancelled()
    assert told(world)[1:] == [CloseWait("wait#1")]


def test_a_run_that_is_carried_over_tells_nothing_twice() -> None:
    world = World(line(keyed("wait"), confirm("ok")), {"order": 7})
    world.carried_over()
    world.signal("paid", 1, "7")
    assert told(world) == [OpenWait("wait#1", "paid", "7"), CloseWait("wait#1")]


def test_a_run_that_is_taken_up_again_tells_anew_what_it_waits_for() -> None:
    world = World(line(action("call"), keyed("wait"), confirm("ok")), {"order": 7}).done("call#1").cancelled()
    world.taken_up(retry_failed(world.plan, world.state, world.tick()))
    assert told(world) == [OpenWait("wait#1", "paid", "7")]
    point = Point("call", gives_output=True, output=1)
    world.cancelled().taken_up(resume_from(world.plan, world.state, point, world.tick()))
    assert told(world) == [OpenWait("wait#2", "paid", "7")]


def test_a_wait_that_becomes_another_step_of_the_next_version_is_over() -> None:
    world = World(line(keyed("wait")), {"order": 7})
    kept = migrate(world.plan, compile_document(line(keyed("wait"), confirm("ok"))), world.state, {}, world.at)
    assert kept.commands == ()
    new = compile_document(line(keyed("other")))
    mapped = migrate(world.plan, new, world.state, {"wait": "other"}, world.at)
    assert CloseWait("wait#1") in mapped.commands


def test_a_signal_for_who_waits_now_has_not_come_where_nobody_does() -> None:
    world = World(line(confirm("ok"), keyed("wait")), {"order": 7})
    world.give(SignalReceived("paid", world.tick(), 1, "7", "s1", awaited=True))
    assert world.state.signals == ()
    assert world.state.receipts == ()
    world.done("ok#1")
    world.give(SignalReceived("paid", world.tick(), 1, "7", "s1", awaited=True))
    assert world.ended is not None


def test_a_signal_for_one_wait_goes_to_no_other() -> None:
    world = World(parallel_waits("one", "two"), {"order": 7})

    def signalled(wait_key: str, signal_id: str) -> World:
        return world.give(SignalReceived("paid", world.tick(), signal_id, "7", signal_id, True, wait_key))

    signalled("two#1", "s1")
    assert told(world)[2:] == [CloseWait("two#1")]
    signalled("two#1", "s2")
    assert world.waits() == {"one#1": ("paid", "7")}
    assert world.state.receipts == ("s1",)
    assert signalled("one#1", "s2").ended is not None


def parallel_waits(*names: str) -> Any:
    """Steps that wait at the same time for the same."""
    arrows = [arrow(text) for name in names for text in (f"s -> {name}", f"{name} -> j")]
    return document(split("s"), *map(keyed, names), join("j"), arrow("start -> s"), *arrows, arrow("j -> end"))


def test_children_that_are_begun_beside_a_wait_are_one_command() -> None:
    # As they are for runs whose revision says nothing of waits: their histories have one row-writing for both.
    retry = {"maxAttempts": 2, "initialInterval": 1}
    definition = document(
        split("s"),
        batch("kids", "[1, 2]", retry=retry),
        keyed("wait", repeat={"until": "__iteration__ = 1"}),
        join("j"),
        *(arrow(text) for text in ("start -> s", "s -> kids", "s -> wait", "kids -> j", "wait -> j", "j -> end")),
    )
    world = World(definition, {"order": 7}).failed("kids#1/item/0").failed("kids#1/item/1")
    world.paused().fire("kids#1/item/0/retry").signal("paid", 1, "7").fire("kids#1/item/1/retry").resumed()
    assert [len(command.children) for command in world.said(SpawnChildren)] == [2, 2]
    assert told(world) == [OpenWait("wait#1", "paid", "7"), CloseWait("wait#1"), OpenWait("wait#1", "paid", "7")]
