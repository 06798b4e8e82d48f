"""The kinds of scope that a run may have (`batch/scope.py`). Imports no library, so that help is fast."""

from __future__ import annotations

from typing import Literal

ScopeKind = Literal["all", "latest-per-camera", "camera", "time", "path", "label", "status", "ids"]
