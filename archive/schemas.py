"""Schemas of the tables: the public format (docs/reference/tables.md explains it).

Names contain the units. Scores, boxes and times of stages are float32, other numbers float64. Times are UTC unless the
name contains `local`. A camera's local time is an ISO 8601 string without offset, because Delta's timestamp without
time zone needs a feature that some readers lack.
"""

from __future__ import annotations

import pyarrow as pa

UTC = pa.timestamp("us", tz="UTC")

MEDIA = pa.schema(
    [
        ("media_sha256", pa.string()),
        ("source_root", pa.string()),
        ("path", pa.string()),
        ("size_bytes", pa.int64()),
        ("quick_digest", pa.int64()),
        ("content_tag", pa.string()),
        ("media_type", pa.string()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("header_error", pa.string()),
        ("exif_orientation", pa.int32()),
        ("captured_at_local", pa.string()),
        ("utc_offset_min", pa.int32()),
        ("captured_at_utc", UTC),
        ("timestamp_source", pa.string()),
        ("timestamp_flags", pa.list_(pa.string())),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("gps_source", pa.string()),
        ("camera_id", pa.string()),
        ("camera_source", pa.string()),
        ("camera_make", pa.string()),
        ("camera_model", pa.string()),
        ("camera_serial", pa.string()),
        ("sequence_number", pa.int32()),
        ("sequence_length", pa.int32()),
        ("trigger_mode", pa.string()),
        ("temperature_c", pa.float64()),
        ("moon_phase", pa.string()),
        ("duration_ms", pa.int64()),
        ("frame_rate", pa.float64()),
        ("frame_count", pa.int32()),
        ("clip_sha256", pa.string()),
        ("frame_index", pa.int32()),
        ("at_ms", pa.int32()),
        ("ingested_at", UTC),
        ("catalogued_at", UTC),
        ("missing_since", UTC),
    ]
)

DETECTION = pa.struct(
    [
        ("rank", pa.int32()),
        ("label", pa.string()),
        ("class_id", pa.int32()),
        ("score", pa.float32()),
        ("x1_px", pa.float32()),
        ("y1_px", pa.float32()),
        ("x2_px", pa.float32()),
        ("y2_px", pa.float32()),
        ("mask_rle", pa.string()),
        ("mask_area_px", pa.int64()),
    ]
)

RESULTS = pa.schema(
    [
        ("inference_key", pa.string()),
        ("media_sha256", pa.string()),
        ("status", pa.string()),
        ("error_code", pa.string()),
        ("error_detail", pa.string()),
        ("decode_note", pa.string()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("n_detections", pa.int32()),
        ("max_score", pa.float32()),
        ("saturated", pa.bool_()),
        ("detections", pa.list_(DETECTION)),
        ("read_ms", pa.float32()),
        ("decode_ms", pa.float32()),
        ("queue_ms", pa.float32()),
        ("inference_ms", pa.float32()),
        ("postprocess_ms", pa.float32()),
        ("run_id", pa.string()),
        ("model_name", pa.string()),
        ("model_version", pa.string()),
        ("weights_sha256", pa.string()),
        ("finished_at", UTC),
    ]
)

COUNTS = pa.struct(
    [(name, pa.int64()) for name in ("requested", "ok", "empty", "failed", "reused", "detections", "bytes")]
)

RUNS = pa.schema(
    [
        ("run_id", pa.string()),
        ("event", pa.int32()),
        ("state", pa.string()),
        ("event_at", UTC),
        ("inference_key", pa.string()),
        ("model_name", pa.string()),
        ("model_version", pa.string()),
        ("weights_sha256", pa.string()),
        ("spec", pa.string()),
        ("counts", COUNTS),
        ("message", pa.string()),
        ("stages", pa.string()),
        ("resight_version", pa.string()),
        ("kind", pa.string()),
        ("metrics", pa.string()),
        ("library_versions", pa.string()),
    ]
)

ASSERTIONS = pa.schema(
    [
        ("assertion_id", pa.string()),
        ("layer_id", pa.string()),
        ("method", pa.string()),
        ("actor", pa.string()),
        ("action", pa.string()),
        ("media_sha256", pa.string()),
        ("inference_key", pa.string()),
        ("rank", pa.int32()),
        ("x1_px", pa.float32()),
        ("y1_px", pa.float32()),
        ("x2_px", pa.float32()),
        ("y2_px", pa.float32()),
        ("label", pa.string()),
        ("score", pa.float32()),
        ("score_semantics", pa.string()),
        ("reason", pa.string()),
        ("applied_to", pa.string()),
        ("asserted_at", UTC),
        ("group_id", pa.string()),
        ("batch_id", pa.string()),
        ("withdraws", pa.string()),
    ]
)

LAYERS = pa.schema(
    [
        ("layer_id", pa.string()),
        ("kind", pa.string()),
        ("filter_version", pa.int32()),
        ("config", pa.string()),
        ("input_layers", pa.list_(pa.string())),
        ("groups", pa.string()),
        ("made_at", UTC),
        ("resight_version", pa.string()),
    ]
)

DECISIONS = pa.schema(
    [
        ("decision_id", pa.string()),
        ("decided_at", UTC),
        ("action", pa.string()),
        ("acted", pa.bool_()),
        ("model_name", pa.string()),
        ("model_version", pa.string()),
        ("inference_key", pa.string()),
        ("published_key", pa.string()),
        ("reasons", pa.list_(pa.string())),
        ("facts", pa.string()),
        ("run_id", pa.string()),
        ("resight_version", pa.string()),
    ]
)

EXPORTS = pa.schema(
    [
        ("exported_at", UTC),
        ("relation", pa.string()),
        ("inference_keys", pa.list_(pa.string())),
        ("view", pa.string()),
        ("layers", pa.list_(pa.string())),
        ("thresholds", pa.string()),
        ("model", pa.string()),
        ("rows", pa.int64()),
        ("file", pa.string()),
        ("filter", pa.string()),
    ]
)

SNIPS = pa.schema(
    [
        ("inference_key", pa.string()),
        ("media_sha256", pa.string()),
        ("settings_key", pa.string()),
        ("status", pa.string()),
        ("error_code", pa.string()),
        ("error_detail", pa.string()),
        ("names", pa.list_(pa.string())),
        ("bytes", pa.int64()),
        ("run_id", pa.string()),
        ("finished_at", UTC),
    ]
)

CLASSIFICATIONS = pa.schema(
    [
        ("inference_key", pa.string()),
        ("media_sha256", pa.string()),
        ("rank", pa.int32()),
        ("detection_id", pa.string()),
        ("classifier_key", pa.string()),
        ("margin_frac", pa.float64()),
        ("status", pa.string()),
        ("error_code", pa.string()),
        ("error_detail", pa.string()),
        ("label", pa.string()),
        ("score", pa.float32()),
        ("logits", pa.list_(pa.float32())),
        ("labels_digest", pa.string()),
        ("crop_x1_px", pa.int32()),
        ("crop_y1_px", pa.int32()),
        ("crop_x2_px", pa.int32()),
        ("crop_y2_px", pa.int32()),
        ("run_id", pa.string()),
        ("model_name", pa.string()),
        ("model_version", pa.string()),
        ("weights_sha256", pa.string()),
        ("finished_at", UTC),
    ]
)
"""`logits` are 16-bit floats in a 32-bit column: Delta has no 16-bit type, and compresses the unused bits away."""

EMBEDDINGS = pa.schema(
    [
        ("inference_key", pa.string()),
        ("media_sha256", pa.string()),
        ("rank", pa.int32()),
        ("detection_id", pa.string()),
        ("embedder_key", pa.string()),
        ("margin_frac", pa.float64()),
        ("status", pa.string()),
        ("error_code", pa.string()),
        ("error_detail", pa.string()),
        ("vector", pa.list_(pa.float32())),
        ("norm", pa.float32()),
        ("crop_x1_px", pa.int32()),
        ("crop_y1_px", pa.int32()),
        ("crop_x2_px", pa.int32()),
        ("crop_y2_px", pa.int32()),
        ("run_id", pa.string()),
        ("model_name", pa.string()),
        ("model_version", pa.string()),
        ("weights_sha256", pa.string()),
        ("finished_at", UTC),
    ]
)
"""`vector` has length 1, in 16-bit floats like `logits`; `norm` is the length that the network gave it."""

DEPLOYMENTS = pa.schema(
    [
        ("change", pa.int64()),
        ("kind", pa.string()),
        ("fact_id", pa.string()),
        ("deleted", pa.bool_()),
        ("camera_id", pa.string()),
        ("location", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("from_local", pa.string()),
        ("until_local", pa.string()),
        ("time_zone", pa.string()),
        ("clock_offset_s", pa.int64()),
        ("clock_stated_by", pa.string()),
        ("clock_reason", pa.string()),
        ("notes", pa.string()),
        ("actor", pa.string()),
        ("stated_at", UTC),
    ]
)

INDIVIDUALS = pa.schema(
    [
        ("statement_id", pa.string()),
        ("batch_id", pa.string()),
        ("actor", pa.string()),
        ("stated_at", UTC),
        ("action", pa.string()),
        ("individual_id", pa.string()),
        ("name", pa.string()),
        ("species", pa.string()),
        ("sex", pa.string()),
        ("notes", pa.string()),
        ("retired", pa.bool_()),
        ("merged_into", pa.string()),
        ("media_sha256", pa.string()),
        ("inference_key", pa.string()),
        ("rank", pa.int32()),
        ("x1_px", pa.float32()),
        ("y1_px", pa.float32()),
        ("x2_px", pa.float32()),
        ("y2_px", pa.float32()),
        ("withdraws", pa.string()),
    ]
)

TABLES: dict[str, pa.Schema] = {
    "media": MEDIA,
    "results": RESULTS,
    "runs": RUNS,
    "assertions": ASSERTIONS,
    "layers": LAYERS,
    "decisions": DECISIONS,
    "exports": EXPORTS,
    "snips": SNIPS,
    "classifications": CLASSIFICATIONS,
    "embeddings": EMBEDDINGS,
    "deployments": DEPLOYMENTS,
    "individuals": INDIVIDUALS,
}
BY_KEY = ("results", "snips", "classifications", "embeddings")
"""Tables partitioned by the inference key of the detections, and pruned with it."""
PARTITIONS: dict[str, list[str]] = {name: ["inference_key"] for name in BY_KEY}
