"""Run the whole circle of learning with the commands of a user, on this machine, without a cluster. Safe to repeat.

detect -> embed -> suggest and name -> select, export, correct -> report, evaluate -> retrained version -> diff, publish

    python -m examples.circle [--images 80] [FOLDER ...]

A script takes the place of the person, with the plan of the sample archive. Retraining is a stand-in, too: a label
to which people always gave one other name gets that name. Images of other folders are detected and embedded like the
sample archive, without corrections.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import onnx

from examples.archive_plan import Shot, plan
from examples.demo import EXAMPLES, MODEL, resight
from examples.sample_archive import build
from examples.scenes import HEIGHT, PHOTOS, WIDTH, subject_box
from model_store.names import version_id
from model_store.store import ModelStore
from serve.settings import Settings

FEATURES = "clip_402"
"""Output of the detector's last layer before its heads: (n, 1280, 10, 10)."""
PERSON = "Ana"
RANDOM = 20
WEIGHTS = EXAMPLES / "models" / MODEL / "1" / "model.onnx"
RENAMED = """
    select model_label, label, count(*) as n from detections where said_by = 'human' and model_label is not null
    group by all order by n desc, model_label
"""
UNMENTIONED = """
    select media_sha256, inference_key, rank from detections where said_by is distinct from 'human'
        and media_sha256 in (select media_sha256 from assertions where actor = '{person}' and method = 'human')
"""
CROPS = "select e.detection_id, d.path from embeddings e join detections d using (media_sha256, rank, inference_key)"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="*", metavar="FOLDER", type=Path, help="other archives")
    parser.add_argument("--images", type=int, default=80, help="files of the sample archive, at least 64")
    options = parser.parse_args()
    settings = Settings()
    work, archive = settings.home_path / "circle", settings.home_path / f"circle-archive-{options.images}"
    shutil.rmtree(work, ignore_errors=True)  # files of an earlier time
    work.mkdir(parents=True)
    shots = {shot.path: shot for shot in plan(options.images, seed=0)}
    build(archive, options.images)
    resight("models", "pull", str(EXAMPLES / "models"), f"{MODEL}@1")
    looks = add_embedder(work)
    for folder in (archive, *options.folders):
        resight("ingest", str(folder))
    resight("reprocess", "--model", f"{MODEL}@1", "--here")
    resight("embed", "--model", looks, "--here")
    name_the_cat(shots)
    scope = ("--folder", str(archive))
    correct(work / "next", shots, *scope, "--count", "12", "--by", "uncertain,rare,diverse")
    correct(work / "random", shots, *scope, "--count", str(RANDOM), "--by", "random")
    resight("report", "activity", "cat")
    resight("individuals", "report", "readiness")
    resight("evaluate", *scope, "--random", str(RANDOM))
    retrained = retrain(settings, work)
    resight("reprocess", "--model", retrained, "--here")
    resight("evaluate", "published", retrained, *scope, "--random", str(RANDOM))
    resight("runs", "diff", "published", retrained, "--out", str(work / "impact"), "--gate")
    resight("runs", "publish", retrained, "--reason", "the circle")


def rows(*arguments: str) -> list[dict[str, Any]]:
    """Return the rows, or the one record, that a command prints as JSON."""
    found = json.loads(resight(*arguments, "--format", "json", show=False))
    return found if isinstance(found, list) else [found]


def add_embedder(work: Path) -> str:
    """Add an embedder, the mean features of the shipped detector; return its name@version."""
    model = onnx.load(WEIGHTS)
    helper, graph = onnx.helper, model.graph
    graph.node.append(helper.make_node("GlobalAveragePool", [FEATURES], ["pooled"]))
    graph.node.append(helper.make_node("Flatten", ["pooled"], ["embedding"]))
    graph.output.append(helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, ["batch", 1280]))
    onnx.save(model, work / "full.onnx")
    onnx.utils.extract_model(work / "full.onnx", work / "looks.onnx", ["images"], ["embedding"])
    (work / "looks.json").write_text(
        json.dumps({"kind": "embedder", "preprocess": {"resize": "stretch", "side_px": 300}})
    )
    return add(work / "looks.onnx", work / "looks.json", "looks")


def add(weights: Path, config: Path, name: str) -> str:
    """Add a version unless it exists; return its name@version."""
    probe = ("--probe", str(PHOTOS / "cat.jpg"))
    (added,) = rows("models", "add", str(weights), "--config", str(config), "--name", name, *probe)
    print(added["model"])
    return str(added["model"])


