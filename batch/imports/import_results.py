"""Import the results in a file of another tool: an external model version, its rows, and a run with their lineage.

(file, root of an archive) --stage--> scratch tables --match by path--> rows of `results`, committed in parts
Nothing is written before the whole file is read and valid. The inference key depends on the file's bytes and on its
description of the detector. So the same file adds nothing twice, and an import that was cut off continues.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa

from archive.catalogue.roots import contains
from archive.delta.scratch_db import create_lists, scratch, windows
from archive.delta.snapshot import scan
from archive.delta.tables import Tables
from archive.delta.writer import add_results
from archive.formats.results_file import FileFacts, Row, Tool, path_below, read_results
from archive.schemas import MEDIA, RESULTS
from archive.views.publications import last_sealed
from archive.views.query import archives
from batch.runs.accounting import Counts
from batch.runs.record import RunLog, recorded
from batch.runs.spec import new_run_id
from model_store.config import EXTERNAL, ExternalRuntime, ModelConfig, Thresholds
from model_store.errors import AccountingOpen, BadRequest, ModelExists, ModelRefused, NothingWorked
from model_store.frozen import Frozen
from model_store.inference_key import canonical_json, inference_key, weights_digest
from model_store.names import VersionId, name_of_file
from model_store.storage import absolute
from model_store.store import CONFIG, ModelInfo, ModelStore

WINDOW = 10_000
COMMIT_ROWS = 50_000
USUAL_THRESHOLD = 0.2
"""Threshold of a file that gives none: the typical one of MegaDetector 5."""
_TEXT, _NUMBER = pa.string(), pa.float64()
_BOX = {"category": _TEXT, "score": _NUMBER, **dict.fromkeys("xywh", _NUMBER), "class": _TEXT, "class_score": _NUMBER}
_STAGED = pa.schema(
    {
        "path": _TEXT,
        "failure": _TEXT,
        "width": pa.int64(),
        "height": pa.int64(),
        "boxes": pa.list_(pa.struct(list(_BOX.items()))),
    }
)
_MATCHED = """
    create table matched as
    with listed as (from media_table where source_root = getvariable('root')),
    sized as (
        select s.* exclude (boxes), len(boxes) as n_boxes, m.media_sha256, m.missing_since, m.frame_count,
            coalesce(m.width_px, s.width) as width_px, coalesce(m.height_px, s.height) as height_px,
            (least(m.width_px, m.height_px) <> least(s.width, s.height)
                or greatest(m.width_px, m.height_px) <> greatest(s.width, s.height))
                and s.width is not null and s.height is not null and m.width_px is not null as other_size
        from (select rowid as n, *, getvariable('prefix') || path as full_path from staged) s
            left join listed m on nfc_normalize(m.path) = nfc_normalize(full_path)
        qualify row_number() over (partition by n order by m.missing_since nulls first, m.path = full_path desc) = 1),
    judged as (select *, case
            when media_sha256 is null then 'not catalogued in ' || getvariable('root')
            when frame_count is not null then 'a clip, whose frames cannot be imported'
            when missing_since is not null then 'gone from the archive'
            when other_size then 'of another size in the catalogue'
            when width_px is null and n_boxes > 0 then 'of unknown size'
        end as reason from sized)
    select *, case
            when reason is not null then reason
            when row_number() over (partition by media_sha256, reason order by failure is not null, path) > 1
                then 'a copy of another image of the file'
        end as why
    from judged;
    create table usable as select * from matched where why is null order by n;
"""
_REASONS = """
    select why, count(*), min(path) from matched where why is not null group by why order by 2 desc, 1
