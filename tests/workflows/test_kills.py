"""SIGKILL for the worker at every kind of await at once; people and senders go on while there is none, then another
worker takes over. Each run must end right, repeat no completed step, and be told of alike by its row and by Temporal.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from temporalio.client import Client

from app.db.session import Database
from tests.documents import action, arrow, batch, child, confirm, document, expr, join, line, split, step
from tests.workflows.counterpart import Counterpart, call, calling, serving_counterpart
from tests.workflows.harness import Executions, Handle, executions_on
from tests.workflows.killing import SOON, Workers


@dataclass
class Scene:
    """One run: where it waits when the worker is killed, and what the outside then does."""

    name: str
    executions: Executions
    counterpart: Counterpart
    leaf: str
    locks: AsyncExitStack
    handle: Handle = field(init=False)

    def url(self, path: str) -> str:
        return f"{self.name}-{path}"

    def call(self, step_id: str, path: str | None = None, **fields: Any) -> dict[str, Any]:
        """A step that calls the counterpart under a path of this scene."""
        return call(step_id, self.counterpart.url, self.url(path or step_id), **fields)

    def around(self, *steps: dict[str, Any]) -> dict[str, Any]:
        """A definition with a call before and after."""
        return line(self.call("before"), *steps, self.call("after"))

    async def called(self, path: str, times: int = 1) -> None:
        await self.counterpart.called(f"/{self.url(path)}", times)

    async def waiting(self, kind: str, count: int = 1) -> None:
        """Returns when the run waits for so many of a kind."""
        for _ in range(400):
            view = await self.executions.view(self.handle)
            if sum(wait.count for wait in view.waiting_for if wait.kind == kind) == count:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{self.name} does not wait for {kind}: {view.waiting_for}")

    async def locked_row(self) -> None:
        """Holds the row of the run, so that what writes it, or the rows of its children, waits."""
        session = await self.locks.enter_async_context(self.executions.database.transaction())
        row_id = self.handle.id.removeprefix("execution/")
        await session.execute(text("SELECT id FROM workflow_execution WHERE id = :id FOR UPDATE"), {"id": row_id})


class Await:
    """What a scene is made of: a definition, when it is where it should be, what happens while nobody works."""

    closed_as = "COMPLETED"
    locks = False
    expected: tuple[str, ...] = ()
    entered_again: tuple[str, ...] = ()

    def definition(self, scene: Scene) -> dict[str, Any]:
        raise NotImplementedError

    async def reached(self, scene: Scene) -> None:
        raise NotImplementedError

    async def outside(self, scene: Scene) -> None:
        """Nothing but what happens to all: the counterpart answers again, locks are given back."""


class AnAction(Await):
    def definition(self, scene: Scene) -> dict[str, Any]:
        return scene.around(scene.call("wait"))

    async def reached(self, scene: Scene) -> None:
        await scene.called("wait")


class ADatasource(Await):
    def definition(self, scene: Scene) -> dict[str, Any]:
        given = calling(scene.counterpart.url, scene.url("wait"))
        source = {"alias": "data", "dataSourceId": "http.request", "params": given["parameters"]}
        return scene.around(action("use", dataSources=[source]))

    async def reached(self, scene: Scene) -> None:
        await scene.called("wait")


class ClosingTheRow(Await):
    locks = True

    def definition(self, scene: Scene) -> dict[str, Any]:
        return scene.around()

    async def reached(self, scene: Scene) -> None:
        await scene.called("after")


class WritingTheRowsOfChildren(Await):
    locks = True

    def definition(self, scene: Scene) -> dict[str, Any]:
        return scene.around(child("sub", childWorkflowTemplateVersionId=scene.leaf, inputMapping=path(scene)))

    async def reached(self, scene: Scene) -> None:
        await scene.called("before")


class ATimer(Await):
    def definition(self, scene: Scene) -> dict[str, Any]:
        return scene.around(step("delay", "SYS_DELAY", duration=6))

    async def reached(self, scene: Scene) -> None:
        await scene.waiting("TIMER")


class ASignal(Await):
    def definition(self, scene: Scene) -> dict[str, Any]:
        return scene.around(step("paid", "SYS_WAIT_SIGNAL", signal="paid", correlationKey="a"))

    async def reached(self, scene: Scene) -> None:
        await scene.waiting("SIGNAL")

    async def outside(self, scene: Scene) -> None:
        await scene.handle.signal("paid", args=[1, "a"])


class ASignalSentTwice(ASignal):
    async def outside(self, scene: Scene) -> None:
        sent = scene.executions.deliver(scene.handle, "paid", 1, key="a", signal_id="one")
        again = scene.executions.deliver_awaited(scene.handle, "paid", "a", "one")
        assert await asyncio.gather(sent, again) == ["DELIVERED", "DELIVERED"]


class APerson(Await):
    def definition(self, scene: Scene) -> dict[str, Any]:
        return scene.around(confirm("ask"))

    async def reached(self, scene: Scene) -> None:
        await scene.waiting("PERSON")

    async def outside(self, scene: Scene) -> None:
        answers = await asyncio.gather(*(scene.executions.complete(scene.handle, "ask", comment="yes") for _ in "12"))
        assert answers[0] == answers[1]


class AChild(Await):
    def definition(self, scene: Scene) -> dict[str, Any]:
        return scene.around(child("sub", childWorkflowTemplateVersionId=scene.leaf, inputMapping=path(scene)))

    async def reached(self, scene: Scene) -> None:
        await scene.called("wait-one")


class ABatch(Await):
    expected = tuple(f"wait-{n}" for n in range(1, 7))

    def definition(self, scene: Scene) -> dict[str, Any]:
        many = batch("all", "[1..6]", concurrency=3, childWorkflowTemplateVersionId=scene.leaf)
        return scene.around({**many, "inputMapping": path(scene, "$string(__each__)")})

    async def reached(self, scene: Scene) -> None:
        for n in (1, 2, 3):
            await scene.called(f"wait-{n}")


class Items(Await):
    expected = tuple(f"wait-{n}" for n in range(1, 5))

    def definition(self, scene: Scene) -> dict[str, Any]:
        each = {"iterable": {"type": "EXPRESSION", "expr": {"src": "[1..4]"}}, "concurrency": 2}
        return scene.around(scene.call("items", parameters=request(scene, "wait", "$string(__each__)"), forEach=each))

    async def reached(self, scene: Scene) -> None:
        for n in (1, 2):
            await scene.called(f"wait-{n}")


class Rounds(Await):
    expected = ("go-0", "wait-1", "go-2")

    def definition(self, scene: Scene) -> dict[str, Any]:
        word = "(__iteration__ = 1 ? 'wait-' : 'go-') & __iteration__"
        rounds = scene.call("rounds", parameters=request(scene, None, word), repeat={"while": "__iteration__ < 3"})
        return scene.around(rounds)

    async def reached(self, scene: Scene) -> None:
        await scene.called("wait-1")


class ARace(Await):
    def definition(self, scene: Scene) -> dict[str, Any]:
        names = ("paid", "ask", "delay")
        return document(
            scene.call("before"),
            split("e", "EVENT"),
            step("paid", "SYS_WAIT_SIGNAL", signal="paid"),
            confirm("ask"),
            step("delay", "SYS_DELAY", duration="PT1H"),
            join("m", "EXCLUSIVE"),
            scene.call("after"),
            *(arrow(f"e -> {name}") for name in names),
            *(arrow(f"{name} -> m") for name in names),
            *(arrow(one) for one in ("start -> before", "before -> e", "m -> after", "after -> end")),
        )

    async def reached(self, scene: Scene) -> None:
        await scene.waiting("PERSON")

    async def outside(self, scene: Scene) -> None:
        await scene.executions.complete(scene.handle, "ask")


class AnIncident(Await):
    def definition(self, scene: Scene) -> dict[str, Any]:
        return scene.around(action("bad", actionKey="test.fail", onFailure="INCIDENT"))

    async def reached(self, scene: Scene) -> None:
        await scene.waiting("INCIDENT")

    async def outside(self, scene: Scene) -> None:
        await scene.executions.control(scene.handle, "COMPLETE_INCIDENT", "bad", output=1)


class ASuspendedAction(Await):
    entered_again = ("ask#1",)

    def definition(self, scene: Scene) -> dict[str, Any]:
        return scene.around(action("ask", actionKey="test.ask", parameters={"question": "?"}))

    async def reached(self, scene: Scene) -> None:
        await scene.waiting("SUSPENDED")

    async def outside(self, scene: Scene) -> None:
        await scene.executions.control(scene.handle, "RESUME_STEP", "ask", data=1)


class APause(Await):
    def definition(self, scene: Scene) -> dict[str, Any]:
        return scene.around(scene.call("wait"))

    async def reached(self, scene: Scene) -> None:
        await scene.called("wait")
        await scene.executions.control(scene.handle, "PAUSE")

    async def outside(self, scene: Scene) -> None:
        await scene.executions.control(scene.handle, "RESUME")


class Compensation(Await):
    closed_as = "FAILED"
    expected = ("a", "b", "c", "undo-a", "undo-wait-b", "undo-c")

    def definition(self, scene: Scene) -> dict[str, Any]:
        steps = [
            scene.call(name, compensate=calling(scene.counterpart.url, scene.url(f"undo-{wait}{name}")))
            for name, wait in (("a", ""), ("b", "wait-"), ("c", ""))
        ]
        return line(*steps, action("bad", actionKey="test.fail"))

    async def reached(self, scene: Scene) -> None:
        await scene.called("undo-wait-b")


class ACancel(Await):
    closed_as = "CANCELLED"
    expected = ("a", "undo-wait-a")

    def definition(self, scene: Scene) -> dict[str, Any]:
        undo = calling(scene.counterpart.url, scene.url("undo-wait-a"))
        return line(scene.call("a", compensate=undo), confirm("ask"))

    async def reached(self, scene: Scene) -> None:
        await scene.waiting("PERSON")
        await scene.executions.control(scene.handle, "CANCEL")
        await scene.called("undo-wait-a")


AWAITS: dict[str, Callable[[], Await]] = {
    "an action": AnAction,
    "a datasource": ADatasource,
    "a local activity that closes the row": ClosingTheRow,
    "a local activity that writes the rows of children": WritingTheRowsOfChildren,
    "a timer": ATimer,
    "a signal": ASignal,
    "a signal sent twice": ASignalSentTwice,
    "a person": APerson,
    "a child": AChild,
    "a batch": ABatch,
    "items": Items,
    "rounds": Rounds,
    "a race": ARace,
    "an incident": AnIncident,
    "a suspended action": ASuspendedAction,
    "a pause": APause,
    "compensation": Compensation,
    "a cancel": ACancel,
}


def path(scene: Scene, source: str = "'one'") -> list[dict[str, Any]]:
    """The mapping that tells a child what to call."""
    return [{"targetPath": "path", "value": expr(f"'{scene.url('wait-')}' & {source}")}]


def request(scene: Scene, prefix: str | None, source: str) -> dict[str, Any]:
    """The parameters of a call whose path ends with the value of an expression."""
    begin = scene.url("" if prefix is None else f"{prefix}-")
    return {"method": "POST", "url": expr(f"'{scene.counterpart.url}/{begin}' & ({source})")}


@pytest.fixture(scope="module")
async def scenes(
    temporal_client: Client, temporal_address: str, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, Scene]]:
    """Every scene, after the kill and with another worker at work."""
    async with executions_on(temporal_client, database_url) as executions:
        folder: Path = tmp_path_factory.mktemp("workers")
        workers = Workers(executions.task_queue, temporal_address, database_url, folder)
        try:
            async with serving_counterpart() as counterpart, AsyncExitStack() as locks:
                leaf = call("call", counterpart.url)
                leaf["parameters"] = {"method": "POST", "url": expr(f"'{counterpart.url}/' & __context__.path")}
                await executions.template(f"leaf-{executions.task_queue[-8:]}", line(leaf))
                reference = f"leaf-{executions.task_queue[-8:]}@1.0.0"
                found: dict[str, Scene] = {}
                for name, kind in AWAITS.items():
                    scene = Scene(name.replace(" ", "-"), executions, counterpart, reference, locks)
                    scene.handle = await executions.start(kind().definition(scene), task_timeout=SOON)
                    if kind().locks:
                        await scene.locked_row()
                    found[name] = scene
                workers.start()
                await asyncio.gather(*(AWAITS[name]().reached(scene) for name, scene in found.items()))
                await is_held_up(executions.database, sum(kind().locks for kind in AWAITS.values()))
                workers.kill()
                await locks.aclose()
                outside = [asyncio.create_task(AWAITS[name]().outside(scene)) for name, scene in found.items()]
                workers.start()
                counterpart.gate.set()
                await asyncio.wait_for(asyncio.gather(*outside), 60)
                yield found
            await executions.replay_all()
        finally:
            await workers.stop()


async def is_held_up(database: Database, statements: int) -> None:
    """Returns when so many statements wait for locked rows."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    for _ in range(200):
        async with database.transaction() as session:
            if (await session.execute(waiting)).scalar_one() >= statements:
                return
        await asyncio.sleep(0.05)
    raise AssertionError("the local activities do not wait")


