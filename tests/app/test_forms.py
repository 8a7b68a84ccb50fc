"""Forms: what may be asked for, and what is said of what is given."""

from typing import Any

import pytest

from app.errors import Invalid
from app.forms.checking import check_properties
from app.forms.reading import read_form

Json = dict[str, Any]
ROWS = {"type": "database", "table": "t", "valueColumn": "id"}
VALUES = [{"name": "A", "value": "a"}, {"name": "One", "value": 1}]


def field(kind: str, name: str = "f", **more: Any) -> Json:
    return {"name": name, "displayName": name.title(), "type": kind, **more}


def found(form: list[Json], given: Json) -> list[tuple[str, str]]:
    return [(fault.path, fault.code) for fault in check_properties(read_form(form), given)]


LOCATOR = field(
    "resourceLocator",
    modes=[
        {"name": "list", "displayName": "List", "type": "list", "typeOptions": {"searchListMethod": "channels"}},
        {"name": "id", "displayName": "Id", "type": "id", "validation": [{"type": "regex", "regex": "^C[0-9]+$"}]},
        {"name": "url", "displayName": "URL", "type": "url", "extractValue": {"type": "regex", "regex": "/c/(\\w+)"}},
    ],
)
GROUPS = field(
    "fixedCollection",
    options=[{"name": "header", "displayName": "H", "values": [field("string", "key", required=True)]}],
)


@pytest.mark.parametrize(
    ("one", "value", "code"),
    [
        (field("string"), "x", None),
        (field("string"), 1, "WRONG_TYPE"),
        (field("string", required=True), "", "REQUIRED"),
        (field("string", required=True, default="d"), None, None),
        (field("string", typeOptions={"multipleValues": True}), ["a", "b"], None),
        (field("string", typeOptions={"multipleValues": True}), "a", "WRONG_TYPE"),
        (field("number"), 1.5, None),
        (field("number"), "1", "WRONG_TYPE"),
        (field("number"), True, "WRONG_TYPE"),
        (field("number", typeOptions={"minValue": 2}), 1, "BELOW_MINIMUM"),
        (field("number", typeOptions={"maxValue": 2}), 3, "ABOVE_MAXIMUM"),
        (field("number", typeOptions={"numberPrecision": 1}), 1.25, "PRECISION"),
        (field("boolean"), False, None),
        (field("boolean"), "true", "WRONG_TYPE"),
        (field("options", options=VALUES), 1, None),
        (field("options", options=VALUES), True, "NOT_AN_OPTION"),
        (field("options", options=VALUES), "b", "NOT_AN_OPTION"),
        (field("options", dataSource={"type": "static", "options": VALUES}), "b", "NOT_AN_OPTION"),
        (field("options", dataSource=ROWS), "b", None),
        (field("multiOptions", options=VALUES), ["a", 1], None),
        (field("multiOptions", options=VALUES), "a", "WRONG_TYPE"),
        (field("multiOptions", options=VALUES), ["a", "b"], "NOT_AN_OPTION"),
        (field("dateTime"), "2026-01-31T09:00:00Z", None),
        (field("dateTime"), "31.1.2026", "DATE"),
        (field("dateTime"), 5, "WRONG_TYPE"),
        (field("json"), '{"a": 1}', None),
        (field("json"), {"a": 1}, None),
        (field("json"), "{", "JSON"),
        (field("json"), 5, "WRONG_TYPE"),
        (field("hidden"), {"any": "thing"}, None),
        (field("notice"), 5, None),
        (field("credentialsSelect"), "cred-1", None),
        (field("credentialsSelect"), {"id": 1}, "WRONG_TYPE"),
        (field("filter"), {"field": "x", "operator": "=", "value": 1}, None),
        (field("filter"), {"combinator": "AND", "conditions": []}, "FILTER_SHAPE"),
        (
            field("filter", typeOptions={"allowedCombinators": ["AND"]}),
            {"combinator": "OR", "conditions": [{"field": "x", "operator": "exists"}]},
            "COMBINATOR",
        ),
        (
            field("filter", typeOptions={"maxConditions": 1}),
            {"combinator": "AND", "conditions": [{"field": "x", "operator": "exists"}] * 2},
            "TOO_MANY_CONDITIONS",
        ),
        (field("assignmentCollection"), {"assignments": [{"name": "a", "value": 1}]}, None),
        (field("assignmentCollection"), {"a": 1}, "WRONG_TYPE"),
        (LOCATOR, {"mode": "list", "value": "C1"}, None),
        (LOCATOR, {"mode": "id", "value": "D1"}, "PATTERN"),
        (LOCATOR, {"mode": "url", "value": "https://x/c/abc"}, None),
        (LOCATOR, {"mode": "url", "value": "https://x/d"}, "PATTERN"),
        (LOCATOR, "C1", "WRONG_TYPE"),
        (GROUPS, {"header": {"key": "a"}}, None),
        (GROUPS, [], None),
        (GROUPS, 5, "WRONG_TYPE"),
        (field("string", validation=[{"type": "length", "min": 2, "max": 3}]), "x", "LENGTH"),
        (field("string", validation=[{"type": "maxLength", "max": 3}]), "xxxx", "LENGTH"),
        (field("number", validation=[{"type": "range", "max": 3}]), 4, "RANGE"),
        (field("string", validation=[{"type": "regex", "regex": "^a"}]), "ba", "PATTERN"),
        (field("number", validation=[{"type": "custom", "expr": "__context__.value % 2 = 0"}]), 3, "RULE"),
        (field("number", validation=[{"type": "custom", "expr": "__context__.value % 2 = 0"}]), 4, None),
    ],
)
def test_a_value_is_held_to_its_field(one: Json, value: Any, code: str | None) -> None:
    faults = found([one], {} if value is None else {"f": value})
    assert [each for _, each in faults] == ([] if code is None else [code])
    assert all(path.startswith("properties.f") for path, _ in faults)


