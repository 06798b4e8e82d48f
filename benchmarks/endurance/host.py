"""The host under test on its own small disk, and the supervisor that starts it again after its end.

with Host("one" | "ray", "local" | "s3", folder, books) as host:
    host.url, host.command("runs", "list"), host.processes()

`one` is `resight serve`, `ray` is `resight up`. Its home is a tmpfs of DISK_MIB where this user can mount one. Where
there is a C compiler, a library (clock.c) shifts the clock of its processes: the machine's clock never changes.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
from harness import MODEL, ROOT, WEIGHTS

from benchmarks.endurance.books import Books
from benchmarks.endurance.s3_faults import faulty_s3
from benchmarks.subject import SHIPPED
from serve.cluster.head import read_state
from serve.cluster.ports import preferred_or_free
from serve.settings import Settings
from tests.support.s3_server import CREDENTIALS, new_bucket, s3_server

DISK_MIB, FREE_MIB = 768, 32
START_S, COMMAND_S, LOOK_S = 300.0, 240.0, 0.5
FLOORS = {"1": 0.05, "2": 0.1, "3": 0.5}
"""Score floors of the versions: different detections, and different inference keys."""
CLOCK = Path(__file__).with_name("clock.c")


@dataclass(frozen=True)
class Command:
    """An ended command. `out` is parsed JSON, None if there is none."""

    code: int
    out: Any
    err: str


class Host:
    """A running host; a thread starts it again whenever it has ended, as systemd would."""

    def __init__(self, kind: str, store: str, folder: Path, books: Books) -> None:
        self.kind, self.store, self.folder, self.books = kind, store, folder, books
        self.home, self.clock, self.orders = folder / "home", folder / "clock", folder / "orders"
        self.url = f"http://127.0.0.1:{preferred_or_free(0)}"
        self.secret = secrets.token_hex(16)
        self.missing: dict[str, str] = {}  # fault -> the reason why it cannot be applied here
        self.server: subprocess.Popen[bytes] | None = None
        self._ended, self._open = threading.Event(), contextlib.ExitStack()

    def __enter__(self) -> Host:
        with contextlib.ExitStack() as stack:
            self._mount(stack)
            shutil.copytree(SHIPPED, self.home / "models")
            self.move_clock(0)
            self.environment = self._environment(stack)
            self._add_versions()
            stack.callback(self._stop)
            self._start()
            self._supervisor = threading.Thread(target=self._supervise)
            self._supervisor.start()
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def command(self, *words: str, environment: dict[str, str] | None = None) -> Command:
        """Run `resight WORDS --format json`, with an entry in the books. After COMMAND_S it is killed."""
        line = [sys.executable, "-m", "resight", *words, "--format", "json"]
        began = self.books.now()
        process = subprocess.Popen(
            line, cwd=ROOT, env=environment or self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            out, err = process.communicate(timeout=COMMAND_S)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            err += b"\nTOO LONG"
        text, code = err.decode(errors="replace"), process.returncode
        self.books.write("command", words=words, began=began, code=code, err=text[:2000] + text[2000:][-3000:])
        with contextlib.suppress(ValueError):
            return Command(code, json.loads(out), text)
        return Command(code, None, text)

    def processes(self) -> list[psutil.Process]:
        """Return all processes of this host and of commands, by the home in their environment, which is unique."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get("RESIGHT_HOME") == str(self.home):
                    found.append(process)
        return found

    def move_clock(self, seconds: int) -> None:
        """Shift the wall clock of all processes of the host and of commands, which map the file."""
        with self.clock.open("r+b" if self.clock.exists() else "wb") as file:
            file.write(seconds.to_bytes(8, "little", signed=True))

    def is_ready(self) -> bool:
        with contextlib.suppress(httpx2.HTTPError):
            return httpx2.get(f"{self.url}/readyz", timeout=5).status_code == 200
        return False

    @property
    def tables(self) -> tuple[str, str, dict[str, str]]:
        """URLs of tables and uploads, and the options with which deltalake reads them without the proxy."""
        place = self.environment.get("RESIGHT_TABLES", str(self.home / "tables"))
        return place, f"{place.rpartition('/')[0]}/uploads", self._options

    def _mount(self, stack: contextlib.ExitStack) -> None:
        self.home.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "resight-chaos", str(self.home)]
        if subprocess.run(words, capture_output=True, check=False).returncode == 0:
            stack.callback(subprocess.run, ["umount", "--lazy", str(self.home)], check=False)
        else:
            self.missing |= dict.fromkeys(("disk_tight", "disk_full"), "this user cannot mount a small disk")

    def _environment(self, stack: contextlib.ExitStack) -> dict[str, str]:
        app = (ROOT / "serve" / "app.yaml").read_text().replace("limits:\n", f"limits:\n        free_mib: {FREE_MIB}\n")
        (self.folder / "app.yaml").write_text(app)
        (self.folder / "policy.toml").write_text(f"[stop]\nfree_mib = {FREE_MIB}\n")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RESIGHT_")}
        home = {"RESIGHT_HOME": str(self.home), "RESIGHT_MODELS": str(self.home / "models")}
        home |= {"RESIGHT_TOKEN": self.secret, "RESIGHT_APP": str(self.folder / "app.yaml"), "PYTHONPATH": str(ROOT)}
        home |= {"RESIGHT_POLICY": str(self.folder / "policy.toml")}
        self._options: dict[str, str] = {}
        if self.store == "s3":
            upstream = stack.enter_context(s3_server())
            os.environ.update(CREDENTIALS)
            proxy = stack.enter_context(faulty_s3(upstream, self.orders))
            home |= CREDENTIALS | {"AWS_ENDPOINT_URL": proxy, "RESIGHT_TABLES": new_bucket(upstream, "tables")}
            self._options = CREDENTIALS | {"AWS_ENDPOINT_URL": upstream, "AWS_ALLOW_HTTP": "true"}
        self.clock_library = dict[str, str]()
        if compiler := shutil.which("cc"):
            library = str(self.folder / "clock.so")
            subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, str(CLOCK)], check=True)
            self.clock_library = {"LD_PRELOAD": library, "CHAOS_CLOCK": str(self.clock)}
        else:
            self.missing["clock"] = "there is no C compiler"
        if self.kind == "ray":
            self.missing["clock"] = "processes of Ray wait until times of the kernel's own clock"
            return kept | home
        return kept | home | self.clock_library

    def _add_versions(self) -> None:
        config = json.loads((self.home / "models" / MODEL / "1" / "config.json").read_text())
        for version, floor in FLOORS.items():
            file = self.folder / f"config-{version}.json"
            file.write_text(json.dumps(config | {"score_floor": floor}))
            if version != "1":
                words = ("models", "add", str(WEIGHTS), "--name", MODEL, "--version", version, "--config", str(file))
                done = self.command(*words, "--probe", str(ROOT / "examples" / "photos" / "person.jpg"))
                assert done.code == 0, done.err

    def _start(self) -> None:
        words = [sys.executable, "-m", "resight", "serve" if self.kind == "one" else "up"]
        log = (self.folder / "host.log").open("ab")
        process = subprocess.Popen(
            [*words, "--port", self.url.rpartition(":")[2]], cwd=ROOT, env=self.environment, stdout=log, stderr=log
        )
        if self.kind == "one":
            self.server = process
            until_s = time.monotonic() + START_S
            while process.poll() is None and not self.is_ready() and time.monotonic() < until_s:
                time.sleep(LOOK_S)
        elif process.wait(START_S) not in (0, 6):
            subprocess.run([*words[:-1], "down"], cwd=ROOT, env=self.environment, stdout=log, stderr=log, check=False)

    def _is_alive(self) -> bool:
        if self.kind == "one":
            return self.server is not None and self.server.poll() is None
        with contextlib.suppress(Exception):
            return read_state(Settings(home=str(self.home))) is not None
        return False

    def _supervise(self) -> None:
        while not self._ended.wait(LOOK_S):
            if not self._is_alive():
                self.books.write("restart")
                self._start()

    def _stop(self) -> None:
        self._ended.set()
        if hasattr(self, "_supervisor"):
            self._supervisor.join()
        if self.server is not None:
            self.server.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.server.wait(60)
        else:
            words = [sys.executable, "-m", "resight", "down"]
            subprocess.run(words, cwd=ROOT, env=self.environment, stdout=subprocess.DEVNULL, check=False)
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
