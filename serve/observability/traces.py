"""OpenTelemetry spans of online images, if an exporter is set. Requires the extra `otel`.

OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 -> Traces: a span `detect` or `classify` per image, child of the
caller's span (W3C traceparent), with the children `preprocess`, `queue`, `inference` and `postprocess`.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from model_store.errors import ResightError
from serve.inference.results import Answer, BoxesAnswer, CropAnswer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Traces:
    """Creates spans of finished requests, and exports them in the background. Excess spans are dropped."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("resight")

    @classmethod
    def of_environment(cls) -> Traces | None:
        """Return None if no endpoint is set. Raises ResightError if the extra `otel` is missing."""
        if not any(os.environ.get(name) for name in ENDPOINTS):
            return None
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise ResightError(
                f"{' or '.join(ENDPOINTS)} is set, but {error.name} is missing: pip install "
                "'resight[otel]', or unset it"
            ) from error
        name = os.environ.get("OTEL_SERVICE_NAME", "resight")
        provider = TracerProvider(resource=Resource.create({"service.name": name}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    def answered(self, what: str, began_ns: int, request_id: str, answer: Answer | CropAnswer | BoxesAnswer) -> None:
        """Record an image that has just been answered; `began_ns` is a time of time.time_ns."""
        from opentelemetry.trace import set_span_in_context

        attributes = {key: value for key, value in answer.facts().items() if value is not None}
        span = self._span(what, began_ns, {"request": request_id, "outcome": "ok", **attributes})
        inside, at_ns = set_span_in_context(span), began_ns
        first = ("queue", "preprocess") if answer.waited_first else ("preprocess", "queue")
        for stage in (*first, "inference", "postprocess"):
            ends_ns = at_ns + round(getattr(answer.timings, f"{stage}_ms") * 1e6)
            self._tracer.start_span(stage, inside, start_time=at_ns).end(ends_ns)
            at_ns = ends_ns
        span.end(max(at_ns, time.time_ns()))

    def failed(self, what: str, began_ns: int, request_id: str, model: str, error: BaseException) -> None:
        """Record an image that was not answered; `model` is the requested one."""
        from opentelemetry.trace import StatusCode

        about = {"request": request_id, "outcome": type(error).__name__, "asked": model}
        span = self._span(what, began_ns, about)
        span.set_status(StatusCode.ERROR, str(error)[:300])
        span.end()

    def stop(self) -> None:
        """Export the remaining spans and stop."""
        self._provider.shutdown()

    def _span(self, what: str, began_ns: int, attributes: dict[str, Any]) -> Any:
        from opentelemetry.trace import SpanKind

        return self._tracer.start_span(what, kind=SpanKind.SERVER, attributes=attributes, start_time=began_ns)


class CallerSpans:
    """Middleware that makes the spans of a request children of the caller's span."""

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
