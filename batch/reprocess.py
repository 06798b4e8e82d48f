"""The job of a run: `ray job submit --working-dir . -- python -m batch.reprocess --model NAME …`.

`resight reprocess` submits it with `--run-id ID --spec JSON`. It needs a Ray cluster with the `detect` application, or
--here; places come from RESIGHT_* variables. Output: JSON lines, the last one is the report.
"""

from __future__ import annotations

from batch.jobs.entry import LOGGER, DryRun, Here, carry_out, run_job
from batch.runs.options import takes_spec
from batch.runs.spec import RunSpec


@takes_spec(RunSpec, job=True)
def main(spec: RunSpec, dry_run: DryRun = False, here: Here = False) -> None:
    """Run one model version over every image of the scope, and store the results.

    Example: python -m batch.reprocess --model ssdlite-coco --camera deer-north
    """
    carry_out(spec, dry_run, here)


if __name__ == "__main__":
    run_job(main, LOGGER)
