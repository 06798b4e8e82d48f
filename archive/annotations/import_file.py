"""Import a file of human statements as rows of `assertions`: all rows of the file, or none.

The file has statements (column `action`), or is an exported table with corrected labels
(archive/annotations/corrections.py). A statement names an image by content or path, and a box by its corners or by a
detection's rank. Both are looked up in `media` and `results`.
"""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from archive.annotations import corrections as corrected
from archive.annotations.annotation_file import BOX, Statement, read_rows, read_statements
from archive.annotations.assertions import HUMAN, human_assertions, with_ids, withdraw_nothing
from archive.annotations.corrections import corrections, is_table
from archive.delta.snapshot import dataset, memory_database, scan
from archive.delta.tables import Tables
from archive.schemas import ASSERTIONS, MEDIA, RESULTS
from archive.views.views import Views
from model_store.errors import BadRequest

SHOWN_ERRORS = 100
HELP = (
    f"columns: {', '.join(Statement.model_fields)}\n"
    "example: action,path,label,x1_px,y1_px,x2_px,y2_px,actor,asserted_at\n"
    "         keep,north/IMG_0042.JPG,deer,812,340,1404,911,kim,2026-05-14T09:30:00+02:00"
)
NAMING = ("keep", "relabel", "add")
"""Actions that give a box its label."""
_BY_SERVER = ("assertion_id", "asserted_at", "batch_id", "withdraws")
"""Columns that a statement of a file does not set, or not always."""
OUTSIDE_PX = 1.0
"""Tolerance for a box that exceeds its image, because other programs round."""


@dataclass(frozen=True, slots=True)
class Image:
    """A catalogued content and its displayed size; None if its header could not be read."""

    media_sha256: str
    width_px: int | None
    height_px: int | None


@dataclass(frozen=True, slots=True)
class Read:
    """New `rows` of `assertions`, without ids, and the number of rows of the file that add none.

    `unchanged` rows have the exported label; for `repeated` rows the same correction is recorded already, or the same
    statement stands. `idle` has the images with withdrawals that would change nothing. `left_out` has the reason for
    each image of another tool's file that was not read.
    """

    rows: pa.Table
    unchanged: int = 0
    repeated: int = 0
    idle: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def lines(self) -> list[str]:
        """Images that were left out with the reason, a line each; at most SHOWN_ERRORS."""
        lines = [f"left out: {path}: {why}" for path, why in self.left_out.items()]
        more = len(lines) - SHOWN_ERRORS
        return [*lines[:SHOWN_ERRORS], *([f"and {more} more"] if more > 0 else [])]


def read_assertions(tables: Tables, file: Path, by: str | None = None, at: str | None = None) -> Read:
    """Read statements or corrections; `by` and `at` (default: now) apply to rows without actor and asserted_at.

    Raises BadRequest that lists the errors by row, from 1 without a header.
    """
    rows = read_rows(file)
    columns = {str(name) for row in rows if isinstance(row, dict) for name in row if name}
    if is_table(columns):
        return _corrected(tables, file, rows, columns, by, at)
    unknown = sorted(columns - set(Statement.model_fields))
    if unknown:
        names = ", ".join(f"'{name}'" for name in unknown)
        raise BadRequest(f"{file}: unknown column {names}; nothing was added\n{HELP}")
    if columns and "action" not in columns:
        keep = f"to correct labels, keep {', '.join(corrected.COLUMNS)} and {corrected.EXPORTED_LABEL} of the export"
        raise BadRequest(f"{file}: missing column 'action'; nothing was added\n{HELP}\n{keep}")
    now = datetime.now(UTC)
    statements, errors = read_statements(rows, {"actor": by, "asserted_at": at or now.isoformat()})
    assertions = _assertions(tables, file, statements, errors, HELP)
    new = _not_standing(tables, assertions, now)
    idle = withdraw_nothing(tables, new)
    withdraws = pc.field("action") == "withdraw"
    of_idle = pc.field("media_sha256").isin(pa.array(sorted(idle), pa.string()))
    kept = new.filter(~(withdraws & of_idle))
    return Read(kept, repeated=len(assertions) - len(new), idle=tuple(sorted(idle)))


def _not_standing(tables: Tables, rows: pa.Table, now: datetime) -> pa.Table:
    """Return the rows without those of time `now` that stand already: a file without times is added once, too."""
    found = human_assertions(tables)
    names = [name for name in found.column_names if name in ASSERTIONS.names]
    names = [name for name in names if name not in _BY_SERVER]
    stands = set(_tuples(found.select(names)))
    pairs = zip(_tuples(rows.select(names)), rows["asserted_at"].to_pylist(), strict=True)
    return rows.filter(pa.array([not (at == now and row in stands) for row, at in pairs], pa.bool_()))


