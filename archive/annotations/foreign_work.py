"""Add the work of people in another tool as statements: all of a file's rows, or none.

works --read_work--> rows of `assertions`, and a report of images that were not found
A box is an `add`: it names the detection that it covers, or adds an animal. An image without an animal is a `suppress`.
A label of a whole image applies to its detections in the published view, if these have one label. Reading a file again
adds nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pyarrow as pa
import pydantic.dataclasses

from archive.annotations.annotation_file import BOX, read_statements
from archive.annotations.assertions import ANNOTATIONS, HUMAN
from archive.annotations.import_file import NAMING, Image, Read, located_rows, reason_of, recorded_rows, refuse
from archive.delta.snapshot import memory_database, open_tables, scan
from archive.delta.tables import Tables
from archive.schemas import ASSERTIONS, MEDIA
from archive.views.query import connect
from archive.views.views import Views
from model_store.errors import BadRequest
from model_store.storage import absolute

MAX_SHAPE_DIFFERENCE = 0.02
"""Maximum relative difference of the shape of an image in the file and in the catalogue, because tools round."""

_NOT_STATED = f"""
    from added a where actor <> '{HUMAN}' or not exists (
        from recorded r where r.method = 'human' and r.media_sha256 = a.media_sha256 and if(
            a.action = 'suppress', r.action = 'suppress',
            r.action in {NAMING} and replace(r.label, '|', '/') = replace(a.label, '|', '/') and is_same_box(iou(
                a.x1_px, a.y1_px, a.x2_px, a.y2_px, r.x1_px, r.y1_px, r.x2_px, r.y2_px))))
"""
Row = dict[str, Any]


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config={"allow_inf_nan": False})
class Work:
    """A person's statement about an image in another tool, in row `number` of its file.

    The box is x1, y1, x2, y2 in parts of the image; without it, `label` is that of the whole image. Without a label,
    the image is empty. `size_px` is the width and height of the image in that tool, `media_sha256` its digest in an
    export of Resight. Raises ValidationError.
    """

    number: int
    path: str
    label: str | None
    box: tuple[float, float, float, float] | None = None
    size_px: tuple[float, float] | None = None
    actor: str | None = None
    asserted_at: str | None = None
    media_sha256: str | None = None


def read_work(
    tables: Tables,
    file: Path,
    works: Iterable[Work],
    root: str | None = None,
    by: str | None = None,
    at: str | None = None,
) -> Read:
    """Return the statements of a file. `by` and `at` (default: now) apply to works without an author or a time.

    `root` is an archive, or a folder of one; default: all archives. Raises BadRequest with all errors by row, or if no
    image of the file is in the catalogue.
    """
    works = list(works)
    if not works:
        raise BadRequest(f"{file}: it has no work of a person; nothing was added")
    images, left_out = _images(tables, {work.path for work in works}, root)
    if not images:
        raise BadRequest(
            f"{file}: no image of it is in the catalogue, such as {works[0].path}; is it of another archive? "
            "Ingest its folder, or name its archive with --root; nothing was added"
        )
    left_out |= _contradictions(works) | {
        work.path: "the catalogue has another image of this path"
        for work in works
        if work.path in images and work.media_sha256 not in (None, images[work.path].media_sha256)
    }
    usable = [work for work in works if work.path in images and work.path not in left_out]
    reason = reason_of(file)
    # an image is added once: what its label applied to may have changed since, by a publication or by people
    recorded = Counter(recorded_rows(tables, reason, ["media_sha256"])["media_sha256"].to_pylist())
    new = [work for work in usable if images[work.path].media_sha256 not in recorded]
    shown = _shown(tables, [images[work.path] for work in new if work.label and not work.box])
    found: list[tuple[Work, Row]] = []
    for work in new:
        image = images[work.path]
        try:
            rows = list(_statements(work, image, shown.get(image.media_sha256, [])))
        except ValueError as error:
            left_out[work.path] = str(error)
            continue
        found += [(work, row) for row in rows]
    found = [(work, row) for work, row in found if work.path not in left_out]
    common = {"actor": by, "asserted_at": at or datetime.now(UTC).isoformat(), "reason": reason}
    statements, errors = read_statements([row for _, row in found], common)
    located = located_rows(tables, statements, errors)
    refuse(file, {found[n - 1][0].number: why for n, why in errors.items()})
    table = _not_stated(tables, pa.Table.from_pylist(list(located.values()), schema=ASSERTIONS))
    repeated = sum(recorded[sha] for sha in {images[work.path].media_sha256 for work in usable})
    return Read(table, repeated=repeated + len(located) - len(table), left_out=left_out)


def _not_stated(tables: Tables, rows: pa.Table) -> pa.Table:
    """Return the rows without those of our own export that people of this archive have stated: it leaves names out."""
    with open_tables(tables) as sql:
        scan(sql, "recorded", tables.existing("assertions"), ASSERTIONS)
        ANNOTATIONS.create(sql, "is_same_box", "iou")
        sql.register("added", rows)
        return sql.sql(_NOT_STATED).to_arrow_table().cast(ASSERTIONS)


def _contradictions(works: Sequence[Work]) -> dict[str, str]:
    """Return the images that a file calls empty and not empty, or to which it gives several labels without a box."""
    labels: dict[str, set[str | None]] = {}
    boxed: set[str] = set()
    for work in works:
        if work.box is None:
            labels.setdefault(work.path, set()).add(work.label)
        else:
            boxed.add(work.path)
    several = {
        path: ", ".join(f"'{name or 'empty'}'" for name in sorted(of, key=str))
        for path, of in labels.items()
        if len(of) > 1
    }
    reasons = {path: f"it has several labels without a box: {names}" for path, names in several.items()}
    empty = {path for path, of in labels.items() if None in of} & boxed
    return reasons | dict.fromkeys(empty, "the file calls it empty, but has boxes of it")


def _statements(work: Work, image: Image, shown: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Yield the statements of a work. Raises ValueError if the image does not allow them."""
    name = {"media_sha256": image.media_sha256, "actor": work.actor, "asserted_at": work.asserted_at}
    if not work.label:
        yield {**name, "action": "suppress"}
    elif work.box is None:
        if not shown:
            raise ValueError(f"'{work.label}' has no box, and the view shows no detection: draw one")
        labels = sorted({str(detection["label"]) for detection in shown})
        if len(labels) > 1:
            raise ValueError(f"'{work.label}' has no box, and the view shows {', '.join(labels)}: draw boxes")
        for detection in shown:
            yield {**name, **detection, "action": "relabel", "label": work.label}
    else:
        width, height = _size(work, image)
        values = (v * of for v, of in zip(work.box, (width, height) * 2, strict=True))
        yield {**name, **dict(zip(BOX, values, strict=True)), "action": "add", "label": work.label}