def test_what_is_wrong_inside_a_field_has_its_own_path() -> None:
    options = [field("number", "depth", typeOptions={"minValue": 0}), field("string", "who", required=True)]
    form = [field("collection", options=options), GROUPS | {"name": "g"}, LOCATOR | {"name": "l"}]
    given = {"f": {"depth": -1, "colour": 1}, "g": {"header": {}, "x": {}}, "l": {"mode": "name", "value": "x"}}
    assert found(form, given) == [
        ("properties.f.colour", "UNKNOWN"),
        ("properties.f.depth", "BELOW_MINIMUM"),
        ("properties.f.who", "REQUIRED"),
        ("properties.g.header.key", "REQUIRED"),
        ("properties.g.x", "UNKNOWN"),
        ("properties.l.mode", "MODE_UNKNOWN"),
    ]


def test_what_is_not_asked_for_is_unknown() -> None:
    assert found([field("string")], {"g": 1}) == [("properties.g", "UNKNOWN")]


def test_a_field_is_shown_when_all_of_show_match_and_none_of_hide() -> None:
    form = [
        field("boolean", "on", default=False),
        field("string", "kind", default="a"),
        field("string", required=True, displayOptions={"show": {"on": [True], "kind": ["a"]}}),
        field("string", "h", required=True, displayOptions={"hide": {"on": [True], "kind": ["b"]}}),
    ]
    assert found(form, {}) == [("properties.h", "REQUIRED")]
    assert found(form, {"on": True}) == [("properties.f", "REQUIRED")]
    assert found(form, {"on": True, "kind": "b"}) == []
    assert found(form, {"on": True, "kind": "b", "f": "x"}) == [("properties.f", "NOT_SHOWN")]


def test_the_message_of_a_rule_may_be_its_own() -> None:
    form = [field("string", validation=[{"type": "maxLength", "max": 1, "errorMessage": "Too long!"}])]
    assert [fault.message for fault in check_properties(read_form(form), {"f": "xx"})] == ["Too long!"]


@pytest.mark.parametrize(
    ("form", "path"),
    [
        ([field("colour")], "[0]"),
        (["x"], "[0]"),
        ([field("string", unknown=1)], "[0].unknown"),
        ([field("string", "a b")], "[0].name"),
        ([field("string"), field("number")], "[1]"),
        ([field("options")], "[0].options"),
        ([field("options", options=[{"name": "x"}])], "[0].options[0].value"),
        ([field("options", options=VALUES * 2)], "[0].options[2]"),
        ([field("collection")], "[0].options"),
        ([field("collection", options=[field("string", rows=0)])], "[0].options[0].rows"),
        ([field("resourceLocator", modes=[])], "[0].modes"),
        ([field("number", default="x")], "[0].default"),
        ([field("number", typeOptions={"minValue": 3, "maxValue": 2})], "[0].typeOptions.minValue"),
        ([field("string", validation=[{"type": "regex", "regex": "(a+)\\1"}])], "[0].validation[0].regex"),
        ([field("string", validation=[{"type": "regex"}])], "[0].validation[0]"),
        ([field("string", validation=[{"type": "custom", "expr": "__trigger__.x"}])], "[0].validation[0].expr"),
        ([field("string", displayOptions={"show": {"g": [1]}})], "[0].displayOptions.show.g"),
        ([field("string", typeOptions={"loadOptionsDependsOn": ["g"]})], "[0].typeOptions.loadOptionsDependsOn"),
        ([field("options", dataSource={"type": "ldap"})], "[0].dataSource"),
        (
            [field("options", dataSource=ROWS | {"where": {"field": "x", "operator": "~"}})],
            "[0].dataSource.where.operator",
        ),
    ],
)  # fmt: skip
def test_a_broken_form_is_refused_with_the_place(form: list[Any], path: str) -> None:
    with pytest.raises(Invalid) as raised:
        read_form(form)
    assert raised.value.code == "PROPERTY_FORM_INVALID"
    assert f"properties{path}" in [problem["path"] for problem in raised.value.problems]
