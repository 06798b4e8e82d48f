"""FastAPI over ONNX Runtime: a JPEG as the body of a POST, its detections as JSON. Started by uvicorn."""

# pyright: reportMissingImports=false
# (runs in an environment of its own)

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import anyio.to_thread
from detector import Detector
from fastapi import Body, FastAPI, HTTPException
from fastapi.responses import JSONResponse

models: dict[str, Detector] = {}


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    # fastapi.tiangolo.com/advanced/events: load a model once, before the first request
    models["detector"] = Detector(os.environ["PEER_MODEL"])
    # starlette.dev/threadpool: 40 threads unless one says otherwise; more than the cores that this worker has would
    # take inference and decoding from each other
    anyio.to_thread.current_default_thread_limiter().total_tokens = int(os.environ["THREADS"])
    yield


app = FastAPI(lifespan=lifespan)


# fastapi.tiangolo.com/async: `def` for what blocks, so that it runs in the thread pool and not on the event loop
@app.post("/detect")
def detect(jpeg: Annotated[bytes, Body(media_type="image/jpeg")]) -> JSONResponse:
    try:
        # fastapi.tiangolo.com/advanced/response-directly: what is plain JSON already needs no jsonable_encoder
        return JSONResponse({"detections": models["detector"](jpeg)})
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
