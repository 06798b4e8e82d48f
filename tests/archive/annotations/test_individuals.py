"""Statements about individuals: profiles field by field, identities box by box, merges, and undo of all of them."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from archive.annotations.assertions import append
from archive.annotations.individuals import Batch, IndividualStatement, record, statements_of, undo
from archive.delta.tables import Tables
from archive.retention import plan_prune
from archive.schemas import ASSERTIONS
from archive.views.query import query
from archive.views.views import View, Views
from model_store.errors import BadRequest
from tests.fixtures_local import put_results, put_rows, result_rows

KEY, OTHER = "k" * 64, "j" * 64
SHA = [f"{n:064x}" for n in range(4)]
VIEW = View(inference_key=KEY, model_name="m", model_version="1", weights_sha256="w")


def boxes(shift_px: float = 0.0, first: int = 0) -> list[dict[str, Any]]:
    """Two boxes side by side; `first` is the rank of the left one."""
    same = {"class_id": 0, "label": "deer", "score": 0.9, "y1_px": 0.0, "y2_px": 20.0}
    lefts = {first: 0.0, 1 - first: 30.0}
    return [same | {"rank": r, "x1_px": lefts[r] + shift_px, "x2_px": lefts[r] + 20.0 + shift_px} for r in (0, 1)]


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Four images of two cameras, and the results of two models that rank the same boxes differently."""
    tables = Tables(str(tmp_path_factory.mktemp("individuals") / "tables"))
    media = [
        {"media_sha256": sha, "source_root": "/a", "path": f"{n}.jpg", "camera_id": "north" if n < 2 else "south"}
        | {"captured_at_local": f"2026-05-0{n + 1}T10:00:00", "ingested_at": datetime.now(UTC)}
        for n, sha in enumerate(SHA)
    ]
    put_rows(tables, "media", *media)
    put_results(tables, result_rows(SHA, KEY, width_px=60, height_px=40, detections=boxes()))
    put_results(tables, result_rows(SHA, OTHER, width_px=60, height_px=40, detections=boxes(2.0, first=1)))
    Views(tables.url).publish(VIEW, after=0)
    return tables


@pytest.fixture
def tables(untouched: Tables, tmp_path: Path) -> Tables:
    return Tables(str(shutil.copytree(untouched.url, tmp_path / "tables")))


@pytest.fixture
def state(tables: Tables) -> Callable[..., str]:
    """Record a batch of (action, individual, fields); return its id."""
    numbers = itertools.count(1)

    def recorded(*statements: tuple[str, str, dict[str, Any]], by: str = "ana") -> str:
        batch_id = f"{next(numbers):032x}"
        named = [IndividualStatement.model_validate({"action": a, "individual_id": i} | f) for a, i, f in statements]
        assert record(tables, Batch(batch_id=batch_id, actor=by, statements=tuple(named))).added == len(named)
        return batch_id

    return recorded


def shows(image: int, rank: int = 0) -> dict[str, str]:
    return {"detection": f"{SHA[image]}-{rank}"}


def seen(tables: Tables) -> dict[tuple[int, int], str]:
    rows = query(tables, "select media_sha256, rank, individual_id from sightings").to_pylist()
    return {(SHA.index(row["media_sha256"]), row["rank"]): row["individual_id"] for row in rows}


def profile(tables: Tables, individual: str) -> dict[str, Any]:
    rows = query(tables, "from individuals").to_pylist()
    return next(row for row in rows if row["individual_id"] == individual)


def test_the_newest_value_of_each_field_is_valid_and_an_empty_one_clears(tables: Tables, state: Any) -> None:
    state(("profile", "a", {"name": "Mia", "sex": "female", "notes": "notch"}), ("identify", "a", shows(2, 1)))
    state(("profile", "a", {"name": "Mina", "notes": ""}), ("identify", "a", shows(0)))
    found = profile(tables, "a")
    assert (found["name"], found["sex"], found["notes"], found["retired"]) == ("Mina", "female", None, False)
    assert (found["crops"], found["cameras"]) == (2, 2)
    assert [f"{found[name]:%d}" for name in ("first_seen_local", "last_seen_local")] == ["01", "03"]
    assert found["examples"] == [f"{SHA[0]}-0", f"{SHA[2]}-1"]


