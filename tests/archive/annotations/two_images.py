"""A published view of two images with a fox and a boar each, and an empty one; statements about them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from archive.annotations.batches import BatchStatement, Recorded, StatementBatch, record_all
from archive.delta.tables import Tables
from archive.views.views import View, Views
from model_store.errors import ResightError
from tests.fixtures_local import put_results, put_rows, result_rows

A, B, EMPTY = "a" * 64, "b" * 64, "e" * 64
KEY = "k" * 64
CORNERS = ("x1_px", "y1_px", "x2_px", "y2_px")
FOX, BOAR = (1.0, 2.0, 13.0, 14.0), (20.0, 2.0, 32.0, 14.0)


def box(corners: tuple[float, ...]) -> dict[str, Any]:
    return dict(zip(CORNERS, corners, strict=True))


def put_images(tables: Tables) -> Tables:
    common = {"source_root": "/x", "width_px": 40, "height_px": 30}
    media = [common | {"media_sha256": sha, "path": sha[:1]} for sha in (A, B, EMPTY)]
    put_rows(tables, "media", *media)
    found = [
        {"rank": rank, "label": label, "class_id": rank, "score": 0.9, **box(corners)}
        for rank, (label, corners) in enumerate((("fox", FOX), ("boar", BOAR)))
    ]
    put_results(tables, result_rows([A, B], KEY, detections=found, width_px=40, height_px=30))
    put_results(tables, result_rows([EMPTY], KEY, "empty", width_px=40, height_px=30))
    names = {"model_name": "m", "model_version": "1", "weights_sha256": "w"}
    Views(tables.url).publish(View.model_validate({"inference_key": KEY, **names}), after=0)
    return tables


def key_of(number: int) -> str:
    """Return the id of a batch."""
    return f"{number:032x}"


def named(action: str = "keep", rank: int | None = 0, image: str = A, **more: Any) -> BatchStatement:
    row = {"action": action, "media_sha256": image, "inference_key": KEY, "rank": rank}
    return BatchStatement.model_validate(row | more)


def record(tables: Tables, batch_id: str, statements: Iterable[BatchStatement], actor: str) -> Recorded:
    return recorded(tables, StatementBatch(batch_id, actor, tuple(statements)))


def withdraw(tables: Tables, batch_id: str, of_batch: str, actor: str) -> Recorded:
    return recorded(tables, StatementBatch(batch_id, actor, of_batch=of_batch))


def repeat(tables: Tables, batch_id: str, of_batch: str, actor: str) -> Recorded:
    return recorded(tables, StatementBatch(batch_id, actor, of_batch=of_batch, repeats=True))


def recorded(tables: Tables, batch: StatementBatch) -> Recorded:
    """Return the answer to a batch, or raise its error."""
    (answer,) = record_all(tables, [batch])
    if isinstance(answer, ResightError):
        raise answer
    return answer
