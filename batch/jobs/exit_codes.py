"""Exit codes by error (docs/reference/exit-codes.md has the same table), and errors of libraries as ours."""

from __future__ import annotations

from model_store import errors
from model_store.errors import ResightError
from model_store.lazy_imports import lazy_imports

with lazy_imports():
    import duckdb

    from archive.delta.snapshot import is_of_storage
    from archive.delta.tables import table_error
    from archive.views.query import out_of_memory
    from model_store.storage_errors import is_full, storage_error

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


def error_of_library(error: Exception) -> ResightError | None:
    """Return what a library reports about memory, a full disk, or a missing or damaged file as our error, else None."""
    if isinstance(error, duckdb.OutOfMemoryException):
        return out_of_memory(error)
    if is_of_storage(error) or is_full(error):
        return (storage_error if isinstance(error, OSError) else table_error)("read or write a file", error)
    return None


def exit_code_of(name: str) -> int | None:
    """Return the exit code of an error, given the name of its class; None if it is not an error of Resight."""
    kind = getattr(errors, name, None) if name else None
    return exit_code(kind("")) if isinstance(kind, type) else None
