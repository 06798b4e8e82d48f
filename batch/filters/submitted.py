"""Submit filter runs as one job of the cluster: all requested runs in their order, or none.

FilterSpecs -> <tables>/filter_runs/<run_id>.json, because lists can be long -> `python -m batch.filters --run-id …`
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Sequence

from pydantic import ValidationError

from batch.filters.spec import FilterSpec
from batch.jobs.submit import submit_job
from batch.planning.id_list import keep_ids
from model_store.errors import BadRequest, StorageUnreachable
from model_store.storage import Folder
from serve.settings import Settings

MODULE = "batch.filters"
_FOLDER = "filter_runs"


def submit_filters(specs: Sequence[FilterSpec], settings: Settings) -> str:
    """Submit the runs as one job; return its id. Raises ClusterError, BadRequest, StorageError."""
    for spec in specs:
        keep_ids(settings.tables_url, spec.scope.ids)
        keep_spec(settings.tables_url, spec)
    arguments = [word for spec in specs for word in ("--run-id", spec.run_id)]
    return submit_job(MODULE, specs[0].run_id, arguments, settings)


def start_here(specs: Sequence[FilterSpec], settings: Settings) -> str:
    """Start the runs in one process of this machine, without a cluster; return its name. Raises StorageError.

    It continues if this process ends. Its log is HOME/logs/filters-RUN_ID.log.
    """
    for spec in specs:
        keep_ids(settings.tables_url, spec.scope.ids)
        keep_spec(settings.tables_url, spec)
    words = [word for spec in specs for word in ("--run-id", spec.run_id)]
    try:
        settings.logs_path.mkdir(parents=True, exist_ok=True)
        with (settings.logs_path / f"filters-{specs[0].run_id}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, "--here", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise StorageUnreachable(f"cannot start the run: {error}") from error
    threading.Thread(target=process.wait, daemon=True).start()  # otherwise it stays as a zombie
    return f"process {process.pid}"


def keep_spec(tables_url: str, spec: FilterSpec) -> None:
    """Store the spec once. Raises StorageUnreachable, StorageUnsafe."""
    with contextlib.suppress(FileExistsError):  # the same spec: ids are unique
        Folder(tables_url).create(_file(spec.run_id), spec.model_dump_json().encode())


def read_spec(tables_url: str, run_id: str) -> FilterSpec:
    """Return a stored spec. Raises BadRequest if the run was not requested, StorageUnreachable."""
    try:
        return FilterSpec.model_validate_json(Folder(tables_url).read(_file(run_id)))
    except (FileNotFoundError, ValidationError) as error:
        raise BadRequest(
            f"{tables_url}/{_file(run_id)} is not a filter run: {error}; start one with resight filters run"
        ) from error


def _file(run_id: str) -> str:
    return f"{_FOLDER}/{run_id}.json"
