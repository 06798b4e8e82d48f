"""Typed, frozen config.json of a model version: every setting that affects its results.

`kind` selects ModelConfig of a detector (the default, also without `kind`), ClassifierConfig or EmbedderConfig;
AnyConfig is any of them. Unknown fields are rejected. Fields that change results are part of the inference key
(`inference_key.py`); thresholds, batch, licence, source and description are not.
"""

from __future__ import annotations

import functools
import json
from typing import Annotated, Literal, Self, cast

from pydantic import AfterValidator, Field, ValidationError, model_validator

from model_store.decoders import DECODERS
from model_store.errors import ModelRefused
from model_store.frozen import Frozen, wrong_fields
from model_store.transform.letterbox import Resize, SizePx

EXTERNAL = "external"
"""Runtime, and decoder, of results that another tool made."""


def _require_known(decoder: str) -> str:
    if decoder not in DECODERS and decoder != EXTERNAL:
        raise ValueError(f"unknown decoder {decoder!r}: use {', '.join(DECODERS)}")
    return decoder


DecoderName = Annotated[str, AfterValidator(_require_known)]
Positive = Annotated[float, Field(gt=0)]


class OnnxRuntime(Frozen):
    """Weights that ONNX Runtime runs, on CUDA where it is installed, else on the CPU."""

    kind: Literal["onnx"] = "onnx"
    weights: str = Field(default="model.onnx", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.onnx$")


class TorchRuntime(Frozen):
    """A program of torch.export that PyTorch runs, on CUDA where there is a GPU, else on the CPU."""

    kind: Literal["torch"] = "torch"
    weights: str = Field(default="model.pt2", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.pt2$")


class MotionRuntime(Frozen):
    """Runtime without weights: blobs that differ from their blurred surroundings (`runtimes/motion.py`)."""

    kind: Literal["motion"] = "motion"
    min_contrast: float = Field(default=24.0, gt=0, le=255, description="grey levels, 0..255")
    min_area_frac: float = Field(default=0.002, gt=0, lt=1, description="of the network's input")
    background_sigma_px: float = Field(default=24.0, gt=0)
    max_blobs: int = Field(default=50, ge=1)


class ExternalRuntime(Frozen):
    """Marker of a version without weights: its results were imported from a file of another tool."""

    kind: Literal["external"] = "external"
    tool: str = Field(description="format of the file: megadetector, speciesnet")
    detector: str = Field(description="detector that the file names, with its version")
    metadata: str = Field(default="{}", description="other facts about it in the file, as JSON")
    file_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    min_class_score: float | None = Field(
        default=None, description="score from which boxes are named by their class; null: never"
    )


class Merge(Frozen):
    """Rule that merges boxes of different tiles where tiles overlap."""

    kind: Literal["suppress", "union"] = Field(
        default="suppress", description="keep the best box, or enlarge it around those it replaces"
    )
    measure: Literal["iou", "smaller"] = Field(
        default="smaller", description="intersection over union, or over the smaller box"
    )
    over: float = Field(default=0.5, ge=0, le=1, description="a larger overlap is one object")


class Tiling(Frozen):
    """Overlapping square tiles of the image, each resized to the network's input: for small objects."""

    tile_px: int = Field(ge=32, le=8192, description="side of a tile, in px of the image")
    overlap_frac: float = Field(default=0.2, ge=0, le=0.75, description="minimum overlap of neighbouring tiles")
    whole: bool = Field(default=True, description="also run the whole image")
    merge: Merge = Merge()


class Preprocess(Frozen):
    """Conversion of upright RGB pixels to the network's input."""

    resize: Resize = "letterbox"
    side_px: int = Field(default=640, ge=1, le=8192, description="width, and default height")
    height_px: int | None = Field(default=None, ge=1, le=8192, description="if not the width")
    stride_px: int = Field(default=32, ge=1, le=512, description="`rect` pads to multiples of it")
    interpolation: Literal["nearest", "linear", "area", "cubic"] = "linear"
    pad_value: int = Field(default=114, ge=0, le=255)
    channel_order: Literal["RGB", "BGR"] = "RGB"
    divide_by: float = Field(default=255.0, gt=0)
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[Positive, Positive, Positive] = (1.0, 1.0, 1.0)
    jpeg_shrink: Literal[1, 2, 4, 8] = Field(
        default=1, description="JPEGs may be decoded at 1/2, 1/4 or 1/8, never below the resized size"
    )
    damaged: Literal["tolerate", "refuse"] = Field(
        default="tolerate", description="JPEGs with truncated or damaged data: decode what is readable, or fail"
    )
    tiling: Tiling | None = None

    @property
    def input_px(self) -> SizePx:
        """Return width and height of the network's input; with `rect`, their maximum."""
        return self.side_px, self.height_px or self.side_px

    @model_validator(mode="after")
    def _consistent(self) -> Preprocess:
        if self.resize == "rect" and any(side % self.stride_px for side in self.input_px):
            raise ValueError(f"rect needs sides that are multiples of stride_px {self.stride_px}")
        if self.tiling and (self.resize == "rect" or self.jpeg_shrink > 1):
            raise ValueError("tiling cannot be combined with rect or jpeg_shrink")
        return self


class Nms(Frozen):
    """Suppression of overlapping boxes; kind `none` only ranks boxes and limits their number."""

    kind: Literal["greedy", "none"] = "greedy"
    iou: float = Field(default=0.5, ge=0, le=1)
    class_aware: bool = True
    inclusive_px: bool = Field(
        default=False, description="boxes include their last pixel: sides are one image px longer"
    )
    max_detections: int = Field(default=300, ge=1)


class Thresholds(Frozen):
    """Scores from which detections are shown by default. Rows contain everything above score_floor."""

    default: float = Field(default=0.25, ge=0, le=1)
    per_label: dict[str, float] = {}


class Batch(Frozen):
    """Size and waiting time of a session call. It never changes rows, so it is not part of the inference key."""

    max: int = Field(default=8, ge=1, le=1024)
    wait_ms: float = Field(default=0.0, ge=0, le=1000)


class ModelConfig(Frozen):
    """config.json of a detector."""

    kind: Literal["detector"] = "detector"
    runtime: Annotated[OnnxRuntime | TorchRuntime | MotionRuntime | ExternalRuntime, Field(discriminator="kind")]
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
            raise ValueError(f"thresholds.per_label has unknown labels: {unknown}")
        _require_distinct(self.labels)
        if (self.runtime.kind == EXTERNAL) != (self.decoder == EXTERNAL):
            raise ValueError("runtime external needs decoder external, and no other has it")
        if (self.runtime.kind == "motion") != (self.decoder == "blobs"):
            raise ValueError(
                f"runtime {self.runtime.kind} cannot be combined with decoder {self.decoder}: "
                "motion needs blobs, onnx and torch need a network's decoder"
            )
        if self.is_external:
            return self
        tiling = self.preprocess.tiling
        if tiling and tiling.merge.kind == "union" and DECODERS[self.decoder].masks:
            raise ValueError("tiling.merge.kind union does not support masks: use suppress")
        return self

    @property
    def is_external(self) -> bool:
        """Return whether another tool made the results; such a version has no weights and cannot be run."""
        return self.runtime.kind == EXTERNAL

    @functools.cached_property
    def class_thresholds(self) -> tuple[float, ...]:
        """Return the score from which each label is shown by default, in label order."""
        own, default = self.thresholds.per_label, self.thresholds.default
        return tuple(own.get(label, default) for label in self.labels)


class CropConfig(Frozen):
    """Fields of every model of crops: one row of numbers for an image or a crop, without decoder or suppression."""

    kind: Literal["classifier", "embedder"]
    runtime: Annotated[OnnxRuntime | TorchRuntime, Field(discriminator="kind")]
    preprocess: Preprocess = Preprocess(resize="stretch", side_px=224)
    batch: Batch = Batch()
    licence: str = ""
    source: str = ""
    description: str = ""

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        spec = self.preprocess
        if spec.tiling or spec.resize == "rect" or spec.jpeg_shrink > 1:
            raise ValueError(f"crops of {self.kind}s have one size: preprocess cannot use tiling, rect or jpeg_shrink")
        return self


class ClassifierConfig(CropConfig):
    """config.json of a classifier: one score per label."""

    kind: Literal["classifier"]  # pyright: ignore[reportIncompatibleVariableOverride]  it is frozen
    labels: tuple[str, ...] = Field(min_length=2)
    scores: Literal["logits", "probabilities"] = Field(
        default="logits", description="output of the graph: before its softmax, or after"
    )
    lineage: tuple[str, ...] = Field(
        default=(),
        description="taxa of each label, in label order: separated by ;, coarsest first; empty where unknown",
    )

    @model_validator(mode="after")
    def _consistent(self) -> ClassifierConfig:
        _require_distinct(self.labels)
        if self.lineage and len(self.lineage) != len(self.labels):
            raise ValueError(
                f"lineage needs one entry per label, '' where unknown: {len(self.labels)} labels, "
                f"{len(self.lineage)} lineages"
            )
        return self


class EmbedderConfig(CropConfig):
    """config.json of an embedder: one vector, and no labels."""

    kind: Literal["embedder"]  # pyright: ignore[reportIncompatibleVariableOverride]  it is frozen
    size: int = Field(ge=2, le=16384, description="numbers of a vector")
    output: str = Field(default="", description="output of the graph with the vectors; empty: its only one")

    @property
    def labels(self) -> tuple[str, ...]:
        return ()


AnyConfig = ModelConfig | ClassifierConfig | EmbedderConfig
KINDS: dict[str, type[ModelConfig] | type[ClassifierConfig] | type[EmbedderConfig]] = {
    "detector": ModelConfig,
    "classifier": ClassifierConfig,
    "embedder": EmbedderConfig,
}


def with_article(kind: str) -> str:
    """Return the kind of a model as `a detector`, `an embedder`."""
    return f"an {kind}" if kind == "embedder" else f"a {kind}"


def _require_distinct(labels: tuple[str, ...]) -> None:
    if len(set(labels)) != len(labels):
        repeated = sorted({x for x in labels if labels.count(x) > 1})
        raise ValueError(f"duplicate labels: {repeated}")


def parse_config(text: str | bytes, where: str) -> AnyConfig:
    """Parse config.json. Raises ModelRefused with the file and each invalid field."""
    try:
        value = json.loads(text)
        _require_whole_characters(value, where)
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"{where} is not JSON: {error}") from error
    name: object = cast(dict[str, object], value).get("kind") if isinstance(value, dict) else None
    if name not in (None, *KINDS):
        raise ModelRefused(f"{where}: unknown kind {name!r}: use {', '.join(KINDS)}")
    kind = KINDS[str(name or "detector")]
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ModelRefused(f"{where}: {wrong_fields(error, kind, 'config')}") from error


def _require_whole_characters(value: object, where: str) -> None:
    """Raise ModelRefused for a lone surrogate: JSON can express it, but no UTF-8 file can contain it."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        around = error.object[max(0, error.start - 20) : error.end]
        raise ModelRefused(
            f"{where} contains half a character (a lone surrogate) in {around!r}: write it whole"
        ) from error
