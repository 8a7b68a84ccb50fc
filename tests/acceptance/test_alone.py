"""What the command line says when nothing runs: files are judged here, everything else is refused with a reason."""

import json
import socket
from pathlib import Path

import pytest

from tests.acceptance.running import EXAMPLES, millrace

EXAMPLE_FILES = sorted(EXAMPLES.glob("*.json"))


@pytest.mark.parametrize("file", EXAMPLE_FILES, ids=lambda file: file.stem)
def test_an_example_is_a_valid_definition(file: Path, tmp_path: Path) -> None:
    said = millrace(tmp_path, "validate", str(file), "--json")
    assert said.code == 0, said.out
    assert [one for one in said.json()["problems"] if one["severity"] != "NOT_CHECKED"] == []


def test_every_problem_is_listed_with_its_path(tmp_path: Path) -> None:
    document = json.loads((EXAMPLES / "customer-notice.json").read_text())
    document["steps"][1]["parameters"]["body"]["to"] = {"type": "expr", "expr": {"src": "__steps__.nobody.x"}}
    document["stepTransitions"][1]["toStepId"] = "nowhere"
    file = tmp_path / "bad.json"
    file.write_text(json.dumps(document))
    said = millrace(tmp_path, "validate", str(file))
    assert said.code == 1
    assert "steps[1].parameters.body.to" in said.out
    assert "stepTransitions[1]" in said.out


@pytest.mark.parametrize(
    ("content", "code"),
    [(None, "FILE_NOT_READABLE"), (b"{", "FILE_NOT_JSON"), (b"[]", "FILE_NOT_JSON"), (b"\xff\xfe", "FILE_NOT_JSON")],
    ids=["missing", "broken", "a list", "not text"],
)
def test_a_file_that_is_no_definition_is_refused(content: bytes | None, code: str, tmp_path: Path) -> None:
    file = tmp_path / "definition.json"
    if content is not None:
        file.write_bytes(content)
    said = millrace(tmp_path, "validate", str(file))
    assert (said.code, said.err.split(":")[0]) == (1, code)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("executions", "list"), "API_UNKNOWN"),
        (("executions", "list", "--api", "http://127.0.0.1:9"), "API_UNREACHABLE"),
        (("executions", "list", "--api", "nonsense"), "API_UNREACHABLE"),
        (("api",), "NOT_CONFIGURED"),
        (("worker",), "NOT_CONFIGURED"),
        (("migrate",), "NOT_CONFIGURED"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_what_cannot_be_reached_is_said_with_a_code(words: tuple[str, ...], code: str, tmp_path: Path) -> None:
    said = millrace(tmp_path, *words)
    assert (said.code, said.err.split(":")[0]) == (1, code)


def test_an_unreachable_database_is_said_with_a_code(tmp_path: Path) -> None:
    said = millrace(tmp_path, "migrate", MILLRACE_DATABASE__URL="postgresql://u:secret@127.0.0.1:9/x")
    assert (said.code, said.err.split(":")[0]) == (1, "DATABASE_UNAVAILABLE")
    assert "secret" not in said.err


CONFIGURED = {
    "MILLRACE_DATABASE__URL": "postgresql://u@127.0.0.1:9/x",
    "MILLRACE_TEMPORAL__ADDRESS": "127.0.0.1:9",
}


def test_listening_beyond_loopback_is_refused_without_leave(tmp_path: Path) -> None:
    said = millrace(tmp_path, "api", **CONFIGURED, MILLRACE_API__HOST="0.0.0.0")
    assert (said.code, said.err.split(":")[0]) == (1, "REMOTE_NOT_ALLOWED")


def test_a_port_in_use_is_said_with_a_code(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = millrace(tmp_path, "api", **CONFIGURED, MILLRACE_API__PORT=port)
    assert (said.code, said.err.split(":")[0]) == (1, "API_PORT_TAKEN")


def test_a_setting_of_the_wrong_type_is_named(tmp_path: Path) -> None:
    said = millrace(tmp_path, "dev", MILLRACE_API__PORT="many")
    assert (said.code, said.err.split(":")[0]) == (1, "SETTINGS_INVALID")
    assert "MILLRACE_API__PORT" in said.err


def test_a_module_of_actions_that_is_not_there_is_said_before_any_server_is_started(tmp_path: Path) -> None:
    said = millrace(tmp_path, "dev", "--actions", "no_such_actions")
    assert (said.code, said.err.split(":")[0]) == (1, "ACTIONS_INVALID")
    assert "no_such_actions" in said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("bogus",), ("validate",), ("trigger", "meteor"), ("execute", "--wait", "x", "y")])
def test_wrong_usage_leaves_with_2(words: tuple[str, ...], tmp_path: Path) -> None:
    assert millrace(tmp_path, *words).code == 2


@pytest.mark.parametrize("group", [(), ("executions",), ("trigger",)], ids=["top", "executions", "trigger"])
def test_help_is_there(group: tuple[str, ...], tmp_path: Path) -> None:
    said = millrace(tmp_path, *group, "--help")
    assert said.code == 0
    assert "Usage: millrace" in said.out


@pytest.mark.parametrize(
    ("settings", "code", "named"),
    [
        ({"MILLRACE_DATABASE_URL": "postgresql://a/b"}, "SETTINGS_INVALID", "MILLRACE_DATABASE__URL"),
        ({"MILLRACE_DATABASE__URL": "mysql://a/b"}, "SETTINGS_INVALID", "postgresql://"),
        ({"MILLRACE_WORKER__ACTIONS": "not-json"}, "SETTINGS_INVALID", "worker"),
        ({"MILLRACE_API__HOST": "0.0.0.0"}, "REMOTE_NOT_ALLOWED", "0.0.0.0"),
        ({"MILLRACE_HOME": "/dev/null/home"}, "HOME_NOT_USABLE", "/dev/null/home"),
    ],
)
def test_a_mistake_in_the_configuration_is_named_before_anything_starts(
    settings: dict[str, str], code: str, named: str, tmp_path: Path
) -> None:
    said = millrace(tmp_path, "dev", **settings)
    assert (said.code, said.err.split(":")[0]) == (1, code)
    assert named in said.err
    assert "Traceback" not in said.err


def test_an_empty_setting_is_not_set(tmp_path: Path) -> None:
    said = millrace(tmp_path, "migrate", MILLRACE_DATABASE__URL="")
    assert (said.code, said.err.split(":")[0]) == (1, "NOT_CONFIGURED")
