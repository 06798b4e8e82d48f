"""Which batch, wait, threads, workers and replicas suit a model on this machine: measured, not guessed.

points (pure) -> sweep: replica processes under load -> choice (pure) -> report; apply writes deployment.json.
Only what changes no row is ever written: docs/tune.md.
"""
