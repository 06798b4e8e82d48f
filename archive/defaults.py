"""Names and defaults that the command line shows in its help. Imports nothing, so that help is fast."""

from __future__ import annotations

TABLE_NAMES = (
    *("media", "results", "runs", "assertions", "layers", "decisions", "exports", "snips"),
    "classifications",
)
RELATIONS = (
    *("media", "images", "results", "detections", "runs", "all_results", "all_detections"),
    *("assertions", "decisions", "exports", "snips", "views", "layers", "classifications"),
    *("hidden", "orphaned", "events", "occurrences"),
)
PRODUCTION = "production"
"""The view of queries that name none."""
DEFAULT_TEMPLATE = "{camera}/{rest}"
MAX_MIB = 512
"""Default limit of a file, and the limit of all that are read at the same time, except a larger one alone."""
MIN_FILES = 64
KEEP_DAYS = 90.0
"""What was shown in so many days can be shown again."""
MAX_CAMERAS = 5_000
