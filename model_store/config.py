"""config.json of a model version: everything that decides its rows, typed and frozen.

`kind` says which of two it is: ModelConfig of a detector (the default: files without it are detectors) or
ClassifierConfig; AnyConfig is either. Unknown fields are refused. The fields that change results go into the
inference key (`inference_key.py`); thresholds, batch, licence, source and description do not.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model_store.errors import ModelRefused
from model_store.fit import Resize, SizePx
from model_store.said import wrong_fields

DecoderName = Literal[
    "yolov5",
    "yolov5_seg",
    "yolov8",
    "yolov8_seg",
    "end2end",
    "end2end_seg",
    "yolox",
    "yolox_raw",
    "rtdetr",
    "rtdetr_topk",
    "rtdetr_labels",
    "rfdetr",
    "ssd",
    "tf_detection",
    "torchvision",
    "mmdet",
    "blobs",
]
Positive = Annotated[float, Field(gt=0)]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OnnxRuntime(Frozen):
    """Weights run by ONNX Runtime: CUDA where it is installed, else CPU."""

    kind: Literal["onnx"] = "onnx"
    weights: str = Field(default="model.onnx", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.onnx$")


class TorchRuntime(Frozen):
    """A program of torch.export, run by PyTorch: CUDA where there is a GPU, else CPU."""

    kind: Literal["torch"] = "torch"
    weights: str = Field(default="model.pt2", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.pt2$")


class MotionRuntime(Frozen):
    """No weights: blobs that differ from their blurred surroundings (`runtimes/motion.py`)."""

    kind: Literal["motion"] = "motion"
    min_contrast: float = Field(default=24.0, gt=0, le=255, description="grey levels, 0..255")
    min_area_frac: float = Field(default=0.002, gt=0, lt=1, description="of the network's square")
    background_sigma_px: float = Field(default=24.0, gt=0)
    max_blobs: int = Field(default=50, ge=1)


class Merge(Frozen):
    """How boxes of different tiles become one, where tiles overlap."""

    kind: Literal["suppress", "union"] = Field(
        default="suppress", description="the best box stays, or grows around those it stands for"
    )
    measure: Literal["iou", "smaller"] = Field(
        default="smaller", description="intersection over union, or over the smaller of the two"
    )
    over: float = Field(default=0.5, ge=0, le=1, description="strictly more is the same object")


class Tiling(Frozen):
    """The image as overlapping squares, each seen at the network's full size: for small objects."""

    tile_px: int = Field(ge=32, le=8192, description="side of a square, in px of the image")
    overlap_frac: float = Field(
        default=0.2, ge=0, le=0.75, description="of two neighbours, at least"
    )
    whole: bool = Field(default=True, description="the whole image is seen as well")
    merge: Merge = Merge()


class Preprocess(Frozen):
    """From upright RGB pixels to the network's input."""

    resize: Resize = "letterbox"
    side_px: int = Field(default=640, ge=1, le=8192, description="width, and height unless given")
    height_px: int | None = Field(default=None, ge=1, le=8192, description="if not the width")
    stride_px: int = Field(default=32, ge=1, le=512, description="what `rect` pads to")
    interpolation: Literal["nearest", "linear", "area", "cubic"] = "linear"
    pad_value: int = Field(default=114, ge=0, le=255)
    channel_order: Literal["RGB", "BGR"] = "RGB"
    divide_by: float = Field(default=255.0, gt=0)
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[Positive, Positive, Positive] = (1.0, 1.0, 1.0)
    jpeg_shrink: Literal[1, 2, 4, 8] = Field(
        default=1,
        description="JPEGs may be decoded at 1/2, 1/4 or 1/8, never below what is resized to",
    )
    damaged: Literal["tolerate", "refuse"] = Field(
        default="tolerate",
        description="JPEGs with cut or broken data: as far as they go, or failed",
    )
    tiling: Tiling | None = None

    @property
    def input_px(self) -> SizePx:
        """Width and height of the network's input; with `rect`, the most it can be."""
        return self.side_px, self.height_px or self.side_px

    @model_validator(mode="after")
    def _consistent(self) -> Preprocess:
        if self.resize == "rect" and any(side % self.stride_px for side in self.input_px):
            raise ValueError(f"rect needs sides that are multiples of stride_px {self.stride_px}")
        if self.tiling and (self.resize == "rect" or self.jpeg_shrink > 1):
            raise ValueError("tiling goes with neither rect nor jpeg_shrink")
        return self


class Nms(Frozen):
    """Suppression of overlapping boxes; kind `none` only ranks and cuts."""

    kind: Literal["greedy", "none"] = "greedy"
    iou: float = Field(default=0.5, ge=0, le=1)
    class_aware: bool = True
    inclusive_px: bool = Field(
        default=False,
        description="boxes end with their last pixel: sides are longer by one of the image",
    )
    max_detections: int = Field(default=300, ge=1)


