"""Programs that this process starts and must not leave behind.

Three nets: whoever started a program stops it by its pid; the kernel stops it when its parent dies
(`launcher.py`); and every start is written to a record, so that the next run in the same home stops what a
killed run left. A pid alone is never trusted, because pids are used again: it counts only together with the
time the process was started.
"""

import asyncio
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from app.errors import Conflict, Invalid

_LAUNCHER = Path(__file__).with_name("launcher.py")
_SAME_START = 2.0
_POLL = 0.02


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A process beyond doubt: `started` is when it began, in seconds since the epoch."""

    name: str
    pid: int
    started: float

    def alive(self) -> bool:
        """Whether this very process still runs."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) <= _SAME_START
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False


class OwnProcess:
    """A running program of ours. `stop_signal` asks it to end in order; `log` holds all it says."""

    def __init__(
        self,
        name: str,
        process: subprocess.Popen[bytes],
        log: Path,
        stop_signal: signal.Signals,
        leaves: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._process = process
        self._stop_signal = stop_signal
        self._leaves = leaves
        self.record = ProcessRecord(name, process.pid, psutil.Process(process.pid).create_time())

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ended(self) -> bool:
        """Whether it has ended, by itself or stopped."""
        return self._process.poll() is not None

    async def stop(self, patience: float = 10.0) -> None:
        """Asks it to end, waits `patience` seconds, then kills it; nothing when it has ended already."""
        if not self.ended():
            self._process.send_signal(self._stop_signal)
        deadline = time.monotonic() + patience
        while not self.ended():
            if time.monotonic() > deadline:
                self._process.kill()
            await asyncio.sleep(_POLL)
        if self._leaves is not None:
            shutil.rmtree(self._leaves, ignore_errors=True)

    def last_words(self, lines: int = 15) -> str:
        """The tail of its log."""
        with suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""


def spawn(
    name: str,
    command: Sequence[str | Path],
    log: Path,
    *,
    stop_signal: signal.Signals = signal.SIGTERM,
    account: str | None = None,
    environment: Mapping[str, str] | None = None,
    outlives_us: bool = False,
    leaves: Path | None = None,
) -> OwnProcess:
    """Starts a program in a session of its own, so that a Ctrl-C in the terminal reaches only us.

    `account` is a system account to run under (only root can). Call it from the main thread: the program ends
    with the thread that started it, unless it `outlives_us`. `environment` is added to our own.
    `leaves` is a folder that is removed when the program has been stopped.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    last_signal = 0 if outlives_us else int(stop_signal)
    launch = [sys.executable, "-I", "-S", _LAUNCHER, os.getpid(), last_signal, account or "-", *command]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(part) for part in launch],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
    return OwnProcess(name, process, log, stop_signal, leaves)


@contextmanager
def held_home(home: Path) -> Iterator[None]:
    """Keeps a home folder to this process; the lock goes with the process, so a killed run leaves none.

    Raises `Conflict` HOME_IN_USE, with the pid of the holder, and `Invalid` HOME_NOT_USABLE.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        opened = (home / "lock").open("a+")
    except OSError as error:
        raise Invalid("HOME_NOT_USABLE", f"The folder {home} cannot be used: {error.strerror}.") from error
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise Conflict(
                "HOME_IN_USE",
                f"Process {lock.read().strip() or 'unknown'} already runs its servers in {home}. "
                "Stop it, or set MILLRACE_HOME to another folder.",
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


class StartedProcesses:
    """The record of what runs, in a file: written at every start, removed when all of it has been stopped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: list[ProcessRecord] = []

    def add(self, process: OwnProcess) -> None:
        """Remembers a process beyond the life of this one."""
        self._records.append(process.record)
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps([asdict(record) for record in self._records]))
        fresh.replace(self._path)

    def forget(self) -> None:
        """All have been stopped."""
        self._records.clear()
        self._path.unlink(missing_ok=True)

    async def stop_left_over(self) -> list[ProcessRecord]:
        """Stops what a killed run left behind; returns what it found alive."""
        left = [record for record in self._recorded() if record.alive()]
        for number in (signal.SIGINT, signal.SIGKILL):
            await _signalled(left, number)
        self._path.unlink(missing_ok=True)
        return left

    def _recorded(self) -> list[ProcessRecord]:
        try:
            return [ProcessRecord(**entry) for entry in json.loads(self._path.read_text())]
        except (OSError, ValueError, TypeError):
            return []


async def _signalled(records: Sequence[ProcessRecord], number: signal.Signals, patience: float = 8.0) -> None:
    for record in records:
        if record.alive():
            with suppress(ProcessLookupError):
                os.kill(record.pid, number)
    deadline = time.monotonic() + patience
    while any(record.alive() for record in records):
        if time.monotonic() > deadline:
            return
        await asyncio.sleep(_POLL)
