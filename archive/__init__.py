"""The catalogue of images and their results: ingest, Delta tables, queries and exports. Does not use Ray.

archive folder --ingest--> media (one row a file)      results (one row media_sha256 x inference_key)
runs (append-only events)                              views media, results, detections, runs (DuckDB)
"""
