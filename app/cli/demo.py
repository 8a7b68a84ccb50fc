"""`millrace demo`: the main job, once, on real servers and over HTTP, and a check that all of it is as it should be."""

import asyncio
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from app.cli import demo_story as story
from app.cli.api_client import Api, read_dev_file, segment
from app.cli.definitions import publish_definition
from app.cli.demo_partner import Partner, listening_partner
from app.cli.executions import print_trees
from app.cli.output import err, out, print_line
from app.cli.starts import send_event
from app.errors import AppError, Unavailable
from app.settings import Settings

_STACK_WITHIN = 90.0
_RUN_WITHIN = 120.0
_POLL = 0.4
_CLOSED = {"COMPLETED", "FAILED", "CANCELLED", "TERMINATED", "TIMED_OUT"}


@dataclass(frozen=True, slots=True)
class Result:
    """What the demo ends with; `trees` holds one tree for each event."""

    trees: list[dict[str, Any]]
    root_id: str
    temporal_ui: str | None
    seconds: float

    def summary(self) -> dict[str, Any]:
        """The last line of the demo's output."""
        nodes = [node for tree in self.trees for node, _ in story.flattened(tree)]
        return {
            "rootExecutionId": self.root_id,
            "executions": len(nodes),
            "completed": sum(node["runtimeStatus"] == "COMPLETED" for node in nodes),
            "seconds": round(self.seconds, 1),
            "temporalUi": self.temporal_ui,
        }


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("demo")(demo)


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running and say how to stop it.")] = False,
) -> None:
    """Run the main job once, on real input, and check what came of it."""
    if not story.EXAMPLES.is_dir():
        raise Unavailable("EXAMPLES_MISSING", f"The demo needs the folder {story.EXAMPLES}.")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    began = time.monotonic()
    home = Settings().home.resolve() / "demo"
    with listening_partner(story.read_register()) as partner, _stack(home, partner, keep) as (addresses, pid):
        _tell(f"PostgreSQL, Temporal, a worker and the API run ({time.monotonic() - began:.1f} s)")
        with Api(str(addresses["api"])) as api:
            result = _run(api, partner, began)
    out.print(f"Temporal UI of the root: {result.temporal_ui}", soft_wrap=True)
    if not keep:
        out.print("Everything has been stopped again; with KEEP=1 it keeps running.", style="dim")
    else:
        out.print(f"API: {addresses['api']}/docs", soft_wrap=True)
        out.print(f"Everything keeps running. Stop it with: kill {pid}", style="bold")
    print_line(json.dumps(result.summary()))


def _run(api: Api, partner: Partner, began: float) -> Result:
    version = _publish(api, partner)
    _tell(f"{len(story.TEMPLATES)} definitions published and activated, version {version}")
    events = story.read_events()
    roots = [_send(api, event, version) for event in events]
    trees = _follow(api, events, roots)
    seconds = time.monotonic() - began
    shown = [api.get(f"/executions/{segment(root)}") for root in roots]
    problems = [
        *chain.from_iterable(story.check_tree(*ended) for ended in zip(events, trees, strict=True)),
        *chain.from_iterable(story.check_rows(tree, _rows(api, tree)) for tree in trees),
        *story.check_grandchild(trees[-1]),
        *story.check_outputs(shown[0].get("output"), shown[-1].get("output")),
        *story.check_calls(partner),
    ]
    out.print()
    print_trees(*trees)
    out.print()
    if problems:
        raise AppError("DEMO_FAILED", 500, "The demo ran, and not all is as it should be.", problems)
    return Result(trees, roots[-1], shown[-1].get("temporalUi"), seconds)


def _rows(api: Api, tree: dict[str, Any]) -> list[dict[str, Any]]:
    return list(api.pages("/executions", rootId=tree["id"], limit=100))


def _publish(api: Api, partner: Partner) -> str:
    """Publishes the examples; where there are earlier ones (a database of yours), as a later version."""
    known = {found["slug"] for found in api.pages("/templates")}
    fresh = not known & {slug for slug, _ in story.TEMPLATES}
    version = story.FIRST_VERSION if fresh else f"1.0.{int(time.time())}"
    for slug, name in story.TEMPLATES:
        definition = story.read_definition(slug, partner.url, version)
        publish_definition(api, definition, slug, version, name, activate=True)
    return version


