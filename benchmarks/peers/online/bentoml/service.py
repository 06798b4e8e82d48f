"""BentoML over ONNX Runtime: a JPEG as the body of a POST, its detections as JSON. Started by `bentoml serve`."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# (runs in an environment of its own; the folder has the library's name)

import os
from typing import Any

import bentoml
from bentoml.exceptions import InvalidArgument
from detector import Detector


@bentoml.service(
    # build-with-bentoml/parallelize-requests: a worker is a process, one per core for what is bound by the processor
    workers=int(os.environ["WORKERS"]),
    # reference/bentoml/configurations: how many threads run a synchronous API within a worker
    threads=int(os.environ["THREADS"]),
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Detect:
    def __init__(self) -> None:
        self.detector = Detector(os.environ["PEER_MODEL"])

    # build-with-bentoml/iotypes: a single positional-only input is the body itself
    @bentoml.api(route="/detect")
    def detect(self, jpeg: bytes, /) -> dict[str, Any]:
        try:
            return {"detections": self.detector(jpeg)}
        except ValueError as error:
            raise InvalidArgument(str(error)) from error
