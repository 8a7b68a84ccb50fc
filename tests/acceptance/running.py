"""The command as a user runs it: a process of its own, judged by its exit code and what it prints."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
COMMAND = (sys.executable, "-m", "app.cli.main")


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)


def environment(home: Path, **more: str) -> dict[str, str]:
    """This process's environment without any Millrace setting, and the given ones."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    return {**clean, "MILLRACE_HOME": str(home), **more}


def millrace(home: Path, *words: str, **more: str) -> Said:
    """Runs a command to its end."""
    done = subprocess.run(
        [*COMMAND, *words],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(home, **more),
        timeout=100,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Said(done.returncode, done.stdout, done.stderr)


@contextmanager
def started(home: Path, *words: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on; killed at the end, if it still runs by then."""
    with (home / f"{words[0]}.out").open("w+") as output:
        process = subprocess.Popen(
            [*COMMAND, *words], stdout=output, stderr=output, text=True, cwd=ROOT, env=environment(home, **more)
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(timeout=40)


@contextmanager
def fresh_home() -> Iterator[Path]:
    """A folder whose path is short enough for a unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="mr-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def eventually(condition: Callable[[], Any], seconds: float = 40.0) -> Any:
    """What the condition gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)
    return found


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """All that the process has started, directly or not, and itself; each known by pid and start time."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def alive(processes: set[psutil.Process]) -> list[psutil.Process]:
    """Those that still run."""
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def dev_file(home: Path) -> dict[str, str]:
    """What `dev.json` in a home says; empty while there is none."""
    try:
        document: dict[str, str] = json.loads((home / "dev.json").read_text())
    except FileNotFoundError:
        return {}
    return document
