"""Named signals: who takes them, which are kept, and for how long."""

import pytest

from engine.errors import EngineError
from engine.events import SignalReceived
from engine.signals import fate
from tests.documents import action, arrow, confirm, document, expr, join, line, split, wait_signal
from tests.engine.world import World


def verdict(world: World, name: str, key: str | None = None, signal_id: str | None = None) -> str:
    """What the sender would be told."""
    return fate(world.plan, world.state, name, key, signal_id, world.at)


def test_a_signal_goes_to_the_step_that_waits_for_it() -> None:
    world = World(line(wait_signal("paid"), output=expr("__steps__.paid.amount")))
    assert verdict(world, "paid") == "DELIVERED"
    assert world.signal("paid", {"amount": 3}).output == 3


def test_a_signal_that_comes_early_is_kept() -> None:
    world = World(line(confirm("ok"), wait_signal("paid"), output=expr("__steps__.paid")))
    assert verdict(world, "paid") == "BUFFERED"
    world.signal("paid", 1).signal("paid", 2)
    assert world.done("ok#1").output == 1


def test_signals_that_came_early_are_taken_in_their_order() -> None:
    steps = (confirm("ok"), wait_signal("one", "paid"), wait_signal("two", "paid"))
    world = World(line(*steps, output=[expr("__steps__.one"), expr("__steps__.two")]))
    assert world.signal("paid", 1).signal("paid", 2).done("ok#1").output == [1, 2]


def test_a_step_without_a_buffer_ignores_what_came_before() -> None:
    world = World(line(confirm("ok"), wait_signal("paid", buffer=False), output=expr("__steps__.paid")))
    world.signal("paid", 1).done("ok#1")
    assert world.waits() == {"paid#1": ("paid",)}
    assert world.signal("paid", 2).output == 2


def test_only_so_many_signals_are_kept() -> None:
    world = World(line(confirm("ok"), wait_signal("paid"), limits={"bufferedSignals": 2}))
    world.signal("a").signal("b")
    with pytest.raises(EngineError) as refused:
        verdict(world, "paid")
    assert refused.value.code == "SIGNAL_BUFFER_FULL"
    world.signal("c")
    assert [signal.name for signal in world.state.signals] == ["a", "b"]


def test_a_signal_that_found_no_room_may_be_sent_again() -> None:
    world = World(line(confirm("ok"), wait_signal("paid"), limits={"bufferedSignals": 1}))
    world.signal("other").signal("paid", 1, signal_id="s1")
    world.done("ok#1")
    assert world.signal("paid", 1, signal_id="s1").output == {}


def test_a_signal_that_nobody_takes_is_forgotten_after_its_time() -> None:
    world = World(line(confirm("ok"), wait_signal("paid"), limits={"signalTtl": 60}))
    world.signal("paid")
    world.tick(60_000)
    world.done("ok#1")
    assert world.waits() == {"paid#1": ("paid",)}
    world.signal("paid")
    assert world.ended is not None


def test_room_is_made_by_signals_whose_time_is_over() -> None:
    world = World(line(confirm("ok"), wait_signal("paid"), limits={"signalTtl": 60, "bufferedSignals": 1}))
    world.signal("old")
    world.tick(60_000)
    assert verdict(world, "paid") == "BUFFERED"
    world.signal("paid")
    assert [signal.name for signal in world.state.signals] == ["paid"]


def test_a_correlation_key_chooses_the_signal() -> None:
    world = World(
        line(wait_signal("paid", correlationKey=expr("__context__.order")), output=expr("__steps__.paid")),
        {"order": 7},
    )
    world.signal("paid", "other", "8").signal("paid", "none")
    assert world.waits() == {"paid#1": ("paid", "7")}
    assert world.signal("paid", "mine", "7").output == "mine"


def test_a_step_without_a_correlation_key_takes_any() -> None:
    assert World(line(wait_signal("paid"), output=expr("__steps__.paid"))).signal("paid", 1, "7").output == 1


def test_a_repeated_signal_changes_nothing() -> None:
    steps = (wait_signal("one", "paid"), wait_signal("two", "paid"))
    world = World(line(*steps)).signal("paid", 1, signal_id="s1")
    assert verdict(world, "paid", signal_id="s1") == "DELIVERED"
    world.changes_nothing(SignalReceived("paid", world.tick(), 1, None, "s1"))
    world.signal("paid", 1, signal_id="s2")
    assert world.ended is not None


