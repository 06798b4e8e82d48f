"""Messages of the HTTP API /v1: frozen pydantic models, made by `answers.py`.

Boxes are x1, y1, x2, y2 in pixels of the image as displayed (after EXIF orientation), unrounded.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from pydantic import ConfigDict, Field, RootModel

from model_store.frozen import Frozen


class Wire(Frozen):
    """Base of all messages."""


class WireMask(Wire):
    """COCO's compressed run lengths: `pycocotools.mask.decode({"size", "counts"})` reads them."""

    size: tuple[int, int] = Field(description="height and width of the image, px")
    counts: str
    area_px: int


class WireClass(Wire):
    label: str
    class_id: int
    score: float = Field(description="softmax over all labels, 0..1, float32")
    logit: float = Field(description="float32; a logarithm where the graph gives probabilities")


class WireDetection(Wire):
    label: str
    class_id: int
    score: float = Field(description="0..1, float32")
    box_xyxy_px: tuple[float, float, float, float]
    mask: WireMask | None = Field(default=None, description="only of segmentation models")
    classes: list[WireClass] | None = Field(default=None, description="only with `then`: of its crop, best first")


class WireModel(Wire):
    """The model that answered."""

    name: str
    version: str
    alias: str | None = Field(description="the requested alias; null if a version was requested")
    weights_sha256: str
    inference_key: str


class WireImage(Wire):
    width_px: int
    height_px: int
    media_type: str
    decode_note: str | None = Field(description="what was tolerated or converted while decoding")


class WireTimings(Wire):
    queue: float
    preprocess: float
    inference: float
    postprocess: float


class WireThen(Wire):
    """The classifier of the detections; times are those of the slowest crop."""

    model: WireModel
    timings_ms: WireTimings


class DetectResponse(Wire):
    """Answer of POST /v1/detect; detections are ranked best first."""

    model: WireModel
    image: WireImage
    detections: list[WireDetection]
    saturated: bool = Field(description="the number of detections is a minimum instead of a count")
    timings_ms: WireTimings
    then: WireThen | None = Field(default=None, description="only with `then`")


class WireMedia(Wire):
    """A stored image: a row of the table `media`."""

    media_sha256: str
    source_root: str
    path: str
    camera_id: str | None = Field(description="from the image itself, else as it was sent")
    captured_at_local: str | None = Field(description="local time of the camera's clock, ISO 8601")
    is_new: bool = Field(description="false: the same image was already stored there")


class UploadResponse(DetectResponse):
    """Answer of POST /v1/images: that of POST /v1/detect, and the stored image."""

    media: WireMedia
    recorded: bool = Field(description="whether its rows are already in the tables")


class ClassifyResponse(Wire):
    """Answer of POST /v1/classify; classes are ranked best first."""

    model: WireModel
    image: WireImage
    box_xyxy_px: tuple[float, float, float, float] | None = Field(
        description="the requested crop; null: the whole image"
    )
    classes: list[WireClass]
    timings_ms: WireTimings


class EmbedResponse(Wire):
    """Answer of POST /v1/embed."""

    model: WireModel
    image: WireImage
    box_xyxy_px: tuple[float, float, float, float] | None = Field(
        description="the requested crop; null: the whole image"
    )
    vector: list[float] = Field(description="float32, at any length; compare vectors of one inference key by cosine")
    timings_ms: WireTimings


class WireVersion(Wire):
    version: str
    kind: Literal["detector", "classifier", "embedder"]
    aliases: list[str]
    resident: bool = Field(description="loaded in the replica that answered")
    weights_sha256: str
    inference_key: str


class WireModelStatus(Wire):
    name: str
    versions: list[WireVersion]
    failures: dict[str, str] = Field(description="reason why an alias could not be loaded")


class ModelsResponse(Wire):
    store: str
    models: list[WireModelStatus]


class Problem(Wire):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    errors: dict[str, str] | None = Field(
        default=None, description="messages by the field of the body or the parameter, if any"
    )


A = TypeVar("A", bound=Wire)


class FileAnswer(Wire, Generic[A]):
    name: str = Field(description="the file's name in the form")
    status: int = Field(description="HTTP status it would have alone")
    answer: A | None = None
    problem: Problem | None = None


