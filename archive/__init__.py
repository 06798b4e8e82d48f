"""What images exist and what was seen in them: ingest, Delta tables, queries, exports. No Ray.

archive folder --ingest--> media (one row a file)      results (one row media_sha256 x inference_key)
runs (append-only events)                              views media, results, detections, runs (DuckDB)
"""
