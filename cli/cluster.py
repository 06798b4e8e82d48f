"""The commands `up, down, status, env`: the Ray cluster of this machine."""

from __future__ import annotations

import contextlib
import shlex
import signal
from queue import Empty, SimpleQueue
from typing import Annotated, Any

import typer

from cli.models import next_step
from cli.output import Format, FormatOption, note, print_facts
from model_store.errors import BadRequest, ClusterError, ModelNotReady, ResightError, StorageError
from model_store.lazy_imports import lazy_imports
from serve.cluster.ports import LOOPBACK, MAX_PORT, Ports, network_url

with lazy_imports():
    import httpx2

    from archive.delta.tables import Tables
    from archive.views.query import archives
    from batch.jobs.control import jobs_of
    from batch.schedule.policy import policy_fault
    from model_store.store import ModelStore
    from serve.api.models import rollout_words
    from serve.auth.tokens import TokenFile
    from serve.client import Client
    from serve.cluster.deploy import application_status, deploy, require_dashboard
    from serve.cluster.head import ClusterState, client_environment, join, places, read_state, start, stop
    from serve.embedded.home_lock import served_at
    from serve.models import pools
    from serve.settings import Settings

app = typer.Typer()
POLL_S = 5


@app.command()
def up(
    host: Annotated[
        str | None,
        typer.Option(help="address to listen on; 0.0.0.0 is every interface and needs a token; default: 127.0.0.1"),
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=MAX_PORT, help="HTTP port; default: 8000")] = None,
    ray_port: Annotated[
        int, typer.Option(min=0, max=MAX_PORT, help="port of Ray; if it is taken, another free port")
    ] = 6379,
    dashboard_port: Annotated[
        int, typer.Option(min=0, max=MAX_PORT, help="port of Ray's dashboard; if it is taken, another free port")
    ] = 8265,
    object_store_mib: Annotated[int, typer.Option(min=75, help="shared memory for chunks of images, in MiB")] = 1024,
    block: Annotated[
        bool, typer.Option(help="keep running: SIGHUP reloads the alias files, SIGTERM stops the cluster")
    ] = False,
    fmt: FormatOption = Format.table,
) -> None:
    """Start Ray on this machine and serve the models of the store. Safe to repeat.

    If a cluster of this home is up, another --host or --port than its own is an error. So is another place of the
    models, tables, uploads or tokens.

    The field `ready` lists the models that answer, and why others do not. Exit code 6 if a model fails; the cluster
    keeps running.

    Example: resight up --port 8000
    """
    settings = Settings()
    Tables(settings.new_tables_url)  # raises if uploads and runs could not use the path
    host = "127.0.0.1" if host == "localhost" else host
    state = read_state(settings)
    if state:
        _require_place(settings, state, host, port)
    settings.remember_tables()
    free_host = "127.0.0.1" if host is None else host
    require_token_beyond_loopback(settings, state.host if state else free_host)
    started = False  # stays so if another 'resight up' starts it at the same time

    def starting() -> None:
        nonlocal started
        started = True
        note("starting Ray …")

    if state is None:
        ModelStore(settings.models_url).names()  # raises if it cannot be read: Serve's own error would not name it
        ports = Ports(port or 8000, ray_port, dashboard_port)
        state = start(settings, ports, free_host, object_store_mib, starting)
        _require_place(settings, state, host, port)
    if fault := policy_fault(settings):
        note(fault)
    join(settings)
    note("deploying serve/app.yaml …")
    try:
        deploy(settings, state, note)
    except BaseException:
        if started:  # leave nothing half started; the logs stay
            note(f"stopping Ray; its logs are in {state.logs}")
            stop(settings)
        raise
    if not started:
        with contextlib.suppress(ResightError), Client(state.reachable_url, settings.token) as client:
            client.reload()  # else `ready` could report what failed before a repair
    _, words, fails = _ready(state.reachable_url)
    here, elsewhere = state.reachable_url, network_url(state.host, state.http_port)
    facts = {"page": f"{here}/ui/", "endpoint": here, "docs": f"{here}/docs"}
    facts |= {"network": f"{elsewhere}/ui/"} if elsewhere else {}
    print_facts(facts | {"ready": words}, fmt)
    if pools.NO_MODEL in words:
        note(f"next: {next_step(ModelStore(settings.models_url))}")
    if block:
        _stay(settings, state)
    elif fails:
        raise ModelNotReady(f"the cluster is up, but a model fails: {fails}")


def _require_place(settings: Settings, state: ClusterState, host: str | None, port: int | None) -> None:
    """Raise BadRequest if the running cluster has another address than requested, or other places."""
    now = places(settings)
    kept = state.places or now
    others = "".join(f" with {name}={kept[name]}" for name in now if kept[name] != now[name])
    if others or host not in (None, state.host) or port not in (None, state.http_port):
        raise BadRequest(
            f"a cluster of {settings.home_path} is up at {state.endpoint}{others}; to move it: resight down, then "
            "resight up again. For a second one, set RESIGHT_HOME to another folder"
        )


def require_token_beyond_loopback(settings: Settings, host: str) -> None:
    """Raise BadRequest if no token exists and other machines could send requests."""
    if host not in LOOPBACK and not (settings.token.strip() or TokenFile.of(settings).read()):
        raise BadRequest(
            f"listening on {host} needs a token: export RESIGHT_TOKEN=$(openssl rand -hex 32), or run "
            "resight tokens add NAME --scope detect"
        )


