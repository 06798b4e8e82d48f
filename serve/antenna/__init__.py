"""Antenna (insectai.org): its processing-service API over the engine, and a worker for its job queue. No Ray.

Antenna -> POST /process -> fetch each image -> detect -> classify each box -> results, in the fields of its schema
`worker` takes tasks from Antenna's queue, and sends them to the same route of a Resight that runs.
"""
