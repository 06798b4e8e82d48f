"""Ray Serve with its own @ray_serve.batch: a JPEG as the body of a POST, its detections as JSON. Started by python.

A small cluster of its own: as many processors as there are cores, a temporary folder, no dashboard.
"""

# pyright: reportMissingImports=false
# (runs in an environment of its own)

import asyncio
import os
import socket
import tempfile


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


SCRATCH = tempfile.gettempdir()  # by TMPDIR its own, and short: a socket has 97 characters for its path
# so that nothing clashes with another cluster here; Serve reads them when it is imported
os.environ |= {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{SCRATCH}/haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{SCRATCH}/admin.sock",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{SCRATCH}/metrics.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": SCRATCH,
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{SCRATCH}/server-state",
    "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
    "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
}

import ray  # noqa: E402
from detector import Detector  # noqa: E402
from ray import serve as ray_serve  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import JSONResponse  # noqa: E402

CORES = int(os.environ["PEER_CORES"])
BATCH = int(os.environ["BATCH"])


@ray_serve.deployment(
    # advanced-guides/performance: "reserving one or more cores for your deployment replicas", and as many replicas
    num_replicas=CORES,
    ray_actor_options={"num_cpus": 1},
    # advanced-guides/dyn-req-batch: Serve itself warns when fewer than max_batch_size may come in
    max_ongoing_requests=100,
    # monitoring, "Configure Serve logger": no line for each request
    logging_config={"enable_access_log": False},
)
class Detect:
    def __init__(self) -> None:
        self.detector = Detector(os.environ["PEER_MODEL"])

    @ray_serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=float(os.environ["WAIT_S"]))
    async def batch(self, jpegs: list[bytes]) -> list[list[dict]]:
        # advanced-guides/asyncio-best-practices: what holds the processor goes to a thread, off the event loop
        return await asyncio.to_thread(self.detector.batch, jpegs)

    # the plain request of Starlette, which costs less than FastAPI's ingress
    async def __call__(self, request: Request) -> JSONResponse:
        try:
            return JSONResponse({"detections": await self.batch(await request.body())})
        except ValueError as error:
            return JSONResponse({"detail": str(error)}, 422)


if __name__ == "__main__":
    ray.init(num_cpus=CORES, include_dashboard=False, _temp_dir=f"{SCRATCH}/ray")
    ray_serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PEER_PORT"])})
    ray_serve.run(Detect.bind(), route_prefix="/detect", blocking=True)
