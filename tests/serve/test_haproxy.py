"""Ray's HAProxy with our settings: the configuration that Ray renders, its own binary, and hostile clients."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil
import pytest

from serve import node_environment
from serve.cluster.ports import InnerPorts, inner_ports, preferred_or_free
from serve.inference.engine import Engine
from serve.node_environment import haproxy_environment, max_connections, unavailable_answer
from tests.serve.hostile import CAT, DETECT, Live, engine_in, serving

LIMIT_S = 20.0
HEADERS = 4200
"""More than the places of HAProxy by default."""
RENDER = """
import sys
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig, get_haproxy_binary
from ray.serve.config import HTTPOptions

port, backend = map(int, sys.argv[1:])
options = HTTPOptions(host="127.0.0.1", port=port)
api = HAProxyApi(HAProxyConfig(http_options=options, is_head=True))
server = ServerConfig("one", "127.0.0.1", backend)
api.set_backend_configs({"b": BackendConfig("b", "/", servers=[server], http_health_check_path="/healthz")})
api._generate_config_file_internal()
print(api.config_file_path, get_haproxy_binary())
"""
PORT, BACKEND, INNER = 61_001, 61_002, InnerPorts(62_000)
"""Ports in a rendered configuration, replaced by free ones."""
Answer = Callable[[socket.socket], None]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass(frozen=True)
class Proxy:
    """A running HAProxy."""

    port: int
    process: psutil.Process

    def cpu_s(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system


@contextlib.contextmanager
def proxied(folder: Path, backend_port: int, **more: str) -> Iterator[int]:
    """Yield the port of an HAProxy in front of a backend."""
    with proxy(folder, backend_port, **more) as started:
        yield started.port


@contextlib.contextmanager
def proxy(folder: Path, backend_port: int, **more: str) -> Iterator[Proxy]:
    port = preferred_or_free(0)
    template, config, binary = rendered(node_environment.HEADERS_S, tuple(more.items()))
    shutil.copytree(template, folder, dirs_exist_ok=True)
    words = {str(template): str(folder), str(PORT): str(port), str(BACKEND): str(backend_port)}
    inner = inner_ports().serve_environment()
    words |= {rendered: inner[name] for name, rendered in INNER.serve_environment().items()}
    (folder / config).write_text(
        re.sub("|".join(words), lambda found: words[found[0]], (template / config).read_text())
    )
    process = subprocess.Popen([binary, "-db", "-dR", "-f", str(folder / config)], stderr=subprocess.DEVNULL)
    try:
        ends = time.monotonic() + LIMIT_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert process.poll() is None, "HAProxy does not take its configuration"
            assert time.monotonic() < ends
            time.sleep(0.05)
        yield Proxy(port, psutil.Process(process.pid))
    finally:
        process.kill()
        process.wait()


@functools.cache
def rendered(headers_s: int, more: tuple[tuple[str, str], ...]) -> tuple[Path, str, str]:
    """Return a folder with Ray's configuration, its name, and the path of HAProxy. Rendering takes seconds."""
    folder = Path(tempfile.mkdtemp(prefix="resight-haproxy-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-c", RENDER, str(PORT), str(BACKEND)],
        env=os.environ | haproxy_environment(folder) | INNER.serve_environment() | dict(more),
        capture_output=True,
        text=True,
        check=True,
    )
    config, binary = done.stdout.split()[-2:]
    return folder, str(Path(config).relative_to(folder)), binary


