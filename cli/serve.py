"""serve: answer images over HTTP from this process, without a cluster."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from cli.cluster import require_token_beyond_loopback
from cli.models import next_step
from cli.output import note
from model_store.errors import ResightError
from model_store.lazy_imports import lazy_imports
from model_store.names import DEFAULT_ALIAS
from serve.cluster.ports import MAX_PORT, local_url, network_url

with lazy_imports():
    import uvloop

    from archive.delta.arrow_alone import import_arrow_alone
    from archive.delta.tables import Tables
    from batch.api.app import build_runs_api
    from batch.jobs.control import jobs_of
    from batch.schedule.policy import policy_fault
    from model_store.store import ModelStore
    from pages.context import Context
    from pages.http_app import build_pages_app
    from serve.auth.guard import Access
    from serve.cluster.deploy import detect_args
    from serve.cluster.head import token_path
    from serve.embedded.host import EmbeddedHost
    from serve.embedded.server import serve as serve_until_signal
    from serve.log_config import configure_logs
    from serve.models import pools
    from serve.rollout.state import read_state
    from serve.settings import Settings

app = typer.Typer()


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(help="address to listen on; 0.0.0.0 is every interface and needs a token")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=MAX_PORT, help="HTTP port")] = 8000,
) -> None:
    """Serve the models of the store from this process, without Ray: for one machine. Ctrl-C ends it.

    The HTTP API is that of 'resight up', and the folders are the same; stop one to start the other. SIGHUP reads the
    alias files again. It bounds neither the number of connections nor the time of headers: beyond a trusted
    network put a proxy in front of it.

    Example: resight serve --port 8000
    """
    import_arrow_alone("system")
    settings = Settings()
    Tables(settings.new_tables_url)  # raises if uploads and runs could not use the path
    settings.remember_tables()
    require_token_beyond_loopback(settings, host)
    host = "127.0.0.1" if host == "localhost" else host
    args = detect_args(settings, host).model_copy(update={"pools": {}})
    configure_logs()
    token_path(settings)  # as 'resight up' does: `Access.of` requires a token in a home without it
    access = Access.of(settings, args.require_token)
    jobs = jobs_of(settings, here=True)
    others = {
        "/runs": lambda: build_runs_api(settings, jobs, access, args.cors_origins, limits=args.limits),
        "/ui": lambda: build_pages_app(Context.of(settings, lambda: jobs), access, args.cors_origins, args.limits),
    }

    def ready(served: EmbeddedHost) -> None:
        serving = served.engine.serving()
        url = local_url(host, port)
        note(f"serving {', '.join(serving.loaded) or 'no model yet'} at {url}")
        note(f"page    {url}/ui/")
        if elsewhere := network_url(host, port):
            note(f"network {elsewhere}/ui/")
        for label, why in serving.failures.items():
            note(f"not {label}: {why}")
        if fault := policy_fault(settings):
            note(fault)
        if not serving.loaded:
            store = served.engine.store
            fails = [label for label, why in serving.failures.items() if pools.is_error(why)]
            if step := _way_back(store, fails[0]) if fails else next_step(store):
                note(f"next: {step}")

    uvloop.run(serve_until_signal(settings, args, (host, port), others, ready))


def _way_back(store: ModelStore, label: str) -> str | None:
    """Return the command that serves the previous version of an alias again, None without one."""
    name, _, alias = label.partition(":")
    with contextlib.suppress(ResightError):
        state = read_state(store, name).aliases.get(alias)
        if state and state.previous:
            return f"resight models rollback {name}" + ("" if alias == DEFAULT_ALIAS else f" --alias {alias}")
    return None
