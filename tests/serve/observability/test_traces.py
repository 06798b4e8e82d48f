"""Spans of online images, as a collector gets them."""

from __future__ import annotations

import asyncio
import builtins
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from model_store.errors import ResightError
from serve.api.app import build_http_api
from serve.inference.engine import Engine
from serve.observability.traces import ENDPOINTS, Traces
from serve.settings import DetectArgs
from tests.fixtures_local import motion_store, photo

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """An OTLP/HTTP receiver on loopback."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    found = {a.key: a.value.string_value for a in resource.resource.attributes}
                    collector.services.add(found["service.name"])
                    for scope in resource.scope_spans:
                        collector.spans.extend(scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    yield collector
    collector.stop()


def asked(place: Path, *bodies: bytes) -> list[httpx2.Response]:
    motion_store(place, "1")
    engine = Engine(DetectArgs(models=str(place), workers=1), Traces.of_environment())

    async def ask() -> list[httpx2.Response]:
        await engine.aliases.refresh()
        transport = httpx2.ASGITransport(build_http_api(engine))
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "seven"}
        async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
            path = "/v1/detect?model=blobs"
            return [await client.post(path, content=body, headers=headers) for body in bodies]

    answers = asyncio.run(ask())
    engine.stop()  # exports what is left
    return answers


def text(span: Span) -> dict[str, Any]:
    return {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in span.attributes}


def test_an_image_is_a_span_below_the_caller_s_with_its_stages(tmp_path: Path, collector: Collector) -> None:
    (answer,) = asked(tmp_path, photo("cat"))
    spans = {span.name: span for span in collector.spans}
    assert set(spans) == {"detect", "preprocess", "queue", "inference", "postprocess"}
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    detect = spans.pop("detect")
    assert detect.parent_span_id.hex() == PARENT
    facts = text(detect)
    assert (facts["version"], facts["request"], facts["outcome"]) == ("blobs@1", "seven", "ok")
    assert answer.json()["model"]["weights_sha256"].startswith(facts["weights_sha256"])
    for stage, span in spans.items():
        assert span.parent_span_id == detect.span_id
        took_ms = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
        assert took_ms == pytest.approx(answer.json()["timings_ms"][stage], abs=0.01)
        assert detect.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= detect.end_time_unix_nano
    assert collector.services == {"resight"}


@pytest.mark.parametrize("cores", [1, 64])
def test_stages_lie_in_the_order_in_which_they_came(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr("serve.inference.workers.usable_cores", lambda: cores)  # of which one worker infers
    monkeypatch.setattr("model_store.load.measured_batch", lambda run, most: 1)
    asked(tmp_path, photo("cat"))
    spans = [span for span in collector.spans if span.name != "detect"]
    named = [span.name for span in sorted(spans, key=lambda span: span.start_time_unix_nano)]
    first = ["queue", "preprocess"] if cores == 1 else ["preprocess", "queue"]
    assert named == [*first, "inference", "postprocess"]


def test_what_was_not_answered_is_a_span_that_says_why(tmp_path: Path, collector: Collector) -> None:
    (answer,) = asked(tmp_path, b"no image")
    (span,) = collector.spans
    assert answer.status_code == 415
    assert text(span)["outcome"] == "ImageUnsupported"
    assert span.status.message == answer.json()["detail"]


def test_without_an_endpoint_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    assert Traces.of_environment() is None


def test_an_endpoint_without_the_extra_is_refused_with_the_way_out(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("opentelemetry.exporter.otlp"):
            raise ModuleNotFoundError(name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ResightError, match=r"pip install 'resight\[otel\]'"):
        Traces.of_environment()
