"""The specs of submitted filter runs: <tables>/filter_runs/<run_id>.json, because lists in them can be long."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from pydantic import ValidationError

from batch.filters.spec import FilterSpec
from batch.planning.id_list import keep_ids
from model_store.errors import BadRequest
from model_store.storage import Folder

MODULE = "batch.filters"
"""Module of the job that executes them, which reads their specs."""
_FOLDER = "filter_runs"


def keep_specs(tables_url: str, specs: Sequence[FilterSpec]) -> None:
    """Store specs, with the lists that their scopes name. Raises StorageUnreachable, StorageUnsafe."""
    for spec in specs:
        keep_ids(tables_url, spec.scope.ids)
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
