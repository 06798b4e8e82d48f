"""The S3 proxy that obeys a fault: it ends the driver at a PUT, loses the answer, or says that it is busy.

The driver writes its fault to the file `orders` just before the commit that is to fail; the first PUT of that
commit which fits is the one. Requests of all others pass.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.batch.crash.faults import SIGNALS
from tests.s3_proxy import ROOT, _handler

BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@contextlib.contextmanager
def faulty_s3(upstream: str, orders: Path, careless: bool = False) -> Iterator[str]:
    """URL of the proxy, which runs in its own process."""
    words = [sys.executable, "-m", "tests.batch.crash.s3_faults", upstream, str(orders)]
    process = subprocess.Popen([*words, "careless" if careless else ""], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait(10)


def obeying(upstream: str, orders: Path, careless: bool) -> Any:
    class Obey(_handler(upstream, "", careless)):  # type: ignore[misc]  # a class made there
        disable_nagle_algorithm = True  # the body of an answer waits for nobody to have its head

        def do_PUT(self) -> None:  # noqa: N802  # its name in http.server
            order = self._order()
            if order is None:
                return self.forward()
            if order["act"] == "busy" and order["point"] != "ack":
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                return self._busy()
            if order["act"] in SIGNALS and order["point"] != "ack":
                os.kill(order["pid"], SIGNALS[order["act"]])
                if order["act"] == "kill":
                    self.close_connection = True
                    return None
            answer, self.wfile = self.wfile, io.BytesIO()
            self.forward()
            said, self.wfile = self.wfile.getvalue(), answer
            if order["act"] == "busy":
                return self._busy()
            if order["act"] == "lose":
                self.close_connection = True
                return None
            if order["point"] == "ack":
                os.kill(order["pid"], SIGNALS[order["act"]])
            self.wfile.write(said)
            return None

        def _order(self) -> dict[str, Any] | None:
            """The fault, if this is the PUT for it; it is forgotten once it has been obeyed."""
            if not orders.exists():
                return None
            order: dict[str, Any] = json.loads(orders.read_text())
            log = f"/{order['table']}/_delta_log/" in self.path
            if f"/{order['table']}/" not in self.path or log == (order["point"] == "data"):
                return None
            order["times"] -= 1
            if order["times"]:
                orders.write_text(json.dumps(order))
            else:
                orders.unlink()
            return order

        def _busy(self) -> None:
            self.send_response_only(503)
            self.send_header("Content-Length", str(len(BUSY)))
            self.end_headers()
            self.wfile.write(BUSY)

    return Obey


if __name__ == "__main__":
    upstream, orders, careless = sys.argv[1:]
    server = ThreadingHTTPServer(("127.0.0.1", 0), obeying(upstream, Path(orders), bool(careless)))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who was killed hears nothing
    print(server.server_port, flush=True)
    server.serve_forever()
