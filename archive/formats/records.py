"""Stream the images of a view with their shown detections, for the writers of files of other tools.

image_records(sql, tables) -> one ImageRecord per present file, by root and path, in constant memory
The relations of `archive/views/query.py` are ordered once, in two tables of its scratch database, and read in windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

import duckdb
import pyarrow as pa

from archive.delta.scratch_db import windows

Status = Literal["ok", "empty", "failed", "missing"]
Observer = Literal["human", "machine"]
WINDOW = 10_000
"""Files that are in memory at a time."""
USED = """
    media images results detections image_groups image_deployments deployments classifications seen resolved standing
    corrected
"""
"""Relations that `image_records` and `facts_of` read, for `query.connect`."""
_FILES = """
    create table export_files as
    with described as (
        from (select media_sha256, deployment_id, captured_at_corrected from image_deployments) full join
            (select media_sha256, event_id from image_groups) using (media_sha256)),
    hidden_boxes as (
        select media_sha256, count(*) as n, bool_or(human) as by_person from resolved
        where hidden group by media_sha256),
    reviewed as (
        select media_sha256, max(asserted_at) as reviewed_at, bool_or(x1_px is null) as is_empty
        from standing group by media_sha256)
    select row_number() over (order by source_root, path) - 1 as n, m.source_root, m.path, m.media_sha256, m.media_type,
        m.frame_index, m.frame_rate, coalesce(r.width_px, m.width_px) as width_px,
        coalesce(r.height_px, m.height_px) as height_px, m.captured_at_local,
        coalesce(d.captured_at_corrected, m.captured_at_local) as captured_at_corrected,
        if(d.captured_at_corrected <> m.captured_at_local, [], coalesce(m.timestamp_flags, [])) as timestamp_flags,
        m.camera_id, d.event_id, d.deployment_id,
        coalesce(r.status, 'missing') as status, r.error_code,
        e.reviewed_at,
        case when e.is_empty then 'human'
            when r.status <> 'failed' and r.n_detections = coalesce(h.n, 0) then if(h.by_person, 'human', 'machine')
        end as blank_by
    from media m left join results r using (media_sha256) left join described d using (media_sha256)
        left join hidden_boxes h using (media_sha256) left join reviewed e using (media_sha256)
    where m.missing_since is null and m.frame_count is null {chosen} order by n
"""
_CHOSEN = "and (m.source_root, m.path) in (select (source_root, path) from chosen_files)"
_SHOWN = """
    create table export_shown as
    select media_sha256, label, score, x1_px, y1_px, x2_px, y2_px, rank,
        coalesce(said_by = 'human', false) as is_human, said_by, model_label
    from detections where is_human or score >= $floor::float
"""
_BOXES = """
    create table export_boxes as
    with classes as (
        select media_sha256, rank, label, score from classifications
        where inference_key = getvariable('inference_key') and classifier_key = $classifier and status = 'ok')
    select f.n, d.* exclude (media_sha256), c.label as class_label, c.score as class_score
    from export_shown d join (select n, media_sha256 from export_files) f using (media_sha256)
        left join classes c on c.media_sha256 = d.media_sha256 and c.rank = d.rank
    order by f.n, d.rank nulls last, d.x1_px, d.y1_px;
    drop table export_shown
"""
"""Two statements, because both sets of joins together need more memory than either."""
_DEPLOYMENTS = """
    select deployment_id, camera_id, location, latitude, longitude, corrected(from_local, clock_offset_s),
        corrected(until_local, clock_offset_s), time_zone, notes from deployments
"""


@dataclass(slots=True)
class BoxRecord:
    """One shown detection: corners in pixels of the displayed image, the origin at the top left.

    `label` and `score` are those after layers and people; `model_label` is the detector's own, None for a box that a
    person added, which has neither rank nor score. `classification` is the best class of the classifier, with its
    score.
    """

    label: str
    score: float | None
    x1: float
    y1: float
    x2: float
    y2: float
    rank: int | None = None
    is_human: bool = False
    said_by: str | None = None
    model_label: str | None = None
    classification: tuple[str, float] | None = None

    def fractions(self, width_px: int, height_px: int) -> tuple[float, ...]:
        """Return left, top, right and bottom as parts of the image, cut at its borders."""
        sides = (self.x1 / width_px, self.y1 / height_px, self.x2 / width_px, self.y2 / height_px)
        return tuple(min(max(side, 0.0), 1.0) for side in sides)

    def bbox(self, width_px: int, height_px: int, decimals: int) -> list[float]:
        """Return left, top, width and height as fractions of the image."""
        left, top, right, bottom = (round(side, decimals) for side in self.fractions(width_px, height_px))
        return [left, top, round(right - left, decimals), round(bottom - top, decimals)]


@dataclass(frozen=True, slots=True)
class DeploymentFact:
    """The deployment of an image's camera at its time; its times are corrected as those of its images."""

    deployment_id: str
    camera_id: str
    location: str | None
    latitude: float | None
    longitude: float | None
    start: datetime
    end: datetime | None
    time_zone: str | None
    notes: str | None


