"""Results of other tools: read back box for box, once, all or nothing, and never run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import batch.imports.import_results as importing
from archive.annotations.annotation_file import BOX
from archive.delta.tables import Tables
from archive.delta.writer import add_results
from archive.formats.export_file import export_file
from archive.formats.file_formats import FORMATS
from archive.formats.records import USED, image_records
from archive.views.publications import view_of_run
from archive.views.query import connect, query
from archive.views.views import Views
from batch.imports.import_results import Imported, import_results
from batch.planning.plan import pinned
from batch.publishing.impact.result_sets import side
from batch.publishing.publish import publish
from batch.runs.record import RunLog
from model_store.errors import AccountingOpen, BadRequest, ModelRefused, NothingWorked
from model_store.load import load_model
from model_store.names import parse_version
from model_store.store import ModelStore
from tests.archive.formats.small_archive import LABELS, ROOT, media_row, put_media, small_archive
from tests.fixtures_local import publish_blobs, rows_of

INFO = {"format_version": "1.6", "detector": "md_v5a.0.0.pt", "detector_metadata": {"typical_detection_threshold": 0.3}}
CATEGORIES = {"1": "animal", "2": "person", "3": "vehicle"}
FOUND: dict[str, Any] = {"category": "1", "conf": 0.9, "bbox": [0.1, 0.1, 0.2, 0.4]}


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return small_archive(str(tmp_path_factory.mktemp("small") / "tables"))


@pytest.fixture
def tables(untouched: Tables, tmp_path: Path) -> Tables:
    return Tables(str(shutil.copytree(untouched.url, tmp_path / "tables")))


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(str(tmp_path / "models"))


def written(place: Path, *images: dict[str, Any], **more: Any) -> Path:
    file = place / "md.json"
    value = {"info": INFO, "detection_categories": CATEGORIES, "images": images} | more
    file.write_text(json.dumps(value))
    return file


def image(path: str, *detections: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"file": path, "detections": list(detections), **more}


def shown(tables: Tables, run_id: str | None = None) -> list[tuple[Any, ...]]:
    view = view_of_run(tables, run_id) if run_id else None
    with connect(tables, view, statement=USED) as sql:
        return [
            (r.path, r.status, b.label, b.score or 1.0, b.x1, b.y1, b.x2, b.y2)
            for r in image_records(sql)
            for b in r.detections
        ]


def label_of(tables: Tables, run_id: str) -> str:
    """Label of the only box of an image that no person has seen."""
    (label,) = [row[2] for row in shown(tables, run_id) if row[0] == "south/d.jpg"]
    return str(label)


def test_an_export_that_is_imported_equals_its_view(
    tables: Tables, store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archive.delta.scratch_db.MOST_LISTED", 1)
    out = tmp_path / "md.json"
    export_file(tables, FORMATS["megadetector"], out, labels=LABELS)
    found = import_results(tables, store, "megadetector", out, ROOT, min_class_score=0)
    assert found.images == 5
    assert found.unmatched == {"a copy of another image of the file": (1, "south/copy.jpg")}
    counts = found.counts
    assert (counts.requested, counts.ok, counts.empty, counts.failed) == (4, 2, 1, 1)
    now, before = shown(tables, found.run_id), shown(tables)
    assert [row[:3] for row in now if row[0] != "z.jpg"] == [row[:3] for row in before[:2]]
    places = [row for row in now if row[0] in ("north/a.jpg", "z.jpg")]
    expected = [row for row in before if row[0] in ("north/a.jpg", "z.jpg")]
    for row, old in zip(places, expected, strict=True):
        assert (row[0], row[2]) == (old[0], old[2])
        assert row[3] == pytest.approx(old[3], abs=5e-4)
        assert row[4:] == pytest.approx(old[4:], abs=1000 * 1e-4)


def test_a_second_import_changes_nothing(tables: Tables, store: ModelStore, tmp_path: Path) -> None:
    file = written(tmp_path, image("north/a.jpg", FOUND), image("north/b.jpg"))
    first = import_results(tables, store, "megadetector", file, ROOT)
    before = {name: rows_of(tables, name) for name in ("results", "runs", "media")}
    second = import_results(tables, store, "megadetector", file, ROOT)
    assert (second.run_id, second.counts.reused, second.counts.ok) == (first.run_id, 2, 0)
    assert {name: rows_of(tables, name) for name in before} == before
    assert store.versions("md_v5a.0.0") == [parse_version(first.model)]


def test_rows_that_another_import_adds_first_are_reused(
    tables: Tables, store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, others = written(tmp_path, image("north/a.jpg", FOUND), image("north/b.jpg")), list[Imported]()

    def late(*args: Any) -> None:
        monkeypatch.setattr(importing, "add_results", add_results)
        others.append(import_results(tables, store, "megadetector", file, ROOT))
        add_results(*args)

    monkeypatch.setattr(importing, "add_results", late)
    found = [import_results(tables, store, "megadetector", file, ROOT), *others]
    assert [(one.counts.ok, one.counts.empty, one.counts.reused) for one in found] == [(0, 0, 2), (1, 1, 0)]
    assert [sum(row["run_id"] == one.run_id for row in rows_of(tables, "results")) for one in found] == [0, 2]


def test_rows_that_a_prune_removes_before_the_run_begins_are_added(
    tables: Tables, store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, begin = written(tmp_path, image("north/a.jpg", FOUND), image("new.jpg")), RunLog.begin
    first = import_results(tables, store, "megadetector", file, ROOT)
    put_media(tables, media_row("n", "new.jpg"))

    def late(*args: Any) -> None:
        tables.snapshot("results").delete(f"run_id = '{first.run_id}'")
        begin(*args)

    monkeypatch.setattr(RunLog, "begin", late)
    counts = import_results(tables, store, "megadetector", file, ROOT).counts
    assert (counts.ok, counts.empty, counts.reused) == (1, 1, 0)


@pytest.mark.parametrize(
    ("added", "error", "message"),
    [
        (add_results, NothingWorked, r"all 2 matched images of .* failed there: run megadetector again"),
        (lambda *_: None, AccountingOpen, r"requested 2 != ok 0 .*: images of .* no row in results; import it again"),
    ],
)
def test_an_import_without_results_is_not_sealed(
    tables: Tables,
    store: ModelStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    added: Any,
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr(importing, "add_results", added)
    file = written(tmp_path, *({"file": f"north/{name}.jpg", "failure": "access"} for name in "ab"))
    with pytest.raises(error, match=message):
        import_results(tables, store, "megadetector", file, ROOT)
    assert {row["state"] for row in rows_of(tables, "runs") if row["run_id"] != "r"} == {"running", "failed"}


def test_boxes_are_cut_at_the_edges_of_the_image(tables: Tables, store: ModelStore, tmp_path: Path) -> None:
    boxes = [[1.005, -0.01, 0, 0.5], [-0.01, 0.995, 0.005, 0.01]]
    found = [{**FOUND, "bbox": box, "category": number} for box, number in zip(boxes, "15", strict=True)]
    names = {"1": "animal", "5": "animal"}
    file = written(tmp_path, image("south/d.jpg", *found), detection_categories=names)
    run = import_results(tables, store, "megadetector", file, ROOT)
    (row,) = query(tables, f"select * from all_results where run_id = '{run.run_id}'").to_pylist()
    width, height = row["width_px"], row["height_px"]
    corners = [tuple(box[c] for c in BOX) for box in row["detections"] if box["label"] == "animal"]
    expected = [(0, 0.995 * height, 0, height), (width, 0, width, 0.49 * height)]
    assert corners == [pytest.approx(each) for each in expected]


def test_a_path_may_be_in_another_unicode_form(tables: Tables, store: ModelStore, tmp_path: Path) -> None:
    """Macs decompose characters. If the archive has both forms, each is its own file."""
    paths = {"m": "Su\u0308d/a.jpg", "n": "Su\u0308d/b.jpg", "o": "S\u00fcd/b.jpg"}
    put_media(tables, *(media_row(sha, path) for sha, path in paths.items()))
    file = written(tmp_path, image("S\u00fcd/a.jpg", FOUND), image(paths["n"], FOUND, FOUND), image(paths["o"]))
    run = import_results(tables, store, "megadetector", file, ROOT)
    rows = query(tables, f"select media_sha256, n_detections from all_results where run_id = '{run.run_id}'")
    assert dict(zip(*rows.to_pydict().values(), strict=True)) == {"m": 1, "n": 2, "o": 0}


def test_of_copies_the_one_with_a_usable_result_counts(tables: Tables, store: ModelStore, tmp_path: Path) -> None:
    put_media(tables, media_row("a", "north/0.jpg"), media_row("a", "north/1.jpg"))
    unfit = [image("north/0.jpg", FOUND, width=9, height=9)]
    unfit += [{"file": "north/1.jpg", "failure": "image access failure"}]
    file = written(tmp_path, *unfit, image("north/a.jpg", FOUND))
    found = import_results(tables, store, "megadetector", file, ROOT)
    assert (found.counts.ok, found.counts.failed) == (1, 0)
    assert found.unmatched == {
        "a copy of another image of the file": (1, "north/1.jpg"),
        "of another size in the catalogue": (1, "north/0.jpg"),
    }


def test_the_run_and_the_rows_have_the_lineage(tables: Tables, store: ModelStore, tmp_path: Path) -> None:
    file = written(tmp_path, image("north/a.jpg", FOUND), image("x.jpg"), image("north/gone.jpg"))
    found = import_results(tables, store, "megadetector", file, ROOT, name="mega")
    assert found.model.startswith("mega@")
    assert found.unmatched == {
        f"not catalogued in {ROOT}": (1, "x.jpg"),
        "gone from the archive": (1, "north/gone.jpg"),
    }
    rows = query(tables, "select * from all_results where run_id <> 'r'").to_pylist()
    (row,) = rows
    assert (row["run_id"], row["width_px"], row["error_code"]) == (found.run_id, 1000, None)
    (box,) = row["detections"]
    assert (box["rank"], box["label"], box["class_id"]) == (0, "animal", 0)
    assert [box[name] for name in ("x1_px", "y1_px", "x2_px", "y2_px")] == pytest.approx([100, 50, 300, 250])
    runs = query(tables, "select * from runs where run_id <> 'r'").to_pylist()
    assert [(run["run_id"], run["state"]) for run in runs] == [(found.run_id, "sealed")]
    spec = json.loads(runs[0]["spec"])
    assert (spec["tool"], spec["detector"], spec["file"]) == (*("megadetector", "md_v5a.0.0.pt"), str(file))
    config = store.describe(parse_version(found.model)).detector_config
    assert (config.thresholds.default, config.labels) == (0.3, LABELS)


def test_imported_results_are_published_and_compared_but_never_run(
    tables: Tables, store: ModelStore, tmp_path: Path
) -> None:
    file = written(tmp_path, image("north/a.jpg", FOUND), image("north/b.jpg", {**FOUND, "conf": 0.1}))
    found = import_results(tables, store, "megadetector", file, ROOT)
    view = publish(tables, store, found.run_id)
    assert (view.threshold, Views(tables.url).current()) == (0.3, view)
    assert {row[0] for row in shown(tables)} == {"north/a.jpg", "south/copy.jpg", "z.jpg"}
    assert side(tables, store, found.model).inference_key == view.inference_key
    with pytest.raises(ModelRefused, match="neither run nor served"):
        load_model(store, parse_version(found.model))
    with pytest.raises(BadRequest, match="has imported results and cannot be run"):
        pinned(store, found.model)


def test_boxes_are_named_by_classes_above_a_score(tables: Tables, store: ModelStore, tmp_path: Path) -> None:
    named = {**FOUND, "classifications": [["7", 0.4], ["8", 0.6]]}
    file = written(tmp_path, image("south/d.jpg", named), classification_categories={"7": "fox", "8": "deer"})
    labels = {}
    for score in (0.5, 0.7):
        run = import_results(tables, store, "megadetector", file, ROOT, min_class_score=score)
        labels[score] = shown(tables, run.run_id)[0][2]
    assert labels == {0.5: "deer", 0.7: "animal"}
    assert len(store.versions("md_v5a.0.0")) == 2


def test_predictions_of_speciesnet_are_imported(tables: Tables, store: ModelStore, tmp_path: Path) -> None:
    box = {"label": "animal", "conf": 0.8, "bbox": [0.1, 0.1, 0.2, 0.2]}
    file = tmp_path / "predictions.json"
    common = {"prediction_score": 0.9, "model_version": "4.0.1a"}
    fox = {"prediction": "u;mammalia;carnivora;canidae;vulpes;vulpes;red fox", **common}
    rows = [
        {"filepath": f"{ROOT}/south/d.jpg", "detections": [box], **fox},
        {"filepath": "north/b.jpg", "failures": ["DETECTOR"], "model_version": "4.0.1a"},
    ]
    file.write_text(json.dumps({"predictions": rows}))
    found = import_results(tables, store, "speciesnet", file, ROOT, min_class_score=0.65)
    assert found.model.startswith("speciesnet-4.0.1a@")
    assert (found.counts.ok, found.counts.failed) == (1, 1)
    assert label_of(tables, found.run_id) == "red fox"


@pytest.mark.parametrize(
    ("images", "root", "message"),
    [
        ([image("x.jpg"), image("y.jpg")], ROOT, r"no image of .* 2 not catalogued .* such as x.jpg"),
        ([image("a.jpg"), image("./a.jpg")], f"{ROOT}/north", "has image 'a.jpg' twice"),
        ([image("../a.jpg")], f"{ROOT}/north", "not a path below /data/deer/north"),
        ([image("/other/a.jpg")], ROOT, "is not below /data/deer"),
        ([image("C:\\a.jpg")], ROOT, "is not below /data/deer"),
        ([image("north/a.jpg", width=640, height=480)], ROOT, "1 of another size in the catalogue"),
        ([image("north/c.mp4", FOUND | {"frame_number": 2})], ROOT, "1 a clip, whose frames cannot be imported"),
        ([image("a.jpg")], "/nowhere", "/nowhere is not in a catalogued archive"),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(
    tables: Tables, store: ModelStore, tmp_path: Path, images: list[Any], root: str, message: str
) -> None:
    put_media(tables, media_row("c", "north/c.mp4", frame_count=20))
    before = rows_of(tables, "results")
    with pytest.raises(BadRequest, match=message):
        import_results(tables, store, "megadetector", written(tmp_path, *images), root)
    assert rows_of(tables, "results") == before
    assert store.names() == []
    assert len(rows_of(tables, "runs")) == 1


def test_a_root_inside_an_archive_and_backslashes_find_the_images(
    tables: Tables, store: ModelStore, tmp_path: Path
) -> None:
    put_media(tables, media_row("w", "north/card 1/w.jpg"))
    file = written(tmp_path, image("card 1\\w.jpg", FOUND))
    assert import_results(tables, store, "megadetector", file, f"{ROOT}/north").counts.ok == 1


def test_a_model_that_can_run_keeps_its_name(tables: Tables, store: ModelStore, tmp_path: Path) -> None:
    publish_blobs(store, "1")
    file = written(tmp_path, image("north/a.jpg", FOUND))
    with pytest.raises(BadRequest, match="of imported results, but blobs@1 is a det.* with --name"):
        import_results(tables, store, "megadetector", file, ROOT, name="blobs")
    others = ModelStore(str(tmp_path / "others"))
    import_results(tables, others, "megadetector", file, ROOT, name="blobs")
    with pytest.raises(ModelRefused, match="blobs@2 is a detector, but blobs@.* of imported res"):
        publish_blobs(others, "2")
