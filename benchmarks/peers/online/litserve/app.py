"""LitServe over ONNX Runtime: a JPEG as the body of a POST, its detections as JSON. Started by python."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# (runs in an environment of its own; the folder has the library's name)

import os
from typing import Annotated

import litserve as ls
import numpy as np
from detector import Detector
from fastapi import Body, HTTPException

BATCH = int(os.environ["BATCH"])


class Detect(ls.LitAPI):
    """LitServe's own order: decode_request, batch, predict, unbatch, encode_response, all in the worker."""

    def setup(self, device: str) -> None:
        self.detector = Detector(os.environ["PEER_MODEL"])

    # a type of FastAPI's in place of `Request` hands over the body as it is; `Request` would want JSON or a form
    def decode_request(
        self, request: Annotated[bytes, Body(media_type="image/jpeg")]
    ) -> tuple[np.ndarray, tuple[int, int]]:
        try:
            return self.detector.prepare(request)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error

    # lightning.ai/docs/litserve/features/batching: called only when max_batch_size is over 1
    def batch(self, inputs: list) -> tuple[np.ndarray, list]:
        return np.stack([tensor for tensor, _ in inputs]), [size_px for _, size_px in inputs]

    def predict(self, x: tuple) -> tuple:
        tensors, sizes_px = x if BATCH > 1 else (x[0][None], [x[1]])
        return self.detector.infer(tensors), sizes_px

    def unbatch(self, output: tuple) -> list:
        return [((raw,), (size_px,)) for raw, size_px in zip(*output, strict=True)]

    def encode_response(self, output: tuple) -> dict[str, list[dict]]:
        (raw,), (size_px,) = output
        return {"detections": self.detector.detections(raw, size_px)}


if __name__ == "__main__":
    server = ls.LitServer(
        Detect(max_batch_size=BATCH, batch_timeout=float(os.environ["WAIT_S"]), api_path="/detect"),
        accelerator="cpu",
        devices=1,
        # LitServer's docstring: "For CPU, set to the number of cores available on the machine"
        workers_per_device=int(os.environ["PEER_CORES"]),
        # the same: ZeroMQ "when serving hundreds of requests per second"
        fast_queue=os.environ["FAST_QUEUE"] == "1",
    )
    # LitServer.run: as many API servers as workers is the recommended default; "warning" is "good for production"
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PEER_PORT"]),
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