def test_an_identity_is_replaced_rejected_and_restored_by_undo(tables: Tables, state: Any) -> None:
    state(("profile", "a", {}), ("profile", "b", {}), ("identify", "a", shows(0)))
    moved = state(("identify", "b", shows(0)), by="ben")
    assert seen(tables) == {(0, 0): "b"}
    rejected = state(("reject", "b", shows(0)))
    assert seen(tables) == {}
    undo(tables, "e" * 32, "ana", rejected)
    assert seen(tables) == {(0, 0): "b"}
    undo(tables, "f" * 32, "ana", moved)
    assert seen(tables) == {(0, 0): "a"}
    undo(tables, "d" * 32, "ana", "f" * 32)
    assert seen(tables) == {(0, 0): "b"}
    undo(tables, "c" * 32, "ana", "d" * 32)
    assert seen(tables) == {(0, 0): "a"}
    assert [row["action"] for row in statements_of(tables, "b")][-4:] == ["withdraw", "withdraw", "restore", "withdraw"]


def test_merges_chain_and_end_by_undo(tables: Tables, state: Any) -> None:
    state(*[("profile", name, {}) for name in "abc"], ("identify", "a", shows(0)), ("identify", "b", shows(1)))
    state(("profile", "a", {"merged_into": "b"}))
    into_c = state(("profile", "b", {"merged_into": "c"}))
    assert seen(tables) == {(0, 0): "c", (1, 0): "c"}
    with pytest.raises(BadRequest, match="would be merged into itself"):
        state(("profile", "c", {"merged_into": "a"}))
    state(("reject", "c", shows(0)))
    assert seen(tables) == {(1, 0): "c"}
    undo(tables, "f" * 32, "ana", into_c)
    assert seen(tables) == {(0, 0): "b", (1, 0): "b"}
    state(("profile", "a", {"merged_into": ""}))
    assert seen(tables) == {(0, 0): "a", (1, 0): "b"}


def test_an_undo_that_would_break_merges_is_refused(tables: Tables, state: Any) -> None:
    made = state(("profile", "a", {}))
    state(("profile", "b", {}), ("identify", "b", shows(0)))
    into_b = state(("profile", "a", {"merged_into": "b"}))
    ended = state(("profile", "a", {"merged_into": ""}))
    undo(tables, "e" * 32, "ana", into_b)
    into_a = state(("profile", "b", {"merged_into": "a"}))
    undo(tables, "d" * 32, "ana", ended)
    for batch_id, of_batch, words in (
        ("f" * 32, "e" * 32, "would be merged into itself"),  # restores a in b, and b is in a
        ("f" * 32, made, "'a' would be unknown, and 'b' is merged into it"),
    ):
        with pytest.raises(BadRequest, match=words):
            undo(tables, batch_id, "ana", of_batch)
    assert seen(tables) == {(0, 0): "a"}
    undo(tables, "c" * 32, "ana", into_a)
    undo(tables, "b" * 32, "ana", "e" * 32)
    assert [profile(tables, name)["merged_into"] for name in "ab"] == ["b", None]


def test_a_split_moves_detections_to_a_new_individual_and_back(tables: Tables, state: Any) -> None:
    state(("profile", "a", {}), *[("identify", "a", shows(n)) for n in range(3)])
    split = state(("profile", "b", {}), ("identify", "b", shows(1)), ("identify", "b", shows(2)))
    assert seen(tables) == {(0, 0): "a", (1, 0): "b", (2, 0): "b"}
    undo(tables, "f" * 32, "ana", split)
    assert set(seen(tables).values()) == {"a"}
    assert {row["individual_id"] for row in query(tables, "from individuals").to_pylist()} == {"a"}


def test_identities_follow_their_boxes_to_another_model(tables: Tables, state: Any) -> None:
    state(("profile", "a", {}), ("identify", "a", shows(0, 0)), ("identify", "a", shows(1, 1)))
    Views(tables.url).publish(VIEW.model_copy(update={"inference_key": OTHER}), after=1)
    assert seen(tables) == {(0, 1): "a", (1, 0): "a"}
    state(("profile", "b", {}), ("identify", "b", shows(0, 1)))
    assert seen(tables) == {(0, 1): "b", (1, 0): "a"}
    put_results(tables, result_rows(SHA, "n" * 64, "empty"))
    Views(tables.url).publish(VIEW.model_copy(update={"inference_key": "n" * 64}), after=2)
    found = profile(tables, "a")
    assert (found["crops"], found["examples"]) == (1, None), "this model has no detection there"


