"""One chain: whoever speaks, a line has the same keys, appears once, and gives no secret away."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog
from pydantic import SecretStr
from temporalio.exceptions import ApplicationError

from app.observability import configure_logging
from app.settings import LogSettings


class Lines:
    """What has been logged since the last look."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    def take(self) -> list[dict[str, Any]]:
        text = self._stream.getvalue()
        self._stream.seek(0)
        self._stream.truncate()
        return [json.loads(line) for line in text.splitlines()]


@contextmanager
def logging_as(settings: LogSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Everything that is logged, as standard error gets it."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    with monkeypatch.context() as patched:
        patched.setattr("sys.stderr", stream)
        configure_logging(settings)
    yield stream
    root.handlers, root.level = handlers, level
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    with logging_as(LogSettings(format="json"), monkeypatch) as stream:
        yield Lines(stream)


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    with logging_as(LogSettings(format="console"), monkeypatch) as stream:
        yield stream


def test_our_events_and_those_of_libraries_have_the_same_keys(lines: Lines) -> None:
    with structlog.contextvars.bound_contextvars(execution="e-1", step="pay", attempt=2):
        structlog.get_logger("ours").info("step_tried", amount=3)
        logging.getLogger("theirs").warning("said %s", "this", extra={"amount": 3})
    ours, theirs = lines.take()
    assert (ours["event"], theirs["event"]) == ("step_tried", "said this")
    assert ours.keys() == theirs.keys()
    for line in (ours, theirs):
        assert (line["execution"], line["step"], line["attempt"], line["amount"]) == ("e-1", "pay", 2, 3)


def test_what_a_workflow_logs_names_its_execution_and_template(lines: Lines) -> None:
    details = {"workflow_id": "execution/e-1", "workflow_type": "onboarding", "attempt": 1, "run_id": "r"}
    logging.getLogger("temporalio.workflow").warning("row_left_open", extra={"temporal_workflow": details})
    (line,) = lines.take()
    assert (line["execution"], line["template"], line["attempt"]) == ("e-1", "onboarding", 1)
    assert "temporal_workflow" not in line


def test_what_an_activity_logs_names_its_step(lines: Lines) -> None:
    details = {"workflow_id": "execution/e-1", "activity_id": "pay#2", "activity_type": "http.request"}
    logging.getLogger("temporalio.activity").warning("x", extra={"temporal_activity": details})
    (line,) = lines.take()
    assert (line["execution"], line["step"], line["action"]) == ("e-1", "pay", "http.request")


@pytest.mark.parametrize(("code", "traced"), [("HTTP_SERVER_ERROR", False), ("ACTION_FAILED", True)])
def test_only_a_failure_nobody_foresaw_is_logged_with_its_trace(code: str, traced: bool, lines: Lines) -> None:
    try:
        raise ApplicationError("it went wrong", type=code)
    except ApplicationError:
        logging.getLogger("temporalio.activity").warning(
            "Completing activity as failed",
            exc_info=True,
            extra={"__temporal_error_identifier": "ActivityFailure"},
        )
    (line,) = lines.take()
    assert ("exception" in line) is traced
    assert "it went wrong" in json.dumps(line)


def test_no_secret_reaches_a_line(lines: Lines) -> None:
    structlog.get_logger("ours").info(
        "connected",
        url="postgresql+asyncpg://millrace:hunter2@db/x",
        headers={"Authorization": "Bearer abcdef0123456789", "Accept": "text/html"},
        sent="curl -H 'Authorization: Bearer abcdef0123456789'",
        wrapped=SecretStr("hunter2"),
        nested=[{"apiKey": "hunter2", "password": "hunter2", "ids": [1, 2]}],
    )
    try:
        raise ValueError("cannot connect to postgresql://millrace:hunter2@db/x")
    except ValueError:
        structlog.get_logger("ours").exception("failed")
    text = json.dumps(lines.take())
    assert "hunter2" not in text
    assert "abcdef0123456789" not in text
    assert "text/html" in text
    assert "@db/x" in text


def test_a_line_of_a_library_with_handlers_of_its_own_appears_once(lines: Lines) -> None:
    logging.getLogger("uvicorn").error("broken")
    assert [line["event"] for line in lines.take()] == ["broken"]


def test_what_is_below_the_level_is_not_logged(lines: Lines) -> None:
    structlog.get_logger("ours").debug("detail")
    logging.getLogger("uvicorn.access").info("GET /")
    assert lines.take() == []


def test_what_others_wrote_can_neither_steer_the_terminal_nor_forge_a_line(console: io.StringIO) -> None:
    written = "x\x1b[31mRED\x00\x9b\x7f\r\nforged \u202e \ud800 \u00e9 \u4e2d"
    shown = r"x\x1b[31mRED\x00\x9b\x7f\r\nforged \u202e \ud800 " + "\u00e9 \u4e2d"
    structlog.get_logger("ours").info("request_served", path="/x\x1b[31mRED\x00", cause=written, seen=[written])
    # Without the lone surrogate: what pytest captures of it could not be sent between its processes.
    logging.getLogger("theirs").warning("said %s", written.replace("\ud800", ""))
    ours, theirs = console.getvalue().splitlines()
    assert r"path=/x\x1b[31mRED\x00 " in ours
    assert ours.isprintable()
    assert r"\ud800" in ours
    assert "said " + shown.replace(r"\ud800", "") in theirs


def test_a_trace_keeps_its_lines_and_nothing_else_that_is_no_text(console: io.StringIO) -> None:
    try:
        raise ValueError("\x1b[31mRED")
    except ValueError:
        structlog.get_logger("ours").exception("failed")
    assert "\x1b" not in console.getvalue()
    assert console.getvalue().splitlines()[-1] == r"ValueError: \x1b[31mRED"
