"""Count, trace and log each request of a replica once: with its answer, or with its error."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from model_store.errors import ResightError
from model_store.names import MAX_QUOTED
from serve.inference.results import Answer, ClassAnswer, TensorAnswer
from serve.models.resolver import ResolvedModel
from serve.observability.metrics import Metrics
from serve.observability.traces import Traces

log = structlog.get_logger("resight.serve")


class RequestKind(NamedTuple):
    """A kind of request: its events in the log, and the name of its span, or "" if it has none."""

    answered: str
    failed: str
    span: str


DETECT = RequestKind("detected", "not_detected", "detect")
CLASSIFY = RequestKind("classified", "not_classified", "classify")
INFER = RequestKind("inferred", "not_detected", "")


@dataclass(slots=True)
class Observation:
    """A request while it is answered, which sets both fields."""

    model: ResolvedModel | None = None
    answer: Answer | ClassAnswer | TensorAnswer | None = None


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
        """Count the errors of the block, which comes before there is an image."""
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