"""
_RANKED = """
    create temp macro inside(part) as greatest(least(part, 1), 0);
    create table ranked as
    with flat as (select n, unnest(boxes) as b from (select rowid as n, boxes from staged) semi join usable using (n)),
    named as (
        select n, b, coalesce(if(b.class_score >= $min_class_score, c.label, null), k.label) as label
        from flat join categories k on k.id = b.category left join classes c on c.id = b.class),
    placed as (
        select n, label, l.class_id, b.score::float as score,
            (inside(b.x) * width_px)::float as x1_px, (inside(b.y) * height_px)::float as y1_px,
            (inside(b.x + b.w) * width_px)::float as x2_px, (inside(b.y + b.h) * height_px)::float as y2_px
        from named join labels l using (label) join usable using (n))
    select *, row_number() over (
        partition by n order by score desc, class_id, x1_px, y1_px, x2_px, y2_px) - 1 as rank
    from placed
"""
_LISTS = """
    select n, max(score) as max_score, count(*) as n_detections, list({
            rank: rank, label: label, class_id: class_id, score: score,
            x1_px: x1_px, y1_px: y1_px, x2_px: x2_px, y2_px: y2_px,
            mask_rle: null::varchar, mask_area_px: null::bigint} order by rank) as detections
    from ranked where hash(n) % getvariable('parts') = getvariable('part') group by n
"""
_ROWS = """
    create table imported as
    select media_sha256, if(failure is null, 'ok', 'failed') as status,
        if(failure is null, null, 'external') as error_code, failure[:300] as error_detail,
        width_px::integer as width_px, height_px::integer as height_px,
        coalesce(n_detections, 0)::integer as n_detections, max_score, false as saturated,
        coalesce(detections, []) as detections
    from usable left join lists using (n)
"""
_LINEAGE = """
    create table new_results as
    from results_table where false union all by name
    select *, $inference_key as inference_key, $run_id as run_id, $model_name as model_name,
        $model_version as model_version, $weights_sha256 as weights_sha256, $finished_at::timestamptz as finished_at
    from imported anti join results_table using (media_sha256)
"""
_STORED = """
    select count(*) filter (status = 'failed'),
        count(*) filter (own and status = 'ok' and n_detections > 0) as ok,
        count(*) filter (own and status = 'ok' and n_detections = 0) as empty,
        count(*) filter (own and status = 'failed') as failed,
        count(*) filter (not own) as reused, coalesce(sum(n_detections) filter (own), 0) as detections
    from (select *, run_id = $run_id as own from results_table) semi join usable using (media_sha256)
"""


class ImportSpec(Frozen):
    """Description of an import, as `runs` records it."""

    run_id: str
    model: str
    tool: str
    file: str
    file_sha256: str
    root: str
    detector: str


@dataclass(frozen=True)
class Imported:
    """The outcome of an import. `run_id` is that of the run with the rows, also of an earlier one if none is new.

    `unmatched`: number and first path of the images in the file without a row, by reason. `hidden`: boxes that the
    file marks as removed.
    """

    model: str
    run_id: str
    images: int
    counts: Counts
    hidden: int
    unmatched: dict[str, tuple[int, str]]


def import_results(
    tables: Tables,
    store: ModelStore,
    tool: Tool,
    file: Path,
    root: str,
    name: str = "",
    min_class_score: float | None = None,
) -> Imported:
    """Import a file with paths below the folder `root` of a catalogued archive.

    `name`: of the model; default: from the detector that the file names. `min_class_score`: boxes are named by their
    class if it has this score or more. Raises BadRequest, ModelRefused, StorageError; with the rows stored and the run
    recorded as failed, NothingWorked or AccountingOpen.
    """
    archive, prefix = _archive_of(tables, absolute(root))
    with scratch("import") as sql:
        facts = FileFacts()
        digest = _digest(file)
        images = _stage(sql, read_results(tool, file, facts), f"{archive}/{prefix}".rstrip("/"), file)
        if _digest(file) != digest:
            raise BadRequest(f"{file} was changed while it was read: import it again")
        config = _config(tool, facts, digest, min_class_score)
        info = _info(store, config, name or _name_of(facts.detector, tool))
        _match(sql, tables, info.inference_key, archive, prefix)
        unmatched = {why: (count, path) for why, count, path in sql.execute(_REASONS).fetchall()}
        matched = images - sum(count for count, _ in unmatched.values())
        if not matched:
            reasons = "; ".join(f"{n} {why}, such as {path}" for why, (n, path) in unmatched.items())
            raise BadRequest(
                f"no image of {file} is an image below {root}: {reasons or 'the file has none'}; name the folder to "
                "which its paths are relative with --root"
            )
        new = sql.sql("select count(*) from usable anti join results_table using (media_sha256)")
        todo = int(new.fetchall()[0][0])
        counts, run_id = Counts(matched, reused=matched - todo), last_sealed(tables, info.inference_key)
        if todo or not run_id:
            _make_rows(sql, facts, config)
            _add_version(store, info.id, config)
            run_id = new_run_id()
            spec = ImportSpec(
                run_id=run_id,
                model=str(info.id),
                tool=tool,
                file=str(file.resolve()),
                file_sha256=digest,
                root=absolute(root),
                detector=facts.detector,
            )
            counts = _commit(sql, tables, spec, info, counts, unmatched)
    return Imported(str(info.id), run_id, images, counts, facts.hidden, unmatched)


def _archive_of(tables: Tables, root: str) -> tuple[str, str]:
    """Return the catalogued archive that contains a folder, and the prefix of the folder's paths in it."""
    roots = archives(tables)
    for archive in roots:
        if contains(archive, root):
            below = root[len(archive) :].strip("/")
            return archive, f"{below}/" if below else ""
    names = ", ".join(roots) or "none"
    raise BadRequest(
        f"{root} is not in a catalogued archive ({names}): run 'resight ingest' on it, or name another --root"
    )


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as data:
            return hashlib.file_digest(data, "sha256").hexdigest()
    except OSError as error:
        raise BadRequest(f"cannot read {file}: {error}") from error


