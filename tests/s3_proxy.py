"""An HTTP proxy in front of the S3 test server, in which two writers meet, or which is careless.

Careless, it drops `If-None-Match`, as servers do that do not know it. It runs in its own process, because
delta-rs may hold this one's interpreter while it waits for an answer.
"""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOO_LATE_S = 30


@contextlib.contextmanager
def s3_proxy(upstream: str, careless: bool, meet: str = "") -> Iterator[str]:
    """The proxy's URL, which AWS_ENDPOINT_URL names meanwhile; file systems made before are forgotten.

    Two writers of the file `meet` are both let through once both have come.
    """
    from s3fs import S3FileSystem

    words = [sys.executable, "-m", "tests.s3_proxy", upstream, meet, *(["careless"] if careless else [])]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", url)
            S3FileSystem.clear_instance_cache()
            yield url
    finally:
        S3FileSystem.clear_instance_cache()
        process.kill()
        process.wait(10)


def main(upstream: str, meet: str, careless: bool) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(upstream, meet, careless))
    server.daemon_threads = True
    print(server.server_port, flush=True)
    server.serve_forever()


def _handler(upstream: str, meet: str, careless: bool) -> type[BaseHTTPRequestHandler]:
    place = urlsplit(upstream)
    both = threading.Barrier(2)

    class Forward(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            dropped = {"connection"} | ({"if-none-match"} if careless else set())
            headers = {k: v for k, v in self.headers.items() if k.lower() not in dropped}
            if meet and self.command == "PUT" and self.path.partition("?")[0].endswith(meet):
                with contextlib.suppress(threading.BrokenBarrierError):
                    both.wait(TOO_LATE_S)
            connection = http.client.HTTPConnection(place.netloc, timeout=60)
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
            connection.close()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Forward


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "careless" in sys.argv[3:])
