"""A job that does no work: `python -m tests.batch.jobs.waiting_job --here --run-id ID --how HOW`.

It prints `began`, then `waits` for SIGTERM, `fails` or `ends` at once.
"""

from __future__ import annotations

import sys
import time
from typing import Annotated

import structlog
import typer

from batch.jobs.entry import Here, begin, run_job
from model_store.errors import NothingWorked
from serve.settings import Settings


def main(run_id: Annotated[str, typer.Option("--run-id")], how: str = "waits", here: Here = False) -> None:
    """Begin like a run."""
    begin(Settings(), here)
    log = structlog.get_logger("resight.test")
    log.info("began", run_id=run_id)
    if how == "fails":
        raise NothingWorked("nothing worked")
    if how == "ends":
        log.info("report", run_id=run_id)
        return
    time.sleep(600)
    sys.exit("it was never stopped")


if __name__ == "__main__":
    run_job(main, "resight.test")