def _stage(sql: duckdb.DuckDBPyConnection, results: Iterator[Row], folder: str, file: Path) -> int:
    """Copy all images to the table `staged`; return their number. Raises BadRequest for a path that occurs twice."""
    sql.register("part", _STAGED.empty_table())
    sql.execute("create table staged as from part")
    images = 0
    while part := list(islice(results, WINDOW)):
        try:
            rows = [row | {"path": path_below(row["path"], folder)} for row in part]
        except ValueError as error:
            raise BadRequest(f"{file}: {error}; nothing was imported") from error
        sql.register("part", pa.Table.from_pylist(rows, schema=_STAGED))
        sql.execute("insert into staged from part")
        images += len(part)
    sql.unregister("part")
    twice = "select path from staged group by path having count(*) > 1 order by path limit 1"
    for (path,) in sql.execute(twice).fetchall():
        raise BadRequest(f"{file} has image '{path}' twice; nothing was imported")
    return images


def _config(tool: Tool, facts: FileFacts, digest: str, min_class_score: float | None) -> ModelConfig:
    """Return the config of the version; its inference key is that of the results."""
    typical = facts.metadata.get("typical_detection_threshold")
    is_number = isinstance(typical, int | float) and not isinstance(typical, bool) and 0 <= typical <= 1
    classes = () if min_class_score is None else facts.classes.values()
    labels = dict.fromkeys((*facts.categories.values(), *classes))
    if not labels:
        raise BadRequest("the file has no detection categories; nothing was imported")
    return ModelConfig(
        runtime=ExternalRuntime(
            tool=tool,
            detector=facts.detector,
            metadata=canonical_json(facts.metadata).decode(),
            file_sha256=digest,
            min_class_score=min_class_score,
        ),
        decoder=EXTERNAL,
        labels=tuple(labels),
        score_floor=0.0,
        thresholds=Thresholds(default=float(typical) if is_number else USUAL_THRESHOLD),  # type: ignore[arg-type]
        source=f"imported from a file of {tool}",
    )


def _name_of(detector: str, tool: Tool) -> str:
    try:
        return name_of_file(detector.removesuffix(".pt"))
    except BadRequest:
        return tool