class Thresholds(Frozen):
    """What is shown by default. Rows keep everything down to score_floor."""

    default: float = Field(default=0.25, ge=0, le=1)
    per_label: dict[str, float] = {}


class Batch(Frozen):
    """How the lanes fill one call of the session; never changes rows, so not part of the key."""

    max: int = Field(default=8, ge=1, le=1024)
    wait_ms: float = Field(default=0.0, ge=0, le=1000)


class ModelConfig(Frozen):
    """config.json of a detector."""

    kind: Literal["detector"] = "detector"
    runtime: Annotated[OnnxRuntime | TorchRuntime | MotionRuntime, Field(discriminator="kind")]
    decoder: DecoderName
    preprocess: Preprocess = Preprocess()
    nms: Nms = Nms()
    labels: tuple[str, ...] = Field(min_length=1)
    score_floor: float = Field(default=0.01, ge=0, le=1)
    thresholds: Thresholds = Thresholds()
    batch: Batch = Batch()
    licence: str = ""
    source: str = ""
    description: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        unknown = sorted(set(self.thresholds.per_label) - set(self.labels))
        if unknown:
            raise ValueError(f"thresholds.per_label names labels the model lacks: {unknown}")
        _require_distinct(self.labels)
        if (self.runtime.kind == "motion") != (self.decoder == "blobs"):
            raise ValueError(
                f"runtime {self.runtime.kind} does not go with decoder {self.decoder}: "
                "motion needs blobs, onnx and torch need a network's decoder"
            )
        if self.decoder.endswith("_seg") and _unions(self.preprocess.tiling):
            raise ValueError("masks have no tiling.merge.kind union: use suppress")
        return self

    def threshold(self, label: str) -> float:
        """Score from which a label is shown by default."""
        return self.thresholds.per_label.get(label, self.thresholds.default)


class ClassifierConfig(Frozen):
    """config.json of a classifier: one score a label for a whole picture, or a crop of one. No boxes, so
    neither decoder nor suppression.
    """

    kind: Literal["classifier"]
    runtime: Annotated[OnnxRuntime | TorchRuntime, Field(discriminator="kind")]
    preprocess: Preprocess = Preprocess(resize="stretch", side_px=224)
    labels: tuple[str, ...] = Field(min_length=2)
    scores: Literal["logits", "probabilities"] = Field(
        default="logits", description="what the graph gives: before its softmax, or after"
    )
    lineage: tuple[str, ...] = Field(
        default=(),
        description="of each label, in their order: its taxa with ; between, coarsest first; empty where unknown",
    )
    batch: Batch = Batch()
    licence: str = ""
    source: str = ""
    description: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> ClassifierConfig:
        _require_distinct(self.labels)
        if self.lineage and len(self.lineage) != len(self.labels):
            raise ValueError(
                f"lineage needs one line for each label, '' where unknown: {len(self.labels)} labels, "
                f"{len(self.lineage)} lineages"
            )
        spec = self.preprocess
        if spec.tiling or spec.resize == "rect" or spec.jpeg_shrink > 1:
            raise ValueError(
                "a classifier sees crops, all of one size: preprocess goes without tiling, rect and jpeg_shrink"
            )
        return self


AnyConfig = ModelConfig | ClassifierConfig
KINDS: dict[str, type[ModelConfig] | type[ClassifierConfig]] = {
    "detector": ModelConfig,
    "classifier": ClassifierConfig,
}


def _require_distinct(labels: tuple[str, ...]) -> None:
    if len(set(labels)) != len(labels):
        repeated = sorted({x for x in labels if labels.count(x) > 1})
        raise ValueError(f"labels are repeated: {repeated}")


def _unions(tiling: Tiling | None) -> bool:
    return tiling is not None and tiling.merge.kind == "union"


def parse_config(text: str | bytes, where: str) -> AnyConfig:
    """Read config.json. Raises ModelRefused that names the file and each wrong field."""
    try:
        value = json.loads(text)
        _require_whole_characters(value, where)
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"{where} is not JSON: {error}") from error
    kind = _class_of(value, where)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ModelRefused(f"{where}: {wrong_fields(error, kind, 'config')}") from error


def _class_of(value: Any, where: str) -> type[ModelConfig] | type[ClassifierConfig]:
    """By `kind`; of what says none, or is no object, a detector's. Raises ModelRefused for an unknown kind."""
    kind: object = cast(dict[str, object], value).get("kind") if isinstance(value, dict) else None
    if kind is None or kind in ("detector", "classifier"):
        return KINDS[str(kind or "detector")]
    raise ModelRefused(f"{where}: kind: {kind!r} is unknown; there is: {', '.join(KINDS)}")


def _require_whole_characters(value: object, where: str) -> None:
    """Raises ModelRefused for half a character (a lone surrogate): JSON can say it, no file can hold it."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        around = error.object[max(0, error.start - 20) : error.end]
        raise ModelRefused(
            f"{where} holds half a character (a lone surrogate) in {around!r}: write it whole"
        ) from error
