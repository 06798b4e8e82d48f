"""What one writes in a hurry, and the negative control: it must come out clearly worse than FastAPI done well.

Everything blocks the event loop, in one worker, and every request loads the model anew, with ONNX Runtime's own
choice of threads. The server, the libraries and their versions are those of ../fastapi.
"""

# pyright: reportMissingImports=false
# (runs in an environment of its own)

import os

from detector import Detector
from fastapi import FastAPI, HTTPException, Request

app = FastAPI()


@app.post("/detect")
async def detect(request: Request) -> dict[str, list[dict]]:
    jpeg = await request.body()
    detector = Detector(os.environ["PEER_MODEL"], threads=0)
    try:
        return {"detections": detector(jpeg)}
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
