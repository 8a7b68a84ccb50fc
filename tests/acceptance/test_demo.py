"""`make demo` as a checker runs it: what it ends with, and that nothing of it stays behind."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.acceptance.running import ROOT, alive, descendants, dev_file, eventually, fresh_home, started

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def home() -> Iterator[Path]:
    with fresh_home() as folder:
        yield folder


def _until_it_ends(process: subprocess.Popen[str]) -> set[psutil.Process]:
    """Everything the demo started on its way."""
    demo = psutil.Process(process.pid)
    seen = set(descendants(demo))
    while process.poll() is None:
        seen |= set(descendants(demo))
        psutil.wait_procs([demo], timeout=0.2)
    return seen


def _last_line(home: Path) -> dict[str, Any]:
    last: dict[str, Any] = json.loads((home / "demo.out").read_text().splitlines()[-1])
    return last


def test_the_demo_ends_well_and_leaves_nothing_behind(home: Path) -> None:
    with started(home, "demo") as process:
        seen = _until_it_ends(process)
    assert process.returncode == 0, (home / "demo.out").read_text()
    last = _last_line(home)
    assert set(last) == {"rootExecutionId", "executions", "completed", "seconds", "temporalUi"}
    assert last["executions"] == last["completed"] == 29
    assert last["seconds"] < 60
    assert last["rootExecutionId"] in last["temporalUi"]
    said = (home / "demo.out").read_text()
    assert "Replacement for EH-17" in said
    assert len(seen) > 3
    assert alive(seen) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_a_demo_that_is_stopped_half_way_leaves_nothing_behind(home: Path, number: signal.Signals) -> None:
    with started(home, "demo") as process:
        demo = psutil.Process(process.pid)
        eventually(lambda: dev_file(home / "demo" / "stack"))
        seen = set(descendants(demo))
        assert len(seen) > 3
        process.send_signal(number)
        process.wait(timeout=40)
    assert process.returncode == (128 + number if number != signal.SIGKILL else -number)
    eventually(lambda: not alive(seen))


def test_a_kept_demo_stays_until_it_is_stopped_as_it_says(home: Path) -> None:
    with started(home, "demo", "--keep") as process:
        seen = _until_it_ends(process)
    assert process.returncode == 0, (home / "demo.out").read_text()
    addresses = dev_file(home / "demo" / "stack")
    found = httpx.get(f"{addresses['api']}/api/v1/executions/{_last_line(home)['rootExecutionId']}").json()
    assert found["runtimeStatus"] == "COMPLETED"
    (told,) = [line for line in (home / "demo.out").read_text().splitlines() if "kill" in line]
    os.kill(int(told.rpartition(" ")[2]), signal.SIGTERM)
    eventually(lambda: not alive(seen))
    assert dev_file(home / "demo" / "stack") == {}


def test_make_demo_runs_this_command() -> None:
    for variable, command in (("", "millrace demo"), ("KEEP=1", "millrace demo --keep")):
        said = subprocess.run(
            ["make", "--dry-run", "--old-file=.venv/.project", "demo", *variable.split()],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        ).stdout
        assert f"exec .venv/bin/{command}" in [line.strip() for line in said.splitlines()]
