"""Prometheus metrics of a replica, by model and version, and the observer that counts, traces and logs its requests.

Metrics.answered / failed / batch -> registry of this replica -> exposition(): its text
texts of all replicas -> merged(): one text, with the label `replica` on each sample

Times are in seconds, as is usual for Prometheus.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from model_store.errors import ResightError
from model_store.names import MAX_QUOTED, VersionId
from model_store.store import ModelInfo
from model_store.transform.thresholds import least_scores, shown
from serve.inference.batcher import Lane
from serve.inference.results import STAGES, Answer, BoxesAnswer, CropAnswer, TensorAnswer
from serve.models.resolver import ResolvedModel
from serve.observability.traces import Traces

if TYPE_CHECKING:
    from serve.inference.engine import Engine

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SCORES = tuple(i / 10 for i in range(1, 11))
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
MODEL = ("model", "version")
AnyAnswer = Answer | CropAnswer | BoxesAnswer | TensorAnswer
log = structlog.get_logger("resight.serve")


class Metrics:
    """Metrics of one replica. Methods may be called from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"resight_{name}", about, labels, registry=self.registry)

        def histogram(name: str, about: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"resight_{name}", about, labels, buckets=buckets, registry=self.registry)

        self._requests = counter("requests", "Online images, by outcome", *MODEL, "outcome")
        about = "Time of an online image in each stage; inference and postprocess are of its batch"
        self._stages = histogram("stage_seconds", about, SECONDS, *MODEL, "stage")
        self._batches = histogram("batch_size", "Images of a batch that have a result", SIZES, *MODEL)
        self._bulk = counter("bulk_images", "Images of archive runs", *MODEL)
        about = "Uploaded images: kept, and whether their rows were recorded"
        self._uploads = counter("uploads", about, "outcome")
        for outcome in ("kept", "recorded", "unrecorded"):
            self._uploads.labels(outcome)  # create the series at the start: an alert compares them
        about = "Detections in online answers, at the model's own thresholds"
        self._detections = counter("detections", about, *MODEL, "label")
        about = "Scores of all detections of online images, from the model's floor up"
        self._scores = histogram("detection_score", about, SCORES, *MODEL)

    def answered(self, answer: AnyAnswer) -> None:
        """Count the online images, boxes, or rows of a raw tensor, that a model has answered."""
        who = (answer.model.name, answer.model.version)
        self._requests.labels(*who, "ok").inc(answer.rows)
        if isinstance(answer, TensorAnswer) or not answer.rows:
            return
        for stage in STAGES:
            took_ms = getattr(answer.timings, f"{stage}_ms")
            self._stages.labels(*who, stage).observe(took_ms / 1e3)
        if isinstance(answer, Answer):
            scores, found = self._scores.labels(*who), answer.detections
            for score in found.scores.tolist():
                scores.observe(score)
            for class_id in shown(found, least_scores(answer.detector.config)).class_ids.tolist():
                self._detections.labels(*who, answer.model.labels[class_id]).inc()

    def failed(self, model: ModelInfo | None, outcome: str) -> None:
        """Count an online image that was not answered; `model` is None if the request did not resolve to one."""
        who = (model.name, model.version) if model else ("", "")
        self._requests.labels(*who, outcome).inc()

    def bulk(self, model: ModelInfo, images: int) -> None:
        self._bulk.labels(model.name, model.version).inc(images)

    def uploaded(self, outcome: str) -> None:
        """Count an upload as kept, and some seconds later as recorded or unrecorded."""
        self._uploads.labels(outcome).inc()

    def batch(self, version: VersionId, images: int) -> None:
        self._batches.labels(version.name, version.version).observe(images)


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


Sample = tuple[dict[str, str], float]


def _family(name: str, about: str, kind: str, *samples: Sample) -> Metric:
    """Return a metric; `samples` are labels and value."""
    metric = Metric(f"resight_{name}", about, kind)
    for labels, value in samples:
        metric.add_sample(f"{metric.name}_total" if kind == "counter" else metric.name, labels, value)
    return metric