def _corrected(
    tables: Tables, file: Path, rows: Sequence[object], columns: set[str], by: str | None, at: str | None
) -> Read:
    """Read corrections as statements with one actor and time; `reason` names the file."""
    lacking = [f"'{name}'" for name in corrected.COLUMNS if name not in columns]
    if lacking:
        raise BadRequest(f"{file}: missing column {', '.join(lacking)}; nothing was added\n{corrected.HELP}")
    if not by:
        raise BadRequest(f'{file} is a table of corrections: name their author with --by "Ana"')
    common = {"actor": by, "asserted_at": at or datetime.now(UTC).isoformat(), "reason": reason_of(file)}
    found = corrections(tables, rows, common)
    assertions = _assertions(tables, file, found.statements, found.wrong, corrected.HELP)
    names = [name for name in ASSERTIONS.names if name not in _BY_SERVER]
    recorded = set(_tuples(recorded_rows(tables, common["reason"], names)))
    new = assertions.filter(pa.array([row not in recorded for row in _tuples(assertions.select(names))], pa.bool_()))
    return Read(new, found.unchanged, found.repeated + len(assertions) - len(new))


def reason_of(file: Path) -> str:
    """Return the `reason` of the statements of a file: its name and digest."""
    return f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"


def recorded_rows(tables: Tables, reason: str, columns: list[str]) -> pa.Table:
    """Return columns of the recorded statements of a file, also of those that others replaced since."""
    of_file = pc.field("reason") == reason
    return dataset(tables.existing("assertions"), ASSERTIONS).to_table(columns=columns, filter=of_file)


def superseded(tables: Tables, file: Path, rows: pa.Table) -> tuple[int, list[str]]:
    """Return how many statements of a file are recorded and do not stand, and the batches that withdrew them.

    `rows` are those that its reader returned. A statement also stands if another row states the same.
    """
    stated = human_assertions(tables, history=True)
    same, ids = ("media_sha256", "label", *BOX), with_ids(rows)["assertion_id"].combine_chunks()
    of_file = (pc.field("reason") == reason_of(file)) | pc.field("assertion_id").isin(ids)
    standing = set(_tuples(stated.filter(pc.field("standing")).select(same)))
    rows_of_file = stated.filter(of_file).to_pylist()
    past = {row["assertion_id"] for row in rows_of_file if tuple(map(row.get, same)) not in standing}
    withdrawals = stated.filter(pc.field("withdraws").isin(pa.array(sorted(past), pa.string())))
    return len(past), sorted(set(withdrawals["batch_id"].to_pylist()))


def recorded_batches(tables: Tables, batch_ids: Mapping[str, str]) -> dict[str, str]:
    """Return those of the batches, by their authors, that have rows."""
    batches = pa.array(batch_ids.values(), pa.string())
    rows = dataset(tables.existing("assertions"), ASSERTIONS).to_table(
        columns=["actor", "batch_id"], filter=pc.field("batch_id").isin(batches)
    )
    return dict(sorted(set(_tuples(rows))))


def _tuples(rows: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in rows.columns), strict=True)


def _assertions(
    tables: Tables, file: Path, statements: Mapping[int, Statement], errors: dict[int, str], usage: str
) -> pa.Table:
    rows = located_rows(tables, statements, errors)
    refuse(file, errors, usage)
    return pa.Table.from_pylist(list(rows.values()), schema=ASSERTIONS)


def refuse(file: Path, errors: Mapping[int, str], *usage: str) -> None:
    """Raise BadRequest with the errors of a file by row, if there are any."""
    if errors:
        raise BadRequest(nothing_added(file, [f"row {n}: {why}" for n, why in sorted(errors.items())], *usage))


def nothing_added(file: Path, lines: Sequence[str], *usage: str) -> str:
    """Return the text of a refusal of a file, with at most SHOWN_ERRORS lines."""
    more = [f"and {len(lines) - SHOWN_ERRORS} more"] if len(lines) > SHOWN_ERRORS else []
    return "\n".join([f"{file}: nothing was added", *lines[:SHOWN_ERRORS], *more, *usage])


def located_rows(
    tables: Tables, statements: Mapping[int, Statement], errors: dict[int, str]
) -> dict[int, dict[str, Any]]:
    """Return the row of each statement with an existing image and detection; add the others to `errors`, by number."""
    with memory_database() as sql:
        images = _images(sql, tables, statements)
        detections = _detections(sql, tables, statements, images)
    rows: dict[int, dict[str, Any]] = {}
    for number, statement in statements.items():
        try:
            rows[number] = _row(statement, images.get(number, []), detections.get(number))
        except ValueError as error:
            errors[number] = str(error)
    return rows