class FormResult(FileAnswer[DetectResponse]):
    """One file of a form: an answer, or a problem as it would be for that image alone."""


class FormResponse(Wire):
    """Answer of POST /v1/detect to multipart/form-data: a result for each file, in order."""

    results: list[FormResult]


def _one_of(schema: dict[str, Any]) -> None:
    schema["oneOf"] = schema.pop("anyOf")


class DetectAnswer(RootModel[DetectResponse | FormResponse]):
    """A single answer for an image, a list of results for a form."""

    model_config = ConfigDict(frozen=True, json_schema_extra=_one_of)


class WireFoundImage(Wire):
    """One file of the archive, and the result of its image in the view."""

    media_sha256: str
    source_root: str
    path: str
    camera_id: str | None
    captured_at_local: str | None = Field(description="local time of the camera's clock, ISO 8601")
    captured_at_corrected: str | None = Field(description="the same with the clock offset of its deployment")
    status: Literal["ok", "empty", "failed", "missing"] = Field(
        description="ok: the view shows a detection; empty: none; missing: it has no result"
    )
    error_code: str | None
    error_detail: str | None
    decode_note: str | None = Field(description="what was tolerated or converted while decoding")
    labels: dict[str, int] = Field(description="number of shown detections of each label")


class WireView(Wire):
    name: str
    serial: int
    inference_key: str
    model_name: str
    model_version: str


class FoundImages(Wire):
    """Answer of GET /v1/images: newest images first, images without a date last."""

    view: WireView | None = Field(description="null: no result is published, so all are missing")
    images: list[WireFoundImage]
    next: str = Field(description="value of `after` for the next page; empty at the end")


class WireSimilar(Wire):
    """One detection, and its image."""

    detection_id: str
    cosine: float = Field(description="similarity to the detection of the request, -1 to 1")
    label: str
    score: float | None
    box_xyxy_px: tuple[float, float, float, float]
    media_sha256: str
    source_root: str
    path: str
    camera_id: str | None
    captured_at_corrected: str | None


class SimilarDetections(Wire):
    """Answer of GET /v1/detections/ID/similar, nearest first."""

    view: WireView
    embedder_key: str
    model: str = Field(description="version that made the vectors")
    is_exact: bool = Field(description="false: an index found them, which misses few")
    note: str = Field(description="why a search of many vectors was exact; else empty")
    detections: list[WireSimilar]


class UploadFormResult(FileAnswer[UploadResponse]):
    """One file of a form: an answer, or a problem as it would be for that image alone."""

    status: int = Field(description="HTTP status it would have alone; 200 also if the image is new")


class UploadFormResponse(Wire):
    """Answer of POST /v1/images to multipart/form-data: a result for each file, in order."""

    results: list[UploadFormResult]


class UploadAnswer(RootModel[UploadResponse | UploadFormResponse]):
    """A single answer for an image, a list of results for a form."""

    model_config = ConfigDict(frozen=True, json_schema_extra=_one_of)


class ClassifyFormResult(FileAnswer[ClassifyResponse]):
    """One file of a form: an answer, or a problem as it would be for that image alone."""


class ClassifyFormResponse(Wire):
    """Answer of POST /v1/classify to multipart/form-data: a result for each file, in order."""

    results: list[ClassifyFormResult]


class EmbedFormResult(FileAnswer[EmbedResponse]):
    """One file of a form: an answer, or a problem as it would be for that image alone."""


class EmbedFormResponse(Wire):
    """Answer of POST /v1/embed to multipart/form-data: a result for each file, in order."""

    results: list[EmbedFormResult]


class EmbedAnswer(RootModel[EmbedResponse | EmbedFormResponse]):
    """A single answer for an image, a list of results for a form."""

    model_config = ConfigDict(frozen=True, json_schema_extra=_one_of)


class ClassifyAnswer(RootModel[ClassifyResponse | ClassifyFormResponse]):
    """A single answer for an image, a list of results for a form."""

    model_config = ConfigDict(frozen=True, json_schema_extra=_one_of)
