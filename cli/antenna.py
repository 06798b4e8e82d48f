"""antenna work: process the jobs of an Antenna, the platform for moth traps, with the models of this Resight."""

from __future__ import annotations

import signal
from typing import Annotated, Any

import typer

from cli.follow import INTERRUPTED
from cli.output import note
from cli.rollout import running_client
from model_store.errors import BadRequest, ClusterError
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    import socket
    from threading import Event

    from serve.antenna.worker import AntennaQueue, work
    from serve.client import Client
    from serve.settings import Settings

app = typer.Typer(help="Antenna, the platform for images of moth traps.", no_args_is_help=True)


@app.callback()
def antenna() -> None:
    """Keep `work` a subcommand: Typer would otherwise make it the group itself."""


@app.command("work")
def work_command(
    url: Annotated[str, typer.Option(help="URL of Antenna's API, such as https://HOST/api/v2")],
    token: Annotated[str, typer.Option(envvar="ANTENNA_TOKEN", help="token of an Antenna user")],
    project: Annotated[
        list[int] | None, typer.Option(help="project to which the pipelines are offered first; repeatable")
    ] = None,
    pipeline: Annotated[
        list[str] | None, typer.Option(help="slug of a pipeline to work for; repeatable; default: all served ones")
    ] = None,
    service: Annotated[str, typer.Option(help="name of this worker in Antenna; default: resight and the host")] = "",
    batch: Annotated[int, typer.Option(min=1, max=64, help="images taken at a time")] = 4,
    poll_s: Annotated[float, typer.Option(min=0.1, help="seconds between polls without work")] = 5,
    once: Annotated[bool, typer.Option("--once", help="end as soon as no job has a task")] = False,
) -> None:
    """Take images from Antenna's job queue, process them with the running Resight, and post the results.

    'resight up' or 'resight serve' must run. The first Ctrl-C completes the current batch, the second ends at once.
    Images that cannot be processed now are left to Antenna, which sends them again.

    Example: resight antenna work --url https://antenna.example.org/api/v2 --project 7
    """
    stop = Event()
    queue = AntennaQueue(url, token, stop)
    with _resight(Settings()) as resight:
        pipelines = resight.antenna_info()["pipelines"]
        slugs = _slugs([str(one["slug"]) for one in pipelines], pipeline or [])
        for number in project or []:
            queue.register(number, service or f"resight ({socket.gethostname()})", pipelines)
            note(f"project {number}: {len(pipelines)} pipelines offered")
        note(f"working for {', '.join(slugs)}; Ctrl-C ends after the current batch")
        previous = signal.signal(signal.SIGINT, lambda *_: _end(stop))
        try:
            tally = work(queue, resight, slugs, stop, batch, poll_s, once, note)
        finally:
            signal.signal(signal.SIGINT, previous)
    note(f"{tally.images} images, {tally.failed} failed")
    if stop.is_set():
        raise typer.Exit(INTERRUPTED)


def _end(stop: Any) -> None:
    """End after the current batch; at the second call, at once."""
    if stop.is_set():
        raise KeyboardInterrupt
    stop.set()


def _slugs(served: list[str], wanted: list[str]) -> list[str]:
    if not (wanted or served):
        raise ClusterError("no pipeline is served: promote a detector with 'resight models promote'")
    if unknown := [slug for slug in wanted if "," in slug]:
        raise BadRequest(f"invalid pipeline '{unknown[0]}': repeat --pipeline for each slug")
    return wanted or served


def _resight(settings: Settings) -> Client:
    client = running_client(settings)
    if client is None:
        raise ClusterError("no Resight is running: start one with 'resight serve' or 'resight up'")
    return client
