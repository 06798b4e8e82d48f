"""What went wrong in a run, inside whatever Ray has wrapped it in; Ray itself is not needed to say it.

an error of a run --recorded--> `failed` or `cancelled` in `runs`, and the error to raise
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from batch.accounting import Counts
from batch.run_log import RunLog
from model_store.errors import ResightError, StorageError


def recorded(
    run_log: RunLog,
    counts: Counts,
    error: BaseException,
    stages: Mapping[str, Any] | None = None,
) -> BaseException:
    """Its words, and where the time had gone, written to the record of the run; what to raise instead: the deliberate
    error, where there is one.
    """
    found = ours(error) or error
    state = "cancelled" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
    with contextlib.suppress(StorageError):  # what went wrong first is told
        run_log.write(state, counts, in_words(found), stages)
    return found


def ours(error: BaseException | None) -> ResightError | None:
    """The deliberate error inside the wrappings of Ray and Ray Data, or None.

    Ray's wrapping of an error is an instance of that error's class too, but says a whole traceback.
    """
    while error is not None:
        cause: BaseException | None = getattr(error, "cause", None)
        if cause is None and isinstance(error, ResightError):
            return error
        error = cause or error.__cause__
    return None


def in_words(error: BaseException) -> str:
    """The message of an error of ours; of any other its kind as well."""
    return str(error) if isinstance(error, ResightError) else f"{type(error).__name__}: {error}"
