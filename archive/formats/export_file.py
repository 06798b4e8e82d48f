"""Export the images of a view to a file or folder of another tool, and record the export.

export_file(tables, FORMATS["megadetector"], out, view) -> {"images": number of images}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from archive.annotations.classes import classifiers, read_classes
from archive.delta.tables import Tables
from archive.formats.file_formats import FileFormat
from archive.formats.records import USED, ExportLineage, ImageRecord, deployment_facts, image_records
from archive.views.exports import is_recorded, view_words, write_recorded
from archive.views.publications import connect_runs, last_sealed
from archive.views.query import connect
from archive.views.views import View, Views
from model_store.errors import BadRequest

MEMORY_MIB = 512
_LABELS = """
    with flat as (select unnest(detections) as d from seen)
    select d.label from flat group by d.label order by min(d.class_id), d.label
"""
"""Labels of the results of the view, in the order of their classes."""
_SEALED = "select event_at from runs where run_id = $run_id and state = 'sealed'"


def export_file(
    tables: Tables,
    fmt: FileFormat,
    out: Path,
    view: View | None = None,
    *,
    files: pa.Table | None = None,
    floor: float = 0.0,
    labels: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    memory_mib: int | None = None,
    name: str = "",
    narrowed_by: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the present files of a view (default: production) to `out` atomically; return counts, such as `images`.

    `files` (source_root, path) narrows them, and `floor` their detections. `labels` are the detector's, in its order;
    default: those of its results. The record has `name`, by default the path, and `narrowed_by`: the conditions on the
    files by their names.
    Raises BadRequest, also for a folder that no export made, Conflict, StorageUnreachable, TableConflict.
    """
    view = view or Views(tables.url).current()
    if view is None:
        raise BadRequest("nothing is published: publish a run with 'resight runs publish', or use --run RUN")
    chosen = fmt.options(options or {})
    _require_name(tables, fmt, out)
    facts = _facts_of(tables, view, tuple(labels))
    classifier = next(iter(classifiers(tables, view.inference_key)), None)
    if classifier:
        lineages = dict(zip(*read_classes(tables.url, classifier.labels_digest), strict=True))
        facts = replace(facts, classifier=classifier.model, descriptions={k: v for k, v in lineages.items() if v})

    counts: dict[str, Any] = {}

    def write(part: Path) -> tuple[int, list[str]]:
        count = 0

        def counted(images: Iterator[ImageRecord]) -> Iterator[ImageRecord]:
            nonlocal count
            root = None
            for image in images:
                root = root or image.source_root
                if fmt.has_one_root and image.source_root != root:
                    raise BadRequest(
                        f"images of several archives ({root}, {image.source_root}), but paths are relative to one: "
                        "name it with --folder"
                    )
                count += 1
                yield image

        memory = memory_mib or MEMORY_MIB
        with connect(tables, view, memory_mib=memory, statement=USED, scans=True) as sql:
            key = classifier.classifier_key if classifier else ""
            of_results = tuple(label for (label,) in sql.execute(_LABELS).fetchall()) if not facts.labels else ()
            whole = deployment_facts(sql) if files is None else ()
            known = replace(facts, labels=facts.labels or of_results, deployments=whole)
            counts.update(fmt.write(counted(image_records(sql, files, floor, key)), known, part, chosen))
        return counts.get("images", count), [view.inference_key]

    conditions = {**(narrowed_by or {}), **({"floor": floor} if floor else {})}
    return {"images": write_recorded(tables, fmt.name, out, write, view, name, conditions)} | counts


def _require_name(tables: Tables, fmt: FileFormat, out: Path) -> None:
    """Raise BadRequest for a name that does not fit, or a folder that is not an earlier export."""
    if fmt.suffix and out.suffix.lower() != fmt.suffix:
        raise BadRequest(f"invalid name {out}: {fmt.name} is a file, use a name that ends in {fmt.suffix}")
    if not out.exists():
        return
    if out.is_dir() != fmt.is_folder:
        kind = "folder" if fmt.is_folder else "file"
        raise BadRequest(f"cannot replace {out}: {fmt.name} is a {kind}, choose another name")
    if fmt.is_folder and any(out.iterdir()) and not is_recorded(tables, out):
        raise BadRequest(f"cannot replace {out}: no export made this folder, choose another name")


def _facts_of(tables: Tables, view: View, labels: tuple[str, ...]) -> ExportLineage:
    run_id = view.run_id or last_sealed(tables, view.inference_key)
    with connect_runs(tables) as sql:
        sealed = sql.sql(_SEALED, params={"run_id": run_id}).to_arrow_table().to_pylist()
    return ExportLineage(
        view=view_words(view),
        run_id=run_id,
        model=f"{view.model_name}@{view.model_version}",
        weights_sha256=view.weights_sha256,
        sealed_at=sealed[0]["event_at"] if sealed else None,
        labels=labels,
        inference_key=view.inference_key,
        layers=view.layers,
        threshold=view.threshold,
        label_thresholds=view.label_thresholds,
    )
