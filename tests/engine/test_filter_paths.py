"""Paths of filters: one rule of scope, and what is no path."""

import pytest

from engine.filters.paths import Path, follow, parse_path


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("after.status", ("after", "status")),
        ("payload.after.status", ("after", "status")),
        ("variable.after.status", ("after", "status")),
        ("trigger.after.status", ("after", "status")),
        ("__trigger__.after.status", ("after", "status")),
        ("{{variable.after.status}}", ("after", "status")),
        ("  {{  trigger.after.status  }} ", ("after", "status")),
        ("payload", ()),
        ("payload.payload.id", ("payload", "id")),
        ('["payload"].id', ("payload", "id")),
        ("items[0].id", ("items", "0", "id")),
        ("items.0.id", ("items", "0", "id")),
        ("[0]", ("0",)),
        ('after["first name"]', ("after", "first name")),
        ("after['a.b'].c", ("after", "a.b", "c")),
        ('a["}}"]', ("a", "}}")),
        ('a["\\u0041\\""]', ("a", 'A"')),
        ("a['']", ("a", "")),
        ("__op", ("__op",)),
        ("größe.名", ("größe", "名")),
        ("$json.a-b@c:d", ("$json", "a-b@c:d")),
    ],
)
def test_a_path_begins_at_the_payload_whatever_the_root_is_called(text: str, members: tuple[str, ...]) -> None:
    path = parse_path(text)
    assert isinstance(path, Path)
    assert path.members == members
    assert parse_path(str(path)) == parse_path(f"{{{{ {path} }}}}") == path
    assert parse_path(path.short) == path


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "{{}}", "{{ }}", ".", "a.", ".a", "a..b", "a b", "a[", "a[]", "a[x]", "a[-1]", "a[*]", "a.*", "{{a}",
        "{a}", "{{a}} {{b}}", "a.{{b}}", 'a["x]', "a['x'", 'a["\\q"]', "a()", "$sum(a)", "'a'", "a[0]b", "x" * 501,
        "a" + ".a" * 50,
    ],
)  # fmt: skip
def test_what_is_no_path_is_told_to_be_none(text: str) -> None:
    assert isinstance(parse_path(text), str)


def test_a_path_that_leads_nowhere_finds_null() -> None:
    payload = {"a": [{"b": 1}, 2], "0": "zero"}
    for text in ("x", "a.b", "a[2]", "a[1].b", "a[0].b.c", "a.00", "a[99999999999]", "a.-1"):
        path = parse_path(text)
        assert isinstance(path, Path)
        assert follow(path, payload) is None
    assert follow(Path(("0",)), payload) == "zero"
    assert follow(Path(("0",)), ["first"]) == "first"
    assert follow(Path(("0",)), "text") is None
