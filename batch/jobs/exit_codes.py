"""Exit codes of commands by error (docs/reference/exit-codes.md has the same table)."""

from __future__ import annotations

from model_store import errors
from model_store.errors import ResightError

EXIT_CODES: dict[type[ResightError], int] = {
    errors.RequestError: 2,
    errors.AccountingOpen: 3,
    errors.NothingWorked: 4,
    errors.RunError: 5,
    errors.ModelError: 6,
    errors.StorageError: 7,
    errors.ClusterError: 8,
    errors.ResightError: 1,
}


def exit_code(error: ResightError) -> int:
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def exit_code_of(name: str) -> int | None:
    """Return the exit code of an error, given the name of its class; None if it is not an error of Resight."""
    kind = getattr(errors, name, None) if name else None
    return exit_code(kind("")) if isinstance(kind, type) else None