def test_identities_and_labels_leave_each_other_alone(tables: Tables, state: Any) -> None:
    state(("profile", "a", {}), ("identify", "a", shows(0)), ("identify", "a", shows(1)))
    same = {"layer_id": "human", "method": "human", "actor": "ben", "inference_key": KEY, "rank": 0}
    same |= {name: boxes()[0][name] for name in ("x1_px", "y1_px", "x2_px", "y2_px")}
    rows = [
        same | {"action": "relabel", "label": "fox", "media_sha256": SHA[0], "asserted_at": datetime.now(UTC)},
        same | {"action": "suppress", "media_sha256": SHA[1], "asserted_at": datetime.now(UTC)},
    ]
    append(tables, pa.Table.from_pylist(rows, ASSERTIONS))
    state(("identify", "a", shows(2)))
    found = query(tables, "select media_sha256, label from sightings order by 1").to_pylist()
    assert [(SHA.index(row["media_sha256"]), row["label"]) for row in found] == [(0, "fox"), (2, "deer")]
    labels = query(tables, f"select label from detections where media_sha256 = '{SHA[0]}' and rank = 0")
    assert labels["label"].to_pylist() == ["fox"]


def test_a_batch_that_is_sent_again_adds_nothing(tables: Tables) -> None:
    batch = Batch(
        batch_id="a" * 32,
        actor="ana",
        statements=(
            IndividualStatement(action="profile", individual_id="a"),
            IndividualStatement(action="identify", individual_id="a", detection=f"{SHA[0]}-0"),
        ),
    )
    assert [record(tables, batch).added for _ in range(2)] == [2, 0]
    put_results(tables, result_rows([SHA[0]], "n" * 64, "empty"))
    Views(tables.url).publish(VIEW.model_copy(update={"inference_key": "n" * 64}), after=1)
    assert record(tables, batch).added == 0, "although the detection is not one of the published view"
    assert [undo(tables, "b" * 32, "ana", "a" * 32).added for _ in range(2)] == [1, 0]


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        ([("identify", "x", shows(0))], "unknown individual 'x'"),
        ([("profile", "b", {"merged_into": "x"})], "unknown individual 'x'"),
        ([("profile", "b", {"merged_into": "b"})], "'b' would be merged into itself"),
        ([("identify", "a", {"detection": f"{SHA[0]}-7"})], "unknown detection 0+-7: view 'production'"),
        ([("identify", "a", {"detection": "north"})], "invalid detection 'north'"),
        ([("identify", "a", shows(0)), ("reject", "a", shows(0))], "two statements about 0+-0 in one batch"),
        ([("profile", "b", {}), ("identify", "a", shows(0)), ("identify", "b", shows(0))], "two statements about 0+-0"),
        ([("profile", "b", {}), ("profile", "b", {})], "two statements about b"),
        ([("identify", "a", {})], "need a detection"),
        ([("profile", "a", shows(0))], "a profile has none"),
        ([("reject", "a", shows(0) | {"sex": "male"})], "sex: only a profile"),
    ],
)
def test_what_cannot_be_stated_is_refused_and_nothing_is_recorded(
    tables: Tables, state: Any, statements: list[Any], words: str
) -> None:
    state(("profile", "a", {}))
    with pytest.raises((BadRequest, ValueError), match=words):
        state(*statements)
    assert len(statements_of(tables)) == 1


def test_an_unknown_batch_cannot_be_undone(tables: Tables) -> None:
    with pytest.raises(BadRequest, match="unknown batch f+: it was never recorded"):
        undo(tables, "a" * 32, "ana", "f" * 32)


def test_no_prune_removes_results_of_identified_detections(tables: Tables, state: Any) -> None:
    state(("profile", "a", {}), ("identify", "a", shows(0)))
    (use,) = [use for use in plan_prune(tables, [], keep_days=0) if use.inference_key == KEY]
    assert "1 statements about individuals refer to it" in use.kept