def engine_state(engine: Engine) -> Iterator[Metric]:
    """Yield the current state of an engine."""
    depths = [({"lane": lane.value}, engine.batcher.depth(lane)) for lane in Lane]
    yield _family("lane_depth", "Images waiting", "gauge", *depths)
    aliases_of = engine.aliases.table.aliases_of
    loaded = [
        ({"model": version.name, "version": version.version, "aliases": ",".join(aliases_of(version))}, 1)
        for version in engine.models.names
    ]
    yield _family("loaded_versions", "1 for a version in memory", "gauge", *loaded)
    failures = ({}, len(engine.aliases.errors))
    yield _family("failing_aliases", "Aliases that do not serve the version that is set", "gauge", failures)
    images, boxes, shift = list[Sample](), list[Sample](), list[Sample]()
    for (active, candidate), counts in engine.shadows.tallies.items():
        who, agreement = (
            {"model": active.name, "version": active.version, "shadow": candidate.version},
            counts.agreement,
        )
        outcomes = {"compared": agreement.images, "dropped": counts.dropped, "failed": counts.failed}
        images += [(who | {"outcome": outcome}, count) for outcome, count in outcomes.items()]
        kinds = ("matched", "label_flips", "only_active", "only_candidate")
        boxes += [(who | {"kind": kind}, getattr(agreement, kind)) for kind in kinds]
        shift.append((who, agreement.score_shift_abs))
    yield _family("shadow_images", "Images for a shadow: compared, dropped or failed", "counter", *images)
    yield _family("shadow_boxes", "Boxes of active version and shadow", "counter", *boxes)
    yield _family("shadow_score_shift", "Sum of absolute score differences over matched boxes", "counter", *shift)


def exposition(metrics: Metrics, engine: Engine) -> str:
    """Return the metrics of this replica in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Families(engine_state(engine)))
    return (generate_latest(metrics.registry) + generate_latest(registry)).decode()


def merged(texts: Mapping[str, str], swaps: Mapping[tuple[str, str], int], refused: int = 0) -> str:
    """Merge the metrics of all replicas, `texts` by replica name, into one text.

    `swaps` counts operations by kind and outcome; `refused` is the number of aliases with a file that the rollout does
    not follow.
    """
    families: dict[str, Metric] = {}
    for replica, text in sorted(texts.items()):
        for family in text_string_to_metric_families(text):
            target = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                if not sample.name.endswith("_created"):
                    labels = {**sample.labels, "replica": replica}
                    target.add_sample(sample.name, labels, sample.value)
    counts = [({"kind": kind, "outcome": outcome}, count) for (kind, outcome), count in sorted(swaps.items())]
    rollouts = _family("rollouts", "Operations, by kind and outcome", "counter", *counts)
    about = "Aliases with a file that the rollout does not follow"
    registry = CollectorRegistry()
    registry.register(
        _Families([*families.values(), rollouts, _family("refused_aliases", about, "gauge", ({}, refused))])
    )
    return generate_latest(registry).decode()


class RequestKind(NamedTuple):
    """A kind of request: its events in the log, and the name of its span, or "" if it has none."""

    answered: str
    failed: str
    span: str


DETECT = RequestKind("detected", "not_detected", "detect")
CLASSIFY = RequestKind("classified", "not_classified", "classify")
EMBED = RequestKind("embedded", "not_embedded", "embed")
INFER = RequestKind("inferred", "not_detected", "")


@dataclass(slots=True)
class Observation:
    """A request while it is answered, which sets both fields."""

    model: ResolvedModel | None = None
    answer: AnyAnswer | None = None


class Observer:
    """Writes the metrics, the traces (if any) and the log of a replica."""

    def __init__(self, metrics: Metrics, traces: Traces | None) -> None:
        self._metrics, self._traces = metrics, traces

    @contextlib.contextmanager
    def request(self, kind: RequestKind, ref: str, request_id: str, **fields: int) -> Iterator[Observation]:
        """Observe the request that the block answers; `fields` are added to the log of its answer."""
        observation, began_ns = Observation(), time.time_ns()
        traces = self._traces if kind.span else None
        try:
            yield observation
        except BaseException as error:
            model = self._failed(kind.failed, ref, observation.model, request_id, error)
            if traces:
                traces.failed(kind.span, began_ns, request_id, model, error)
            raise
        answer = observation.answer
        assert answer is not None
        self._metrics.answered(answer)
        if traces and not isinstance(answer, TensorAnswer):
            traces.answered(kind.span, began_ns, request_id, answer)
        log.info(kind.answered, request=request_id, **fields, **answer.facts())

    @contextlib.contextmanager
    def failures(self, ref: str | ResolvedModel, request_id: str) -> Iterator[None]:
        """Count and log any error of the block; not for places and requests, which count theirs."""
        try:
            yield
        except BaseException as error:
            name, model = (ref, None) if isinstance(ref, str) else ("", ref)
            self._failed(INFER.failed, name, model, request_id, error)
            raise

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Count the errors of the block, which comes before there is an image, or stores one that was answered."""
        try:
            yield
        except ResightError as error:
            self._metrics.failed(None, type(error).__name__)
            raise

    def _failed(self, event: str, ref: str, model: ResolvedModel | None, request_id: str, error: BaseException) -> str:
        """Count and log a request that was not answered; return the resolved version, or else the reference."""
        info, outcome = model.model.info if model else None, type(error).__name__
        name = str(info.id) if info else ref[:MAX_QUOTED]
        self._metrics.failed(info, outcome)
        log.info(event, request=request_id, model=name, outcome=outcome)
        return name