def name_the_cat(shots: dict[str, Shot]) -> None:
    """Name the cat by its first crop; accept a suggestion if its picture shows the cat, else reject it."""
    cats = [row["detection_id"] for row in rows("sql", CROPS) if is_of(shots, row["path"], "cat")]
    named = {row["individual_id"] for row in rows("individuals", "list")}
    if cats and "chelsea" not in named:
        resight("individuals", "create", "chelsea", "--name", "Chelsea", "--detection", min(cats), "--by", PERSON)
    (found,) = rows("individuals", "suggest", "--limit", "100")
    answers: dict[str, list[str]] = defaultdict(list)
    for one in found["detections"]:
        if one["candidates"]:
            answers["assign" if is_of(shots, one["path"], "cat") else "reject"].append(one["detection_id"])
    for answer, detections in answers.items():
        resight("individuals", answer, "chelsea", *detections, "--by", PERSON)


def is_of(shots: dict[str, Shot], path: str, subject: str) -> bool:
    return path in shots and shots[path].subject == subject


def correct(folder: Path, shots: dict[str, Shot], *selection: str) -> None:
    """Select images, export them, and add the work of the person, unless all selected images are reviewed."""
    folder.mkdir()
    resight("select", *selection, "--out", str(folder / "ids.txt"))
    if not (folder / "ids.txt").exists():
        return
    resight("export", "label-studio", str(folder / "review"), "--ids", str(folder / "ids.txt"))
    tasks = json.loads((folder / "review" / "tasks.json").read_text())
    for task in tasks:
        task["annotations"] = [{"result": drawn(task, shots[task["data"]["path"]])}]
    (folder / "project.json").write_text(json.dumps(tasks))
    resight("assertions", "add", str(folder / "project.json"), "--from", "label-studio", "--by", PERSON)
    wrong = rows("sql", UNMENTIONED.format(person=PERSON))
    if wrong:  # the person deleted these rectangles
        (folder / "wrong.json").write_text(json.dumps([{"action": "suppress"} | row for row in wrong]))
        resight("assertions", "add", str(folder / "wrong.json"), "--by", PERSON)


def drawn(task: dict[str, Any], shot: Shot) -> list[dict[str, Any]]:
    """Return the rectangle that a person leaves of a task: the model's best one in the subject, or else a new one."""
    box = subject_box(shot, seed=0)
    if box is None:
        return []
    x1, y1, x2, y2 = box
    predicted = [region for each in task.get("predictions", ()) for region in each["result"]]
    inside = [r for r in predicted if x1 <= _centre(r, "x", "width") <= x2 and y1 <= _centre(r, "y", "height") <= y2]
    region = max(inside, key=lambda each: float(each["score"] or 0), default=None)
    if region is None:
        place = {"x": x1 / WIDTH, "y": y1 / HEIGHT, "width": (x2 - x1) / WIDTH, "height": (y2 - y1) / HEIGHT}
        region = {"type": "rectanglelabels", "original_width": WIDTH, "original_height": HEIGHT}
        region |= {"value": {name: 100 * value for name, value in place.items()}}
    return [region | {"value": region["value"] | {"rectanglelabels": [shot.subject]}}]


def _centre(region: dict[str, Any], start: str, size: str) -> float:
    """Return the centre of a rectangle along an axis, in px."""
    extent_px = WIDTH if start == "x" else HEIGHT
    return float(region["value"][start] + region["value"][size] / 2) / 100 * extent_px


def retrain(settings: Settings, work: Path) -> str:
    """Add a version of the published model with the names that people always gave to a label; return name@version."""
    (view,) = rows("sql", "select model_name, model_version from views where current and name = 'production'")
    version = version_id(view["model_name"], view["model_version"])
    config = ModelStore(settings.models_url).describe(version).detector_config.model_dump(mode="json")
    given, learned = rows("sql", RENAMED), dict[str, str]()
    for row in given:
        names = {each["label"] for each in given if each["model_label"] == row["model_label"]}
        if names.isdisjoint({*config["labels"], *learned.values()}) and len(names) == 1:
            learned[row["model_label"]] = row["label"]
    config["labels"] = [learned.get(label, label) for label in config["labels"]]
    print(f"\nlearned from {PERSON}: {learned or 'nothing new'}")
    (work / "retrained.json").write_text(json.dumps(config))
    return add(WEIGHTS, work / "retrained.json", MODEL)


if __name__ == "__main__":
    main()
