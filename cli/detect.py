"""The command `detect`: run a model on some pictures in this process. Needs no cluster and writes no table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.models import MODEL
from cli.output import Format, FormatOption, note, print_rows, require_own
from model_store.errors import BadRequest, ImageError
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    import cv2
    import numpy as np

    from archive.catalogue import listing
    from archive.catalogue.roots import require_outside
    from archive.delta.tables import Tables
    from archive.views.views import Views
    from batch.schedule.archive_state import wanted_version
    from model_store.decoders import layout
    from model_store.detections import Detections, RunLengths
    from model_store.detector import LoadedDetector
    from model_store.images.crops import Mark, draw_marks
    from model_store.images.decode import Pixels, decode
    from model_store.load import load_detector
    from model_store.machine import usable_cores
    from model_store.storage import Folder, absolute
    from model_store.store import ModelStore
    from model_store.transform.masks import bitmap_of
    from model_store.transform.thresholds import least_scores, shown
    from serve.settings import Settings

app = typer.Typer()
BOX = ("x1_px", "y1_px", "x2_px", "y2_px")
COLUMNS = ("image", "label", "score", *BOX, "note", "mask_area_px", "mask_rle")
GREEN_BGR = (60, 200, 60)
_JFIF_BYTES = 20
"""Length of the start of a JPEG from OpenCV, after which a comment may follow."""
_WORDS = b"drawn by resight detect"
_COMMENT = b"\xff\xfe" + (2 + len(_WORDS)).to_bytes(2) + _WORDS
"""Segment of a JPEG that marks a drawing: no other file is ever replaced."""


@app.command()
def detect(
    images: Annotated[list[Path], typer.Argument(help="picture files or folders")],
    model: Annotated[str, typer.Option("--model", help=MODEL)] = "",
    min_score: Annotated[
        float | None, typer.Option(min=0, max=1, help="score threshold; default: the thresholds of the model")
    ] = None,
    draw: Annotated[Path | None, typer.Option(help="folder for copies of the pictures with boxes")] = None,
    fmt: FormatOption = Format.table,
) -> None:
    """Run a model on some pictures and print its detections. Exit code 1 if a picture is unreadable.

    With --draw, a picture is written as NAME.jpg; pictures of a folder keep their paths below it.
    No other file is replaced, except an earlier drawing, and nothing is drawn into a catalogued archive.

    Example: resight detect buck.jpg night/ --model deer --draw seen/
    """
    settings = Settings()
    files = list(_files(images))
    drawings = _drawings(files, draw, settings.tables_url) if draw is not None else {}
    store = ModelStore(settings.models_url)
    view = None if model else Views(settings.mounted_tables_url).current()
    version = wanted_version(store, view, model).id
    if not model:
        note(f"model: {version}")
    detector = load_detector(store, version, usable_cores())
    thresholds = least_scores(detector.config, min_score)
    rows: list[dict[str, Any]] = []
    unreadable = 0
    for path, name in files:
        try:
            data = path.read_bytes()
            facts, found = detector.detect_encoded(data)
        except (ImageError, layout.OutputNonsense, OSError) as error:
            note(f"unreadable: {name}: {error}")
            unreadable += 1
            continue
        visible = shown(found, thresholds)
        rows += _rows(name, detector, visible, facts.note)
        if path in drawings:
            pixels = decode(data).pixels
            _draw(drawings[path], pixels, visible, detector.config.labels)
    columns = list(COLUMNS)
    if fmt is Format.table:
        columns.remove("mask_rle")
        if all(row["mask_area_px"] is None for row in rows):
            columns.remove("mask_area_px")
    print_rows([{c: row[c] for c in columns} for row in rows], fmt, columns)
    if unreadable:
        raise typer.Exit(1)


def _files(given: list[Path]) -> Iterator[tuple[Path, str]]:
    """Yield each picture with its displayed name. Raises BadRequest for a missing path."""
    for path in given:
        if path.is_dir():
            below = sorted(p for p in path.rglob("*") if p.suffix.lower() in listing.EXTENSIONS and p.is_file())
            yield from ((p, str(p.relative_to(path))) for p in below)
        elif path.is_file():
            yield path, path.name
        else:
            raise BadRequest(f"{path} is not a file or folder")


def _drawings(files: Sequence[tuple[Path, str]], folder: Path, tables_url: str) -> dict[Path, Path]:
    """Map each picture to its drawing: the same name in `folder`, with .jpg after any other suffix.

    Raises BadRequest, before anything is written, if a drawing would replace another file, or be in an archive.
    """
    if folder.exists() and not folder.is_dir():
        raise BadRequest(f"--draw {folder} is a file: use a folder")
    require_outside(Tables(tables_url), absolute(str(folder)))
    drawings: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for path, name in files:
        drawing = folder / (name if name.lower().endswith(".jpg") else f"{name}.jpg")
        require_own(drawing, _COMMENT)
        if taken.setdefault(drawing, path) != path:
            raise BadRequest(
                f"{taken[drawing]} and {path} would both be drawn as {drawing}: pass the folder "
                "that contains both, or draw them separately into two folders"
            )
        drawings[path] = drawing
    return drawings


def _rows(name: str, detector: LoadedDetector, shown: Detections, decode_note: str | None) -> list[dict[str, Any]]:
    """Return a row for each detection, or one row if there is none."""
    labels = detector.config.labels
    masks: list[tuple[int | None, str | None]] = [(None, None)] * len(shown)
    if isinstance(shown.masks, RunLengths):
        masks = list(zip(shown.masks.area_px.tolist(), shown.masks.counts, strict=True))
    columns = zip(shown.class_ids.tolist(), shown.scores.tolist(), shown.boxes_xyxy.tolist(), masks, strict=True)
    values: list[tuple[Any, ...]] = [
        (name, labels[i], score, *box, decode_note, *mask) for i, score, box, mask in columns
    ]
    values = values or [(name, *[None] * 6, decode_note, None, None)]
    return [dict(zip(COLUMNS, row, strict=True)) for row in values]


def _draw(path: Path, pixels: Pixels, shown: Detections, labels: Sequence[str]) -> None:
    """Write a JPEG of `pixels`, (h, w, 3) uint8 RGB, with its detections; lines and letters scale with the picture.

    Raises BadRequest for an existing file that is not a drawing, StorageUnreachable, StorageFull.
    """
    canvas: Any = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    height, width = canvas.shape[:2]
    if isinstance(shown.masks, RunLengths):
        for counts in shown.masks.counts:
            inside = bitmap_of(counts, (width, height))
            canvas[inside] = canvas[inside] // 2 + np.array(GREEN_BGR, np.uint8) // 2
    boxes = zip(shown.boxes_xyxy.tolist(), shown.scores, shown.class_ids, strict=True)
    draw_marks(canvas, [Mark(box, f"{labels[i]} {score:.2f}", GREEN_BGR) for box, score, i in boxes])
    jpeg = cv2.imencode(".jpg", canvas)[1].tobytes()
    require_own(path, _COMMENT)
    marked = jpeg[:_JFIF_BYTES] + _COMMENT + jpeg[_JFIF_BYTES:]
    Folder(absolute(str(path.parent))).write(path.name, marked)
