"""Serve an application from this process until a signal; only one host at a time serves a home.

SIGTERM and SIGINT end it after the requests that it has accepted, SIGHUP reads the alias files again. During the start,
the first two end it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Awaitable, Callable, Generator, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
import uvicorn

from model_store.errors import ClusterError
from serve.api.base import ENDING
from serve.cluster.head import read_state
from serve.cluster.ports import local_url, require_free, start_lock
from serve.embedded.home_lock import home_lock
from serve.embedded.host import EmbeddedHost
from serve.settings import DetectArgs, Settings

END_S = 60
"""Seconds for accepted requests to end, as in a cluster (`serve/app.py`)."""
IDLE_S = 10
"""Seconds for the next request of a connection to start."""
log = structlog.get_logger("resight.serve")

Asgi = Callable[[MutableMapping[str, Any], Callable[..., Any], Callable[..., Any]], Awaitable[None]]


async def serve(
    settings: Settings,
    args: DetectArgs,
    address: tuple[str, int],
    mounted: Mapping[str, Callable[[], Asgi]],
    ready: Callable[[EmbeddedHost], None],
) -> None:
    """Serve the detectors at /, and `mounted` applications by their prefixes; call `ready` before the first answer.

    The functions of `mounted` make their applications on a thread, after `ready`: detections do not wait for them.
    Raises ClusterError if the address is in use, or another host serves this home; StorageUnreachable.
    """
    loop, reload_wanted = asyncio.get_running_loop(), asyncio.Event()
    ending: asyncio.Future[None] = loop.create_future()
    # also while the host starts
    loop.add_signal_handler(signal.SIGHUP, reload_wanted.set)
    for received in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(received, ending.cancel)
    with sole_host(settings, local_url(*address)):
        require_free(*address, "serve")
        host = EmbeddedHost(settings, args)
        try:
            starting = asyncio.ensure_future(host.start())
            ending.add_done_callback(lambda _: starting.cancel())
            await asyncio.wait([starting])
            if ending.cancelled():
                loop.set_default_executor(ThreadPoolExecutor())  # the end does not wait for a store that hangs
                return
            starting.result()
            others = asyncio.ensure_future(asyncio.to_thread(_make, mounted))
            server = _Server(
                _config(cancelled_with_client(_together(host.application(), tuple(mounted), others, ending)), address)
            )
            ending.add_done_callback(lambda _: setattr(server, "should_exit", True))
            ready(host)
            reloading = loop.create_task(reload_when(reload_wanted, host))
            others.add_done_callback(lambda made: _end_if_failed(made, server))
            await server.serve()
            reloading.cancel()
            await others
        finally:
            await host.close()


async def reload_when(wanted: asyncio.Event, host: EmbeddedHost) -> None:
    """Read the alias files again each time `wanted` is set."""
    while True:
        await wanted.wait()
        wanted.clear()
        try:
            await host.reload()
        except Exception as error:  # the next signal tries again
            log.warning("reload_failed", error=str(error))


@contextlib.contextmanager
def sole_host(settings: Settings, endpoint: str) -> Generator[None]:
    """Hold the home for this process. Raises ClusterError if a cluster or another process serves it."""
    with contextlib.ExitStack() as held:
        with start_lock():  # 'resight up' starts under it
            if state := read_state(settings):
                raise ClusterError(
                    f"a cluster serves {settings.home_path} at {state.endpoint}: stop it with 'resight down'"
                )
            held.enter_context(home_lock(settings, endpoint))
        yield


class _Server(uvicorn.Server):
    """A server without uvicorn's signal handlers, which would end the process before the rows are committed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def _config(application: Asgi, address: tuple[str, int]) -> uvicorn.Config:
    return uvicorn.Config(
        application,  # pyright: ignore[reportArgumentType]
        host=address[0],
        port=address[1],
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=END_S,
    )


def cancelled_with_client(app: Asgi) -> Asgi:
    """Return the application, with requests that are cancelled if their client disconnects, as in a cluster.

    Without it, the images of clients that do not wait any more would occupy the queue.
    """

    async def application(
        scope: MutableMapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]
    ) -> None:
        request: Any = asyncio.current_task()
        gone, answered, watcher = asyncio.Event(), False, None

        async def watch() -> None:
            await receive()  # after the body: returns once the client is gone, or has its answer
            gone.set()
            if not answered:
                request.cancel()

        async def received() -> Any:
            nonlocal watcher
            if watcher is not None:
                await gone.wait()
                return {"type": "http.disconnect"}
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                watcher = asyncio.create_task(watch())
            return message

        async def sent(message: MutableMapping[str, Any]) -> None:
            nonlocal answered
            answered = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        try:
            await app(scope, received, sent)
        except asyncio.CancelledError:
            if not gone.is_set():
                raise
        finally:
            if watcher is not None:
                watcher.cancel()

    return application


def _make(makers: Mapping[str, Callable[[], Asgi]]) -> dict[str, Asgi]:
    made = {prefix: make() for prefix, make in makers.items()}
    gc.freeze()  # as a replica of a cluster does
    return made


def _end_if_failed(made: asyncio.Future[dict[str, Asgi]], server: uvicorn.Server) -> None:
    """End a server that lacks an application; `serve` then raises its error."""
    if made.cancelled() or made.exception():
        server.should_exit = True


def _together(
    detect: Asgi, prefixes: Sequence[str], others: asyncio.Future[dict[str, Asgi]], ending: asyncio.Future[None]
) -> Asgi:
    async def application(
        scope: MutableMapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]
    ) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        prefix = next((at for at in prefixes if f"{path}/".startswith(f"{at}/")), None)
        if prefix is None:
            await detect(scope, receive, send)
        else:
            application = (await asyncio.shield(others))[prefix]
            await application({**scope, "root_path": prefix, ENDING: ending}, receive, send)

    return application
