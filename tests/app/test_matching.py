"""What a subscription makes of an event."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.db.event_tables import Subscription
from app.db.tables import new_id
from app.subscriptions.matching import ReadSubscription, read_subscription
from app.subscriptions.narrowing import path_matches
from engine.errors import EngineError
from engine.filters.faults import FilterError

WON: dict[str, Any] = {
    "operation": "UPDATE",
    "table": "deals",
    "before": {"id": 42, "status": "open", "amount": 10.5},
    "after": {"id": 42, "status": "won", "amount": 10.5},
    "changed_columns": ["status"],
}


def row(**fields: Any) -> Subscription:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Subscription(
        **{
            "id": new_id(),
            "template_id": new_id(),
            "trigger_id": new_id(),
            "trigger_key": "deals_db_change",
            "properties": {},
            "created_at": at,
            "updated_at": at,
            **fields,
        }
    )


def read(**fields: Any) -> ReadSubscription:
    return read_subscription(row(**fields))


def refused(code: str, ask: Any) -> str:
    with pytest.raises(EngineError) as raised:
        ask()
    assert raised.value.code == code
    return raised.value.message


def test_without_anything_every_event_matches_and_the_payload_is_the_context() -> None:
    subscription = read()
    assert subscription.matches(WON)
    assert subscription.matches(None)
    assert subscription.context(WON) == WON
    assert subscription.name(WON) is None
    assert subscription.correlation_key(WON) is None


def test_the_filter_decides() -> None:
    won = {"field": "after.status", "operator": "=", "value": "won"}
    assert read(filter=won).matches(WON)
    assert not read(filter=won).matches(WON | {"after": {"status": "lost"}})


@pytest.mark.parametrize(
    ("properties", "payload", "expected"),
    [
        ({"operations": ["UPDATE"]}, WON, True),
        ({"operations": ["insert", "update"]}, WON, True),
        ({"operations": ["INSERT", "DELETE"]}, WON, False),
        ({"operations": []}, WON, True),
        ({"operations": ["UPDATE"]}, {"after": {}}, False),
        ({"operations": ["UPDATE"]}, [1], False),
        ({"monitor_columns": True, "columns": ["status"]}, WON, True),
        ({"monitor_columns": True, "columns": ["amount"]}, WON, False),
        ({"monitor_columns": False, "columns": ["amount"]}, WON, True),
        ({"columns": ["amount"]}, WON, False),
        ({"columns": ["amount"]}, {"operation": "INSERT", "after": {"amount": 1}}, True),
        ({"columns": ["amount"]}, {"operation": "DELETE", "before": {"amount": 1}}, True),
        ({"columns": ["status"]}, {key: WON[key] for key in ("operation", "before", "after")}, True),
        ({"columns": ["amount"]}, {key: WON[key] for key in ("operation", "before", "after")}, False),
        ({"columns": ["status"]}, {"operation": "UPDATE", "before": None, "after": {"status": 1}}, False),
        ({"methods": ["POST"]}, {"method": "post"}, True),
        ({"methods": ["PUT"]}, {"method": "POST"}, False),
        ({"path": "/orders/*"}, {"path": "/orders/42/lines"}, True),
        ({"path": "orders/??"}, {"path": "/orders/42"}, True),
        ({"path": "/orders/??"}, {"path": "/orders/421"}, False),
        ({"path": "/orders"}, {}, False),
        ({"anything": "else"}, WON, True),
    ],
)
def test_properties_narrow_which_events_match(properties: dict[str, Any], payload: Any, expected: bool) -> None:
    subscription = read(properties=properties)
    assert subscription.matches(payload) is expected
    explained = subscription.explain(payload)
    assert explained.holds is expected
    assert expected or any(each.reason for each in explained.properties)


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*", "", True),
        ("a*c", "abbbc", True),
        ("a*c", "abbbd", False),
        ("**b", "ab", True),
        ("?", "", False),
        ("a", "ab", False),
        ("[a]", "a", False),
    ],
)
def test_a_path_is_compared_letter_by_letter(pattern: str, path: str, expected: bool) -> None:
    assert path_matches(pattern, path) is expected


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    assert not path_matches("*a" * 200 + "b", "a" * 2_000)


def test_context_name_and_key_are_worked_out_from_the_payload() -> None:
    subscription = read(
        context={
            "deal": "{{ after }}",
            "was": {"type": "field", "ref": {"source": "TRIGGER", "path": "before.status"}},
            "twice": {"type": "expr", "expr": {"src": "__trigger__.after.amount * 2"}},
            "literally": {"type": "const", "value": "{{ after }}"},
            "kind": "deal",
        },
        name={"type": "template", "src": "Deal {{ __trigger__.after.id }}"},
        correlation_key="{{ after.id }}",
    )
    assert subscription.context(WON) == {
        "deal": WON["after"],
        "was": "open",
        "twice": 21,
        "literally": "{{ after }}",
        "kind": "deal",
    }
    assert subscription.name(WON) == "Deal 42"
    assert subscription.correlation_key(WON) == "42"


@pytest.mark.parametrize(("found", "key"), [(42, "42"), (42.0, "42"), ("42", "42"), (4.5, "4.5"), (" a ", " a ")])
def test_a_number_and_its_text_are_one_correlation_key(found: Any, key: str) -> None:
    assert read(correlation_key="{{ id }}").correlation_key({"id": found}) == key


@pytest.mark.parametrize("found", [None, "", "  ", True, [1], {"a": 1}, "x" * 401])
def test_an_event_without_a_usable_correlation_key_is_refused(found: Any) -> None:
    refused("CORRELATION_KEY_INVALID", lambda: read(correlation_key="{{ id }}").correlation_key({"id": found}))


def test_what_is_missing_is_an_error_unless_the_value_provides_for_it() -> None:
    refused("EXPRESSION_UNDEFINED", lambda: read(name="{{ nobody }}").name(WON))
    optional = {"type": "field", "ref": {"source": "TRIGGER", "path": "nobody"}, "optional": True}
    assert read(name=optional).name(WON) is None
    assert read(context={"who": optional}).context(WON) == {}


def test_a_long_name_is_cut_and_a_name_that_is_no_text_is_refused() -> None:
    assert read(name="{{ t }}").name({"t": "x" * 500}) == "x" * 200
    assert read(name="{{ t }}").name({"t": 7}) == "7"
    refused("NAME_INVALID", lambda: read(name="{{ t }}").name({"t": [1]}))


@pytest.mark.parametrize("payload", [None, 1, "x", [1]])
def test_a_context_that_is_no_object_is_refused(payload: Any) -> None:
    refused("CONTEXT_INVALID", lambda: read().context(payload))
    assert read(context={"payload": "{{ payload }}"}).context(payload) == {"payload": payload}


CHANCE = {"type": "expr", "expr": {"src": "$random()"}}


@pytest.mark.parametrize(
    "value",
    [
        {"type": "expr", "expr": {"src": "$now()"}},
        {"type": "expr", "expr": {"src": "__context__.x"}},
        {"type": "template", "src": "{{ $uuid() }}"},
        {"type": "field", "ref": {"source": "CONTEXT", "path": "x"}},
        {"a": [{"type": "field", "ref": {"source": "TRIGGER", "path": "x"}, "default": CHANCE}]},
        "Deal {{ after.id }}",
        "{{ }}",
        {"type": "expr", "expr": {"src": "("}},
    ],
)
def test_a_value_sees_the_event_alone(value: Any) -> None:
    refused("EXPRESSION_INVALID", lambda: read(context=value))


def test_a_broken_filter_is_an_error_and_never_an_answer() -> None:
    with pytest.raises(FilterError):
        read(filter={"field": "x", "operator": "like", "value": "y"})


def test_a_row_is_read_once_until_it_changes() -> None:
    one = row(name="{{ a }}")
    assert read_subscription(one) is read_subscription(one)
    changed = row(id=one.id, name="{{ b }}", updated_at=one.updated_at + timedelta(seconds=1))
    assert read_subscription(changed).name({"a": "old", "b": "new"}) == "new"
