"""OpenTelemetry spans of online images, where an exporter is named; nothing otherwise.

OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 -> Traces: a span `detect` or `classify` an image, below the
caller's own (W3C traceparent); below it `preprocess`, `queue`, `inference`, `postprocess`. Needs the extra `otel`.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from model_store.errors import ResightError
from serve.answers import Answer, ClassAnswer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Traces:
    """Ends spans when all of them is known; exports in the background, and drops what is too much."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("resight")

    @classmethod
    def of_environment(cls) -> Traces | None:
        """None where no endpoint is named. Raises ResightError without the extra `otel`."""
        if not any(os.environ.get(name) for name in ENDPOINTS):
            return None
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise ResightError(
                f"{' or '.join(ENDPOINTS)} is set, and {error.name} is missing: pip install "
                "'resight[otel]', or unset it"
            ) from error
        name = os.environ.get("OTEL_SERVICE_NAME", "resight")
        provider = TracerProvider(resource=Resource.create({"service.name": name}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    def answered(
        self, began_ns: int, request_id: str, answer: Answer | ClassAnswer, what: str = "detect"
    ) -> None:
        """An image that was answered now; `began_ns` on time.time_ns's clock."""
        from opentelemetry.trace import set_span_in_context

        timings = answer.timings
        attributes = {key: value for key, value in answer.facts().items() if value is not None}
        span = self._span(what, began_ns, {"request": request_id, "outcome": "ok", **attributes})
        inside, at_ns = set_span_in_context(span), began_ns
        for stage in stages(answer):
            ends_ns = at_ns + round(getattr(timings, f"{stage}_ms") * 1e6)
            self._tracer.start_span(stage, inside, start_time=at_ns).end(ends_ns)
            at_ns = ends_ns
        span.end(max(at_ns, time.time_ns()))

    def refused(
        self,
        began_ns: int,
        request_id: str,
        asked: str,
        error: BaseException,
        what: str = "detect",
    ) -> None:
        from opentelemetry.trace import StatusCode

        outcome = type(error).__name__
        about = {"request": request_id, "outcome": outcome, "asked": asked}
        span = self._span(what, began_ns, about)
        span.set_status(StatusCode.ERROR, str(error)[:300])
        span.end()

    def stop(self) -> None:
        """Export what is left."""
        self._provider.shutdown()

    def _span(self, what: str, began_ns: int, attributes: dict[str, Any]) -> Any:
        from opentelemetry.trace import SpanKind

        return self._tracer.start_span(
            what, kind=SpanKind.SERVER, attributes=attributes, start_time=began_ns
        )


def stages(answer: Answer | ClassAnswer) -> tuple[str, ...]:
    """In the order in which they happened."""
    first = ("queue", "preprocess") if answer.waited_first else ("preprocess", "queue")
    return (*first, "inference", "postprocess")


class Incoming:
    """Middleware: spans of a request lie below the caller's."""

    def __init__(self, app: ASGIApp) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.app, self._propagator = app, TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from opentelemetry import context

        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        token = context.attach(self._propagator.extract(Headers(scope=scope)))
        try:
            await self.app(scope, receive, send)
        finally:
            context.detach(token)