def _send(api: Api, event: story.Event, version: str) -> str:
    """Links the entity, sends the event twice, and gives the one execution that came of it."""
    api.put(f"/links/{event.entity_type}/{segment(event.entity_id)}", {"templateId": event.template})
    event_id = event.event_id if version == story.FIRST_VERSION else f"{event.event_id}-{version}"
    answers = [send_event(api, event.path, event.context, event_id, event.entity_id) for _ in range(2)]
    if answers[0]["executionId"] != answers[1]["executionId"]:
        raise AppError("DEMO_FAILED", 500, f"The same {event.title}, sent twice, started two executions.")
    _tell(f"{event.title} {event.entity_id} accepted: {event.template} started, once")
    return str(answers[0]["executionId"])


def _follow(api: Api, events: tuple[story.Event, ...], roots: list[str]) -> list[dict[str, Any]]:
    """Shows the progress and plays the people, until every execution has ended."""
    total = sum(event.executions for event in events)
    deadline = time.monotonic() + _RUN_WITHIN
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        bar = progress.add_task("executions completed", total=total)
        said = 0
        while True:
            trees = [api.get(f"/executions/{segment(root)}/tree")["tree"] for root in roots]
            nodes = [node for tree in trees for node, _ in story.flattened(tree)]
            completed = sum(node["status"] == "COMPLETED" for node in nodes)
            progress.update(bar, completed=completed)
            if completed != said and not out.is_terminal:
                _tell(f"{completed} of {total} executions completed")
            said = completed
            if all(node["runtimeStatus"] in _CLOSED and node["status"] == "COMPLETED" for node in nodes):
                return trees
            if time.monotonic() > deadline:
                raise AppError("DEMO_FAILED", 500, f"Not done after {_RUN_WITHIN:.0f} s: {completed} of {total}.")
            for root in roots:
                _play_people(api, root)
            time.sleep(_POLL)


def _play_people(api: Api, root: str) -> None:
    found = api.get(f"/executions/{segment(root)}")
    for waiting in found.get("waitingFor") or []:
        if waiting["kind"] == "PERSON":
            outcome = story.OUTCOMES[waiting["stepId"]]
            path = f"/executions/{segment(root)}/steps/{segment(waiting['stepId'])}/complete"
            api.post(path, {"outcome": outcome, "comment": "Completed by the demo."})
            _tell(f"{found['template']}: {waiting['stepId']} completed by a person, {outcome}")


@contextmanager
def _stack(home: Path, partner: Partner, keep: bool) -> Iterator[tuple[dict[str, Any], int]]:
    """A `millrace dev` of its own, in a fresh home; stopped when the block ends, unless it ends well and `keep`."""
    from app.processes import StartedProcesses, held_home, spawn

    inner = home / "stack"
    with held_home(home):
        record = StartedProcesses(home / "started.json")
        if asyncio.run(record.stop_left_over()):
            _tell("the demo that was still running has been stopped")
        shutil.rmtree(inner, ignore_errors=True)
        process = spawn(
            "millrace dev",
            [sys.executable, "-m", "app.cli.main", "dev"],
            inner / "logs" / "millrace.log",
            environment={
                "MILLRACE_HOME": str(inner),
                "MILLRACE_HTTP_ACTION__ALLOWED_PRIVATE_HOSTS": json.dumps([f"127.0.0.1:{partner.port}"]),
            },
            outlives_us=keep,
        )
        record.add(process)
        stays = False
        try:
            yield _announced(inner, process), process.pid
            stays = keep
        except AppError:
            err.print(f"The log is {process.log}", soft_wrap=True)
            raise
        finally:
            if not stays:
                asyncio.run(process.stop(patience=30))
                record.forget()


def _announced(home: Path, process: Any) -> dict[str, Any]:
    """The addresses in the stack's `dev.json`, as soon as they are there."""
    deadline = time.monotonic() + _STACK_WITHIN
    while not (addresses := read_dev_file(home)):
        if process.ended() or time.monotonic() > deadline:
            raise Unavailable("STACK_NOT_STARTED", f"The servers did not start:\n{process.last_words()}")
        time.sleep(0.05)
    return addresses


def _tell(text: str) -> None:
    out.print(Text.assemble(("• ", "green"), text), soft_wrap=True)


def _leave(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
