"""Stages in processes of this machine: every row once, whatever happens to a process; errors end the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from archive.catalogue.ingest import ingest
from archive.delta.tables import Tables
from batch.pipeline import stage_start
from batch.pipeline.here import OwnProcesses
from batch.pipeline.stage import Stage
from batch.planning.passes import DetectPass
from batch.planning.plan import Plan, plan_pass
from batch.runs.scope import Scope
from batch.runs.spec import RunSpec
from model_store.errors import ModelRefused, ProcessKilled
from model_store.store import ModelStore, ModelVersion
from tests.batch.pipeline.odd_stages import Broken, DiesAlways, DiesAtStart
from tests.cluster.lethal import LethalStage
from tests.fixtures_local import MODELS, jpeg, write_files

IMAGES = 12
SPEC = RunSpec(run_id="r", model="motion@1", chunk=2, threads=2)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    names = [f"{n}.jpg" for n in range(IMAGES - 2)] + ["a-lethal.jpg", "z-lethal.jpg"]
    write_files(tmp_path / "archive", {name: jpeg(shade=n) for n, name in enumerate(names)})
    tables = Tables(str(tmp_path / "tables"))
    ingest(tables, str(tmp_path / "archive"))
    return tables


def rows(
    tables: Tables, model: ModelVersion, monkeypatch: pytest.MonkeyPatch, stage: type[Stage] | None = None, **spec: Any
) -> list[dict[str, Any]]:
    """Return the rows of a run with this stage."""
    if stage is not None:
        parts = (stage, (SPEC, model), SPEC.chunk)
        monkeypatch.setattr(DetectPass, "stage", lambda *_: parts)
    plan: Plan = plan_pass(tables, DetectPass(model), Scope())
    host = OwnProcesses(ModelStore(str(MODELS)))
    found = list(host.rows(SPEC.model_copy(update=spec), plan))
    return [row for table in found if table is not None for row in table.to_pylist()]


@pytest.mark.parametrize("actors", [3])
def test_every_image_has_one_row_and_no_process_stays(
    tables: Tables, motion: ModelVersion, monkeypatch: pytest.MonkeyPatch, actors: int
) -> None:
    found = rows(tables, motion, monkeypatch, actors=actors)
    assert len({row["media_sha256"] for row in found}) == len(found) == IMAGES
    assert {row["status"] for row in found} == {"ok"}
    assert {row["inference_key"] for row in found} == {motion.info.inference_key}
    stages = [p for p in psutil.Process().children() if "stage_process" in " ".join(p.cmdline())]
    assert stages == []


@pytest.mark.parametrize("actors", [4])
def test_an_image_that_kills_its_reader_is_a_failed_row(
    tables: Tables, motion: ModelVersion, monkeypatch: pytest.MonkeyPatch, actors: int
) -> None:
    started = list[bool]()
    order = stage_start.StartedProcess.order

    def noted(self: stage_start.StartedProcess, stage: stage_start.StageOrder) -> None:
        started.append(stage.careful)
        order(self, stage)

    monkeypatch.setattr(stage_start.StartedProcess, "order", noted)
    found = rows(tables, motion, monkeypatch, LethalStage, actors=actors)
    assert sum(started) <= 2, "only a careful process attempts the chunk of one that was killed"
    assert len({row["media_sha256"] for row in found}) == len(found) == IMAGES
    failed = [row for row in found if row["status"] == "failed"]
    assert [row["error_code"] for row in failed] == ["crashed_reader"] * 2
    assert all("SIGSEGV" in row["error_detail"] for row in failed)


@pytest.mark.parametrize(
    ("stage", "error", "words"),
    [
        (Broken, ZeroDivisionError, "2 rows"),
        (DiesAtStart, ModelRefused, r"loading motion@1 killed its process \(SIGSEGV\)"),
        (DiesAlways, ProcessKilled, r"was killed \(SIGKILL\) .* lower --threads"),
    ],
)
def test_other_deaths_and_errors_end_the_run(
    tables: Tables,
    motion: ModelVersion,
    monkeypatch: pytest.MonkeyPatch,
    stage: type[Stage],
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error, match=words) as raised:
        rows(tables, motion, monkeypatch, stage)
    assert stage is not Broken or "odd_stages.py" in "".join(raised.value.__notes__)


def test_a_process_that_was_started_ahead_is_used_once(
    tables: Tables, motion: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage_start.start_ahead()
    stage_start.start_ahead()
    [ahead] = stage_start._ahead  # pyright: ignore[reportPrivateUsage]
    found = rows(tables, motion, monkeypatch, actors=2)
    assert len(found) == IMAGES
    assert (ahead.process.returncode, stage_start._ahead) == (0, [])  # pyright: ignore[reportPrivateUsage]
