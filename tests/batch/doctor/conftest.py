"""A small healthy home with everything that `resight doctor` reads; made once, put back for each test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import batch.runs.run
from archive.annotations.assertions import HUMAN
from archive.catalogue.ingest import ingest
from archive.catalogue.row_updates import add_files
from archive.catalogue.uploads import keep
from archive.delta.tables import Tables
from archive.delta.writer import Writer, add_results
from archive.schemas import MEDIA
from archive.views.views import Views
from batch.doctor.diagnose import diagnose
from batch.doctor.finding import Finding
from batch.planning.plan import Plan
from batch.runs.spec import RunSpec
from model_store.storage import Folder
from model_store.store import ModelStore
from serve.auth.scopes import TokenScope
from serve.auth.tokens import TokenFile
from serve.rollout.state import AliasState, update_state
from serve.settings import Settings
from tests.fixtures_local import jpeg, motion_store, put_rows, result_rows, rows_of, write_files
from tests.support.hosts import FakeHost

STATEMENT = {"assertion_id": "1" * 64, "layer_id": HUMAN, "method": "human", "action": "keep", "actor": "anna"}


@dataclass(frozen=True)
class Home:
    """A home, and its image `sha` with a result, a snip, a class and statements."""

    place: Path

    @property
    def settings(self) -> Settings:
        return Settings(home=str(self.place / "home"))  # type: ignore[call-arg]

    @property
    def tables(self) -> Tables:
        return Tables(self.settings.tables_url)

    @property
    def store(self) -> ModelStore:
        return ModelStore(self.settings.models_url)

    @property
    def key(self) -> str:
        view = Views(self.tables.url).current()
        assert view
        return view.inference_key

    @property
    def sha(self) -> str:
        return min(row["media_sha256"] for row in rows_of(self.tables, "snips"))

    @property
    def findings(self) -> list[Finding]:
        return diagnose(self.settings)

    def files(self, pattern: str) -> list[Path]:
        return sorted((self.place / "home").glob(pattern))


class Rows(FakeHost):
    """A host where the model finds nothing in any image."""

    def rows(self, spec: Any, plan: Plan) -> Iterator[pa.Table]:
        for window in plan.windows(100):
            rows = result_rows(window["media_sha256"].to_pylist(), plan.model.info.inference_key, run_id=spec.run_id)
            rows = rows.append_column("replaces", window["replaces"])
            rows = rows.append_column("waited_ms", pa.repeat(pa.scalar(1.0, pa.float32()), len(rows)))
            yield rows.append_column("node", pa.repeat("n", len(rows)))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = Home(tmp_path_factory.mktemp("doctor"))
    tables, settings = home.tables, home.settings
    store = motion_store(Path(settings.models_url), "1", "2")
    digests = {version: store.describe(id_).digest for id_ in store.versions("blobs") if (version := id_.version)}
    state = AliasState(active="1", previous=("2",))
    update_state(store, "blobs", lambda now: now.with_alias("production", state, digests))
    ingest(tables, str(write_files(home.place / "archive", {f"{i}.jpg": jpeg(shade=i) for i in range(4)})))
    batch.runs.run.execute(RunSpec(run_id="r1", model="blobs@1"), tables, store, Rows())
    sha = min(row["media_sha256"] for row in rows_of(tables, "media"))
    of_run = {"inference_key": home.key, "media_sha256": sha, "run_id": "r1"}
    kept = keep(Folder(settings.uploads_url), "north", jpeg(shade=200))
    add_files(Writer(tables, "media", settings.uploads_url), pa.Table.from_pylist([kept.row], schema=MEDIA))
    add_results(tables, home.key, result_rows([kept.row["media_sha256"]], home.key, run_id="upload"))
    put_rows(tables, "snips", {**of_run, "settings_key": "s", "names": []})
    for kind, table, key in (
        ("classify", "classifications", "classifier_key"),
        ("embed", "embeddings", "embedder_key"),
    ):
        sealed = {"run_id": kind, "kind": kind, "event": 0, "state": "sealed", "event_at": datetime.now(UTC)}
        put_rows(tables, "runs", sealed | {"inference_key": "c", "counts": {"ok": 1, "empty": 0, "failed": 0}})
        of_box = {"run_id": kind, key: "c", "detection_id": f"{sha}-0", "rank": 0, "status": "ok"}
        put_rows(tables, table, of_run | of_box)
    put_rows(tables, "layers", {"layer_id": "l" * 64, "kind": "events", "config": "{}", "input_layers": []})
    put_rows(tables, "assertions", {**STATEMENT, "inference_key": home.key, "media_sha256": sha})
    machine = {"assertion_id": "2" * 64, "layer_id": "l" * 64, "method": "machine", "media_sha256": sha}
    put_rows(tables, "assertions", machine, machine)  # withdrawn and stated again, with the same id
    TokenFile.of(settings).add("station-7", [TokenScope.upload])
    for upload in home.files("uploads/*/*"):
        os.utime(upload, (0, 0))
    shutil.copytree(home.place / "home", home.place / "backup")
    return home.place


@pytest.fixture
def home(built: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name in [name for name in os.environ if name.startswith("RESIGHT_")]:
        monkeypatch.delenv(name)
    shutil.rmtree(built / "home")
    shutil.copytree(built / "backup", built / "home")
    return Home(built)
