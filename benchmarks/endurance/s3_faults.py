"""An S3 proxy that obeys the fault of the moment, which its file `orders` names; "" forwards all requests.

python -m benchmarks.endurance.s3_faults UPSTREAM ORDERS     prints its port

s3_slow: each answer is a second late.  s3_refuse: 503 SlowDown.  s3_hang: no answer while the fault lasts.
s3_lie: every other request is carried out and answered 503.  s3_lose: every other one is carried out, its answer lost.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.batch.crash.s3_faults import BUSY
from tests.s3_proxy import ROOT, _handler

SLOW_S, LOOK_S = 1.0, 0.2


@contextlib.contextmanager
def faulty_s3(upstream: str, orders: Path) -> Iterator[str]:
    """Run the proxy in its own process; yield its URL."""
    orders.write_text("")
    words = [sys.executable, "-m", "benchmarks.endurance.s3_faults", upstream, str(orders)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait(10)


def obeying(upstream: str, orders: Path) -> Any:
    count = itertools.count()
    forwarding: Any = _handler(upstream, "", careless=False)

    class Obey(forwarding):
        disable_nagle_algorithm = True

        def obey(self) -> None:
            order, is_even = orders.read_text(), next(count) % 2 == 0
            if order == "s3_refuse":
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                return self._busy()
            if order == "s3_slow":
                time.sleep(SLOW_S)
            while order == "s3_hang" and orders.read_text() == order:
                time.sleep(LOOK_S)
            if order not in ("s3_lie", "s3_lose") or is_even:
                return self.forward()
            client, self.wfile = self.wfile, io.BytesIO()
            self.forward()
            self.wfile = client
            if order == "s3_lie":
                return self._busy()
            self.close_connection = True
            return None

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = obey  # noqa: N815

        def _busy(self) -> None:
            self.send_response_only(503)
            self.send_header("Content-Length", str(len(BUSY)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(BUSY)

    return Obey


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), obeying(sys.argv[1], Path(sys.argv[2])))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that were killed
    print(server.server_port, flush=True)
    server.serve_forever()
