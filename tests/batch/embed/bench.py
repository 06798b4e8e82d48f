"""Published detections, and an embedder whose vector is the mean colour, without a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from archive.delta.tables import Tables
from archive.schemas import EMBEDDINGS
from batch.crops.model_rows import Target, target_of
from batch.embed.plan import embed_pass, embedding_table
from batch.runs.spec import EmbedSpec
from model_store.config import EmbedderConfig, OnnxRuntime, Preprocess
from model_store.store import ModelInfo, ModelVersion
from tests.batch.box_bench import KEY
from tests.batch.classify.bench import ClassifyBench
from tests.fixtures_local import write_files


def embedder(key: str = "e" * 64) -> ModelVersion:
    config = EmbedderConfig(
        kind="embedder", runtime=OnnxRuntime(), preprocess=Preprocess(resize="stretch", side_px=8), size=3
    )
    return ModelVersion(ModelInfo("looks", "1", "v" * 64, key, ()), config, {})


def spec_of(**fields: Any) -> EmbedSpec:
    return EmbedSpec.model_validate({"run_id": "r1", "model": "looks@1"} | fields)


@dataclass
class EmbedBench(ClassifyBench):
    table, schema = "embeddings", EMBEDDINGS
    spec_of, pass_of, table_of = staticmethod(spec_of), staticmethod(embed_pass), staticmethod(embedding_table)

    model: ModelVersion = field(default_factory=embedder)

    def target(self) -> Target:
        return target_of("embedder_key", KEY, self.model.info, 0.0)


def make(place: Path) -> EmbedBench:
    root = write_files(place / "archive", {"note.txt": b"somebody's"})
    return EmbedBench(root, Tables(str(place / "tables")))