def test_a_signal_after_the_end_changes_nothing_and_is_refused() -> None:
    world = World(line(wait_signal("paid"))).signal("paid")
    world.changes_nothing(SignalReceived("paid", world.tick(), 1, None, "s9"))
    with pytest.raises(EngineError) as refused:
        verdict(world, "paid")
    assert refused.value.code == "EXECUTION_ENDED"


def test_a_process_without_such_steps_refuses_signals() -> None:
    with pytest.raises(EngineError) as refused:
        verdict(World(line(confirm("ok"))), "paid")
    assert refused.value.code == "SIGNAL_UNKNOWN"


def test_of_several_that_wait_the_one_that_has_waited_longest_is_first() -> None:
    definition = document(
        split("s"),
        confirm("ok"),
        wait_signal("late", "paid"),
        wait_signal("zeroth", "paid"),
        join("j"),
        arrow("start -> s"),
        arrow("s -> ok"),
        arrow("ok -> late"),
        arrow("s -> zeroth"),
        arrow("late -> j"),
        arrow("zeroth -> j"),
        arrow("j -> end"),
        output=[expr("__steps__.zeroth"), expr("__steps__.late")],
    )
    assert World(definition).done("ok#1").signal("paid", 1).signal("paid", 2).output == [1, 2]


def test_items_that_wait_for_one_signal_are_served_in_their_order() -> None:
    waiting = wait_signal("paid", forEach={"iterable": {"type": "EXPRESSION", "expr": {"src": "[1..12]"}}})
    world = World(line(waiting, output=expr("__steps__.paid")))
    for number in range(12):
        world.signal("paid", number)
    assert world.output == list(range(12))


def test_a_wait_that_takes_too_long_fails() -> None:
    world = World(line(wait_signal("paid", timeout=60)))
    world.fire("paid#1/timeout")
    assert world.failure.code == "STEP_TIMED_OUT"


def test_the_clock_of_a_wait_stops_with_the_signal() -> None:
    world = World(line(wait_signal("paid", timeout=60), confirm("ok")))
    assert world.signal("paid").keys() == ["ok#1"]


def test_a_signal_that_waited_already_starts_no_clock() -> None:
    world = World(line(confirm("ok"), wait_signal("paid", timeout=60))).signal("paid").done("ok#1")
    assert world.output == {}
    assert [command for command in world.commands if getattr(command, "key", "") == "paid#1/timeout"] == []


@pytest.mark.parametrize("early", [True, False])
def test_a_mapping_that_fails_after_a_signal_fails_the_step(early: bool) -> None:
    mapping = [{"targetPath": "x", "value": expr("__steps__.paid.missing")}]
    world = World(line(confirm("ok"), wait_signal("paid", outputMapping=mapping)))
    world = world.signal("paid", {}).done("ok#1") if early else world.done("ok#1").signal("paid", {})
    assert world.failure.step_id == "paid"
    assert world.statuses()["paid"] == "FAILED"


def test_signals_add_items_to_a_step_that_runs_over_a_list() -> None:
    each = action("call", parameters=expr("__each__"), forEach=over("[1, 2]"))
    world = World(line(each, output=expr("__steps__.call")))
    assert verdict(world, "call.add") == "DELIVERED"
    world.signal("call.add", 3).signal("call.add", [4, 5])
    assert [world.command(f"call#1/item/{index}").parameters for index in range(5)] == [1, 2, 3, 4, 5]
    for index in range(5):
        world.done(f"call#1/item/{index}", index)
    assert world.output == [0, 1, 2, 3, 4]


def test_items_that_come_before_the_step_are_kept_for_it() -> None:
    each = action("call", parameters=expr("__each__"), forEach=over("[1]"))
    world = World(line(confirm("ok"), each, output=expr("__steps__.call")))
    assert verdict(world, "call.add") == "BUFFERED"
    world.signal("call.add", [2, 3]).done("ok#1")
    assert world.keys() == ["call#1/item/0", "call#1/item/1", "call#1/item/2"]


def over(source: str, **fields: object) -> dict[str, object]:
    """A forEach over an expression."""
    return {"iterable": {"type": "EXPRESSION", "expr": {"src": source}}, **fields}
