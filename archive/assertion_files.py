"""What people say in a file, made into rows of `assertions`: all of them, or none.

The file has statements (column `action`), or is an exported table with corrected labels (archive/corrections.py).
Statements name an image by its content or its path, and a box by its corners or by the detection they looked at;
here both are looked up in `media` and `results`.
"""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from archive import corrections as corrected
from archive.assertions import HUMAN, human_assertions
from archive.corrections import corrections, is_table
from archive.dataset import dataset
from archive.row_files import read_rows
from archive.scan import scan
from archive.schemas import ASSERTIONS, MEDIA, RESULTS
from archive.statements import BOX, Statement, read_statements
from archive.tables import Tables
from archive.views import Views
from model_store.errors import BadRequest

SHOWN_ERRORS = 2
HELP = (
    f"columns: {', '.join(Statement.model_fields)}\n"
    "example: action,path,label,x1_px,y1_px,x2_px,y2_px,actor,asserted_at\n"
    "         keep,north/IMG_0042.JPG,deer,812,340,1404,911,kim,2026-05-14T09:30:00+02:00"
)
NAMING = ("keep", "relabel", "add")
"""Actions that say what is in a box."""
OUTSIDE_PX = 1.0
"""How far a box may lie outside its image: other programs round."""


@dataclass(frozen=True, slots=True)
class Image:
    """A catalogued content; its size as displayed, where its header could be read."""

    media_sha256: str
    width_px: int | None
    height_px: int | None


@dataclass(frozen=True, slots=True)
class Read:
    """`rows` of `assertions`, ids not yet set. Of a table of corrections, rows whose label is the exported one are
    `unchanged`, and those that a person has corrected in the same way before are `repeated`.
    """

    rows: pa.Table
    unchanged: int = 0
    repeated: int = 0


def read_assertions(
    tables: Tables, file: Path, by: str | None = None, at: str | None = None
) -> Read:
    """`by` and `at` are for rows without actor and asserted_at; corrections are made now, unless `at` is given.

    Raises BadRequest that lists what is wrong, row by row, counted from 1 without a header.
    """
    given = read_rows(file)
    columns = {str(name) for row in given if isinstance(row, dict) for name in row if name}
    if is_table(columns):
        return _corrected(tables, file, given, by, at)
    unknown = sorted(columns - set(Statement.model_fields))
    if unknown:
        raise BadRequest(f"{file}: unknown column '{unknown[0]}'; nothing was added\n{HELP}")
    said, wrong = read_statements(given, {"actor": by, "asserted_at": at})
    return Read(_assertions(tables, file, said, wrong, HELP))


def _corrected(
    tables: Tables, file: Path, given: Sequence[Mapping[str, Any]], by: str | None, at: str | None
) -> Read:
    """Statements of one person and moment; `reason` names the file, which is added once."""
    lacking = [name for name in corrected.COLUMNS if name not in given[0]]
    if lacking:
        raise BadRequest(f"{file}: no column '{lacking[0]}'; nothing was added\n{corrected.HELP}")
    if not by:
        raise BadRequest(f'{file} is a table of corrections: name who made them, --by "Ana"')
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    told = {"actor": by, "asserted_at": at or datetime.now(UTC).isoformat()}
    told["reason"] = f"{file.name} {digest[:12]}"
    found = corrections(tables, given, told)
    rows = _assertions(tables, file, found.statements, found.wrong, corrected.HELP)
    new = _not_in(tables, rows)
    return Read(new, found.unchanged, found.repeated + len(rows) - len(new))


def _not_in(tables: Tables, rows: pa.Table) -> pa.Table:
    """Return the rows that this file has not said before, whenever that was."""
    said = tables.existing("assertions")
    if said is None or not len(rows):
        return rows
    same = pc.field("reason") == rows["reason"][0]
    names = [name for name in ASSERTIONS.names if name not in ("assertion_id", "asserted_at")]
    before = set(_tuples(dataset(said, ASSERTIONS).to_table(columns=names, filter=same)))
    return rows.filter(pa.array([row not in before for row in _tuples(rows.select(names))]))


def _tuples(rows: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in rows.columns), strict=True)


def _assertions(
    tables: Tables, file: Path, said: Mapping[int, Statement], wrong: dict[int, str], usage: str
) -> pa.Table:
    sql = duckdb.connect()
    images = _images(sql, tables, said)
    detections = _detections(sql, tables, said, images)
    rows: list[dict[str, Any]] = []
    for number, one in said.items():
        try:
            rows.append(_row(one, images.get(number, []), detections.get(number)))
        except ValueError as error:
            wrong[number] = str(error)
    if wrong:
        lines = [f"row {number}: {why}" for number, why in sorted(wrong.items())]
        more = [f"and {len(lines) - SHOWN_ERRORS} more"] if len(lines) > SHOWN_ERRORS else []
        told = [f"{file}: nothing was added", *lines[:SHOWN_ERRORS], *more, usage]
        raise BadRequest("\n".join(told))
    return pa.Table.from_pylist(rows, schema=ASSERTIONS)


