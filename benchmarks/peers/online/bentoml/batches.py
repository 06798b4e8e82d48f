"""The same with adaptive batching: Detect takes requests, Batches runs the model on what they ask for together."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# (runs in an environment of its own; the folder has the library's name)

import os
from typing import Any

import bentoml
from detector import Detector


# get-started/adaptive-batching, "Architecture": the service that runs the model collects what others ask it for
@bentoml.service(workers=int(os.environ["WORKERS"]), logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Batches:
    def __init__(self) -> None:
        self.detector = Detector(os.environ["PEER_MODEL"])

    # max_latency_ms stays at its 60 s: it is how late an answer may be before it is refused, not how long to wait
    @bentoml.api(batchable=True, max_batch_size=int(os.environ["BATCH"]))
    def batch(self, jpegs: list[bytes]) -> list[dict[str, Any]]:
        return [{"detections": found} for found in self.detector.batch(jpegs)]


@bentoml.service(logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Detect:
    batches = bentoml.depends(Batches)

    @bentoml.api(route="/detect")
    async def detect(self, jpeg: bytes, /) -> dict[str, Any]:
        return (await self.batches.to_async.batch([jpeg]))[0]
