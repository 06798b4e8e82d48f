"""`resight …` in this process, with a home of its own; no cluster is ever started."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
import typer.main

from archive.delta.tables import Tables
from archive.schemas import MEDIA
from batch.pipeline import stage_start
from cli.main import main
from model_store.store import ModelStore
from tests.cli.ran import START, ran
from tests.fixtures_local import MOTION, publish_blobs, write_json
from tests.support.processes import clear_variables

Resight = Callable[..., "Done"]
COMMANDS = functools.cache(typer.main.get_command)
"""The commands of an application. Typer makes all of them again for each call, in 80 ms."""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def ok(self) -> str:
        """Standard output of a command that must succeed."""
        assert self.code == 0, self.err
        return self.out

    def refused(self, code: int) -> str:
        """The error of a command that must fail: one that starts with `error`, and no traceback."""
        assert self.code == code, (self.code, self.out, self.err)
        assert "Traceback" not in self.err
        assert self.err.startswith("error ")
        assert self.out == ""
        return self.err


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """RESIGHT_HOME, which does not exist yet; nothing of an outer cluster is seen."""
    clear_variables(monkeypatch)
    monkeypatch.setenv("RESIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "300")  # rich cuts columns that do not fit
    return tmp_path / "home"


@pytest.fixture
def resight(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Resight:
    """Run a command as the entry point does."""

    def no_process(_: object, *arguments: object, **__: object) -> None:
        raise AssertionError(f"a fast test started {arguments}")

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["resight", *map(str, arguments)])
            patch.setattr(typer.main, "get_command", COMMANDS)
            patch.setattr(subprocess.Popen, "__init__", no_process)  # the class stays: Ray derives from it
            patch.setattr(stage_start, "start_ahead", lambda *_: None)
            try:
                main()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(bool(end.code))
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run


@pytest.fixture
def store(home: Path) -> ModelStore:
    return blobs_at(home)


def blobs_at(home: Path) -> ModelStore:
    """Return a store with blobs@1 and blobs@2, which show blobs from 0.5 up; production is 2."""
    made = ModelStore(str(home / "models"))
    for version, side_px in (("1", 64), ("2", 96)):
        preprocess = {"resize": "stretch", "side_px": side_px}
        publish_blobs(made, version, preprocess=preprocess, thresholds={"default": 0.5})
    made.set_alias("blobs", "production", "2")
    return made


@pytest.fixture
def tables(home: Path) -> Tables:
    return Tables(str(home / "tables"))


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of `two`."""
    home = tmp_path_factory.mktemp("two_runs")
    tables, store = Tables(str(home / "tables")), blobs_at(home)
    media = [{"media_sha256": sha, "source_root": "/r", "path": f"{sha}.jpg"} for sha in "abc"]
    tables.append("media", pa.Table.from_pylist(media, schema=MEDIA), "w", lambda _, wanted: wanted)
    ran(tables, store, "old", "1", "running", "sealed")
    later = START + timedelta(days=1)
    ran(tables, store, "new", "2", "running", "running", "sealed", start=later, scores=(0.8, 0.7))
    return home / "tables"


@pytest.fixture
def two(tables: Tables, store: ModelStore, two_runs: Path) -> Tables:
    """Runs `old` and `new`, of other models over the same two images; nothing is published."""
    shutil.copytree(two_runs, tables.url)
    return tables


@pytest.fixture
def motion_config(tmp_path: Path) -> Path:
    return write_json(tmp_path / "motion.json", MOTION)
