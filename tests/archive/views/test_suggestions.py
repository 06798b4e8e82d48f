"""Suggestions against products of vectors in numpy: thresholds, rejections, retired and merged individuals."""

from __future__ import annotations

import itertools
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archive.annotations.individuals import Batch, IndividualStatement, record
from archive.delta.tables import Tables
from archive.views.query import query
from archive.views.sightings import readiness, separability, sightings, together
from archive.views.suggestions import Suggestion, SuggestionSearch, set_threshold, suggest
from archive.views.views import View, Views
from model_store.errors import BadRequest, DeadlinePassed
from tests.archive.named_animals import KEY, named_animals
from tests.fixtures_local import put_rows
from tests.oracles.reidentification import ranked

ANIMALS = {"a": [0, 1, 2], "b": [3, 4], "c": [5]}
"""Individuals with their images; images 6 to 11 have none."""
_numbers = itertools.count(1)


def state(tables: Tables, *statements: tuple[str, str, dict[str, Any]]) -> None:
    named = [IndividualStatement.model_validate({"action": a, "individual_id": i} | f) for a, i, f in statements]
    record(tables, Batch(batch_id=f"{next(_numbers):032x}", actor="ana", statements=tuple(named)))


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    drawn = np.random.default_rng(3).standard_normal((12, 5)).astype(np.float32) + 0.6
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory, vectors: np.ndarray) -> Tables:
    place = tmp_path_factory.mktemp("suggestions") / "tables"
    tables = named_animals(place, vectors, cameras=["north", "south", "east"] * 4)
    for name, images in ANIMALS.items():
        state(tables, ("profile", name, {}), *[("identify", name, {"detection": f"{n:064x}-0"}) for n in images])
    return tables


@pytest.fixture
def tables(untouched: Tables, tmp_path: Path) -> Tables:
    return Tables(str(shutil.copytree(untouched.url, tmp_path / "tables")))


def suggested(tables: Tables, **more: Any) -> dict[int, list[tuple[str, float]]]:
    page = suggest(tables, SuggestionSearch(**more), 60.0)
    return {_image(d): [(c.individual_id, c.similarity) for c in d.candidates] for d in page.detections}


def _image(one: Suggestion) -> int:
    return int(one.detection_id[:64], 16)


def expected(vectors: np.ndarray, image: int, threshold: float) -> list[tuple[str, float]]:
    """Return the individuals by the mean of their three highest cosines, with a loop over all of them."""
    best = {}
    for name, images in ANIMALS.items():
        others = sorted((float(vectors[image] @ vectors[n]) for n in images if n != image), reverse=True)[:3]
        if others and sum(others) / len(others) >= threshold:
            best[name] = sum(others) / len(others)
    return sorted(best.items(), key=lambda pair: -pair[1])


@pytest.mark.parametrize("threshold", [-1.0, 0.3, 0.9])
def test_individuals_are_suggested_by_their_most_similar_crops(
    tables: Tables, vectors: np.ndarray, threshold: float
) -> None:
    found = suggested(tables, threshold=threshold)
    assert sorted(found) == list(range(6, 12))
    for image, candidates in found.items():
        want = expected(vectors, image, threshold)
        assert [name for name, _ in candidates] == [name for name, _ in want]
        assert [cosine for _, cosine in candidates] == pytest.approx([c for _, c in want], abs=1e-3)


def test_a_crop_is_no_evidence_for_itself(tables: Tables, vectors: np.ndarray) -> None:
    (candidates,) = suggested(tables, detection=f"{0:064x}-0", threshold=-1).values()
    assert dict(candidates) == pytest.approx(dict(expected(vectors, 0, -1.0)), abs=1e-3)
    (candidates,) = suggested(tables, detection=f"{5:064x}-0", threshold=-1).values()
    assert {name for name, _ in candidates} == {"a", "b"}


def test_the_threshold_is_a_setting_of_the_view_and_below_it_the_answer_is_new(tables: Tables) -> None:
    versions = {name: tables.snapshot(name).version() for name in ("embeddings", "results", "individuals")}
    set_threshold(tables, "production", 0.99, "")
    page = suggest(tables, SuggestionSearch(), 60.0)
    assert page.threshold == 0.99
    assert {one.is_new for one in page.detections} == {True}
    assert Views(tables.url).rollback(Views(tables.url).history()).identity_threshold == 0.9
    assert {name: tables.snapshot(name).version() for name in versions} == versions
    with pytest.raises(BadRequest, match="invalid threshold 1.5: a cosine is between -1 and 1"):
        set_threshold(tables, "production", 1.5, "")


def test_rejected_retired_and_merged_individuals_are_not_suggested(tables: Tables, vectors: np.ndarray) -> None:
    state(tables, ("reject", "a", {"detection": f"{6:064x}-0"}))
    found = suggested(tables, threshold=-1)
    assert {name for name, _ in found[6]} == {"b", "c"}
    assert {name for name, _ in found[7]} == {"a", "b", "c"}
    state(tables, ("profile", "b", {"retired": True}), ("profile", "c", {"merged_into": "a"}))
    found = suggested(tables, threshold=-1)
    assert found[6] == []
    cosines = sorted(float(vectors[7] @ vectors[n]) for n in (0, 1, 2, 5))
    assert found[7] == [("a", pytest.approx(sum(cosines[1:]) / 3, abs=1e-3))]
    state(tables, ("identify", "a", {"detection": f"{6:064x}-0"}))
    assert 6 not in suggested(tables)


