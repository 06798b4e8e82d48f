"""The job: `ray job submit --working-dir . -- python -m batch.embed --model NAME …`.

`resight embed` submits it with `--run-id ID --spec JSON`. Output: JSON lines, the last one is the report.
"""

from __future__ import annotations

from batch.jobs.entry import LOGGER, DryRun, Here, carry_out, run_job
from batch.runs.options import takes_spec
from batch.runs.spec import EmbedSpec


@takes_spec(EmbedSpec, job=True)
def main(spec: EmbedSpec, dry_run: DryRun = False, here: Here = False) -> None:
    """Embed crops of the detections that the published view shows, and store the vectors.

    Example: python -m batch.embed --model megadescriptor --labels animal
    """
    carry_out(spec, dry_run, here)


if __name__ == "__main__":
    run_job(main, LOGGER)