@pytest.mark.parametrize("name", AWAITS)
async def test_a_worker_killed_while_a_run_waits_is_made_good_by_another(scenes: dict[str, Scene], name: str) -> None:
    scene, kind = scenes[name], AWAITS[name]()
    row = await asyncio.wait_for(scene.executions.closed(scene.handle), 60)
    assert row.closed_as == kind.closed_as, row.status_reason
    rows = await scene.executions.rows(scene.handle)
    assert {one.closed_as for one in rows} == {kind.closed_as}
    calls, keys = scene.counterpart.calls, scene.counterpart.keys
    mine = {called: count for called, count in calls.items() if called.startswith(f"/{scene.name}-")}
    around = ("before", "after") if kind.closed_as == "COMPLETED" else ()
    assert {f"/{scene.url(one)}" for one in (*around, *kind.expected)} <= mine.keys()
    # Only what was under way at the kill may have been asked for again, and then under the same key.
    assert {called for called, count in mine.items() if count > 1 and "wait" not in called} == set()
    assert {called for called in mine if len(keys[called]) != 1} == set()
    assert await completed_twice(scene.handle) == list(kind.entered_again)


async def completed_twice(handle: Handle) -> list[str]:
    """The keys under which a history has more than one completed activity."""
    scheduled: dict[int, str] = {}
    completed: Counter[str] = Counter()
    for event in (await handle.fetch_history()).events:
        if event.HasField("activity_task_scheduled_event_attributes"):
            scheduled[event.event_id] = event.activity_task_scheduled_event_attributes.activity_id
        elif event.HasField("activity_task_completed_event_attributes"):
            completed[scheduled[event.activity_task_completed_event_attributes.scheduled_event_id]] += 1
    return [key for key, count in completed.items() if count > 1]
