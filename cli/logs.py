"""The command `logs`: print the logs of the cluster of this machine and of its runs, also after it has ended."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cli.output import note
from model_store.errors import BadRequest, ClusterError
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
    own = OwnJobs(settings, "").log_files(run) if run else []
    folder = own[0].parent if own else cluster_logs.logs_folder(settings)
    if run is None:
        tail = cluster_logs.LogTail(lambda: cluster_logs.cluster_files(folder))
    else:
        files = [*own, *_of_cluster(settings, run, required=not own)]
        tail = cluster_logs.LogTail(lambda: files)
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


def _of_cluster(settings: Settings, run: str, required: bool) -> list[Path]:
    """Return the logs of a run's jobs on the cluster. Raises BadRequest or ClusterError if they are `required`."""
    try:
        return cluster_logs.run_files(settings, run)
    except (BadRequest, ClusterError):
        if required:
            raise
        return []
