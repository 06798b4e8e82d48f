"""Jobs of this machine, for homes without a cluster.

A job that a command follows runs in the process of the command; any other one is `python -m MODULE --here …`. The
output of a job is HOME/logs/runs/NAME.log, and its processes hold the lock of that file. A job is running exactly as
long as its file is locked, even if it was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import importlib.util
import io
import itertools
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

import psutil
import typer

from batch.jobs.control import STOP_S, JobOutcome, is_running_words
from batch.jobs.entry import log_failure
from batch.jobs.exit_codes import exit_code, exit_code_of
from batch.jobs.job_log import LOOK_S, LogPart, growing, read_part
from model_store.errors import BadRequest, Conflict, ResightError, RunStalled, StorageUnreachable
from model_store.process_exit import lasting_stops
from serve.log_config import configure_logs
from serve.settings import Settings

HEAD_BYTES = 64 * 1024
END_S = 10.0
"""Time in which a job that has written its report ends."""
KEEP_LOGS_S = 90 * 24 * 3600
"""Time after its last line for which the log of a job is kept."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A job of this process that has not begun; `log` is locked."""

    log: BinaryIO
    module: str
    words: list[str]

    def run(self, on_line: Callable[[str], None]) -> JobOutcome:
        """Run the job: its log lines go to its file and to `on_line`. The output of its processes goes to the file."""
        former = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
        app = typer.Typer(add_completion=False)
        app.command()(main_of(self.module))
        command = typer.main.get_command(app)
        with self.log, _output_to(self.log):
            configure_logs(cast(TextIO, _Lines(self.log, on_line)))
            try:
                with lasting_stops(), command.make_context(self.module, self.words) as context:
                    command.invoke(context)
            except ResightError as error:
                log_failure(error)
                return JobOutcome("FAILED", exit_code(error), str(error))
            except SystemExit as end:  # SIGTERM
                return JobOutcome("STOPPED", int(end.code or 0), "stopped")
            except Exception as error:
                log_failure(error)
                raise
            finally:
                configure_logs()
                signal.signal(signal.SIGTERM, former[0])
                signal.signal(signal.SIGHUP, former[1])
        return JobOutcome("SUCCEEDED", 0, "")


def main_of(module: str) -> Callable[..., None]:
    """Return the function that `python -m MODULE` calls with its options."""
    spec = importlib.util.find_spec(module)
    is_package = spec is not None and spec.submodule_search_locations is not None
    return importlib.import_module(f"{module}.__main__" if is_package else module).main


class _Lines(io.TextIOBase):
    """A stream that writes whole lines to a file, and gives them to a function. Structlog locks it around each line."""

    def __init__(self, log: BinaryIO, on_line: Callable[[str], None]) -> None:
        self._log, self._on_line, self._rest = log, on_line, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._log.write(f"{line}\n".encode())
            self._on_line(line)
        return len(text)