def remarks(tables: Tables, rows: pa.Table) -> list[str]:
    """Return what to look at before `rows` are added: labels that are new, and results that are not published."""
    counts = Counter(row["label"] for row in rows.to_pylist() if row["action"] in NAMING)
    found: list[str] = []
    published = Views(tables.url).current()
    keys = set(rows["inference_key"].to_pylist()) - {None}
    known = _labels(tables, keys | ({published.inference_key} if published else set()))
    for label in sorted(counts.keys() - known):
        near = difflib.get_close_matches(label, known)
        more = f"; did you mean {' or '.join(near)}?" if near else ""
        found.append(f"new label '{label}' (rows: {counts[label]}){more}")
    for key in sorted(keys - {published.inference_key if published else ""}):
        found.append(
            f"inference key {key[:12]} is not what is published: what was said of its detections holds for "
            "those of other models that cover their boxes"
        )
    return found


def _labels(tables: Tables, keys: set[str]) -> set[str]:
    """Return the labels of the results of these keys (none: of all), and those that people have used."""
    found: set[str] = set()
    with duckdb.connect() as sql:
        for key in sorted(keys) or [None]:
            scan(sql, "results", tables.existing("results"), RESULTS, key)
            labels = "select distinct d.label from (select unnest(detections) as d from results)"
            found |= {label for (label,) in sql.execute(labels).fetchall()}
    said = human_assertions(tables, history=True)
    return found | {row["label"] for row in said.to_pylist() if row["action"] in NAMING}


def _images(
    sql: duckdb.DuckDBPyConnection, tables: Tables, said: Mapping[int, Statement]
) -> dict[int, list[Image]]:
    """Row number to the contents it may mean."""
    columns = ("media_sha256", "path", "source_root")
    asked = {
        name: pa.array([getattr(s, name) for s in said.values()], pa.string()) for name in columns
    }
    sql.register("asked", pa.table({"row": pa.array(list(said), pa.int64()), **asked}))
    scan(sql, "media", tables.existing("media"), MEDIA)
    found: dict[int, list[Image]] = {}
    for key in ("media_sha256", "path"):
        rows = sql.sql(
            "select distinct row, m.media_sha256, m.width_px, m.height_px "
            f"from asked join media m on asked.{key} = m.{key} "
            "where asked.source_root is null or asked.source_root = m.source_root order by all"
        ).fetchall()
        for number, sha256, width_px, height_px in rows:
            found.setdefault(number, []).append(Image(sha256, width_px, height_px))
    return found


def _detections(
    sql: duckdb.DuckDBPyConnection,
    tables: Tables,
    said: Mapping[int, Statement],
    images: Mapping[int, list[Image]],
) -> dict[int, dict[str, Any]]:
    """Row number to the detection it names."""
    named = [
        {"row": n, "key": one.inference_key, "sha256": images[n][0].media_sha256, "rank": one.rank}
        for n, one in said.items()
        if one.rank is not None and n in images
    ]
    if not named:
        return {}
    sql.register("named", pa.Table.from_pylist(named))
    found: dict[int, dict[str, Any]] = {}
    for key in sorted({str(one["key"]) for one in named}):
        scan(sql, "results", tables.existing("results"), RESULTS, key)
        rows = sql.execute(
            "with seen as (select row, named.rank, unnest(detections) as d from named "
            "join results on sha256 = media_sha256 where key = $key) "
            "select row, d from seen where d.rank = seen.rank",
            {"key": key},
        ).fetchall()
        found |= dict(rows)
    return found


def _row(
    one: Statement, images: list[Image], detection: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Raises ValueError for a statement about what is not there."""
    if not images:
        name = one.media_sha256 or one.path
        raise ValueError(f"no image {name} is catalogued; run 'resight ingest' where it lies")
    if len({image.media_sha256 for image in images}) > 1:
        raise ValueError(f"several images are {one.path}; add source_root, or use media_sha256")
    if one.rank is not None and detection is None:
        raise ValueError(f"no detection {one.rank} of that image under {one.inference_key}")
    seen = detection or {}
    box = one.box or {name: seen.get(name) for name in BOX}
    label = one.label or seen.get("label")
    if one.action == "keep" and not label:
        raise ValueError("keep needs the label that is right")
    if one.box:
        _require_inside(one.box, images[0])
    return {
        "layer_id": HUMAN,
        "method": HUMAN,
        "actor": one.actor,
        "action": one.action,
        "media_sha256": images[0].media_sha256,
        "inference_key": one.inference_key,
        "rank": one.rank,
        **box,
        "label": label,
        "reason": one.reason,
        "asserted_at": one.asserted_at,
    }


def _require_inside(box: Mapping[str, float], image: Image) -> None:
    """Coordinates of the image as stored are the usual slip, where EXIF turns it."""
    if image.width_px is None or image.height_px is None:
        return
    x1, y1, x2, y2 = box.values()
    if min(x1, y1) < -OUTSIDE_PX or (
        x2 > image.width_px + OUTSIDE_PX or y2 > image.height_px + OUTSIDE_PX
    ):
        raise ValueError(
            f"the box lies outside the image: that is {image.width_px} x {image.height_px} px as "
            "displayed, after EXIF orientation"
        )
