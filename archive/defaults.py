"""Names and defaults that the help of the command line shows. Imports nothing, so that help is fast."""

from __future__ import annotations

TABLE_NAMES = (
    *("media", "results", "runs", "assertions", "layers", "decisions", "exports", "snips"),
    *("classifications", "embeddings", "deployments", "individuals"),
)
RELATIONS = (
    *("media", "images", "results", "detections", "runs", "all_results", "all_detections"),
    *("assertions", "decisions", "exports", "snips", "views", "layers", "classifications"),
    *("embeddings", "hidden", "orphaned", "events", "occurrences", "clips", "deployments", "image_deployments"),
    *("individuals", "sightings"),
)
PRODUCTION = "production"
"""Default view of queries."""
DEFAULT_TEMPLATE = "{camera}/{rest}"
MAX_MIB = 512
"""Default size limit of a file, and limit of all files read concurrently; a larger file is read alone."""
MIN_FILES = 64
READERS = 16
"""Small files of the tables read concurrently; on S3 each is a round trip."""
KEEP_DAYS = 90.0
"""Days for which earlier publications keep their results."""
GAP_MIN = 30.0
"""Default minutes between two sightings, as usual for camera traps (O'Brien, Kinnaird and Wibisono 2003)."""
MAX_CAMERAS = 5_000