def _stay(settings: Settings, state: ClusterState) -> None:
    """Block until the cluster ends or a signal stops it. Raises ClusterError if Ray ends by itself."""
    received: SimpleQueue[int] = SimpleQueue()  # macOS lacks sigtimedwait
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: received.put(number))
    while read_state(settings) == state:
        try:
            number = received.get(timeout=POLL_S)
        except Empty:
            continue
        if number != signal.SIGHUP:
            note("stopping …")
            stop(settings)
            return
        try:
            with Client(state.reachable_url, settings.token) as client:
                client.reload()
            note("every replica has reloaded the alias files")
        except ResightError as error:
            note(f"reload failed: {error}")
    raise ClusterError(f"Ray has ended; see its log {settings.logs_path / 'ray.log'}")


@app.command()
def down(fmt: FormatOption = Format.table) -> None:
    """Stop the cluster that 'resight up' started, and no other. Tables and models are kept.

    Its runs are ended, and named. Example: resight down
    """
    settings = Settings()
    runs: set[str] = set()
    if state := read_state(settings):
        with contextlib.suppress(ClusterError):  # it does not answer
            require_dashboard(state.dashboard_url)  # waits less than Ray's client
            runs = jobs_of(settings).running()
    stopped = stop(settings)
    for run in sorted(runs):
        note(f"run {run} was ended; committed results are kept: to continue, run the same command again")
    if endpoint := served_at(settings):
        note(f"'resight serve' serves this home at {endpoint}: stop it with Ctrl-C or SIGTERM")
    if fmt is Format.table:
        note("stopped" if stopped else f"nothing was running for the home {settings.home_path}")
    else:
        print_facts({"stopped": stopped}, fmt)


@app.command()
def status(fmt: FormatOption = Format.table) -> None:
    """Show folders, addresses and what is running. Exit code 1 if the detectors do not answer.

    Exit code 7, after the same output, if the tables cannot be read.
    Example: resight status --format json
    """
    settings = Settings()
    facts: dict[str, Any] = {
        "home": str(settings.home_path),
        "models": settings.models_url,
        "tables": settings.tables_url,
        "uploads": settings.uploads_url,
        "snips": settings.snips_url,
        "logs": str(settings.logs_path),
        "tokens": TokenFile.of(settings).words(),
        "policy": policy_fault(settings) or _policy(settings),
        "rollout": _rollout(settings),
        "archives": None,
        "cluster": "down",
    }
    unreadable: StorageError | None = None
    try:
        of_all = archives(Tables(settings.mounted_tables_url)).items()
        facts["archives"] = {root: files for root, files in of_all if files}  # not those that were retired
    except StorageError as error:
        unreadable = error
    state = read_state(settings)
    ready = False
    if endpoint := served_at(settings):
        ready, words, _ = _ready(endpoint)
        facts |= {"served_by": "resight serve", "endpoint": endpoint, "ready": words}
    elif state or settings.address:
        join(settings)
        dashboard = state.dashboard_url if state else settings.address
        applications = application_status(dashboard)
        facts |= {"cluster": "up", "ray_dashboard": dashboard}
        facts |= {f"app_{name}": app.get("status") for name, app in applications.items()}
        if state:
            ready, words, _ = _ready(state.reachable_url)
            facts |= {"endpoint": state.endpoint, "ray_address": state.gcs_address}
            facts |= {"ray_logs": state.logs, "ready": words}
        else:
            ready = bool(applications) and all(app.get("status") == "RUNNING" for app in applications.values())
    print_facts(facts, fmt)
    if unreadable:
        raise unreadable
    if not ready:
        raise typer.Exit(1)


@app.command()
def env(fmt: FormatOption = Format.table) -> None:
    """Print shell variables with which Ray's own commands connect to this cluster.

    Example: eval "$(resight env)"; ray job list
    """
    variables = client_environment(Settings())
    if fmt is not Format.table:
        print_facts(variables, fmt)
        return
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")


def _policy(settings: Settings) -> str:
    return str(settings.policy_path) + ("" if settings.policy_path.exists() else " (not there: the defaults hold)")


def _rollout(settings: Settings) -> str:
    """Return canaries, shadows and pins as text, or why they cannot be read."""
    store = ModelStore(settings.models_url)
    try:
        words = rollout_words(store, store.names())
    except ResightError as error:
        return str(error)
    return "; ".join(f"{version}: {roles}" for version, roles in words.items()) or "none"


def _ready(url: str) -> tuple[bool, str, str]:
    """Return whether the detectors answer, a text that explains it, and the failing models or an empty text."""
    try:
        answer = httpx2.get(f"{url}/readyz", timeout=10)
    except httpx2.HTTPError as error:
        return False, f"no: {error}", ""
    try:
        body = answer.json()
        if answer.status_code == 200:
            failures = [f"{at}: {why.removeprefix(f'{at}: ')}" for at, why in body.get("failures", {}).items()]
            fails = "; ".join(words for words in failures if pools.PENDING not in words)
            not_ready = "".join(f"; not {words}" for words in failures)
            return True, "yes: " + ", ".join(body["loaded"]) + not_ready, fails
        detail = str(body["detail"])
        fails = detail if pools.is_error(detail) else ""
        return False, f"no: {detail}", fails
    except (ValueError, KeyError, TypeError):  # the error page of a proxy
        return False, f"no: {answer.status_code} {answer.text[:500]}", ""