def remarks(tables: Tables, rows: pa.Table) -> list[str]:
    """Return warnings to show before `rows` are added: unpublished models, and new labels with similar ones."""
    counts = Counter(row["label"] for row in rows.to_pylist() if row["action"] in NAMING)
    warnings: list[str] = []
    published = Views(tables.url).current()
    keys = set(rows["inference_key"].to_pylist()) - {None}
    labels = _labels(tables, keys | ({published.inference_key} if published else set()))
    for label in sorted(counts.keys() - labels):
        near = difflib.get_close_matches(label, labels)
        more = f"; did you mean {' or '.join(near)}?" if near else ""
        warnings.append(f"new label '{label}' (rows: {counts[label]}){more}")
    for key in sorted(keys - ({published.inference_key} if published else set())):
        warnings.append(
            f"inference key {key[:12]}… is not published: statements about its detections apply to detections of "
            "other models that cover the same boxes"
        )
    return warnings


def _labels(tables: Tables, keys: set[str]) -> set[str]:
    """Return the labels in the results of these keys (without keys: of all), and those used by people."""
    labels: set[str] = set()
    with memory_database() as sql:
        for key in sorted(keys) or [None]:
            scan(sql, "results", tables.existing("results"), RESULTS, key)
            query = "select distinct d.label from (select unnest(detections) as d from results)"
            labels |= {label for (label,) in sql.execute(query).fetchall()}
    recorded = human_assertions(tables, history=True)
    return labels | {row["label"] for row in recorded.to_pylist() if row["action"] in NAMING}


def _images(
    sql: duckdb.DuckDBPyConnection, tables: Tables, statements: Mapping[int, Statement]
) -> dict[int, list[Image]]:
    """Map each row number to the contents that it may refer to."""
    columns = {
        name: pa.array([getattr(s, name) for s in statements.values()], pa.string())
        for name in ("media_sha256", "path", "source_root")
    }
    sql.register("wanted", pa.table({"row": pa.array(list(statements), pa.int64()), **columns}))
    scan(sql, "media", tables.existing("media"), MEDIA)
    images: dict[int, list[Image]] = {}
    for key in ("media_sha256", "path"):
        if columns[key].null_count == len(statements):
            continue  # a scan of the catalogue takes 0.1 s for a million files
        rows = sql.execute(
            "select distinct row, m.media_sha256, m.width_px, m.height_px "
            f"from wanted join media m on wanted.{key} = m.{key} and frame_count is null "
            "where wanted.source_root is null or wanted.source_root = m.source_root order by all"
        ).fetchall()
        for number, sha256, width_px, height_px in rows:
            images.setdefault(number, []).append(Image(sha256, width_px, height_px))
    return images


def _detections(
    sql: duckdb.DuckDBPyConnection,
    tables: Tables,
    statements: Mapping[int, Statement],
    images: Mapping[int, list[Image]],
) -> dict[int, dict[str, Any]]:
    """Map each row number to the detection that it names."""
    named = [
        {"row": n, "key": s.inference_key, "sha256": images[n][0].media_sha256, "rank": s.rank}
        for n, s in statements.items()
        if s.rank is not None and n in images
    ]
    if not named:
        return {}
    sql.register("named", pa.Table.from_pylist(named))
    detections: dict[int, dict[str, Any]] = {}
    for key in sorted({str(row["key"]) for row in named}):
        scan(sql, "results", tables.existing("results"), RESULTS, key)
        rows = sql.execute(
            "with detected as (select row, named.rank, unnest(detections) as d from named "
            "join results on sha256 = media_sha256 where key = $key) "
            "select row, d from detected where d.rank = detected.rank",
            {"key": key},
        ).fetchall()
        detections |= dict(rows)
    return detections


def _row(statement: Statement, images: list[Image], detection: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a row of `assertions`. Raises ValueError for an unknown or ambiguous image or detection."""
    if not images:
        name = statement.media_sha256 or statement.path
        raise ValueError(f"image {name} is not in the catalogue: ingest its folder, or name a frame of the clip")
    if len({image.media_sha256 for image in images}) > 1:
        raise ValueError(f"several images have the path {statement.path}: add source_root, or use media_sha256")
    if statement.rank is not None and detection is None:
        raise ValueError(f"the image has no detection {statement.rank} under inference key {statement.inference_key}")
    detected = detection or {}
    box = statement.box or {name: detected.get(name) for name in BOX}
    label = statement.label or detected.get("label")
    if statement.action == "keep" and not label:
        raise ValueError("keep needs the correct label")
    width, height = images[0].width_px, images[0].height_px
    if statement.box and width is not None and height is not None:
        x1, y1, x2, y2 = statement.box.values()
        # a box of a program that ignores EXIF orientation often exceeds it
        if min(x1, y1) < -OUTSIDE_PX or x2 > width + OUTSIDE_PX or y2 > height + OUTSIDE_PX:
            raise ValueError(
                f"the box lies outside the image, which is {width} x {height} px as displayed, after EXIF orientation"
            )
    row = statement.model_dump(exclude={"path", "source_root"}) | box
    return row | {"layer_id": HUMAN, "method": HUMAN, "media_sha256": images[0].media_sha256, "label": label}
