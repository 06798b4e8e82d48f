"""`python -m tests.cluster.lethal`: `batch.reprocess` with a stage whose reader dies of some images.

A signal stands for the fault of a decoder: no picture is known that has one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any

from batch.pipeline.detect_stage import DetectStage
from batch.pipeline.read_image import ReadImage, prepare_image
from model_store.config import Preprocess


def read_or_die(row: Mapping[str, Any], spec: Preprocess, max_pixels: int) -> ReadImage:
    """Die of every image whose path has 'lethal' in it."""
    if "lethal" in row["path"]:
        os.kill(os.getpid(), signal.SIGSEGV)
    return prepare_image(row, spec, max_pixels)


class LethalStage(DetectStage):
    """Report of a run in which some images kill their reader."""

    read = staticmethod(read_or_die)


if __name__ == "__main__":
    import batch.pipeline.detect_stage
    from batch.jobs.entry import run_job
    from batch.reprocess import LOGGER, main
    from tests.cluster import lethal

    batch.pipeline.detect_stage.DetectStage = lethal.LethalStage  # type: ignore[misc]
    run_job(main, LOGGER)
