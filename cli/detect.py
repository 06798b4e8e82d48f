"""detect: one model over a few pictures, here and now; no cluster, no tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import cv2
import typer

from archive.listing import EXTENSIONS
from cli.output import Format, FormatOption, note, print_rows
from model_store.detections import Detections
from model_store.detector import LoadedDetector, load_detector
from model_store.errors import BadRequest, ImageError
from model_store.images import Pixels, decode
from model_store.names import parse_ref
from model_store.store import ModelStore
from serve.settings import Settings, usable_cores

COLUMNS = ("image", "label", "score", "x1_px", "y1_px", "x2_px", "y2_px", "note")
GREEN_BGR = (60, 200, 60)


def register(app: typer.Typer) -> None:
    app.command()(detect)


def detect(
    images: Annotated[list[Path], typer.Argument(help="picture files, or folders of them")],
    model: Annotated[str, typer.Option("--model", help="name, name@version or name:alias")],
    min_score: Annotated[
        float | None, typer.Option(min=0, max=1, help="default: the model's own thresholds")
    ] = None,
    draw: Annotated[
        Path | None, typer.Option(help="write the pictures with boxes into this folder")
    ] = None,
    fmt: FormatOption = Format.table,
) -> None:
    """What a model sees in some pictures. Exit code 1 when one of them cannot be decoded.

    Example: resight detect buck.jpg night/ --model deer --draw seen/
    """
    store = ModelStore(Settings().models_url)
    detector = load_detector(store, store.resolve(parse_ref(model)), usable_cores())
    rows: list[dict[str, Any]] = []
    unreadable = 0
    for path, name in _files(images):
        try:
            data = path.read_bytes()
            facts, found = detector.detect_encoded(data)
        except (ImageError, OSError) as error:
            note(f"unreadable: {name}: {error}")
            unreadable += 1
            continue
        shown = _shown(detector, found, min_score)
        rows += _rows(name, detector, shown, facts.note)
        if draw is not None:
            _draw(draw / f"{Path(name).with_suffix('')}.jpg", decode(data).pixels, detector, shown)
    print_rows(rows, fmt, COLUMNS)
    if unreadable:
        raise typer.Exit(1)


def _files(given: list[Path]) -> Iterator[tuple[Path, str]]:
    """Pictures and the names they are shown by. Raises BadRequest for what is not there."""
    for path in given:
        if path.is_dir():
            below = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS)
            yield from ((p, str(p.relative_to(path))) for p in below)
        elif path.is_file():
            yield path, path.name
        else:
            raise BadRequest(f"{path} is no file and no folder")


def _shown(detector: LoadedDetector, found: Detections, min_score: float | None) -> Detections:
    config = detector.config
    least = [config.threshold(x) if min_score is None else min_score for x in config.labels]
    pairs = zip(found.scores, found.class_ids, strict=True)
    return found.select(
        [i for i, (score, label) in enumerate(pairs) if score >= least[label]]  # type: ignore[arg-type]
    )


def _rows(
    name: str, detector: LoadedDetector, shown: Detections, decode_note: str | None
) -> list[dict[str, Any]]:
    """A picture without detections has one row too."""
    labels = detector.config.labels
    columns = zip(
        shown.class_ids.tolist(), shown.scores.tolist(), shown.boxes_xyxy.tolist(), strict=True
    )
    values: list[tuple[Any, ...]] = [(name, labels[i], score, *box) for i, score, box in columns]
    values = values or [(name, None, None, None, None, None, None)]
    return [dict(zip(COLUMNS, (*row, decode_note), strict=True)) for row in values]


def _draw(path: Path, pixels: Pixels, detector: LoadedDetector, shown: Detections) -> None:
    canvas = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    scale = max(canvas.shape[:2]) / 1000
    thick = max(1, round(2 * scale))
    for box, score, label in zip(
        shown.boxes_xyxy.round().astype(int).tolist(), shown.scores, shown.class_ids, strict=True
    ):
        words = f"{detector.config.labels[label]} {score:.2f}"
        cv2.rectangle(canvas, box[:2], box[2:], GREEN_BGR, thick)
        corner = (box[0] + thick, max(round(22 * scale), box[1] - thick))
        cv2.putText(
            canvas,
            words,
            corner,
            cv2.FONT_HERSHEY_SIMPLEX,
            0.7 * scale,
            GREEN_BGR,
            thick,
            cv2.LINE_AA,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".jpg", canvas)[1].tobytes())
