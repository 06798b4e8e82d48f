"""V2 over HTTP. MLServer's REST server takes no binary tensors (SeldonIO/MLServer#324), so the JPEG goes as base64.

A BYTES tensor of one element, four characters for three bytes; a tensor of pixels would take 16 for each.
"""

import base64
import json
from typing import Any

BEFORE = b'{"inputs":[{"name":"jpeg","shape":[1,1],"datatype":"BYTES","parameters":{"content_type":"base64"},"data":["'


def request(jpeg: bytes) -> tuple[str, dict[str, str], bytes]:
    body = BEFORE + base64.b64encode(jpeg) + b'"]}]}'
    return "/v2/models/detect/infer", {"content-type": "application/json"}, body


def detections(answer: bytes) -> list[dict[str, Any]]:
    return json.loads(json.loads(answer)["outputs"][0]["data"][0])
