"""The command `logs`: print the logs of the cluster of this machine and of its runs, also after it has ended."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cli.output import note
from model_store.errors import BadRequest
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    from batch.jobs import cluster_logs
    from batch.jobs.own_jobs import OwnJobs
    from serve.embedded.home_lock import served_at
    from serve.settings import Settings

app = typer.Typer()
POLL_S = 0.5


@app.command()
def logs(
    run: Annotated[
        str | None, typer.Option("--run", help="id of a run: print the logs of its jobs; see 'resight runs list'")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="number of existing lines to print, the newest")] = 200,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="print new lines as they are written, until Ctrl-C")
    ] = False,
) -> None:
    """Print the logs of detectors, proxy and controller, newest last, also after the cluster has ended.

    Times are UTC. Example: resight logs --follow
    """
    settings = Settings()
    if run is None and served_at(settings):
        note("'resight serve' serves this home, and writes its log to its own terminal")
    own: list[Path] = []
    files: list[Path] = []
    if run is not None:
        own = OwnJobs(settings, "").log_files(run)
        files = [*own, *cluster_logs.run_files(settings, run)]
        if not files:
            raise BadRequest(f"no log of run '{run}' on this machine; see: resight runs list, resight runs log {run}")
    folder = files[0].parent if files else cluster_logs.logs_folder(settings)
    tail = cluster_logs.LogTail(lambda: files or cluster_logs.cluster_files(folder))
    lines = tail.look()[-most:]
    while True:
        for line in lines:
            typer.echo(f"{line.at[:23] or '-':23} {line.source}  {line.text}")
        if not follow:
            break
        time.sleep(POLL_S)
        lines = tail.look()
    if own:
        note(f"log files of runs on this machine: {folder}")
        return
    note(f"other log files of Ray: {folder}; log of its start: {settings.logs_path / 'ray.log'}")
