"""moto's S3 server in a process of its own, with one write at a time: moto checks `If-None-Match` without a lock.

`python -m tests.support.s3_server PORT [HOST]` is that process. In the tests' own process delta-rs would wait for
itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import httpx2

from serve.cluster.ports import preferred_or_free

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}
START_S = 60


@contextmanager
def s3_server() -> Iterator[str]:
    """Run the server; returns its URL. Raises RuntimeError if it does not start within 60 s."""
    port = preferred_or_free(0)
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.s3_server", str(port)],
        env=os.environ | {"MOTO_PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url)
        yield url
    finally:
        server.terminate()
        server.wait(10)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            httpx2.get(url, timeout=2)
            return
        except httpx2.HTTPError:
            time.sleep(0.2)
    raise RuntimeError(f"{url} did not come up")


def new_bucket(endpoint: str, folder: str) -> str:
    """Create a bucket; return the URL of a folder in it."""
    name = f"b{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=name)
    return f"s3://{name}/{folder}"


def one_write_at_a_time(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Return a WSGI app whose conditional writes are atomic, as those of S3 are."""
    writing = threading.Lock()

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return app(environ, start_response)
        with writing:
            return app(environ, start_response)

    return answer


def serve(port: int, host: str) -> None:
    from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
    from werkzeug.serving import run_simple

    # without the dispatcher to all services of AWS: it lists the folder of their modules at each request
    app = one_write_at_a_time(create_backend_app("s3"))
    run_simple(host, port, app, threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1")
