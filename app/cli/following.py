"""`millrace executions show ID --follow`: what an execution does, as it does it."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from httpx_sse import EventSource, SSEError
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from app.cli.api_client import Api, segment
from app.cli.executions import STEP_COLUMNS, said_of_pause, step_row
from app.cli.output import fields_table, out, print_line, rows_table, styled, time_of_day
from app.errors import Unavailable

# Seconds: how long a stream may say nothing, its comments included, and how long before a lost one is taken up again.
_SILENCE = 60.0
_AGAIN = 1.0
# How often in succession the API may be lost before that is said.
_MOST_LOSSES = 10


@dataclass(frozen=True, slots=True)
class Heard:
    """One event of a stream."""

    event: str
    data: Any
    id: str


@dataclass(slots=True)
class Picture:
    """An execution as the events so far show it."""

    execution: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)

    def take(self, heard: Heard) -> None:
        """Brings the picture up to date."""
        match heard.event:
            case "snapshot":
                self.execution = heard.data["execution"]
                self.steps = {step["id"]: step for step in heard.data["steps"] or []}
            case "step":
                self.steps[heard.data["id"]] = heard.data
            case "waiting" | "status" | "end":
                self.execution = {**self.execution, **heard.data}


def follow(api: Api, execution_id: str, as_json: bool) -> bool:
    """Shows an execution until it is over; whether it ended well.

    A live table on a terminal, otherwise a line for each change, or with `as_json` one JSON document a line.
    """
    events = listen(api, execution_id)
    picture = Picture()
    if as_json:
        _print_documents(events, picture)
    elif out.is_terminal:
        _show_live(events, picture)
    else:
        _print_lines(events, picture)
    return picture.execution.get("runtimeStatus") == "COMPLETED"


def listen(api: Api, execution_id: str) -> Iterator[Heard]:
    """The events of an execution to its end; a lost connection is taken up again, with a fresh snapshot.

    Raises `AppError` with the API's code, API_UNREACHABLE when it stays away.
    """
    last: str | None = None
    losses = 0
    while True:
        try:
            with api.stream(f"/executions/{segment(execution_id)}/events", last, _SILENCE) as response:
                for event in EventSource(response).iter_sse():
                    if not event.data:
                        continue  # a comment, by which the API says in a silence that it is there
                    losses, last = 0, event.id
                    yield Heard(event.event, json.loads(event.data), event.id)
                    if event.event == "end":
                        return
        except (httpx.TransportError, SSEError) as error:
            if last is None or losses >= _MOST_LOSSES:
                raise Unavailable("API_UNREACHABLE", f"The API at {api.url} does not answer: {error}") from error
        losses += 1
        if losses > _MOST_LOSSES:
            raise Unavailable("API_UNREACHABLE", f"The API at {api.url} ends the stream again and again.")
        time.sleep(_AGAIN)


def _print_documents(events: Iterable[Heard], picture: Picture) -> None:
    for heard in events:
        picture.take(heard)
        print_line(json.dumps({"event": heard.event, "id": heard.id, "data": heard.data}, ensure_ascii=False))


def _print_lines(events: Iterable[Heard], picture: Picture) -> None:
    for heard in events:
        before = dict(picture.steps)
        picture.take(heard)
        at = time.strftime("%H:%M:%S")
        for line in _lines(heard, before):
            print_line(f"{at}  {line}")


def _lines(heard: Heard, before: dict[str, dict[str, Any]]) -> Iterator[str]:
    match heard.event:
        case "snapshot":
            execution = heard.data["execution"]
            yield f"{execution['name']}  {execution['status']}  {execution.get('runtimeStatus') or '-'}"
            for step in heard.data["steps"] or []:
                if step["status"] != "NOT_STARTED" and before.get(step["id"]) != step:
                    yield _step_line(step)
        case "step":
            yield _step_line(heard.data)
        case "waiting":
            for wait in heard.data["waitingFor"] or []:
                who = f" ({wait['who']})" if wait.get("who") else ""
                yield f"waits for {wait['kind']} at {wait['stepId']}{who}"
        case "status" if heard.data.get("problem"):
            problem = heard.data["problem"]
            yield f"{problem['code']}: {problem['message']}"
        case "end":
            error = heard.data.get("error")
            why = f"  {error['code']}: {error['message']}" if error else ""
            yield f"{heard.data.get('runtimeStatus') or 'over'}{why}"


def _step_line(step: dict[str, Any]) -> str:
    error = step.get("error")
    return f"{step['id']}  {step['status']}" + (f"  {error['code']}: {error['message']}" if error else "")


def _show_live(events: Iterable[Heard], picture: Picture) -> None:
    with Live(console=out, auto_refresh=False) as live:
        for heard in events:
            picture.take(heard)
            live.update(_drawn(picture), refresh=True)


def _drawn(picture: Picture) -> Group:
    execution = picture.execution
    about = fields_table(
        {
            "execution": execution.get("id"),
            "name": execution.get("name"),
            "runtime status": execution.get("runtimeStatus"),
            "paused": said_of_pause(execution.get("paused")),
            "output": execution.get("output"),
            "error": execution.get("error"),
            "problem": execution.get("problem"),
        }
    )
    steps = rows_table(
        STEP_COLUMNS,
        [step_row(step) for step in picture.steps.values()],
    )
    parts: list[Table | Text] = [about, Text(), steps]
    for wait in execution.get("waitingFor") or []:
        since = time_of_day(wait.get("since"))
        parts.append(Text.assemble("waits for ", styled(wait["kind"]), f" at {wait['stepId']} since {since}"))
    return Group(*parts)
