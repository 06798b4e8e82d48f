"""Stages that fail or die, for the processes of a run on this machine."""

from __future__ import annotations

import os
import signal
from typing import Any

import pyarrow as pa

from batch.pipeline.detect_stage import DetectStage
from batch.pipeline.stage import Stage, StageProcess


class Broken(DetectStage):
    """It has a bug."""

    def rows(self, planned: pa.Table) -> pa.Table:
        raise ZeroDivisionError(f"{len(planned)} rows")


class DiesAtStart(DetectStage):
    """Its model crashes while it is loaded."""

    def __init__(self, process: StageProcess, *arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)
        super().__init__(process, *arguments)


class DiesAlways(Stage):
    """Each of its chunks kills its process, and no careful reading helps."""

    def __init__(self, process: StageProcess, *_: Any) -> None:
        super().__init__(process)

    def rows(self, planned: pa.Table) -> pa.Table:
        os.kill(os.getpid(), signal.SIGKILL)
        return planned