@contextlib.contextmanager
def _output_to(log: BinaryIO) -> Iterator[None]:
    """Let processes that are started in the block write to the file, and hold its lock."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(log.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


class OwnJobs:
    """Implements `batch.jobs.control.Jobs`."""

    def __init__(self, settings: Settings, where: str) -> None:
        self.where = where
        self._folder = settings.logs_path / "runs"
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._prepared: dict[str, _Prepared] = {}

    def submit(self, module: str, run_id: str, words: Sequence[str], followed: bool) -> str:
        """Start the process; with `followed`, prepare the job for `tail`. Raises BadRequest, StorageUnreachable."""
        name, log = self._new_log(run_id)
        process = None
        try:
            if followed:
                _write_head(log, os.getpid(), module, words)
                self._prepared[name] = _Prepared(log, module, [*words, "--here"])
                return name
            with log:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", module, "--here", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # it does not end with the terminal
                )
                _write_head(log, process.pid, module, words)
        except OSError as error:
            if process is not None:  # a full disk: no command would find it
                process.kill()
            raise StorageUnreachable(f"cannot start the run: {error}") from error
        self._started[name] = process
        threading.Thread(target=process.wait, daemon=True).start()  # no zombie in a server
        return name

    def tail(self, job: str, on_line: Callable[[str], None], enough: Callable[[], bool]) -> JobOutcome:
        """Call `on_line` with each line of the job's log until its processes have ended."""
        if prepared := self._prepared.pop(job, None):
            return prepared.run(on_line)
        failed, path = "", self._path(job)
        with path.open("rb") as log:
            for text in growing(log, lambda: not is_locked(path)):
                for line in text.splitlines():
                    failed = _failure(line) or failed
                    on_line(line)
                if not text:
                    time.sleep(LOOK_S)
        if job in self._started:
            code = self._started[job].wait()
            return JobOutcome("FAILED" if code else "SUCCEEDED", code, f"exit code {code}")
        if enough():
            return JobOutcome("SUCCEEDED", 0, "")
        return JobOutcome("FAILED", exit_code_of(failed), "its process was stopped or killed")

    def stop(self, run_id: str) -> str | None:
        """Stop the job of a run, and wait until it has committed its results. Raises RunStalled, Conflict."""
        jobs = self._jobs(running=True)
        job, head = next((one for one in jobs if run_id in one[1]["runs"]), ("", {}))
        if not job:
            return None
        if head["node"] != platform.node():
            raise Conflict(f"run {run_id} is running on {head['node']}: stop it there")
        with contextlib.suppress(psutil.Error):  # its id may be that of another user's process
            driver = psutil.Process(head["pid"])
            log = str(self._path(job).resolve())
            if any(file.path == log for file in driver.open_files()):  # else another process has its id
                driver.terminate()
        until_s = time.monotonic() + STOP_S
        while is_locked(self._path(job)):
            if time.monotonic() > until_s:
                raise RunStalled(f"job {job} is still running {STOP_S} s after it was stopped")
            time.sleep(LOOK_S)
        return job

    def job_of(self, run_id: str = "") -> tuple[str, str] | None:
        jobs = self._jobs(running=not run_id)
        found = [one for one in jobs if run_id in one[1]["runs"] or not run_id]
        job, head = max(found, key=lambda one: one[1]["at"], default=("", {}))
        return (run_id or head["runs"][0], job) if job else None

    def log(self, run_id: str, after: int | None, max_bytes: int) -> LogPart | None:
        found = self.job_of(run_id)
        if found is None:
            return None
        with self._path(found[1]).open("rb") as log:
            return read_part(found[1], log, after, max_bytes)

    def running(self) -> set[str]:
        return {run for _, head in self._jobs(running=True) for run in head["runs"]}

    def ended(self, since_s: float) -> set[str]:
        """Return the runs of jobs on this machine that have ended, and wrote to their logs after this time."""
        ended: set[str] = set()
        for path in self._folder.glob("*.log"):
            with contextlib.suppress(FileNotFoundError, PermissionError):  # of another user
                if path.stat().st_mtime >= since_s and not is_locked(path):
                    head = _head(path)
                    ended.update(head["runs"] if head.get("node") == platform.node() else ())
        return ended - self.running()

    def interrupted(self, run_ids: Sequence[str]) -> str:
        """The runs have ended with the command."""
        return f"stopped run {', '.join(run_ids)}; committed results are kept: to continue, run the same command again"

    def log_files(self, run_id: str) -> list[Path]:
        return [self._path(job) for job, head in self._jobs() if run_id in head["runs"]]

    def _jobs(self, running: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the name of each job and the head of its log."""
        for path in self._folder.glob("*.log"):
            with contextlib.suppress(FileNotFoundError, PermissionError):  # of another user
                if running and not is_locked(path):
                    continue
                if head := _head(path):
                    yield path.stem, head

    def _new_log(self, run_id: str) -> tuple[str, BinaryIO]:
        """Create and lock the log of a new job. Raises BadRequest if the run is running, StorageUnreachable."""
        for attempt in itertools.count(1):
            name = run_id + (f"-{attempt}" if attempt > 1 else "")
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                with (self._folder / "lock").open("ab") as new_logs:
                    # no command sees an unlocked new log, and every process that writes to it holds its lock
                    fcntl.flock(new_logs, fcntl.LOCK_EX)
                    self._remove_old_logs()
                    log = self._path(name).open("xb", buffering=0)
                    fcntl.flock(log, fcntl.LOCK_EX)
                    return name, log
            except FileExistsError:
                until_s = time.monotonic() + END_S
                while run_id in _head(self._path(name)).get("runs", [run_id]) and is_locked(self._path(name)):
                    if time.monotonic() > until_s:
                        raise BadRequest(is_running_words(run_id)) from None
                    time.sleep(LOOK_S)
            except OSError as error:
                raise StorageUnreachable(f"cannot write the log of the run: {error}") from error
        raise AssertionError("unreachable")

    def _remove_old_logs(self) -> None:
        """Remove the logs of jobs that ended KEEP_LOGS_S ago; ignore errors."""
        for path in self._folder.glob("*.log"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > KEEP_LOGS_S and not is_locked(path):
                    path.unlink()

    def _path(self, job: str) -> Path:
        return self._folder / f"{job}.log"


def is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _write_head(log: BinaryIO, pid: int, module: str, words: Sequence[str]) -> None:
    runs = [words[at + 1] for at, word in enumerate(words) if word == "--run-id"]
    where = {"node": platform.node(), "pid": pid, "at": time.time()}
    head = {"event": "job", "runs": runs, "module": module, **where}
    log.write(json.dumps(head).encode() + b"\n")


def _head(path: Path) -> dict[str, Any]:
    """Return the line of a log about its job, which may follow output of its first moments; empty without one."""
    with path.open("rb") as file:
        for line in file.read(HEAD_BYTES).split(b"\n"):
            if line.startswith(b'{"event": "job"'):
                with contextlib.suppress(ValueError):  # cut short on a full disk
                    return json.loads(line)
    return {}


def _failure(line: str) -> str:
    """Return the name of the error that a line reports, or an empty text."""
    try:
        event = json.loads(line) if "run_failed" in line else {}
    except ValueError:
        return ""
    return str(event.get("kind", "")) if event.get("event") == "run_failed" else ""
