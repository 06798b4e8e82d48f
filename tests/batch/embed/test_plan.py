"""Test the rows and the key of an embed run, without a cluster; `test_box_passes.py` has what all passes share."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from batch.crops.model_rows import target_of
from tests.batch.box_bench import KEY, picture
from tests.batch.embed.bench import EmbedBench, embedder, make
from tests.fixtures_local import rows_of


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbedBench:
    made = make(tmp_path)
    made.publish(person=0.7)
    made.without_ray(monkeypatch)
    return made


def test_every_detection_that_is_shown_has_a_vector_of_length_1(bench: EmbedBench) -> None:
    three = bench.three()
    report = bench.run()
    assert (report.counts.requested, report.counts.ok) == (3, 3)
    both, one = three["both"], three["one"]
    assert set(bench.rows) == {(both, 0), (both, 1), (one, 1)}
    row = bench.rows[one, 1]
    means = picture(1)[10:20, 10:30].reshape(-1, 3).mean(axis=0) / 16
    assert row["norm"] == pytest.approx(np.linalg.norm(means), abs=0.3)
    assert row["vector"] == pytest.approx(means / np.linalg.norm(means), abs=0.02)
    vectors = np.array([found["vector"] for found in bench.rows.values()], np.float32)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-3)
    assert (vectors == vectors.astype(np.float16)).all()
    assert (row["inference_key"], row["detection_id"], row["status"]) == (KEY, f"{one}-1", "ok")
    assert (row["run_id"], row["model_name"], row["model_version"]) == ("r1", "looks", "1")
    assert row["embedder_key"] == report.as_dict()["embedder_key"]


def test_a_crop_that_failed_has_a_row_without_a_vector(bench: EmbedBench) -> None:
    three = bench.three()
    bench.broken.add(f"{three['both']}-1")
    assert bench.counts().failed == 1
    row = bench.rows[three["both"], 1]
    assert (row["status"], row["error_code"], row["vector"], row["norm"]) == ("failed", "model", None, None)


def test_the_record_of_a_run_has_its_kind(bench: EmbedBench) -> None:
    bench.three()
    bench.run()
    events = rows_of(bench.tables, "runs")
    assert {(row["kind"], row["inference_key"]) for row in events} == {("embed", "e" * 64)}
    (sealed,) = (row for row in events if row["state"] == "sealed")
    assert json.loads(sealed["metrics"])["inference_key"] == KEY


def test_the_key_is_the_digest_of_model_and_margin() -> None:
    text = f'{{"cropping":1,"inference_key":"{"e" * 64}","margin_frac":0.25}}'
    target = target_of("embedder_key", KEY, embedder().info, 0.25)
    assert target.key == {"inference_key": KEY, "embedder_key": hashlib.sha256(text.encode()).hexdigest()}
    assert target.constants == {"margin_frac": 0.25}
