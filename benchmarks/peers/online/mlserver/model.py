"""MLServer over ONNX Runtime: a JPEG by the V2 protocol, or as the body of a POST; its detections as JSON."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# (runs in an environment of its own; the folder has the library's name)

import json
import os

from detector import Detector
from fastapi import Body
from mlserver import MLModel
from mlserver.codecs import Base64Codec, StringCodec
from mlserver.errors import InferenceError
from mlserver.handlers import custom_handler
from mlserver.types import InferenceRequest, InferenceResponse


class Detect(MLModel):
    """user-guide/custom: load and predict. All of it happens in a process of the inference pool."""

    async def load(self) -> bool:
        self.detector = Detector(os.environ["PEER_MODEL"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        # with adaptive batching those of several requests, else one
        jpegs = Base64Codec.decode_input(payload.inputs[0])
        try:
            found = [json.dumps(detections) for detections in self.detector.batch(jpegs)]
        except ValueError as error:
            raise InferenceError(str(error)) from error
        output = StringCodec.encode_output("detections", found, use_bytes=False)
        return InferenceResponse(model_name=self.name, outputs=[output])

    # outside of the protocol and of its batches, as MLServer's own runtime for MLflow does it: spares base64
    @custom_handler(rest_path="/detect")
    async def detect(self, jpeg: bytes = Body(media_type="image/jpeg")) -> dict:
        try:
            return {"detections": self.detector(jpeg)}
        except ValueError as error:
            raise InferenceError(str(error)) from error
