"""Run all checks, and report a check that cannot be completed as a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import duckdb
import pyarrow as pa
from deltalake.exceptions import DeltaError

from archive.delta.tables import Tables
from batch.doctor.finding import Finding
from batch.doctor.models import check_models
from batch.doctor.places import check_leftovers, check_settings, check_uploads
from batch.doctor.runs import check_runs, check_views
from batch.doctor.tables import check_tables
from model_store.errors import ResightError, error_text
from model_store.store import ModelStore
from serve.settings import Settings

_ERRORS = (ResightError, OSError, DeltaError, duckdb.Error, pa.ArrowException)


def diagnose(settings: Settings, digests: bool = False) -> list[Finding]:
    """Return the findings of all checks; writes nothing. Runs and commands may write at the same time.

    With `digests`, every file of the tables is read, and every file of the models hashed. Raises
    StorageUnreachable if the home is not mounted.
    """
    tables, store = Tables(settings.mounted_tables_url), ModelStore(settings.models_url)
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "settings": lambda: check_settings(settings),
        "tables": lambda: check_tables(tables, digests),
        "runs": lambda: check_runs(tables),
        "views": lambda: check_views(tables),
        "models": lambda: check_models(store, digests),
        "uploads": lambda: check_uploads(tables, settings.uploads_url),
        "leftovers": lambda: check_leftovers(settings),
    }
    findings: list[Finding] = []
    for name, check in checks.items():
        try:
            findings.extend(check())
        except _ERRORS as error:
            findings.append(
                Finding(name, name, f"the check failed: {error_text(error)}", "correct this, and check again")
            )
    return findings


def repair_error(finding: Finding) -> str | None:
    """Repair a finding; return why it was not repaired, or None."""
    if finding.repair is None:
        return "it needs a person"
    try:
        finding.repair()
    except _ERRORS as error:
        return error_text(error)
    return None