@contextlib.contextmanager
def backend(answer: Answer) -> Iterator[int]:
    """Yield the port of a server that handles each connection with `answer`, and then closes it."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=one, args=(connection,), daemon=True).start()

        def one(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                head = connection.recv(65536)
                if head.startswith(b"GET /healthz"):
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                else:
                    answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = engine_in(tmp_path_factory.mktemp("haproxy"))
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def live(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A replica's API behind HAProxy; this process may open as many files as it is allowed."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node_environment, "HEADERS_S", 120)  # nothing ends while a test lasts
        for behind in serving(engine):
            with proxied(tmp_path_factory.mktemp("proxy"), behind.port) as port:
                yield Live(port, engine)


def test_unfinished_headers_keep_nobody_out(live: Live) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(HEADERS):
            sender = opened.enter_context(live.connect())
            sender.sendall(b"GET /healthz HTTP/1.1\r\nx: 1\r\n")
        address = f"http://127.0.0.1:{live.port}"
        with httpx2.Client(base_url=address, timeout=LIMIT_S) as http:
            assert http.get("/healthz").status_code == 200
            assert http.post(DETECT, content=CAT).status_code == 200


def test_a_connection_without_a_request_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_environment, "HEADERS_S", 1)

    def answer(connection: socket.socket) -> None:
        connection.sendall(OK)

    with backend(answer) as behind, proxied(tmp_path, behind) as port:
        whole = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
        for words in (b"", whole[:-2], whole, whole + whole[:5]):
            with socket.create_connection(("127.0.0.1", port), LIMIT_S) as idle:
                idle.sendall(words)
                while idle.recv(65536):
                    pass  # a timeout would be raised


def test_an_answer_that_nobody_reads_is_ended(tmp_path: Path) -> None:
    ended = threading.Event()

    def answer(connection: socket.socket) -> None:
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n" + bytes(99_999_999))
        except OSError:
            ended.set()

    short = {"RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "1"}
    with contextlib.ExitStack() as opened:
        behind = opened.enter_context(backend(answer))
        port = opened.enter_context(proxied(tmp_path, behind, **short))
        with socket.create_connection(("127.0.0.1", port), LIMIT_S) as unread:
            unread.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert ended.wait(LIMIT_S)


def test_a_client_that_hangs_up_costs_nothing(tmp_path: Path) -> None:
    """A spliced request whose client has gone keeps a thread of HAProxy busy for as long as its server waits."""
    ended = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while connection.recv(65536):
                time.sleep(0.01)
        ended.wait(LIMIT_S)

    with backend(answer) as behind, proxy(tmp_path, behind) as started:
        for _ in range(8):
            with socket.create_connection(("127.0.0.1", started.port)) as leaves:
                leaves.sendall(f"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {len(CAT)}\r\n\r\n".encode() + CAT)
                time.sleep(0.2)
        before = started.cpu_s()
        time.sleep(2)
        used = started.cpu_s() - before
        ended.set()
    assert used < 0.1


@pytest.mark.parametrize("gone", ["while it answers", "before"])
def test_a_replica_that_is_gone_is_a_503_to_repeat(tmp_path: Path, gone: str) -> None:
    with backend(lambda connection: None) as behind:
        place = behind if gone == "while it answers" else preferred_or_free(0)
        with proxied(tmp_path, place) as port:
            answer = httpx2.post(f"http://127.0.0.1:{port}/v1/detect", content=CAT, timeout=LIMIT_S)
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["type"] == "urn:resight:no-replica"
    assert answer.content == unavailable_answer().partition(b"\r\n\r\n")[2]


def test_a_replica_that_dies_after_another_answer_is_a_503(tmp_path: Path) -> None:
    """HAProxy closes the client's connection without an answer if it has used its own for another request before."""
    is_first = threading.Lock()

    def answer(connection: socket.socket) -> None:
        if is_first.acquire(blocking=False):
            connection.sendall(OK)
            connection.recv(65536)  # the second request, if it comes over the same connection

    with contextlib.ExitStack() as opened:
        behind = opened.enter_context(backend(answer))
        port = opened.enter_context(proxied(tmp_path, behind))
        http = opened.enter_context(httpx2.Client(timeout=LIMIT_S))
        url = f"http://127.0.0.1:{port}/v1/detect"
        assert [http.post(url, content=CAT).status_code for _ in range(2)] == [200, 503]


def test_a_replica_gets_a_request_once_its_body_is_there(tmp_path: Path) -> None:
    requests: list[socket.socket] = []

    def answer(connection: socket.socket) -> None:
        requests.append(connection)
        connection.sendall(OK)

    with contextlib.ExitStack() as opened:
        behind = opened.enter_context(backend(answer))
        port = opened.enter_context(proxied(tmp_path, behind))
        slow = opened.enter_context(socket.create_connection(("127.0.0.1", port), LIMIT_S))
        slow.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{")
        assert httpx2.get(f"http://127.0.0.1:{port}/", timeout=LIMIT_S).status_code == 200
        assert len(requests) == 1
        slow.sendall(b"}")
        assert slow.recv(65536).startswith(b"HTTP/1.1 200")
        assert len(requests) == 2


@pytest.mark.parametrize(("files", "expected"), [(20_000, 7880), (resource.RLIM_INFINITY, 16_384)])
def test_as_many_connections_as_the_open_files_allow(
    monkeypatch: pytest.MonkeyPatch, files: int, expected: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (min(files, 1024), files))
    assert max_connections() == expected