def _info(store: ModelStore, config: ModelConfig, name: str) -> ModelInfo:
    """Return the identity of the version. Raises BadRequest for the name of a model that can run."""
    weights = weights_digest(config, {})
    key = inference_key(config, weights)
    info = ModelInfo(name, key[:12], weights, key, config.labels)
    try:
        store.require_one_kind(info.id, config)
    except ModelRefused as error:
        raise BadRequest(f"{error} with --name") from error
    return info


def _add_version(store: ModelStore, version: VersionId, config: ModelConfig) -> None:
    text = json.dumps(config.model_dump(mode="json"), indent=1, ensure_ascii=False)
    readme = f"{config.source} with 'resight import'; it has no weights.\n"
    try:
        store.publish(version, {CONFIG: text.encode(), "README.md": readme.encode()})
    except ModelExists:
        if store.describe(version).info.inference_key[:12] != version.version:
            raise


def _match(sql: duckdb.DuckDBPyConnection, tables: Tables, key: str, archive: str, prefix: str) -> None:
    scan(sql, "media_table", tables.existing("media"), MEDIA)
    _scan_results(sql, tables, key)
    sql.execute("set variable root = $root", {"root": archive})
    sql.execute("set variable prefix = $prefix", {"prefix": prefix})
    sql.execute(_MATCHED)


def _scan_results(sql: duckdb.DuckDBPyConnection, tables: Tables, key: str) -> None:
    scan(sql, "results_table", tables.existing("results"), RESULTS, key)


def _make_rows(sql: duckdb.DuckDBPyConnection, facts: FileFacts, config: ModelConfig) -> None:
    for relation, names in (("categories", facts.categories), ("classes", facts.classes)):
        columns = {"id": list(names), "label": list(names.values())}
        schema = pa.schema([("id", pa.string()), ("label", pa.string())])
        sql.register(relation, pa.table(columns, schema=schema))
    numbers = pa.array(range(len(config.labels)), pa.int32())
    sql.register("labels", pa.table({"label": list(config.labels), "class_id": numbers}))
    assert isinstance(config.runtime, ExternalRuntime)
    sql.execute(_RANKED, {"min_class_score": config.runtime.min_class_score})
    create_lists(sql, "lists", "ranked", _LISTS)
    sql.execute(_ROWS)


def _commit(
    sql: duckdb.DuckDBPyConnection,
    tables: Tables,
    spec: ImportSpec,
    info: ModelInfo,
    counts: Counts,
    unmatched: dict[str, tuple[int, str]],
) -> Counts:
    """Add the missing rows and the run; return its counts, read back."""
    run_log = RunLog(tables, spec, info)
    lineage = {
        "inference_key": info.inference_key,
        "run_id": spec.run_id,
        "model_name": info.name,
        "model_version": info.version,
        "weights_sha256": info.weights_sha256,
        "finished_at": datetime.now(UTC),
    }
    try:
        run_log.begin(counts)
        _scan_results(sql, tables, info.inference_key)  # another import or a prune may have changed them
        sql.execute(_LINEAGE, lineage)
        for rows in windows(sql, "new_results", COMMIT_ROWS):
            add_results(tables, info.inference_key, rows.select(RESULTS.names).cast(RESULTS))
        _scan_results(sql, tables, info.inference_key)
        failed, *stored = map(int, sql.execute(_STORED, {"run_id": spec.run_id}).fetchall()[0])
        counts = Counts(counts.requested, *stored)
        if not counts.closed:
            raise AccountingOpen(f"{counts.line()}: images of {spec.file} have no row in results; import it again")
        if failed == counts.requested:
            raise NothingWorked(f"all {failed} matched images of {spec.file} failed there: run {spec.tool} again")
        metrics = {"unmatched": {why: n for why, (n, _) in unmatched.items()}}
        run_log.write("sealed", counts, counts.line(), metrics=metrics)
    except BaseException as error:
        cause = recorded(run_log, counts, error)
        raise cause from cause.__cause__
    return counts