def _size(work: Work, image: Image) -> tuple[int, int]:
    """Return the displayed size. Raises ValueError if it is unknown, or has another shape than in the file."""
    if not image.width_px or not image.height_px:
        raise ValueError("its size is unknown, because its header could not be read")
    if work.size_px and work.size_px[0] > 0 and work.size_px[1] > 0:
        shape = work.size_px[0] / work.size_px[1] * image.height_px / image.width_px
        if abs(shape - 1) > MAX_SHAPE_DIFFERENCE:
            size = f"{image.width_px} x {image.height_px} px"
            raise ValueError(
                f"the file has it as {work.size_px[0]:g} x {work.size_px[1]:g} px, but it is displayed as {size}"
            )
    return image.width_px, image.height_px


def _images(tables: Tables, paths: set[str], root: str | None) -> tuple[dict[str, Image], dict[str, str]]:
    """Return the image of each path, and the reasons for the others.

    A path is that of the catalogue, or one of the two ends with the other: tools add or leave out folders. A name of a
    file alone is not enough for that without `root`, because cameras number the images of each card alike. The full
    path of a catalogued file is never another content, also if that file is missing or not in `root`. Macs decompose
    characters of paths, and Windows has backslashes in them.
    """
    with memory_database() as sql:
        scan(sql, "media", tables.existing("media"), MEDIA)
        given = sorted(paths)
        names = [normalize("NFC", path.replace("\\", "/")) for path in given]
        sql.register("wanted", pa.table({"given": given, "name": names}))
        rows = sql.execute(
            """
            with files as (
                select *, nfc_normalize(source_root) || '/' || path as full_path,
                    missing_since is null and ($root is null or starts_with(full_path, $root || '/')) as is_usable
                from (select * replace (nfc_normalize(path) as path), path as stored from media)
                where frame_count is null),
            usable as (select media_sha256 from files where is_usable),
            found as (
                select given, name = full_path as is_full, name in (path, full_path) as is_equal,
                    is_usable or (is_full and media_sha256 in (from usable)) as is_usable,
                    ends_with(given, stored) or ends_with(stored, given) as is_exact,
                    if(ends_with(path, '/' || name), name, path) as common, media_sha256, width_px, height_px
                from wanted join files on parse_filename(path) = parse_filename(name)
                where is_equal or ((contains(common, '/') or $root is not null)
                    and (ends_with(path, '/' || name) or ends_with(name, '/' || path))))
            select distinct given, media_sha256, width_px, height_px from found
            qualify is_usable and rank() over (
                partition by given order by is_full desc, is_usable desc, is_equal desc, is_exact desc) = 1
            """,
            {"root": root and normalize("NFC", absolute(root))},
        ).fetchall()
    images: dict[str, Image] = {}
    left_out = dict.fromkeys(sorted(paths), "it is not in the catalogue")
    for name, *of in rows:
        several = name in images
        images[name] = Image(*of)
        left_out.pop(name, None)
        if several:
            left_out[name] = "several images of the catalogue have this path: name one archive with --root"
    return images, left_out


def _shown(tables: Tables, images: Sequence[Image]) -> dict[str, list[Row]]:
    """Return the detections that the published view shows in these images."""
    view, found = Views(tables.url).current(), dict[str, list[Row]]()
    if view is None or not images:
        return found
    wanted = pa.chunked_array([pa.array(sorted({i.media_sha256 for i in images}), pa.string())])
    with connect(tables, view, wanted, statement="detections") as sql:
        columns = ("inference_key", "rank", "label", *BOX)
        query = f"select media_sha256, {', '.join(columns)} from detections"
        for sha256, *values in sql.execute(query).fetchall():
            found.setdefault(sha256, []).append(dict(zip(columns, values, strict=True)))
    return found