@dataclass(slots=True)
class ImageRecord:
    """One present file. `status` is that of relation `results`, or `missing` without a result in the view.

    `blank_by`: who found nothing in it. A person marked it as empty, or the model found no box, except those that
    people or layers hide. None if a box is only below a threshold.
    """

    source_root: str
    path: str
    media_sha256: str
    width_px: int | None
    height_px: int | None
    captured_at_local: datetime | None
    captured_at_corrected: datetime | None
    camera_id: str | None
    event_id: str | None
    status: Status
    error_code: str | None = None
    detections: tuple[BoxRecord, ...] = ()
    deployment: DeploymentFact | None = None
    timestamp_flags: Sequence[str] = ()
    media_type: str | None = None
    blank_by: Observer | None = None
    reviewed_at: datetime | None = None  # time of the newest statement of a person about it
    frame_index: int | None = None  # of a frame of a clip, and its frames per second
    frame_rate: float | None = None
    is_outside_deployments: bool = False  # its camera has deployments, but none at its time

    @property
    def is_judged(self) -> bool:
        """Return whether the model or a person found boxes or nothing: no result alone is an empty image."""
        return bool(self.detections) or self.status in ("ok", "empty") or self.blank_by == "human"


@dataclass(frozen=True)
class ExportLineage:
    """Lineage of an export. `labels` are the detector's, in its order; `sealed_at` is the end of its run (UTC).

    `descriptions`: the lineages of the classes of the classifier, such as `mammalia;carnivora;…`. `deployments`: all of
    an archive that is exported as a whole, also those without images; none of a part.
    """

    view: str
    run_id: str | None
    model: str
    weights_sha256: str
    sealed_at: datetime | None
    labels: tuple[str, ...]
    inference_key: str = ""
    layers: tuple[str, ...] = ()
    threshold: float = 0.0
    label_thresholds: Mapping[str, float] = field(default_factory=dict[str, float])
    classifier: str | None = None
    descriptions: Mapping[str, str] = field(default_factory=dict[str, str])
    deployments: tuple[DeploymentFact, ...] = ()

    def described(self) -> dict[str, Any]:
        """Return the lineage as a JSON object, without labels and deployments."""
        facts = asdict(replace(self, deployments=()))
        del facts["labels"], facts["descriptions"], facts["deployments"]
        moment = self.sealed_at and self.sealed_at.isoformat(timespec="seconds")
        return facts | {"layers": list(self.layers), "sealed_at": moment}


def deployment_facts(sql: duckdb.DuckDBPyConnection) -> tuple[DeploymentFact, ...]:
    """Return the deployments of a connection with the relations `USED`."""
    return tuple(DeploymentFact(*row) for row in sql.execute(_DEPLOYMENTS).fetchall())


def image_records(
    sql: duckdb.DuckDBPyConnection, files: pa.Table | None = None, floor: float = 0.0, classifier: str = ""
) -> Iterator[ImageRecord]:
    """Yield the present files of a connection with the relations `USED` (archive/views/query.py), by root and path.

    `files` (source_root, path) narrows them. A detection of a model needs a score of `floor` or more. `classifier`:
    key of the classifier with the classes of the boxes.
    """
    sql.execute("drop table if exists export_files; drop table if exists export_boxes")
    if files is not None:
        sql.register("chosen_files", files)
    sql.execute(_FILES.format(chosen="" if files is None else _CHOSEN))
    sql.execute("set preserve_insertion_order = false")  # a third of the memory
    sql.execute(_SHOWN, {"floor": floor})
    sql.execute("set preserve_insertion_order = true")
    boxes, done = _BOXES.split(";\n")
    sql.execute(boxes, {"classifier": classifier})
    sql.execute(done)
    deployments = {each.deployment_id: each for each in deployment_facts(sql)}
    deployed = {deployment.camera_id for deployment in deployments.values()}
    for window in windows(sql, "export_files", WINDOW):
        boxes = _boxes(sql, window["n"][0].as_py(), window["n"][-1].as_py())
        for row in window.to_pylist():
            deployment = deployments.get(row.pop("deployment_id") or "")
            row["detections"] = tuple(boxes.get(row.pop("n"), ()))
            if row["detections"]:
                row["blank_by"] = None
            elif row["status"] == "ok":
                row["status"] = "empty"
            outside = deployment is None and row["camera_id"] in deployed
            yield ImageRecord(deployment=deployment, is_outside_deployments=outside, **row)


def _boxes(sql: duckdb.DuckDBPyConnection, first: int, last: int) -> dict[int, list[BoxRecord]]:
    """Return the boxes of files `first` to `last`, by the number of the file."""
    part = f"from export_boxes where n between {first} and {last} order by rowid"
    rows = sql.sql(part).to_arrow_table()
    boxes: dict[int, list[BoxRecord]] = {}
    for n, *of, label, score in zip(*(column.to_pylist() for column in rows.columns), strict=True):
        box = BoxRecord(*of, classification=None if label is None else (label, score))
        boxes.setdefault(n, []).append(box)
    return boxes
