"""The job: `ray job submit --working-dir . -- python -m batch.classify --model NAME …`.

`resight classify` submits it with `--run-id ID --spec JSON`. Output: JSON lines, the last one is the report.
"""

from __future__ import annotations

from batch.jobs.entry import LOGGER, DryRun, Here, carry_out, run_job
from batch.runs.options import takes_spec
from batch.runs.spec import ClassifySpec


@takes_spec(ClassifySpec, job=True)
def main(spec: ClassifySpec, dry_run: DryRun = False, here: Here = False) -> None:
    """Classify crops of the detections that the published view shows, and store the results.

    Example: python -m batch.classify --model efficientnet-lite0 --labels animal
    """
    carry_out(spec, dry_run, here)


if __name__ == "__main__":
    run_job(main, LOGGER)
