"""Convert results of the engine, of uploads and of searches to the messages of the HTTP API /v1 (`schemas.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from archive.catalogue.uploads import Kept
from archive.views.search import SearchPage
from archive.views.similar import SimilarPage
from model_store.classifier import best, softmax
from model_store.detections import Detections, RunLengths
from model_store.transform.thresholds import least_scores, shown
from serve.api import schemas
from serve.inference.results import Answer, BoxesAnswer, CropAnswer, Timings

TOP = 5
"""Number of classes in an answer, unless the request has another."""


def to_classes(answer: CropAnswer, top: int) -> schemas.ClassifyResponse:
    """Return the answer of a classifier with its `top` best classes, or all if there are fewer."""
    return schemas.ClassifyResponse(
        model=_copied(schemas.WireModel, answer.model, alias=answer.alias),
        image=_copied(schemas.WireImage, answer.image, decode_note=answer.image.note),
        box_xyxy_px=answer.box_xyxy_px,
        classes=_classes(answer.model.labels, answer.values, top),
        timings_ms=_timings(answer.timings),
    )


def to_vector(answer: CropAnswer) -> schemas.EmbedResponse:
    """Return the answer of an embedder, with the vector at its own length."""
    return schemas.EmbedResponse(
        model=_copied(schemas.WireModel, answer.model, alias=answer.alias),
        image=_copied(schemas.WireImage, answer.image, decode_note=answer.image.note),
        box_xyxy_px=answer.box_xyxy_px,
        vector=answer.values.tolist(),
        timings_ms=_timings(answer.timings),
    )


def to_response(answer: Answer, min_score: float | None) -> schemas.DetectResponse:
    """Return the answer of a detector, with scores from `min_score`, or if None from the model's display thresholds."""
    labels, config = answer.model.labels, answer.detector.config
    found = shown(answer.detections, least_scores(config, min_score))
    size = (answer.image.height_px, answer.image.width_px)
    detections = [
        schemas.WireDetection(label=labels[class_id], class_id=class_id, score=score, box_xyxy_px=tuple(box), mask=mask)
        for box, score, class_id, mask in zip(
            found.boxes_xyxy.tolist(), found.scores.tolist(), found.class_ids.tolist(), _masks(found, size), strict=True
        )
    ]
    return schemas.DetectResponse(
        model=_copied(schemas.WireModel, answer.model, alias=answer.alias),
        image=_copied(schemas.WireImage, answer.image, decode_note=answer.image.note),
        detections=detections,
        saturated=found.saturated,
        timings_ms=_timings(answer.timings),
    )


def with_classes(found: schemas.DetectResponse, answer: BoxesAnswer) -> schemas.DetectResponse:
    """Return the answer of a detector with the best classes of each of its detections, in their order."""
    detections = [
        detection.model_copy(update={"classes": _classes(answer.model.labels, logits, TOP)})
        for detection, logits in zip(found.detections, answer.values, strict=True)
    ]
    model = _copied(schemas.WireModel, answer.model, alias=answer.alias)
    then = schemas.WireThen(model=model, timings_ms=_timings(answer.timings))
    return found.model_copy(update={"detections": detections, "then": then})


def _classes(labels: Sequence[str], logits: NDArray[np.float32], top: int) -> list[schemas.WireClass]:
    scores = softmax(logits[None])[0]
    return [
        schemas.WireClass(label=labels[i], class_id=i, score=float(scores[i]), logit=float(logits[i]))
        for i in best(logits, top)
    ]


def to_upload(seen: schemas.DetectResponse, kept: Kept, recorded: bool) -> schemas.UploadResponse:
    row = {name: kept.row[name] for name in schemas.WireMedia.model_fields if name in kept.row}
    media = schemas.WireMedia(**row, is_new=kept.is_new)
    return schemas.UploadResponse(**dict(seen), media=media, recorded=recorded)


def to_found(found: SearchPage) -> schemas.FoundImages:
    view = found.view
    images = [
        image
        | {name: image[name] and image[name].isoformat() for name in ("captured_at_local", "captured_at_corrected")}
        for image in found.images
    ]
    return schemas.FoundImages(
        view=view and _copied(schemas.WireView, view),
        images=[schemas.WireFoundImage.model_validate(image) for image in images],
        next=found.next,
    )


def to_similar(found: SimilarPage) -> schemas.SimilarDetections:
    rows = (
        {name: row[name] for name in schemas.WireSimilar.model_fields if name in row}
        | {"box_xyxy_px": tuple(row[f"{side}_px"] for side in ("x1", "y1", "x2", "y2"))}
        | {"captured_at_corrected": row["captured_at_corrected"] and row["captured_at_corrected"].isoformat()}
        for row in found.detections
    )
    return schemas.SimilarDetections(
        view=_copied(schemas.WireView, found.view),
        embedder_key=found.embedder_key,
        model=found.model,
        is_exact=found.is_exact,
        note=found.note,
        detections=[schemas.WireSimilar.model_validate(row) for row in rows],
    )


W = TypeVar("W", bound=schemas.Wire)


def _copied(kind: type[W], source: object, **more: Any) -> W:
    """Return a message with the attributes of the same names, and some more."""
    return kind(**{name: getattr(source, name) for name in kind.model_fields if name not in more}, **more)


def _timings(times: Timings) -> schemas.WireTimings:
    return schemas.WireTimings(
        **{stage: round(getattr(times, f"{stage}_ms"), 3) for stage in schemas.WireTimings.model_fields}
    )


def _masks(found: Detections, size: tuple[int, int]) -> Sequence[schemas.WireMask | None]:
    if not isinstance(found.masks, RunLengths):
        return [None] * len(found)
    columns = zip(found.masks.counts, found.masks.area_px.tolist(), strict=True)
    return [schemas.WireMask(size=size, counts=counts, area_px=area) for counts, area in columns]