def test_without_individuals_everything_is_new_and_wrong_ids_are_refused(
    tmp_path: Path, vectors: np.ndarray, tables: Tables
) -> None:
    unnamed = named_animals(tmp_path / "unnamed", vectors, cameras=["north"] * 12)
    assert {one.is_new for one in suggest(unnamed, SuggestionSearch(threshold=-1), 60.0).detections} == {True}
    assert readiness(unnamed).separability == separability(vectors[:0], np.array([]), np.array([]))
    with pytest.raises(BadRequest, match="invalid detection 'x'"):
        suggested(tables, detection="x")
    with pytest.raises(BadRequest, match="no vector of f+-3 by looks@1"):
        suggested(tables, detection="f" * 64 + "-3")
    with pytest.raises(DeadlinePassed):
        suggest(tables, SuggestionSearch(), 0.0)
    Views(tables.url).publish(
        View(inference_key="j" * 64, model_name="m", model_version="2", weights_sha256="w", name="trial"), after=0
    )
    with pytest.raises(BadRequest, match="run resight embed --model NAME first"):
        suggested(tables, view="trial")
    assert readiness(tables, "trial").model is None
    assert KEY != "j" * 64


def test_separability_is_that_of_an_oracle() -> None:
    draw = np.random.default_rng(5)
    vectors = draw.standard_normal((60, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    who, where = draw.integers(0, 9, 60).astype(object), draw.integers(0, 4, 60).astype(object)
    found, want = separability(vectors, who, where), ranked(vectors.tolist(), who.tolist(), where.tolist())
    assert found.model_dump() == pytest.approx(want, abs=1e-5)


def test_sightings_pairs_and_readiness_are_counted(tables: Tables, vectors: np.ndarray, tmp_path: Path) -> None:
    """Images of a camera are 30 minutes apart; image n is of camera n mod 3, at 10 minutes times n."""
    rows = sightings(tables, gap_min=30).to_pylist()
    assert {(row["individual_id"], row["camera_id"]): (row["sightings"], row["crops"]) for row in rows} == {
        ("a", "north"): (1, 1),
        ("a", "south"): (1, 1),
        ("a", "east"): (1, 1),
        ("b", "north"): (1, 1),
        ("b", "south"): (1, 1),
        ("c", "east"): (1, 1),
    }
    assert {row["week"] for row in rows} == {"2026-W18"}
    state(tables, ("identify", "a", {"detection": f"{6:064x}-0"}))
    counts = [
        [row["sightings"] for row in sightings(tables, gap_min=gap).to_pylist()][1] for gap in (59, 60)
    ]  # a at north: images 0 and 6, an hour apart
    assert counts == [2, 1]
    pairs = {(r["individual_id"], r["other_id"]): r for r in together(tables, gap_min=30).to_pylist()}
    assert {pair: row["together"] for pair, row in pairs.items()} == {("a", "b"): 2, ("a", "c"): 1}
    assert pairs["a", "b"]["association"] == pytest.approx(2 / (3 + 2 - 2))
    assert together(tables, gap_min=29).to_pylist() == []
    nowhere = named_animals(tmp_path / "nowhere", vectors, cameras=[None] * 12)
    reset = named_animals(tmp_path / "reset", vectors, ["north"] * 12, timestamp_flags=["reset_default"])
    for one in (nowhere, reset):
        for n, name in enumerate("ab"):
            state(one, ("profile", name, {}), ("identify", name, {"detection": f"{n:064x}-0"}))
        assert together(one).to_pylist() == []
    assert (sightings(reset).to_pylist(), readiness(reset).new_by_week) == ([], {})
    assert query(reset, "select distinct first_seen_local, last_seen_local from individuals").num_rows == 1
    facts = readiness(tables)
    assert (facts.individuals, facts.named_crops, facts.shown_detections) == (3, 7, 12)
    assert (facts.assignment_rate, facts.median_crops, facts.with_one_crop) == (pytest.approx(7 / 12), 2, 1)
    assert facts.new_by_week == {"2026-W18": 3}
    assert facts.model == "looks@1"
    assert facts.separability
    assert facts.separability.queries == 6
    published = Views(tables.url).current()
    assert published
    Views(tables.url).publish(published.model_copy(update={"threshold": 0.95}), after=published.serial)
    kept = {"action": "keep", "method": "human", "label": "deer", "inference_key": KEY, "rank": 0, "x1_px": 1.0}
    corners = {"y1_px": 2.0, "x2_px": 9.0, "y2_px": 9.0, "asserted_at": datetime.now(UTC)}
    put_rows(
        tables, "assertions", *({"assertion_id": str(n), "media_sha256": f"{n:064x}"} | kept | corners for n in (0, 11))
    )
    facts = readiness(tables)
    assert (facts.named_crops, facts.shown_detections, facts.assignment_rate) == (7, 2, 0.5)
